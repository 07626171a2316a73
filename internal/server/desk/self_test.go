package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// keeping stands in for the sessions of people: what the desk asks of them, and what
// it is answered.
type keeping struct {
	password func(userID, password string) error
}

func (k *keeping) Password(_ context.Context, userID, _ string, p secret.Bytes) error {
	return k.password(userID, string(p.Reveal()))
}

func (k *keeping) Still(context.Context, desk.Actor) error { return nil }

// sitsTwice opens the session of the actor, and another one of the same person.
func sitsTwice(t *testing.T, r *desktest.Rig, a desk.Actor) {
	t.Helper()
	sits(t, r, a)
	a.Session += "-elsewhere"
	sits(t, r, a)
}

// sitting are the sessions of the actor that are open.
func sitting(t *testing.T, r *desktest.Rig, a desk.Actor) (ids []string) {
	t.Helper()
	must(t, r.Store.Read(t.Context(), func(q *store.Queries) error {
		rows, err := q.ListSessionsOfUser(t.Context(), db.ListSessionsOfUserParams{UserID: a.UserID, N: 10})
		for _, s := range rows {
			ids = append(ids, s.ID)
		}
		return err
	}))
	return ids
}

// person is somebody with a session and a second factor given a moment ago.
func person(u rest.User) desk.Actor {
	return desk.Actor{Name: u.Name, Role: u.Role, UserID: id(u.ID), Address: "192.0.2.7", Session: "session-" + u.Name, Fresh: true}
}

func stale(a desk.Actor) desk.Actor {
	a.Fresh = false
	return a
}

// first is the code that an app shows for what was begun, computed from the typed key.
func first(t *testing.T, p rest.PendingTOTP, at time.Time) rest.Secret {
	t.Helper()
	seed, err := otp.ParseSeed(p.Key.Show())
	must(t, err)
	params := otp.Params{Algorithm: otp.Algorithm(p.Algorithm), Digits: p.Digits, Period: p.Period}
	return rest.HideText(params.Code(seed, params.Step(at)))
}

// enrol adds an authenticator as the person would.
func enrol(t *testing.T, r *desktest.Rig, a desk.Actor, name string) rest.Factor {
	t.Helper()
	p := ok(r.BeginOwnTOTP(t.Context(), a, rest.BeginTOTP{}))(t)
	return ok(r.ConfirmOwnTOTP(t.Context(), a, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, r.Clock.Now()), Name: name}))(t)
}

// What takes a session, and what beside it a second factor given a moment ago.
const (
	looks  = "looks"
	acts   = "acts"
	proves = "proves"
	enrols = "enrols"
)

// selfActions is every function of the desk with which people do something for
// themselves, with what it takes.
var selfActions = map[string]*struct {
	takes string
	do    func(ctx context.Context, d *desk.Desk, a desk.Actor) error
}{
	"Me": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error { _, err := d.Me(ctx, a); return err }},
	"ListOwnFactors": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ListOwnFactors(ctx, a)
		return err
	}},
	"ListOwnCertificates": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ListOwnCertificates(ctx, a)
		return err
	}},
	"RequestOwnCertificate": {proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.RequestOwnCertificate(ctx, a, rest.NewCertificate{})
		return err
	}},
	"RevokeOwnCertificate": {acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.RevokeOwnCertificate(ctx, a, "00", rest.RevokeCertificate{})
		return err
	}},
	"ShowOwnFactor": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ShowOwnFactor(ctx, a, "x")
		return err
	}},
	"ListOwnMachines": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ListOwnMachines(ctx, a, "", 0)
		return err
	}},
	"ShowOwnMachine": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ShowOwnMachine(ctx, a, "x")
		return err
	}},
	"ListOwnSignins": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ListOwnSignins(ctx, a, "", 0)
		return err
	}},
	"ShowOwnSignin": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ShowOwnSignin(ctx, a, "x")
		return err
	}},
	"ListOwnReports": {looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ListOwnReports(ctx, a, "", 0)
		return err
	}},
	"ChangeMe": {acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ChangeMe(ctx, a, 0, rest.MeChange{})
		return err
	}},
	"RenameOwnFactor": {acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.RenameOwnFactor(ctx, a, "x", rest.FactorChange{Name: "n"})
		return err
	}},
	"DisenrolOwn": {acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.DisenrolOwn(ctx, a, "x")
		return err
	}},
	"LoseOwnMachine": {acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.LoseOwnMachine(ctx, a, "x", rest.NewReport{})
		return err
	}},
	"ReportOwnSignin": {acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ReportOwnSignin(ctx, a, "x", rest.NewReport{})
		return err
	}},
	"ChangeOwnPassword": {proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		return d.ChangeOwnPassword(ctx, a, rest.OwnPassword{Old: rest.HideText("old"), New: rest.Hide(desktest.Password())})
	}},
	"RemoveOwnFactor": {proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.RemoveOwnFactor(ctx, a, "x")
		return err
	}},
	"LoseOwnFactor": {proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.LoseOwnFactor(ctx, a, "x")
		return err
	}},
	"MakeOwnBackup": {proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.MakeOwnBackup(ctx, a)
		return err
	}},
	"RemoveOwnPasskeys": {proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.RemoveOwnPasskeys(ctx, a)
		return err
	}},
	"BeginOwnPasskey": {enrols, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.BeginOwnPasskey(ctx, a)
		return err
	}},
	"ConfirmOwnPasskey": {"a ticket", func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ConfirmOwnPasskey(ctx, a, rest.ConfirmPasskey{Ticket: rest.HideText("x"), Credential: rest.HideText("{}")})
		return err
	}},
	"BeginOwnTOTP": {enrols, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.BeginOwnTOTP(ctx, a, rest.BeginTOTP{})
		return err
	}},
	"ShowOwnTOTP": {"a ticket", func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ShowOwnTOTP(ctx, a, rest.HideText("x"))
		return err
	}},
	"ConfirmOwnTOTP": {"a ticket", func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: rest.HideText("x"), Code: rest.HideText("123456")})
		return err
	}},
}

