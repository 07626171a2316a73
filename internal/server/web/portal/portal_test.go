package portal_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/seal"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/words"
	"latchkey/internal/wire"
)

// E1: the whole wizard, from the password to the start page.
func TestE1TheWizard(t *testing.T) {
	onBoth(t, func(r *rig) {
		id := r.user("anna", rest.RoleNone)
		b := r.browser().begins("anna")
		enrolCode := r.enrolCode("anna")

		// A wrong enrolment code is counted as a code is, and opens nothing.
		b.post("/signin/code", "kind", "enrol", "code", "0000-0000-0000-0000").is(422)
		b.get("/me/enrol").goes("/signin?next=%2Fme%2Fenrol")
		b.post("/signin/code", "kind", "enrol", "code", enrolCode)
		// All roads lead to the wizard, and no action does anything else.
		for _, path := range []string{"/me", "/me/factors", "/me/factors/add", "/me/factors/backup", "/me/machines", "/me/signins", "/me/reports", "/me/profile", "/me/enrol/codes", "/me/enrol/done"} {
			if a := b.get(path); a.to != "/me/enrol" && !strings.HasPrefix(a.to, "/stepup") {
				t.Errorf("%s: %d to %q", path, a.status, a.to)
			}
		}
		for _, path := range []string{"/me/factors/backup", "/me/enrol/codes", "/me/password", "/me/profile"} {
			if a := b.post(path); a.status == 200 {
				t.Errorf("%s: %d\n%s", path, a.status, a.text())
			}
		}
		b.get("/console").is(403)

		page := b.get("/me/enrol").is(200).has(words.MyEnrolOne, words.MyEnrolOnce, words.MyEnrolNoScan, "otpauth://totp/", `<svg xmlns="http://www.w3.org/2000/svg" class="qr"`)
		phone := r.app(page.key())
		// A slip: the page comes back with the same key, and what was typed as the name.
		again := b.post("/me/enrol", "ticket", page.ticket(), "code", phone.wrong(), "name", "Anna's phone").is(422).has(`value="Anna's phone"`, "f-code")
		if again.key() != page.key() {
			t.Error("after a slip there is another key")
		}
		if got := b.post("/me/enrol", "ticket", page.ticket(), "code", ""); got.status != 422 {
			t.Errorf("no code: %d", got.status)
		}
		before := b.cookies["__Host-latchkey"]
		b.post("/me/enrol", "ticket", again.ticket(), "code", phone.now(), "name", "Anna's phone").goes("/me/enrol/codes")
		if b.cookies["__Host-latchkey"] == before {
			t.Error("the session has the secret that it had before the enrolment")
		}

		b.get("/me/enrol/codes").is(200).has(words.MyEnrolDone, words.MyCodesMake, words.MyCodesOnce)
		shown := b.post("/me/enrol/codes").is(200).has(words.MyCodesKept, words.MyCodesFile)
		codes := shown.codes()
		if len(codes) != 10 {
			t.Fatalf("%d codes\n%s", len(codes), shown.text())
		}
		b.post("/me/enrol/kept").is(422).has(words.MyCodesNotKept, words.MyCodesHaveThem, words.MyCodesMakeNew)
		b.post("/me/enrol/kept", "kept", "on").goes("/me/enrol/done")
		b.get("/me/enrol/done").is(200).has(words.MyNextMachine, words.MyNextOffline, words.MyNextLost).lacks(words.MeSteps["backup-codes"].Title)
		b.get("/me").is(200).has("Anna's phone", words.MyFactorUsable, words.MyBackupLeft(10), words.MeSteps["second-authenticator"].Title, words.MyMachinesNone)

		// The codes and the app open the portal, each code once; the enrolment code no more.
		if got := r.types("anna"); !strings.Contains(got, "code.spent") || !strings.Contains(got, "factor.added factor.added") && strings.Count(got, "factor.added") != 2 {
			t.Errorf("events: %s", got)
		}
		other := r.browser().begins("anna")
		other.post("/signin/code", "kind", "backup", "code", codes[3]).goes("/")
		other.get("/me").is(200).has(words.MyBackupLeft(9))
		r.browser().begins("anna").post("/signin/code", "kind", "backup", "code", codes[3]).is(422)
		r.browser().in("anna", phone).get("/me").is(200)
		if f := second(r.ListFactors(r.Context(), desk.Root(), rest.UserPrefix+id)); len(f.Items) != 2 {
			t.Errorf("%+v", f.Items)
		}
		// The wizard is over.
		b.get("/me/enrol").is(200).has(words.MyFactorAddTitle)
	})
}

