package post_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/post"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var start = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// ask asks for a code, in a transaction of its own.
func (o *office) ask(channel, ticket string, now time.Time) (factor.Sent, error) {
	o.t.Helper()
	var sent factor.Sent
	err := o.store.Update(o.t.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
		sent, err = o.SendCode(ctx, tx, channel, factor.Ask{User: o.user, Ticket: ticket, Door: factor.AtMachine, Machine: o.machine, Name: "mill", Unproven: o.unproven, Scope: policy.Logon, Address: "192.0.2.7", Now: now})
		return err
	})
	return sent, err
}

// answer judges a code.
func (o *office) answer(channel, ticket, code string, now time.Time) factor.Verdict {
	o.t.Helper()
	var v factor.Verdict
	o.update(func(ctx context.Context, tx *store.Tx) (err error) {
		v, err = o.JudgeCode(ctx, tx, channel, factor.Try{User: o.user, Ticket: ticket, Door: factor.AtMachine, Machine: o.machine, Typed: typed(code), Now: now})
		return err
	})
	return v
}

func (o *office) note(e event.Event) {
	o.t.Helper()
	o.update(func(_ context.Context, tx *store.Tx) error {
		_, err := tx.Event(e)
		return err
	})
}

func (o *office) events(types ...event.Type) []db.Event {
	o.t.Helper()
	f := store.EventFilter{Limit: 1000}
	for _, x := range types {
		f.Types = append(f.Types, string(x))
	}
	rows, err := o.store.Events(o.t.Context(), f)
	if err != nil {
		o.t.Fatal(err)
	}
	return rows
}

