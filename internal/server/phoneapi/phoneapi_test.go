package phoneapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/factor"
	factorpush "latchkey/internal/server/factor/push"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// rig is a desk, the phones' door on a real TLS listener, and a sign-in's side of push.
type rig struct {
	testing.TB
	*desktest.Rig
	clock *clock.Manual
	door  *phoneapi.Door
	url   string
	http  *http.Client
	plug  factor.Waiter
	anna  db.User
	m     db.Machine
}

// engines runs fn on both engines, and verifies the chain of events behind it.
func engines(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		r := newRig(t, database)
		fn(t, r)
		if v, err := r.Desk.VerifyEvents(t.Context(), desk.Root(), rest.Verify{}); err != nil || !v.Whole {
			t.Errorf("the event chains: %+v, %v", v, err)
		}
	})
}

func newRig(t testing.TB, database string) *rig {
	t.Helper()
	c := clock.NewManual(start)
	s := storetest.Open(t, store.Config{Database: database, Clock: c})
	r := &rig{TB: t, Rig: desktest.New(t, s, c), clock: c}
	r.plug = factorpush.New(r.Push)
	r.door = phoneapi.New(phoneapi.Deps{Push: r.Push, Desk: r.Desk, Store: s, Clock: c, Log: slog.New(slog.DiscardHandler), PerPhone: rate.Rate{PerSecond: 1000, Burst: 1000}})
	srv := httptest.NewTLSServer(r.door)
	t.Cleanup(func() {
		r.door.Stop()
		srv.Close()
	})
	r.url, r.http = srv.URL, srv.Client()
	r.anna = r.user("anna")
	r.m = r.Machine(t, "bridge", "active")
	return r
}

func (r *rig) user(name string) (u db.User) {
	r.Helper()
	if _, err := r.AddUser(r.Context(), desk.Root(), rest.NewUser{Name: name}); err != nil {
		r.Fatal(err)
	}
	r.read(func(q *store.Queries) (err error) { u, err = q.GetUserByName(r.Context(), name); return err })
	return u
}

func (r *rig) read(fn func(q *store.Queries) error) {
	r.Helper()
	if err := r.Store.Read(context.Background(), fn); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) update(fn func(ctx context.Context, tx *store.Tx) error) {
	r.Helper()
	if err := r.Store.Update(context.Background(), fn); err != nil {
		r.Fatal(err)
	}
}

// phone enrols one for the user, by a code that root has made.
func (r *rig) phone(user, name string) *phonetest.Phone {
	r.Helper()
	p, err := r.enrol(user, name)
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func (r *rig) enrol(user, name string) (*phonetest.Phone, error) {
	r.Helper()
	code, err := r.AddPhone(r.Context(), desk.Root(), user)
	if err != nil {
		return nil, err
	}
	p, err := phonetest.New(r.http, r.clock)
	if err != nil {
		return nil, err
	}
	p.Base = r.url
	return p, p.Enrol(r.Context(), code.Link.Show(), name)
}

// reload reads anna anew: her generation has risen.
func (r *rig) ask(ticket string) factor.Ask {
	var u db.User
	r.read(func(q *store.Queries) (err error) { u, err = q.GetUser(r.Context(), r.anna.ID); return err })
	return factor.Ask{
		User: u, Ticket: ticket, Door: factor.AtMachine, Machine: r.m.ID, Name: r.m.Name, Scope: policy.Remote, Service: "sshd", Address: "198.51.100.7", Now: r.clock.Now(),
	}
}

func (r *rig) try(a factor.Ask) factor.Try {
	return factor.Try{User: a.User, Machine: a.Machine, Scope: a.Scope, Typed: secret.FromString(""), Now: r.clock.Now(), Ticket: a.Ticket, Door: a.Door}
}

func (r *rig) mustSend(a factor.Ask) factor.Sent {
	r.Helper()
	var refused error
	var sent factor.Sent
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		sent, refused = r.plug.Send(ctx, tx, a)
		if fault.Is(refused, fault.TooMany) {
			return nil
		}
		return refused
	})
	if refused != nil {
		r.Fatal(refused)
	}
	return sent
}

// refusedSend is the sentence with which a request is not sent.
func (r *rig) refusedSend(a factor.Ask) string {
	r.Helper()
	var refused error
	r.update(func(ctx context.Context, tx *store.Tx) error {
		_, refused = r.plug.Send(ctx, tx, a)
		return nil
	})
	if !fault.Is(refused, fault.TooMany) {
		r.Fatalf("sent, or another fault: %v", refused)
	}
	return fault.Of(refused).Public()
}

func (r *rig) judge(a factor.Ask) (v factor.Verdict) {
	r.Helper()
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		v, err = r.plug.Judge(ctx, tx, r.try(a))
		return err
	})
	return v
}

func (r *rig) next(p *phonetest.Phone) (push.Request, push.Content) {
	r.Helper()
	req, c, err := p.Next(r.Context(), 5*time.Second)
	if err != nil {
		r.Fatal(err)
	}
	return req, c
}

// events are those of the type, the oldest first.
func (r *rig) events(t event.Type) (out []event.Event) {
	r.Helper()
	page, err := r.ListEvents(r.Context(), desk.Root(), desk.EventFilter{Types: []string{string(t)}}, "", 100)
	if err != nil {
		r.Fatal(err)
	}
	for _, e := range page.Items {
		out = append(out, event.Event{Type: event.Type(e.Type), Reason: e.Reason, Subject: e.Subject, Machine: e.Machine, Address: e.Address, Data: e.Data})
	}
	return out
}