func TestWhatPeopleDoForThemselvesTakes(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		r.Sessions = &keeping{password: func(string, string) error { return nil }}
		anna := addUser(t, r, "anna", rest.RoleOwner)
		whole := person(anna)
		token := whole
		token.Session, token.Token, token.Scopes = "", true, desk.Scopes
		enrolling := whole
		enrolling.Fresh, enrolling.Enrol = false, "no-such-code"
		away := whole
		away.Session = ""
		for name, action := range selfActions {
			for who, a := range map[string]desk.Actor{"root": desk.Root(), "a token": token, "nobody": {}} {
				before := count(t, r)
				if err := action.do(t.Context(), r.Desk, a); !fault.Is(err, fault.Forbidden) && !fault.Is(err, fault.Unauthorized) {
					if name == "ShowOwnTOTP" && who == "a token" && fault.Is(err, fault.Expired) {
						continue // who has no ticket sees nothing
					}
					t.Errorf("%s by %s: %v", name, who, err)
				}
				if count(t, r) != before {
					t.Errorf("%s by %s was refused and left an event", name, who)
				}
			}
			for who, c := range map[string]struct {
				a    desk.Actor
				want fault.Code
			}{
				"somebody without a session":     {away, map[string]fault.Code{acts: fault.Unauthorized, proves: fault.Unauthorized, enrols: fault.Unauthorized}[action.takes]},
				"somebody without a fresh proof": {stale(whole), map[string]fault.Code{proves: fault.StepUp, enrols: fault.StepUp}[action.takes]},
				"somebody who only enrols":       {enrolling, map[string]fault.Code{looks: fault.Forbidden, acts: fault.Forbidden, proves: fault.Forbidden, enrols: fault.Conflict}[action.takes]},
			} {
				if c.want == "" {
					continue
				}
				if err := action.do(t.Context(), r.Desk, c.a); !fault.Is(err, c.want) {
					t.Errorf("%s by %s: %v, want %s", name, who, err, c.want)
				}
			}
			if err := action.do(t.Context(), r.Desk, whole); fault.Is(err, fault.Forbidden) || fault.Is(err, fault.Unauthorized) || fault.Is(err, fault.StepUp) || fault.Is(err, fault.Internal) {
				t.Errorf("%s by the person: %v", name, err)
			}
		}
		// Who was disabled meanwhile is nobody, whatever the door has seen.
		yes := true
		ok(r.ChangeUser(t.Context(), desk.Root(), "anna", 0, rest.UserChange{Disabled: &yes}))(t)
		for name, action := range selfActions {
			if err := action.do(t.Context(), r.Desk, whole); err == nil || fault.Is(err, fault.Internal) {
				t.Errorf("%s by somebody who is disabled: %v", name, err)
			}
		}
	})
}

// E1: the first authenticator is set up with an enrolment code, once.
func TestE1TheFirstEnrolment(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		anna := addUser(t, r, "anna", rest.RoleNone)
		code := ok(r.IssueEnrolCode(ctx, desk.Root(), "anna", rest.NewEnrolCode{}))(t)
		a := stale(person(anna))
		a.Enrol = id(code.ID)

		p := ok(r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{}))(t)
		again := ok(r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{}))(t)
		if p.Key.Show() == again.Key.Show() {
			t.Error("two beginnings have one key")
		}
		if shown := ok(r.ShowOwnTOTP(ctx, a, p.Ticket))(t); shown.Key.Show() != p.Key.Show() || shown.URI.Show() != p.URI.Show() {
			t.Error("a ticket shows another key than it was made for")
		}
		// Nothing stands yet that a code would be accepted of.
		if f := ok(r.ListFactors(ctx, desk.Root(), "anna"))(t); len(f.Items) != 1 || f.Items[0].Kind != "enrol" {
			t.Errorf("before the first code: %+v", f.Items)
		}
		// A wrong code is a slip: the ticket stays good.
		_, err := r.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: p.Ticket, Code: rest.HideText("000000")})
		if f := fault.Of(err); f.Code != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Name != "code" {
			t.Errorf("a wrong first code: %v", err)
		}
		// Somebody else's ticket is none.
		bob := person(addUser(t, r, "bob", rest.RoleNone))
		_, err = r.ConfirmOwnTOTP(ctx, bob, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now())})
		wantCode(t, err, fault.Expired)

		f := ok(r.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now()), Name: "phone"}))(t)
		if f.Name != "phone" || f.State != "usable" || f.Kind != "totp" || f.ConfirmedAt.IsZero() {
			t.Errorf("the authenticator: %+v", f)
		}
		// The first code is spent, and so is the enrolment code.
		must(t, r.Store.Read(ctx, func(q *store.Queries) error {
			row, err := q.GetAuthenticator(ctx, id(f.ID))
			if err == nil && row.Step != otp.DefaultParams.Step(c.Now()) {
				t.Errorf("step %d", row.Step)
			}
			return err
		}))
		for what, err := range map[string]error{
			"the same ticket again":    refusal(r.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now())})),
			"the other ticket":         refusal(r.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: again.Ticket, Code: first(t, again, c.Now())})),
			"a second beginning":       refusal(r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{})),
			"another without a fresh":  refusal(r.BeginOwnTOTP(ctx, stale(person(anna)), rest.BeginTOTP{})),
			"its ticket in a session":  refusal(r.ConfirmOwnTOTP(ctx, person(anna), rest.ConfirmTOTP{Ticket: again.Ticket, Code: first(t, again, c.Now())})),
			"a ticket that is damaged": refusal(r.ConfirmOwnTOTP(ctx, person(anna), rest.ConfirmTOTP{Ticket: rest.HideText("A" + again.Ticket.Show()[1:]), Code: first(t, again, c.Now())})),
		} {
			if err == nil || fault.Is(err, fault.Internal) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if f := ok(r.ListFactors(ctx, desk.Root(), "anna"))(t); len(f.Items) != 1 || f.Items[0].Kind != "totp" {
			t.Errorf("at the end: %+v", f.Items)
		}
		if got := types(t, r, "anna"); !slices.Equal(got, []event.Type{event.UserAdded, event.CodeIssued, event.CodeSpent, event.FactorAdded}) {
			t.Errorf("events: %v", got)
		}
	})
}

