//go:build linux

package vault

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/statefile/powertest"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

const realPowerEnv = "LATCHKEY_TEST_VAULT_POWER_DIR"

// realPowerRig makes the recorded program and the test agree on all keys.
func realPowerRig(t *testing.T, dir string) *rig {
	r := newRig(t, false)
	ok(t, r.v.Close())
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, "the same in both")
	r.grant = ed25519.NewKeyFromSeed(seed)
	r.srv.seed = secret.FromString("the same in both 20!")
	r.srv.pol.Offline = policy.OfflineMFAOrBypass
	r.dir = dir
	r.open()
	return r
}

// word is what a machine has promised after a step.
type word struct {
	Step      string              `json:"step"`
	Now       int64               `json:"now"`
	Tries     int                 `json:"tries"`
	Signins   int                 `json:"signins"`
	Used      []string            `json:"used"`
	Entries   []wire.JournalEntry `json:"entries"`
	Delivered uint64              `json:"delivered"`
	Serial    int64               `json:"serial"`
	Highest   int64               `json:"highest"`
	Enrolled  bool                `json:"enrolled"`
	Refused   bool                `json:"refused"`
}

// TestRealPowerChild is the program whose file operations are recorded: a machine
// without a TPM from its first start to its end.
func TestRealPowerChild(t *testing.T) {
	dir := os.Getenv(realPowerEnv)
	if dir == "" {
		return // only TestO10O11… runs it
	}
	r := realPowerRig(t, dir)
	var w word
	did := func(step string) {
		w.Step, w.Now = step, r.clk.Now().Unix()
		if us := r.v.led.Users[userID]; us != nil {
			w.Tries, w.Signins = us.Tries, us.Signins
		}
		w.Entries = r.v.jour.entries
		if r.v.pol != nil {
			w.Serial = r.v.pol.Serial
		}
		w.Highest = r.v.led.Highest
		b, err := json.Marshal(w)
		ok(t, err)
		fmt.Printf("%s\n", b)
	}
	signin := func(step string, pw, code secret.Bytes) {
		if in, _ := r.signin(policy.Logon, pw, code); in {
			w.Used = append(w.Used, string(code.Reveal()))
		}
		did(step)
	}
	ctx := context.Background()
	did("first start")
	r.sync()
	did("policy")
	r.enrol()
	w.Enrolled = true
	did("enrolled")
	for range 2 {
		signin("wrong code", password, secretCode("000000"))
		signin("wrong password", secretCode("other"), r.code())
		signin("right code", password, r.code())
		ok(t, r.v.Record(ctx, event.Event{Type: event.SigninIgnored, Subject: "root"}))
		did("bypass")
		r.later()
		ok(t, r.v.NoteOnline(ctx, userID, []wire.Spent{{Authenticator: "totp1", Step: r.srv.params.Step(r.clk.Now())}}))
		w.Used = append(w.Used, string(r.code().Reveal()))
		did("online")
		head := r.v.jour.head()
		ok(t, r.v.Delivered(ctx, head.Seq, head.Hash))
		w.Delivered = head.Seq
		did("delivered")
		r.later()
		r.srv.serial++
		r.sync()
		did("newer policy")
		r.clk.Advance(25 * time.Hour)
		w.Used = nil // long over
		w.Tries, w.Signins = 0, 0
		r.enrol()
		did("extended")
	}
	ok(t, r.v.Close())
	r.open()
	signin("right code after a restart", password, r.code())
	note, err := json.Marshal(wire.RefusalNote{MachineID: machineID, Status: "revoked", Text: "lost"})
	ok(t, err)
	ok(t, r.v.Refuse(ctx, seal.Sign(r.grant, seal.Refusal, machineID, note)))
	w.Refused, w.Enrolled = true, false
	did("refused")
}

