//go:build linux

package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/test/scale"
)

// spoiled is a way to spoil a file.
type spoiled struct {
	what  string
	spoil func(path string) error
}

func edited(f func(b []byte) []byte) func(string) error {
	return func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, f(bytes.Clone(b)), 0o600)
	}
}

func bit(at func(n int) int) func(string) error {
	return edited(func(b []byte) []byte { b[at(len(b))] ^= 4; return b })
}

var spoils = []spoiled{
	{"gone", os.Remove},
	{"empty", edited(func([]byte) []byte { return nil })},
	{"cut in the middle", edited(func(b []byte) []byte { return b[:len(b)/2] })},
	{"a bit edited at its start", bit(func(int) int { return 1 })},
	{"a bit edited in the middle", bit(func(n int) int { return n / 2 })},
	{"a bit edited at its end", bit(func(n int) int { return n - 2 })},
	{"of zeros", edited(func(b []byte) []byte { return make([]byte, len(b)) })},
	{"of a newer version", edited(func(b []byte) []byte { binary.BigEndian.PutUint16(b[4:], version+1); return b })},
	{"somebody else's", func(path string) error { return os.Chown(path, 20001, 20001) }},
	{"open to others", func(path string) error { return os.Chmod(path, 0o644) }},
	{"a symbolic link", func(path string) error {
		return errors.Join(os.Rename(path, path+".elsewhere"), os.Symlink(path+".elsewhere", path))
	}},
	{"a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }},
}

// Every file of the state folder, spoiled in every way: the machine starts, nothing
// opens that would not have opened, the reason is the right one, and it is mended by
// what the reason says: by hand, or by the next contact and online sign-in (O17, O2).
func TestO17EveryFileSpoiledInEveryWay(t *testing.T) {
	const (
		damaged  = policy.ReasonVaultDamaged
		newer    = policy.ReasonVaultNewer
		foreign  = policy.ReasonVaultForeign
		restored = policy.ReasonVaultRolledBack
		// The journal is not what is judged with: the sign-in goes on, the gap is told.
		gap = policy.Reason("")
	)
	// What is said of a file that is gone, damaged, newer; somebody else's is foreign.
	said := map[string]struct{ gone, damaged, newer policy.Reason }{
		"state":   {restored, damaged, newer},
		"ledger":  {restored, damaged, newer},
		"journal": {gap, gap, newer},
		"policy":  {policy.ReasonPolicyAbsent, policy.ReasonPolicyForeign, policy.ReasonPolicyForeign},
		"vaults":  {damaged, damaged, newer},
		"bundles": {damaged, damaged, damaged},
	}
	both(t, func(t *testing.T, r *rig) {
		r.srv.pol.Offline = policy.OfflineMFAOrBypass
		r.sync()
		r.enrol()
		// A sign-in, so that the journal holds what was acknowledged.
		r.want(true, OK, policy.Logon, password, r.code())
		r.later()
		files := r.snapshot()
		var putBack func()
		if r.emu != nil {
			putBack = r.emu.Keep()
		}
		generation, n := r.srv.generation, 0
		for _, name := range slices.Sorted(maps.Keys(files)) {
			kind := name
			if d := filepath.Dir(name); d != "." {
				kind = d
			}
			want, known := said[kind]
			if !known {
				if name != "lock" {
					t.Errorf("the test does not know the file %s", name)
				}
				continue
			}
			for _, s := range spoils {
				// The TPM is asked for little of this: the short form tries a third with it.
				if n++; r.emu != nil && n%scale.N(3, 1) != 0 {
					continue
				}
				what := fmt.Sprintf("%s %s", name, s.what)
				if s.what == "somebody else's" && os.Geteuid() != 0 {
					t.Log("only root can give a file away: not tried")
					continue
				}
				if putBack != nil {
					putBack()
				}
				r.restore(files)
				r.srv.mu.Lock()
				r.srv.generation, r.srv.ready, r.srv.signed = generation, true, map[string]bool{}
				r.srv.mu.Unlock()
				ok(t, r.v.Close())
				ok(t, s.spoil(filepath.Join(r.dir, name)))
				r.open()

				reason, byHand := want.damaged, false
				switch s.what {
				case "gone":
					reason = want.gone
				case "of a newer version":
					reason, byHand = want.newer, want.newer == newer
				case "somebody else's", "open to others", "a symbolic link", "a folder":
					reason, byHand = foreign, true
				}
				got, why := r.signin(policy.Logon, password, r.code())
				d, _ := r.decide(policy.Logon)
				switch {
				case got && name == "state" && r.emu != nil && s.what == "a bit edited in the middle":
					continue // of the attestation key's record: the second factor was right
				case reason == gap && !byHand:
					if !got {
						t.Errorf("%s: the sign-in is refused: %s", what, why)
					}
					j, err := r.v.Pending(context.Background(), 100)
					ok(t, err)
					if !journalHas(j, event.JournalGap) {
						t.Errorf("%s: nothing was noticed", what)
					}
					continue
				case got, d.Outcome != policy.Deny && d.Outcome != policy.MFAOffline:
					t.Errorf("%s: it opens: %v, the rules say %s (%s)", what, got, d.Outcome, d.Reason)
				case why != string(reason):
					t.Errorf("%s: told as %q, want %q (%s)", what, why, reason, r.v.detail)
				}
				seq, hash := r.v.jour.head().Seq, r.v.jour.head().Hash
				if r.v.jour.reason != "" { // the server has what was there
					j := loadJournal(&memFS{map[string][]byte{"journal": files["journal"]}, &[]func(map[string][]byte){}}, machineID)
					seq, hash = j.head().Seq, j.head().Hash
				}
				if byHand {
					// Contact does not throw it away, the mend is enough.
					if _, err := r.v.Renew(context.Background(), seq, hash); err != nil {
						t.Errorf("%s: %v", what, err)
					}
					path := filepath.Join(r.dir, name)
					ok(t, os.RemoveAll(path))
					ok(t, os.WriteFile(path, files[name], 0o600))
					r.later()
					if got, why := r.signin(policy.Logon, password, r.code()); !got {
						t.Errorf("%s: put back, and still refused: %s", what, why)
					}
					continue
				}
				if _, err := r.v.Renew(context.Background(), seq, hash); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				r.sync()
				r.srv.mu.Lock()
				r.srv.ready = false
				r.srv.mu.Unlock()
				r.later()
				r.enrol()
				r.later()
				if got, why := r.signin(policy.Logon, password, r.code()); !got {
					t.Errorf("%s: not mended by contact and an online sign-in: %s", what, why)
				}
			}
		}
	})
}

// A network that breaks off while good data is extended damages nothing (O5).
func TestO5AnExtensionThatBreaksOffLeavesWhatIsThere(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		for _, what := range []string{"permit", "bundle", "ready"} {
			r.later()
			r.srv.fail[what] = errors.New("the network broke off")
			if _, err := r.tryEnrol(password); err == nil {
				t.Fatalf("%s: it did not fail", what)
			}
			delete(r.srv.fail, what)
			if g := r.v.led.Users[userID].Generation; g != 1 {
				t.Fatalf("%s: the data is of generation %d, was 1", what, g)
			}
			r.sync()
			r.want(true, OK, policy.Logon, password, r.code())
		}
	})
}

