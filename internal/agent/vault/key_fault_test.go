package vault

import (
	"context"
	"testing"
	"time"

	"latchkey/internal/assertion/softkey"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

// withKey enrols a user with a security key; touch is one touch of it for a new attempt.
func (r *rig) withKey() (touch func() *KeyGiven) {
	r.Helper()
	k := &softkey.Key{}
	id, cose := k.Register(rpID)
	r.srv.keys = []wire.KeyHeld{{ID: "key1", Credential: id, Public: cose}}
	r.sync()
	r.enrol()
	return func() *KeyGiven { return r.touch(k, [][]byte{id}, fresh(r), false) }
}

// given is an offline sign-in by what a key has said, or by a code where that is nil.
func (r *rig) given(g *KeyGiven, code secret.Bytes) (bool, string) {
	r.Helper()
	d, f := r.decide(policy.Logon)
	if d.Outcome != policy.MFAOffline {
		return false, string(d.Reason)
	}
	res, err := r.v.Attempt(context.Background(), Attempt{
		User: f.User, Decision: d, Password: password, Codes: []secret.Bytes{code}, Key: g, Event: event.Event{UserID: userID, Subject: "anna"},
	})
	if err != nil {
		return false, string(ReasonOf(err))
	}
	return res.OK, res.Reason
}

// After a power cut at any moment of sign-ins with a security key and a backup code, no try
// is given back, and what was answered with "allow" opens no second time (O10, M2, M5).
func TestO10EveryPrefixOfAKeysWritesKeepsItsPromises(t *testing.T) {
	r := newRig(t, false)
	ok(t, r.v.Close())
	mem := newMemFS()
	reopen := func(files map[string][]byte) *Vault {
		cfg := r.config()
		cfg.FS = &memFS{files, mem.log}
		v, err := Open(context.Background(), cfg)
		ok(t, err)
		return v
	}
	r.v = reopen(mem.files)
	touch := r.withKey()
	backup := secret.FromString(formatted(r.srv.backup[2]))
	type promise struct {
		after       int // operations
		tries       int
		key, backup bool // was accepted
	}
	var promises []promise
	note := func(tries int, key, backup bool) {
		promises = append(promises, promise{len(*mem.log), tries, key, backup})
	}
	is := func(wantOK bool, want string, g *KeyGiven, code secret.Bytes) {
		t.Helper()
		if got, reason := r.given(g, code); got != wantOK || reason != want {
			t.Fatalf("%v (%s), want %v (%s)", got, reason, wantOK, want)
		}
	}
	note(0, false, false)
	for i := range 2 {
		stray := touch()
		stray.Nonce = fresh(t)
		is(false, KeyWrong, stray, secret.Bytes{})
		note(i+1, false, false)
	}
	right := touch()
	is(true, OK, right, secret.Bytes{})
	note(0, true, false)
	is(false, KeyCloned, right, secret.Bytes{})
	note(1, true, false)
	is(true, OK, nil, backup)
	note(0, true, true)
	is(false, BackupUsed, nil, backup)
	note(1, true, true)

	ops := *mem.log
	first := promises[0].after
	for cut := first; cut <= len(ops); cut++ {
		files := map[string][]byte{}
		for _, op := range ops[:cut] {
			op(files)
		}
		*mem.log = nil
		r.v = reopen(files)
		var last promise
		for _, p := range promises {
			if p.after <= cut {
				last = p
			}
		}
		if n := r.v.led.Users[userID].Tries; n < last.tries {
			t.Fatalf("cut after %d: %d tries on record, %d were answered", cut, n, last.tries)
		}
		opened, reason := r.given(right, secret.Bytes{})
		if opened && last.key || !opened && reason != KeyCloned {
			t.Fatalf("cut after %d: what a key has said opens: %v, %s", cut, opened, reason)
		}
		opened, reason = r.given(nil, backup)
		if opened && last.backup || !opened && reason != BackupUsed {
			t.Fatalf("cut after %d: a backup code opens: %v, %s", cut, opened, reason)
		}
		is(false, KeyCloned, right, secret.Bytes{})
		is(false, BackupUsed, nil, backup)
		if r.v.problem != "" {
			t.Fatalf("cut after %d: %s %s", cut, r.v.problem, r.v.detail)
		}
	}
	if len(ops)-first < 10 {
		t.Errorf("only %d operations were recorded", len(ops)-first)
	}
}

// The power is cut at each write of a sign-in with a key, on a machine with a TPM: it is
// counted before it is judged, and what was accepted and not answered opens no second time.
func TestO10AKeyOnAMachineWithATPMIsCountedBeforeItIsJudged(t *testing.T) {
	r := newRig(t, true)
	touch := r.withKey()
	for _, behind := range []bool{true, false} {
		for n := 1; n <= 2; n++ { // the attempt, the outcome
			tries := r.v.led.Users[userID].Tries
			stray := touch()
			stray.Nonce = fresh(t)
			r.cutAt(n, behind, func() { r.given(stray, secret.Bytes{}) })
			want := tries
			if behind || n == 2 {
				want++
			}
			if got := r.v.led.Users[userID].Tries; got != want {
				t.Errorf("cut at write %d (behind it: %v): %d tries on record, want %d", n, behind, got, want)
			}
		}
		g := touch()
		r.cutAt(2, behind, func() { r.given(g, secret.Bytes{}) })
		if got, reason := r.given(g, secret.Bytes{}); got || reason != KeyCloned {
			t.Errorf("behind it %v: not answered, and it opens: %v, %s", behind, got, reason)
		}
		if got, reason := r.given(touch(), secret.Bytes{}); !got {
			t.Errorf("behind it %v: the next touch: %s", behind, reason)
		}
	}
}

// What can not be written down opens nothing, and is not spent; a clock that is put back
// lets no key open, because nobody could tell the touch from an older one, and one far ahead
// opens nothing either. With the clock right the same key opens.
func TestO17AKeyOnAFullDiskAndWithAWrongClock(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		touch := r.withKey()
		full := r.onFullDisk()
		*full = true
		g := touch()
		for range 2 {
			if got, reason := r.given(g, secret.Bytes{}); got || reason != string(policy.ReasonStateWrite) {
				t.Errorf("on a full disk: %v, %s", got, reason)
			}
		}
		*full = false
		if got, reason := r.given(g, secret.Bytes{}); !got {
			t.Errorf("with room again, the same touch: %s", reason)
		}
		if got, reason := r.given(g, secret.Bytes{}); got || reason != KeyCloned {
			t.Errorf("once more: %v, %s", got, reason)
		}
		for _, x := range []struct {
			by   time.Duration
			want string
		}{{-time.Hour, ClockBehind}, {-30 * 24 * time.Hour, ClockBehind}, {3650 * 24 * time.Hour, string(policy.ReasonPolicyExpired)}} {
			r.clk.Advance(x.by)
			if got, reason := r.given(touch(), secret.Bytes{}); got || reason != x.want {
				t.Errorf("%s: %v, %s; want %s", x.by, got, reason, x.want)
			}
			r.clk.Advance(-x.by)
		}
		if got, reason := r.given(touch(), secret.Bytes{}); !got {
			t.Errorf("with the clock right: %s", reason)
		}
	})
}
