package entry_test

import (
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web/words"
	"latchkey/internal/text"
)

func TestPasswordAndCodeOpenTheConsole(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		b := r.browser()
		b.get("/console").goes("/signin?next=%2Fconsole")
		b.get("/signin?next=/console/users?role=owner").is(http.StatusOK).has(`autocomplete="username"`).has(`autocomplete="current-password"`).has(`value="/console/users?role=owner"`)
		b.post("/signin", "name", "olga", "password", password, "next", "/console/approvals").goes("/signin?next=%2Fconsole%2Fapprovals")
		b.get("/console").goes("/signin?next=%2Fconsole") // the password alone opens nothing
		b.get("/signin?next=/console/approvals").is(http.StatusOK).has(`autocomplete="one-time-code"`)
		a := b.post("/signin/code", "kind", "totp", "code", olga.fresh(), "next", "/console/approvals").goes("/console/approvals")
		for _, c := range a.set {
			if c.Name != session.Cookie && c.Name != session.KnownCookie && c.Name != session.SigninCookie {
				continue
			}
			if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
				t.Errorf("the cookie %s is %+v", c.Name, c)
			}
			if c.Name == session.Cookie && (c.MaxAge != 0 || !c.Expires.IsZero() || len(c.Value) != 46) {
				t.Errorf("the session's cookie is %+v", c)
			}
		}
		if b.home() != "/console" {
			t.Errorf("the console is not open: / leads to %q", b.home())
		}
		b.get("/console/approvals").is(http.StatusOK)
		b.get("/me/sessions").is(http.StatusOK).has("Firefox, Linux").has("this one")
		opened := r.events(event.SessionOpened, olga.id)
		if len(opened) != 1 || opened[0].Factor != "totp" || opened[0].Actor != "olga" || !strings.Contains(string(opened[0].Data), `"console":true`) {
			t.Errorf("events of opened sessions: %+v", opened)
		}
		b.post("/signout").goes("/signin")
		if len(b.cookies) == 0 || b.cookies[session.Cookie] != nil {
			t.Errorf("cookies behind the end: %v", b.cookies)
		}
		b.get("/console").goes("/signin?next=%2Fconsole")
		if n := len(r.events(event.SessionEnded, olga.id)); n != 1 {
			t.Errorf("%d events of ended sessions", n)
		}
	})
}

// TestAMenuThatNothingIsWrongWithSaysSo: who has a choice of factors and has made no
// mistake is told of none, at the sign-in and at the step-up.
func TestAMenuThatNothingIsWrongWithSaysSo(t *testing.T) {
	onBoth(t, func(r *rig) {
		anna := r.person("anna", rest.RoleNone)
		anna.phone() // beside the app: there is a choice
		alert := `role="alert"`
		b := r.browser().begins(anna)
		b.get("/signin").is(http.StatusOK).has(words.ProofChoose).lacks(words.SigninFailed).lacks(alert)
		b.post("/signin/code", "kind", "totp", "code", anna.wrong()).is(http.StatusUnprocessableEntity).has(words.SigninFailed).has(alert)
		b = r.browser().in(anna)
		b.get("/stepup").is(http.StatusOK).has(words.ProofChoose).lacks(words.ErrorSummary).lacks(alert)
		b.post("/stepup", "kind", "totp", "code", anna.wrong()).is(http.StatusUnprocessableEntity).has(alert)
	})
}

// TestALostPhoneOfWhoHasNoRole: backup codes may be gone with the phone, and nobody at the
// help desk can end them; the code that it gives is offered beside them.
func TestALostPhoneOfWhoHasNoRole(t *testing.T) {
	onBoth(t, func(r *rig) {
		anna := r.person("anna", rest.RoleNone)
		anna.backup()
		_, err := r.LoseFactor(r.Context(), desk.Root(), "anna", rest.FactorPrefix+anna.auth)
		r.must(err)
		r.browser().begins(anna).get("/signin").lacks(text.OptionEnrol) // there is no code
		code, err := r.IssueEnrolCode(r.Context(), desk.Root(), "anna", rest.NewEnrolCode{})
		r.must(err)
		b := r.browser().begins(anna)
		b.get("/signin").has(text.OptionEnrol)
		b.post("/signin/code", "kind", "enrol", "code", code.Code.Show()).goes("/")
		b.get("/me/enrol/passkey").is(http.StatusOK)
	})
}

// The secret of a session, a sign-in or a code is in no table and no event.
func TestNothingSecretIsStored(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		b := r.browser().begins(olga)
		secrets := []string{b.cookies[session.SigninCookie].Value, password}
		b.post("/signin/code", "kind", "totp", "code", olga.fresh()).goes("/")
		secrets = append(secrets, b.cookies[session.Cookie].Value)
		r.must(r.Store.Read(context.Background(), func(q *store.Queries) error {
			s, err := q.ListSessionsOfUser(context.Background(), db.ListSessionsOfUserParams{UserID: olga.id, N: 10})
			for _, s := range s {
				for _, x := range secrets {
					if strings.Contains(string(s.SecretHash), x) {
						t.Error("a secret is stored")
					}
				}
			}
			return err
		}))
		all, err := r.Store.EventsAfter(context.Background(), store.Position{}, 1000)
		r.must(err)
		for _, e := range all {
			for _, x := range secrets {
				if strings.Contains(e.Data, x) {
					t.Errorf("a secret is in the event %s", e.Type)
				}
			}
		}
	})
}