func TestATicketEndsWithItsTimeAndWithAnyChange(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		a := person(addUser(t, r, "anna", rest.RoleNone))
		p := ok(r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{}))(t)
		c.Advance(15 * time.Minute)
		_, err := r.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now())})
		wantCode(t, err, fault.Expired)

		p = ok(r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{Algorithm: "SHA512", Digits: 8, Period: 60}))(t)
		enrol(t, r, a, "another") // meanwhile
		_, err = r.ConfirmOwnTOTP(ctx, a, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now())})
		wantCode(t, err, fault.Expired)

		// The settings of the app are kept.
		p = ok(r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{Algorithm: "SHA512", Digits: 8, Period: 60}))(t)
		f := ok(r.ConfirmOwnTOTP(ctx, stale(a), rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now())}))(t)
		if f.Algorithm != "SHA512" || f.Digits != 8 || f.Period != 60 {
			t.Errorf("%+v", f)
		}
		for range 8 {
			enrol(t, r, a, "")
		}
		_, err = r.BeginOwnTOTP(ctx, a, rest.BeginTOTP{})
		wantCode(t, err, fault.Conflict)
	})
}

// A backup code opens no console, nor by the way of a new authenticator.
func TestE3ABackupCodeAddsNoKeyToTheConsole(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		anna, otto := person(addUser(t, r, "anna", rest.RoleNone)), person(addUser(t, r, "otto", rest.RoleOwner))
		enrol(t, r, anna, "phone")
		enrol(t, r, otto, "phone")
		p := ok(r.BeginOwnTOTP(ctx, otto, rest.BeginTOTP{}))(t)
		low := otto
		low.Role = rest.RoleNone // what a session of a backup code has
		_, err := r.BeginOwnTOTP(ctx, low, rest.BeginTOTP{})
		wantCode(t, err, fault.Forbidden)
		_, err = r.ConfirmOwnTOTP(ctx, low, rest.ConfirmTOTP{Ticket: p.Ticket, Code: first(t, p, c.Now())})
		wantCode(t, err, fault.Forbidden)
		enrol(t, r, anna, "another") // who has no role loses nothing by it
	})
}

// refusal is the error of a call.
func refusal[T any](_ T, err error) error { return err }

// types are the types of the events about a user, in their order.
func types(t *testing.T, r *desktest.Rig, name string) []event.Type {
	t.Helper()
	var out []event.Type
	for _, e := range ok(r.ListEvents(t.Context(), desk.Root(), desk.EventFilter{User: name}, "", 500))(t).Items {
		out = append(out, event.Type(e.Type))
	}
	slices.Reverse(out)
	return out
}

func TestOwnFactorsAreChangedByTheirOwnerAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{}
		anna, bob := addUser(t, r, "anna", rest.RoleNone), addUser(t, r, "bob", rest.RoleOwner)
		a := person(anna)
		m := r.Machine(t, "laptop", rest.MachineActive)
		one := enrol(t, r, a, "phone")
		theirs := enrol(t, r, person(bob), "bob's phone")
		r.Window(t, id(anna.ID), m.ID, "boot-1", clock.Micros(c.Now().Add(time.Hour)))

		// Somebody else's, even an owner's: as if it were not there.
		for what, err := range map[string]error{
			"show":   refusal(r.ShowOwnFactor(ctx, a, theirs.ID)),
			"rename": refusal(r.RenameOwnFactor(ctx, a, theirs.ID, rest.FactorChange{Name: "mine"})),
			"remove": refusal(r.RemoveOwnFactor(ctx, a, theirs.ID)),
			"lose":   refusal(r.LoseOwnFactor(ctx, a, theirs.ID)),
		} {
			absent := rest.FactorPrefix + "01930000-0000-7000-8000-000000000000"
			_, none := r.ShowOwnFactor(ctx, a, absent)
			if got, want := strings.ReplaceAll(fault.Of(err).Public(), theirs.ID, "X"), strings.ReplaceAll(fault.Of(none).Public(), absent, "X"); got != want || !fault.Is(err, fault.NotFound) {
				t.Errorf("%s somebody else's factor: %v, want as of none: %v", what, err, none)
			}
		}
		// The last authenticator stays.
		_, err := r.RemoveOwnFactor(ctx, a, one.ID)
		wantCode(t, err, fault.Conflict)
		if f := ok(r.RenameOwnFactor(ctx, stale(a), one.ID, rest.FactorChange{Name: "old phone"}))(t); f.Name != "old phone" {
			t.Errorf("%+v", f)
		}
		two := enrol(t, r, a, "new phone")
		generation := func() int64 {
			var g int64
			must(t, r.Store.Read(ctx, func(q *store.Queries) error {
				u, err := q.GetUser(ctx, id(anna.ID))
				g = u.PasswordGeneration
				return err
			}))
			return g
		}
		before := generation()
		r.Window(t, id(anna.ID), m.ID, "boot-1", clock.Micros(c.Now().Add(time.Hour)))
		sitsTwice(t, r, a)
		if d := ok(r.RemoveOwnFactor(ctx, a, one.ID))(t); d.Count != 1 {
			t.Errorf("%+v", d)
		}
		if generation() <= before {
			t.Error("machines keep the offline data of the removed authenticator")
		}
		if w := ok(r.ListWindows(ctx, desk.Root(), "anna", "", "", 0))(t); len(w.Items) != 0 {
			t.Errorf("windows: %+v", w.Items)
		}
		if got := sitting(t, r, a); !slices.Equal(got, []string{a.Session}) {
			t.Errorf("sessions: %v", got)
		}
		// A lost one is not accepted any more; with codes there is a way on.
		codes := ok(r.MakeOwnBackup(ctx, a))(t)
		if len(codes.Codes) != 10 {
			t.Errorf("%d codes", len(codes.Codes))
		}
		if f := ok(r.LoseOwnFactor(ctx, a, two.ID))(t); f.State != "lost" {
			t.Errorf("%+v", f)
		}
		me := ok(r.Me(ctx, a))(t)
		if me.Authenticators != 0 || me.BackupLeft != 10 || !slices.Equal(me.Steps, []string{rest.StepEnrol}) {
			t.Errorf("%+v", me)
		}
		three := enrol(t, r, a, "newest")
		if d := ok(r.RemoveOwnFactor(ctx, a, two.ID))(t); d.Count != 1 {
			t.Errorf("%+v", d)
		}
		// New codes end the old ones.
		again := ok(r.MakeOwnBackup(ctx, a))(t)
		if again.ID == codes.ID {
			t.Error("the set is the same")
		}
		me = ok(r.Me(ctx, a))(t)
		if len(me.Factors) != 2 || me.BackupLeft != 10 || me.Factors[0].ID != three.ID || !slices.Equal(me.Steps, []string{rest.StepSecond}) {
			t.Errorf("%+v", me)
		}
		// What the help desk has issued is not the person's to see.
		ok(r.IssueBypassCode(ctx, desk.Root(), "anna", rest.NewBypassCode{Reason: "between us"}))(t)
		if b, _ := json.Marshal(ok(r.Me(ctx, a))(t)); strings.Contains(string(b), "between us") || strings.Contains(string(b), "bypass") {
			t.Errorf("%s", b)
		}
		if b, _ := json.Marshal(ok(r.ListOwnFactors(ctx, a))(t)); strings.Contains(string(b), "bypass") {
			t.Errorf("%s", b)
		}
	})
}

