package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/wire"
)

// What an attacker can do who copies the state folder and puts parts of it back (O9,
// the table of offline.md).

// cutFS cuts the power at a write of the ledger: before it, or behind it, when the
// TPM has not counted it.
type cutFS struct {
	FS
	cut    func()
	behind bool
	armed  bool
}

func (f *cutFS) WriteFile(name string, data []byte) error {
	if name != "ledger" || !f.armed {
		return f.FS.WriteFile(name, data)
	}
	f.armed = false
	if !f.behind {
		f.cut()
		return errors.New("the power is cut")
	}
	err := f.FS.WriteFile(name, data)
	f.cut()
	return err
}

// cutAt lets do run and cuts the power at its n-th write of the ledger; then the
// power is given back and the agent started.
func (r *rig) cutAt(n int, behind bool, do func()) {
	r.Helper()
	fs := &cutFS{FS: r.v.fs, cut: r.emu.Kill, behind: behind}
	count := 0
	r.v.fs = countFS{fs, func() {
		count++
		fs.armed = count == n
	}}
	do()
	if count < n {
		r.Fatalf("only %d writes of the ledger", count)
	}
	r.emu.Start()
	r.restart()
	if r.v.problem != "" {
		r.Fatalf("after a cut (behind the write: %v) the state can not be used: %s", behind, r.v.detail)
	}
}

type countFS struct {
	FS
	before func()
}

func (f countFS) WriteFile(name string, data []byte) error {
	if name == "ledger" {
		f.before()
	}
	return f.FS.WriteFile(name, data)
}

// Whoever cuts the power while the ledger is written, keeps what lies on the disk
// then, puts the ledger of before back, and lets the machine go on, has a second
// ledger of the same age as the machine's own. It must not fit when something was
// judged or answered since.
func TestO9ALedgerFromBetweenWriteAndCountUndoesNothing(t *testing.T) {
	// What could be worth undoing, and how it would show that it was undone.
	type deed struct {
		name   string
		do     func(r *rig)
		undone func(r *rig) bool
	}
	code := func(r *rig) wire.Spent {
		return wire.Spent{Authenticator: "totp1", Step: r.srv.params.Step(r.clk.Now())}
	}
	deeds := []deed{
		{
			"a code accepted online", func(r *rig) {
				ok(r, r.v.NoteOnline(context.Background(), userID, []wire.Spent{code(r)}))
			}, func(r *rig) bool { opened, _ := r.signin(policy.Logon, password, r.code()); return opened },
		},
		{
			"a code accepted offline", func(r *rig) {
				r.want(true, OK, policy.Logon, password, r.code())
			}, func(r *rig) bool { opened, _ := r.signin(policy.Logon, password, r.code()); return opened },
		},
		{
			"a wrong code", func(r *rig) {
				r.want(false, WrongCode, policy.Logon, password, secretCode("000000"))
			}, func(r *rig) bool { return r.v.problem == "" && r.v.led.Users[userID].Tries == 0 },
		},
		{
			"a policy without bypass", func(r *rig) {
				r.srv.pol.Offline, r.srv.serial = policy.OfflineMFA, r.srv.serial+100
				r.sync()
			}, func(r *rig) bool { d, _ := r.decide(policy.Logon); return d.Outcome == policy.Ignore },
		},
	}
	// How the second ledger is made: a write of each kind, cut.
	cuts := []struct {
		name string
		do   func(r *rig)
	}{
		{"a wrong code", func(r *rig) { r.signin(policy.Logon, password, secretCode("111111")) }},
		{"a bypass written down", func(r *rig) {
			_ = r.v.Record(context.Background(), event.Event{Type: event.SigninIgnored})
		}},
	}
	for _, d := range deeds {
		for _, cut := range cuts {
			if d.name == "a policy without bypass" && cut.name == "a wrong code" {
				continue // under a bypass no code is judged
			}
			t.Run(d.name+", behind a cut in "+cut.name, func(t *testing.T) {
				r := newRig(t, true)
				r.srv.pol.Offline = policy.OfflineMFAOrBypass
				r.sync()
				r.enrol()
				if d.name == "a policy without bypass" {
					r.srv.pol.Offline = policy.OfflineBypass
					r.srv.serial++
					r.sync()
				}
				before := r.snapshot()
				r.v.fs = &cutFS{FS: r.v.fs, cut: r.emu.Kill, behind: true, armed: true}
				cut.do(r)
				between := r.snapshot() // the disk as it is in the cut
				r.emu.Start()
				r.restore(before)
				r.must(r.v.problem == "", "the ledger of before the cut does not go on: "+r.v.detail)
				d.do(r)
				after := r.snapshot()
				r.restore(between)
				if d.undone(r) {
					t.Errorf("%s is undone by the ledger of a cut", d.name)
				}
				if r.v.problem != policy.ReasonVaultRolledBack {
					t.Errorf("the ledger of a cut fits: %q", r.v.problem)
				}
				// The machine's own goes on.
				r.restore(after)
				r.must(r.v.problem == "", r.v.detail)
			})
		}
	}
}

