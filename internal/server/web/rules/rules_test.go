package rules_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/webtest"
)

// policyOf is the policy as the desk has it.
func policyOf(r *webtest.Rig, ref string) rest.Policy {
	r.Helper()
	p, err := r.ShowPolicy(r.Context(), desk.Root(), ref)
	r.Must(err)
	return p
}

func settingsOf(r *webtest.Rig, ref string) map[string]any {
	r.Helper()
	var m map[string]any
	r.Must(json.Unmarshal(policyOf(r, ref).Settings, &m))
	return m
}

func group(r *webtest.Rig, name string, members ...string) {
	r.Helper()
	_, err := r.AddGroup(r.Context(), desk.Root(), rest.NewGroup{Name: name})
	r.Must(err)
	for _, m := range members {
		_, err := r.AddMember(r.Context(), desk.Root(), name, m)
		r.Must(err)
	}
}

func TestP5APolicyIsReviewedBeforeItIsSaved(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		r.Person("alice", rest.RoleNone)
		group(r, "staff", "alice")
		b := r.Person("admin", rest.RoleAdministrator).SignedIn()
		b.Get("/console/policies").Is(200).Has("default").Has("everybody else").Has("Only the default policy so far")

		// A new one: nothing is written before it was reviewed.
		a := b.Submit("/console/policies/new", "/console/policies/new", "name", "staff", "groups", "staff", "window", "30m", "offline", "bypass", "do", "review").Is(200)
		a.Has("Review the new policy").Has("8h").Has("30m").Has("Skips MFA when the server is unreachable")
		if _, err := r.ShowPolicy(r.Context(), desk.Root(), "staff"); err == nil {
			t.Fatal("the review has written")
		}
		// The review carries everything to the save.
		a = b.Resubmit(a, "/console/policies/new", "comment", "for the demo", "do", "save").Is(http.StatusSeeOther)
		id := policyOf(r, "staff").ID
		a.Goes("/console/policies/" + id)
		if s := settingsOf(r, "staff"); s["window"] != "30m0s" || s["offline"] != "bypass" || s["offline_days"] != 7.0 {
			t.Errorf("settings %v", s)
		}
		b.Get("/console/policies/" + id).Is(200).Has("30m").Has("for the demo").Has("Skips MFA when the server is unreachable")
		b.Get("/console/policies").Is(200).Has("1 warning").Has("Skip MFA: the password alone") // P4

		// What is wrong stands at its field, and what was typed stays.
		a = b.Submit("/console/policies/"+id+"/edit", "/console/policies/"+id+"/edit", "name", "", "window", "1y", "offline_days", "many", "trusted_networks", "10.0.0.1/8", "do", "review").Is(422)
		a.FaultAt("offline_days", "no whole number").Has("1y").Has("10.0.0.1/8")
		a = b.Resubmit(a, "/console/policies/"+id+"/edit", "offline_days", "9", "do", "save").Is(422)
		a.FaultAt("window", "1y").FaultAt("name", "").FaultAt("trusted_networks", "is not a network")
	})
}

func TestP5TwoAdministratorsDoNotOverwriteEachOther(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		b := r.Person("admin", rest.RoleAdministrator).SignedIn()
		path := "/console/policies/" + policyOf(r, "default").ID + "/edit"
		page := b.Get(path).Is(200)
		_, err := r.ChangePolicy(r.Context(), desk.Root(), "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"offline_days":3,"window":"1h"}`)})
		r.Must(err)
		a := b.Resubmit(page, path, "window", "30m", "do", "save").Is(409)
		a.Has("Somebody else changed this policy").Has("1h").Has("3 days")
		if s := settingsOf(r, "default"); s["window"] != "1h0m0s" {
			t.Errorf("it was overwritten: %v", s)
		}
		// Once seen, it is saved: theirs where nothing was changed here, ours where it was.
		b.Resubmit(a, path, "do", "save").Is(http.StatusSeeOther)
		if s := settingsOf(r, "default"); s["window"] != "30m0s" || s["offline_days"] != 3.0 {
			t.Errorf("after the merge: %v", s)
		}
	})
}