// code is the refusal of a phone.
func (r *rig) code(err error, status int, code string) {
	r.Helper()
	var e *phonetest.Error
	if !errors.As(err, &e) {
		r.Errorf("got %v, want %d %s", err, status, code)
		return
	}
	if e.Status != status || e.Code != code {
		r.Errorf("got %d %s (%s), want %d %s", e.Status, e.Code, e.Message, status, code)
	}
	if e.Message == "" {
		r.Errorf("%s says nothing to people", code)
	}
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func TestAPersonApprovesWithTheNumberThatStandsAtTheSignin(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "Anna's Pixel")
		if p.User != "anna" || p.Told.People != desktest.People || p.Told.Server != "latchkey.test" || p.Told.VAPID == "" || p.Told.Name != "Anna's Pixel" {
			t.Errorf("enrolled: %+v", p.Told)
		}
		ask := r.ask("t1")
		sent := r.mustSend(ask)
		if len(sent.Number) != 2 || !strings.Contains(sent.Prompt, sent.Number) || !sent.Expires.Equal(start.Add(push.Life)) {
			t.Errorf("sent %+v", sent)
		}
		if v := r.judge(ask); v.Outcome != factor.Waiting {
			t.Errorf("nobody has answered: %+v", v)
		}
		req, c := r.next(p)
		want := push.Content{
			Machine: "bridge", Place: "over the network", Address: "198.51.100.7", Scope: "remote", Service: "sshd", Door: "machine", User: "anna", At: start.Unix(),
			Expires: start.Add(push.Life).Unix(), Nonce: req.Nonce,
		}
		if c != want || req.Digits != 2 || req.Verification {
			t.Errorf("the phone shows %+v, want %+v", c, want)
		}
		if strings.Contains(req.Content, sent.Number+`"`) {
			t.Error("the number goes to the phone")
		}
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			r.plug.Wait(t.Context(), "t1")
		}()
		r.ok(p.Approve(t.Context(), req, sent.Number))
		select {
		case <-waited:
		case <-time.After(5 * time.Second):
			t.Fatal("whoever waits was not woken")
		}
		if v := r.judge(ask); !v.OK() || !v.Own || v.ID != p.Device || v.Data["device"] != "Anna's Pixel" {
			t.Errorf("approved: %+v", v)
		}
		if v := r.judge(ask); v.OK() || v.Outcome == factor.Waiting {
			t.Errorf("an approval counts twice: %+v", v)
		}
		if e := r.events(event.PushApproved); len(e) != 1 || e[0].Machine != "bridge" || e[0].Address != "127.0.0.1" {
			t.Errorf("events %+v", e)
		}
		list, err := r.ListFactors(t.Context(), desk.Root(), "anna")
		r.ok(err)
		if len(list.Items) != 2 || list.Items[0].Kind != "push" || list.Items[0].LastUsedAt.IsZero() || list.Items[0].Phone == nil || !list.Items[0].Phone.Installed ||
			list.Items[1].Kind != "totp" || list.Items[1].On != list.Items[0].ID || list.Items[1].Name != "Anna's Pixel" {
			t.Errorf("factors %+v", list.Items)
		}
	})
}

// other is a number that is not n.
func other(n string) string {
	if n == "10" {
		return "11"
	}
	return "10"
}

func TestWhatEndsARequest(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		for i, c := range []struct {
			name   string
			do     func(req push.Request, number string) error
			status int
			code   string
			want   factor.Verdict
		}{
			{"denied", func(req push.Request, _ string) error { return p.Deny(t.Context(), req) }, 0, "", factor.Verdict{Reason: factor.ReasonDenied, Outcome: factor.Ended}},
			{"a wrong number", func(req push.Request, n string) error { return p.Approve(t.Context(), req, other(n)) }, 422, "number", factor.Verdict{Reason: factor.ReasonWrongNumber, Outcome: factor.Ended}},
			{"nobody answers", func(req push.Request, n string) error {
				r.clock.Advance(push.Life)
				return p.Approve(t.Context(), req, n)
			}, 409, "expired", factor.Verdict{Reason: factor.ReasonExpired, Outcome: factor.Over}},
			{"approved, and looked at too late", func(req push.Request, n string) error {
				err := p.Approve(t.Context(), req, n)
				r.clock.Advance(time.Minute)
				return err
			}, 0, "", factor.Verdict{Reason: factor.ReasonExpired, Outcome: factor.Over}},
		} {
			t.Run(c.name, func(t *testing.T) {
				ask := r.ask("e" + string(rune('a'+i)))
				sent := r.mustSend(ask)
				req, _ := r.next(p)
				err := c.do(req, sent.Number)
				if c.code == "" {
					r.ok(err)
				} else {
					r.code(err, c.status, c.code)
				}
				v := r.judge(ask)
				if v.Outcome != c.want.Outcome || v.Reason != c.want.Reason || v.Text == "" {
					t.Errorf("got %+v, want %+v", v, c.want)
				}
				// There was one guess.
				if err := p.Approve(t.Context(), req, sent.Number); err == nil {
					t.Error("approved behind the end")
				}
				if v := r.judge(ask); v.OK() {
					t.Error("accepted behind the end")
				}
			})
			r.clock.Advance(11 * time.Minute)
		}
		if e := r.events(event.PushDenied); len(e) != 2 {
			t.Errorf("denials: %+v", e)
		}
	})
}