// TestACodeByMail: asked for, sent by a relay, typed once.
func TestACodeByMail(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	if _, err := o.ask(rest.ChannelMail, "t1", c.Now()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without an address: %v", err)
	}
	id := o.address(o.user, rest.ChannelMail, "anna@example.org")
	if _, err := o.ask(rest.ChannelMail, "t1", c.Now()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without settings: %v", err)
	}
	o.mail(r.settings())
	sent, err := o.ask(rest.ChannelMail, "t1", c.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(sent.Tell, "a…@example.org") || strings.Contains(sent.Tell, "anna@") || !sent.Expires.Equal(c.Now().Add(5*time.Minute)) {
		t.Errorf("%+v", sent)
	}
	q := o.queue(rest.ChannelMail)
	if len(q) != 1 || q[0].State != "waiting" || !q[0].Urgent {
		t.Fatalf("%+v", q)
	}
	for _, plain := range []string{"anna@example.org", "mill", "Your Latchkey"} {
		if strings.Contains(string(q[0].Body), plain) {
			t.Errorf("%q lies open in the queue", plain)
		}
	}
	if !o.step(rest.ChannelMail) || o.step(rest.ChannelMail) {
		t.Fatal("not one message was sent")
	}
	if q = o.queue(rest.ChannelMail); q[0].State != "sent" || q[0].Body != nil {
		t.Errorf("%+v", q[0])
	}
	got := r.letters()
	if len(got) != 1 {
		t.Fatalf("%d mails", len(got))
	}
	msg, body := got[0].read(t)
	code := codeIn(t, body)
	if strings.Contains(msg.Header.Get("Subject"), code) {
		t.Error("the code stands in the subject")
	}
	for _, want := range []string{"mill", "192.0.2.7", "5 minutes", "Hello anna,"} {
		if !strings.Contains(body, want) {
			t.Errorf("the text does not say %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "://") || strings.Contains(body, "www.") {
		t.Errorf("the text holds a link:\n%s", body)
	}

	other := o.person("ben", "")
	o.address(other, rest.ChannelMail, "ben@example.org")
	anna := o.user
	o.user = other
	if v := o.answer(rest.ChannelMail, "t1", code, c.Now()); v.OK() {
		t.Error("the code counts for another person")
	}
	o.user = anna
	for name, v := range map[string]factor.Verdict{
		"of another sign-in": o.answer(rest.ChannelMail, "t2", code, c.Now()),
		"without a sign-in":  o.answer(rest.ChannelMail, "", code, c.Now()),
		"by another channel": o.answer(rest.ChannelSMS, "t1", code, c.Now()),
		"that is wrong":      o.answer(rest.ChannelMail, "t1", "00000000", c.Now()),
		"that is none":       o.answer(rest.ChannelMail, "t1", "", c.Now()),
	} {
		if v.OK() || v.Text == "" || v.Reason == "" {
			t.Errorf("a code %s: %+v", name, v)
		}
	}
	// S10, M6: where it was asked for, and nowhere else.
	for _, x := range []factor.Try{{Door: factor.AtPortal}, {Door: factor.AtStepUp}, {}, {Door: factor.AtMachine, Machine: "other"}} {
		o.update(func(ctx context.Context, tx *store.Tx) error {
			x.User, x.Ticket, x.Typed, x.Now = o.user, "t1", typed(code), c.Now()
			v, err := o.JudgeCode(ctx, tx, rest.ChannelMail, x)
			if v.OK() {
				t.Errorf("the code counts at %q %q", x.Door, x.Machine)
			}
			return err
		})
	}
	if v := o.answer(rest.ChannelMail, "t1", " "+code[:4]+"-"+code[4:]+" ", c.Now()); !v.OK() || v.ID != id || !v.Own {
		t.Errorf("the right code: %+v", v)
	}
	if v := o.answer(rest.ChannelMail, "t1", code, c.Now()); v.OK() || v.Reason != factor.ReasonReplayed {
		t.Errorf("the same code again: %+v", v)
	}
}

// sentCodes are the codes of all mails, in order.
func sentCodes(t testing.TB, r *relay) []string {
	var out []string
	for _, l := range r.letters() {
		_, body := l.read(t)
		out = append(out, codeIn(t, body))
	}
	return out
}

func TestWhenACodeCountsNoMore(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	m := r.settings()
	m.CodeMinutes = 10
	o.mail(m)
	id := o.address(o.user, rest.ChannelMail, "anna@example.org")
	code := func(ticket string) string {
		t.Helper()
		if _, err := o.ask(rest.ChannelMail, ticket, c.Now()); err != nil {
			t.Fatal(err)
		}
		o.step(rest.ChannelMail)
		all := sentCodes(t, r)
		return all[len(all)-1]
	}
	one := code("t1")
	c.Advance(10*time.Minute - time.Second)
	if v := o.answer(rest.ChannelMail, "t1", "11111111", c.Now()); v.Reason != factor.ReasonWrong {
		t.Errorf("%+v", v)
	}
	c.Advance(time.Second)
	if v := o.answer(rest.ChannelMail, "t1", one, c.Now()); v.OK() || v.Reason != post.ReasonTooLate {
		t.Errorf("after ten minutes: %+v", v)
	}
	one = code("t2")
	c.Advance(post.Resend)
	two := code("t2")
	if v := o.answer(rest.ChannelMail, "t2", one, c.Now()); v.OK() && one != two {
		t.Error("an older code counts beside the newest")
	}
	if v := o.answer(rest.ChannelMail, "t2", two, c.Now()); !v.OK() {
		t.Errorf("the newest: %+v", v)
	}
	three := code("t3")
	for range post.MaxTries {
		if v := o.answer(rest.ChannelMail, "t3", "11111111", c.Now()); v.Reason != factor.ReasonWrong {
			t.Errorf("%+v", v)
		}
	}
	if v := o.answer(rest.ChannelMail, "t3", three, c.Now()); v.OK() || v.Reason != post.ReasonTriedOut {
		t.Errorf("after %d wrong tries: %+v", post.MaxTries, v)
	}
	four := code("t4")
	o.update(func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SetAuthenticatorLost(ctx, id)
		return err
	})
	if v := o.answer(rest.ChannelMail, "t4", four, c.Now()); v.OK() {
		t.Error("a code to a lost address counts")
	}
}

func TestHowManyCodesGoOut(t *testing.T) {
	limited := func(t *testing.T, err error) {
		t.Helper()
		if !fault.Is(err, fault.TooMany) {
			t.Errorf("%v, want too-many", err)
		}
	}
	setup := func(t *testing.T) (*office, *clock.Manual) {
		c := clock.NewManual(start)
		o := open(t, c)
		m := newRelay(t, relayOption{}).settings()
		o.mail(m)
		s := post.NewSMS()
		s.On, s.URL, s.PerMinute = true, "https://sms.example.org/send", 3
		o.sms(s)
		o.address(o.user, rest.ChannelMail, "anna@example.org")
		o.address(o.user, rest.ChannelSMS, "+491701234567")
		return o, c
	}
	ok := func(t *testing.T, o *office, channel, ticket string, now time.Time) {
		t.Helper()
		if _, err := o.ask(channel, ticket, now); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("for one sign-in", func(t *testing.T) {
		o, c := setup(t)
		for range post.MaxOfTicket {
			ok(t, o, rest.ChannelMail, "t", c.Now())
			// At once again nothing is sent, and the last one can be typed.
			sent, err := o.ask(rest.ChannelMail, "t", c.Now())
			if err != nil || sent.Data["sent"] != false {
				t.Errorf("%+v %v", sent, err)
			}
			c.Advance(post.Resend)
		}
		sent, err := o.ask(rest.ChannelMail, "t", c.Now())
		if err != nil || sent.Data["sent"] != false || len(o.queue(rest.ChannelMail)) != post.MaxOfTicket {
			t.Errorf("%+v %v, %d sent", sent, err, len(o.queue(rest.ChannelMail)))
		}
		c.Advance(10 * time.Minute)
		_, err = o.ask(rest.ChannelMail, "t", c.Now())
		limited(t, err)
	})
	t.Run("for one person in an hour, whatever the way, by machines that are new to them", func(t *testing.T) {
		o, c := setup(t)
		for i := range post.MaxOfUser {
			o.machine = fmt.Sprint("m", i/post.MaxOfNew)
			ok(t, o, []string{rest.ChannelMail, rest.ChannelSMS}[i%2], fmt.Sprint("t", i), c.Now())
			c.Advance(time.Minute)
		}
		o.machine = "m9"
		_, err := o.ask(rest.ChannelMail, "more", c.Now())
		limited(t, err)
		c.Advance(time.Hour)
		ok(t, o, rest.ChannelMail, "later", c.Now())
	})
	t.Run("a machine that is new to a person keeps nobody from their own, and not from the portal", func(t *testing.T) {
		o, c := setup(t)
		r := newRelay(t, relayOption{})
		o.mail(r.settings())
		o.machine = "own"
		ok(t, o, rest.ChannelMail, "t", c.Now())
		o.step(rest.ChannelMail)
		if v := o.answer(rest.ChannelMail, "t", sentCodes(t, r)[0], c.Now()); !v.OK() {
			t.Fatalf("%+v", v)
		}
		o.machine = "evil"
		for i := range post.MaxOfNew {
			ok(t, o, rest.ChannelMail, fmt.Sprint("e", i), c.Now())
		}
		_, err := o.ask(rest.ChannelMail, "e", c.Now())
		limited(t, err)
		for i := range 2 * post.MaxOfNew {
			o.machine = fmt.Sprint("evil", i)
			_, _ = o.ask(rest.ChannelMail, fmt.Sprint("x", i), c.Now())
		}
		o.machine = "new"
		_, err = o.ask(rest.ChannelMail, "new", c.Now())
		limited(t, err)
		o.machine = "own"
		ok(t, o, rest.ChannelMail, "again", c.Now())
		o.update(func(ctx context.Context, tx *store.Tx) error {
			_, err := o.SendCode(ctx, tx, rest.ChannelMail, factor.Ask{User: o.user, Ticket: "p", Door: factor.AtPortal, Name: "portal", Now: c.Now()})
			return err
		})
	})
	t.Run("where the machine alone speaks for the first factor", func(t *testing.T) {
		o, c := setup(t)
		o.unproven = true
		for i := range post.MaxUnproven {
			ok(t, o, rest.ChannelMail, fmt.Sprint("u", i), c.Now())
		}
		_, err := o.ask(rest.ChannelMail, "u", c.Now())
		limited(t, err)
	})
	t.Run("of one machine in an hour, to everybody who is new there", func(t *testing.T) {
		o, c := setup(t)
		o.machine = "evil"
		for i := range post.MaxOfMachine {
			o.user = o.person(fmt.Sprint("p", i), "")
			o.address(o.user, rest.ChannelMail, fmt.Sprintf("p%d@example.org", i))
			ok(t, o, rest.ChannelMail, fmt.Sprint("t", i), c.Now())
		}
		o.user = o.person("last", "")
		o.address(o.user, rest.ChannelMail, "last@example.org")
		o.update(func(ctx context.Context, tx *store.Tx) error { // a sign-in keeps what is noted
			_, err := o.SendCode(ctx, tx, rest.ChannelMail, factor.Ask{User: o.user, Ticket: "t", Door: factor.AtMachine, Machine: "evil", Name: "mill", Now: c.Now()})
			limited(t, err)
			return nil
		})
		if e := o.events(event.FactorLimited); len(e) != 1 || e[0].MachineID != "evil" || e[0].Reason != factor.ReasonMachine || !strings.Contains(string(e[0].Data), `"alert"`) {
			t.Errorf("%+v", e)
		}
		o.machine = "other"
		ok(t, o, rest.ChannelMail, "o", c.Now())
	})
	t.Run("to one address in a day, for sign-ins of its owner, whatever others do with it", func(t *testing.T) {
		o, c := setup(t)
		anna := o.user
		for i := range post.MaxOfAddress {
			o.user = o.person(fmt.Sprint("p", i), "")
			o.address(o.user, rest.ChannelMail, []string{"anna@example.org", "ANNA@Example.org"}[i%2])
			o.machine = fmt.Sprint("m", i%3)
			ok(t, o, rest.ChannelMail, fmt.Sprint("t", i), c.Now())
		}
		o.user, o.machine = anna, "m9"
		for i := range post.MaxOfAddress {
			o.machine = fmt.Sprint("n", i)
			ok(t, o, rest.ChannelMail, fmt.Sprint("a", i), c.Now())
			c.Advance(time.Hour)
		}
		_, err := o.ask(rest.ChannelMail, "more", c.Now())
		limited(t, err)
		c.Advance(24*time.Hour + time.Second)
		ok(t, o, rest.ChannelMail, "more", c.Now())
	})
	t.Run("of text messages in a day, and to numbers of the country alone", func(t *testing.T) {
		o, c := setup(t)
		s := post.NewSMS()
		s.On, s.URL, s.PerDay, s.Prefixes = true, "https://sms.example.org/send", 2, []string{"+43", "+49"}
		o.sms(s)
		anna := o.user
		o.user = o.person("far", "")
		o.address(o.user, rest.ChannelSMS, "+8821012345678")
		if _, err := o.ask(rest.ChannelSMS, "f", c.Now()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a number of another country: %v", err)
		}
		err := o.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := o.SendConfirm(ctx, tx, rest.ChannelSMS, "c", o.user, "+8821012345678")
			return err
		})
		if !fault.Is(err, fault.Unavailable) || len(o.queue(rest.ChannelSMS)) != 0 {
			t.Errorf("to confirm a number of another country: %v", err)
		}
		o.user = anna
		for i := range 2 {
			ok(t, o, rest.ChannelSMS, fmt.Sprint("t", i), c.Now())
			c.Advance(time.Hour)
		}
		_, err = o.ask(rest.ChannelSMS, "more", c.Now())
		limited(t, err)
		ok(t, o, rest.ChannelMail, "mail", c.Now())
		c.Advance(24 * time.Hour)
		ok(t, o, rest.ChannelSMS, "more", c.Now())
	})
	t.Run("to show whose an address is, apart from sign-ins", func(t *testing.T) {
		o, c := setup(t)
		anna := o.user
		confirm := func(channel, ticket, address string) (err error) {
			_ = o.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				_, err = o.SendConfirm(ctx, tx, channel, ticket, o.user, address)
				return err
			})
			return err
		}
		// Strangers who say that her number is theirs.
		for i := range post.MaxOfAddress {
			o.user = o.person(fmt.Sprint("p", i), "")
			switch err := confirm(rest.ChannelSMS, fmt.Sprint("c", i), "+491701234567"); {
			case i < post.MaxConfirmPlace && err != nil:
				t.Fatal(err)
			case i >= post.MaxConfirmPlace:
				limited(t, err)
			}
			c.Advance(time.Minute)
		}
		o.user = anna
		ok(t, o, rest.ChannelSMS, "t", c.Now())
		// One person tries number after number.
		n := 0
		for i := range 48 {
			if err := confirm(rest.ChannelSMS, fmt.Sprint("d", i), fmt.Sprint("+4917055555", 10+i)); err == nil {
				n++
			} else {
				limited(t, err)
			}
			if i == 10 && n != post.MaxConfirmHour {
				t.Errorf("%d in less than an hour", n)
			}
			c.Advance(5 * time.Minute)
		}
		if n != post.MaxConfirmDay {
			t.Errorf("%d in a few hours", n)
		}
	})
	t.Run("of the whole server in a minute, for text messages", func(t *testing.T) {
		o, c := setup(t)
		anna := o.user
		for i := range 3 {
			o.user = o.person(fmt.Sprint("p", i), "")
			o.address(o.user, rest.ChannelSMS, fmt.Sprint("+4917012345", 10+i))
			ok(t, o, rest.ChannelSMS, fmt.Sprint("t", i), c.Now())
		}
		o.user = anna
		_, err := o.ask(rest.ChannelSMS, "more", c.Now())
		limited(t, err)
		ok(t, o, rest.ChannelMail, "mail", c.Now())
		c.Advance(time.Minute + time.Second)
		ok(t, o, rest.ChannelSMS, "more", c.Now())
	})
}