func TestP5VersionsAreComparedAndRolledBack(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		admin := r.Person("admin", rest.RoleAdministrator)
		b := admin.SignedIn()
		id := policyOf(r, "default").ID
		for i := range 3 {
			_, err := r.ChangePolicy(r.Context(), desk.Root(), "default", 0, rest.PolicyChange{Settings: json.RawMessage(fmt.Sprintf(`{"offline_days":%d}`, 20+i))})
			r.Must(err)
		}
		path := "/console/policies/" + id
		b.Get(path + "/history").Is(200).Has("21 days → 22 days").Has("root@local").Has("first version")
		b.Get(path + "/history?from=2&to=4").Is(200).Has("Version 2 to 4").Has("20 days")
		b.Get(path + "/history?from=2&to=99").Is(422).Has("no version 99")
		b.Get(path+"/history?from=x&to=4").Is(422).FaultAt("from", "whole number")
		b.Post(path+"/try", "version", "2").Is(200).Has("There is no sign-in to judge yet")

		rev := fmt.Sprint(policyOf(r, "default").Rev)
		b.Post(path+"/rollback", "rev", "1", "version", "2").Is(409)
		b.Post(path+"/rollback", "rev", rev, "version", "2").Goes(path)
		if s := settingsOf(r, "default"); s["offline_days"] != 20.0 {
			t.Errorf("after going back: %v", s)
		}
		// It needs a factor that was given a moment ago.
		r.Manual.Advance(6 * 60e9)
		a := b.Post(path+"/rollback", "rev", rev, "version", "3")
		if a.Status == http.StatusSeeOther && a.To == path || a.Status == 200 {
			t.Errorf("without a step-up: %d %s", a.Status, a.To)
		}
		if s := settingsOf(r, "default"); s["offline_days"] != 20.0 {
			t.Errorf("without a step-up: %v", s)
		}
	})
}

func TestP5ADraftIsTriedFromTheEditor(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		alice := r.Person("alice", rest.RoleNone)
		m := r.Machine(t, "laptop", rest.MachineActive)
		signins(r, alice, m.ID)
		b := r.Person("admin", rest.RoleAdministrator).SignedIn()
		path := "/console/policies/" + policyOf(r, "default").ID + "/edit"
		a := b.Submit(path, path, "online_factors", "backup", "window", "0", "do", "try").Is(200)
		a.Has("alice").Has("Denied, who is not now").Has("The user has no factor that the policy allows").Has("S2 second factor")
		if s := settingsOf(r, "default"); s["window"] != "8h0m0s" {
			t.Errorf("the trial has written: %v", s)
		}
		// And back, with everything that was typed.
		b.Resubmit(a, path, "do", "back").Is(200).Has(`value="0s"`)
		b.Resubmit(a, path, "do", "review").Is(200).Has("always asked")
	})
}

func TestP5AReportOnlyPolicyHasItsPage(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		r.Person("alice", rest.RoleNone)
		group(r, "staff", "alice")
		b := r.Person("admin", rest.RoleAdministrator).SignedIn()
		id := policyOf(r, "default").ID
		b.Get("/console/policies/new?copy=" + id + "&report=yes").Is(200).Has("default trial")
		b.Submit("/console/policies/new?copy="+id+"&report=yes", "/console/policies/new", "groups", "staff", "factors_online", "0", "do", "save").Is(http.StatusSeeOther)
		p := policyOf(r, "default trial")
		b.Get("/console/policies/" + p.ID).Is(200).Has("report-only").Has("No sign-in that it would have applied to")
		b.Get("/console/policies/" + p.ID + "/reports").Is(200)
		b.Get("/console/policies/" + p.ID + "/reports?change=moon").Is(422)
		b.Get("/console/explain/policy?user=alice").Is(200).Has("but it only reports").Has("it is the default")
		b.Post("/console/policies/"+p.ID+"/remove", "rev", "9").Is(409)
		b.Post("/console/policies/"+p.ID+"/remove", "rev", fmt.Sprint(p.Rev)).Goes("/console/policies")
	})
}

