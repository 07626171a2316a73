package agentapi_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/wire"
)

// held is what a machine of the software class holds for a person.
type held struct {
	wire.PrepareReply
	key          secret.Bytes
	conversation string
	bundle       wire.Bundle
}

func (m *machine) prepare(u *person, alter func(*wire.Prepare)) (wire.PrepareReply, string) {
	m.r.Helper()
	in := wire.Prepare{Conversation: u.signedIn(m, nil), Class: "software", HavePassword: true}
	if alter != nil {
		alter(&in)
	}
	var p wire.PrepareReply
	m.must("POST", wire.PathPrepare, in, &p)
	return p, in.Conversation
}

// enrolSoftware walks the whole way.
func (m *machine) enrolSoftware(u *person) held {
	m.r.Helper()
	p, conv := m.prepare(u, nil)
	if p.Action != wire.ActionGeneration || p.UserID != u.id || p.Key.Len() != 32 || p.Wrapped != nil || p.Generation == 0 {
		m.r.Fatalf("%+v", p)
	}
	h := held{PrepareReply: p, key: p.Key.Bytes, conversation: conv}
	h.bundle = m.bundle(h, nil)
	m.must("POST", wire.PathReady, wire.Ready{Conversation: conv, UserID: u.id, Generation: p.Generation}, nil)
	return h
}

func (m *machine) bundle(h held, have map[string]int64) wire.Bundle {
	m.r.Helper()
	var b wire.BundleReply
	m.must("POST", wire.PathBundle, wire.BundleRequest{UserID: h.UserID, Generation: h.Generation, Have: have}, &b)
	payload, err := seal.Verify(m.grant, seal.Bundle, m.id, b.Bundle)
	if err != nil {
		m.r.Fatal(err)
	}
	out, err := wire.DecodeBundle(payload)
	if err != nil {
		m.r.Fatal(err)
	}
	if out.UserID != h.UserID || out.MachineID != m.id || out.Generation != h.Generation {
		m.r.Errorf("the bundle is %+v", out)
	}
	return out
}

// opens tells whether the code is right for the bundle while the clock shows step.
func (h held) opens(code string, step int64) (at int64, ok bool) {
	for _, a := range h.bundle.Authenticators {
		tags, in := a.At(step)
		if !in {
			continue
		}
		got := wire.CodeTag(h.key, a.Period, step, code)
		for i, o := range wire.Offsets {
			if tags[i] == got {
				return step + o, true
			}
		}
	}
	return 0, false
}

// Every code of a chain, and every period that authenticators of its length have, is a
// counted use of the machine's key: the limit is for the sign-ins and tries that the
// policy promises (O6, O8).
func TestTheLimitOfUsesHoldsThePromisedSignins(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		alice := r.person("alice")
		limits := func() (fail, use uint32) {
			h := r.joined().enrolSoftware(alice)
			return h.FailLimit, h.UseLimit
		}
		if fail, use := limits(); fail != 10 || use != 60 {
			t.Errorf("one factor: %d, %d", fail, use)
		}
		add := func(digits, period int) {
			r.change(func(tx *store.Tx) error {
				p := otp.Params{Algorithm: otp.SHA1, Digits: digits, Period: period}
				seed, err := r.keeper.NewSeed(p)
				if err != nil {
					return err
				}
				_, err = r.keeper.AddTOTP(t.Context(), tx, alice.id, factor.TOTP{Params: p, Seed: seed}, r.clock.Now())
				return err
			})
		}
		add(6, 30)
		add(8, 60)
		if _, use := limits(); use != 60 {
			t.Errorf("an app of the same period, and one of another length: %d", use)
		}
		add(6, 60)
		if _, use := limits(); use != 120 {
			t.Errorf("an app of another period: %d", use)
		}
		r.change(func(tx *store.Tx) error {
			_, err := r.keeper.IssueBackup(t.Context(), tx, alice.id, r.clock.Now())
			return err
		})
		r.setPolicy(func(p *policy.Policy) { p.FactorsOffline = 2 })
		if fail, use := limits(); fail != 10 || use != 240 {
			t.Errorf("a chain of two, and two periods: %d, %d", fail, use)
		}
	})
}

func TestOfflineDataCanCheckCodesOfItsDaysAndNoOthers(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		var codes []string
		r.change(func(tx *store.Tx) (err error) {
			codes, err = r.keeper.IssueBackup(t.Context(), tx, alice.id, r.clock.Now())
			return err
		})
		h := m.enrolSoftware(alice)
		now := r.clock.Now()
		if got := clock.FromMicros(h.Until).Sub(now); got < 7*24*time.Hour-time.Minute || got > 7*24*time.Hour {
			t.Errorf("it lasts %v", got)
		}
		if h.FailLimit != 10 || h.UseLimit != 60 {
			t.Errorf("limits %d, %d", h.FailLimit, h.UseLimit)
		}
		p := otp.DefaultParams
		step := p.Step(now)
		for _, at := range []int64{step - 5, step, step + 1000, p.Step(now.Add(7*24*time.Hour)) - 1} {
			for _, o := range []int64{-1, 0, 1} {
				if got, ok := h.opens(p.Code(alice.seed, at+o), at); !ok || got != at+o {
					t.Errorf("step %d+%d: %d, %v", at, o, got, ok)
				}
			}
			for _, o := range []int64{-2, 2, 7} {
				if _, ok := h.opens(p.Code(alice.seed, at+o), at); ok {
					t.Errorf("step %d accepts the code of %+d", at, o)
				}
			}
		}
		if _, ok := h.opens(p.Code(alice.seed, step-7), step-7); ok {
			t.Error("the bundle begins too early")
		}
		late := p.Step(now.Add(7*24*time.Hour + time.Minute))
		if _, ok := h.opens(p.Code(alice.seed, late), late); ok {
			t.Error("the bundle ends too late")
		}
		if len(h.bundle.Backup) != otp.BackupCount {
			t.Errorf("%d backup tags", len(h.bundle.Backup))
		}
		code, _ := otp.ParseBackup(codes[3])
		tag := wire.BackupTag(h.key, code)
		if n := countTags(h.bundle, tag); n != 1 {
			t.Errorf("a backup code has %d tags", n)
		}

		// Only what is missing travels.
		have := map[string]int64{alice.auth: h.bundle.Authenticators[0].Last()}
		if got := m.bundle(h, have); got.Authenticators[0].Count != 0 {
			t.Errorf("%d steps once more", got.Authenticators[0].Count)
		}
		have[alice.auth] -= 10
		if got := m.bundle(h, have); got.Authenticators[0].Count != 10 {
			t.Errorf("%d steps, want 10", got.Authenticators[0].Count)
		}
		have[alice.auth] = 1 << 50
		if got := m.bundle(h, have); got.Authenticators[0].Count > 7*2880+10 {
			t.Errorf("%d steps", got.Authenticators[0].Count)
		}
		f := m.policy(0)
		if len(f.Vaults) != 1 || f.Vaults[0].Generation != h.Generation || f.Vaults[0].Until != h.Until || f.Serial < h.Serial {
			t.Errorf("%+v", f.Vaults)
		}
		if got := r.reasons(event.VaultEnrolled); got != "offline.enrolled/" {
			t.Error(got)
		}
		// The key is not in the database in clear.
		r.read(func(q *store.Queries) error {
			v, err := q.GetVault(t.Context(), db.GetVaultParams{UserID: alice.id, MachineID: m.id, Generation: int64(h.Generation)})
			if strings.Contains(string(v.Key), string(h.key.Reveal())) {
				t.Error("the verifier key lies in clear")
			}
			return err
		})
	})
}