// TestAWeakFactorTakesNoStrongOnesAway: whoever reads the paper or the mail of somebody with
// a role marks one authenticator as lost while another is left, and no more.
func TestAWeakFactorTakesNoStrongOnesAway(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{}
		anna := addUser(t, r, "anna", rest.RoleAdministrator)
		strong := person(anna)
		weak := strong
		weak.Role = rest.RoleNone // a session that does not open the console
		one, two, three := enrol(t, r, strong, "phone"), enrol(t, r, strong, "tablet"), enrol(t, r, strong, "third")
		forbidden := func(what string, err error) {
			t.Helper()
			if !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s: %v", what, err)
			}
		}
		forbidden("remove", refusal(r.RemoveOwnFactor(ctx, weak, one.ID)))
		forbidden("codes", refusal(r.MakeOwnBackup(ctx, weak)))
		ok(r.LoseOwnFactor(ctx, weak, one.ID))(t)
		ok(r.LoseOwnFactor(ctx, weak, one.ID))(t) // again changes nothing
		forbidden("lose another", refusal(r.LoseOwnFactor(ctx, weak, two.ID)))
		forbidden("lose the third", refusal(r.LoseOwnFactor(ctx, weak, three.ID)))
		forbidden("remove the lost", refusal(r.RemoveOwnFactor(ctx, weak, one.ID)))
		// One that opens the console may, as ever.
		ok(r.MakeOwnBackup(ctx, strong))(t)
		ok(r.LoseOwnFactor(ctx, strong, two.ID))(t)
		ok(r.RemoveOwnFactor(ctx, strong, one.ID))(t)
		// A single one stays for the help desk to mark.
		bob := addUser(t, r, "bob", rest.RoleHelpDesk)
		only := enrol(t, r, person(bob), "phone")
		w := person(bob)
		w.Role = rest.RoleNone
		forbidden("the only one", refusal(r.LoseOwnFactor(ctx, w, only.ID)))
	})
}

func TestMeChangesWhatIsMine(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		a := person(addUser(t, r, "anna", rest.RoleAuditor))
		name, mail, bad := "Anna Ångström", "anna@example.org", "not a mail"
		me := ok(r.ChangeMe(ctx, stale(a), 0, rest.MeChange{DisplayName: &name}))(t)
		if me.DisplayName != name || me.Role != rest.RoleAuditor {
			t.Errorf("%+v", me)
		}
		_, err := r.ChangeMe(ctx, stale(a), 0, rest.MeChange{Mail: &mail})
		wantCode(t, err, fault.StepUp)
		_, err = r.ChangeMe(ctx, a, 0, rest.MeChange{Mail: &bad})
		wantCode(t, err, fault.Invalid)
		_, err = r.ChangeMe(ctx, a, me.Rev-1, rest.MeChange{Mail: &mail})
		wantCode(t, err, fault.Conflict)
		if me = ok(r.ChangeMe(ctx, a, me.Rev, rest.MeChange{Mail: &mail}))(t); me.Mail != mail {
			t.Errorf("%+v", me)
		}
	})
}