// TestARefusedReceiver: it is given up at once, with an event that does not name the
// address, and a code is not kept.
func TestARefusedReceiver(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	o.address(o.user, rest.ChannelMail, "anna@example.org")
	r.set(func(r *relay) {
		r.refuse = func(to string) error {
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no " + to}
		}
	})
	if _, err := o.ask(rest.ChannelMail, "t", c.Now()); err != nil {
		t.Fatal(err)
	}
	o.step(rest.ChannelMail)
	q := o.queue(rest.ChannelMail)[0]
	if q.State != "failed" || q.Reason != post.ReasonRefused || q.Body != nil {
		t.Errorf("%+v", q)
	}
	e := o.events(event.PostRefused)
	if len(e) != 1 || e[0].UserID != o.user.ID || !strings.Contains(e[0].Data, "550") || !strings.Contains(e[0].Data, "a…@example.org") || strings.Contains(e[0].Data, "anna@example.org") {
		t.Errorf("%+v", e)
	}
	if o.step(rest.ChannelMail) {
		t.Error("it was tried again")
	}
}

// TestADeferredMail: it is tried again, later and later, and given up when it is of no
// use any more.
func TestADeferredMail(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	o.address(o.user, rest.ChannelMail, "anna@example.org")
	tries := 0
	r.set(func(r *relay) {
		r.refuse = func(string) error { tries++; return &smtp.SMTPError{Code: 450, Message: "greylisted"} }
	})
	if _, err := o.ask(rest.ChannelMail, "t", c.Now()); err != nil {
		t.Fatal(err)
	}
	begun := c.Now()
	var at []time.Duration
	for range 600 {
		if o.step(rest.ChannelMail) {
			at = append(at, c.Now().Sub(begun))
		}
		c.Advance(time.Second)
	}
	want := "[0s 5s 15s 35s 1m15s 2m15s 3m15s 4m15s 5m0s]" // the last gives it up
	if fmt.Sprint(at) != want || tries != 8 {
		t.Errorf("%d tries at %v, want %s", tries, at, want)
	}
	q := o.queue(rest.ChannelMail)[0]
	if q.State != "failed" || q.Reason != post.ReasonExpired || q.Body != nil || !strings.Contains(q.Detail, "greylisted") {
		t.Errorf("%+v", q)
	}
	if e := o.events(event.PostGivenUp); len(e) != 1 || e[0].Reason != post.ReasonExpired {
		t.Errorf("%+v", e)
	}

	// The second time it is let in the third time.
	tries = 0
	r.set(func(r *relay) {
		r.refuse = func(string) error {
			if tries++; tries < 3 {
				return &smtp.SMTPError{Code: 450, Message: "greylisted"}
			}
			return nil
		}
	})
	c.Advance(time.Hour)
	if _, err := o.ask(rest.ChannelMail, "t2", c.Now()); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		o.step(rest.ChannelMail)
		c.Advance(time.Second)
	}
	if len(r.letters()) != 1 {
		t.Errorf("%d mails", len(r.letters()))
	}
}