func countTags(b wire.Bundle, tag [wire.BackupTagSize]byte) (n int) {
	for _, c := range b.Backup {
		if string(c.Tag) == string(tag[:]) {
			n++
		}
	}
	return n
}

func TestOfflineDataIsExtendedOrMadeAnew(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		h := m.enrolSoftware(alice)
		keep := func(in *wire.Prepare) { in.HaveGeneration = h.Generation }

		// Within a day the generation stays and the days begin anew.
		r.clock.off = 20 * time.Hour
		p, conv := m.prepare(alice, keep)
		if p.Action != wire.ActionExtend || p.Generation != h.Generation || p.Until-h.Until < (19*time.Hour).Microseconds() || p.Serial <= h.Serial {
			t.Errorf("%+v", p)
		}
		for _, kind := range []string{"password", "use"} {
			in := wire.PermitRequest{Conversation: conv, UserID: alice.id, Generation: h.Generation, Kind: kind, Written: true, Nonce: make([]byte, 32)}
			m.must("POST", wire.PathPermit, in, nil)
			m.fails("POST", wire.PathPermit, in, "conflict")
		}
		m.must("POST", wire.PathReady, wire.Ready{Conversation: conv, UserID: alice.id, Generation: h.Generation}, nil)
		last := h.bundle.Authenticators[0].Last()
		if got := m.bundle(h, map[string]int64{alice.auth: last}).Authenticators[0]; got.First != last+1 || got.Count < 2*60*19 || got.Count > 2*60*21 {
			t.Errorf("the added days are %d steps from %d", got.Count, got.First-last)
		}

		// A machine that does not hold it, or holds another, gets a new one.
		if p, _ := m.prepare(alice, nil); p.Action != wire.ActionGeneration || p.Generation != h.Generation+1 {
			t.Errorf("%+v", p)
		}
		if p, _ := m.prepare(alice, func(in *wire.Prepare) { in.HaveGeneration = 99 }); p.Action != wire.ActionGeneration || p.Generation != h.Generation+2 {
			t.Errorf("%+v", p)
		}
		// A day later too; after a key login, which brings no password, it stays.
		r.clock.off = 30 * time.Hour
		if p, _ := m.prepare(alice, func(in *wire.Prepare) { keep(in); in.HavePassword = false }); p.Action != wire.ActionExtend {
			t.Errorf("%+v", p)
		}
		if p, _ := m.prepare(alice, keep); p.Action != wire.ActionGeneration {
			t.Errorf("%+v", p)
		}
		h = m.enrolSoftware(alice)
		if p, _ := m.prepare(alice, keep); p.Action != wire.ActionExtend {
			t.Errorf("%+v", p)
		}
		f := m.policy(0)
		if len(f.Vaults) != 1 || f.Vaults[0].Generation != h.Generation {
			t.Errorf("older generations are listed: %+v", f.Vaults)
		}

		// A new password, a new authenticator, another policy for offline factors.
		for name, change := range map[string]func(tx *store.Tx) error{
			"password": func(tx *store.Tx) error {
				_, err := tx.SetUserPassword(t.Context(), db.SetUserPasswordParams{ID: alice.id, PasswordHash: "x", At: 1})
				return err
			},
			"authenticator": func(tx *store.Tx) error {
				_, err := r.keeper.IssueBackup(t.Context(), tx, alice.id, r.clock.Now())
				return err
			},
		} {
			h = m.enrolSoftware(alice)
			r.change(change)
			if p, _ := m.prepare(alice, keep); p.Action != wire.ActionGeneration {
				t.Errorf("after a change of %s: %+v", name, p)
			}
			m.fails("POST", wire.PathBundle, wire.BundleRequest{UserID: alice.id, Generation: h.Generation}, "forbidden")
		}
		h = m.enrolSoftware(alice)
		r.setPolicy(func(p *policy.Policy) { p.OfflineFactors = []policy.Factor{policy.TOTP} })
		if p, _ := m.prepare(alice, keep); p.Action != wire.ActionGeneration {
			t.Errorf("after a change of factors: %+v", p)
		}
	})
}

