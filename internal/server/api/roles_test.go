package api_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// asker is one of those who come to the door.
type asker struct {
	name  string
	actor *desk.Actor // nil: nobody
	has   []string    // rights, as in the table
}

// askerID is the account of all askers: what people do for themselves needs one.
const askerID = "01930000-0000-7000-8000-00000000a5ce"

// askers are nobody, every role, and a token of an owner with each scope.
func askers() []asker {
	role := func(r string) *desk.Actor {
		return &desk.Actor{Name: "asker", Role: r, UserID: askerID, Session: "a session", Fresh: true}
	}
	token := func(r string, scopes ...string) *desk.Actor {
		a := role(r)
		a.Token, a.Scopes, a.Session, a.Fresh = true, scopes, "", false
		return a
	}
	out := []asker{
		{"nobody", nil, nil},
		{"none", role(rest.RoleNone), []string{api.Person, "self"}},
		{"auditor", role(rest.RoleAuditor), []string{api.Person, "self", "events", "read"}},
		{"help desk", role(rest.RoleHelpDesk), []string{api.Person, "self", "events", "read", "helpdesk"}},
		{"administrator", role(rest.RoleAdministrator), []string{api.Person, "self", "events", "read", "helpdesk", "change"}},
		{"owner", role(rest.RoleOwner), []string{api.Person, "self", "events", "read", "helpdesk", "change", "own"}},
		// What a token says of its scopes does not lift it above its role.
		{"a token of an auditor with all scopes", token(rest.RoleAuditor, desk.Scopes...), []string{api.Person, "events", "read"}},
		{"a token without scopes", token(rest.RoleOwner), []string{api.Person}},
	}
	for _, scope := range desk.Scopes {
		has := []string{api.Person, scope}
		if scope == "read" {
			has = append(has, "events")
		}
		out = append(out, asker{"an owner's token for " + scope, token(rest.RoleOwner, scope), has})
	}
	return out
}

// objects are names of things that are there, by the placeholder in the path.
func objects(t *testing.T, r *desktest.Rig) map[string]string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, root := t.Context(), desk.Root()
	_, err := r.AddUser(ctx, root, rest.NewUser{Name: "anna"})
	must(err)
	must(r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertUser(ctx, db.InsertUserParams{ID: askerID, Name: "asker", NameFold: "asker", Role: rest.RoleNone, Activation: "now", MFA: "inherit"})
	}))
	report, signin := store.NewID(), store.NewID()
	must(r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Event(event.Event{ID: signin, Type: event.SigninAllowed, Subject: "asker", UserID: askerID})
		return errors.Join(err, tx.InsertReport(ctx, db.InsertReportParams{ID: report, UserID: askerID, Kind: rest.ReportSignin, EventID: signin}))
	}))
	_, err = r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"})
	must(err)
	_, err = r.AddMember(ctx, root, "staff", "anna")
	must(err)
	f, err := r.AddTOTP(ctx, root, "anna", rest.NewTOTP{})
	must(err)
	token, err := r.IssueToken(ctx, root, rest.NewToken{})
	must(err)
	m := r.Machine(t, "bridge", rest.MachineActive)
	u, err := r.ShowUser(ctx, root, "anna")
	must(err)
	window := r.Window(t, strings.TrimPrefix(u.ID, rest.UserPrefix), m.ID, "boot-1", clock.Micros(r.Clock.Now().Add(time.Hour)))
	session, token2, approval := store.NewID(), store.NewID(), store.NewID()
	now, later := clock.Micros(r.Clock.Now()), clock.Micros(r.Clock.Now().Add(time.Hour))
	id := strings.TrimPrefix(u.ID, rest.UserPrefix)
	must(r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(
			tx.InsertSession(ctx, db.InsertSessionParams{ID: session, SecretHash: []byte("s"), UserID: id, Kind: "browser", Factor: "totp", BeganAt: now, SeenAt: now, FreshAt: now, EndsAt: later}),
			tx.InsertAPIToken(ctx, db.InsertAPITokenParams{ID: token2, SecretHash: []byte("t"), UserID: id, Name: "n", Scopes: `["read"]`, Role: "auditor", CreatedAt: now, ExpiresAt: later}),
			tx.InsertApproval(ctx, db.InsertApprovalParams{ID: approval, Action: "add-totp", SubjectID: id, Subject: "anna", Reason: "r", RequesterID: id, Requester: "anna", AskedAt: now, ExpiresAt: later}),
		)
	}))
	events, err := r.ListEvents(ctx, root, desk.EventFilter{}, "", 1)
	must(err)
	_, err = r.AddPolicy(ctx, root, rest.NewPolicy{Name: "strict"})
	must(err)
	view, err := r.AddView(ctx, root, rest.NewView{Name: "mine"})
	must(err)
	source, imported := store.NewID(), store.NewID()
	must(r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(
			tx.InsertImport(ctx, db.InsertImportParams{ID: imported, Actor: "asker", ActorRole: "owner", State: "reading", CreatedAt: 1, UpdatedAt: 1, LeaseUntil: later}),
			tx.InsertImportSource(ctx, db.InsertImportSourceParams{ID: source, Name: "hr", Driver: "postgresql", Place: "p", Address: []byte("x"), Query: "q", CreatedBy: "x", CreatedAt: 1}),
		)
	}))
	enrolment := store.NewID()
	must(r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertPushEnrolment(ctx, db.InsertPushEnrolmentParams{ID: enrolment, UserID: askerID, Hash: []byte("h"), CreatedAt: 1, ExpiresAt: later})
	}))
	message := store.NewID()
	must(r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertOutbox(ctx, db.InsertOutboxParams{ID: message, Channel: "mail", Purpose: "notice", Mask: "a…@example.org", Body: []byte("x"), DueAt: later, ExpiresAt: later, CreatedAt: now})
	}))
	return map[string]string{
		"serial": ca.Serial(r.Certificate(t, id, "")),
		"code":   rest.PhoneCodePrefix + enrolment, "message": rest.MessagePrefix + message, "kind": "mail",
		"import": rest.ImportPrefix + imported, "source": rest.SourcePrefix + source,
		"view": view.ID, "user": "anna", "group": "staff", "policy": "strict", "machine": "bridge", "factor": f.ID, "token": token.ID,
		"window": rest.WindowPrefix + window, "event": events.Items[0].ID,
		"session": "ses_" + session, "apitoken": "apt_" + token2, "approval": "apr_" + approval,
		"signin": rest.EventPrefix + signin, "report": rest.ReportPrefix + report,
	}
}