// S5: before an accepted password every failure is the same page, whoever the name is of.
func TestAFailureSaysNothingAboutTheName(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.person("bob", rest.RoleOwner)
		r.bare("nopass", "none", func(in *rest.NewUser) { in.Password = rest.Secret{} })
		r.bare("later", "none", func(in *rest.NewUser) {
			in.Activation, in.ActivateAt = rest.ActivateAt, start.AddDate(1, 0, 0)
		})
		gone := r.person("gone", "none")
		yes := true
		_, err := r.ChangeUser(r.Context(), desk.Root(), "gone", 0, rest.UserChange{Disabled: &yes})
		r.must(err)
		_ = gone
		locked := r.person("locked", "none")
		r.Lock(r.T, locked.id, attempts.Door, clock.Micros(start.Add(time.Hour)))
		page := func(name, pass string) string {
			t.Helper()
			a := r.browser().post("/signin", "name", name, "password", pass).is(http.StatusUnauthorized)
			for k := range a.header {
				if k == "Set-Cookie" {
					t.Errorf("%s: a cookie is set", name)
				}
			}
			return strings.ReplaceAll(a.body, `value="`+name+`"`, `value=""`)
		}
		want := page("bob", "wrong wrong wrong")
		if !strings.Contains(want, text.DeniedFirst) {
			t.Fatalf("no sentence in %s", want)
		}
		for _, c := range []struct{ name, pass string }{
			{"nobody", password},
			{"Bob", password},
			{"BOB", "wrong wrong wrong"},
			{"nopass", password},
			{"later", password},
			{"gone", password},
			{"locked", password},
			{strings.Repeat("x", 4000), password},
			{"bob", ""},
			{"b\x00b", password},
			{"bob", strings.Repeat("y", 3000)},
		} {
			if got := page(c.name, c.pass); got != want {
				t.Errorf("the answer to %.20q with the password %.20q is another", c.name, c.pass)
			}
		}
		reasons := map[string]bool{}
		for _, e := range r.events(event.SessionDenied, "") {
			reasons[e.Reason] = true
			if e.Outcome != "deny" || e.Address != "127.0.0.1" {
				t.Errorf("an event without outcome or address: %+v", e)
			}
		}
		for _, x := range []string{"first-factor-rejected", "user-unknown", "user-disabled", "user-not-active-yet", "locked-out"} {
			if !reasons[x] {
				t.Errorf("no event with the reason %s: %v", x, reasons)
			}
		}
	})
}

// S5: the time of a failure is rounded up to whole grains.
func TestAFailureTakesWholeGrains(t *testing.T) {
	c := clock.NewManual(start)
	const grain = 200 * time.Millisecond
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c, grain)
	r.person("bob", "none")
	for _, name := range []string{"bob", "nobody"} {
		begun := time.Now()
		r.browser().post("/signin", "name", name, "password", "wrong wrong").is(http.StatusUnauthorized)
		if took := time.Since(begun); took < grain {
			t.Errorf("the refusal of %s took %v", name, took)
		}
	}
}

// S10: a code is accepted once, here or at a machine.
func TestACodeIsGoodOnceHereOrAtAMachine(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", "none")
		b := r.browser().begins(bob)
		code := bob.fresh()
		b.post("/signin/code", "kind", "totp", "code", code).goes("/")
		other := r.browser().begins(bob)
		other.post("/signin/code", "kind", "totp", "code", code).is(http.StatusUnprocessableEntity).has(text.CodeUsed)
		if out, reason := r.machineSignin(bob, password, code); out == policy.Allow {
			t.Errorf("a machine accepts a code that was used here: %s %s", out, reason)
		}
		code = bob.fresh()
		if out, reason := r.machineSignin(bob, password, code); out != policy.Allow {
			t.Fatalf("the machine refuses a fresh code: %s %s", out, reason)
		}
		other = r.browser().begins(bob)
		other.post("/signin/code", "kind", "totp", "code", code).is(http.StatusUnprocessableEntity).has(text.CodeUsed)
		// And a step-up.
		b.post("/stepup", "code", code).is(http.StatusUnprocessableEntity).has(text.CodeUsed)
	})
}