// S12: whoever gives up leaves no request on a phone, and keeps nobody from the next one.
func TestARequestBehindWhichNobodyWaitsIsWithdrawn(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		withdraw := func(ticket string) {
			t.Helper()
			r.update(func(ctx context.Context, tx *store.Tx) error { return r.plug.Withdraw(ctx, tx, ticket) })
		}
		ask := r.ask("w1")
		sent := r.mustSend(ask)
		req, _ := r.next(p)
		waited, told := make(chan struct{}), make(chan push.Requests, 1)
		go func() {
			defer close(waited)
			r.plug.Wait(t.Context(), "w1")
		}()
		go func() {
			all, _ := p.Requests(t.Context(), 20*time.Second, req.ID)
			told <- all
		}()
		time.Sleep(200 * time.Millisecond) // until both hang; shorter is no fault
		withdraw("w1")
		for name, c := range map[string]func() bool{
			"who waits": func() bool { <-waited; return true },
			"the phone": func() bool { return len((<-told).Requests) == 0 },
		} {
			done := make(chan bool, 1)
			go func() { done <- c() }()
			select {
			case ok := <-done:
				if !ok {
					t.Errorf("%s still sees it", name)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%s is not told", name)
			}
		}
		r.code(p.Approve(t.Context(), req, sent.Number), 409, "answered")
		if v := r.judge(ask); v.Outcome != factor.Over || v.Reason != push.ReasonWithdrawn {
			t.Errorf("got %+v", v)
		}
		// At the same machine, for another sign-in, at once.
		next := r.ask("w2")
		sent = r.mustSend(next)
		req, _ = r.next(p)
		r.ok(p.Approve(t.Context(), req, sent.Number))
		// What was answered stays, whoever says it is over; so does what is of nobody.
		withdraw("w2")
		withdraw("w1")
		withdraw("nobody's")
		if v := r.judge(next); !v.OK() {
			t.Errorf("an approval was withdrawn: %+v", v)
		}
		if e := r.events(event.PushWithdrawn); len(e) != 1 || e[0].Subject != "anna" || e[0].Machine != "bridge" || e[0].Address != "198.51.100.7" {
			t.Errorf("events %+v", e)
		}
	})
}

// S12: whoever has asked, and does not wait any more, takes nobody the word "it wasn't me".
func TestAReportCountsBehindTheEndOfARequest(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(r *rig, ticket string)
	}{
		{"withdrawn", func(r *rig, ticket string) {
			r.update(func(ctx context.Context, tx *store.Tx) error { return r.plug.Withdraw(ctx, tx, ticket) })
		}},
		{"over, and nobody has looked", func(r *rig, _ string) { r.clock.Advance(push.Life) }},
		{"over, and the next one was asked for", func(r *rig, _ string) {
			r.clock.Advance(push.Life)
			r.mustSend(r.ask("next"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			engines(t, func(t *testing.T, r *rig) {
				p := r.phone("anna", "phone")
				r.user("bert")
				berts := r.phone("bert", "his phone")
				ask := r.ask("b1")
				sent := r.mustSend(ask)
				req, _ := r.next(p)
				c.end(r, "b1")
				r.clock.Advance(time.Second)
				nothing := func() {
					t.Helper()
					if acc, err := p.Account(t.Context()); err != nil || acc.Locked {
						t.Fatalf("locked: %+v %v", acc, err)
					}
					if e := r.events(event.PushReported); len(e) != 0 {
						t.Fatalf("events %+v", e)
					}
				}
				// Nothing else counts any more.
				for _, a := range []push.Answer{p.Draft(req, push.Approve, sent.Number), p.Draft(req, push.Deny, "")} {
					if _, err := p.Send(t.Context(), req.ID, a); err == nil {
						t.Errorf("%s counts", a.Decision)
					}
				}
				bent := p.Draft(req, push.Report, "")
				bent.Signature = p.Draft(req, push.Deny, "").Signature
				_, err := p.Send(t.Context(), req.ID, bent)
				r.code(err, 422, "signature")
				other := req
				other.Content = strings.Replace(req.Content, "bridge", "elsewhere", 1)
				_, err = p.Send(t.Context(), req.ID, p.Draft(other, push.Report, ""))
				r.code(err, 409, "content")
				_, err = berts.Send(t.Context(), req.ID, berts.Draft(req, push.Report, ""))
				r.code(err, 404, "not-found")
				nothing()
				// What it was can still be seen by the phone, and by no other one.
				if past, err := p.Past(t.Context(), req.ID); err != nil || past.Content != req.Content || past.Nonce != req.Nonce {
					t.Errorf("%+v %v", past, err)
				}
				_, err = berts.Past(t.Context(), req.ID)
				r.code(err, 404, "not-found")

				r.ok(p.Report(t.Context(), req))
				if acc, err := p.Account(t.Context()); err != nil || !acc.Locked {
					t.Errorf("not locked: %+v %v", acc, err)
				}
				if why := r.refusedSend(r.ask("b2")); !strings.Contains(why, "locked") {
					t.Errorf("refused with %q", why)
				}
				if all, err := p.Requests(t.Context(), 0); err != nil || len(all.Requests) != 0 {
					t.Errorf("still open: %+v %v", all, err)
				}
				once := func() {
					t.Helper()
					if e := r.events(event.PushReported); len(e) != 1 || !strings.Contains(string(e[0].Data), `"alert"`) || e[0].Machine != "bridge" {
						t.Errorf("events %+v", e)
					}
					reports, err := r.ListReports(t.Context(), desk.Root(), "", "anna", "", 0)
					r.ok(err)
					if len(reports.Items) != 1 || reports.Items[0].Kind != rest.ReportPush {
						t.Errorf("reports %+v", reports.Items)
					}
				}
				once()
				_, err = p.Send(t.Context(), req.ID, p.Draft(req, push.Report, ""))
				r.code(err, 409, "answered")
				once()
				// Nor does it lock again what the help desk has unlocked.
				if _, err := r.UnlockPush(t.Context(), desk.Root(), "anna"); err != nil {
					t.Fatal(err)
				}
				_, err = p.Send(t.Context(), req.ID, p.Draft(req, push.Report, ""))
				r.code(err, 409, "answered")
				if acc, err := p.Account(t.Context()); err != nil || acc.Locked {
					t.Errorf("a replay locks: %+v %v", acc, err)
				}
				once()
			})
		})
	}
	t.Run("for a quarter of an hour", func(t *testing.T) {
		engines(t, func(t *testing.T, r *rig) {
			p := r.phone("anna", "phone")
			r.mustSend(r.ask("q1"))
			req, _ := r.next(p)
			r.clock.Advance(15 * time.Minute)
			r.code(p.Report(t.Context(), req), 409, "expired")
			_, err := p.Past(t.Context(), req.ID)
			r.code(err, 404, "not-found")
			if acc, err := p.Account(t.Context()); err != nil || acc.Locked {
				t.Errorf("locked: %+v %v", acc, err)
			}
			if e := r.events(event.PushRefused); len(e) != 1 || e[0].Reason != "push-late" {
				t.Errorf("events %+v", e)
			}
		})
	})
}

// S12: at the people's door who asks and withdraws over and over is slowed down; who has
// given up once is not.
func TestWhoWithdrawsAgainAndAgainWaits(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		r.phone("anna", "phone")
		at := func(ticket string, door factor.Door) factor.Ask {
			a := r.ask(ticket)
			a.Door, a.Machine, a.Name = door, "", "latchkey.test"
			return a
		}
		withdraw := func(ticket string) {
			t.Helper()
			r.update(func(ctx context.Context, tx *store.Tx) error { return r.plug.Withdraw(ctx, tx, ticket) })
		}
		r.mustSend(at("g1", factor.AtPortal))
		withdraw("g1")
		r.mustSend(at("g2", factor.AtPortal)) // Ctrl-C, and again
		r.clock.Advance(2 * time.Second)
		withdraw("g2")
		r.clock.Advance(time.Second)
		if why := r.refusedSend(at("g3", factor.AtPortal)); !strings.Contains(why, "14 seconds") {
			t.Errorf("refused with %q", why)
		}
		r.mustSend(r.ask("g4")) // a machine goes its own way
		r.clock.Advance(14 * time.Second)
		r.mustSend(at("g5", factor.AtPortal))
	})
}