func second[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Wrong enrolment codes lock out like any other.
func TestE1WrongEnrolmentCodesAreCounted(t *testing.T) {
	onBoth(t, func(r *rig) {
		id := r.user("anna", rest.RoleNone)
		code := r.enrolCode("anna")
		b := r.browser()
		begun := false
		for n := range 30 {
			if !begun {
				// Who must wait is not even asked: the password is not judged then.
				a := b.post("/signin", "name", "anna", "password", password)
				begun = a.to == "/signin"
			} else if a := b.post("/signin/code", "kind", "enrol", "code", fmt.Sprintf("0000-0000-0000-%04d", n)); a.status != 422 {
				begun = false
			}
			r.clock.off += 20 * time.Second
		}
		locked, err := r.ListLocks(r.Context(), desk.Root(), "", 0)
		r.must(err)
		if len(locked.Items) == 0 || locked.Items[0].UserID != "" && locked.Items[0].UserID != rest.UserPrefix+id {
			t.Fatalf("nobody is locked out: %+v", locked)
		}
		// The right one, too late: it waits as well.
		if begun {
			if a := b.post("/signin/code", "kind", "enrol", "code", code); a.status == http.StatusSeeOther && a.to != "/signin" {
				t.Errorf("the right code was judged while locked out: %q", a.to)
			}
		}
		b.get("/me/enrol").goes("/signin?next=%2Fme%2Fenrol")
	})
}

// A second authenticator takes a second factor given a moment ago.
func TestE1ASecondEnrolmentTakesAFreshFactor(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, phone := r.enrolled("anna", rest.RoleNone)
		r.clock.off += 6 * time.Minute
		b.get("/me/factors").is(200)
		b.get("/me/factors/add").goes("/stepup?next=%2Fme%2Ffactors%2Fadd")
		for _, path := range []string{"/me/factors/backup", "/me/password"} {
			b.get("/me/factors")
			if a := b.post(path); a.to != "/stepup?next=%2Fme%2Ffactors" {
				t.Errorf("%s: %d to %q", path, a.status, a.to)
			}
		}
		if n := strings.Count(r.types("anna"), "factor.added"); n != 1 {
			t.Errorf("%d factors were added", n)
		}
		b.post("/stepup?next=%2Fme%2Ffactors%2Fadd", "kind", "totp", "code", phone.code(), "next", "/me/factors/add").goes("/me/factors/add")
		page := b.get("/me/factors/add").is(200)
		tablet := r.app(page.key())
		// The settings of a strange device.
		b.get("/me/factors/add?algorithm=SHA256&digits=8&period=60").is(200).has("SHA256, "+words.MyAppCodes(8, 60), "algorithm=SHA256")
		// It may take longer than the freshness lasts, but not for ever.
		r.clock.off += 10 * time.Minute
		b.post("/me/factors/add", "ticket", page.ticket(), "code", tablet.now(), "name", "tablet").goes("/me/factors")
		b.get("/me/factors").is(200).has("phone", "tablet", words.MyEnrolDone).lacks(words.MeSteps["second-authenticator"].Title)
		b.post("/stepup", "kind", "totp", "code", phone.code(), "next", "/me/factors/add").goes("/me/factors/add")
		page = b.get("/me/factors/add").is(200)
		r.clock.off += 16 * time.Minute
		late := r.app(page.key())
		if a := b.post("/me/factors/add", "ticket", page.ticket(), "code", late.now()); a.status == 303 && a.to == "/me/factors" {
			t.Error("a ticket lasts for ever")
		}
		b.post("/stepup", "kind", "totp", "code", phone.code(), "next", "/me/factors/add").goes("/me/factors/add")
		over := b.post("/me/factors/add", "ticket", page.ticket(), "code", late.now()).is(http.StatusGone).has(words.MyEnrolOver)
		if over.key() == page.key() {
			t.Error("an old picture is offered again")
		}
	})
}

