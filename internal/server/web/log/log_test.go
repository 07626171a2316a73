package log_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
	"latchkey/internal/server/web/webtest"
)

// happen writes events.
func happen(r *webtest.Rig, list ...event.Event) {
	r.Helper()
	r.Must(r.Store.Update(r.Context(), func(_ context.Context, tx *store.Tx) error {
		for _, e := range list {
			if _, err := tx.Event(e); err != nil {
				return err
			}
		}
		return nil
	}))
}

const hostile = `<script>alert(1)</script>`

func TestV2EventsAreFilteredAndTheFiltersStandInTheAddress(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		p := r.Person("alice", rest.RoleNone)
		m := r.Machine(t, "laptop", rest.MachineActive)
		data, err := json.Marshal(map[string]any{"trace": []policy.Step{{Rule: "S5 first factor", Verdict: policy.Applied, Why: "the first factor was rejected"}}, "first": "server"})
		r.Must(err)
		happen(r,
			event.Event{Type: event.SigninDenied, Actor: hostile, Subject: hostile, Machine: "laptop", MachineID: m.ID, Scope: "remote", Service: "sshd", Link: "up", Outcome: "deny", Reason: "user-unknown", Address: "192.0.2.7"},
			event.Event{Type: event.SigninDenied, Actor: "alice", Subject: "alice", UserID: p.ID, Machine: "laptop", MachineID: m.ID, Scope: "logon", Link: "up", Outcome: "deny", Reason: "first-factor-rejected", Data: data},
		)
		b := r.Person("audit", rest.RoleAuditor).SignedIn()
		b.Get("/console/events").Is(200).Has("signin.denied").Has("sshd").Has("/console/events/stream").Has(rest.Base + "/events")
		b.Get("/console/events?type=signin.&scope=remote&reason=user-unknown&link=up&address=192.0.2.7&service=sshd&text=SCRIPT&since=2026-11-22T08:00&until=2026-11-23").Is(200).Has("alert(1)").Lacks("first-factor-rejected</span>").Has("(5 set)")
		a := b.Get("/console/events?user=alice&machine=laptop&outcome=deny").Is(200).Has("first-factor-rejected").Lacks("alert(1)")
		if strings.Contains(a.Body, hostile) {
			t.Error("a name is run")
		}
		b.Get("/console/events?text=nothing-like-it").Is(200).Has("No such events")
		b.Get("/console/events?user=nobody").Is(422).Has(`no user "nobody"`)
		b.Get("/console/events?type=moon&scope=orbit&since=never").Is(422).FaultAt("since", "no time")
		b.Get("/console/events?type=moon&scope=orbit").Is(422).FaultAt("type", "no event type").FaultAt("scope", "orbit")
		b.Get("/console/events?after=junk").Is(422)

		// One event with its trace, and the way to what would happen now.
		page, err := r.ListEvents(r.Context(), desk.Root(), desk.EventFilter{Reason: "first-factor-rejected"}, "", 0)
		r.Must(err)
		a = b.Get("/console/events/" + page.Items[0].ID).Is(200)
		a.Has("The password was wrong").Has("S5 first factor").Has("decided").Has("Explain now").Has("user=alice")
		i := strings.Index(a.Body, "/console/explain?")
		explain, _, _ := strings.Cut(a.Body[i:], `"`)
		b.Get(strings.ReplaceAll(explain, "&amp;", "&")).Is(200).Has("S2 second factor")
		b.Get("/console/events/evt_01930000-0000-7000-8000-000000000000").Is(404)
	})
}