func TestReplayedAlteredForeignAndLateAnswersAreRefusedWithTheirEvent(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		r.user("bert")
		berts := r.phone("bert", "his phone")
		ask := r.ask("x1")
		sent := r.mustSend(ask)
		req, _ := r.next(p)
		good := p.Draft(req, push.Approve, sent.Number)
		resign := func(a push.Answer) push.Answer {
			a.Signature = p.Sign(phonetest.Message(req.ID, a))
			return a
		}
		bent := func(fn func(a *push.Answer)) push.Answer { a := good; fn(&a); return a }
		otherContent := push.ContentHash(strings.Replace(req.Content, "bridge", "elsewhere", 1))
		for _, c := range []struct {
			name   string
			phone  *phonetest.Phone
			id     string
			answer push.Answer
			status int
			code   string
			reason string
		}{
			{"of another content, signed", p, req.ID, resign(bent(func(a *push.Answer) { a.ContentHash = otherContent })), 409, "content", "push-altered"},
			{"of another nonce, signed", p, req.ID, resign(bent(func(a *push.Answer) { a.Nonce = "AAAA" })), 409, "content", "push-altered"},
			{"of another decision", p, req.ID, bent(func(a *push.Answer) { a.Decision, a.Number = push.Deny, "" }), 422, "signature", "push-altered"},
			{"of another number", p, req.ID, bent(func(a *push.Answer) { a.Number = other(sent.Number) }), 422, "signature", "push-altered"},
			{"with a signature of the wrong length", p, req.ID, bent(func(a *push.Answer) { a.Signature = "AAAA" }), 422, "signature", "push-altered"},
			{"signed for another request", p, req.ID, bent(func(a *push.Answer) {
				a.Signature = p.Sign(phonetest.Message("0199aaaa-0000-7000-8000-000000000000", good))
			}), 422, "signature", "push-altered"},
			{"signed by another key", p, req.ID, bent(func(a *push.Answer) { a.Signature = berts.Sign(phonetest.Message(req.ID, good)) }), 422, "signature", "push-altered"},
			{"of somebody else's phone", berts, req.ID, berts.Draft(req, push.Approve, sent.Number), 404, "not-found", "push-foreign"},
			{"to a request that is none", p, "0199aaaa-0000-7000-8000-000000000000", good, 404, "not-found", ""},
			{"without a number", p, req.ID, resign(bent(func(a *push.Answer) { a.Number = "" })), 422, "invalid", ""},
			{"a denial with a number", p, req.ID, resign(bent(func(a *push.Answer) { a.Decision = push.Deny })), 422, "invalid", ""},
			{"a decision that is none", p, req.ID, resign(bent(func(a *push.Answer) { a.Decision = "yes" })), 422, "invalid", ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				before := len(r.events(event.PushRefused))
				_, err := c.phone.Send(t.Context(), c.id, c.answer)
				r.code(err, c.status, c.code)
				after := r.events(event.PushRefused)
				switch {
				case c.reason == "" && len(after) != before:
					t.Error("an event for what is no answer")
				case c.reason != "" && (len(after) != before+1):
					t.Errorf("events %+v", after)
				case c.reason != "":
					found := false
					for _, e := range after {
						found = found || e.Reason == c.reason
					}
					if !found {
						t.Errorf("no event with the reason %s: %+v", c.reason, after)
					}
				}
				if v := r.judge(ask); v.Outcome != factor.Waiting {
					t.Fatalf("it has moved the request: %+v", v)
				}
			})
		}
		// The good one counts, and once.
		if state, err := p.Send(t.Context(), req.ID, good); err != nil || state != push.StateApproved {
			t.Fatal(state, err)
		}
		_, err := p.Send(t.Context(), req.ID, good)
		r.code(err, 409, "answered")
		if v := r.judge(ask); !v.OK() {
			t.Errorf("%+v", v)
		}
		_, err = p.Send(t.Context(), req.ID, good)
		r.code(err, 409, "answered")
		n := 0
		for _, e := range r.events(event.PushRefused) {
			if e.Reason == "push-replayed" {
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d events of replays, want 2", n)
		}
	})
}

