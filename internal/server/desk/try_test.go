package desk_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// pastSignin is one sign-in as its event keeps it.
type pastSignin struct {
	user    rest.User
	machine db.Machine
	at      time.Time
	scope   policy.Scope
	typ     event.Type // empty: allowed
	mfa     bool
	past    *policy.Past // nil: of an earlier version
}

// writeSignins puts sign-ins into the log.
func writeSignins(t *testing.T, r *desktest.Rig, list ...pastSignin) {
	t.Helper()
	must(t, r.Store.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
		for _, s := range list {
			if s.typ == "" {
				s.typ = event.SigninAllowed
			}
			data := map[string]any{"trace": []policy.Step{{Rule: "S2 second factor", Verdict: policy.Applied}}, "mfa": s.mfa}
			if s.past != nil {
				data["past"] = s.past
			}
			if s.mfa {
				data["factors"] = []policy.Factor{policy.TOTP}
			}
			b, err := json.Marshal(data)
			if err != nil {
				return err
			}
			if _, err := tx.Event(event.Event{
				Type: s.typ, Actor: s.user.Name, Subject: s.user.Name, UserID: id(s.user.ID), MachineID: s.machine.ID, Machine: s.machine.Name,
				Scope: string(s.scope), Service: "login", Link: "up", Outcome: "allow", Reason: "mfa-required", At: clock.Micros(s.at), Data: b,
			}); err != nil {
				return err
			}
		}
		return nil
	}))
}

func accepted(boot string) *policy.Past {
	return &policy.Past{Form: policy.PastForm, First: policy.FirstServer, Result: policy.FirstAccepted, Boot: boot, Assigned: true}
}

func trialOf(t *testing.T, list []rest.Trial, c policy.Change) rest.Trial {
	t.Helper()
	for _, x := range list {
		if x.Change == c {
			return x
		}
	}
	t.Fatalf("no %s in %+v", c, list)
	return rest.Trial{}
}