func TestOwnPassword(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{password: func(userID, p string) error {
			if p != "the old password" {
				return fault.New(fault.Invalid, nil).With("old", "it is wrong")
			}
			return nil
		}}
		anna := ok(r.AddUser(ctx, desk.Root(), rest.NewUser{Name: "anna", Password: rest.HideText("the old password"), MustChange: true}))(t)
		a := person(anna)
		sitsTwice(t, r, a)
		m := r.Machine(t, "laptop", rest.MachineActive)
		r.Vault(t, id(anna.ID), m.ID, "tpm", clock.Micros(c.Now().Add(96*time.Hour)), 30)
		r.Window(t, id(anna.ID), m.ID, "boot-1", clock.Micros(c.Now().Add(time.Hour)))
		try := func(old, now string) *fault.Fault {
			err := r.ChangeOwnPassword(ctx, a, rest.OwnPassword{Old: rest.HideText(old), New: rest.HideText(now)})
			if err == nil {
				return nil
			}
			return fault.Of(err)
		}
		for name, x := range map[string]struct{ old, now, field string }{
			"nothing typed":         {"", "a new password", "old"},
			"no new one":            {"the old password", "", "new"},
			"the same again":        {"the old password", "the old password", "new"},
			"too short":             {"the old password", "short", "new"},
			"with the name in it":   {"the old password", "my anna password", "new"},
			"a wrong old one":       {"another password", "a new password", "old"},
			"short, and wrong old":  {"another password", "short", "new"},
			"one character, always": {"the old password", "aaaaaaaaaaaaaaaa", "new"},
		} {
			if f := try(x.old, x.now); f == nil || f.Code != fault.Invalid || f.Fields[0].Name != x.field {
				t.Errorf("%s: %v", name, f)
			}
		}
		if got := sitting(t, r, a); len(got) != 2 {
			t.Errorf("mistakes have left the sessions %v", got)
		}
		if f := try("the old password", "a much better one"); f != nil {
			t.Fatal(f)
		}
		me := ok(r.Me(ctx, a))(t)
		if me.MustChange || !me.PasswordChangedAt.Equal(c.Now()) {
			t.Errorf("%+v", me)
		}
		if got := sitting(t, r, a); !slices.Equal(got, []string{a.Session}) {
			t.Errorf("sessions: %v", got)
		}
		if w := ok(r.ListWindows(ctx, desk.Root(), "anna", "", "", 0))(t); len(w.Items) != 0 {
			t.Errorf("windows: %+v", w.Items)
		}
		// Machines refuse what was made with the old one.
		if l := ok(r.ListOwnMachines(ctx, a, "", 0))(t); l.Items[0].Offline.State != "outdated" {
			t.Errorf("%+v", l.Items)
		}
		// Who has no password here can not change one.
		bob := person(addUser(t, r, "bob", rest.RoleNone))
		wantCode(t, r.ChangeOwnPassword(ctx, bob, rest.OwnPassword{Old: rest.HideText("x"), New: rest.HideText("a much better one")}), fault.Conflict)
	})
}

func TestOwnMachines(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		anna, bob := addUser(t, r, "anna", rest.RoleNone), addUser(t, r, "bob", rest.RoleNone)
		a := person(anna)
		if l := ok(r.ListOwnMachines(ctx, a, "", 0))(t); len(l.Items) != 0 {
			t.Errorf("%+v", l.Items)
		}
		laptop, shared, foreign := r.Machine(t, "laptop", rest.MachineActive), r.Machine(t, "shared", rest.MachineActive), r.Machine(t, "foreign", rest.MachineActive)
		owner := "anna"
		ok(r.ChangeMachine(ctx, desk.Root(), "laptop", 0, rest.MachineChange{Owner: &owner}))(t)
		r.Vault(t, id(anna.ID), laptop.ID, "tpm", clock.Micros(c.Now().Add(24*time.Hour)), 8)
		r.Vault(t, id(bob.ID), laptop.ID, "software", clock.Micros(c.Now().Add(96*time.Hour)), 30)
		r.Vault(t, id(anna.ID), shared.ID, "software", clock.Micros(c.Now().Add(96*time.Hour)), 30)
		r.Vault(t, id(bob.ID), shared.ID, "tpm", clock.Micros(c.Now().Add(96*time.Hour)), 30)
		r.Vault(t, id(bob.ID), foreign.ID, "tpm", clock.Micros(c.Now().Add(96*time.Hour)), 30)
		r.Window(t, id(anna.ID), shared.ID, "boot-1", clock.Micros(c.Now().Add(time.Hour)))
		must(t, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
			_, err := tx.Event(event.Event{Type: event.SigninAllowed, UserID: id(anna.ID), Subject: "anna", MachineID: laptop.ID, Machine: "laptop", At: clock.Micros(c.Now().Add(-time.Hour))})
			return err
		}))

		l := ok(r.ListOwnMachines(ctx, a, "", 0))(t)
		if len(l.Items) != 2 {
			t.Fatalf("%+v", l.Items)
		}
		one, two := l.Items[0], l.Items[1]
		if one.Name != "laptop" || !one.Mine || one.SignedIn || !one.LastSigninAt.Equal(c.Now().Add(-time.Hour)) ||
			one.Offline.State != "active" || one.Offline.DaysLeft != 1 || one.Offline.SigninsLeft != 8 || !slices.Equal(one.Offline.Warnings, []string{rest.WarnDays, rest.WarnSignins}) {
			t.Errorf("%+v", one)
		}
		if m := ok(r.ShowOwnMachine(ctx, a, one.ID))(t); !m.LastSigninAt.Equal(one.LastSigninAt) {
			t.Errorf("%+v", m)
		}
		if two.Name != "shared" || two.Mine || !two.SignedIn || !two.LastSigninAt.IsZero() || !slices.Equal(two.Offline.Warnings, []string{rest.WarnSoftware}) {
			t.Errorf("%+v", two)
		}
		if me := ok(r.Me(ctx, a))(t); me.Machines != 2 || me.Offline != 2 || !slices.Contains(me.Steps, rest.StepOffline) {
			t.Errorf("%+v", me)
		}
		// By pages.
		p := ok(r.ListOwnMachines(ctx, a, "", 1))(t)
		if len(p.Items) != 1 || p.Next == "" {
			t.Fatalf("%+v", p)
		}
		if p = ok(r.ListOwnMachines(ctx, a, p.Next, 1))(t); len(p.Items) != 1 || p.Items[0].Name != "shared" || p.Next != "" {
			t.Errorf("%+v", p)
		}

		// Somebody else's machine, by name or id, is not there.
		for _, ref := range []string{rest.MachinePrefix + foreign.ID, "foreign", "laptop", "#1", "", rest.MachinePrefix + "01930000-0000-7000-8000-000000000000"} {
			for what, err := range map[string]error{
				"show":     refusal(r.ShowOwnMachine(ctx, a, ref)),
				"disenrol": refusal(r.DisenrolOwn(ctx, a, ref)),
				"lose":     refusal(r.LoseOwnMachine(ctx, a, ref, rest.NewReport{})),
			} {
				if !fault.Is(err, fault.NotFound) {
					t.Errorf("%s %q: %v", what, ref, err)
				}
			}
		}

		// O14: disenrol is of the person on that machine, and of nobody else.
		d := ok(r.DisenrolOwn(ctx, stale(a), rest.MachinePrefix+laptop.ID))(t)
		if d.Count != 1 || !slices.Equal(d.Machines, []string{rest.MachinePrefix + laptop.ID}) {
			t.Errorf("%+v", d)
		}
		states := map[string]string{}
		for _, e := range ok(r.ListOffline(ctx, desk.Root(), desk.OfflineFilter{}, "", 0))(t).Items {
			states[e.User+" "+e.Machine] = e.State
		}
		if states["anna laptop"] != "disenrolling" || states["bob laptop"] != "active" || states["anna shared"] != "active" {
			t.Errorf("%v", states)
		}
		if m := ok(r.ShowOwnMachine(ctx, a, rest.MachinePrefix+laptop.ID))(t); m.Offline.State != "disenrolling" {
			t.Errorf("%+v", m)
		}
	})
}