func TestALongerPolicyProlongsNothingAndAShorterOneShortens(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	alice := r.person("alice")
	h := m.enrolSoftware(alice)
	r.setPolicy(func(p *policy.Policy) { p.OfflineDays = 30 })
	if f := m.policy(0); f.Vaults[0].Until != h.Until {
		t.Errorf("until moved by %v", time.Duration(f.Vaults[0].Until-h.Until)*time.Microsecond)
	}
	if b := m.bundle(h, nil); b.Until != h.Until || b.Authenticators[0].Last() != h.bundle.Authenticators[0].Last() {
		t.Error("the bundle became longer")
	}
	r.setPolicy(func(p *policy.Policy) { p.OfflineDays = 2 })
	if f := m.policy(0); h.Until-f.Vaults[0].Until != (5 * 24 * time.Hour).Microseconds() {
		t.Errorf("until %v", clock.FromMicros(f.Vaults[0].Until))
	}
	if b := m.bundle(h, nil); b.Authenticators[0].Count > 2*2880+10 {
		t.Errorf("%d steps for two days", b.Authenticators[0].Count)
	}
	r.clock.off = 10 * 24 * time.Hour
	if b := m.bundle(h, nil); b.Authenticators[0].Count != 0 {
		t.Errorf("%d steps after the end", b.Authenticators[0].Count)
	}
}

func TestWhoMayNotHaveOfflineData(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, other := r.joined(), r.joined()
		alice := r.person("alice")
		refusedFor := func(name string, alter func(*db.InsertConversationParams)) {
			t.Helper()
			conv := alice.signedIn(m, alter)
			if p := m.fails("POST", wire.PathPrepare, wire.Prepare{Conversation: conv, Class: "software", HavePassword: true}, "forbidden"); !strings.Contains(p.Detail, "full sign-in") {
				t.Errorf("%s: %+v", name, p)
			}
		}
		refusedFor("no MFA", func(c *db.InsertConversationParams) { c.MFAAt = 0 })
		refusedFor("six minutes ago", func(c *db.InsertConversationParams) { c.MFAAt -= (6 * time.Minute).Microseconds() })
		refusedFor("in the future", func(c *db.InsertConversationParams) { c.MFAAt += time.Hour.Microseconds() })
		refusedFor("denied", func(c *db.InsertConversationParams) { c.Outcome = "deny" })
		refusedFor("still under way", func(c *db.InsertConversationParams) { c.Outcome = "" })
		refusedFor("an unlock, or not now", func(c *db.InsertConversationParams) { c.Stage = facts.StageAllowed })
		refusedFor("nobody", func(c *db.InsertConversationParams) { c.UserID = "" })
		refusedFor("on another machine", func(c *db.InsertConversationParams) { c.MachineID = other.id })
		for _, conv := range []string{"", store.NewID(), strings.Repeat("x", 1000)} {
			m.fails("POST", wire.PathPrepare, wire.Prepare{Conversation: conv, Class: "software", HavePassword: true}, "forbidden")
		}
		m.fails("POST", wire.PathPrepare, wire.Prepare{Conversation: alice.signedIn(m, nil), Class: "paper"}, "invalid")
		m.fails("POST", wire.PathPrepare, wire.Prepare{Conversation: alice.signedIn(m, nil), Class: "tpm", Parent: []byte("x")}, "invalid")

		refused := func(reason string, alter func(*wire.Prepare)) {
			t.Helper()
			if p, _ := m.prepare(alice, alter); p.Action != wire.ActionRefused || p.Reason != reason || !p.Key.Empty() || p.Generation != 0 {
				t.Errorf("%+v, want %s", p, reason)
			}
		}
		refused(offline.ReasonPassword, func(in *wire.Prepare) { in.HavePassword = false })
		r.setPolicy(func(p *policy.Policy) { p.SoftwareVault = false })
		refused(string(policy.ReasonVaultSoftware), nil)
		r.setPolicy(func(p *policy.Policy) { p.OfflineFactors = []policy.Factor{policy.Backup} })
		refused(string(policy.ReasonVaultFactor), nil)
		for name, alter := range map[string]func(*policy.Policy){
			"denied offline": func(p *policy.Policy) { p.Offline = policy.OfflineDeny },
			"bypass offline": func(p *policy.Policy) { p.Offline = policy.OfflineBypass },
			"no enrolment":   func(p *policy.Policy) { p.OfflineEnrol = policy.EnrolOff },
		} {
			r.setPolicy(alter)
			if p, _ := m.prepare(alice, nil); p.Action != wire.ActionNone || !p.Key.Empty() {
				t.Errorf("%s: %+v", name, p)
			}
		}
		r.setPolicy(func(*policy.Policy) {})
		conv := alice.signedIn(m, nil)
		r.change(func(tx *store.Tx) error {
			u, err := tx.GetUser(t.Context(), alice.id)
			if err != nil {
				return err
			}
			_, err = tx.UpdateUser(t.Context(), db.UpdateUserParams{ID: u.ID, Role: u.Role, Activation: u.Activation, MFA: u.MFA, Disabled: true, Rev: u.Rev})
			return err
		})
		m.fails("POST", wire.PathPrepare, wire.Prepare{Conversation: conv, Class: "software", HavePassword: true}, "forbidden")
		r.api.Stop() // which waits for events
		refusals := 0
		for _, e := range r.events(event.VaultRefused) {
			if e.Reason == "no-sign-in-entitles" && e.MachineID == m.id {
				refusals++
			}
		}
		if refusals != 1 {
			t.Errorf("%d events of what the machine may not have: one a minute", refusals)
		}
		r.read(func(q *store.Queries) error {
			vs, err := q.ListVaultsOfUser(t.Context(), alice.id)
			if len(vs) != 0 {
				t.Errorf("%d vaults were made", len(vs))
			}
			return err
		})
	})
}

func TestAPersonWhoIsNotAssignedAnyMoreKeepsNoOfflineData(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	alice := r.person("alice")
	h := m.enrolSoftware(alice)
	r.change(func(tx *store.Tx) error {
		row, err := tx.GetMachine(t.Context(), m.id)
		if err != nil {
			return err
		}
		_, err = tx.UpdateMachine(t.Context(), db.UpdateMachineParams{ID: m.id, Name: row.Name, Mode: row.Mode, UnknownUsers: row.UnknownUsers, AllUsers: false, Rev: row.Rev})
		return err
	})
	if f := m.policy(0); len(f.Vaults) != 0 || !f.Machine.OnlyAssigned {
		t.Errorf("%+v", f)
	}
	m.fails("POST", wire.PathBundle, wire.BundleRequest{UserID: alice.id, Generation: h.Generation}, "forbidden")
}

