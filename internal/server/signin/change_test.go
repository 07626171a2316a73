package signin_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func mustChange(p *db.InsertUserParams) { p.MustChange = true }

func TestS9TheSecondFactorComesBeforeTheNewPassword(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice", mustChange)
		phone := r.addTOTP(u)
		was := r.user("alice")
		c := r.begin(begin("alice", ssh)).asks(wire.ForCode)
		c.answer(phone.code()).says(text.MustChangeNow).asks(wire.ForNewPassword)
		c.answer("short").says("at least 12").asks(wire.ForNewPassword)
		c.answer(password).says("old one").asks(wire.ForNewPassword)
		c.answer(newPassword).asks(wire.ForNewPassword2)
		d := c.answer(newPassword).says(text.PasswordChanged).allowed(true)
		if !d.PasswordChanged || !d.PasswordJudged || !d.Offline {
			t.Errorf("Done: %+v", d)
		}
		now := r.user("alice")
		if now.MustChange || now.PasswordGeneration != was.PasswordGeneration+1 || now.PasswordHash == was.PasswordHash {
			t.Errorf("the user is now %+v", now)
		}
		if e := r.events(event.PasswordChanged); len(e) != 1 || e[0].Reason != "must-change" || e[0].UserID != u.ID {
			t.Errorf("events: %+v", e)
		}
		r.begin(begin("alice")).denied(constant, "first-factor-rejected")
		r.clock.Advance(time.Minute)
		r.begin(begin("alice", ssh, with(newPassword))).asks(wire.ForCode).answer(phone.code()).allowed(true)
	})
}

func TestS9TwoEntriesThatDiffer(t *testing.T) {
	onOne(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice", mustChange))
		c := r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).asks(wire.ForNewPassword)
		c.answer(newPassword).asks(wire.ForNewPassword2)
		c.answer(newPassword + "x").says(text.NewDiffers).asks(wire.ForNewPassword)
		c.answer("").says(text.NothingTyped).asks(wire.ForNewPassword)
		c.answer(newPassword).asks(wire.ForNewPassword2)
		c.answer("").says(text.NewDiffers).asks(wire.ForNewPassword)
		d := c.answer("short").denied(text.DeniedNoChange, "password-not-chosen")
		if d.PasswordChanged || len(d.Spent) != 1 {
			t.Errorf("a spent code must reach the machine also with a denial: %+v", d)
		}
		if r.windows() != 0 {
			t.Error("a window without an end")
		}
		r.clock.Advance(time.Minute)
		r.begin(begin("alice")).asks(wire.ForCode)
	})
}

func TestS9WhoHasNoFactorChangesThePasswordAtALocalSeat(t *testing.T) {
	onBoth(t, func(r *rig) {
		off := func(p *db.InsertUserParams) { p.MustChange, p.MFA = true, facts.MFAOff }
		r.addUser("bob", off)
		r.begin(begin("bob", ssh)).denied(text.DeniedRemoteChange, "change-needs-local")
		r.begin(begin("bob", in(policy.Elevation, "sudo"), func(b *wire.Begin) { b.RemoteSeat = true })).denied(text.DeniedRemoteChange, "change-needs-local")
		c := r.begin(begin("bob")).says(text.MustChangeNow).asks(wire.ForNewPassword)
		c.answer(newPassword).asks(wire.ForNewPassword2)
		if d := c.answer(newPassword).allowed(false); !d.PasswordChanged {
			t.Errorf("Done: %+v", d)
		}
		// Who has one gives it, although nothing else asks for it.
		phone := r.addTOTP(r.addUser("carol", off))
		c = r.begin(begin("carol", ssh)).asks(wire.ForCode).answer(phone.code()).asks(wire.ForNewPassword)
		c.answer(newPassword).asks(wire.ForNewPassword2)
		c.answer(newPassword).allowed(false) // for the change alone
		// A bypass code is no factor of the user's own.
		dave := r.addUser("dave", mustChange)
		code := r.addBypass(dave, "")
		r.begin(begin("dave", ssh)).asks(wire.ForCode).answer(code).denied(text.DeniedRemoteChange, "change-needs-local")
		code = r.addBypass(dave, "")
		r.begin(begin("dave")).asks(wire.ForCode).answer(code).asks(wire.ForNewPassword)
		// An expired password.
		phone = r.addTOTP(r.addUser("erin"))
		r.clock.Advance(365 * 24 * time.Hour)
		r.begin(begin("erin")).asks(wire.ForCode).answer(phone.code()).says(text.ExpiredNow).asks(wire.ForNewPassword)
		// A password that the server has not judged is none that it would have changed.
		phone = r.addTOTP(r.addUser("frank", mustChange))
		r.begin(begin("frank", second, with(""))).asks(wire.ForCode).answer(phone.code()).allowed(true)
	})
}