// TestWhatIsSwitchedOffIsSaidToBe: no form leads to a refusal that was known before.
func TestWhatIsSwitchedOffIsSaidToBe(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, _ := r.enrolled("anna", rest.RoleNone)
		for _, page := range []string{"/me/factors", "/me/certificates"} {
			b.get(page).is(200).has(words.CertOff).lacks(words.CertLead)
		}
		b.get("/me/certificates").lacks(words.CertIssue, words.CertNone)
		use := "portal"
		_, err := r.ChangeCertificateSettings(r.Context(), desk.Root(), rest.CertificateSettingsChange{Use: &use})
		r.must(err)
		for _, page := range []string{"/me/factors", "/me/certificates"} {
			b.get(page).is(200).has(words.CertLead).lacks(words.CertOff)
		}
		b.get("/me/certificates").has(words.CertIssue)

		for people, why := range map[string]string{"https://192.0.2.1:8443": "Passkeys need a host name", "https://login.example.org": ""} {
			_, err := r.ChangeSettings(r.Context(), desk.Root(), rest.SettingsChange{PeopleURL: &people})
			r.must(err)
			if page := b.get("/me/factors/passkey").is(200); why != "" {
				page.has(why).lacks(words.PasskeyMake)
			} else {
				page.has(words.PasskeyMake)
			}
		}
	})
}

func TestFactorsAreTheirOwners(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, phone := r.enrolled("anna", rest.RoleNone)
		o, _ := r.enrolled("otto", rest.RoleOwner)
		factor := func(name string) string {
			return second(r.ListFactors(r.Context(), desk.Root(), name)).Items[0].ID
		}
		mine, theirs := factor("anna"), factor("otto")
		b.get("/me") // takes the notices
		// Somebody else's is not there, in the same words as none.
		absent := rest.FactorPrefix + "01930000-0000-7000-8000-000000000000"
		for _, do := range []func(id string) answer{
			func(id string) answer { return b.get("/me/factors/" + id) },
			func(id string) answer { return b.post("/me/factors/"+id+"/name", "name", "mine") },
			func(id string) answer { return b.post("/me/factors/" + id + "/remove") },
			func(id string) answer { return b.post("/me/factors/" + id + "/lost") },
		} {
			a, none := do(theirs).is(404), do(absent).is(404)
			if got, want := strings.ReplaceAll(a.text(), theirs, "X"), strings.ReplaceAll(none.text(), absent, "X"); got != want {
				t.Errorf("they differ:\n%s\n%s", got, want)
			}
		}
		o.get("/me/factors/" + theirs).is(200)

		b.get("/me/factors/" + mine).is(200).has(words.MyFactorLastOne).lacks("/remove\"")
		b.post("/me/factors/" + mine + "/remove").is(409)
		b.post("/me/factors/"+mine+"/name", "name", "").is(422).has(words.MyFactorNameLabel)
		b.post("/me/factors/"+mine+"/name", "name", "<b>old</b> phone").goes("/me/factors/" + mine)
		if a := b.get("/me/factors/" + mine).is(200); strings.Contains(a.body, "<b>old") {
			t.Error("a name is not escaped")
		}
		page := b.get("/me/factors/add").is(200)
		next := r.app(page.key())
		b.post("/me/factors/add", "ticket", page.ticket(), "code", next.now(), "name", "new phone").goes("/me/factors")
		second := r.browser().in("anna", next)
		second.get("/me").is(200)
		b.get("/me/factors/" + mine).is(200).has("/remove\"")
		b.post("/me/factors/" + mine + "/lost").goes("/me/factors")
		b.get("/me/factors").is(200).has(words.MyFactorIsLost, words.MyFactorLostDone)
		// Whoever had the other session has it no more, and the lost one opens nothing.
		second.get("/me").goes("/signin?next=%2Fme")
		r.browser().begins("anna").post("/signin/code", "kind", "totp", "code", phone.code()).is(422)
		b.post("/me/factors/" + mine + "/remove").goes("/me/factors")
		b.get("/me/factors").is(200).has(words.MyFactorRemoved).lacks("old</b> phone")
	})
}