// Of two sign-ins with one code at the same moment one wins, and of two answers to one
// sign-in one is judged.
func TestOneCodeOpensOneSession(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", "none")
		var signins []string
		for range 4 {
			signins = append(signins, r.browser().begins(bob).cookies[session.SigninCookie].Value)
		}
		signins = append(signins, signins...)
		code := bob.fresh()
		var all sync.WaitGroup
		var mu sync.Mutex
		opened := 0
		for _, raw := range signins {
			all.Go(func() {
				o, err := r.sessions.Answer(context.Background(), raw, session.TOTP, secret.FromString(code), "192.0.2.1")
				if err == nil && o.Session != nil {
					mu.Lock()
					opened++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if opened != 1 {
			t.Errorf("%d sessions were opened", opened)
		}
	})
}

// S10: failures here and at machines are one count: who has to wait waits everywhere,
// and a right password does not help.
func TestWhoMustWaitAtMachinesWaitsHere(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", "none")
		attempt := func(place string) (a db.Attempt) {
			r.must(r.Store.Read(context.Background(), func(q *store.Queries) (err error) {
				a, err = q.GetAttempt(context.Background(), db.GetAttemptParams{UserID: bob.id, MachineID: place})
				if store.IsNotFound(err) {
					err = nil
				}
				return err
			}))
			return a
		}
		for attempt("").Failures < 9 {
			if w := attempt(r.machine.ID).BlockedUntil; w > 0 {
				r.clock.Advance(time.Duration(w+1)*time.Microsecond - time.Duration(clock.Micros(r.clock.Now()))*time.Microsecond)
			}
			r.machineSignin(bob, "wrong wrong wrong", "")
		}
		before := attempt("").Failures
		if attempt("").BlockedUntil <= clock.Micros(r.clock.Now().Add(3*time.Second)) {
			r.update(func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: bob.id, BlockedUntil: clock.Micros(r.clock.Now().Add(time.Minute))})
				return err
			})
		}
		r.browser().post("/signin", "name", "bob", "password", password).is(http.StatusUnauthorized).has(text.DeniedFirst)
		if n := attempt("").Failures; n != before {
			t.Errorf("who had to wait was counted: %d, before %d", n, before)
		}
		if e := r.events(event.SessionDenied, bob.id); len(e) != 1 || e[0].Reason != "back-off" {
			t.Errorf("events %+v", e)
		}
		// The wait over, failures here count there.
		r.clock.Advance(10 * time.Minute)
		r.browser().post("/signin", "name", "bob", "password", "wrong wrong wrong").is(http.StatusUnauthorized)
		if n := attempt("").Failures; n != before+1 {
			t.Errorf("%d failures across places, want %d", n, before+1)
		}
	})
}

// S10: ten failures at the door lock it for that account, and an event says so; the
// browser with which the person has signed in before is a place of its own.
func TestTenFailuresLockTheDoorAndNotTheOwnBrowser(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		own := olga.signedIn()
		own.post("/signout").goes("/signin")
		for range 40 {
			if len(r.events(event.LockoutBegan, olga.id)) > 0 {
				break
			}
			r.browser().post("/signin", "name", "olga", "password", "wrong wrong wrong").is(http.StatusUnauthorized)
			r.clock.Advance(time.Minute)
		}
		if len(r.events(event.LockoutBegan, olga.id)) != 1 {
			t.Fatal("nothing is locked")
		}
		r.browser().post("/signin", "name", "olga", "password", password).is(http.StatusUnauthorized)
		own.in(olga)
		// Somebody else's cookie does not help.
		bob := r.person("bob", "none")
		thief := bob.signedIn()
		thief.post("/signout").goes("/signin")
		for range 40 {
			if len(r.events(event.LockoutBegan, olga.id)) > 1 {
				break
			}
			thief.post("/signin", "name", "olga", "password", "wrong wrong wrong").is(http.StatusUnauthorized)
			r.clock.Advance(time.Minute)
		}
		// An administrator sees it and lifts it.
		locks, err := r.ListLocks(r.Context(), desk.Root(), "", 10)
		r.must(err)
		if len(locks.Items) == 0 || locks.Items[0].Machine != "console and portal" || locks.Items[0].MachineID != "" {
			t.Errorf("the locks are %+v", locks.Items)
		}
		_, err = r.Unlock(r.Context(), desk.Root(), "olga")
		r.must(err)
		olga.signedIn()
	})
}

func TestThreeWrongCodesEndTheSignIn(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", "none")
		b := r.browser().begins(bob)
		r.clock.Advance(30 * time.Second)
		b.post("/signin/code", "kind", "totp", "code", bob.wrong()).is(http.StatusUnprocessableEntity).has(text.WrongCode)
		b.post("/signin/code", "kind", "totp", "code", "  ").is(http.StatusUnprocessableEntity).has(text.NothingTyped)
		b.post("/signin/code", "kind", "totp", "code", bob.wrong()).is(http.StatusUnprocessableEntity)
		b.post("/signin/code", "kind", "totp", "code", bob.wrong()).is(http.StatusUnauthorized).has("Begin again")
		b.post("/signin/code", "kind", "totp", "code", bob.code()).is(http.StatusUnauthorized)
		if n := len(r.events(event.FactorRejected, bob.id)); n != 3 {
			t.Errorf("%d rejected codes are written down", n)
		}
		r.clock.Advance(10 * time.Minute)
		bob.signedIn()
		// A sign-in that nobody goes on with is over after five minutes.
		late := r.browser().begins(bob)
		r.clock.Advance(session.SigninTime)
		late.post("/signin/code", "kind", "totp", "code", bob.code()).is(http.StatusUnauthorized).has("took too long")
	})
}