// Whatever moment the power is cut at, the machine goes on; what was counted stays.
func TestO10AMachineWithATPMGoesOnAfterEveryCut(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	for _, behind := range []bool{true, false} {
		for n := 1; n <= 2; n++ { // the attempt, the outcome
			tries := r.v.led.Users[userID].Tries
			r.cutAt(n, behind, func() { r.signin(policy.Logon, password, secretCode("000000")) })
			want := tries
			if behind || n == 2 {
				want++
			}
			if got := r.v.led.Users[userID].Tries; got != want {
				t.Errorf("cut at write %d (behind it: %v): %d tries on record, want %d", n, behind, got, want)
			}
		}
		r.later()
		code := r.code()
		r.cutAt(2, behind, func() { r.signin(policy.Logon, password, code) })
		// Not answered, and yet spent: the journal has it.
		r.want(false, CodeUsed, policy.Logon, password, code)
		r.later()
		r.want(true, OK, policy.Logon, password, r.code())
	}
}

func (r *rig) must(is bool, what string) {
	r.Helper()
	if !is {
		r.Fatal(what)
	}
}

// Every part of day one's folder, and every set of parts, is put back among those of
// day two. With a TPM nothing opens by it that day two would not open, whatever was
// put back; what is noticed is told as what it is.
func TestO9PartsOfTheFolderPutBackInEverySet(t *testing.T) {
	parts := []string{"policy", "ledger", "journal", "vaults", "bundles", "state"}
	part := func(file string) string { p, _, _ := strings.Cut(file, "/"); return p }
	both(t, func(t *testing.T, r *rig) {
		r.srv.pol.Offline = policy.OfflineBypass
		r.sync()
		r.enrol()
		one := r.snapshot()
		// Day two: the policy wants MFA, the data is of another generation, a code is
		// spent, a wrong one counted.
		r.srv.pol.Offline, r.srv.serial, r.srv.ready = policy.OfflineMFA, r.srv.serial+5, false
		r.sync()
		r.enrol()
		r.later()
		code := r.code()
		r.want(true, OK, policy.Logon, password, code)
		r.want(false, WrongCode, policy.Logon, password, secretCode("000000"))
		two := r.snapshot()
		rewind := func() {}
		if r.emu != nil {
			rewind = r.emu.Keep()
		}
		for set := 1; set < 1<<len(parts); set++ {
			var back []string
			for i, p := range parts {
				if set&(1<<i) != 0 {
					back = append(back, p)
				}
			}
			files := map[string][]byte{}
			for name, b := range two {
				if !slices.Contains(back, part(name)) {
					files[name] = b
				}
			}
			for name, b := range one {
				if slices.Contains(back, part(name)) {
					files[name] = b
				}
			}
			rewind()
			r.restore(files)
			name := fmt.Sprint(back)
			has := func(p string) bool { return slices.Contains(back, p) }
			d, _ := r.decide(policy.Logon)
			opened, reason := d.Outcome == policy.Ignore, string(d.Reason)
			if !opened {
				opened, reason = r.signin(policy.Logon, password, code)
			}
			want := CodeUsed
			switch {
			case r.emu != nil && has("ledger"):
				want = string(policy.ReasonVaultRolledBack)
			case has("ledger") && !has("journal"):
				want = string(policy.ReasonVaultRolledBack) // the journal knows better
			case has("ledger"):
				// Without a TPM ledger and journal of one day are a state that was. What
				// the server has met of the other day it will tell.
				want = ""
			case has("policy"):
				want = string(policy.ReasonPolicyOlder)
			case has("vaults") && has("bundles"), has("vaults"), has("bundles"):
				want = string(policy.ReasonVaultDamaged)
			}
			if want != "" && (opened || reason != want) {
				t.Errorf("%s put back: opened %v (%s), want %s", name, opened, reason, want)
			}
			if has("ledger") && has("journal") {
				// The next contact tells, with a TPM and without.
				head := (&journal{}).head()
				for _, e := range mustJournal(t, two["journal"]) {
					head = journalHead{e.Seq, e.Hash}
				}
				if !r.renew(head.Seq, head.Hash) {
					t.Errorf("%s put back: the server does not notice", name)
				}
				if d, _ := r.decide(policy.Logon); d.Outcome != policy.Deny {
					t.Errorf("%s put back: after the contact the machine says %s", name, d.Outcome)
				}
			}
		}
		rewind()
		r.restore(two)
		r.later()
		r.want(true, OK, policy.Logon, password, r.code())
	})
}

