package buildinfo

import "testing"

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		version, minimum string
		older            bool
	}{
		{"1.2.0", "1.2.0", false},
		{"1.2.0-14-gabc", "1.2", false},
		{"1.2", "1.2.1", true},
		{"1.10.0", "1.9.9", false},
		{"0.9", "1", true},
		{"devel", "1.0", true},
		{"", "1.0", true},
		{"devel", "", false},
		{"1.2.3.4", "1.0", true},
	} {
		if got := Older(c.version, c.minimum); got != c.older {
			t.Errorf("Older(%q, %q) = %v", c.version, c.minimum, got)
		}
	}
	for s, valid := range map[string]bool{"1": true, "1.2.3": true, "": false, "1.2.3.4": false, "1.x": false, "1.2-rc1": false, "-1": false, "1..2": false} {
		if ValidVersion(s) != valid {
			t.Errorf("ValidVersion(%q) = %v", s, !valid)
		}
	}
}