// M5, E3: a backup code opens the portal alone, and once; a bypass code opens nothing.
func TestBackupAndBypassCodesDoNotOpenTheConsole(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		codes := olga.backup()
		b := r.browser().begins(olga)
		b.get("/signin").has("Use a backup code instead")
		b.get("/signin?with=backup").has("A backup code opens your own account")
		b.post("/signin/code", "kind", "backup", "code", strings.ToLower(codes[0]), "next", "/console/users").goes("/me")
		if b.home() != "/me" {
			t.Errorf("a backup code leads to %q", b.home())
		}
		b.get("/console/approvals").is(http.StatusForbidden)
		b.get("/me/sessions").is(http.StatusOK).has("Backup code")
		// Nor does a step-up with a second one, or with the app: what opened the session counts.
		b.post("/stepup", "kind", "backup", "code", codes[1]).goes("/")
		b.get("/console/approvals").is(http.StatusForbidden)
		again := r.browser().begins(olga)
		again.post("/signin/code", "kind", "backup", "code", codes[0]).is(http.StatusUnprocessableEntity).has(text.BackupUsed)
		// At the machine it is used up too.
		var spent []event.Event
		if spent = r.events(event.CodeSpent, olga.id); len(spent) != 2 {
			t.Errorf("%d spent codes are written down", len(spent))
		}

		code := ""
		r.update(func(ctx context.Context, tx *store.Tx) (err error) {
			_, code, err = r.Keeper.IssueBypass(ctx, tx, factor.BypassCode{UserID: olga.id, Reason: "r", Expires: r.clock.Now().Add(time.Hour), By: "root"}, r.clock.Now())
			return err
		})
		for _, kind := range []string{"bypass", "totp", "backup", "enrol", ""} {
			b := r.browser().begins(olga)
			if a := b.post("/signin/code", "kind", kind, "code", code); a.status == http.StatusSeeOther || b.cookies[session.Cookie] != nil {
				t.Errorf("a bypass code was accepted as %q: %d to %q", kind, a.status, a.to)
			}
			r.clock.Advance(2 * time.Minute)
		}
		if out, reason := r.machineSignin(olga, password, olga.fresh()); out != policy.Allow {
			t.Errorf("the machine says %s %s", out, reason)
		}
		// With nothing but a bypass code somebody has no factor: an enrolment code is asked for.
		lone := r.bare("lone", "none")
		r.update(func(ctx context.Context, tx *store.Tx) (err error) {
			_, code, err = r.Keeper.IssueBypass(ctx, tx, factor.BypassCode{UserID: lone.id, Reason: "r", Expires: r.clock.Now().Add(time.Hour), By: "root"}, r.clock.Now())
			return err
		})
		lb := r.browser().begins(lone)
		lb.get("/signin").has("Enrolment code")
		lb.post("/signin/code", "kind", "enrol", "code", code).is(http.StatusUnprocessableEntity)
	})
}

// E1: an enrolment code opens a session that enrols and does nothing else, until the
// first authenticator stands.
func TestAnEnrolmentCodeOpensTheEnrolmentAlone(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.bare("olga", rest.RoleOwner)
		var id, code string
		issue := func() {
			r.update(func(ctx context.Context, tx *store.Tx) (err error) {
				id, code, err = r.Keeper.IssueEnrol(ctx, tx, factor.EnrolCode{UserID: olga.id, Expires: r.clock.Now().Add(time.Hour), By: "root"}, r.clock.Now())
				return err
			})
		}
		issue()
		b := r.browser().begins(olga)
		b.get("/signin").has("Set up a second factor")
		b.post("/signin/code", "kind", "enrol", "code", code).goes("/")
		if b.home() != "/me" {
			t.Errorf("it leads to %q", b.home())
		}
		b.get("/console/approvals").is(http.StatusForbidden)
		req, _ := http.NewRequest(http.MethodGet, "/", nil)
		req.AddCookie(b.cookies[session.Cookie])
		s, err := r.sessions.OfRequest(req)
		r.must(err)
		if s == nil || s.Factor != session.Enrol || s.Console || s.EnrolCode != id || s.Actor("").Enrol != id || s.Actor("").Role != rest.RoleNone || s.IsFresh(r.clock.Now()) {
			t.Fatalf("the session is %+v", s)
		}
		if !s.Ends.Before(r.clock.Now().Add(session.EnrolTime + time.Second)) {
			t.Errorf("it ends at %v", s.Ends)
		}
		// Nothing enrolled yet, or something that somebody else has put there: no whole session.
		if _, err := r.sessions.Enrolled(r.Context(), s, ""); err == nil {
			t.Error("a session became a whole one before anything was enrolled")
		}
		olga = olga.enrol()
		if _, err := r.sessions.Enrolled(r.Context(), s, ""); err == nil {
			t.Error("a session became a whole one with an authenticator that nobody has confirmed, and the code unspent")
		}
		r.update(func(ctx context.Context, tx *store.Tx) error {
			seed, err := r.Keeper.NewSeed(otp.DefaultParams)
			if err != nil {
				return err
			}
			made, err := r.Keeper.AddTOTP(ctx, tx, olga.id, factor.TOTP{Params: otp.DefaultParams, Seed: seed, FirstStep: otp.DefaultParams.Step(r.clock.Now())}, r.clock.Now())
			if err != nil {
				return err
			}
			if _, err = tx.SpendEnrolCode(ctx, db.SpendEnrolCodeParams{ID: id, At: clock.Micros(r.clock.Now())}); err != nil {
				return err
			}
			_, err = tx.SetEnrolCodeMade(ctx, db.SetEnrolCodeMadeParams{ID: id, Made: made})
			return err
		})
		raw, err := r.sessions.Enrolled(r.Context(), s, "")
		r.must(err)
		b.get("/console/approvals").goes("/signin?next=%2Fconsole%2Fapprovals") // the old secret
		b.cookies[session.Cookie] = &http.Cookie{Name: session.Cookie, Value: string(raw.Reveal())}
		b.get("/console/approvals").is(http.StatusOK)
	})
}

