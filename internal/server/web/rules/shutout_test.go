package rules_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/webtest"
)

// TestP1WhomAChangeShutsOutIsSeenAndTicked: in the editor, when going back, and when a
// policy is removed; nothing is written before.
func TestP1WhomAChangeShutsOutIsSeenAndTicked(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		r.Person("alice", rest.RoleNone)
		r.Person("carol", rest.RoleNone)
		group(r, "staff", "alice")
		// Owners have a policy of their own: nobody may shut all of them out.
		b := r.Person("boss", rest.RoleOwner).SignedIn()
		group(r, "chiefs", "boss")
		_, err := r.AddPolicy(r.Context(), desk.Root(), rest.NewPolicy{Name: "chiefs", Groups: []string{"chiefs"}})
		r.Must(err)
		id := policyOf(r, "default").ID
		path := "/console/policies/" + id
		edit := path + "/edit"
		factors := func() string { return fmt.Sprint(settingsOf(r, "default")["online_factors"]) }

		a := b.Submit(edit, edit, "online_factors", "push", "do", "review").Is(200)
		a.Has("This shuts out 2 people").Has("alice").Has("has Authenticator app (TOTP); shut out of:").Has("Shut out 2 people")
		// Without the tick it is not saved, and the box says so.
		no := b.Resubmit(a, edit, "do", "save").Is(409).FaultAt("shut_out", "Tick this").Has("This shuts out 2 people")
		if f := factors(); f == "[push]" {
			t.Fatal("it was saved without the tick")
		}
		// The whole list, and back to the review with everything that was typed.
		l := b.Resubmit(no, edit, "do", "shut-out").Is(200).Has("Who would be shut out").Has("alice").Has("2 people can sign in now and could not then.").Has("/policies/shut-out")
		a = b.Resubmit(l, edit, "do", "review").Is(200).Has("This shuts out 2 people")
		// Somebody more since it was ticked: it is asked again.
		r.Person("bob", rest.RoleNone)
		a = b.Resubmit(a, edit, "shut_out", "on", "shut_out_people", "2", "do", "save").Is(409).Has("This shuts out 3 people").FaultAt("shut_out", "Tick this")
		b.Resubmit(a, edit, "shut_out", "on", "do", "save").Goes(path)
		if f := factors(); f != "[push]" {
			t.Fatalf("after the tick: %s", f)
		}
		b.Get(path).Is(200).Has("Who can not sign in under it now")
		b.Post(path + "/shut-out").Is(200).Has("3 people to whom this policy applies can not sign in").Has("bob")

		// Back to what all have is no question; forth again is.
		rev := func() string { return fmt.Sprint(policyOf(r, "default").Rev) }
		b.Post(path+"/rollback", "rev", rev(), "version", "1").Goes(path)
		a = b.Post(path+"/rollback", "rev", rev(), "version", "2").Is(409).Has("Go back to version 2?").Has("This shuts out 3 people").Lacks("Tick this if")
		if f := factors(); f == "[push]" {
			t.Fatal("rolled back without the tick")
		}
		b.Post(path+"/shut-out", "version", "2").Is(200).Has("Who would be shut out").Has("3 people can sign in now")
		a = b.Resubmit(a, path+"/rollback").Is(409)
		b.Resubmit(a, path+"/rollback", "shut_out", "on").Goes(path)
		if f := factors(); f != "[push]" {
			t.Fatalf("rolled back: %s", f)
		}

		// A policy that lets some in is removed.
		_, err = r.AddPolicy(r.Context(), desk.Root(), rest.NewPolicy{Name: "apps", Groups: []string{"staff"}, Settings: json.RawMessage(`{"window":"1h"}`)})
		r.Must(err)
		apps := "/console/policies/" + policyOf(r, "apps").ID
		a = b.Post(apps+"/remove", "rev", "1").Is(409).Has("This shuts out 1 person").Has("alice")
		b.Post(apps+"/shut-out", "remove", "yes").Is(200).Has("alice")
		b.Resubmit(a, apps+"/remove", "shut_out", "on").Goes("/console/policies")

		// A trial says it, too; one that only reports shuts nobody out.
		_, err = r.RollbackPolicy(r.Context(), desk.Root(), "default", 0, rest.Rollback{Version: 1})
		r.Must(err)
		b.Submit(edit, edit, "online_factors", "push", "do", "try").Is(200).Has("This shuts out 3 people")
		b.Submit("/console/policies/new", "/console/policies/new", "name", "look", "groups", "staff", "online_factors", "push", "report_only", "on", "do", "save").Is(http.StatusSeeOther)
		// Who may read may see the list, and nothing else.
		c := r.Person("audit", rest.RoleAuditor).SignedIn()
		c.Post(path + "/shut-out").Is(200)
		c.Post(edit, "do", "shut-out").Is(403)
	})
}