func TestDisenrolmentReachesTheMachineAtOnceAndTheKeyGoes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		h := m.enrolSoftware(alice)
		answered := m.poll(m.policy(0).Serial)
		r.change(func(tx *store.Tx) error {
			if _, err := tx.WantDisenrol(t.Context(), db.WantDisenrolParams{UserID: alice.id, At: 1}); err != nil {
				return err
			}
			return touch.User(t.Context(), tx, alice.id)
		})
		c := <-answered
		if f := m.open(c.Changes); len(f.Vaults) != 0 || c.took > 15*time.Second {
			t.Errorf("%+v after %v", f.Vaults, c.took)
		}
		m.fails("POST", wire.PathBundle, wire.BundleRequest{UserID: alice.id, Generation: h.Generation}, "forbidden")
		for range 2 {
			m.must("POST", wire.PathWiped, wire.Wiped{UserID: alice.id, Generation: h.Generation, Reason: "Disenrolled by policy"}, nil)
		}
		if got := r.reasons(event.VaultWiped); got != "offline.wiped/disenrolled-by-policy" {
			t.Error(got)
		}
		r.read(func(q *store.Queries) error {
			v, err := q.GetVault(t.Context(), db.GetVaultParams{UserID: alice.id, MachineID: m.id, Generation: int64(h.Generation)})
			if len(v.Key) != 0 || v.State != offline.Wiped {
				t.Errorf("%s with a key of %d octets", v.State, len(v.Key))
			}
			return err
		})
	})
}

func TestWhatAnotherMachineHoldsIsOutOfReach(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m, other := r.joined(), r.joined()
	alice := r.person("alice")
	h := m.enrolSoftware(alice)
	conv := alice.signedIn(m, nil)
	other.fails("POST", wire.PathBundle, wire.BundleRequest{UserID: alice.id, Generation: h.Generation}, "not-found")
	other.fails("POST", wire.PathReady, wire.Ready{Conversation: h.conversation, UserID: alice.id, Generation: h.Generation}, "not-found")
	for _, written := range []bool{true, false} {
		other.fails("POST", wire.PathPermit, wire.PermitRequest{Conversation: conv, UserID: alice.id, Generation: h.Generation, Kind: "use", Written: written, Nonce: make([]byte, 32)}, "forbidden")
	}
	other.fails("POST", wire.PathPrepare, wire.Prepare{Conversation: conv, Class: "software", HavePassword: true}, "forbidden")
	other.must("POST", wire.PathWiped, wire.Wiped{UserID: alice.id, Generation: h.Generation}, nil)
	if f := m.policy(0); len(f.Vaults) != 1 {
		t.Error("another machine's word wiped it")
	}
}

func TestAdministratorsLiftIsGivenOnce(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		h := m.enrolSoftware(alice)
		lift := func(kind string) wire.PermitRequest {
			return wire.PermitRequest{UserID: alice.id, Generation: h.Generation, Kind: kind, Written: true, Nonce: make([]byte, 32)}
		}
		m.fails("POST", wire.PathPermit, lift("use"), "forbidden")
		if m.policy(0).Vaults[0].Lift {
			t.Error("the policy wants a lift")
		}
		for range 2 { // a second wish is a second lift
			answered := m.poll(m.policy(0).Serial)
			r.change(func(tx *store.Tx) error {
				if _, err := tx.WantLift(t.Context(), db.WantLiftParams{UserID: alice.id, MachineID: m.id, Generation: int64(h.Generation), Wanted: true, At: 1}); err != nil {
					return err
				}
				return touch.Machine(t.Context(), tx, m.id)
			})
			if f := m.open((<-answered).Changes); !f.Vaults[0].Lift {
				t.Error("the policy does not tell of the lift")
			}
			m.must("POST", wire.PathPermit, lift("password"), nil)
			m.fails("POST", wire.PathPermit, lift("password"), "conflict")
			m.must("POST", wire.PathPermit, lift("use"), nil)
			m.fails("POST", wire.PathPermit, lift("use"), "forbidden")
			if m.policy(0).Vaults[0].Lift {
				t.Error("the lift is still wanted")
			}
		}
		if got := strings.Count(r.reasons(event.VaultLifted), "administrator"); got != 4 {
			t.Errorf("%d events", got)
		}
	})
}

func TestALiftOfAnEarlierMFAIsNotGivenAfterALaterOne(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	alice := r.person("alice")
	h := m.enrolSoftware(alice)
	first := alice.signedIn(m, nil)
	second := alice.signedIn(m, nil)
	for i, conv := range []string{first, second, first, second} {
		in := wire.PermitRequest{Conversation: conv, UserID: alice.id, Generation: h.Generation, Kind: "use", Written: true, Nonce: make([]byte, 32)}
		if i < 2 {
			m.must("POST", wire.PathPermit, in, nil)
		} else {
			m.fails("POST", wire.PathPermit, in, "conflict")
		}
	}
}

func TestLiftsAtOnceAreOneLift(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		h := m.enrolSoftware(alice)
		conv := alice.signedIn(m, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		given := 0
		for range 8 {
			wg.Go(func() {
				status, _, err := m.call("POST", wire.PathPermit, wire.PermitRequest{
					Conversation: conv, UserID: alice.id, Generation: h.Generation, Kind: "use", Written: true, Nonce: make([]byte, 32),
				}, nil)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if status == 200 {
					given++
				}
			})
		}
		wg.Wait()
		if given != 1 {
			t.Errorf("%d lifts were given", given)
		}
	})
}

// chain writes a machine's journal.
type chain struct {
	m    *machine
	seq  uint64
	hash event.Hash
	list []wire.JournalEntry
}

