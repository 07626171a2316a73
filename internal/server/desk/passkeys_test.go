package desk_test

import (
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
)

var atPeople = virtualwebauthn.RelyingParty{Name: "Latchkey", ID: "latchkey.test", Origin: desktest.People}

// made is what a browser answers to a registration.
func made(t *testing.T, p rest.PendingPasskey) rest.Secret {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(p.Options))
	must(t, err)
	for {
		// The authenticator drops zeros at the head of a coordinate, which no real one does.
		if k := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2); len(k.Key.AttestationData()) == 77 {
			return rest.HideText(virtualwebauthn.CreateAttestationResponse(atPeople, virtualwebauthn.NewAuthenticator(), k, *o))
		}
	}
}

func addPasskey(t *testing.T, r *desktest.Rig, a desk.Actor, name string) rest.Factor {
	t.Helper()
	p := ok(r.BeginOwnPasskey(t.Context(), a))(t)
	return ok(r.ConfirmOwnPasskey(t.Context(), a, rest.ConfirmPasskey{Ticket: p.Ticket, Credential: made(t, p), Name: name}))(t)
}

// TestOwnPasskeys: they are made, told of, renamed, removed alone and together; the last
// factor stays.
func TestOwnPasskeys(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		r.Desk.Sessions = &keeping{}
		a := person(addUser(t, r, "anna", rest.RoleNone))
		one := addPasskey(t, r, a, "  the laptop ")
		if one.Name != "the laptop" || one.Kind != "fido2" || one.State != "usable" || one.Passkey == nil || one.Passkey.Host != "latchkey.test" || !one.Passkey.Verifies {
			t.Errorf("it is %+v %+v", one, one.Passkey)
		}
		two := addPasskey(t, r, a, "")
		if two.Name != "Security key" {
			t.Errorf("without a name it is %q", two.Name)
		}
		// The ticket is for the account that has it, and for ten minutes.
		p := ok(r.BeginOwnPasskey(ctx, a))(t)
		bob := person(addUser(t, r, "bob", rest.RoleNone))
		in := rest.ConfirmPasskey{Ticket: p.Ticket, Credential: made(t, p)}
		_, err := r.ConfirmOwnPasskey(ctx, bob, in)
		wantCode(t, err, fault.Expired)
		p = ok(r.BeginOwnPasskey(ctx, a))(t)
		in = rest.ConfirmPasskey{Ticket: p.Ticket, Credential: made(t, p)}
		c.Advance(10*time.Minute + time.Second)
		_, err = r.ConfirmOwnPasskey(ctx, a, in)
		wantCode(t, err, fault.Expired)

		// They are all that there is.
		_, err = r.RemoveOwnPasskeys(ctx, a)
		wantCode(t, err, fault.Conflict)
		must2(t)(r.RemoveOwnFactor(ctx, a, one.ID))
		_, err = r.RemoveOwnFactor(ctx, a, two.ID)
		wantCode(t, err, fault.Conflict)
		enrol(t, r, a, "app")
		addPasskey(t, r, a, "third")
		if d := ok(r.RemoveOwnPasskeys(ctx, a))(t); d.Count != 2 {
			t.Errorf("%d were removed", d.Count)
		}
		_, err = r.RemoveOwnPasskeys(ctx, a)
		wantCode(t, err, fault.NotFound)
		if n := len(ok(r.ListOwnFactors(ctx, a))(t).Items); n != 1 {
			t.Errorf("%d factors are left", n)
		}
		added, removed := 0, 0
		for _, e := range ok(r.ListEvents(ctx, desk.Root(), desk.EventFilter{}, "", 100))(t).Items {
			switch {
			case e.Factor != "fido2":
			case e.Type == string(event.FactorAdded):
				added++
			case e.Type == string(event.FactorRemoved):
				removed++
			}
		}
		if added != 3 || removed != 3 {
			t.Errorf("%d are added and %d removed, as the events say", added, removed)
		}
	})
}

// TestTheHelpDeskAndPasskeys: they are listed and marked as lost by the help desk, and
// removed, one or all, by an administrator, who does not reach an equal (E3).
func TestTheHelpDeskAndPasskeys(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		r.Desk.Sessions = &keeping{}
		anna, adam := addUser(t, r, "anna", rest.RoleNone), addUser(t, r, "adam", rest.RoleAdministrator)
		one, two := addPasskey(t, r, person(anna), "one"), addPasskey(t, r, person(anna), "two")
		addPasskey(t, r, person(adam), "adams")
		help := person(addUser(t, r, "heidi", rest.RoleHelpDesk))
		boss := person(addUser(t, r, "bella", rest.RoleAdministrator))
		if l := ok(r.ListFactors(ctx, help, "anna"))(t); len(l.Items) != 2 || l.Items[0].Passkey == nil {
			t.Errorf("the help desk sees %+v", l.Items)
		}
		must2(t)(r.LoseFactor(ctx, help, "anna", one.ID))
		_, err := r.RemoveFactor(ctx, help, "anna", two.ID)
		wantCode(t, err, fault.Forbidden)
		if d := ok(r.RemoveFactor(ctx, boss, "anna", "fido2"))(t); d.Count != 2 {
			t.Errorf("%d were removed", d.Count)
		}
		if _, err := r.RemoveFactor(ctx, boss, "adam", "fido2"); err == nil {
			t.Error("an administrator removes the passkeys of another")
		}
	})
}

// must2 wants no error of what gives something beside.
func must2(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		must(t, err)
	}
}
