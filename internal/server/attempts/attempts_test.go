package attempts

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	for n, want := range map[int64]time.Duration{
		0: 0, 2: 0, 3: time.Second, 4: 2 * time.Second, 9: 64 * time.Second, 11: 256 * time.Second, 12: 5 * time.Minute, 100: 5 * time.Minute, 1 << 40: 5 * time.Minute,
	} {
		if got := pause(n, 3); got != want {
			t.Errorf("pause(%d) = %v, want %v", n, got, want)
		}
	}
	if pause(100, 0) != 0 {
		t.Error("a limit of nought is none")
	}
}