func (c *chain) add(e event.Event, spent *wire.Spent) {
	if e.ID == "" {
		e.ID = store.NewID()
	}
	if e.At == 0 {
		e.At = clock.Micros(c.m.r.clock.Now())
	}
	e.MachineID = c.m.id
	if spent != nil && spent.Proof == nil && spent.Key == "" {
		spent.Proof = c.m.typed(*spent)
	}
	c.seq++
	entry := wire.JournalEntry{Seq: c.seq, Counter: c.seq + 100, Event: e, Spent: spent}
	c.hash = wire.EntryHash(c.m.id, c.hash, entry)
	entry.Hash = append([]byte(nil), c.hash[:]...)
	c.list = append(c.list, entry)
}

// typed is the proof that a machine has on which the code was typed.
func (m *machine) typed(s wire.Spent) (proof []byte) {
	m.r.Helper()
	proof = make([]byte, wire.ProofSize) // of what does not exist any more
	m.r.read(func(q *store.Queries) error {
		if s.Authenticator != "" {
			a, err := q.GetAuthenticator(m.r.Context(), s.Authenticator)
			if err != nil {
				return err
			}
			p, seed, err := m.r.keeper.OpenTOTP(a)
			proof = wire.SpentProof(m.id, s, []byte(p.Code(seed, s.Step)))
			return err
		}
		c, err := q.GetBackupCode(m.r.Context(), s.Backup)
		if err != nil || len(c.Sealed) == 0 {
			return err
		}
		code, err := m.r.keeper.OpenBackup(c)
		proof = wire.SpentProof(m.id, s, code.Reveal())
		return err
	})
	return proof
}

func (c *chain) deliver(from, to int) wire.JournalReply {
	c.m.r.Helper()
	var reply wire.JournalReply
	c.m.must("POST", wire.PathJournal, wire.Journal{Entries: c.list[from:to]}, &reply)
	return reply
}

