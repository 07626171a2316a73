package factor_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup"
	_ "latchkey/internal/server/factor/bypass"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var now = time.Date(2026, 11, 21, 9, 0, 7, 0, time.UTC)

func newSet(t testing.TB) *factor.Set {
	t.Helper()
	box, err := seal.NewBox(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return factor.All(&factor.Keeper{Box: box, Pepper: seal.NewKey(), Random: rand.Reader})
}

func update(t testing.TB, s *store.Store, fn func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func addUser(t testing.TB, s *store.Store, name string) (u db.User) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		if err = tx.InsertUser(ctx, db.InsertUserParams{ID: store.NewID(), Name: name, NameFold: name, Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1}); err != nil {
			return err
		}
		u, err = tx.GetUserByName(ctx, name)
		return err
	})
	return u
}

// Two replicas judge one code in transactions that overlap: the second reads before
// the first has committed, and must not win all the same.
func TestOneCodeInTwoTransactionsThatOverlap(t *testing.T) {
	set := newSet(t)
	database := storetest.PostgreSQL(t)
	c := clock.NewManual(now)
	a := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "a"})
	b := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "b"})
	u := addUser(t, a, "alice")
	var codes [3]string
	kinds := []policy.Factor{policy.TOTP, policy.Backup, policy.Bypass}
	update(t, a, func(ctx context.Context, tx *store.Tx) error {
		seed, err := set.NewSeed(otp.DefaultParams)
		if err != nil {
			return err
		}
		codes[0] = otp.DefaultParams.Code(seed, otp.DefaultParams.Step(now))
		if _, err = set.AddTOTP(ctx, tx, u.ID, factor.TOTP{Params: otp.DefaultParams, Seed: seed}, now); err != nil {
			return err
		}
		backup, err := set.IssueBackup(ctx, tx, u.ID, now)
		if err != nil {
			return err
		}
		codes[1] = backup[0]
		_, codes[2], err = set.IssueBypass(ctx, tx, factor.BypassCode{UserID: u.ID, Reason: "r", Expires: now.Add(time.Hour), By: "x"}, now)
		return err
	})
	for i, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			plug, _ := set.Get(kind)
			judge := func(ctx context.Context, tx *store.Tx) (factor.Verdict, error) {
				return plug.Judge(ctx, tx, factor.Try{User: u, Machine: "m", Scope: policy.Logon, Typed: secret.FromString(codes[i]), Now: now})
			}
			begun, judged := make(chan struct{}), make(chan struct{})
			var second factor.Verdict
			var err error
			go func() {
				defer close(judged)
				<-begun
				err = b.Update(t.Context(), func(ctx context.Context, tx *store.Tx) (e error) {
					second, e = judge(ctx, tx)
					return e
				})
			}()
			update(t, a, func(ctx context.Context, tx *store.Tx) error {
				v, err := judge(ctx, tx)
				if err != nil {
					return err
				}
				if !v.OK() {
					return errors.New("the first was rejected: " + v.Reason)
				}
				close(begun)
				time.Sleep(150 * time.Millisecond) // the second reads, and waits for this row
				return nil
			})
			<-judged
			if err != nil {
				t.Fatal(err)
			}
			if second.OK() {
				t.Error("accepted twice")
			}
		})
	}
}

func TestCodesAreBoundToUserAndPurpose(t *testing.T) {
	set := newSet(t)
	code, _ := otp.NewBackup(rand.Reader)
	seen := map[string]string{}
	for _, p := range []factor.Purpose{factor.ForBackup, factor.ForBypass, factor.ForEnrol} {
		for _, u := range []string{"u1", "u2", "u"} {
			h := set.Hash(p, u, code)
			if who, twice := seen[string(h)]; twice || len(h) != 32 {
				t.Errorf("%s %s has the hash of %s", p, u, who)
			}
			seen[string(h)] = fmt.Sprint(p, u)
		}
	}
	if bytes.Equal(newSet(t).Hash(factor.ForBackup, "u1", code), set.Hash(factor.ForBackup, "u1", code)) {
		t.Error("the pepper does not matter")
	}
}