// TestS9AChangeTakesTheFactorsOfThePolicy: and is no MFA of the sign-in.
func TestS9AChangeTakesTheFactorsOfThePolicy(t *testing.T) {
	onBoth(t, func(r *rig) {
		_, _ = sending(r)
		off := func(p *db.InsertUserParams) { p.MustChange, p.MFA = true, facts.MFAOff }
		u := r.addUser("alice", off)
		r.addKind(u, policy.Mail, true)
		phone := r.addTOTP(u)
		r.addBackup(u)
		// The policy accepts neither mail nor backup codes.
		r.setPolicy(func(p *policy.Policy) {
			p.OnlineFactors = []policy.Factor{policy.TOTP}
			p.Window = policy.Duration(8 * time.Hour)
		})
		c := r.begin(begin("alice")).asks(wire.ForCode) // and no menu
		c.answer(phone.code()).asks(wire.ForNewPassword).answer(newPassword).asks(wire.ForNewPassword2)
		d := c.answer(newPassword).allowed(false)
		if row := c.row(); d.Offline || row.MFAAt != 0 || r.windows() != 0 {
			t.Errorf("the factor was for the change alone: %+v, %d windows, MFA at %d", d, r.windows(), row.MFAAt)
		}
		// It asks for two: one is not enough.
		r.setPolicy(func(p *policy.Policy) {
			p.OnlineFactors, p.FactorsOnline = []policy.Factor{policy.TOTP, policy.Backup, policy.Mail}, 2
		})
		v := r.addUser("bob", off)
		phone = r.addTOTP(v)
		codes := r.addBackup(v)
		c = r.begin(begin("bob")).asks(wire.ForCode)
		if len(codes) == 0 {
			t.Fatal("no backup codes")
		}
		c.answer(phone.code()).asks(wire.ForCode).answer(codes[0]).asks(wire.ForNewPassword)
		// None that it accepts: those that open the console.
		r.setPolicy(func(p *policy.Policy) { p.OnlineFactors, p.FactorsOnline = []policy.Factor{policy.FIDO2}, 1 })
		w := r.addUser("carol", off)
		r.addKind(w, policy.Mail, true)
		phone = r.addTOTP(w)
		c = r.begin(begin("carol")).asks(wire.ForCode)
		c.answer(phone.code()).asks(wire.ForNewPassword)
		dave := r.addUser("dave", off)
		r.addKind(dave, policy.Mail, true)
		r.begin(begin("dave")).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
	})
}