// fullFS is a folder on a disk that is full while full is set: new files can not be
// written, and of an entry that is appended only a part.
type fullFS struct {
	FS
	full *bool
	fits int // what there is room for all the same
}

func (f fullFS) WriteFile(name string, data []byte) error {
	if *f.full && len(data) > f.fits {
		return syscall.ENOSPC
	}
	return f.FS.WriteFile(name, data)
}

func (f fullFS) Append(name string) (Appender, error) {
	a, err := f.FS.Append(name)
	return fullAppender{a, f.full}, err
}

type fullAppender struct {
	Appender
	full *bool
}

func (a fullAppender) Append(b []byte) error {
	if *a.full {
		return errors.Join(a.Appender.Append(b[:len(b)/2]), syscall.ENOSPC)
	}
	return a.Appender.Append(b)
}

func (r *rig) onFullDisk() (full *bool) {
	full = new(bool)
	r.v.fs = fullFS{r.v.fs, full, 0}
	r.v.jour.close()
	r.v.jour.fs = r.v.fs
	return full
}

// What a full disk left of an entry is not built upon: the next one, which somebody is
// answered for, is there after a restart (O11).
func TestO11ATornEndIsNotBuiltUpon(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		r.want(true, OK, policy.Logon, password, r.code())
		full := r.onFullDisk()
		*full = true
		r.later()
		r.want(false, string(policy.ReasonStateWrite), policy.Logon, password, r.code())
		if err := r.v.Record(context.Background(), event.Event{Type: event.SigninDenied, Subject: "mallory"}); !errors.Is(err, ErrState) {
			t.Fatal("a full disk takes an entry:", err)
		}
		*full = false
		r.want(true, OK, policy.Logon, password, r.code())
		head := r.v.jour.head()
		r.restart()
		if h, there := r.v.jour.hashAt(head.Seq); !there || !bytes.Equal(h, head.Hash) {
			t.Fatalf("the entry of an accepted sign-in is gone: the journal ends at %d, ended at %d", r.v.jour.head().Seq, head.Seq)
		}
		j, err := r.v.Pending(context.Background(), 100)
		ok(t, err)
		if journalHas(j, event.JournalGap) || r.v.problem != "" {
			t.Errorf("the journal is called damaged: %s", r.v.detail)
		}
	})
}