// shutDoor ends no machine's trust.
type shutDoor struct{ desk.Door }

func (shutDoor) Dismiss(context.Context, *store.Tx, string, string) ([]string, error) {
	return nil, errors.New("shut")
}

func TestALostMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		anna, bob := addUser(t, r, "anna", rest.RoleNone), addUser(t, r, "bob", rest.RoleNone)
		a := person(anna)
		app := enrol(t, r, a, "phone")
		enrol(t, r, person(bob), "bob's")
		c.Advance(time.Minute)
		mine, shared := r.Machine(t, "mine", rest.MachineActive), r.Machine(t, "shared", rest.MachineActive)
		owner := "anna"
		ok(r.ChangeMachine(ctx, desk.Root(), "mine", 0, rest.MachineChange{Owner: &owner}))(t)
		for _, m := range []db.Machine{mine, shared} {
			r.Vault(t, id(anna.ID), m.ID, "software", clock.Micros(c.Now().Add(96*time.Hour)), 30)
			r.Vault(t, id(bob.ID), m.ID, "tpm", clock.Micros(c.Now().Add(96*time.Hour)), 30)
		}

		// One that others use too: the help desk is asked.
		got := ok(r.LoseOwnMachine(ctx, stale(a), rest.MachinePrefix+shared.ID, rest.NewReport{Told: "left in\na train"}))(t)
		if got.Revoked || got.Disenroled != 1 || got.Report.State != rest.ReportOpen || got.Report.Told != "left in\na train" || got.Report.Machine != "shared" {
			t.Errorf("%+v", got)
		}
		if len(got.Reseed) != 1 || got.Reseed[0].ID != app.ID || !got.Reseed[0].Urgent {
			t.Errorf("%+v", got.Reseed)
		}
		if m := ok(r.ShowMachine(ctx, desk.Root(), "shared"))(t); m.Status != rest.MachineActive {
			t.Errorf("%+v", m)
		}
		again := ok(r.LoseOwnMachine(ctx, stale(a), rest.MachinePrefix+shared.ID, rest.NewReport{}))(t)
		if again.Report.ID != got.Report.ID {
			t.Error("one loss makes two reports")
		}
		// One's own: with a fresh factor it is revoked.
		_, err := r.LoseOwnMachine(ctx, stale(a), rest.MachinePrefix+mine.ID, rest.NewReport{})
		wantCode(t, err, fault.StepUp)
		// All of it or nothing: no event says revoked where that failed.
		r.Desk.Door = shutDoor{r.Desk.Door}
		if _, err := r.LoseOwnMachine(ctx, a, rest.MachinePrefix+mine.ID, rest.NewReport{}); err == nil {
			t.Error("the door was shut")
		}
		r.Desk.Door = r.Desk.Door.(shutDoor).Door
		if l := ok(r.ListEvents(ctx, desk.Root(), desk.EventFilter{Machine: "mine", Types: []string{string(event.ReportOpened), string(event.MachineLost)}}, "", 0))(t); len(l.Items) != 0 {
			t.Errorf("%+v", l.Items)
		}
		got = ok(r.LoseOwnMachine(ctx, a, rest.MachinePrefix+mine.ID, rest.NewReport{}))(t)
		if l := ok(r.ListEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{string(event.MachineLost)}}, "", 0))(t); len(l.Items) != 1 || l.Items[0].Actor != a.Name {
			t.Errorf("%+v", l.Items)
		}
		if !got.Revoked || len(got.Reseed) != 1 || got.Reseed[0].User != "anna" {
			t.Errorf("%+v", got)
		}
		if m := ok(r.ShowMachine(ctx, desk.Root(), "mine"))(t); m.Status != rest.MachineLost {
			t.Errorf("%+v", m)
		}
		// What is marked as lost is no longer among those that want to be renewed.
		if l := ok(r.ListReseed(ctx, desk.Root(), "mine"))(t); len(l.Items) != 2 {
			t.Errorf("%+v", l.Items)
		}
		ok(r.LoseFactor(ctx, desk.Root(), "anna", app.ID))(t)
		if l := ok(r.ListReseed(ctx, desk.Root(), "mine"))(t); len(l.Items) != 1 || l.Items[0].User != "bob" {
			t.Errorf("%+v", l.Items)
		}
		_, err = r.LoseOwnMachine(ctx, a, rest.MachinePrefix+mine.ID, rest.NewReport{})
		wantCode(t, err, fault.Conflict)

		// The help desk sees both, and handles them.
		helper := desk.Actor{Name: "hilda", Role: rest.RoleHelpDesk, UserID: "h"}
		open := ok(r.ListReports(ctx, helper, rest.ReportOpen, "", "", 0))(t)
		if len(open.Items) != 2 || open.Items[0].Machine != "mine" || open.Items[1].Machine != "shared" || open.Items[0].User != "anna" {
			t.Errorf("%+v", open.Items)
		}
		alerts := 0
		for _, e := range ok(r.ListEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{string(event.ReportOpened)}}, "", 0))(t).Items {
			var data struct{ Severity string }
			must(t, json.Unmarshal(e.Data, &data))
			if data.Severity == "alert" && e.UserID == anna.ID {
				alerts++
			}
		}
		if alerts != 2 {
			t.Errorf("%d alerts, want 2", alerts)
		}
		own := person(anna)
		own.Role = rest.RoleHelpDesk
		_, err = r.HandleReport(ctx, own, open.Items[1].ID, rest.HandleReport{Answer: "done"})
		wantCode(t, err, fault.Forbidden)
		_, err = r.HandleReport(ctx, helper, open.Items[1].ID, rest.HandleReport{})
		wantCode(t, err, fault.Invalid)
		h := ok(r.HandleReport(ctx, helper, open.Items[1].ID, rest.HandleReport{Answer: "found again"}))(t)
		if h.State != rest.ReportHandled || h.HandledBy != "hilda" || !h.HandledAt.Equal(c.Now()) {
			t.Errorf("%+v", h)
		}
		_, err = r.HandleReport(ctx, helper, open.Items[1].ID, rest.HandleReport{Answer: "late"})
		wantCode(t, err, fault.Conflict)
		if l := ok(r.ListOwnReports(ctx, a, "", 0))(t); len(l.Items) != 2 || l.Items[1].Answer != "found again" {
			t.Errorf("%+v", l.Items)
		}
		if l := ok(r.ListOwnReports(ctx, person(bob), "", 0))(t); len(l.Items) != 0 {
			t.Errorf("%+v", l.Items)
		}
	})
}