// TestO10O11TheStateFolderSurvivesAPowerCutAtEveryFileOperation: the same as for the
// server's database: whatever of the unsynced writes has reached the disk, the machine
// starts, no attempt is given back, no code is good again, no acknowledged entry of
// the journal is lost, and nothing opens without the second factor.
func TestO10O11TheStateFolderSurvivesAPowerCutAtEveryFileOperation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	ok(t, os.Mkdir(dir, 0o700))
	lock := func(path string) bool { return path == "lock" }
	rec := powertest.Record(t, dir, lock, []string{realPowerEnv + "=" + dir}, os.Args[0], "-test.run=^TestRealPowerChild$")
	words := func(n int) (w word, none bool) {
		said := rec.Said(n)
		for i := len(said) - 1; i >= 0; i-- {
			if json.Unmarshal([]byte(said[i]), &w) == nil && w.Step != "" {
				return w, false
			}
		}
		return w, true
	}
	if w, _ := words(rec.Len()); !w.Refused {
		t.Fatalf("the recorded program ended with %+v", w)
	}
	r := realPowerRig(t, filepath.Join(t.TempDir(), "agent"))
	dice := rand.New(rand.NewPCG(2, 2))
	tried := 0
	for _, cut := range rec.Cuts(scale.N(120, rec.Len()+1), dice) {
		fates := []powertest.Fate{powertest.Landed(), powertest.Lost(), powertest.Torn(dice)}
		for _, fate := range fates {
			tried++
			disk := filepath.Join(t.TempDir(), fmt.Sprint(tried))
			ok(t, rec.Disk(cut, fate, disk))
			ok(t, os.Chmod(disk, 0o700))
			w, none := words(cut)
			if none {
				w.Now = start.Unix()
			}
			ok(t, r.v.Close())
			r.dir, r.clk = disk, clock.NewManual(time.Unix(w.Now, 0))
			r.open()
			if err := r.keeps(w, none); err != nil {
				t.Fatalf("power cut behind operation %d of %d, what was not synced %s, after %q: %v%s", cut, rec.Len(), fate.Name, w.Step, err, rec.Last(cut))
			}
		}
	}
	t.Logf("%d disks of %d file operations", tried, rec.Len())
}

// keeps checks the promises.
func (r *rig) keeps(w word, none bool) error {
	if none || !w.Enrolled && !w.Refused {
		// Nothing was promised but that it starts.
		if r.v.problem != "" {
			return fmt.Errorf("the state can not be used: %s %s", r.v.problem, r.v.detail)
		}
		return nil
	}
	if w.Refused {
		if r.v.Refusal() == nil {
			return fmt.Errorf("the refusal is gone")
		}
		if d, _ := r.decide(policy.Logon); d.Outcome != policy.Deny {
			return fmt.Errorf("a refused machine: %s", d.Outcome)
		}
		return nil
	}
	if r.v.Refusal() != nil {
		return nil // it came, and nobody had heard
	}
	d, _ := r.decide(policy.Logon)
	if d.Outcome != policy.MFAOffline && d.Outcome != policy.Deny {
		return fmt.Errorf("the sign-in is %s (%s)", d.Outcome, d.Reason)
	}
	if r.v.led != nil && r.v.led.PolicySerial == 1<<63-1 {
		return nil // in the middle of being refused
	}
	if r.v.problem != "" || r.v.policyProblem() != "" {
		return fmt.Errorf("the state can not be used: %s %s %s", r.v.problem, r.v.detail, r.v.policyProblem())
	}
	us := r.v.led.Users[userID]
	if us.Tries < w.Tries && us.Signins == w.Signins && w.Step != "newer policy" {
		return fmt.Errorf("%d tries on record, %d were answered", us.Tries, w.Tries)
	}
	if r.v.pol.Serial < w.Serial {
		return fmt.Errorf("policy %d, applied was %d", r.v.pol.Serial, w.Serial)
	}
	if r.v.led.Highest < w.Highest {
		return fmt.Errorf("the highest time seen went back")
	}
	for _, e := range w.Entries {
		if e.Seq <= max(w.Delivered, r.v.jour.base.Seq) {
			continue
		}
		if h, there := r.v.jour.hashAt(e.Seq); !there || string(h) != string(e.Hash) {
			return fmt.Errorf("journal entry %d (%s) was acknowledged and is gone", e.Seq, e.Event.Type)
		}
	}
	for _, e := range r.v.jour.entries {
		if e.Event.Type == event.JournalGap {
			return fmt.Errorf("the machine itself says that the journal was edited")
		}
	}
	for _, c := range w.Used {
		if in, reason := r.signin(policy.Logon, password, secretCode(c)); in {
			return fmt.Errorf("a code that was used opens again (%s)", reason)
		}
	}
	if us.Generation == 0 || us.Problem != "" {
		return nil // an enrolment that was not finished: denied, as seen above
	}
	if d := r.v.HighestTime().Sub(r.clk.Now()); d > 0 {
		r.clk.Advance(d) // the step that was cut came a day later
	}
	r.later()
	if in, reason := r.signin(policy.Logon, password, r.code()); !in && reason != string(policy.ReasonVaultTries) {
		return fmt.Errorf("the machine is not usable: %s", reason)
	}
	return nil
}
