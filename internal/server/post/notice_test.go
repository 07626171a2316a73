package post_test

import (
	"strings"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
)

// TestANoteOfWhatSignsInInSomebodysPlace: a copy of a key, and a new certificate; one that
// the machine has renewed by itself is told to nobody.
func TestANoteOfWhatSignsInInSomebodysPlace(t *testing.T) {
	o := open(t, clock.NewManual(start))
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	for _, e := range []event.Event{
		{Type: event.CertificateIssued, Reason: "renewed"},
		{Type: event.FactorCloned, Factor: "fido2", Actor: "server"},
		{Type: event.CertificateIssued},
	} {
		e.UserID, e.Subject = o.user.ID, o.user.Name
		o.note(e)
	}
	for o.step(rest.ChannelMail) {
	}
	got := r.letters()
	if len(got) != 2 {
		t.Fatalf("%d mails", len(got))
	}
	for i, says := range []string{"a copy of your security key or passkey", "A certificate was issued for you"} {
		if _, body := got[i].read(t); !strings.Contains(body, says) {
			t.Errorf("%q is not in\n%s", says, body)
		}
	}
}