func TestItWasntMeLocksAndAlerts(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		ask := r.ask("r1")
		r.mustSend(ask)
		second := ask
		second.Ticket, second.Door, second.Machine, second.Name = "r2", factor.AtPortal, "", "latchkey.test"
		sent2 := r.mustSend(second)
		all, err := p.Requests(t.Context(), 0)
		r.ok(err)
		if len(all.Requests) != 2 || all.Locked {
			t.Fatalf("%+v", all)
		}
		// The second was approved, and its sign-in has not looked yet.
		r.ok(p.Approve(t.Context(), all.Requests[1], sent2.Number))
		r.ok(p.Report(t.Context(), all.Requests[0]))
		if v := r.judge(ask); v.Reason != factor.ReasonReported || v.Outcome != factor.Ended {
			t.Errorf("%+v", v)
		}
		if v := r.judge(second); v.OK() {
			t.Error("what was approved before the report counts")
		}
		if why := r.refusedSend(r.ask("r3")); !strings.Contains(why, "locked") {
			t.Errorf("refused with %q", why)
		}
		if e := r.events(event.PushReported); len(e) != 1 || !strings.Contains(string(e[0].Data), `"alert"`) {
			t.Errorf("%+v", e)
		}
		reports, err := r.ListReports(t.Context(), desk.Root(), "", "anna", "", 0)
		r.ok(err)
		if len(reports.Items) != 1 || reports.Items[0].Kind != rest.ReportPush || reports.Items[0].Machine != "bridge" {
			t.Errorf("%+v", reports.Items)
		}
		list, err := r.ListFactors(t.Context(), desk.Root(), "anna")
		r.ok(err)
		if list.Items[0].State != "locked" || list.Items[1].State != "usable" {
			t.Errorf("factors %+v", list.Items)
		}
		if acc, err := p.Account(t.Context()); err != nil || !acc.Locked {
			t.Errorf("%+v %v", acc, err)
		}
		done, err := r.UnlockPush(t.Context(), desk.Root(), "anna")
		r.ok(err)
		if done.Count != 1 {
			t.Error("nothing was unlocked")
		}
		r.mustSend(r.ask("r4"))
		if e := r.events(event.PushUnlocked); len(e) != 1 {
			t.Errorf("%+v", e)
		}
		if done, err := r.UnlockPush(t.Context(), desk.Root(), "anna"); err != nil || done.Count != 0 {
			t.Error(done, err)
		}
	})
}

func TestNobodyIsWornOutWithRequests(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		// One for a user and machine; of the same sign-in the new one replaces the old.
		ask := r.ask("f1")
		ask.Door = factor.AtPortal
		r.mustSend(ask)
		second := ask
		second.Ticket = "f2"
		if why := r.refusedSend(second); !strings.Contains(why, "60 seconds") {
			t.Errorf("refused with %q", why)
		}
		r.mustSend(ask)
		// At a machine, a request whose conversation is over does not keep the next one out.
		r.mustSend(r.ask("f3"))
		r.mustSend(r.ask("f4"))
		if v := r.judge(r.ask("f3")); v.Outcome != factor.Over {
			t.Errorf("withdrawn: %+v", v)
		}
		// Four came to nothing or are open; with the fifth it is enough.
		third := ask
		third.Door, third.Ticket = factor.AtStepUp, "f5"
		r.mustSend(third)
		r.clock.Advance(2 * time.Minute)
		if why := r.refusedSend(r.ask("f6")); !strings.Contains(why, "Too many") {
			t.Errorf("refused with %q", why)
		}
		if e := r.events(event.PushLimited); len(e) != 1 {
			t.Errorf("%+v", e)
		}
		r.clock.Advance(9 * time.Minute)
		// What is approved is no fatigue.
		for range 7 {
			a := r.ask(store.NewID())
			sent := r.mustSend(a)
			req, _ := r.next(p)
			r.ok(p.Approve(t.Context(), req, sent.Number))
			if !r.judge(a).OK() {
				t.Fatal("not accepted")
			}
		}
	})
}