// TestWhatPeopleAreTold: by events alone, nobody calls anything.
func TestWhatPeopleAreTold(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	data := func(v any) []byte { b, _ := json.Marshal(v); return b }
	changes := func(field string, was any) []byte {
		return data(map[string]any{"changes": []map[string]any{{"field": field, "old": was, "new": "x"}}})
	}
	for name, x := range map[string]struct {
		e    event.Event
		says string // empty: nothing is sent
		to   []string
	}{
		"a new factor":           {e: event.Event{Type: event.FactorAdded, Factor: "totp"}, says: "A second factor was added to your account: an authenticator app."},
		"a kind of tomorrow":     {e: event.Event{Type: event.FactorAdded, Factor: "tattoo"}, says: "of the kind tattoo"},
		"new backup codes":       {e: event.Event{Type: event.FactorAdded, Factor: "backup"}, says: "New backup codes were made"},
		"a removed factor":       {e: event.Event{Type: event.FactorRemoved, Factor: "fido2"}, says: "removed from your account: a security key or passkey"},
		"a removed code":         {e: event.Event{Type: event.FactorRemoved, Factor: "enrol"}},
		"a lost factor":          {e: event.Event{Type: event.FactorLost, Factor: "push"}, says: "marked as lost"},
		"a password":             {e: event.Event{Type: event.PasswordChanged}, says: "Your password was changed."},
		"and what ended with it": {e: event.Event{Type: event.PasswordChanged, Data: json.RawMessage(`{"sessions_ended":3,"tokens_ended":1}`)}, says: "has ended: 3 sessions, 1 API token."},
		"a reported push":        {e: event.Event{Type: event.PushReported}, says: "reported as somebody else's"},
		"an enrolment code":      {e: event.Event{Type: event.CodeIssued, Factor: "enrol"}, says: "An enrolment code was issued"},
		"one of an import":       {e: event.Event{Type: event.CodeIssued, Factor: "enrol", Data: data(map[string]any{"import": "imp_1"})}},
		"one that was mailed":    {e: event.Event{Type: event.CodeIssued, Factor: "enrol", Data: data(map[string]any{"mail": "a…@b"})}},
		"a bypass code":          {e: event.Event{Type: event.CodeIssued, Factor: "bypass"}, says: "A bypass code was issued"},
		"another mail address":   {e: event.Event{Type: event.UserChanged, Data: changes("mail", "old@example.org")}, says: "The mail address of your account was changed.", to: []string{"anna@example.org", "old@example.org"}},
		"one by an import":       {e: event.Event{Type: event.UserChanged, Data: data(map[string]any{"changes": []map[string]any{{"field": "mail", "old": "old@example.org"}, {"field": "mfa", "old": "on"}}, "import": "imp_1"})}},
		"another name":           {e: event.Event{Type: event.UserChanged, Data: changes("display_name", "x")}},
		"another uid":            {e: event.Event{Type: event.UserChanged, Data: changes("uid", 5)}},
		"2FA switched":           {e: event.Event{Type: event.UserChanged, Data: changes("mfa", "on")}, says: "Whether you are asked for a second factor was changed."},
		"a new browser":          {e: event.Event{Type: event.SessionOpened, Data: data(map[string]any{"new_browser": true})}, says: "with a browser that has not been used for it before"},
		"a known browser":        {e: event.Event{Type: event.SessionOpened, Data: data(map[string]any{"new_browser": false})}},
		"a sign-in":              {e: event.Event{Type: event.SigninAllowed}},
		"something about nobody": {e: event.Event{Type: event.FactorAdded, UserID: "-", Factor: "totp"}},
	} {
		t.Run(name, func(t *testing.T) {
			o.t = t
			r.set(func(r *relay) { r.got = nil })
			switch x.e.UserID {
			case "":
				x.e.UserID, x.e.Subject = o.user.ID, o.user.Name
			case "-":
				x.e.UserID = ""
			}
			x.e.Actor, x.e.Address = "root@local", "192.0.2.9"
			o.note(x.e)
			for o.step(rest.ChannelMail) {
			}
			got := r.letters()
			if x.says == "" {
				if len(got) != 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if x.to == nil {
				x.to = []string{"anna@example.org"}
			}
			if len(got) != len(x.to) {
				t.Fatalf("%d mails", len(got))
			}
			for i, l := range got {
				_, body := l.read(t)
				if l.to[0] != x.to[i] || !strings.Contains(body, x.says) || !strings.Contains(body, "By:   root@local") || !strings.Contains(body, "22 November 2026, 08:00 UTC") {
					t.Errorf("to %s:\n%s", l.to, body)
				}
			}
		})
	}
	o.t = t
	m := r.settings()
	m.Notices = false
	o.mail(m)
	n := len(o.queue(rest.ChannelMail))
	o.note(event.Event{Type: event.FactorAdded, UserID: o.user.ID, Factor: "totp"})
	if len(o.queue(rest.ChannelMail)) != n {
		t.Error("notes are switched off, and one was written")
	}
}

// TestANoteStandsOrFallsWithItsEvent: what is undone is told to nobody.
func TestANoteStandsOrFallsWithItsEvent(t *testing.T) {
	o := open(t, clock.NewManual(start))
	o.mail(newRelay(t, relayOption{}).settings())
	err := o.store.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
		if _, err := tx.Event(event.Event{Type: event.PasswordChanged, UserID: o.user.ID}); err != nil {
			return err
		}
		return fault.New(fault.Conflict, nil)
	})
	if !fault.Is(err, fault.Conflict) || len(o.queue(rest.ChannelMail)) != 0 {
		t.Errorf("%v, %d in the queue", err, len(o.queue(rest.ChannelMail)))
	}
}