// M5: how many are left, when there are few, and new ones.
func TestM5BackupCodesInThePortal(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, _ := r.enrolled("anna", rest.RoleNone)
		b.get("/me").is(200).has(words.MeSteps["backup-codes"].Title)
		b.get("/me/factors/backup").is(200).has(words.MyCodesNone, words.MyCodesMake)
		first := b.post("/me/factors/backup").is(200).lacks(words.MyCodesReplaced).codes()
		for i := range 7 {
			// Sign-ins from one address are bounded: people do not use seven codes at once.
			r.clock.off += 5 * time.Minute
			r.browser().begins("anna").post("/signin/code", "kind", "backup", "code", first[i]).goes("/")
		}
		b = r.browser().begins("anna")
		b.post("/signin/code", "kind", "backup", "code", first[7]).goes("/")
		b.get("/me").is(200).has(words.MyBackupLeft(2), words.MeSteps["few-backup-codes"].Title)
		b.get("/me/factors/backup").is(200).has(words.MyBackupLeft(2), words.MyCodesAsk).lacks(first[8])
		again := b.post("/me/factors/backup").is(200).has(words.MyCodesReplaced).codes()
		if len(again) != 10 {
			t.Fatalf("%d codes", len(again))
		}
		b.post("/me/factors/backup/kept", "kept", "on").goes("/me/factors")
		r.browser().begins("anna").post("/signin/code", "kind", "backup", "code", first[9]).is(422)
		r.clock.off += time.Minute
		r.browser().begins("anna").post("/signin/code", "kind", "backup", "code", again[0]).goes("/")
	})
}

// O14, O16: what is left on a machine, and how it ends: the machine that is connected
// hears of it at once.
func TestO14DisenrolReachesTheMachine(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, phone := r.enrolled("anna", rest.RoleNone)
		b.get("/me/machines").is(200).has(words.MyMachinesNone, words.MyMachinesNoneText)
		m := r.joined("laptop")
		conversation, done := m.signin("anna", password, phone.code())
		if done.Outcome != policy.Allow || !done.Offline {
			t.Fatalf("%+v", done)
		}
		path := "/me/machines/" + rest.MachinePrefix + m.id
		b.get("/me/machines").is(200).has("laptop", words.MyMachineWindow, words.MyOfflineStates["none"].Word)
		p := m.prepares(done.UserID, conversation)
		b.get("/me").is(200).has("laptop", words.MyMachineCount(1, 1))
		b.get("/me/machines").is(200).has(words.MyOfflineStates["active"].Word, ">7", ">50")
		b.get(path).is(200).has(words.MyMachineDisenrolAsk, words.MyMachineUntil, words.MyMachineLoseOthers)
		b.get("/me/signins").is(200).has("laptop", words.MySigninOK, words.MySigninHere, words.MySigninBrowser)

		// Somebody else sees nothing of it.
		o, _ := r.enrolled("otto", rest.RoleOwner)
		for _, x := range []string{path, "/me/machines/laptop"} {
			o.get(x).is(404)
			o.post(x + "/disenrol").is(404)
			o.post(x + "/lost").is(404)
		}

		var now wire.Changes
		m.call("GET", wire.PathChanges+"?since=0", nil, &now)
		if f := m.open(now); len(f.Vaults) != 1 {
			t.Fatalf("the machine is told of %+v", f.Vaults)
		}
		answered := make(chan wire.Changes, 1)
		before := r.agents.Polls()
		go func() {
			var c wire.Changes
			if err := m.try("GET", fmt.Sprintf("%s?since=%d", wire.PathChanges, now.Serial), nil, &c); err != nil {
				t.Error(err)
			}
			answered <- c
		}()
		for end := time.Now().Add(10 * time.Second); r.agents.Polls() == before && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		b.post(path + "/disenrol").goes(path)
		select {
		case c := <-answered:
			if f := m.open(c); len(f.Vaults) != 0 {
				t.Errorf("the machine keeps %+v", f.Vaults)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the machine does not hear of it")
		}
		b.get(path).is(200).has(words.MyMachineDisenrolled, words.MyOfflineStates["disenrolling"].Word).lacks(words.MyMachineDisenrolAsk)
		m.call("POST", wire.PathWiped, wire.Wiped{UserID: done.UserID, Generation: p.Generation, Reason: "Disenrolled by policy"}, nil)
		b.get(path).is(200).has(words.MyOfflineStates["none"].Word)
		b.post(path + "/disenrol").goes(path)
		b.get(path).is(200).has(words.MyMachineNoneThere)
	})
}

