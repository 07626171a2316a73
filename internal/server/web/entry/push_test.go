package entry_test

import (
	"net/http"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/push/phonetest"
)

// phone gives the person one.
func (p person) phone() *phonetest.Phone {
	p.r.Helper()
	code, err := p.r.AddPhone(p.r.Context(), desk.Root(), p.name)
	p.r.must(err)
	phone, err := phonetest.New(p.r.server.Client(), p.r.clock)
	p.r.must(err)
	phone.Base = p.r.server.URL
	p.r.must(phone.Enrol(p.r.Context(), code.Link.Show(), "phone of "+p.name))
	return phone
}

// S12: that somebody is asked too often is written down at this door too.
func TestWhoIsAskedTooOftenAtThisDoorHasItWrittenDown(t *testing.T) {
	onBoth(t, func(r *rig) {
		for _, c := range []struct {
			name, path string
			browser    func(p person) *browser
			later      time.Duration // a step-up asks for another request, and not for the same again
		}{
			{"anna", "/signin/choose", func(p person) *browser { return r.browser().begins(p) }, 0},
			{"bert", "/stepup/choose", person.signedIn, time.Minute},
		} {
			p := r.person(c.name, rest.RoleNone)
			p.phone()
			b := c.browser(p)
			status := 0
			for n := 0; len(r.events(event.PushLimited, p.id)) == 0; n++ {
				if n > 10 {
					r.Fatalf("%s: asked %d times, in the end %d", c.path, n, status)
				}
				status = b.post(c.path, "kind", "push", "again", "yes").status
				r.clock.Advance(c.later)
			}
			if status != http.StatusTooManyRequests {
				r.Errorf("%s: %d", c.path, status)
			}
		}
	})
}