// TestTheNameOfSomebodyElse: what others can choose (names of machines, of people,
// addresses) makes no link and no line of its own in a mail.
func TestTheNameOfSomebodyElse(t *testing.T) {
	o := open(t, clock.NewManual(start))
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	o.note(event.Event{
		Type: event.FactorAdded, UserID: o.user.ID, Factor: "totp\r\nBcc: eve@example.org", Actor: "https://evil.example/\nHello", Machine: "www.evil.example\r\n\r\nClick",
		Address: strings.Repeat("x", 4000),
	})
	o.step(rest.ChannelMail)
	_, body := r.letters()[0].read(t)
	if strings.Contains(body, "://") || strings.Contains(body, "www.") || strings.Contains(body, "\nClick") || strings.Contains(body, "\nBcc") || len(body) > 1500 {
		t.Error(body)
	}
}

// TestOneServerDies: what it had leased is sent by another when the lease ends, and not
// before.
func TestOneServerDies(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
	id, err := o.Lease(t.Context(), rest.ChannelMail)
	if err != nil || id == "" {
		t.Fatal(id, err)
	}
	if o.step(rest.ChannelMail) {
		t.Fatal("two have it at once")
	}
	c.Advance(41 * time.Second) // two time-outs of 5 s and half a minute
	if !o.step(rest.ChannelMail) {
		t.Fatal("nobody has it")
	}
	if q := o.queue(rest.ChannelMail)[0]; q.State != "sent" || q.Tries != 2 || len(r.letters()) != 1 {
		t.Errorf("%+v, %d mails", q, len(r.letters()))
	}
}