// Whoever is disabled, demoted or given another password is so at once.
func TestASessionIsWhatItsAccountIsNow(t *testing.T) {
	onBoth(t, func(r *rig) {
		yes, no, none, admin := true, false, rest.RoleNone, rest.RoleAdministrator
		olga := r.person("olga", rest.RoleOwner)
		b := olga.signedIn()
		b.get("/console/approvals").is(http.StatusOK).has("Ask for an approval")
		change := func(c rest.UserChange) {
			t.Helper()
			_, err := r.ChangeUser(r.Context(), desk.Actor{Name: "root@local", Role: rest.RoleOwner, Local: true, Approver: &desk.Actor{Name: "o", UserID: "o", Role: rest.RoleOwner}, ApprovedFor: olga.id}, "olga", 0, c)
			r.must(err)
		}
		change(rest.UserChange{Role: &admin})
		b.get("/console/approvals").is(http.StatusOK).lacks("Ask for an approval")
		change(rest.UserChange{Role: &none})
		b.get("/console/approvals").is(http.StatusForbidden)
		change(rest.UserChange{Role: &admin})
		change(rest.UserChange{Disabled: &yes})
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		change(rest.UserChange{Disabled: &no})
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions") // enabling brings nothing back
		b = olga.signedIn()
		r.must(r.SetPassword(r.Context(), desk.Root(), "olga", rest.NewPassword{Password: rest.HideText("another horse battery")}))
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		r.must(r.SetPassword(r.Context(), desk.Root(), "olga", rest.NewPassword{Password: rest.HideText(password)}))
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		// A sign-in under way ends too.
		half := r.browser().begins(olga)
		r.clock.Advance(time.Minute)
		r.must(r.SetPassword(r.Context(), desk.Root(), "olga", rest.NewPassword{Password: rest.HideText("another horse battery")}))
		half.post("/signin/code", "kind", "totp", "code", olga.code()).is(http.StatusUnauthorized)
		r.must(r.SetPassword(r.Context(), desk.Root(), "olga", rest.NewPassword{Password: rest.HideText(password)}))
		b = olga.signedIn()
		_, err := r.AddBackup(r.Context(), desk.Root(), "olga") // another's hand at the factors
		r.must(err)
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		b = olga.signedIn()
		r.must(r.RemoveUser(r.Context(), desk.Root(), "olga", 0))
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
	})
}

func TestAStepUpRotatesTheSession(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		r.person("otto", rest.RoleOwner)
		b := olga.signedIn()
		ask := []string{"action", "remove-user", "subject", "otto", "reason", "he left"}
		b.post("/console/approvals", ask...).goes("/console/approvals")
		r.clock.Advance(session.FreshFor)
		b.post("/console/approvals", ask...).goes("/stepup?next=%2F")
		b.get("/stepup?next=/console/approvals").is(http.StatusOK).has(`value="/console/approvals"`).has(`href="/console/approvals"`)
		// "Cancel" does not lead to a page that asks for the same proof again.
		b.get("/stepup?next=/me/factors/add").is(http.StatusOK).has(`href="/me"`).lacks(`href="/me/factors/add"`)
		b.post("/stepup", "code", olga.wrong(), "next", "/console/approvals").is(http.StatusUnprocessableEntity).has(text.WrongCode)
		old := *b.cookies[session.Cookie]
		b.post("/stepup", "code", olga.fresh(), "next", "//evil.example/").goes("/")
		if b.cookies[session.Cookie].Value == old.Value {
			t.Error("the secret is the same")
		}
		thief := r.browser()
		thief.cookies[session.Cookie] = &old
		thief.get("/console/approvals").goes("/signin?next=%2Fconsole%2Fapprovals")
		b.post("/console/approvals", ask...).goes("/console/approvals")
		if n := len(r.events(event.SessionSteppedUp, olga.id)); n != 1 {
			t.Errorf("%d step-ups are written down", n)
		}
		// Ten wrong ones at an open session lock the step-up there, and nobody out.
		b2 := olga.signedIn()
		for range 40 {
			if len(r.events(event.LockoutBegan, olga.id)) > 0 {
				break
			}
			b2.post("/stepup", "code", olga.wrong())
			r.clock.Advance(20 * time.Second)
			b2.get("/me/sessions").is(http.StatusOK)
		}
		b2.post("/stepup", "code", olga.code()).is(http.StatusTooManyRequests)
		olga.signedIn()
	})
}

func TestASessionEndsWithoutUseAndInTheEnd(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", "none")
		b := bob.signedIn()
		r.clock.Advance(session.Idle - time.Minute)
		b.get("/me/sessions").is(http.StatusOK)
		r.clock.Advance(session.Idle - time.Minute)
		b.get("/me/sessions").is(http.StatusOK)
		r.clock.Advance(session.Idle)
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		b = bob.signedIn()
		for d := time.Duration(0); d < session.Absolute-20*time.Minute; d += 20 * time.Minute {
			r.clock.Advance(20 * time.Minute)
			b.get("/me/sessions").is(http.StatusOK)
		}
		r.clock.Advance(20 * time.Minute)
		b.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		r.clock.Advance(time.Minute)
		r.must(r.sessions.Clear(r.Context()))
		r.must(r.Store.Read(context.Background(), func(q *store.Queries) error {
			left, err := q.ListSessionsOfUser(context.Background(), db.ListSessionsOfUserParams{UserID: bob.id, N: 10})
			if len(left) > 0 {
				t.Errorf("%d sessions are left", len(left))
			}
			return err
		}))
	})
}

