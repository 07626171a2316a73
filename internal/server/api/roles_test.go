package api_test

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
)

// asker is one of those who come to the door.
type asker struct {
	name  string
	actor *desk.Actor // nil: nobody
	has   []string    // rights, as in the table
}

// askers are nobody, every role, and a token of an owner with each scope.
func askers() []asker {
	role := func(r string) *desk.Actor {
		return &desk.Actor{Name: "asker", Role: r, UserID: "01930000-0000-7000-8000-00000000a5ce"}
	}
	token := func(r string, scopes ...string) *desk.Actor {
		a := role(r)
		a.Token, a.Scopes = true, scopes
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
	events, err := r.ListEvents(ctx, root, desk.EventFilter{}, "", 1)
	must(err)
	view, err := r.AddView(ctx, root, rest.NewView{Name: "mine"})
	must(err)
	return map[string]string{
		"view": view.ID, "user": "anna", "group": "staff", "policy": "default", "machine": "bridge", "factor": f.ID, "token": token.ID,
		"window": rest.WindowPrefix + window, "event": events.Items[0].ID,
	}
}

// TestRoles: every operation of the description for everybody who may come. A new
// operation needs a line in rights.go. It asks twice: the gate, which refuses before
// the body is read, and the desk alone, which must refuse by itself.
func TestRoles(t *testing.T) {
	r, h := newAPI(t)
	d, ops := describe(t, h)
	there := objects(t, r)
	alone := api.NewTrusting(api.Deps{Desk: r.Desk, Version: "test"})
	known := map[string]bool{}
	for _, o := range ops {
		known[o.OperationID] = true
		right, ok := api.Rights[o.OperationID]
		if !ok {
			t.Errorf("%s %s: %s has no line in rights.go", o.method, o.path, o.OperationID)
			continue
		}
		for _, a := range askers() {
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
				// What is not there: so nothing is changed for the next one.
				path := o.fill(func(string) string { return "nothing-there" })
				res := as(h, a.actor, o.method, path, d.body(o, false))
				if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
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