func TestS13WhyHasAnAddress(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		r.Person("alice", rest.RoleNone)
		r.Machine(t, "laptop", rest.MachineActive)
		b := r.Person("audit", rest.RoleAuditor).SignedIn()
		b.Get("/console/explain").Is(200).Has("Say who, where and how")
		q := url.Values{"user": {"alice"}, "machine": {"laptop"}, "scope": {"remote"}, "from": {"192.0.2.7"}, "at": {"2026-11-22T09:00"}, "link": {"up"}}
		a := b.Get("/console/explain?" + q.Encode()).Is(200)
		a.Has("Asked for 1 of: Authenticator app (TOTP)").Has("S2 second factor").Has("passed over").Has("from=192.0.2.7").Has(rest.Base + "/explain")
		b.Get("/console/explain?" + q.Encode() + "&nokey=yes&nophone=yes").Is(200).Has("nokey=yes&nophone=yes").Has("cannot").Has("Asked for 1 of: Authenticator app (TOTP)")
		q.Set("link", "down")
		b.Get("/console/explain?" + q.Encode()).Is(200).Has("not known on this machine")
		// Nobody of that name is explained, too: it is what a sign-in would say.
		q.Set("user", "nobody")
		b.Get("/console/explain?" + q.Encode()).Is(200).Has("Denied")
		b.Get("/console/explain?user=alice&machine=moon&scope=orbit&from=x&at=never&link=no&uid=a").Is(422).FaultAt("at", "no time").FaultAt("uid", "whole number").FaultAt("link", "choices")
		b.Get("/console/explain?user=alice&machine=moon&scope=orbit&from=x").Is(422).FaultAt("scope", "orbit").FaultAt("from", "no address")
		// From a user's page the question is only begun: no fault, and their machines are offered.
		b.Get("/console/explain?user=alice").Is(200).Has(`value="alice"`).Lacks("notice-bad")
		b.Get("/console/explain?user=alice&machine=").Is(422).FaultAt("machine", "missing")
		b.Get("/console/explain?user=alice&machine=laptop&scope=").Is(200).Has("Asked for 1 of")
		b.Get("/console/explain?user=alice&machine=moon&scope=logon").Is(422).FaultAt("machine", "no machine")

		b.Get("/console/explain/policy").Is(200).Has("Whose policy?")
		b.Get("/console/explain/policy?user=alice&machine=laptop").Is(200).Has("2FA is on unless switched off").Has("applies")
		b.Get("/console/explain/policy?user=nobody").Is(422).Has(`no user "nobody"`)
		b.Get("/console/explain/policy?machine=laptop").Is(422).FaultAt("user", "missing")
	})
}

func TestPagesOfRulesNeedTheirRights(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		id := policyOf(r, "default").ID
		auditor := r.Person("audit", rest.RoleAuditor).SignedIn()
		auditor.Get("/console/policies/" + id).Is(200).Lacks("/edit").Lacks("Remove")
		auditor.Get("/console/policies").Is(200).Lacks("New policy")
		for _, path := range []string{"/console/policies/new", "/console/policies/" + id + "/edit"} {
			auditor.Get(path).Is(403)
			auditor.Post(path, "name", "x", "do", "save").Is(403)
		}
		auditor.Post("/console/policies/"+id+"/rollback", "version", "1", "rev", "1").Is(403)
		auditor.Post("/console/policies/"+id+"/remove", "rev", "1").Is(403)
		// What is there and what is not looks the same to whoever may not.
		for _, path := range []string{"/console/policies/" + id + "/edit", "/console/policies/nowhere/edit"} {
			auditor.Get(path).Is(403)
		}
		user := r.Person("bob", rest.RoleNone).SignedIn()
		for _, path := range []string{"/console/policies", "/console/policies/" + id, "/console/explain", "/console/explain/policy?user=bob"} {
			if a := user.Get(path); a.Status == 200 || strings.Contains(a.Body, "everybody else") {
				t.Errorf("%s for a user: %d", path, a.Status)
			}
			if a := r.Nobody().Get(path); a.Status != http.StatusSeeOther {
				t.Errorf("%s for nobody: %d", path, a.Status)
			}
		}
	})
}