// TestS9WhoHasAFactorThatCanNotBeGivenChangesNothing: a locked phone, a lost app, used
// up codes or a seat without a key are not "no factor".
func TestS9WhoHasAFactorThatCanNotBeGivenChangesNothing(t *testing.T) {
	onBoth(t, func(r *rig) {
		_, _ = sending(r)
		off := func(p *db.InsertUserParams) { p.MFA = facts.MFAOff }
		notEnrolled := text.Denied(policy.ReasonNotEnrolled, "")
		both := func(name string) {
			t.Helper()
			r.begin(begin(name, change, waits)).denied(notEnrolled, "not-enrolled")
			r.setUser(name, func(p *db.UpdateUserParams) { p.MustChange = true })
			r.begin(begin(name, waits)).denied(notEnrolled, "not-enrolled")
		}
		for suffix, mfa := range map[string]func(*db.InsertUserParams){"-off": off, "-on": func(*db.InsertUserParams) {}} {
			locked := r.addUser("locked"+suffix, mfa)
			r.addKind(locked, policy.Push, true)
			r.update(func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.LockPush(ctx, db.LockPushParams{UserID: locked.ID, Reason: "reported", At: 1})
				return err
			})
			both(locked.Name)
			lost := r.addUser("lost"+suffix, mfa)
			r.addTOTP(lost)
			r.update(func(ctx context.Context, tx *store.Tx) error {
				rows, err := tx.ListAuthenticators(ctx, lost.ID)
				if err != nil {
					return err
				}
				_, err = tx.SetAuthenticatorLost(ctx, rows[0].ID)
				return err
			})
			both(lost.Name)
		}
		// At this seat nothing can wait for a phone.
		far := r.addUser("far", func(p *db.InsertUserParams) { p.MustChange, p.MFA = true, facts.MFAOff })
		r.addKind(far, policy.Push, true)
		r.begin(begin("far")).denied(notEnrolled, "not-enrolled")
		r.begin(begin("far", waits)).asks(wire.ForPush)
		// An address that nobody has confirmed was never a factor.
		open := r.addUser("open", func(p *db.InsertUserParams) { p.MustChange, p.MFA = true, facts.MFAOff })
		r.addKind(open, policy.Mail, false)
		r.begin(begin("open")).asks(wire.ForNewPassword)
		// Failures stay counted, too.
		r.setUser("locked-off", func(p *db.UpdateUserParams) { p.MustChange = false })
		r.begin(begin("locked-off", with(wrongPassword))).denied(constant, "first-factor-rejected")
		r.begin(begin("locked-off")).allowed(false)
		if n := r.attempt(r.user("locked-off"), r.machine.ID).Failures; n != 1 {
			t.Errorf("%d failures are left", n)
		}
	})
}

func TestD1ActivationOnFirstLogin(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice", func(p *db.InsertUserParams) { p.Activation = facts.ActivationFirstLogin })
		phone := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(phone.wrong()).asks(wire.ForCode)
		if r.user("alice").ActivatedAt != 0 {
			t.Error("activated before the end")
		}
		c.answer(phone.code()).allowed(true)
		if at := r.user("alice").ActivatedAt; at != r.clock.Now().UnixMicro() {
			t.Errorf("activated at %d", at)
		}
		r.begin(begin("alice")).allowed(false)
		if e := r.events(event.UserChanged); len(e) != 1 || e[0].Reason != "first-login" {
			t.Errorf("events: %+v", e)
		}
		r.addUser("bob", func(p *db.InsertUserParams) {
			p.Activation, p.ActivateAt, p.MFA = facts.ActivationAt, start.Add(time.Hour).UnixMicro(), facts.MFAOff
		})
		r.begin(begin("bob")).denied(constant, "user-not-active-yet")
		r.clock.Advance(time.Hour)
		r.begin(begin("bob")).allowed(false)
	})
}

func change(b *wire.Begin) { b.Purpose = wire.PurposePassword }

func TestChangingThePasswordOnRequest(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		// No window silences this, and the old password is always asked for.
		c := r.begin(begin("alice", change, second, with(""))).asks(wire.ForPassword)
		c.answer(wrongPassword).denied(constant, "first-factor-rejected")
		c = r.begin(begin("alice", change, second, with(""))).asks(wire.ForPassword)
		c.answer(password).asks(wire.ForCode)
		c.answer(phone.fresh()).asks(wire.ForNewPassword).answer(newPassword).asks(wire.ForNewPassword2)
		d := c.answer(newPassword).allowed(true)
		if !d.PasswordChanged || d.Offline || r.windows() != 0 {
			t.Errorf("Done: %+v, %d windows", d, r.windows())
		}
		if e := r.events(event.PasswordChanged); len(e) != 1 || e[0].Reason != "asked" {
			t.Errorf("events: %+v", e)
		}
		// Without any factor: at a local seat only.
		r.addUser("bob")
		c = r.begin(begin("bob", change)).asks(wire.ForNewPassword).answer(newPassword).asks(wire.ForNewPassword2)
		c.answer(newPassword).allowed(false)
		r.addUser("carol")
		r.begin(begin("carol", change, ssh)).denied(text.DeniedRemoteChange, "change-needs-local")
		// A password that the server does not hold is the machine's business.
		r.addUser("dave", func(p *db.InsertUserParams) { p.PasswordHash = "" })
		r.begin(begin("dave", change, second, with(""))).ignored("no-password-here")
		r.begin(begin("nobody", change, second)).ignored("no-password-here")
		r.begin(begin("dave", change)).denied(constant, "first-factor-rejected")
	})
}

