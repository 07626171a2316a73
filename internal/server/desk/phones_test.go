package desk_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// selfAction is a row of the table of what people do for themselves.
type selfAction = struct {
	takes string
	do    func(ctx context.Context, d *desk.Desk, a desk.Actor) error
}

func init() {
	selfActions["BeginOwnPhone"] = &selfAction{enrols, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.BeginOwnPhone(ctx, a)
		return err
	}}
	selfActions["ShowOwnPhoneCode"] = &selfAction{"a code", func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ShowOwnPhoneCode(ctx, a, rest.PhoneCodePrefix+"01930000-0000-7000-8000-000000000000")
		return err
	}}
}

// bring has a new phone bring the code of the link.
func bring(ctx context.Context, r *desktest.Rig, link, name string) (push.Enrolled, error) {
	p, err := phonetest.New(nil, r.Clock)
	if err != nil {
		return push.Enrolled{}, err
	}
	_, code, err := phonetest.Split(link)
	if err != nil {
		return push.Enrolled{}, err
	}
	return r.EnrolPhone(ctx, "192.0.2.9", push.EnrolAsk{
		Code: code, PublicKey: p.Public(), Proof: p.Sign("latchkey-enrol/1\n" + code + "\n" + p.Public()), Name: name, Platform: "iOS",
	})
}

// sits opens the session of an actor.
func sits(t *testing.T, r *desktest.Rig, a desk.Actor) {
	t.Helper()
	must(t, r.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUser(ctx, a.UserID)
		if err != nil {
			return err
		}
		now := r.Clock.Now()
		return tx.InsertSession(ctx, db.InsertSessionParams{
			ID: a.Session, SecretHash: []byte(a.Session), UserID: u.ID, Kind: "browser", Factor: "totp", PasswordAt: u.PasswordChangedAt,
			BeganAt: now.UnixMicro(), SeenAt: now.UnixMicro(), EndsAt: now.Add(12 * time.Hour).UnixMicro(),
		})
	}))
}

// A code for a phone ends with what it was made by: the session, or the right.
func TestACodeForAPhoneEndsWithItsMaker(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{}
		refused := func(what, link string) {
			t.Helper()
			var no *push.Refusal
			if _, err := bring(ctx, r, link, "x"); !errors.As(err, &no) || no.Code != "code" {
				t.Errorf("%s: %v", what, err)
			}
		}
		update := func(fn func(ctx context.Context, tx *store.Tx) error) {
			t.Helper()
			must(t, r.Store.Update(ctx, fn))
		}
		role := func(u rest.User, to string) {
			t.Helper()
			update(func(ctx context.Context, tx *store.Tx) error {
				row, err := tx.GetUser(ctx, id(u.ID))
				if err != nil {
					return err
				}
				_, err = tx.UpdateUser(ctx, db.UpdateUserParams{
					ID: row.ID, Rev: row.Rev, DisplayName: row.DisplayName, Mail: row.Mail, Role: to, Activation: row.Activation, MFA: row.MFA, UpdatedAt: c.Now().UnixMicro(),
				})
				return err
			})
		}
		anna := addUser(t, r, "anna", rest.RoleNone)
		a := person(anna)
		sits(t, r, a)
		link := ok(r.BeginOwnPhone(ctx, a))(t).Link.Show()
		update(func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.DeleteSession(ctx, a.Session)
			return err
		})
		refused("the session has ended", link)
		sits(t, r, a)
		link = ok(r.BeginOwnPhone(ctx, a))(t).Link.Show()
		role(anna, rest.RoleAdministrator)
		refused("the user has got a role", link)
		role(anna, rest.RoleNone)
		_, err := bring(ctx, r, link, "mine")
		must(t, err)

		olga := addUser(t, r, "olga", rest.RoleAdministrator)
		for what, change := range map[string]func(){
			"has lost the role":     func() { role(olga, rest.RoleAuditor) },
			"is not above the user": func() { role(anna, rest.RoleAdministrator) },
			"is gone": func() {
				update(func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.DeleteUser(ctx, id(olga.ID))
					return err
				})
				olga = addUser(t, r, "olga", rest.RoleAdministrator)
			},
		} {
			link := ok(r.AddPhone(ctx, person(olga), "anna"))(t).Link.Show()
			change()
			refused("who made it "+what, link)
			role(anna, rest.RoleNone)
			role(olga, rest.RoleAdministrator)
		}
		token := person(olga)
		token.Session, token.Fresh, token.Token, token.TokenID, token.Scopes = "", false, true, "no-more", []string{"change"}
		link = ok(r.AddPhone(ctx, token, "anna"))(t).Link.Show()
		refused("the token is gone", link)
		link = ok(r.AddPhone(ctx, person(olga), "anna"))(t).Link.Show()
		_, err = bring(ctx, r, link, "by olga")
		must(t, err)
	})
}