func TestAJournalIsTakenOverOnceAndInOrder(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		m.enrolSoftware(alice)
		c := &chain{m: m}
		p := otp.DefaultParams
		step := p.Step(r.clock.Now())
		at := clock.Micros(r.clock.Now().Add(-time.Hour))
		for i := range 5 {
			c.add(event.Event{
				Type: event.SigninAllowed, Subject: "alice", UserID: alice.id, Scope: "logon", Service: "login", Link: "down", Outcome: "allow",
				Reason: "offline-mfa-required", At: at + int64(i), Data: []byte(`{"trace":[]}`),
			}, &wire.Spent{Authenticator: alice.auth, Step: step - 100 + int64(i)})
		}
		c.add(event.Event{Type: event.SigninDenied, Subject: "mallory\x1b[31m", Link: "down", Outcome: "deny", Reason: "user-unknown"}, nil)
		if got := c.deliver(0, 3); got.Seq != 3 || string(got.Hash) != string(c.list[2].Hash) {
			t.Errorf("%+v", got)
		}
		var wg sync.WaitGroup
		for range 4 { // and again, at once
			wg.Go(func() {
				for _, to := range []int{2, 6} {
					status, p, err := m.call("POST", wire.PathJournal, wire.Journal{Entries: c.list[:to]}, nil)
					if err != nil || status != 200 && p.Code != "conflict" {
						t.Error(status, p, err)
					}
				}
			})
		}
		wg.Wait()
		if got := c.deliver(5, 6); got.Seq != 6 || string(got.Hash) != string(c.list[5].Hash) {
			t.Errorf("%+v", got)
		}
		var hello wire.HelloReply
		m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, &hello)
		if hello.JournalSeq != 6 || string(hello.JournalHash) != string(c.list[5].Hash) {
			t.Errorf("%+v", hello)
		}
		got := r.events(event.SigninAllowed, event.SigninDenied)
		if len(got) != 6 {
			t.Fatalf("%d events, want 6", len(got))
		}
		for i, e := range got[:5] {
			if e.ID != c.list[i].Event.ID || e.Link != "down" || e.At != at+int64(i) || e.ReceivedAt <= e.At || e.MachineID != m.id || e.Machine != m.name || e.Subject != "alice" || !strings.Contains(string(e.Data), `"trace":[]`) || !strings.Contains(string(e.Data), `"spent":{"authenticator":"`) {
				t.Errorf("%+v", e)
			}
		}
		if got[5].Subject != "mallory[31m" || got[5].UserID != "" {
			t.Errorf("%+v", got[5])
		}
		if got := r.reasons(event.JournalGap, event.JournalForged, event.CodeCollision); got != "" {
			t.Error(got)
		}
		r.read(func(q *store.Queries) error {
			a, err := q.GetAuthenticator(t.Context(), alice.auth)
			if a.Step != step-96 {
				t.Errorf("step %d was spent, want %d", a.Step, step-96)
			}
			v, err2 := q.GetActiveVault(t.Context(), db.GetActiveVaultParams{UserID: alice.id, MachineID: m.id})
			if v.UsesLeft != 45 {
				t.Errorf("%d sign-ins left, want 45", v.UsesLeft)
			}
			return firstOf(err, err2)
		})
		if report, err := r.store.VerifyEvents(t.Context()); err != nil || !report.Whole() {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestWhatAMachineCanNotKnowIsNotBelieved(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, other := r.joined(), r.joined()
		alice, bob := r.person("alice"), r.person("bob")
		var codes, bobs []db.BackupCode
		for u, list := range map[*person]*[]db.BackupCode{alice: &codes, bob: &bobs} {
			r.change(func(tx *store.Tx) error {
				_, err := r.keeper.IssueBackup(t.Context(), tx, u.id, r.clock.Now())
				if err == nil {
					*list, err = tx.ListUnusedBackupCodes(t.Context(), u.id)
				}
				return err
			})
		}
		m.enrolSoftware(alice)
		other.enrolSoftware(bob)
		step := otp.DefaultParams.Step(r.clock.Now())
		allowed := event.Event{Type: event.SigninAllowed, UserID: alice.id, Outcome: "allow", Link: "down"}
		stranger := allowed
		stranger.UserID = bob.id
		for _, c := range []struct {
			name  string
			e     event.Event
			spent *wire.Spent
			want  string
		}{
			{"a user who was never here", stranger, nil, "journal.forged/not-a-user-of-this-machine"},
			{"a user who does not exist", event.Event{Type: event.SigninAllowed, UserID: "nobody"}, nil, "journal.forged/not-a-user-of-this-machine"},
			{"an administrator's event", event.Event{Type: event.UserAdded, Subject: "mallory"}, nil, "journal.forged/not-a-machines-event"},
			{"a type that does not exist", event.Event{Type: "x.y"}, nil, "journal.forged/not-a-machines-event"},
			{"a step in the future", allowed, &wire.Spent{Authenticator: alice.auth, Step: step + 100}, "journal.forged/step-in-the-future"},
			{"a code that nobody has typed there", allowed, &wire.Spent{Authenticator: alice.auth, Step: step, Proof: make([]byte, wire.ProofSize)}, "journal.forged/code-was-not-typed-here"},
			{"the proof of another step", allowed, &wire.Spent{Authenticator: alice.auth, Step: step, Proof: m.typed(wire.Spent{Authenticator: alice.auth, Step: step - 1})}, "journal.forged/code-was-not-typed-here"},
			{"the proof of another machine", allowed, &wire.Spent{Authenticator: alice.auth, Step: step, Proof: other.typed(wire.Spent{Authenticator: alice.auth, Step: step})}, "journal.forged/code-was-not-typed-here"},
			{"no proof", allowed, &wire.Spent{Authenticator: alice.auth, Step: step, Proof: []byte{}}, "journal.forged/code-was-not-typed-here"},
			{"a backup code that nobody has typed there", allowed, &wire.Spent{Backup: codes[0].ID, Proof: make([]byte, wire.ProofSize)}, "journal.forged/code-was-not-typed-here"},
			{"a backup code of somebody else", allowed, &wire.Spent{Backup: bobs[0].ID}, "journal.forged/not-this-users-authenticator"},
			{"an authenticator of somebody else", allowed, &wire.Spent{Authenticator: bob.auth, Step: step}, "journal.forged/not-this-users-authenticator"},
			{"something spent by nobody", event.Event{Type: event.SigninDenied}, &wire.Spent{Authenticator: alice.auth, Step: step}, "journal.forged/not-this-users-authenticator"},
		} {
			n := len(r.events(event.JournalForged))
			ch := &chain{m: m}
			r.read(func(q *store.Queries) error {
				h, err := q.GetJournalHead(t.Context(), m.id)
				if store.IsNotFound(err) {
					return nil
				}
				ch.seq = uint64(h.Seq)
				copy(ch.hash[:], h.Hash)
				return err
			})
			ch.add(c.e, c.spent)
			ch.deliver(0, 1)
			got := r.events(event.JournalForged)
			if len(got) != n+1 {
				t.Errorf("%s: %d events", c.name, len(got)-n)
				continue
			}
			if e := got[n]; string(e.Type)+"/"+e.Reason != c.want || e.MachineID != m.id {
				t.Errorf("%s: %+v", c.name, e)
			}
		}
		if got := r.events(event.SigninAllowed, event.SigninDenied, event.UserAdded); len(got) != 0 {
			t.Errorf("%d were believed: %+v", len(got), got[0])
		}
		r.read(func(q *store.Queries) error {
			for _, id := range []string{alice.auth, bob.auth} {
				a, err := q.GetAuthenticator(t.Context(), id)
				if err != nil || a.Step >= step {
					t.Errorf("step %d was spent, %v", a.Step, err)
				}
			}
			for u, list := range map[*person][]db.BackupCode{alice: codes, bob: bobs} {
				left, err := q.ListUnusedBackupCodes(t.Context(), u.id)
				if err != nil || len(left) != len(list) {
					t.Errorf("%d backup codes are left, %v", len(left), err)
				}
			}
			return nil
		})
	})
}

func TestGapsEditsAndOldStatesOfAJournalAreEvents(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	denied := event.Event{Type: event.SigninDenied, Subject: "x", Outcome: "deny"}
	c := &chain{m: m}
	for range 6 {
		c.add(denied, nil)
	}
	c.deliver(0, 2)
	if got := c.deliver(3, 4); got.Seq != 4 {
		t.Errorf("%+v", got)
	}
	if got := r.reasons(event.JournalGap, event.JournalForged); got != "journal.gap/entries-missing" {
		t.Error(got)
	}
	if e := r.events(event.JournalGap)[0]; string(e.Data) != `{"from":3,"to":3}` {
		t.Errorf("%s", e.Data)
	}
	c.list[4].Event.Subject = "edited"
	c.deliver(4, 6)
	if got := r.reasons(event.JournalForged); got != "journal.forged/hash-differs" {
		t.Error(got)
	}
	if n := len(r.events(event.SigninDenied)); n != 4 {
		t.Errorf("%d events, want 4: the edited one and the missing one are not there", n)
	}
	// An old disk image: the numbers begin anew behind entry 2.
	old := &chain{m: m, seq: 2, list: nil}
	copy(old.hash[:], c.list[1].Hash)
	old.add(denied, nil)
	old.deliver(0, 1)
	if got := r.reasons(event.JournalForged); !strings.HasSuffix(got, "journal.forged/journal-restored") {
		t.Error(got)
	}
	if n := len(r.events(event.SigninDenied)); n != 5 {
		t.Errorf("%d events, want 5: what happened is kept all the same", n)
	}
	// A counter that goes back.
	next := &chain{m: m, seq: 6}
	copy(next.hash[:], c.list[5].Hash)
	next.add(denied, nil)
	next.list[0].Counter = 1
	h := wire.EntryHash(m.id, event.Hash(c.list[5].Hash), next.list[0])
	next.list[0].Hash = h[:]
	next.deliver(0, 1)
	if got := r.reasons(event.VaultRolledBack); got != "offline.state_restored/counter-went-back" {
		t.Error(got)
	}
}