// needsSession are the operations that a right is not enough for: a person does them,
// who has signed in. An actor without a session is refused.
var needsSession = map[string]bool{
	"end-session": true, "prove-session": true, "show-proof": true, "choose-proof": true, "cancel-proof": true, "make-api-token": true, "ask-approval": true, "decide-approval": true,
}

// ofOthers are the operations that everybody may do with what is his own; with
// another's it needs the right, and who has it not does not learn whether it is there.
var ofOthers = map[string]string{"revoke-session": "helpdesk", "revoke-api-token": "change"}

// TestRoles: every operation of the description for everybody who may come. A new
// operation needs a line in rights.go. It asks twice: the gate, which refuses before
// the body is read, and the desk alone, which must refuse by itself.
func TestRoles(t *testing.T) {
	r, deps := newDeps(t, clock.Real)
	h, alone := api.New(deps), api.NewTrusting(deps)
	d, ops := describe(t, h)
	there := objects(t, r)
	known := map[string]bool{}
	for _, o := range ops {
		known[o.OperationID] = true
		right, ok := api.Rights[o.OperationID]
		if !ok {
			t.Errorf("%s %s: %s has no line in rights.go", o.method, o.path, o.OperationID)
			continue
		}
		for _, a := range askers() {
			if right == api.Public && a.actor != nil {
				continue // it is the same for everybody
			}
			t.Run(o.OperationID+"/"+strings.ReplaceAll(a.name, " ", "-"), func(t *testing.T) {
				allowed := right == api.Public || slices.Contains(a.has, right)
				refusal := http.StatusForbidden
				if a.actor == nil {
					refusal = http.StatusUnauthorized
				}
				if !allowed {
					for name, door := range map[string]http.Handler{"the gate": h, "the desk alone": alone} {
						sameForAll(t, name, d, o, door, a, there, refusal)
					}
					return
				}
				if needsSession[o.OperationID] {
					sameForAll(t, "without a session", d, o, h, a, there, refusal)
					return
				}
				if whose := ofOthers[o.OperationID]; whose != "" {
					if !slices.Contains(a.has, whose) && !slices.Contains(a.has, "read") {
						sameForAll(t, "another's", d, o, h, a, there, refusal)
					}
					return
				}
				// What is not there: so nothing is changed for the next one.
				path := o.fill(func(string) string { return "nothing-there" })
				res := as(h, a.actor, o.method, path, d.body(o, false))
				if right != api.Public && res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
					b, _ := io.ReadAll(res.Body)
					t.Errorf("%s: %s", res.Status, clip(b))
				}
			})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(api.Rights)) {
		if !known[id] {
			t.Errorf("rights.go has a line for %s, and there is no such operation", id)
		}
	}
}

// sameForAll: who may not, gets the same refusal, to the letter, whether the thing is
// there or not and whether the input is right or not.
func sameForAll(t *testing.T, name string, d *description, o *described, door http.Handler, a asker, there map[string]string, refusal int) {
	t.Helper()
	var first string
	for i, path := range []string{
		o.fill(func(p string) string {
			if there[p] == "" {
				t.Fatalf("no example of a %s: give one in objects", p)
			}
			return there[p]
		}),
		o.fill(func(string) string { return "nothing-there" }),
		o.fill(func(string) string { return "usr_01930000-0000-7000-8000-000000000000" }),
	} {
		res := as(door, a.actor, o.method, path, d.body(o, false))
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != refusal {
			t.Errorf("%s: %s %s: %s, want %d: %s", name, o.method, path, res.Status, refusal, clip(b))
		}
		if i == 0 {
			first = string(b)
		} else if string(b) != first {
			t.Errorf("%s: what is there and what is not are told apart:\n%s%s", name, clip([]byte(first)), clip(b))
		}
	}
}

// clip keeps a failure readable.
func clip(b []byte) string { return string(b[:min(len(b), 300)]) }