func TestAPhoneOfOnesOwn(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{}
		anna := addUser(t, r, "anna", rest.RoleNone)
		bert := addUser(t, r, "bert", rest.RoleNone)
		a := person(anna)
		sits(t, r, a)
		code := ok(r.BeginOwnPhone(ctx, a))(t)
		if !strings.HasPrefix(code.Link.Show(), desktest.People+"/authenticator/#e=") || !code.ExpiresAt.Equal(c.Now().Add(push.CodeLife)) || code.QR.Empty() {
			t.Errorf("%+v", code)
		}
		state := func(a desk.Actor) string { return ok(r.ShowOwnPhoneCode(ctx, a, code.ID))(t).State }
		if s := state(a); s != rest.PhoneWaiting {
			t.Errorf("it is %s", s)
		}
		if _, err := r.ShowOwnPhoneCode(ctx, person(bert), code.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("bert sees anna's: %v", err)
		}
		got, err := bring(ctx, r, code.Link.Show(), "my phone")
		must(t, err)
		p := ok(r.ShowOwnPhoneCode(ctx, a, code.ID))(t)
		if p.State != rest.PhoneDone || p.Factor == nil || p.Factor.ID != rest.FactorPrefix+got.Device || p.Factor.Phone.Platform != "iOS" {
			t.Errorf("%+v", p)
		}
		// It is the only one, with the seed on it: neither is a second factor to the other.
		if err := refusal(r.RemoveOwnFactor(ctx, a, rest.FactorPrefix+got.Device)); !fault.Is(err, fault.Conflict) {
			t.Errorf("the only phone is removed: %v", err)
		}
		code = ok(r.BeginOwnPhone(ctx, a))(t)
		c.Advance(push.CodeLife)
		if s := state(a); s != rest.PhoneOver {
			t.Errorf("it is %s", s)
		}
		code = ok(r.BeginOwnPhone(ctx, a))(t)
		second, err := bring(ctx, r, code.Link.Show(), "another")
		must(t, err)
		ok(r.RemoveOwnFactor(ctx, a, rest.FactorPrefix+got.Device))(t)
		have := ok(r.ListOwnFactors(ctx, a))(t)
		if len(have.Items) != 2 || have.Items[0].ID != rest.FactorPrefix+second.Device || have.Items[1].On != have.Items[0].ID {
			t.Errorf("%+v", have.Items)
		}
		// As many as there may be.
		for {
			code, err := r.BeginOwnPhone(ctx, a)
			if fault.Is(err, fault.Conflict) {
				break
			}
			must(t, err)
			_, err = bring(ctx, r, code.Link.Show(), "more")
			must(t, err)
		}
		if n := len(ok(r.ListOwnFactors(ctx, a))(t).Items); n != 10 {
			t.Errorf("%d authenticators", n)
		}
	})
}

// Somebody with a code of the help desk enrols a phone as the first factor: the code is
// spent by that, and enrols nothing else.
func TestAPhoneAsTheFirstFactor(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{}
		anna := addUser(t, r, "anna", rest.RoleNone)
		issued := ok(r.IssueEnrolCode(ctx, desk.Root(), "anna", rest.NewEnrolCode{}))(t)
		a := stale(person(anna))
		sits(t, r, a)
		a.Enrol = strings.TrimPrefix(issued.ID, rest.FactorPrefix)
		code := ok(r.BeginOwnPhone(ctx, a))(t)
		_, err := bring(ctx, r, code.Link.Show(), "first")
		must(t, err)
		if _, err := r.BeginOwnPhone(ctx, a); !fault.Is(err, fault.Conflict) {
			t.Errorf("the code enrols twice: %v", err)
		}
		// Two codes of phones were made before either came: one comes.
		bert := addUser(t, r, "bert", rest.RoleNone)
		issued = ok(r.IssueEnrolCode(ctx, desk.Root(), "bert", rest.NewEnrolCode{}))(t)
		b := stale(person(bert))
		sits(t, r, b)
		b.Enrol = strings.TrimPrefix(issued.ID, rest.FactorPrefix)
		code = ok(r.BeginOwnPhone(ctx, b))(t)
		must(t, r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.SpendEnrolCode(ctx, db.SpendEnrolCodeParams{ID: b.Enrol, At: r.Clock.Now().UnixMicro()})
			return err
		}))
		if _, err := bring(ctx, r, code.Link.Show(), "late"); !fault.Is(err, fault.Conflict) {
			t.Errorf("a code that was spent enrols: %v", err)
		}
	})
}
