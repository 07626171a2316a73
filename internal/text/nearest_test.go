package text

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"window", "offline_days", "offline_tries", "listen", "listen-agent", "log"}
	for _, c := range []struct{ word, want string }{
		{"windwo", "window"},
		{"Offline-Day", "offline_days"},
		{"listen_agent", "listen-agent"},
		{"lisetn", "listen"},
		{"lgo", "log"},
		{"data", ""},
		{"", ""},
		{"offline_something_else_entirely", ""},
	} {
		if got := Nearest(c.word, names); got != c.want {
			t.Errorf("%q is near %q, want %q", c.word, got, c.want)
		}
	}
}