// TestAMachineOfAnotherKeepsNobodyFromTheirOwn: who holds one machine, and has it say that
// people are there, can neither use up their requests nor ring the phones of everybody.
func TestAMachineOfAnotherKeepsNobodyFromTheirOwn(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		a := r.ask("own")
		sent := r.mustSend(a)
		req, _ := r.next(p)
		r.ok(p.Approve(t.Context(), req, sent.Number))
		if !r.judge(a).OK() {
			t.Fatal("not accepted")
		}
		// Begun, sent and given up, over and over, at machines that are new to her.
		evil, second := r.Machine(t, "evil", "active"), r.Machine(t, "evil-2", "active")
		rings := func(m db.Machine, u db.User, unproven bool, times int) (n int) {
			for range times {
				a := r.ask(store.NewID())
				a.User, a.Machine, a.Name, a.Unproven = u, m.ID, m.Name, unproven
				r.update(func(ctx context.Context, tx *store.Tx) error {
					switch _, err := r.plug.Send(ctx, tx, a); {
					case err == nil:
						n++
					case !fault.Is(err, fault.TooMany):
						return err
					}
					return nil
				})
			}
			return n
		}
		if n := rings(evil, r.anna, false, 9); n != 4 {
			t.Errorf("one machine rings %d times in ten minutes", n)
		}
		if n := rings(second, r.anna, false, 9); n != 1 {
			t.Errorf("two machines ring %d times in ten minutes", 4+n)
		}
		for i := range 6 * 12 { // and so on for half a day
			r.clock.Advance(10 * time.Minute)
			if n := rings([]db.Machine{evil, second}[i%2], r.anna, false, 5); n > 4 {
				t.Fatalf("%d rings", n)
			}
		}
		if n := rings(evil, r.anna, false, 5); n != 0 {
			t.Errorf("%d rings after half a day", n)
		}
		// Her own machine and the portal ask as before.
		portal := r.ask("portal")
		portal.Door, portal.Machine, portal.Name = factor.AtPortal, "", "portal"
		for _, a := range []factor.Ask{r.ask("own-2"), portal} {
			sent := r.mustSend(a)
			for {
				req, c := r.next(p)
				if c.Machine != a.Name {
					r.ok(p.Deny(t.Context(), req))
					continue
				}
				r.ok(p.Approve(t.Context(), req, sent.Number))
				break
			}
			if !r.judge(a).OK() {
				t.Errorf("not accepted at %s", a.Name)
			}
		}
		// Where nobody but the machine says that somebody is there, it is less.
		ben := r.user("ben")
		r.phone("ben", "phone")
		if n := rings(r.Machine(t, "evil-3", "active"), ben, true, 9); n != 2 {
			t.Errorf("%d rings without proof", n)
		}
		// One machine, everybody's phones.
		fresh := r.Machine(t, "evil-4", "active")
		n := 0
		for i := range 30 {
			r.clock.Advance(30 * time.Second)
			u := r.user(fmt.Sprint("u", i))
			r.phone(u.Name, "phone")
			n += rings(fresh, u, false, 1)
		}
		if n != 20 {
			t.Errorf("%d phones rang", n)
		}
		if e := r.events(event.FactorLimited); len(e) != 10 || e[0].Machine != fresh.Name || e[0].Reason != factor.ReasonMachine || !strings.Contains(string(e[0].Data), `"alert"`) {
			t.Errorf("%d events: %+v", len(e), e)
		}
	})
}

// TestAnApprovalCountsAtItsDoorAlone: S2, M3.
func TestAnApprovalCountsAtItsDoorAlone(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		for _, door := range []factor.Door{factor.AtMachine, factor.AtPortal, factor.AtStepUp} {
			a := r.ask(store.NewID())
			a.Door = door
			if door != factor.AtMachine {
				a.Machine = ""
			}
			sent := r.mustSend(a)
			req, _ := r.next(p)
			r.ok(p.Approve(t.Context(), req, sent.Number))
			for _, other := range []factor.Door{factor.AtMachine, factor.AtPortal, factor.AtStepUp, ""} {
				b := a
				if b.Door = other; other != door && r.judge(b).OK() {
					t.Errorf("what was approved at %s counts at %q", door, other)
				}
			}
			if !r.judge(a).OK() {
				t.Errorf("not accepted at %s", door)
			}
		}
	})
}

func TestACodeEnrolsOnePhoneWithinTenMinutes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		make := func() string {
			code, err := r.AddPhone(ctx, desk.Root(), "anna")
			r.ok(err)
			return code.Link.Show()
		}
		try := func(link string, bend func(a *push.EnrolAsk)) error {
			p, err := phonetest.New(r.http, r.clock)
			r.ok(err)
			p.Base = r.url
			if bend == nil {
				return p.Enrol(ctx, link, "phone")
			}
			_, code, err := phonetest.Split(link)
			r.ok(err)
			a := push.EnrolAsk{Code: code, PublicKey: p.Public(), Proof: p.Sign("latchkey-enrol/1\n" + code + "\n" + p.Public()), Name: "x"}
			bend(&a)
			return p.Call(ctx, "POST", "enrol", a, nil)
		}
		link := make()
		r.code(try(link, func(a *push.EnrolAsk) { a.Proof = a.Proof[:10] + "AAAA" + a.Proof[14:] }), 422, "signature")
		r.code(try(link, func(a *push.EnrolAsk) { a.PublicKey = "AAAA" }), 422, "invalid")
		r.code(try(link, func(a *push.EnrolAsk) { a.Code = "AAAAAAAAAAAAAAAAAAAAAAAAAAA" }), 422, "signature") // it is signed too
		r.ok(try(link, nil))
		r.code(try(link, nil), 403, "code")
		old := make()
		newer := make()
		r.code(try(old, nil), 403, "code") // the newer one ends it
		r.clock.Advance(push.CodeLife)
		r.code(try(newer, nil), 403, "code")
		// What changes the user's factors ends a code that was made before.
		link = make()
		_, err := r.AddBackup(ctx, desk.Root(), "anna")
		r.ok(err)
		r.code(try(link, nil), 403, "code")
	})
}

func TestARemovedOrLostPhoneIsGone(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		a, b, c := r.phone("anna", "a"), r.phone("anna", "b"), r.phone("anna", "c")
		ask := r.ask("g1")
		sent := r.mustSend(ask)
		req, _ := r.next(a)
		r.ok(a.Approve(ctx, req, sent.Number))
		_, err := r.LoseFactor(ctx, desk.Root(), "anna", rest.FactorPrefix+a.Device)
		r.ok(err)
		if v := r.judge(ask); v.OK() || v.Reason != "push-device-gone" {
			t.Errorf("what a lost phone has approved counts: %+v", v)
		}
		_, err = a.Account(ctx)
		r.code(err, 410, "gone")
		r.ok(b.Remove(ctx))
		_, err = b.Account(ctx)
		r.code(err, 410, "gone")
		if acc, err := c.Account(ctx); err != nil || acc.Name != "c" {
			t.Error(acc, err)
		}
		list, err := r.ListFactors(ctx, desk.Root(), "anna")
		r.ok(err)
		states := map[string]string{}
		for _, f := range list.Items {
			states[f.Kind+" "+f.Name] = f.State
		}
		want := map[string]string{"push a": "lost", "totp a": "lost", "push c": "usable", "totp c": "usable"}
		for k, v := range want {
			if states[k] != v || len(states) != len(want) {
				t.Errorf("factors %v, want %v", states, want)
			}
		}
		_, err = r.RemoveFactor(ctx, desk.Root(), "anna", rest.FactorPrefix+c.Device)
		r.ok(err)
		if why := r.refusedSend(r.ask("g2")); !strings.Contains(why, "No phone") {
			t.Errorf("refused with %q", why)
		}
	})
}

