package entry_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/web/words"
	"latchkey/internal/text"
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

// asked is what the phone is shown, behind a choice of it at the path.
func (b *browser) asked(phone *phonetest.Phone, path string) (req push.Request, number string) {
	b.r.Helper()
	b.post(path, "kind", "push").is(http.StatusSeeOther)
	page := b.get(strings.TrimSuffix(path, "/choose")).is(http.StatusOK)
	req, _, err := phone.Next(b.r.Context(), 5*time.Second)
	b.r.must(err)
	m := pushNumber.FindStringSubmatch(page.body)
	if m == nil {
		b.r.Fatalf("no number is shown\n%s", page.text())
	}
	return req, m[1]
}

var pushNumber = regexp.MustCompile(`(?s)data-number[^>]*>\s*(\d\d)`)

// S12: no phone asks for somebody who has gone from the page, gives something else, or
// begins anew; a browser that is only silent for a while is waited for.
func TestWhoDoesNotWaitLeavesNoRequestOnThePhone(t *testing.T) {
	onBoth(t, func(r *rig) {
		open := func(phone *phonetest.Phone) int {
			all, err := phone.Requests(r.Context(), 0)
			r.must(err)
			return len(all.Requests)
		}
		for _, c := range []struct {
			name string
			do   func(p person, b *browser)
			want int
		}{
			{"the-page-is-left", func(_ person, b *browser) {
				b.post("/signin/leave").is(http.StatusNoContent)
				b.post("/signin/leave").is(http.StatusNoContent)
				b.get("/signin").is(http.StatusOK).has(words.ProofChoose)
			}, 0},
			{"an-app", func(p person, b *browser) { b.post("/signin/code", "kind", "totp", "code", p.fresh()).goes("/") }, 0},
			{"begins-anew", func(_ person, b *browser) { b.post("/signin/restart").is(http.StatusSeeOther) }, 0},
			{"too-many-wrong-codes", func(_ person, b *browser) {
				for range 3 {
					b.post("/signin/code", "kind", "totp", "code", "000000")
				}
			}, 0},
			{"a-wrong-code", func(_ person, b *browser) {
				b.post("/signin/code", "kind", "totp", "code", "000000").is(http.StatusUnprocessableEntity)
			}, 1},
			{"silence", func(person, *browser) { r.clock.Advance(30 * time.Second) }, 1},
			{"looks-and-looks-again", func(_ person, b *browser) {
				b.post("/signin/code", "kind", "push").is(http.StatusSeeOther)
				b.post("/signin/code", "kind", "push").is(http.StatusSeeOther)
			}, 1},
		} {
			p := r.person(c.name, rest.RoleNone)
			phone := p.phone()
			b := r.browser().begins(p)
			b.asked(phone, "/signin/choose")
			c.do(p, b)
			if n := open(phone); n != c.want {
				r.Errorf("%s: %d open, want %d", c.name, n, c.want)
			}
			if e := r.events(event.PushWithdrawn, p.id); len(e) != 1-c.want {
				r.Errorf("%s: events %+v", c.name, e)
			}
		}
		// A step-up the same; the session stays.
		for name, do := range map[string]func(p person, b *browser){
			"leaves": func(_ person, b *browser) { b.post("/stepup/leave").is(http.StatusNoContent) },
			"proves": func(p person, b *browser) {
				b.post("/stepup", "kind", "totp", "code", p.fresh()).is(http.StatusSeeOther)
			},
		} {
			p := r.person(name, rest.RoleNone)
			phone := p.phone()
			b := p.signedIn()
			r.clock.Advance(time.Minute) // the code before was used
			b.asked(phone, "/stepup/choose")
			do(p, b)
			if n := open(phone); n != 0 || len(r.events(event.PushWithdrawn, p.id)) != 1 {
				r.Errorf("%s: %d open behind a step-up", name, n)
			}
			b.get("/me").is(http.StatusOK)
		}
		r.browser().post("/signin/leave").is(http.StatusNoContent) // of nobody
	})
}

// A phone that is not trusted any more, behind its approval, has said nothing: there is
// another way on.
func TestAPhoneThatIsGoneLeadsBackToTheChoice(t *testing.T) {
	onBoth(t, func(r *rig) {
		anna := r.person("anna", rest.RoleNone)
		phone := anna.phone()
		b := r.browser().begins(anna)
		req, number := b.asked(phone, "/signin/choose")
		r.must(phone.Approve(r.Context(), req, number))
		// The row alone: losing it at the desk ends the sign-in.
		r.update(func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.SetAuthenticatorLost(ctx, phone.Device)
			return err
		})
		b.post("/signin/code", "kind", "push").is(http.StatusUnprocessableEntity).has(text.PushWithdrawn)
		b.post("/signin/code", "kind", "totp", "code", anna.fresh()).goes("/")
	})
}

// A no on the phone counts as a wrong code does, at the sign-in and at a step-up: whoever
// has the password and makes a phone ring waits longer each time (S12).
func TestADenialOnThePhoneIsAnAttempt(t *testing.T) {
	onBoth(t, func(r *rig) {
		failures := func(p person) (n int64) {
			r.must(r.Store.Read(r.Context(), func(q *store.Queries) error {
				a, err := q.GetAttempt(r.Context(), db.GetAttemptParams{UserID: p.id})
				n = a.Failures
				if store.IsNotFound(err) {
					return nil
				}
				return err
			}))
			return n
		}
		for _, c := range []struct {
			name, path, answer string
			browser            func(p person) *browser
			status             int
		}{
			{"anna", "/signin/choose", "/signin/code", func(p person) *browser { return r.browser().begins(p) }, http.StatusUnauthorized},
			{"bert", "/stepup/choose", "/stepup", person.signedIn, http.StatusUnprocessableEntity},
		} {
			p := r.person(c.name, rest.RoleNone)
			phone := p.phone()
			b := c.browser(p)
			before := failures(p)
			req, _ := b.asked(phone, c.path)
			if failures(p) != before {
				r.Errorf("%s: asking counts", c.path)
			}
			r.must(phone.Deny(r.Context(), req))
			b.post(c.answer, "kind", "push").is(c.status).has(text.PushDenied)
			if n := failures(p); n != before+1 {
				r.Errorf("%s: %d failures behind a denial, before %d", c.path, n, before)
			}
		}
	})
}
