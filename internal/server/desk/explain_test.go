package desk_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup"
	_ "latchkey/internal/server/factor/bypass"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// methods lists the exported actions of a desk: those whose second parameter is the
// actor.
func methods(d *desk.Desk) map[string]bool {
	out := map[string]bool{}
	t := reflect.TypeOf(d)
	for i := range t.NumMethod() {
		m := t.Method(i)
		if m.Type.NumIn() > 2 && m.Type.In(2) == reflect.TypeFor[desk.Actor]() {
			out[m.Name] = true
		}
	}
	return out
}

// TestExplainIsWhatTheSigninDoes: the trace that explain gives is the one in the
// event of the sign-in that follows, rule by rule, for a walk through the rules.
func TestExplainIsWhatTheSigninDoes(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		dirs, err := directory.All(directory.Deps{Clock: c, Settings: map[string]any{
			directory.Local: local.Config{Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}},
		}})
		must(t, err)
		svc := signin.New(signin.Deps{
			Store: r.Store, Keys: r.Keys, Directories: dirs, Clock: c,
			Factors: factor.All(&factor.Keeper{Box: r.Keys.Box, Pepper: r.Keys.Pepper, Random: rand.Reader}),
		})
		m := r.Machine(t, "laptop", rest.MachineActive)
		const pw = "correct horse battery"
		ok(r.AddUser(ctx, root, rest.NewUser{Name: "anna", Password: rest.HideText(pw)}))(t)
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		totp := ok(r.AddTOTP(ctx, root, "anna", rest.NewTOTP{}))(t)
		seed, err := otp.ParseSeed(totp.Key.Show())
		must(t, err)
		code := func() string {
			c.Advance(time.Minute) // a code is good once
			return otp.DefaultParams.Code(seed, otp.DefaultParams.Step(c.Now()))
		}
		type try struct {
			name    string
			prepare func()
			scope   policy.Scope
			service string
			rhost   string
			reason  string
		}
		for _, x := range []try{
			{name: "MFA at the first logon", scope: policy.Logon, service: "login", reason: "mfa-required"},
			{name: "a window at the second", scope: policy.Logon, service: "login", reason: "window-valid"},
			{name: "but not at sudo", scope: policy.Elevation, service: "sudo", reason: "mfa-required"},
			{name: "2FA off", prepare: func() { ok(r.ChangeUser(ctx, root, "anna", 0, rest.UserChange{MFA: ptr("off")}))(t) }, scope: policy.Remote, service: "sshd", reason: "2fa-off"},
			{name: "an enforced machine wins", prepare: func() { ok(r.ChangeMachine(ctx, root, "laptop", 0, rest.MachineChange{Mode: ptr("enforced")}))(t) }, scope: policy.Remote, service: "sshd", reason: "mfa-required"},
			{name: "a policy of a group without this scope", prepare: func() {
				ok(r.ChangeMachine(ctx, root, "laptop", 0, rest.MachineChange{Mode: ptr("normal")}))(t)
				ok(r.ChangeUser(ctx, root, "anna", 0, rest.UserChange{MFA: ptr("inherit")}))(t)
				ok(r.AddMember(ctx, root, "staff", "anna"))(t)
				ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "desks", Groups: []string{"staff"}, Settings: json.RawMessage(`{"scopes": ["logon"]}`)}))(t)
			}, scope: policy.Elevation, service: "sudo", reason: "scope-not-covered"},
			{name: "a trusted network", prepare: func() {
				ok(r.ChangePolicy(ctx, root, "desks", 0, rest.PolicyChange{Settings: json.RawMessage(`{"scopes": ["remote"], "trusted_networks": ["192.0.2.0/24"], "trusted_scopes": ["remote"]}`)}))(t)
			}, scope: policy.Remote, service: "sshd", rhost: "192.0.2.99", reason: "trusted-network"},
			{name: "another network", scope: policy.Remote, service: "sshd", rhost: "198.51.100.9", reason: "mfa-required"},
			{name: "an exempt machine", prepare: func() { ok(r.ChangeMachine(ctx, root, "laptop", 0, rest.MachineChange{Mode: ptr("exempt")}))(t) }, scope: policy.Remote, service: "sshd", reason: "machine-exempt"},
			{name: "not assigned", prepare: func() {
				ok(r.ChangeMachine(ctx, root, "laptop", 0, rest.MachineChange{Mode: ptr("normal"), OnlyAssigned: ptr(true)}))(t)
			}, scope: policy.Logon, service: "login", reason: "user-not-assigned"},
		} {
			t.Run(x.name, func(t *testing.T) {
				if x.prepare != nil {
					x.prepare()
				}
				given := code()
				want := ok(r.Explain(ctx, root, rest.Explain{User: "anna", Machine: "laptop", Scope: string(x.scope), Service: x.service, From: x.rhost}))(t).Decision
				if string(want.Reason) != x.reason {
					t.Fatalf("explained as %s: %+v", want.Reason, want.Trace)
				}
				trace, reason := play(t, svc, r, m.ID, wire.Begin{
					Purpose: wire.PurposeSignin, User: "anna", Scope: x.scope, Service: x.service, RHost: x.rhost, RemoteSeat: x.scope == policy.Remote,
					Mode: "full", Password: wire.Hide(secret.FromString(pw)), Boot: "boot-1", At: clock.Micros(c.Now()),
				}, given)
				if reason != x.reason {
					t.Errorf("the event's reason is %s", reason)
				}
				if d := cmp.Diff(want.Trace, trace); d != "" {
					t.Errorf("explained (-), signed in (+):\n%s", d)
				}
			})
		}
	})
}