func TestP5ADraftIsTriedAgainstTheLastWeek(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		alice, bob := addUser(t, r, "alice", "none"), addUser(t, r, "bob", "none")
		for _, u := range []rest.User{alice, bob} {
			ok(r.AddTOTP(ctx, root, u.Name, rest.NewTOTP{}))(t)
		}
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		ok(r.AddMember(ctx, root, "staff", "alice"))(t)
		m := r.Machine(t, "laptop", "active")
		r.Vault(t, id(alice.ID), m.ID, "software", clock.Micros(start.AddDate(0, 0, 5)), 40)
		day := start.AddDate(0, 0, -2)
		writeSignins(t, r,
			pastSignin{user: alice, machine: m, at: start.AddDate(0, 0, -9), scope: policy.Logon, mfa: true, past: accepted("b")}, // too old
			pastSignin{user: bob, machine: m, at: day, scope: policy.Logon, past: nil, mfa: true},
			pastSignin{user: alice, machine: m, at: day.Add(time.Hour), scope: policy.Logon, mfa: true, past: accepted("b")},
			pastSignin{user: alice, machine: m, at: day.Add(3 * time.Hour), scope: policy.Logon, past: accepted("b")}, // silent: a window
			pastSignin{user: alice, machine: m, at: day.Add(12 * time.Hour), scope: policy.Logon, mfa: true, past: accepted("b")},
			pastSignin{user: bob, machine: m, at: day.Add(13 * time.Hour), scope: policy.Remote, mfa: true, past: accepted("b")},
		)
		c.Advance(time.Second)
		try := func(in rest.TryPolicy) rest.Tried {
			t.Helper()
			return ok(r.TryPolicy(ctx, root, in))(t)
		}

		// Nothing changes: what is there is judged, and what can not be is said.
		x := try(rest.TryPolicy{Policy: "default"})
		if x.Judged != 4 || x.Same != 4 || len(x.Changes) != 0 || x.Before != 3 || x.After != 3 || x.People != 2 || x.Moved != 1 {
			t.Errorf("no change: %+v", x)
		}
		if len(x.Unjudged) != 1 || x.Unjudged[0].N != 1 || !strings.Contains(x.Unjudged[0].Why, "earlier version") {
			t.Errorf("not judged: %+v", x.Unjudged)
		}

		// Always asking asks alice once more.
		x = try(rest.TryPolicy{Policy: "default", Settings: json.RawMessage(`{"window":"0s"}`)})
		more := trialOf(t, x.Changes, policy.AskedMore)
		if more.Signins != 1 || more.People != 1 || more.Who[0].User != "alice" || x.After != 4 {
			t.Errorf("always ask: %+v", x)
		}
		if w := more.Who[0]; w.Before.Reason != policy.ReasonWindow || w.After.Outcome != policy.MFA || len(w.After.Trace) < 5 {
			t.Errorf("example: %+v", w)
		}

		// A longer window asks her once less, which only a window that is played through shows.
		x = try(rest.TryPolicy{Policy: "default", Settings: json.RawMessage(`{"window":"24h"}`)})
		if less := trialOf(t, x.Changes, policy.AskedLess); less.Signins != 1 || less.Who[0].User != "alice" || x.After != 2 {
			t.Errorf("longer window: %+v", x)
		}

		// A draft that names other factors leaves those of the policy as they are.
		x = try(rest.TryPolicy{Policy: "default", Settings: json.RawMessage(`{"online_factors":["backup"]}`)})
		if no := trialOf(t, x.Changes, policy.DeniedNow); no.Signins != 4 || x.Before != 3 {
			t.Errorf("other factors: %+v", x)
		}

		// A new policy for a group applies to its members alone.
		groups := []string{"staff"}
		x = try(rest.TryPolicy{Groups: &groups, Settings: json.RawMessage(`{"online_factors":["backup"],"offline":"deny"}`)})
		if no := trialOf(t, x.Changes, policy.DeniedNow); no.Signins != 3 || no.People != 1 || no.Who[0].After.Reason != policy.ReasonNotEnrolled || x.Applies != 1 {
			t.Errorf("new policy: %+v", no)
		}
		if off := trialOf(t, x.Offline, policy.DeniedNow); off.People != 1 || off.Who[0].User != "alice" || off.Who[0].After.Reason != policy.ReasonOfflineDeny {
			t.Errorf("offline side: %+v", x.Offline)
		}

		// Without it all is as it was; a policy that only reports is tried as if in force.
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "trial", Groups: groups, Settings: json.RawMessage(`{"report_only":true,"factors_online":0}`)}))(t)
		x = try(rest.TryPolicy{Policy: "trial"})
		if less := trialOf(t, x.Changes, policy.AskedLess); less.Signins != 2 {
			t.Errorf("report-only: %+v", x)
		}
		if x = try(rest.TryPolicy{Policy: "trial", Remove: true}); x.Same != 4 {
			t.Errorf("removed: %+v", x)
		}

		// The bound is said.
		if x = try(rest.TryPolicy{Policy: "default", Limit: 2}); x.Judged != 2 || !strings.Contains(x.Capped, "youngest 2") || !x.Since.Equal(day.Add(12*time.Hour)) {
			t.Errorf("capped: %+v", x)
		}

		// What is wrong is said at the field.
		_, err := r.TryPolicy(ctx, root, rest.TryPolicy{Policy: "default", Settings: json.RawMessage(`{"window":"1y"}`), Limit: -1})
		wantFields(t, err, "limit", "settings.window")
		_, err = r.TryPolicy(ctx, root, rest.TryPolicy{Policy: "nobody"})
		wantCode(t, err, fault.NotFound)
		_, err = r.TryPolicy(ctx, root, rest.TryPolicy{Remove: true})
		wantFields(t, err, "policy")
	})
}

func wantFields(t *testing.T, err error, names ...string) {
	t.Helper()
	f := fault.Of(err)
	var have []string
	for _, x := range f.Fields {
		have = append(have, x.Name)
	}
	if f.Code != fault.Invalid || fmt.Sprint(have) != fmt.Sprint(names) {
		t.Errorf("error %v with fields %v, want %v", err, have, names)
	}
}