// open verifies a policy as the machine does.
func (m *machine) open(c wire.Changes) (f wire.PolicyFile) {
	m.r.Helper()
	payload, err := seal.Verify(m.grant, seal.Policy, m.id, c.Policy)
	m.r.must(err)
	m.r.must(json.Unmarshal(payload, &f))
	return f
}

func TestThisWasNotMe(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, phone := r.enrolled("anna", rest.RoleNone)
		m := r.joined("laptop")
		if _, done := m.signin("anna", password, phone.code()); done.Outcome != policy.Allow {
			t.Fatalf("%+v", done)
		}
		elsewhere := r.browser().in("anna", phone)
		elsewhere.get("/me").is(200)
		o, _ := r.enrolled("otto", rest.RoleOwner)

		at := "/me/signins/" + r.last(event.SigninAllowed).ID
		o.get(at).is(404)
		o.post(at + "/report").is(404)
		b.get(at).is(200).has("laptop", words.NotMeAsk, words.NotMeTold)
		b.post(at+"/report", "told", strings.Repeat("x", 2000)).is(422).has(words.NotMeTold, "xxxx")
		b.post(at+"/report", "told", "I was asleep").is(200).has(words.NotMeDone, words.NotMePassword, words.NotMeFactors)
		elsewhere.get("/me").goes("/signin?next=%2Fme")
		b.get("/me").is(200).has(words.MeSteps["open-reports"].Title)
		b.get(at).is(200).has(words.NotMeAlready).lacks(words.NotMeAsk)
		if w := second(r.ListWindows(r.Context(), desk.Root(), "anna", "", "", 0)); len(w.Items) != 0 {
			t.Errorf("windows: %+v", w.Items)
		}
		var data struct{ Severity, Told string }
		r.must(json.Unmarshal(r.last(event.ReportOpened).Data, &data))
		if data.Severity != "alert" || data.Told != "I was asleep" {
			t.Errorf("%+v", data)
		}

		// The console sees it, closes it, and the person reads what was done.
		b.get("/console/reports").is(403)
		list := o.get("/console/reports").is(200).has("anna", "laptop", words.DeskReportSignin)
		report := list.find(`href="(/console/reports/rep_[^"]+)"`)
		o.get(report).is(200).has("I was asleep", words.DeskReportClose)
		o.post(report+"/handled", "answer", "").is(422).has(words.DeskReportAnswer)
		b.post(report+"/handled", "answer", "mine").is(403)
		b.get(report).is(403)
		o.post(report+"/handled", "answer", "the night backup").goes("/console/reports")
		o.get("/console/reports").is(200).has(words.DeskReportsNone)
		o.get("/console/reports?state=all").is(200).has("anna")
		o.post(report+"/handled", "answer", "again").is(409)
		b.get("/me/reports").is(200).has("the night backup", words.MyReportHandled)
	})
}

