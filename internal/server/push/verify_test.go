package push_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// wantVerification has the default policy ask phones to prove who holds them.
func (r *rig) wantVerification() {
	r.Helper()
	r.ok(r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		p, err := tx.GetDefaultPolicy(ctx)
		if err != nil {
			return err
		}
		body := policy.NewPolicy()
		body.PushVerification = true
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		n, err := tx.UpdatePolicy(ctx, db.UpdatePolicyParams{ID: p.ID, Rev: p.Rev, Name: p.Name, Priority: p.Priority, Body: string(b), UpdatedAt: 2})
		if err == nil && n != 1 {
			r.Fatal("the policy was not changed")
		}
		return err
	}))
}

// finger is the phone's own authenticator: an independent implementation of WebAuthn.
type finger struct {
	rp   virtualwebauthn.RelyingParty
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func newFinger() *finger {
	f := &finger{
		rp:   virtualwebauthn.RelyingParty{ID: "latchkey.test", Name: "Latchkey", Origin: "https://latchkey.test"},
		auth: virtualwebauthn.NewAuthenticator(), cred: virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2),
	}
	f.auth.AddCredential(f.cred)
	return f
}

func (f *finger) register(ctx context.Context, p *phonetest.Phone) error {
	var begun push.VerificationBegun
	if err := p.Call(ctx, "POST", "verification/begin", struct{}{}, &begun); err != nil {
		return err
	}
	options, err := virtualwebauthn.ParseAttestationOptions(string(begun.Options))
	if err != nil {
		return err
	}
	return p.Call(ctx, "POST", "verification", push.Verification{
		Ticket: begun.Ticket, Credential: json.RawMessage(virtualwebauthn.CreateAttestationResponse(f.rp, f.auth, f.cred, *options)),
	}, nil)
}

// over signs the answer as the phone's own authenticator.
func (f *finger) over(id string, a push.Answer) json.RawMessage {
	f.cred.Counter++
	challenge := sha256.Sum256([]byte(phonetest.Message(id, a)))
	return json.RawMessage(virtualwebauthn.CreateAssertionResponse(f.rp, f.auth, f.cred, virtualwebauthn.AssertionOptions{Challenge: challenge[:], RelyingPartyID: f.rp.ID}))
}

// another is a number that is not n.
func another(n string) string {
	if n == "10" {
		return "11"
	}
	return "10"
}

func TestWhereThePolicyWantsItThePhoneProvesWhoHoldsIt(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
		r := newRig(t, c, database, "a", nil)
		ctx := t.Context()
		r.anna = r.user("anna")
		r.wantVerification()
		p, bare := r.phone("anna", "phone"), r.phone("anna", "bare")
		if !p.Told.Verification {
			t.Error("the phone is not told that it must verify")
		}
		good := newFinger()
		// Registering: another origin, no user verified.
		elsewhere := newFinger()
		elsewhere.rp.Origin = "https://latchkey.example"
		absent := newFinger()
		absent.auth.Options.UserNotVerified = true
		for name, f := range map[string]*finger{"another origin": elsewhere, "nobody verified": absent} {
			if err := f.register(ctx, p); phonetest.Code(err) != "verification" {
				t.Errorf("%s registers: %v", name, err)
			}
		}
		r.ok(good.register(ctx, p))
		if err := newFinger().register(ctx, p); phonetest.Code(err) != "exists" {
			t.Errorf("a second one registers: %v", err)
		}
		c.Advance(11 * time.Minute)
		if err := newFinger().register(ctx, bare); phonetest.Code(err) != "late" {
			t.Errorf("one registers long behind the enrolment: %v", err)
		}

		a := ask(r.anna, "v1", "m1", c.Now())
		sent := r.send(a)
		all, err := p.Requests(ctx, 0)
		r.ok(err)
		req := all.Requests[0]
		if !req.Verification || req.VerificationID == "" {
			t.Fatalf("%+v", req)
		}
		if other, err := bare.Requests(ctx, 0); err != nil || !other.Requests[0].Verification || other.Requests[0].VerificationID != "" {
			t.Errorf("%+v %v", other, err)
		}
		try := func(who *phonetest.Phone, assertion func(x push.Answer) json.RawMessage) error {
			x := who.Draft(req, push.Approve, sent.Number)
			if assertion != nil {
				x.Assertion = assertion(x)
			}
			_, err := who.Send(ctx, req.ID, x)
			return err
		}
		stranger := newFinger()
		for _, x := range []struct {
			name      string
			phone     *phonetest.Phone
			assertion func(x push.Answer) json.RawMessage
			code      string
		}{
			{"without an assertion", p, nil, "verification"},
			{"a phone that has none", bare, func(x push.Answer) json.RawMessage { return good.over(req.ID, x) }, "unverified-device"},
			{"of another authenticator", p, func(x push.Answer) json.RawMessage { return stranger.over(req.ID, x) }, "verification"},
			{"over another number", p, func(x push.Answer) json.RawMessage { x.Number = another(sent.Number); return good.over(req.ID, x) }, "verification"},
			{"over another request", p, func(x push.Answer) json.RawMessage { return good.over("other", x) }, "verification"},
			{"nobody verified", p, func(x push.Answer) json.RawMessage {
				f := *good
				f.auth.Options.UserNotVerified = true
				return f.over(req.ID, x)
			}, "verification"},
			{"at another origin", p, func(x push.Answer) json.RawMessage {
				f := *good
				f.rp.Origin = "https://latchkey.example"
				return f.over(req.ID, x)
			}, "verification"},
			{"for another party", p, func(x push.Answer) json.RawMessage { f := *good; f.rp.ID = "example"; return f.over(req.ID, x) }, "verification"},
			{"no JSON", p, func(push.Answer) json.RawMessage { return json.RawMessage(`"x"`) }, "verification"},
		} {
			if err := try(x.phone, x.assertion); phonetest.Code(err) != x.code {
				t.Errorf("%s: %v, want %s", x.name, err, x.code)
			}
			if v := r.judge(a); v.Outcome != factor.Waiting {
				t.Fatalf("%s has moved the request: %+v", x.name, v)
			}
		}
		refused, err := r.ListEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{string(event.PushRefused)}}, "", 50)
		r.ok(err)
		if len(refused.Items) != 9 {
			t.Errorf("%d events, want 9", len(refused.Items))
		}
		good.cred.Counter = 5
		r.ok(try(p, func(x push.Answer) json.RawMessage { return good.over(req.ID, x) }))
		if v := r.judge(a); !v.OK() || v.Data["verified"] != true {
			t.Errorf("%+v", v)
		}
		// A copy: its counter goes back.
		a = ask(r.anna, "v2", "m1", c.Now())
		sent = r.send(a)
		all, err = p.Requests(ctx, 0)
		r.ok(err)
		req = all.Requests[0]
		good.cred.Counter = 2
		if err := try(p, func(x push.Answer) json.RawMessage { return good.over(req.ID, x) }); phonetest.Code(err) != "verification" {
			t.Errorf("a copy approves: %v", err)
		}
		// To say no takes no finger, nor does a wrong number.
		r.ok(bare.Deny(ctx, req))
		if v := r.judge(a); v.Reason != factor.ReasonDenied {
			t.Errorf("%+v", v)
		}
		if !strings.HasPrefix(p.TOTP, "otpauth://") {
			t.Error("no seed")
		}
	})
}