var enrolling = func(p *policy.Policy) { p.EnrolAtSignin = true }

// scanned is the app that has read what stands on the screen.
func scanned(t testing.TB, c *conv) app {
	t.Helper()
	const mark = "Or type this key into it: "
	for _, m := range c.last.Messages {
		if key, ok := strings.CutPrefix(m.Text, mark); ok {
			seed, err := otp.ParseSeed(key)
			if err != nil {
				t.Fatal(err)
			}
			return app{r: c.r, seed: seed}
		}
	}
	t.Fatalf("no key on the screen: %s", c.show())
	return app{}
}

func TestE1EnrolmentAtTheSignIn(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(enrolling)
		u := r.addUser("alice")
		code := r.addEnrolCode(u)
		r.begin(begin("alice", ssh)).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
		c := r.begin(begin("alice")).says(text.EnrolNow).asks(wire.ForEnrolCode)
		c.answer("AAAAA-AAAA-AAAA").says(text.EnrolWrong).asks(wire.ForEnrolCode)
		if n := r.attempt(u, r.machine.ID).Failures; n != 1 {
			t.Errorf("%d failures: wrong enrolment codes count", n)
		}
		c.answer(code).asks(wire.ForFirstCode).says(text.EnrolScan)
		qr := c.last.Messages[1].Text
		if lines := strings.Split(qr, "\n"); len(lines) > 24 || len(lines) < 15 || strings.Trim(qr, "█▀▄ \n") != "" {
			t.Errorf("the QR code has %d lines: %q", len(lines), qr)
		}
		phone := scanned(t, c)
		c.answer(phone.wrong()).says(text.WrongCode).asks(wire.ForFirstCode)
		r.clock.Advance(90 * time.Second) // scanning takes its time
		d := c.answer(phone.code()).says(text.EnrolDone).allowed(true)
		if len(d.Spent) != 1 || d.Spent[0].Step != r.clock.Now().Unix()/30 || !d.Offline {
			t.Errorf("Done: %+v", d)
		}
		added := r.events(event.FactorAdded)
		if len(added) != 1 || added[0].UserID != u.ID {
			t.Errorf("events: %+v", added)
		}
		if r.user("alice").PasswordGeneration != u.PasswordGeneration+1 {
			t.Error("the generation did not rise")
		}
		// The first code is spent, and so is the enrolment code.
		r.begin(begin("alice", boot("b2"))).asks(wire.ForCode).answer(phone.code()).says(text.CodeUsed)
		r.begin(begin("alice", boot("b2"))).asks(wire.ForCode).answer(phone.fresh()).allowed(true)
		bob := r.addUser("bob")
		_ = r.addEnrolCode(bob)
		r.begin(begin("bob")).asks(wire.ForEnrolCode).answer(code).says(text.EnrolWrong)
	})
}

func TestE1OneEnrolmentCodeMakesOneAuthenticator(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(enrolling)
		u := r.addUser("alice")
		code := r.addEnrolCode(u)
		a := r.begin(begin("alice")).asks(wire.ForEnrolCode).answer(code).asks(wire.ForFirstCode)
		b := r.begin(begin("alice")).asks(wire.ForEnrolCode).answer(code).asks(wire.ForFirstCode)
		phone, other := scanned(t, a), scanned(t, b)
		a.answer(phone.code()).allowed(true)
		b.answer(other.code()).denied(text.EnrolWrong, "enrol-code-spent")
		r.read(func(q *store.Queries) error {
			rows, err := q.ListAuthenticators(context.Background(), u.ID)
			if len(rows) != 1 {
				t.Errorf("%d authenticators", len(rows))
			}
			return err
		})
	})
}