func TestALostMachine(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, phone := r.enrolled("anna", rest.RoleNone)
		mine, shared := r.joined("mine"), r.joined("shared")
		owner := "anna"
		second(r.ChangeMachine(r.Context(), desk.Root(), "mine", 0, rest.MachineChange{Owner: &owner}))
		for _, m := range []*machine{mine, shared} {
			conversation, done := m.signin("anna", password, phone.code())
			m.prepares(done.UserID, conversation)
		}
		path := func(m *machine) string { return "/me/machines/" + rest.MachinePrefix + m.id }
		b.get(path(shared)).is(200).has(words.MyMachineLoseOthers)
		b.post(path(shared)+"/lost", "told", "in a train").is(200).has(words.MyLostDone(false), words.MyMachineReseed, "phone", words.MyMachineUrgent)
		b.get(path(mine)).is(200).has(words.MyMachineLoseMine)
		r.clock.off += 6 * time.Minute
		b.post(path(mine) + "/lost").goes("/stepup?next=" + strings.ReplaceAll(path(mine), "/", "%2F"))
		b.post("/stepup", "kind", "totp", "code", phone.code(), "next", path(mine)).goes(path(mine))
		b.post(path(mine) + "/lost").is(200).has(words.MyLostDone(true))
		b.get(path(mine)).is(200).has(words.MyStatusLost).lacks(words.MyMachineDisenrolAsk, words.MyMachineLoseAsk)
		if err := mine.try("GET", wire.PathChanges+"?since=0", nil, nil); err == nil || !strings.Contains(err.Error(), string(fault.MachineRefused)) {
			t.Errorf("the lost machine is still heard: %v", err)
		}
		shared.call("GET", wire.PathProbe, nil, nil)
	})
}

func TestOwnPasswordInThePortal(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, phone := r.enrolled("anna", rest.RoleNone)
		other := r.browser().in("anna", phone)
		const better = "a much better one"
		b.get("/me/password").is(200).has(words.MyPasswordOld, words.MyPasswordNew, words.MyPasswordAgain)
		try := func(old, new1, new2 string) answer {
			return b.post("/me/password", "old", old, "new", new1, "again", new2)
		}
		for name, a := range map[string]struct {
			answer
			at string
		}{
			"they differ":     {try(password, better, better+"!"), "fault-again"},
			"too short":       {try(password, "short", "short"), "fault-new"},
			"the name in it":  {try(password, "anna is my name", "anna is my name"), "fault-new"},
			"the old one":     {try(password, password, password), "fault-new"},
			"a wrong old one": {try("wrong", better, better), "fault-old"},
		} {
			if a.status != 422 || !strings.Contains(a.body, `id="`+a.at+`"`) || strings.Contains(a.body, better) {
				t.Errorf("%s: %d\n%s", name, a.status, a.text())
			}
		}
		try(password, better, better).goes("/me")
		b.get("/me").is(200).has(words.MyPasswordChanged)
		other.get("/me").goes("/signin?next=%2Fme")
		r.browser().post("/signin", "name", "anna", "password", password).is(401)
		r.browser().post("/signin", "name", "anna", "password", better).goes("/signin")
		r.clock.off += 6 * time.Minute
		b.get("/me/password").goes("/stepup?next=%2Fme%2Fpassword")
	})
}

func TestProfileAndEmptyPages(t *testing.T) {
	onBoth(t, func(r *rig) {
		b, _ := r.enrolled("anna", rest.RoleNone)
		b.get("/me/profile").is(200).has(words.MeDisplayName, words.MeMail)
		b.post("/me/profile", "display_name", "Anna Ångström", "mail", "not a mail").is(422).has("Anna Ångström", "not a mail")
		b.post("/me/profile", "display_name", "Anna Ångström", "mail", "anna@example.org").goes("/me")
		b.get("/me").is(200).has("Anna Ångström", "anna@example.org", words.MeSaved)
		b.get("/me/reports").is(200).has(words.MyReportsNone)
		b.get("/me/signins").is(200).has(words.MySigninBrowser)
		b.get("/me/nothing-there").is(404)
		r.clock.off += 6 * time.Minute
		b.get("/me/profile").is(200)
		b.post("/me/profile", "display_name", "Anna", "mail", "anna@example.org").goes("/me")
		b.get("/me/profile")
		b.post("/me/profile", "display_name", "Anna", "mail", "thief@example.org").goes("/stepup?next=%2Fme%2Fprofile")
		// Nobody who has not signed in sees anything.
		for _, path := range []string{"/me", "/me/enrol", "/me/factors", "/me/factors/add", "/me/machines", "/me/signins", "/me/password", "/console/reports"} {
			if a := r.browser().get(path); a.status != http.StatusSeeOther || !strings.HasPrefix(a.to, "/signin?next=") {
				t.Errorf("%s: %d to %q", path, a.status, a.to)
			}
		}
	})
}