// TestAPhoneThatIsRemovedIsToldAtOnce: an open app asks all the time, and each of its
// questions hangs for up to 25 seconds. It is wiped at once all the same.
func TestAPhoneThatIsRemovedIsToldAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		disable := true
		for _, x := range []struct {
			name   string
			phone  *phonetest.Phone
			end    func(p *phonetest.Phone) error
			status int
			code   string
		}{
			{"removed", r.phone("anna", "a"), func(p *phonetest.Phone) error {
				_, err := r.RemoveFactor(ctx, desk.Root(), "anna", rest.FactorPrefix+p.Device)
				return err
			}, 410, "gone"},
			{"lost", r.phone("anna", "b"), func(p *phonetest.Phone) error {
				_, err := r.LoseFactor(ctx, desk.Root(), "anna", rest.FactorPrefix+p.Device)
				return err
			}, 410, "gone"},
			{"removed by its person", r.phone("anna", "c"), func(p *phonetest.Phone) error {
				r.phone("anna", "one more") // the only authenticator stays
				a := desk.Actor{Name: "anna", Role: rest.RoleNone, UserID: r.anna.ID, Session: "s", Fresh: true}
				_, err := r.RemoveOwnFactor(ctx, a, rest.FactorPrefix+p.Device)
				return err
			}, 410, "gone"},
			{"its person is disabled", r.phone("anna", "d"), func(*phonetest.Phone) error {
				_, err := r.ChangeUser(ctx, desk.Root(), "anna", 0, rest.UserChange{Disabled: &disable})
				return err
			}, 403, "disabled"},
			{"its person is removed", r.phone(r.user("bert").Name, "e"), func(*phonetest.Phone) error {
				return r.RemoveUser(ctx, desk.Root(), "bert", 0)
			}, 410, "gone"},
		} {
			t.Run(x.name, func(t *testing.T) {
				told := make(chan error, 1)
				go func() {
					_, err := x.phone.Requests(ctx, push.PollTime)
					told <- err
				}()
				select {
				case err := <-told:
					t.Fatalf("the question did not hang: %v", err)
				case <-time.After(200 * time.Millisecond):
				}
				began := time.Now()
				r.ok(x.end(x.phone))
				select {
				case err := <-told:
					r.code(err, x.status, x.code)
					if took := time.Since(began); took > time.Second {
						t.Errorf("it took %v", took)
					}
				case <-time.After(5 * time.Second):
					t.Error("the phone was not told")
				}
			})
		}
	})
}

func TestTheDoorBelievesTheSignatureAlone(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		p := r.phone("anna", "phone")
		stranger, err := phonetest.New(r.http, r.clock)
		r.ok(err)
		stranger.Base, stranger.Device = r.url, p.Device
		_, err = stranger.Account(ctx)
		r.code(err, 401, "signature")
		stranger.Device = "nobody"
		_, err = stranger.Account(ctx)
		r.code(err, 410, "gone")
		raw := func(method, path, body string, change func(h http.Header)) error {
			req, err := http.NewRequestWithContext(ctx, method, r.url+push.Base+path, strings.NewReader(body))
			r.ok(err)
			p.SignCall(req, []byte(body))
			change(req.Header)
			return p.Do(req, nil)
		}
		r.ok(raw("GET", "account", "", func(http.Header) {}))
		r.code(raw("GET", "account", "", func(h http.Header) { h.Del("Latchkey-Signature") }), 401, "signature")
		r.code(raw("GET", "account", "", func(h http.Header) { h.Del("Latchkey-Device") }), 410, "gone")
		r.code(raw("GET", "account", "", func(h http.Header) { h.Set("Latchkey-Time", "1") }), 401, "signature")
		// A call that was signed for another path, method, query or body.
		req, err := http.NewRequestWithContext(ctx, "GET", r.url+push.Base+"requests?wait=0", nil)
		r.ok(err)
		p.SignCall(req, nil)
		req.URL.RawQuery = "wait=1"
		r.code(p.Do(req, nil), 401, "signature")
		req, err = http.NewRequestWithContext(ctx, "PATCH", r.url+push.Base+"account", strings.NewReader(`{"name":"x"}`))
		r.ok(err)
		p.SignCall(req, []byte(`{"name":"y"}`))
		r.code(p.Do(req, nil), 401, "signature")
		// The clock.
		late := *p
		slow := clock.NewManual(start.Add(-(push.Skew + 1) * time.Second))
		late.Clock = slow
		_, err = late.Account(ctx)
		r.code(err, 401, "time")
		if e := (*phonetest.Error)(nil); !errors.As(err, &e) || e.Time != start.UnixMilli() {
			t.Errorf("the phone does not learn the time: %+v", e)
		}
		slow.Advance(time.Second)
		_, err = late.Account(ctx)
		r.ok(err)
		// A disabled user.
		if _, err := r.ChangeUser(ctx, desk.Root(), "anna", 0, rest.UserChange{Disabled: ptr(true)}); err != nil {
			t.Fatal(err)
		}
		_, err = p.Account(ctx)
		r.code(err, 403, "disabled")
		_, err = stranger.Account(ctx)
		r.code(err, 410, "gone")
		stranger.Device = p.Device
		_, err = stranger.Account(ctx)
		r.code(err, 401, "signature")
	})
}