func mustJournal(t *testing.T, raw []byte) []wire.JournalEntry {
	t.Helper()
	_, entries, _, err := readJournal(machineID, raw)
	ok(t, err)
	return entries
}

// The journal put back alone, or taken away: nothing opens, the loss is an event.
func TestO11AJournalPutBackIsToldAndSpendsNothing(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		one := r.snapshot()
		code := r.code()
		r.want(true, OK, policy.Logon, password, code)
		two := r.snapshot()
		for name, b := range map[string][]byte{"of before": one["journal"], "none": nil} {
			files := maps.Clone(two)
			files["journal"] = b
			if r.emu != nil {
				files["ledger"] = r.snapshot()["ledger"]
			}
			r.restore(files)
			j, err := r.v.Pending(context.Background(), 100)
			ok(t, err)
			if !journalHas(j, event.JournalGap) {
				t.Errorf("journal %s: nothing is told", name)
			}
			r.want(false, CodeUsed, policy.Logon, password, code)
		}
	})
}

// Somebody steps the counter who is not this agent: root, or a second agent on the
// same TPM with a copy of the folder. Nothing is judged by two.
func TestO9TwoAgentsOnOneTPMDoNotJudgeOneState(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	files := r.snapshot()
	// The first stays open; the second has a copy.
	first, dir := r.v, r.dir
	r.dir = t.TempDir() + "/agent"
	for name, b := range files {
		ok(t, RealFS(r.dir).MkdirAll(""))
		ok(t, RealFS(r.dir).MkdirAll("vaults"))
		ok(t, RealFS(r.dir).MkdirAll("bundles"))
		ok(t, RealFS(r.dir).WriteFile(name, b))
	}
	r.open()
	code := r.code()
	r.want(true, OK, policy.Logon, password, code)
	ok(t, r.v.Close())
	r.v, r.dir = first, dir
	if opened, reason := r.signin(policy.Logon, password, code); opened || reason != string(policy.ReasonVaultRolledBack) {
		t.Fatalf("a code is accepted by two agents with one TPM: %v %s", opened, reason)
	}
	r.restart()
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, code)
}

// A ledger of an agent that made one step for a write goes on, and is from then on
// one that makes two.
func TestALedgerOfBeforeTheTwoSteps(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	r.v.led.Stepped = false
	body := *r.v.led
	ok(t, r.v.write(&body))
	r.restart()
	if r.v.led.Stepped {
		t.Fatal("the ledger was written anew")
	}
	code := r.code()
	r.want(true, OK, policy.Logon, password, code)
	if !r.v.led.Stepped {
		t.Fatal("still one step")
	}
	r.restart()
	r.want(false, CodeUsed, policy.Logon, password, code)
	r.clk.Advance(time.Minute)
	r.want(true, OK, policy.Logon, password, r.code())
}