// On a full disk nothing is given up for what can not be written, and nothing is made
// in the TPM again and again (O17).
func TestO17AFullDiskGivesNothingUp(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		next := func() uint32 {
			if r.emu == nil {
				return 0
			}
			h, err := r.config().Device.FreeHandles(context.Background(), 1)
			ok(t, err)
			return h[0]
		}
		full := r.onFullDisk()
		*full = true
		r.srv.ready = false // the server wants a new generation
		whole := r.v.fs
		for _, fits := range []int{0, 100 << 10} { // with room for a ledger, not for a bundle
			r.v.fs = fullFS{RealFS(r.dir), full, fits}
			for range 2 {
				if _, err := r.tryEnrol(password); !errors.Is(err, ErrState) {
					t.Fatal("offline data is made on a full disk:", err)
				}
			}
		}
		if st := r.v.Status(context.Background(), ""); st.Problem != policy.ReasonStateWrite {
			t.Errorf("nobody is told: %q", st.Problem)
		}
		r.v.fs = whole
		*full = false
		if st := r.v.Status(context.Background(), ""); st.Problem != "" {
			t.Errorf("with room again: %q", st.Problem)
		}
		r.want(true, OK, policy.Logon, password, r.code())
		j, err := r.v.Pending(context.Background(), 100)
		ok(t, err)
		refusals := 0
		for _, e := range j.Entries {
			if e.Event.Type == event.VaultRefused && e.Event.Reason == string(policy.ReasonStateWrite) && e.Event.Subject == "anna" && strings.Contains(string(e.Event.Data), "detail") {
				refusals++
			}
		}
		if refusals != 1 {
			t.Errorf("the server is told %d times", refusals)
		}
		// A policy that can not be kept holds, and what it takes away is removed.
		*full = true
		r.srv.disenrol = true
		r.srv.serial++
		if _, err := r.v.ApplyPolicy(context.Background(), r.srv.policyFile()); !errors.Is(err, ErrState) {
			t.Error("the policy was kept:", err)
		}
		if r.v.PolicySerial() != 0 {
			t.Error("it is not asked for again")
		}
		if d, _ := r.decide(policy.Logon); d.Outcome != policy.Deny {
			t.Errorf("a disenrolled person: %s", d.Outcome)
		}
		if names, err := r.v.fs.List("vaults"); err != nil || len(names) > 0 {
			t.Errorf("the data lies there still: %q %v", names, err)
		}

		// A first start.
		r.dir = filepath.Join(t.TempDir(), "agent")
		*full = true
		cfg := r.config()
		cfg.FS = fullFS{RealFS(r.dir), full, 0}
		free := next()
		v, err := Open(context.Background(), cfg)
		ok(t, err)
		defer v.Close()
		for range 3 {
			if f := v.Facts(context.Background(), "anna"); f.PolicyProblem != policy.ReasonStateWrite {
				t.Fatalf("told as %q", f.PolicyProblem)
			}
		}
		if n := next(); n != free {
			t.Errorf("counters were left in the TPM: the next free index was %#x and is %#x", free, n)
		}
		*full = false
		if f := v.Facts(context.Background(), "anna"); f.PolicyProblem != policy.ReasonPolicyAbsent {
			t.Errorf("with room again: %q", f.PolicyProblem)
		}
	})
}