func TestAnotherSiteChangesNothing(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		b := olga.signedIn()
		for _, path := range []string{"/signin", "/signin/code", "/signout", "/stepup", "/me/sessions/end-others", "/console/approvals", "/setup"} {
			b.site = "cross-site"
			b.post(path, "name", "olga", "password", password).is(http.StatusForbidden)
			b.site = "same-site" // another host of the same domain
			b.post(path, "name", "olga", "password", password).is(http.StatusForbidden)
		}
		b.site = "same-origin"
		b.get("/console/approvals").is(http.StatusOK)
	})
}

// S9, D1: a password that is due is changed behind the second factor.
func TestADuePasswordIsChangedAtTheSignIn(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", rest.RoleAuditor, func(in *rest.NewUser) { in.MustChange = true })
		b := r.browser().begins(bob)
		b.post("/signin/password", "password", "a brand new one", "again", "a brand new one").is(http.StatusUnauthorized) // not yet
		b = r.browser().begins(bob)
		b.post("/signin/code", "kind", "totp", "code", bob.fresh()).goes("/signin")
		b.get("/console").goes("/signin?next=%2Fconsole")
		b.get("/signin").is(http.StatusOK).has("Choose a new password").has(`autocomplete="new-password"`)
		b.post("/signin/code", "kind", "totp", "code", bob.fresh()).is(http.StatusUnauthorized)
		b = r.browser().begins(bob)
		b.post("/signin/code", "kind", "totp", "code", bob.fresh()).goes("/signin")
		b.post("/signin/password", "password", "short", "again", "short").is(http.StatusUnprocessableEntity).has("at least 12")
		b.post("/signin/password", "password", password, "again", password).is(http.StatusUnprocessableEntity).has("is the old one")
		b.post("/signin/password", "password", "a brand new one", "again", "a brand old one").is(http.StatusUnprocessableEntity).has("not the same")
		b.post("/signin/password", "password", "a brand new one", "again", "a brand new one").goes("/")
		b.get("/console/approvals").is(http.StatusOK)
		r.browser().post("/signin", "name", "bob", "password", password).is(http.StatusUnauthorized)
		r.browser().post("/signin", "name", "bob", "password", "a brand new one").goes("/signin")
		if e := r.events(event.PasswordChanged, bob.id); len(e) != 1 || e[0].Reason != "must-change" {
			t.Errorf("events: %+v", e)
		}
	})
}

func TestOwnSessionsAreSeenAndEnded(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob, eve := r.person("bob", "none"), r.person("eve", "none")
		one, two, hers := bob.signedIn(), bob.signedIn(), eve.signedIn()
		id := func(p person) string {
			list, err := r.sessions.List(r.Context(), desk.Root(), p.id)
			r.must(err)
			return list[len(list)-1].ID // the one that was used the longest ago
		}
		hers.post("/me/sessions/" + id(bob) + "/end").is(http.StatusNotFound)
		hers.post("/me/sessions/" + store.NewID() + "/end").is(http.StatusNotFound)
		two.post("/me/sessions/" + id(bob) + "/end").goes("/me/sessions")
		one.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		three := bob.signedIn()
		two.post("/me/sessions/end-others").goes("/me/sessions")
		three.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		two.get("/me/sessions").is(http.StatusOK)
		// An administrator ends those of others, by rank (E3).
		hilda := desk.Actor{Name: "hilda", UserID: "h", Role: rest.RoleHelpDesk}
		if err := r.sessions.Revoke(r.Context(), desk.Actor{Name: "a", UserID: "a", Role: rest.RoleAuditor}, id(bob)); err == nil {
			t.Error("an auditor ended a session")
		}
		r.must(r.sessions.Revoke(r.Context(), hilda, id(bob)))
		two.get("/me/sessions").goes("/signin?next=%2Fme%2Fsessions")
		boss := r.person("boss", rest.RoleAdministrator)
		boss.signedIn()
		if err := r.sessions.Revoke(r.Context(), hilda, id(boss)); err == nil {
			t.Error("the help desk ended an administrator's session")
		}
		if _, err := r.sessions.RevokeAll(r.Context(), hilda, boss.id, ""); err == nil {
			t.Error("the help desk ended an administrator's sessions")
		}
		// Twenty are the most.
		for range 22 {
			boss.signedIn()
		}
		if list, _ := r.sessions.List(r.Context(), desk.Root(), boss.id); len(list) != 20 {
			t.Errorf("%d sessions", len(list))
		}
	})
}