func TestASignInWithAWrongCodeSaysSo(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		anna, bob := addUser(t, r, "anna", rest.RoleNone), addUser(t, r, "bob", rest.RoleNone)
		m := r.Machine(t, "laptop", rest.MachineActive)
		// try is a sign-in that came to no end, half a minute long, with what was rejected in
		// it.
		try := func(u rest.User, conversation string, ago time.Duration, rejected ...event.Event) string {
			t.Helper()
			end := event.Event{
				ID: store.NewID(), Type: event.SigninAbandoned, UserID: id(u.ID), Subject: u.Name, MachineID: m.ID, Machine: "laptop", Outcome: "abandoned",
				At: clock.Micros(c.Now().Add(-ago)), Data: json.RawMessage(fmt.Sprintf(`{"conversation":%q,"duration_ms":30000}`, conversation)),
			}
			must(t, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
				for _, e := range rejected {
					e.ID, e.Type, e.UserID, e.Subject, e.MachineID = store.NewID(), event.FactorRejected, end.UserID, u.Name, m.ID
					e.At = end.At - 10_000_000
					if e.Data == nil {
						e.Data = json.RawMessage(fmt.Sprintf(`{"conversation":%q}`, conversation))
					}
					if _, err := tx.Event(e); err != nil {
						return err
					}
				}
				_, err := tx.Event(end)
				return err
			}))
			return rest.EventPrefix + end.ID
		}
		code := event.Event{Factor: "totp", Reason: "factor-wrong"}
		want := map[string]bool{
			try(anna, "cnv-1", time.Minute, code):                                                                                true,
			try(anna, "cnv-2", 2*time.Minute):                                                                                    false,
			try(anna, "cnv-3", 3*time.Minute, event.Event{Factor: "push", Reason: "factor-wrong"}):                               false,
			try(anna, "cnv-4", 4*time.Minute, event.Event{Factor: "mail", Reason: "factor-not-sent"}):                            false,
			try(anna, "cnv-5", time.Minute, event.Event{Factor: "totp", Data: json.RawMessage(`{"conversation":"somebody's"}`)}): false,
			try(anna, "cnv-6", 6*time.Minute, code, code):                                                                        true,
		}
		try(bob, "cnv-7", time.Minute, code)
		l := ok(r.ListOwnSignins(ctx, person(anna), "", 0))(t)
		if len(l.Items) != len(want) {
			t.Fatalf("%d of %d sign-ins", len(l.Items), len(want))
		}
		for _, s := range l.Items {
			if s.WrongCode != want[s.ID] {
				t.Errorf("%s: a wrong code: %v", s.ID, s.WrongCode)
			}
			if one := ok(r.ShowOwnSignin(ctx, person(anna), s.ID))(t); one.WrongCode != s.WrongCode {
				t.Errorf("%s by itself: a wrong code: %v", s.ID, one.WrongCode)
			}
		}
	})
}

