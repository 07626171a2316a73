package web_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/post"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/web/webtest"
)

// letters are the messages of the queue, opened, the oldest first.
func letters(r *webtest.Rig) []post.Message {
	r.Helper()
	var out []post.Message
	r.Must(r.Store.Read(r.Context(), func(q *store.Queries) error {
		rows, err := q.ListOutbox(r.Context(), db.ListOutboxParams{N: 1000})
		for _, row := range slices.Backward(rows) {
			plain, err := r.Keys.Box.Open(row.Body, "outbox", "body", row.ID)
			r.Must(err)
			var m post.Message
			r.Must(json.Unmarshal(plain.Reveal(), &m))
			out = append(out, m)
		}
		return err
	}))
	return out
}

func lastCode(r *webtest.Rig) string {
	r.Helper()
	all := letters(r)
	for _, m := range slices.Backward(all) {
		if code := regexp.MustCompile(`\b\d{8}\b`).FindString(m.Text); code != "" {
			return code
		}
	}
	r.Fatalf("no code among %d messages", len(all))
	return ""
}

// TestPagesOfMailAndSMS: settings are set, faults stand at their fields, a secret is kept
// and not shown, a message is tried out, and the queue is looked after.
func TestPagesOfMailAndSMS(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		owner := r.Person("owner", rest.RoleOwner).SignedIn()
		const mail, sms = "/console/settings/mail", "/console/settings/sms"
		owner.Get("/console/settings").Is(http.StatusOK).Has("Text messages")
		owner.Submit(mail, mail, "on", "on", "host", "a b", "from", "x").Is(http.StatusUnprocessableEntity).FaultAt("host", "not allowed").FaultAt("from", "no mail address")
		owner.Submit(mail, mail, "on", "on", "host", "mail.invalid", "from", "latchkey@example.org", "username", "latchkey", "password", "hush hush").Goes(mail)
		owner.Get(mail).Is(http.StatusOK).Lacks("hush hush").Has("One is kept")
		// An empty field keeps it.
		owner.Submit(mail, mail, "from_name", "Our Latchkey").Goes(mail)
		s, _, err := r.MailSettings(r.Context(), desk.Root())
		r.Must(err)
		if !s.HasPassword || s.FromName != "Our Latchkey" || !s.On || !s.Notices {
			r.Errorf("%+v", s)
		}
		owner.Submit(mail, mail+"/test", "to", "nonsense").Is(http.StatusUnprocessableEntity).FaultAt("to", "no mail address")
		owner.Submit(mail, mail+"/test", "to", "anna@example.org").Is(http.StatusOK).Has("It was not sent")

		owner.Submit(sms, sms, "on", "on", "url", "http://sms.example.org/", "headers", "Host: x", "networks", "y").Is(http.StatusUnprocessableEntity).
			FaultAt("url", "https://").FaultAt("headers", "can not be set").FaultAt("networks", "no network")
		owner.Submit(sms, sms, "on", "on", "url", "https://sms.example.org/send", "headers", "Authorization: Bearer {secret}", "secret", "sesame").Goes(sms)
		owner.Get(sms).Is(http.StatusOK).Lacks("sesame").Has("Authorization: Bearer {secret}")

		auditor := r.Person("auditor", rest.RoleAuditor).SignedIn()
		auditor.Get(mail).Is(http.StatusOK).Has("Only owners change these settings").Lacks("Send a test")
		auditor.Post(mail, "host", "x").Is(http.StatusForbidden)

		anna := r.Bare("anna", rest.RoleNone)
		_, err = r.ChangeUser(r.Context(), desk.Root(), "anna", 0, rest.UserChange{Mail: ptr("anna@example.org")})
		r.Must(err)
		// An enrolment code by mail, which the page does not show.
		user := "/console/users/" + anna.Ref
		before := len(letters(r))
		owner.Submit(user, user+"/enrolment-code", "enrol-mail", "on").Is(http.StatusOK).Has("on its way").Has("a…@example.org")
		if n := len(letters(r)); n != before+1 {
			r.Errorf("%d messages for one code", n-before)
		}
		owner.Submit(user, user+"/sms", "sms-address", "0170").Is(http.StatusUnprocessableEntity).FaultAt("sms-address", "does not begin with +")
		owner.Submit(user, user+"/sms", "sms-address", "+49 170 1234567").Is(http.StatusSeeOther)
		owner.Get(user).Is(http.StatusOK).Has("+49…67").Has("weak")

		page := owner.Get(mail).Is(http.StatusOK).Has("an enrolment code")
		id := regexp.MustCompile(`/console/settings/messages/(msg_[0-9a-f-]+)/remove`).FindStringSubmatch(page.Body)
		if id == nil {
			r.Fatal("no message can be removed")
		}
		owner.Resubmit(page, "/console/settings/messages/"+id[1]+"/retry").Goes(mail + "#queue")
		n := len(letters(r))
		owner.Resubmit(owner.Get(mail), "/console/settings/messages/"+id[1]+"/remove").Goes(mail + "#queue")
		if len(letters(r)) != n-1 {
			r.Error("it was not removed")
		}
	})
}

func ptr[T any](v T) *T { return &v }

// TestAPersonWithCodesByMail sets an address up in the portal and signs in with a code that
// goes there: to the portal, and not to the console.
func TestAPersonWithCodesByMail(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		on, host, from := true, "mail.example.org", "latchkey@example.org"
		_, _, err := r.ChangeMailSettings(r.Context(), desk.Root(), "", rest.MailChange{On: &on, Host: &host, From: &from})
		r.Must(err)
		anna := r.Person("anna", rest.RoleAdministrator)
		b := anna.SignedIn()
		b.Get("/me/factors").Is(http.StatusOK).Lacks("Codes by mail")
		_, err = r.ChangePolicy(r.Context(), desk.Root(), "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"online_factors":["totp","mail"]}`)})
		r.Must(err)
		b.Get("/me/factors").Is(http.StatusOK).Has("Codes by mail")
		b.Submit("/me/mail", "/me/mail", "address", "a b@c").Is(http.StatusUnprocessableEntity).FaultAt("address", "not allowed")
		page := b.Submit("/me/mail", "/me/mail", "address", "anna@example.org").Is(http.StatusOK).Has("a…@example.org")
		b.Resubmit(page, "/me/mail/confirm", "code", "00000000").Is(http.StatusUnprocessableEntity).FaultAt("code", "not right")
		b.Resubmit(page, "/me/mail/confirm", "code", lastCode(r)).Goes("/me/factors")
		b.Get("/me/factors").Is(http.StatusOK).Has("a…@example.org").Has("weak")

		other := r.Nobody()
		other.Post("/signin", "name", "anna", "password", webtest.Password).Is(http.StatusSeeOther)
		sent := len(letters(r))
		answer := other.Post("/signin/choose", "kind", "mail")
		if answer.Status == http.StatusSeeOther {
			answer = other.Get(answer.To)
		}
		answer.Is(http.StatusOK).Has("a…@example.org").Lacks("anna@example.org")
		if len(letters(r)) != sent+1 {
			r.Fatalf("%d messages", len(letters(r))-sent)
		}
		if m := letters(r)[sent]; m.To != "anna@example.org" || !strings.Contains(m.Text, "in a browser") {
			r.Errorf("%+v", m)
		}
		other.Post("/signin/code", "kind", "mail", "code", lastCode(r)).Is(http.StatusSeeOther)
		other.Get("/me").Is(http.StatusOK)
		if a := other.Get("/console"); a.Status == http.StatusOK {
			r.Error("a code by mail opens the console")
		}
	})
}