func TestV2ViewsKeepFiltersUnderAName(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		b := r.Person("audit", rest.RoleAuditor).SignedIn()
		other := r.Person("other", rest.RoleAdministrator).SignedIn()
		b.Submit("/console/events?outcome=deny&text=x", "/console/events/views", "name", "denied").Goes("/console/events?outcome=deny&text=x")
		b.Get("/console/events").Is(200).Has("denied")
		other.Get("/console/events").Is(200).Lacks(">denied<")
		// Without a name, and twice: said at the field.
		b.Post("/console/events/views", "name", "", "query", "outcome=deny").Is(422).FaultAt("name", "empty")
		b.Post("/console/events/views", "name", "denied", "query", "outcome=deny").Is(422).FaultAt("name", "already")
		b.Post("/console/events/views", "name", "all", "query", "", "shared", "on").Is(403)
		other.Post("/console/events/views", "name", "all", "query", "type=policy.&evil=1", "shared", "on").Goes("/console/events?type=policy.")
		views, err := r.ListViews(r.Context(), desk.Actor{Name: "audit", Role: rest.RoleAuditor})
		r.Must(err)
		if len(views.Items) != 2 {
			t.Fatalf("%+v", views.Items)
		}
		for _, v := range views.Items {
			want := http.StatusSeeOther
			if v.Shared {
				want = 403
			}
			b.Post("/console/events/views/" + v.ID + "/remove").Is(want)
		}
		b.Post("/console/events/views/viw_01930000-0000-7000-8000-000000000000/remove").Is(404)
	})
}

func TestV2AnExportIsAFile(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		for i := range 60 {
			happen(r, event.Event{Type: event.SigninDenied, Subject: fmt.Sprintf("=%d", i), Outcome: "deny"})
		}
		b := r.Person("audit", rest.RoleAuditor).SignedIn()
		a := b.Get("/console/events/export?format=csv&type=signin.").Is(200)
		rows, err := csv.NewReader(strings.NewReader(a.Body)).ReadAll()
		r.Must(err)
		if len(rows) != 61 || rows[1][5] != "'=59" || !strings.Contains(a.Header.Get("Content-Disposition"), "attachment") {
			t.Errorf("%d rows, %q, %q", len(rows), rows[1][5], a.Header.Get("Content-Disposition"))
		}
		a = b.Get("/console/events/export?format=json&type=signin.").Is(200)
		if n := strings.Count(a.Body, "\n"); n != 60 {
			t.Errorf("%d lines", n)
		}
		b.Get("/console/events/export?format=xml").Is(422)
		b.Get("/console/events/export?since=never").Is(422)
	})
}

func TestV1AdministratorsActionsHaveAPage(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		admin := r.Person("admin", rest.RoleAdministrator)
		b := admin.SignedIn()
		p, err := r.ShowPolicy(r.Context(), desk.Root(), "default")
		r.Must(err)
		_, err = r.ChangePolicy(r.Context(), desk.Actor{Name: "admin", Role: rest.RoleAdministrator, Address: "192.0.2.9"}, p.ID, 0, rest.PolicyChange{Settings: json.RawMessage(`{"offline_days":3}`), Comment: "audit me"})
		r.Must(err)
		happen(r, event.Event{Type: event.SigninDenied, Actor: "intruder", Subject: "intruder", Outcome: "deny"})
		b.Get("/console/audit").Is(200).Has("policy.changed").Has("offline_days: 7 → 3").Has("192.0.2.9").Has("audit me").Lacks("intruder")
		b.Get("/console/audit?actor=admin").Is(200).Has("policy.changed").Lacks("root@local")
		b.Get("/console/audit?actor=nobody").Is(200).Has("No administrator has done anything yet")
		b.Get("/console/audit?since=never").Is(422).FaultAt("since", "no time")
	})
}

func TestPagesOfTheLogNeedTheirRights(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		page, err := r.ListEvents(r.Context(), desk.Root(), desk.EventFilter{}, "", 1)
		r.Must(err)
		id := "evt_01930000-0000-7000-8000-000000000000"
		if len(page.Items) > 0 {
			id = page.Items[0].ID
		}
		user := r.Person("bob", rest.RoleNone).SignedIn()
		for _, path := range []string{"/console/events", "/console/events/" + id, "/console/events/export?format=csv", "/console/events/stream", "/console/audit"} {
			if a := user.Get(path); a.Status == 200 {
				t.Errorf("%s for a user: %d", path, a.Status)
			}
			if a := r.Nobody().Get(path); a.Status != http.StatusSeeOther || strings.Contains(a.Body, "signin.") {
				t.Errorf("%s for nobody: %d", path, a.Status)
			}
		}
		user.Post("/console/events/views", "name", "x", "query", url.Values{}.Encode()).Is(403)
	})
}