// TestTwoServers share a queue: each message goes out once, on both engines.
func TestTwoServers(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		dir := t.TempDir()
		r := newRelay(t, relayOption{})
		var list []*office
		for _, name := range []string{"one", "two"} {
			if strings.HasPrefix(database, "sqlite:") && name == "two" {
				list = append(list, newOffice(t, list[0].store, clock.Real, dir))
				continue
			}
			s := storetest.Open(t, store.Config{Database: database, Replica: name})
			list = append(list, newOffice(t, s, clock.Real, dir))
		}
		o := list[0]
		o.mail(r.settings())
		o.store.OnEvent(o.Notice)
		const n = 60
		for i := range n {
			o.user = o.person(fmt.Sprint("p", i), fmt.Sprintf("p%d@example.org", i))
			o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
		}
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for _, o := range list {
			work.Go(func() { o.Run(ctx) })
		}
		deadline := time.Now().Add(30 * time.Second)
		for len(r.letters()) < n && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		// What comes while they run goes out without waiting for a look.
		begun := time.Now()
		o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
		for len(r.letters()) < n+1 && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("a message waited %s", took)
		}
		time.Sleep(200 * time.Millisecond)
		cancel()
		work.Wait()
		times := map[string]int{}
		for _, l := range r.letters() {
			times[l.to[0]]++
		}
		times[fmt.Sprintf("p%d@example.org", n-1)]-- // which was told twice
		for i := range n {
			if k := times[fmt.Sprintf("p%d@example.org", i)]; k != 1 {
				t.Errorf("p%d got %d mails", i, k)
			}
		}
		for _, q := range o.queue(rest.ChannelMail) {
			if q.State != "sent" || q.Tries != 1 {
				t.Errorf("%+v", q)
			}
		}
	})
}

