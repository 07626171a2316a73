package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/wire"
)

// An agent that is killed between the journal's write and the ledger's, delivers what the journal holds, and is killed
// again: what the entry spent stays spent, and nothing is called lost or restored (O9, O10, O11).
func TestO11KilledBehindTheJournalAndDeliveredAtTheNextGreeting(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		// What Attempt writes of an accepted code, up to the ledger.
		spent := &wire.Spent{Authenticator: r.v.bundles[userID].newest().Authenticators[0].ID, Step: r.srv.params.Step(r.clk.Now())}
		ok(t, r.v.append(event.Event{Type: event.SigninAllowed, UserID: userID, Outcome: "allow"}, spent))
		head := r.v.jour.head()
		r.restart()
		// The server has it all, as it says in its greeting. Then the agent is killed.
		for range 2 {
			if r.renew(head.Seq, head.Hash) {
				t.Error("the state is made anew though it is whole")
			}
			r.restart()
			if p := r.v.problem; p != "" {
				t.Errorf("a state that was only killed has the problem %s: %s", p, r.v.detail)
			}
			for _, e := range r.v.jour.entries {
				t.Errorf("a state that was only killed is told as %s", e.Event.Type)
			}
		}
		r.want(false, CodeUsed, policy.Logon, password, r.code())
	})
}

// A machine that stops in the middle of wiping, because it is refused, goes on with it when it starts (O1, O14).
func TestO14AWipeThatWasCutShortGoesOn(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	note, err := json.Marshal(wire.RefusalNote{MachineID: machineID, Status: "revoked", Text: "gone"})
	ok(t, err)
	ok(t, r.v.fs.WriteFile("refusal", seal.Sign(r.grant, seal.Refusal, machineID, note)))
	r.restart()
	for _, dir := range []string{"vaults", "bundles"} {
		left, err := filepath.Glob(filepath.Join(r.dir, dir, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	if r.v.PolicySerial() != 0 || r.v.Refusal() == nil {
		t.Error("a refused machine still has a policy")
	}
	counted := r.v.led.Counter
	r.restart()
	if r.v.led.Counter != counted {
		t.Error("what was wiped is wiped again at every start")
	}
}

// What the server accepts after the machine has accepted it without the server is told, and stays spent (S10).
func TestS10ACodeIsNotedOnce(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
	spent := []wire.Spent{{Authenticator: r.v.bundles[userID].newest().Authenticators[0].ID, Step: r.srv.params.Step(r.clk.Now())}}
	if err := r.v.NoteOnline(context.Background(), userID, spent); !errors.Is(err, ErrSpent) {
		t.Errorf("%v, want ErrSpent", err)
	}
	r.later()
	spent[0].Step++
	ok(t, r.v.NoteOnline(context.Background(), userID, spent))
	r.want(false, CodeUsed, policy.Logon, password, r.code())
}

// Killed between the counter and the state that names it, again and again: the TPM's little room is not used up.
func TestO17ACounterWithoutAStateIsTakenOutOfTheTPM(t *testing.T) {
	r := newRig(t, true)
	for range 3 {
		// The folder as it was: with the handle noted, and nothing else.
		note := []byte(strconv.FormatUint(uint64(r.v.st.Counter), 10))
		ok(t, r.v.Close())
		ok(t, os.RemoveAll(r.dir))
		ok(t, os.MkdirAll(r.dir, 0o700))
		ok(t, os.WriteFile(filepath.Join(r.dir, halfMade), note, 0o600))
		r.open()
		owned, err := r.v.cfg.Device.Owned(context.Background())
		ok(t, err)
		if len(owned) != 1 {
			t.Errorf("%d indices in the TPM, want the counter alone: %v", len(owned), owned)
		}
		if _, err := os.Stat(filepath.Join(r.dir, halfMade)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the note is left behind: %v", err)
		}
	}
}

// Killed between the wiping and the word to the server: the word is given at the next start (O14).
func TestO14AWipeIsToldTheServerAlsoAfterAKill(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	generation := r.v.led.Users[userID].Generation
	r.srv.mu.Lock()
	r.srv.generation, r.srv.serial = 0, r.srv.serial+1 // withdrawn
	r.srv.mu.Unlock()
	want := wire.Wiped{UserID: userID, Generation: generation, Reason: withdrawn}
	if w := r.sync(); len(w) != 1 || w[0] != want {
		t.Fatalf("wiped: %v, want %v", w, want)
	}
	r.restart()
	if w := r.sync(); len(w) != 1 || w[0] != want {
		t.Errorf("told after a restart: %v, want %v", w, want)
	}
	if w := r.sync(); len(w) != 0 {
		t.Errorf("told again and again: %v", w)
	}
}