func ptr[T any](v T) *T { return &v }

func TestThePollHangsUntilSomethingIsNew(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		p := r.phone("anna", "phone")
		type result struct {
			all push.Requests
			err error
			in  time.Duration
		}
		poll := func(known ...string) chan result {
			out := make(chan result, 1)
			go func() {
				began := time.Now()
				all, err := p.Requests(t.Context(), 20*time.Second, known...)
				out <- result{all, err, time.Since(began)}
			}()
			return out
		}
		waiting := func(c chan result) {
			t.Helper()
			select {
			case x := <-c:
				t.Fatalf("it does not hang: %+v", x)
			case <-time.After(300 * time.Millisecond):
			}
		}
		c := poll()
		waiting(c)
		ask := r.ask("p1")
		sent := r.mustSend(ask)
		x := <-c
		if x.err != nil || len(x.all.Requests) != 1 || x.in > 3*time.Second {
			t.Fatalf("%+v", x)
		}
		req := x.all.Requests[0]
		c = poll(req.ID)
		waiting(c)
		// Another phone answers: this one hears that there is nothing to do.
		q := r.phone("anna", "another")
		r.ok(q.Approve(t.Context(), req, sent.Number))
		if x = <-c; x.err != nil || len(x.all.Requests) != 0 || x.in > 5*time.Second {
			t.Fatalf("%+v", x)
		}
		// The server stops: nobody hangs.
		c = poll()
		waiting(c)
		r.door.Stop()
		if x = <-c; x.err != nil || x.in > 5*time.Second {
			t.Fatalf("%+v", x)
		}
	})
}

func TestAPhonePollsTwiceAtMost(t *testing.T) {
	r := newRig(t, storetest.SQLite(t))
	p := r.phone("anna", "phone")
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := p.Requests(t.Context(), 20*time.Second)
			done <- err
		}()
	}
	time.Sleep(500 * time.Millisecond) // else the third comes first
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := p.Requests(t.Context(), time.Second); phonetest.Code(err) == string(fault.TooMany) {
			break
		}
		if time.Now().After(until) {
			select {
			case err := <-done:
				t.Fatal("a poll has ended: ", err)
			default:
			}
			t.Fatal("a third poll hangs")
		}
	}
	r.door.Stop()
	for range 2 {
		r.ok(<-done)
	}
}

func TestBodiesAreBoundedAndExact(t *testing.T) {
	r := newRig(t, storetest.SQLite(t))
	p := r.phone("anna", "phone")
	send := func(body string) error {
		req, err := http.NewRequestWithContext(t.Context(), "PATCH", r.url+push.Base+"account", strings.NewReader(body))
		r.ok(err)
		p.SignCall(req, []byte(body))
		return p.Do(req, nil)
	}
	r.ok(send(`{"name":"my phone"}`))
	r.code(send(`{"name":"x","role":"owner"}`), 400, "bad-request")
	r.code(send(`{"name":"x"} {}`), 400, "bad-request")
	r.code(send(``), 400, "bad-request")
	r.code(send(`{"name":"`+strings.Repeat("x", 40<<10)+`"}`), 413, "bad-request")
	r.code(send(`{"name":"a\u202eb"}`), 422, "invalid")
	res, err := r.http.Get(r.url + push.Base + "nothing")
	r.ok(err)
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	var e push.ErrorBody
	if err := json.Unmarshal(b, &e); err != nil || res.StatusCode != 404 || e.Code != "not-found" {
		t.Errorf("%s %s", res.Status, b)
	}
	for _, h := range []string{"Access-Control-Allow-Origin", "Set-Cookie"} {
		if res.Header.Get(h) != "" {
			t.Errorf("the door sends %s", h)
		}
	}
	// The seed is one of the account, and works as any other.
	list, err := r.ListFactors(t.Context(), desk.Root(), "anna")
	r.ok(err)
	for _, f := range list.Items {
		if f.Name != "my phone" {
			t.Errorf("%s is called %q: phone and seed have one name", f.Kind, f.Name)
		}
	}
	// So it is in the portal.
	_, err = r.RenameOwnFactor(t.Context(), desk.Actor{Name: "anna", Role: rest.RoleNone, UserID: r.anna.ID, Session: "s"}, rest.FactorPrefix+p.Device, rest.FactorChange{Name: "old phone"})
	r.ok(err)
	list, err = r.ListFactors(t.Context(), desk.Root(), "anna")
	r.ok(err)
	for _, f := range list.Items {
		if f.Name != "old phone" {
			t.Errorf("%s is called %q behind a new name in the portal", f.Kind, f.Name)
		}
	}
	if e := r.events(event.FactorRenamed); len(e) != 2 {
		t.Errorf("%d events of two new names", len(e))
	}
	if !strings.HasPrefix(p.TOTP, "otpauth://totp/") {
		t.Errorf("seed %q", p.TOTP)
	}
	_ = otp.DefaultParams
}

func TestCallsOfOnePhoneAreBounded(t *testing.T) {
	r := newRig(t, storetest.SQLite(t))
	r.door = phoneapi.New(phoneapi.Deps{Push: r.Push, Desk: r.Desk, Store: r.Store, Clock: r.clock})
	srv := httptest.NewTLSServer(r.door)
	t.Cleanup(srv.Close)
	r.url, r.http = srv.URL, srv.Client()
	p, q := r.phone("anna", "a"), r.phone("anna", "b")
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = p.Account(t.Context())
	}
	r.code(err, 429, string(fault.TooMany))
	_, err = q.Account(t.Context())
	r.ok(err)
}