// TestASlowRelay: notes that hang do not hold up a code, and nobody who asks for one.
func TestASlowRelay(t *testing.T) {
	o := open(t, clock.Real)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	r.set(func(r *relay) { r.slow = 3 * time.Second })
	for i := range 20 {
		u := o.person(fmt.Sprint("p", i), fmt.Sprintf("p%d@example.org", i))
		o.note(event.Event{Type: event.PasswordChanged, UserID: u.ID})
	}
	o.address(o.user, rest.ChannelMail, "anna@example.org")
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { o.Run(ctx) })
	time.Sleep(500 * time.Millisecond) // all hang now
	begun := time.Now()
	if _, err := o.ask(rest.ChannelMail, "t", time.Now()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("who asked for a code waited %s", took)
	}
	for {
		there := false
		for _, l := range r.letters() {
			there = there || l.to[0] == "anna@example.org"
		}
		if there {
			break
		}
		if time.Since(begun) > 6*time.Second {
			t.Error("the code waits behind notes")
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if took := time.Since(begun); took < 2900*time.Millisecond {
		t.Errorf("the relay was not slow: %s", took)
	}
	cancel()
	work.Wait()
}

// TestWhatIsOver: codes go first, what is switched off waits, what is too late is given up, and rows go.
func TestWhatIsOver(t *testing.T) {
	c := clock.NewManual(start)
	o := open(t, c)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	o.address(o.user, rest.ChannelMail, "anna@example.org")
	o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
	if _, err := o.ask(rest.ChannelMail, "t", c.Now()); err != nil {
		t.Fatal(err)
	}
	o.step(rest.ChannelMail)
	if q := o.queue(rest.ChannelMail); q[1].State != "sent" || q[0].State != "waiting" {
		t.Fatalf("the code does not go first: %+v", q)
	}
	// Switched off, a note waits, until it is too late.
	m := r.settings()
	m.On = false
	o.mail(m)
	if o.step(rest.ChannelMail) {
		t.Error("it was sent although that is switched off")
	}
	c.Advance(post.NoticeLife)
	o.step(rest.ChannelMail)
	if q := o.queue(rest.ChannelMail)[0]; q.State != "failed" || q.Reason != post.ReasonExpired || q.Body == nil {
		t.Errorf("%+v", q)
	}
	// Switched on, an administrator can have it sent.
	o.mail(r.settings())
	o.update(func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.GetOutbox(ctx, o.queue(rest.ChannelMail)[0].ID)
		if err != nil {
			return err
		}
		ok, err := o.Again(ctx, tx, row)
		if !ok {
			t.Error("it can not be sent again")
		}
		return err
	})
	o.step(rest.ChannelMail)
	if q := o.queue(rest.ChannelMail)[0]; q.State != "sent" {
		t.Errorf("%+v", q)
	}
	c.Advance(25*time.Hour + time.Second)
	if err := o.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q := o.queue(rest.ChannelMail); len(q) != 0 {
		t.Errorf("%+v", q)
	}
}