// Of an authenticator the highest accepted step is kept: that a lower one was accepted
// twice is seen all the same.
func TestACollisionIsSeenBehindALaterCode(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		a, b := r.joined(), r.joined()
		alice := r.person("alice")
		a.enrolSoftware(alice)
		b.enrolSoftware(alice)
		at := r.clock.Now()
		step := otp.DefaultParams.Step(at)
		deliver := func(m *machine, steps ...int64) {
			c := &chain{m: m}
			for _, s := range steps {
				c.add(event.Event{Type: event.SigninAllowed, UserID: alice.id, Outcome: "allow", Link: "down", At: clock.Micros(at)}, &wire.Spent{Authenticator: alice.auth, Step: s})
			}
			c.deliver(0, len(steps))
		}
		deliver(a, step-1, step+1)
		if got := r.reasons(event.CodeCollision, event.JournalForged); got != "" {
			t.Error(got)
		}
		deliver(b, step-2, step-1) // the first was used here alone
		if got := r.reasons(event.CodeCollision, event.JournalForged); got != "totp.collision/" {
			t.Error(got)
		}
	})
}

func TestACodeThatTwoMachinesAcceptedIsACollision(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		a, b := r.joined(), r.joined()
		alice := r.person("alice")
		r.change(func(tx *store.Tx) error {
			_, err := r.keeper.IssueBackup(t.Context(), tx, alice.id, r.clock.Now())
			return err
		})
		h := a.enrolSoftware(alice)
		b.enrolSoftware(alice)
		step := otp.DefaultParams.Step(r.clock.Now())
		allowed := event.Event{Type: event.SigninAllowed, UserID: alice.id, Outcome: "allow", Link: "down"}
		for _, m := range []*machine{a, b} {
			c := &chain{m: m}
			c.add(allowed, &wire.Spent{Authenticator: alice.auth, Step: step})
			c.add(allowed, &wire.Spent{Backup: h.bundle.Backup[0].ID})
			c.deliver(0, 2)
		}
		if got := r.reasons(event.CodeCollision, event.BackupCollision); got != "totp.collision/ backup.double_spend/" {
			t.Error(got)
		}
		if n := len(r.events(event.SigninAllowed)); n != 4 {
			t.Errorf("%d sign-ins, want 4: they happened", n)
		}
		if got := a.bundle(h, nil); len(got.Backup) != otp.BackupCount-1 {
			t.Errorf("%d backup tags after one was spent", len(got.Backup))
		}
	})
}

// What was used is not kept: neither online (the keeper's Judge) nor by a journal.
func TestASpentBackupCodeIsNotKept(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, alice := r.joined(), r.person("alice")
		var codes []db.BackupCode
		r.change(func(tx *store.Tx) error {
			_, err := r.keeper.IssueBackup(t.Context(), tx, alice.id, r.clock.Now())
			if err == nil {
				codes, err = tx.ListUnusedBackupCodes(t.Context(), alice.id)
			}
			return err
		})
		m.enrolSoftware(alice)
		c := &chain{m: m}
		c.add(event.Event{Type: event.SigninAllowed, UserID: alice.id, Outcome: "allow", Link: "down"}, &wire.Spent{Backup: codes[3].ID})
		c.deliver(0, 1)
		r.change(func(tx *store.Tx) error {
			n, err := tx.SpendBackupCode(t.Context(), db.SpendBackupCodeParams{ID: codes[4].ID, UserID: alice.id, MachineID: m.id, At: 1})
			if n != 1 {
				t.Error("not spent")
			}
			return err
		})
		r.read(func(q *store.Queries) error {
			for i, c := range codes {
				got, err := q.GetBackupCode(t.Context(), c.ID)
				if err != nil {
					return err
				}
				if used := i == 3 || i == 4; used != (got.UsedAt != 0) || used != (len(got.Sealed) == 0) {
					t.Errorf("code %d: used at %d, %d octets are kept", i, got.UsedAt, len(got.Sealed))
				}
			}
			return nil
		})
		if got := r.reasons(event.JournalForged); got != "" {
			t.Error(got)
		}
	})
}

