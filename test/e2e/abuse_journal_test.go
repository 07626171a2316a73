//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// Whoever has an account may say a lot about himself while the server is away. None of
// it gets into the journal, and the journal is delivered.
func TestWhatAStrangerSaysKeepsNoJournalFromBeingDelivered(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	w.addUser("mallory")
	exe := s.m.guest()
	opened(t, s.here().Login("alice", s.full(alice)), true)
	s.enrolled(alice)
	s.delivered()
	s.unplug()
	for range 3 {
		out, err := s.here().TryAs("mallory", "", exe, guestMark, Socket, "answer", "10000", "mallory")
		if err != nil || !strings.Contains(out, "shim.Deny") || !strings.Contains(out, "could not be understood") {
			t.Errorf("a name of ten thousand octets: %v %s", err, out)
		}
	}
	if st, err := s.status(); err != nil || st.Offline.Undelivered != 0 {
		t.Errorf("%d entries, %v", st.Offline.Undelivered, err)
	}
	before := s.mark()
	opened(t, s.here().Login("alice", s.full(alice)), true)
	s.mend()
	s.delivered()
	for _, e := range s.since(before) {
		if e.Subject == "alice" && e.Type == "signin.allowed" && e.Link == "down" {
			return
		}
	}
	t.Errorf("the server did not hear of the sign-in: %s", short(s.since(before)))
}