func TestWhatIsStoredOfSeedsAndCodes(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		set := newSet(t)
		u := addUser(t, s, "alice")
		seed, err := set.NewSeed(otp.DefaultParams)
		if err != nil {
			t.Fatal(err)
		}
		var id string
		var codes []string
		update(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
			if id, err = set.AddTOTP(ctx, tx, u.ID, factor.TOTP{Name: "my\x00 phone\x1b", Params: otp.DefaultParams, Seed: seed}, now); err != nil {
				return err
			}
			codes, err = set.IssueBackup(ctx, tx, u.ID, now)
			return err
		})
		err = s.Read(t.Context(), func(q *store.Queries) error {
			a, err := q.GetAuthenticator(t.Context(), id)
			if err != nil {
				return err
			}
			if bytes.Contains(a.Secret, seed.Reveal()) || a.Name != "my phone" || a.ConfirmedAt == 0 {
				t.Errorf("the row is %+v", a)
			}
			p, got, err := set.OpenTOTP(a)
			if err != nil || !got.Equal(seed) || p != otp.DefaultParams {
				t.Errorf("opened: %v", err)
			}
			// A seed moved to another row is not that row's.
			a.ID = "other"
			if _, _, err := set.OpenTOTP(a); !errors.Is(err, seal.ErrOpen) {
				t.Errorf("a seed of another row was opened: %v", err)
			}
			rows, err := q.ListBackupCodes(t.Context(), u.ID)
			if err != nil || len(rows) != 10 {
				t.Fatal(len(rows), err)
			}
			for _, r := range rows {
				code, err := set.OpenBackup(r)
				if err != nil || bytes.Contains(r.Sealed, code.Reveal()) || !bytes.Equal(set.Hash(factor.ForBackup, u.ID, code), r.Hash) ||
					!strings.Contains(strings.Join(codes, " "), otp.FormatBackup(code)) {
					t.Errorf("code %s: %v", r.ID, err)
				}
			}
			now, err := q.GetUser(t.Context(), u.ID)
			if now.PasswordGeneration != u.PasswordGeneration+2 {
				t.Errorf("the generation is %d", now.PasswordGeneration)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestACodeMustExpireInTheFuture(t *testing.T) {
	set := newSet(t)
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	u := addUser(t, s, "alice")
	err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		if _, _, err := set.IssueBypass(ctx, tx, factor.BypassCode{UserID: u.ID, Expires: now}, now); err == nil {
			t.Error("a bypass code that has expired")
		}
		if _, _, err := set.IssueEnrol(ctx, tx, factor.EnrolCode{UserID: u.ID, Expires: now}, now); err == nil {
			t.Error("an enrolment code that has expired")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The QR code is what rsc.io/qr computes, module by module, with a light border.
func TestQR(t *testing.T) {
	s, err := factor.QR("otpauth://totp/Latchkey:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(s, "\n")
	width := len([]rune(lines[0]))
	for i, l := range lines {
		if n := len([]rune(l)); n != width {
			t.Errorf("line %d has %d characters, the first %d", i, n, width)
		}
	}
	if first := strings.Trim(lines[0], "█"); first != "" {
		t.Errorf("the border is %q", lines[0])
	}
	// The finder pattern at the top left: seven dark modules between light ones.
	if !strings.HasPrefix(lines[1], "██ ▄▄▄▄▄ █") {
		t.Errorf("no finder pattern in %q", lines[1])
	}
	if _, err := factor.QR(strings.Repeat("x", 5000)); err == nil {
		t.Error("a text that no QR code holds")
	}
}

// The picture is drawn of the same modules that the encoder gives: every module of
// the path is black there, and as many are.
func TestSVGDrawsTheCode(t *testing.T) {
	const uri = "otpauth://totp/Latchkey:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	s, err := factor.SVG(uri, `QR "code" <b>`)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s, "<b>") || strings.Contains(s, "style=") || !strings.Contains(s, `aria-label="QR &#34;code&#34; &lt;b&gt;"`) {
		t.Error("the label is not escaped, or there is a style:", s[:200])
	}
	code, err := qr.Encode(uri, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	drawn := 0
	for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(s, -1) {
		x, _ := strconv.Atoi(m[1])
		y, _ := strconv.Atoi(m[2])
		n, _ := strconv.Atoi(m[3])
		if m[3] != m[4] {
			t.Error("an open path:", m[0])
		}
		for i := range n {
			if !code.Black(x-4+i, y-4) {
				t.Fatalf("%d %d is drawn and light", x+i, y)
			}
		}
		drawn += n
	}
	want := 0
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				want++
			}
		}
	}
	if drawn != want || want == 0 {
		t.Errorf("%d modules are drawn, want %d", drawn, want)
	}
	if _, err := factor.SVG(strings.Repeat("x", 5000), ""); err == nil {
		t.Error("what does not fit is drawn")
	}
}