func TestP1EffectivePolicyOfAUser(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		addUser(t, r, "alice", "none")
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff", MFA: "off"}))(t)
		ok(r.AddMember(ctx, root, "staff", "alice"))(t)
		first, second := int64(10), int64(20)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "reports", Priority: &first, Groups: []string{"staff"}, Settings: json.RawMessage(`{"report_only":true}`)}))(t)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "staff", Priority: &second, Groups: []string{"staff"}, Settings: json.RawMessage(`{"offline":"bypass","scopes":["remote"]}`)}))(t)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "nobody"}))(t)
		m := r.Machine(t, "laptop", "active")
		x := ok(r.EffectivePolicy(ctx, root, "alice", ""))(t)
		if x.Policy != "staff" || x.Through != "staff" || x.TwoFactor || len(x.Raised) != 0 || len(x.Considered) != 4 || x.Considered[0].Policy != "reports" || !x.Considered[1].Applies || x.Considered[3].Policy != "default" {
			t.Errorf("%+v", x)
		}
		enforced := "enforced"
		ok(r.ChangeMachine(ctx, root, m.Name, 0, rest.MachineChange{Mode: &enforced}))(t)
		x = ok(r.EffectivePolicy(ctx, root, "alice", "laptop"))(t)
		var raised []string
		for _, d := range x.Raised {
			raised = append(raised, d.Field)
		}
		if fmt.Sprint(raised) != "[scopes offline]" || !x.TwoFactor || !strings.Contains(x.Because, "enforced") {
			t.Errorf("on an enforced machine %v, %+v", raised, x)
		}
		_, err := r.EffectivePolicy(ctx, root, "bob", "")
		wantCode(t, err, fault.NotFound)
	})
}

func TestP5APreviewAndAComparisonWriteNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		addUser(t, r, "alice", "none")
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		ok(r.AddMember(ctx, root, "staff", "alice"))(t)
		p := ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "staff"}))(t)
		x := ok(r.PreviewPolicy(ctx, root, "staff", rest.PolicyChange{Groups: &[]string{"staff"}, Settings: json.RawMessage(`{"offline":"bypass"}`)}))(t)
		if len(x.Changes) != 2 || x.Changes[0].Field != "groups" || x.Changes[1].Field != "offline" || len(x.Warnings) != 1 || x.People != 1 || x.Rev != p.Rev {
			t.Errorf("%+v", x)
		}
		if y := ok(r.ShowPolicy(ctx, root, "staff"))(t); y.Rev != p.Rev || len(y.Groups) != 0 {
			t.Errorf("the preview has written: %+v", y)
		}
		_, err := r.PreviewPolicy(ctx, root, "", rest.PolicyChange{Name: &p.Name})
		wantFields(t, err, "name")
		_, err = r.PreviewPolicy(ctx, root, "default", rest.PolicyChange{Settings: json.RawMessage(`{"report_only":true}`)})
		wantFields(t, err, "settings.report_only")
		_, err = r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"report_only":true}`)})
		wantFields(t, err, "settings.report_only")
		for i := range 3 {
			ok(r.ChangePolicy(ctx, root, "staff", 0, rest.PolicyChange{Settings: json.RawMessage(fmt.Sprintf(`{"offline_days":%d}`, 10+i))}))(t)
		}
		c := ok(r.ComparePolicies(ctx, root, "staff", 2, 0))(t)
		if len(c.Changes) != 1 || string(c.Changes[0].Old) != "10" || string(c.Changes[0].New) != "12" || c.To != 4 {
			t.Errorf("%+v", c)
		}
		_, err = r.ComparePolicies(ctx, root, "staff", 9, 0)
		wantCode(t, err, fault.NotFound)
	})
}

func TestV2ViewsBelongToWhoMadeThem(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		auditor := desk.Actor{Name: "audit", Role: rest.RoleAuditor}
		other := desk.Actor{Name: "other", Role: rest.RoleAuditor}
		mine := ok(r.AddView(ctx, auditor, rest.NewView{Name: "denied", Query: "outcome=deny"}))(t)
		_, err := r.AddView(ctx, auditor, rest.NewView{Name: "for all", Shared: true})
		wantCode(t, err, fault.Forbidden)
		shared := ok(r.AddView(ctx, desk.Root(), rest.NewView{Name: "for all", Shared: true}))(t)
		_, err = r.AddView(ctx, auditor, rest.NewView{Name: "denied", Query: "<script>"})
		wantFields(t, err, "query")
		_, err = r.AddView(ctx, auditor, rest.NewView{Name: "denied", Query: "x=1"})
		wantFields(t, err, "name")
		if l := ok(r.ListViews(ctx, auditor))(t); len(l.Items) != 2 {
			t.Errorf("own list %+v", l)
		}
		if l := ok(r.ListViews(ctx, other))(t); len(l.Items) != 1 || !l.Items[0].Shared {
			t.Errorf("another's list %+v", l)
		}
		wantCode(t, r.RemoveView(ctx, other, mine.ID), fault.NotFound)
		wantCode(t, r.RemoveView(ctx, other, shared.ID), fault.Forbidden)
		must(t, r.RemoveView(ctx, auditor, mine.ID))
		must(t, r.RemoveView(ctx, desk.Root(), shared.ID))
	})
}