// E3: an owner who can sign in as another approves nothing of his own.
func TestAnOwnerDoesNotApproveHimself(t *testing.T) {
	onBoth(t, func(r *rig) {
		otto, oona, victim := r.person("otto", rest.RoleOwner), r.person("oona", rest.RoleOwner), r.person("victim", rest.RoleOwner)
		puppet := r.person("puppet", "none")
		role := rest.RoleOwner
		as := func(p person) desk.Actor { return desk.Actor{Name: p.name, UserID: p.id, Role: rest.RoleOwner} }
		with := func(a desk.Actor, by, about person) desk.Actor {
			second := as(by)
			a.Approver, a.ApprovedFor = &second, about.id
			return a
		}
		// Another owner agrees to the new owner, whom nobody can tell from otto.
		if _, err := r.ChangeUser(r.Context(), as(otto), "puppet", 0, rest.UserChange{Role: &role}); !fault.Is(err, fault.Forbidden) {
			t.Fatalf("an owner made an owner alone: %v", err)
		}
		a := otto.signedIn()
		a.post("/console/approvals", "action", "change-user", "subject", "puppet", "reason", "a new owner").goes("/console/approvals")
		_, err := r.ChangeUser(r.Context(), with(as(otto), oona, puppet), "puppet", 0, rest.UserChange{Role: &role})
		r.must(err)
		// And oona's password is set by otto, with an approval.
		r.must(r.SetPassword(r.Context(), with(as(otto), victim, oona), "oona", rest.NewPassword{Password: rest.HideText(password)}))
		a.post("/console/approvals", "action", "remove-factor", "subject", "victim", "reason", "phone lost").goes("/console/approvals")
		list, err := r.sessions.ListApprovals(r.Context(), desk.Root())
		r.must(err)
		i := slices.IndexFunc(list, func(x session.Approval) bool { return x.Subject == "victim" })
		path := "/console/approvals/" + list[i].ID + "/decide"
		puppet.signedIn().post(path, "decision", "give").is(http.StatusForbidden).has("an owner for 7 days")
		oona.signedIn().post(path, "decision", "give").is(http.StatusForbidden).has("otto has set")
		// Whom otto has not touched may; and after a week the others may.
		r.person("fourth", rest.RoleOwner).signedIn().post(path, "decision", "give").goes("/console/approvals")
		r.clock.Advance(8 * 24 * time.Hour)
		a = otto.signedIn()
		a.post("/console/approvals", "action", "remove-factor", "subject", "victim", "reason", "phone lost").goes("/console/approvals")
		list, err = r.sessions.ListApprovals(r.Context(), desk.Root())
		r.must(err)
		puppet.signedIn().post("/console/approvals/"+list[0].ID+"/decide", "decision", "give").goes("/console/approvals")
	})
}

// E3: three people, each fresh, for one action on one account, once.
func TestAnApprovalNeedsThreePeople(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga, otto, oona := r.person("olga", rest.RoleOwner), r.person("otto", rest.RoleOwner), r.person("oona", rest.RoleOwner)
		adam := r.person("adam", rest.RoleAdministrator)
		a, b, c := olga.signedIn(), otto.signedIn(), oona.signedIn()
		who := func(br *browser) *session.Session {
			req, _ := http.NewRequest(http.MethodGet, "/", nil)
			req.AddCookie(br.cookies[session.Cookie])
			s, err := r.sessions.OfRequest(req)
			r.must(err)
			return s
		}
		ask := func(br *browser, action, subject string) answer {
			return br.post("/console/approvals", "action", action, "subject", subject, "reason", "phone lost")
		}
		ask(a, "remove-factor", "adam").is(http.StatusUnprocessableEntity).has("you need no approval")
		ask(a, "remove-factor", "olga").is(http.StatusUnprocessableEntity)
		ask(a, "remove-factor", "nobody").is(http.StatusUnprocessableEntity)
		ask(a, "dance", "otto").is(http.StatusUnprocessableEntity)
		ask(adam.signedIn(), "remove-factor", "otto").is(http.StatusForbidden)
		ask(a, "remove-factor", "otto").goes("/console/approvals")
		list, err := r.sessions.ListApprovals(r.Context(), desk.Root())
		r.must(err)
		if len(list) != 1 || list[0].State != session.StateAsked {
			t.Fatalf("approvals: %+v", list)
		}
		id := list[0].ID
		path := "/console/approvals/" + id + "/decide"
		remove := func(s *session.Session, approval, action string) error {
			return r.sessions.Approved(r.Context(), s, "", approval, action, func(by desk.Actor) error {
				_, err := r.RemoveFactor(r.Context(), by, "otto", "totp")
				return err
			})
		}
		if err := remove(who(a), id, "remove-factor"); err == nil {
			t.Error("an approval that nobody gave was used")
		}
		a.post(path, "decision", "give").is(http.StatusForbidden)               // the requester
		b.post(path, "decision", "give").is(http.StatusForbidden)               // the subject
		adam.signedIn().post(path, "decision", "give").is(http.StatusForbidden) // no owner
		r.clock.Advance(session.FreshFor)
		c.post(path, "decision", "give").goes("/stepup?next=%2F")
		c.post("/stepup", "code", oona.fresh()).goes("/")
		c.get("/console/approvals").has("Remove a factor").has("otto").has("phone lost")
		c.post(path, "decision", "give").goes("/console/approvals")
		c.post(path, "decision", "give").is(http.StatusConflict)
		a.post("/stepup", "code", olga.fresh()).goes("/")
		// Not somebody else, not for something else, not with a session that is not fresh.
		if err := remove(who(c), id, "remove-factor"); err == nil {
			t.Error("an approval was used by somebody else")
		}
		if err := remove(who(a), id, "set-password"); err == nil {
			t.Error("an approval was used for something else")
		}
		err = r.sessions.Approved(r.Context(), who(a), "", id, "remove-factor", func(by desk.Actor) error {
			_, err := r.RemoveFactor(r.Context(), by, "oona", "totp")
			return err
		})
		if err == nil {
			t.Error("an approval was used for another account")
		}
		// What failed gives it back; what was done does not.
		r.must(remove(who(a), session.ApprovalPrefix+id, "remove-factor"))
		if err := remove(who(a), id, "remove-factor"); err == nil {
			t.Error("an approval was used twice")
		}
		for typ, n := range map[event.Type]int{event.ApprovalAsked: 1, event.ApprovalGiven: 1, event.ApprovalUsed: 2, event.FactorRemoved: 1} {
			if e := r.events(typ, otto.id); len(e) != n {
				t.Errorf("%d events %s, want %d", len(e), typ, n)
			}
		}
		// One that is given and whose giver is an owner no more is worth nothing; nor is an old one.
		otto = otto.enrol()
		ask(a, "remove-factor", "otto").goes("/console/approvals")
		list, _ = r.sessions.ListApprovals(r.Context(), desk.Root())
		id = list[0].ID
		r.clock.Advance(session.AskTime)
		c.post("/stepup", "code", oona.fresh()).goes("/")
		c.post("/console/approvals/"+id+"/decide", "decision", "give").is(http.StatusConflict)
	})
}