func TestThisWasNotMe(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		r.Sessions = &keeping{}
		anna, bob := addUser(t, r, "anna", rest.RoleNone), addUser(t, r, "bob", rest.RoleNone)
		a := person(anna)
		m := r.Machine(t, "laptop", rest.MachineActive)
		write := func(e event.Event) string {
			e.ID = store.NewID()
			must(t, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error { _, err := tx.Event(e); return err }))
			return rest.EventPrefix + e.ID
		}
		at := func(d time.Duration) int64 { return clock.Micros(c.Now().Add(d)) }
		good := write(event.Event{Type: event.SigninAllowed, UserID: id(anna.ID), Subject: "anna", MachineID: m.ID, Machine: "laptop", Scope: "remote", Service: "sshd", Address: "198.51.100.9", Outcome: "allow", Reason: "mfa-required", Factor: "totp", At: at(-time.Minute)})
		offline := write(event.Event{Type: event.SigninDenied, UserID: id(anna.ID), Subject: "anna", MachineID: m.ID, Machine: "laptop", Scope: "logon", Link: "down", Outcome: "deny", Reason: "offline-days-used-up", At: at(-2 * time.Minute)})
		theirs := write(event.Event{Type: event.SigninAllowed, UserID: id(bob.ID), Subject: "bob", MachineID: m.ID, Machine: "laptop", At: at(-time.Minute)})
		other := write(event.Event{Type: event.UserChanged, UserID: id(anna.ID), Subject: "anna", At: at(-time.Minute)})

		l := ok(r.ListOwnSignins(ctx, a, "", 0))(t)
		if len(l.Items) != 2 || l.Items[0].ID != good || l.Items[1].ID != offline {
			t.Fatalf("%+v", l.Items)
		}
		if s := l.Items[0]; !s.Allowed || s.Offline || s.Machine != "laptop" || s.Address != "198.51.100.9" || s.Why == "" || s.Scope != "remote" {
			t.Errorf("%+v", s)
		}
		if s := l.Items[1]; s.Allowed || !s.Offline || s.Why != event.Reasons["offline-days-used-up"] {
			t.Errorf("%+v", s)
		}
		p := ok(r.ListOwnSignins(ctx, a, "", 1))(t)
		if p = ok(r.ListOwnSignins(ctx, a, p.Next, 1))(t); len(p.Items) != 1 || p.Items[0].ID != offline {
			t.Errorf("%+v", p)
		}
		for what, ref := range map[string]string{"somebody else's": theirs, "what is no sign-in": other, "none": rest.EventPrefix + "01930000-0000-7000-8000-000000000000", "junk": "x"} {
			_, err := r.ReportOwnSignin(ctx, a, ref, rest.NewReport{})
			wantCode(t, err, fault.NotFound)
			if _, err := r.ShowOwnSignin(ctx, a, ref); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}

		sitsTwice(t, r, a)
		window := r.Window(t, id(anna.ID), m.ID, "boot-1", at(time.Hour))
		r.Window(t, id(bob.ID), m.ID, "boot-1", at(time.Hour))
		got := ok(r.ReportOwnSignin(ctx, stale(a), good, rest.NewReport{Told: "I was asleep"}))(t)
		if got.Windows != 1 || got.Sessions != 1 || got.Report.Event != good || got.Report.Kind != rest.ReportSignin || got.Report.Address != "192.0.2.7" {
			t.Errorf("%+v", got)
		}
		if got := sitting(t, r, a); !slices.Equal(got, []string{a.Session}) {
			t.Errorf("sessions: %v", got)
		}
		left := ok(r.ListWindows(ctx, desk.Root(), "", "", "", 0))(t)
		if len(left.Items) != 1 || left.Items[0].User != "bob" || left.Items[0].ID == rest.WindowPrefix+window {
			t.Errorf("windows left: %+v", left.Items)
		}
		if s := ok(r.ShowOwnSignin(ctx, a, good))(t); s.Report != rest.ReportOpen {
			t.Errorf("%+v", s)
		}
		before := len(types(t, r, "anna"))
		again := ok(r.ReportOwnSignin(ctx, a, good, rest.NewReport{}))(t)
		if again.Report.ID != got.Report.ID || len(types(t, r, "anna")) != before {
			t.Error("one sign-in is reported twice")
		}
		if me := ok(r.Me(ctx, a))(t); me.OpenReports != 1 || !slices.Contains(me.Steps, rest.StepReports) {
			t.Errorf("%+v", me)
		}
		ok(r.HandleReport(ctx, desk.Root(), got.Report.ID, rest.HandleReport{Answer: "it was the backup job"}))(t)
		if l := ok(r.ListOwnSignins(ctx, a, "", 0))(t); l.Items[0].Report != rest.ReportHandled || l.Items[1].Report != "" {
			t.Errorf("%+v", l.Items)
		}
		_, err := r.ReportOwnSignin(ctx, a, offline, rest.NewReport{Told: strings.Repeat("x", 1001)})
		wantCode(t, err, fault.Invalid)
		_, err = r.ReportOwnSignin(ctx, a, offline, rest.NewReport{Told: "a\x00b"})
		wantCode(t, err, fault.Invalid)
	})
}

// What a ticket is made from comes back from outside.
func FuzzTicket(f *testing.F) {
	c := clock.NewManual(start)
	s := desktest.New(f, storetest.Open(f, store.Config{Database: storetest.SQLite(f), Clock: c}), c)
	u, err := s.AddUser(f.Context(), desk.Root(), rest.NewUser{Name: "anna"})
	if err != nil {
		f.Fatal(err)
	}
	a := person(u)
	p, err := s.BeginOwnTOTP(f.Context(), a, rest.BeginTOTP{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Ticket.Show())
	f.Add("")
	f.Add("AAAA")
	f.Add(p.Ticket.Show() + "A")
	f.Fuzz(func(t *testing.T, ticket string) {
		got, err := s.ShowOwnTOTP(t.Context(), a, rest.HideText(ticket))
		switch {
		case err == nil && (ticket != p.Ticket.Show() || got.Key.Show() != p.Key.Show()):
			t.Errorf("a forged ticket shows a key: %q", ticket)
		case err != nil && !fault.Is(err, fault.Expired):
			t.Errorf("%q: %v", ticket, err)
		}
	})
}