func TestE1WhoHasTheFactorCanNotEnrolItAgain(t *testing.T) {
	onOne(t, func(r *rig) {
		// Two are asked for, one is there: what is there is not replaced.
		r.setPolicy(func(p *policy.Policy) { p.EnrolAtSignin, p.FactorsOnline = true, 2 })
		u := r.addUser("alice")
		r.addTOTP(u)
		r.addEnrolCode(u)
		r.begin(begin("alice")).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
		// With backup codes alone the app is enrolled, and the backup code asked for too.
		bob := r.addUser("bob")
		codes, code := r.addBackup(bob), r.addEnrolCode(bob)
		c := r.begin(begin("bob")).asks(wire.ForEnrolCode).answer(code).asks(wire.ForFirstCode)
		c.answer(scanned(t, c).code()).asks(wire.ForCode)
		if c.last.Prompt.Text != text.Step(2, 2, text.PromptBackup) {
			t.Errorf("prompt: %+v", c.last.Prompt)
		}
		c.answer(codes[0]).allowed(true)
	})
}

func TestE1ThenANewPassword(t *testing.T) {
	onOne(t, func(r *rig) {
		r.setPolicy(enrolling)
		u := r.addUser("alice", mustChange, func(p *db.InsertUserParams) { p.Activation = facts.ActivationFirstLogin })
		code := r.addEnrolCode(u)
		c := r.begin(begin("alice")).asks(wire.ForEnrolCode).answer(code).asks(wire.ForFirstCode)
		c.answer(scanned(t, c).code()).asks(wire.ForNewPassword)
		c.answer(newPassword).asks(wire.ForNewPassword2)
		d := c.answer(newPassword).allowed(true)
		if now := r.user("alice"); !d.PasswordChanged || now.ActivatedAt == 0 || now.MustChange {
			t.Errorf("Done %+v, user %+v", d, now)
		}
	})
}

func TestM1AnAuthenticatorThatWaitsForItsFirstCode(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		r.update(func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.DeleteAuthenticator(ctx, phone.id); err != nil {
				return err
			}
			var err error
			phone.id, err = r.factors.AddTOTP(ctx, tx, u.ID, totpWaiting(phone), r.clock.Now())
			return err
		})
		gen := r.user("alice").PasswordGeneration
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(phone.wrong()).asks(wire.ForCode)
		c.answer(phone.code()).allowed(true)
		r.read(func(q *store.Queries) error {
			a, err := q.GetAuthenticator(context.Background(), phone.id)
			if a.ConfirmedAt == 0 || a.Step != r.clock.Now().Unix()/30 {
				t.Errorf("after its first code: %+v", a)
			}
			return err
		})
		if r.user("alice").PasswordGeneration != gen+1 {
			t.Error("the generation did not rise")
		}
		r.begin(begin("alice", boot("b2"))).asks(wire.ForCode).answer(phone.code()).says(text.CodeUsed)
		r.begin(begin("alice", boot("b2"))).asks(wire.ForCode).answer(phone.fresh()).allowed(true)
	})
}

func TestM1APhoneWhoseClockIsOffIsLearnt(t *testing.T) {
	onOne(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		at := func(off int64) string {
			return otp.DefaultParams.Code(phone.seed, otp.DefaultParams.Step(r.clock.Now())+off)
		}
		try := func(off int64, ok bool) {
			t.Helper()
			r.clock.Advance(10 * time.Minute)
			c := r.begin(begin("alice", ssh)).asks(wire.ForCode).answer(at(off))
			if ok {
				c.allowed(true)
			} else {
				c.says(text.WrongCode).asks(wire.ForCode)
			}
		}
		try(2, false)
		try(1, true)
		try(2, true)
		try(3, true) // its drift is taken for 2 at most
		try(4, false)
		try(0, false)
		try(1, true)
	})
}