func TestTheSetupCodeMakesOneOwner(t *testing.T) {
	onBoth(t, func(r *rig) {
		file, err := r.sessions.WriteSetup(r.Context())
		r.must(err)
		b, err := os.ReadFile(file)
		r.must(err)
		code := strings.TrimSpace(string(b))
		if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
			t.Errorf("the file has the mode %v", info.Mode())
		}
		if again, _ := r.sessions.SetupCode(r.Context(), desk.Root()); string(again.Reveal()) != code {
			t.Error("a second look makes another code")
		}
		if _, err := r.sessions.SetupCode(r.Context(), desk.Actor{Name: "adam", Role: rest.RoleAdministrator}); err == nil {
			t.Error("the code is shown to an administrator")
		}
		br := r.browser()
		br.get("/").goes("/signin")
		br.get("/signin").goes("/setup")
		br.get("/setup").is(http.StatusOK).has("Setup code")
		form := func(code, name, pass, again string) []string {
			return []string{"setup", code, "name", name, "password", pass, "again", again}
		}
		wrong := "AAAA-BBBB-CCCC-DDDD"
		br.post("/setup", form(wrong, "olga", password, password)...).is(http.StatusUnprocessableEntity).has("not the setup code")
		br.post("/setup", form("", "olga", password, password)...).is(http.StatusUnprocessableEntity)
		br.post("/setup", form(code, " ", password, password)...).is(http.StatusUnprocessableEntity)
		br.post("/setup", form(code, "olga", "short", "short")...).is(http.StatusUnprocessableEntity).has("at least 12")
		br.post("/setup", form(code, "olga", password, "other")...).is(http.StatusUnprocessableEntity).has("not the same")
		other := r.browser()
		br.post("/setup", form(code, "olga", password, password)...).is(http.StatusOK).has("<svg").has("Or type this key")
		other.post("/setup", form(code, "mallory", password, password)...).is(http.StatusOK)
		key := func(b *browser) person {
			_, e, err := r.sessions.ShowSetup(r.Context(), b.cookies[session.SigninCookie].Value)
			r.must(err)
			seed, err := otp.ParseSeed(e.Key)
			r.must(err)
			return person{r: r, seed: seed}
		}
		app, theirs := key(br), key(other)
		br.post("/setup/confirm", "code", app.wrong()).is(http.StatusUnprocessableEntity).has("<svg")
		r.must(r.Store.Read(context.Background(), func(q *store.Queries) error {
			n, err := q.CountUsers(context.Background())
			if n != 0 {
				t.Errorf("%d users before the first code", n)
			}
			return err
		}))
		a := br.post("/setup/confirm", "code", app.code()).is(http.StatusOK).has("Keep these backup codes")
		if n := strings.Count(a.text(), "-"); n < 10 {
			t.Errorf("no codes in %s", a.text())
		}
		if br.home() != "/console" {
			t.Errorf("the owner is led to %q", br.home())
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the file is still there: %v", err)
		}
		// It worked once.
		other.post("/setup/confirm", "code", theirs.code()).is(http.StatusForbidden)
		other.post("/setup", form(code, "eve", password, password)...).is(http.StatusForbidden)
		other.get("/setup").is(http.StatusOK).has("has an owner already")
		if code, _ := r.sessions.SetupCode(r.Context(), desk.Root()); !code.Empty() {
			t.Error("there is a code although there is an owner")
		}
		if file, _ := r.sessions.WriteSetup(r.Context()); file != "" {
			t.Error("a file although there is an owner")
		}
		// The app, the codes and the password work.
		olga := person{r: r, name: "olga", id: r.user("olga").ID, seed: app.seed}
		olga.signedIn()
		if n := len(r.events(event.OwnerMade, olga.id)); n != 1 {
			t.Errorf("%d events of a first owner", n)
		}
	})
}

// The rate of one network and of one name is bounded, whoever the name is of.
func TestGuessingIsSlow(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.person("bob", "none")
		for _, name := range []string{"bob", "nobody"} {
			refused := false
			for range 30 {
				_, err := r.sessions.Begin(r.Context(), session.Attempt{Name: name, Password: secret.FromString("wrong wrong"), Kind: session.Browser, Address: "192.0.2.9"})
				refused = refused || strings.Contains(err.Error(), "Too many attempts")
			}
			if !refused {
				t.Errorf("thirty attempts at once as %s were judged", name)
			}
			r.clock.Advance(time.Minute)
		}
	})
}