// play signs in and gives the trace and the reason of the event that ended it.
func play(t *testing.T, svc *signin.Service, r *desktest.Rig, machineID string, b wire.Begin, code string) ([]policy.Step, string) {
	t.Helper()
	ctx := t.Context()
	var m db.Machine
	must(t, r.Store.Read(ctx, func(q *store.Queries) (err error) {
		m, err = q.GetMachine(ctx, machineID)
		return err
	}))
	conv := store.NewID()
	step := wire.Step{Begin: &b}
	for seq := int64(1); seq < 5; seq++ {
		body, err := json.Marshal(step)
		must(t, err)
		reply, err := svc.Step(context.WithoutCancel(ctx), m, netip.MustParseAddr("192.0.2.10"), conv, seq, body)
		must(t, err)
		if reply.Done != nil {
			break
		}
		step = wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(code))}}
	}
	p := ok(r.ListEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{"signin."}}, "", 1))(t)
	var data struct {
		Trace []policy.Step `json:"trace"`
	}
	must(t, json.Unmarshal(p.Items[0].Data, &data))
	if !strings.HasPrefix(p.Items[0].Type, "signin.") || len(data.Trace) == 0 {
		t.Fatalf("%+v: %s", p.Items[0], p.Items[0].Data)
	}
	return data.Trace, p.Items[0].Reason
}

// More pairs than one look goes through: each stands in the list once, whatever the
// size of a page.
func TestO16StuckPairsOfSeveralLooksAreListedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"offline": "bypass"}`)}))(t)
		var people []string
		for i := range 60 {
			u := addUser(t, r, fmt.Sprintf("u%02d", i), "")
			people = append(people, id(u.ID))
			if i%2 == 0 {
				ok(r.ChangeUser(ctx, root, u.Name, 0, rest.UserChange{Disabled: ptr(true)}))(t)
			}
		}
		var machines []string
		for i := range 10 {
			machines = append(machines, r.Machine(t, fmt.Sprintf("m%d", i), rest.MachineActive).ID)
		}
		must(t, r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			for _, m := range machines {
				for _, u := range people {
					if _, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: m, UserID: u, Since: 1}); err != nil {
						return err
					}
				}
			}
			return nil
		}))
		for _, limit := range []int{50, 250, 300, 500} {
			seen, n, pages := map[string]int{}, 0, 0
			for after, more := "", true; more && pages < 20; pages++ {
				p := ok(r.ListStuck(ctx, root, "", "", after, limit))(t)
				for _, s := range p.Items {
					seen[s.User+" on "+s.Machine]++
					n++
				}
				after, more = p.Next, p.Next != ""
			}
			if n != 300 || len(seen) != 300 {
				t.Errorf("pages of %d: %d rows about %d pairs in %d pages", limit, n, len(seen), pages)
			}
		}
	})
}