// A machine may make so many events of its journal in a day; refusals beyond, and what
// one person opens without a code over and over, are counted. Nothing waits.
func TestTheJournalOfADayIsBounded(t *testing.T) {
	const dayEvents, dayOpenings = 2000, 500 // package offline
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	alice, bob := r.person("alice"), r.person("bob")
	m.enrolSoftware(alice)
	m.enrolSoftware(bob)
	c := &chain{m: m}
	denied := event.Event{Type: event.SigninDenied, Subject: "mallory", Outcome: "deny", Reason: "user-unknown", Link: "down"}
	allowed := event.Event{Type: event.SigninAllowed, UserID: alice.id, Outcome: "allow", Reason: "offline-bypass", Link: "down"}
	var last wire.JournalReply
	all := func() wire.JournalReply {
		t.Helper()
		for {
			from := int(last.Seq)
			to := min(from+200, len(c.list))
			if from >= to {
				return last
			}
			r.clock.off += time.Second // as many as are taken in one
			if last = c.deliver(from, to); last.Seq != uint64(to) {
				t.Fatalf("up to %d of %d was taken", last.Seq, to)
			}
		}
	}
	count := func(types ...event.Type) (n int) {
		f := store.EventFilter{Limit: 500}
		for _, t := range types {
			f.Types = append(f.Types, string(t))
		}
		for {
			rows, err := r.store.Events(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if n += len(rows); len(rows) < f.Limit {
				return n
			}
			f.BeforeAt, f.BeforeID = rows[len(rows)-1].At, rows[len(rows)-1].ID
		}
	}

	long := denied
	long.Data = []byte(`{"x":"` + strings.Repeat("y", 60_000) + `"}`)
	c.add(long, nil)
	for range dayEvents + 299 {
		c.add(denied, nil)
	}
	c.add(allowed, nil)
	if got := all(); got.Seq != dayEvents+301 {
		t.Fatalf("up to %d of %d was taken", got.Seq, len(c.list))
	}
	if n := count(event.SigninDenied); n != dayEvents {
		t.Errorf("%d events", n)
	}
	if n := count(event.SigninAllowed); n != 1 {
		t.Errorf("%d sign-ins: what opens a machine is always an event", n)
	}
	r.read(func(q *store.Queries) error {
		got, err := q.GetEvent(t.Context(), c.list[0].Event.ID)
		if string(got.Data) != `{"dropped_octets":60008}` {
			t.Errorf("%d octets of data are kept", len(got.Data))
		}
		return err
	})
	if got := r.reasons(event.JournalFolded); got != "journal.folded/day-events-used-up" {
		t.Error(got)
	}
	// The same numbers again, with new ids: an old state that was put back. Neither
	// these nor what is said about them fill the disk.
	before := count()
	for i := range 50 {
		c.list[i].Event.ID = store.NewID()
	}
	c.deliver(0, 50)
	if n := count(); n != before {
		t.Errorf("%d more events", n-before)
	}

	for range dayOpenings + 9 { // with the one above ten too many
		c.add(allowed, nil)
	}
	// Behind it: another person, another kind, and a code.
	his, glass, step := allowed, allowed, otp.DefaultParams.Step(r.clock.Now())
	his.UserID, glass.Type = bob.id, event.BreakGlass
	c.add(his, nil)
	c.add(glass, nil)
	c.add(allowed, &wire.Spent{Authenticator: alice.auth, Step: step})
	all()
	if n := count(event.SigninAllowed); n != dayOpenings+2 {
		t.Errorf("%d sign-ins, want %d", n, dayOpenings+2)
	}
	if n := count(event.BreakGlass); n != 1 {
		t.Errorf("%d break-glass events", n)
	}
	r.read(func(q *store.Queries) error {
		if _, err := q.GetEvent(t.Context(), c.list[len(c.list)-1].Event.ID); err != nil {
			t.Errorf("the sign-in with a code: %v", err)
		}
		a, err := q.GetAuthenticator(t.Context(), alice.auth)
		if a.Step != step {
			t.Errorf("step %d was spent, want %d", a.Step, step)
		}
		return err
	})
	if got := r.reasons(event.JournalFolded); got != "journal.folded/day-events-used-up journal.folded/day-openings-used-up" {
		t.Error(got)
	}
	// The next day says what of the day before was only counted.
	r.clock.off += 24 * time.Hour
	c.add(allowed, nil)
	all()
	if n := count(event.SigninAllowed); n != dayOpenings+3 {
		t.Errorf("%d sign-ins, want %d", n, dayOpenings+3)
	}
	folded := r.events(event.JournalFolded)
	e := folded[len(folded)-1]
	if e.Reason != "day-count" || e.MachineID != m.id || !strings.Contains(string(e.Data), `"counted":410`) || !strings.Contains(string(e.Data), `"signin.allowed offline-bypass":10`) ||
		!strings.Contains(string(e.Data), `"signin.denied user-unknown":350`) || !strings.Contains(string(e.Data), `"journal.forged journal-restored":50`) {
		t.Errorf("%+v %s", e, e.Data)
	}
	if got := r.reasons(event.JournalGap, event.JournalForged); got != "" {
		t.Error(got)
	}
	// A machine that does not come back: a job closes its day.
	for range dayEvents {
		c.add(denied, nil)
	}
	all()
	r.clock.off += 24 * time.Hour
	for range 2 {
		if err := r.offline.CloseDays(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	folded = r.events(event.JournalFolded)
	if e := folded[len(folded)-1]; len(folded) != 5 || e.Reason != "day-count" || !strings.Contains(string(e.Data), `"counted":1,`) {
		t.Errorf("%d, %+v %s", len(folded), e, e.Data)
	}
	if report, err := r.store.VerifyEvents(t.Context()); err != nil || !report.Whole() {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestJournalsOutOfBoundsAreRefusedWhole(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	c := &chain{m: m}
	for range 3 {
		c.add(event.Event{Type: event.SigninDenied}, nil)
	}
	for name, alter := range map[string]func(j *wire.Journal){
		"out of order":  func(j *wire.Journal) { j.Entries[0], j.Entries[1] = j.Entries[1], j.Entries[0] },
		"number 0":      func(j *wire.Journal) { j.Entries[0].Seq = 0 },
		"twice":         func(j *wire.Journal) { j.Entries[1].Seq = 1 },
		"without hash":  func(j *wire.Journal) { j.Entries[1].Hash = nil },
		"huge counter":  func(j *wire.Journal) { j.Entries[1].Counter = 1 << 63 },
		"negative step": func(j *wire.Journal) { j.Entries[1].Spent = &wire.Spent{Step: -1} },
		"too many":      func(j *wire.Journal) { j.Entries = make([]wire.JournalEntry, 201) },
		"both kinds":    func(j *wire.Journal) { j.Entries[1].Spent = &wire.Spent{Authenticator: "a", Backup: "b"} },
		"neither kind":  func(j *wire.Journal) { j.Entries[1].Spent = &wire.Spent{Step: 1} },
		"no id":         func(j *wire.Journal) { j.Entries[1].Spent = &wire.Spent{Authenticator: "a\x00"} },
		"a second one":  func(j *wire.Journal) { j.Entries[1].Spent = &wire.Spent{Authenticator: "a", Backup: "\x00"} },
	} {
		j := wire.Journal{Entries: append([]wire.JournalEntry(nil), c.list...)}
		alter(&j)
		if p := m.fails("POST", wire.PathJournal, j, "invalid"); !strings.Contains(p.Detail, "entries") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if n := len(r.events(event.SigninDenied, event.JournalForged, event.JournalGap)); n != 0 {
		t.Errorf("%d events", n)
	}
	m.must("POST", wire.PathJournal, wire.Journal{}, nil)
}
