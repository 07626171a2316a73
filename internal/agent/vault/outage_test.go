package vault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/tpm/tpmtest"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

// outage cuts the power at one step of what a machine does: steps are the operations
// on files and the commands to the TPM, in the order in which they come. Behind the
// cut nothing happens any more.
type outage struct {
	mu   sync.Mutex
	at   int // the step that is not done, or done and not answered
	late bool
	n    int
	log  []string
}

var errPower = errors.New("the power is cut")

// step tells whether a step is done, and whether its outcome is heard.
func (o *outage) step(what string) (done, heard bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n++
	o.log = append(o.log, what)
	switch {
	case o.n < o.at:
		return true, true
	case o.n == o.at:
		return o.late, false
	}
	return false, false
}

func (o *outage) dark() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n >= o.at
}

// outageFS is a folder on that power. That WriteFile leaves the old file or the new
// one the tests of statefile show.
type outageFS struct {
	FS
	o *outage
}

func (f outageFS) do(what string, op func() error) error {
	done, heard := f.o.step(what)
	var err error
	if done {
		err = op()
	}
	if !heard {
		return errPower
	}
	return err
}

func (f outageFS) ReadFile(name string) ([]byte, error) {
	if f.o.dark() {
		return nil, errPower
	}
	return f.FS.ReadFile(name)
}

func (f outageFS) WriteFile(name string, data []byte) error {
	return f.do("write "+name, func() error { return f.FS.WriteFile(name, data) })
}

func (f outageFS) Remove(name string) error {
	return f.do("remove "+name, func() error { return f.FS.Remove(name) })
}

func (f outageFS) Append(name string) (Appender, error) {
	if f.o.dark() {
		return nil, errPower
	}
	a, err := f.FS.Append(name)
	return outageAppender{a, f, name}, err
}

type outageAppender struct {
	Appender
	f    outageFS
	name string
}

// Append is two steps: any part of it may be on the disk.
func (a outageAppender) Append(b []byte) error {
	err := a.f.do("append half to "+a.name, func() error { return a.Appender.Append(b[:len(b)/2]) })
	if err == nil {
		err = a.f.do("append the rest to "+a.name, func() error { return a.Appender.Append(b[len(b)/2:]) })
	}
	return err
}

// promised is what a machine has answered.
type promised struct {
	tries, signins int
	used           []secret.Bytes // codes
	entries        []wire.JournalEntry
	delivered      uint64
}

// plot does what a machine does in a day, notes what was answered, and stops when
// the power is gone.
type plot struct {
	*rig
	o *outage
	p promised
}

func (p *plot) did(f func()) bool {
	if p.o.dark() {
		return false
	}
	f()
	if p.o.dark() {
		return false // nobody was answered
	}
	us := p.v.led.Users[userID]
	p.p.tries, p.p.signins = us.Tries, us.Signins
	p.p.entries = append([]wire.JournalEntry(nil), p.v.jour.entries...)
	return true
}

func (p *plot) day() {
	p.did(func() { p.signin(policy.Logon, password, secretCode("000000")) })
	p.did(func() { p.signin(policy.Logon, secretCode("not the password"), p.code()) })
	code := p.code()
	if p.did(func() { p.signin(policy.Logon, password, code) }) {
		p.p.used = append(p.p.used, code)
	}
	p.later()
	p.did(func() { _ = p.v.Record(context.Background(), event.Event{Type: event.SigninIgnored, Subject: "root"}) })
	online, step := p.code(), p.srv.params.Step(p.clk.Now())
	if p.did(func() {
		_ = p.v.NoteOnline(context.Background(), userID, []wire.Spent{{Authenticator: "totp1", Step: step}})
	}) {
		p.p.used = append(p.p.used, online)
	}
	p.did(func() {
		head := p.v.jour.head()
		if p.v.Delivered(context.Background(), head.Seq, head.Hash) == nil && !p.o.dark() {
			p.p.delivered = head.Seq
		}
	})
	p.did(func() { p.signin(policy.Logon, password, secretCode("000000")) })
}

// holds checks the promises on a machine that was started again.
func (p *plot) holds() {
	p.Helper()
	at := fmt.Sprintf("power cut at step %d (%s, done: %v)", p.o.at, p.o.log[len(p.o.log)-1], p.o.late)
	if n := p.o.at - 1; n < len(p.o.log) {
		at = fmt.Sprintf("power cut at step %d (%s, done: %v)", p.o.at, p.o.log[n], p.o.late)
	}
	if p.v.problem != "" || p.v.policyProblem() != "" {
		p.Fatalf("%s: the state can not be used: %s %s %s", at, p.v.problem, p.v.detail, p.v.policyProblem())
	}
	us := p.v.led.Users[userID]
	if us.Tries < p.p.tries && us.Signins <= p.p.signins {
		p.Fatalf("%s: %d tries on record, %d were answered", at, us.Tries, p.p.tries)
	}
	for _, e := range p.p.entries {
		if e.Seq <= p.p.delivered {
			continue
		}
		if e.Seq <= p.v.jour.base.Seq { // taken by the server in the step that was cut
			continue
		}
		if h, there := p.v.jour.hashAt(e.Seq); !there || string(h) != string(e.Hash) {
			p.Fatalf("%s: journal entry %d (%s) was acknowledged and is gone", at, e.Seq, e.Event.Type)
		}
	}
	for _, e := range p.v.jour.entries {
		if e.Event.Type == event.JournalGap {
			p.Fatalf("%s: the machine itself says that the journal was edited", at)
		}
	}
	for _, c := range p.p.used {
		if in, reason := p.signin(policy.Logon, password, c); in || reason != CodeUsed && reason != WrongCode {
			p.Fatalf("%s: a code that was used opens again, or is refused as %q", at, reason)
		}
	}
	p.later()
	if in, reason := p.signin(policy.Logon, password, p.code()); !in {
		p.Fatalf("%s: the machine is not usable: %s", at, reason)
	}
}

// TestO10ATPMMachineKeepsItsPromisesWhereverThePowerIsCut: at every operation on a
// file and every command to the TPM of a day, done and not answered or not done at
// all, the power is gone; then the machine starts, nothing that was answered is
// undone, and it goes on (O8-O11).
func TestO10ATPMMachineKeepsItsPromisesWhereverThePowerIsCut(t *testing.T) {
	r := newRig(t, true)
	r.proxy = tpmtest.NewProxy(t, r.emu)
	r.srv.pol.Offline = policy.OfflineMFAOrBypass
	r.sync()
	r.enrol()
	files, now := r.snapshot(), r.clk.Now()
	putBack := r.emu.Keep()

	play := func(o *outage) *plot {
		putBack()
		r.clk = clock.NewManual(now)
		r.proxy.Hook(nil)
		r.proxy.Edit(nil)
		r.restore(files)
		p := &plot{rig: r, o: o}
		r.v.fs = outageFS{r.v.fs, o}
		r.v.jour.fs = r.v.fs
		r.proxy.Hook(func(c []byte) []byte {
			done, heard := o.step(fmt.Sprintf("TPM command %#x", tpmtest.Command(c)))
			if !done {
				return []byte{}
			}
			if !heard {
				_, _ = r.emu.Send(c)
				return []byte{}
			}
			return nil
		})
		p.day()
		_ = r.v.Close()
		r.proxy.Hook(nil)
		r.emu.Restart()
		r.open()
		p.holds()
		return p
	}
	whole := play(&outage{at: 1 << 30})
	steps := whole.o.n
	if steps < 60 {
		t.Fatalf("only %d steps: %q", steps, whole.o.log)
	}
	dice := rand.New(rand.NewPCG(1, 9))
	tried := scale.N(24, 2*steps)
	for i := range tried {
		o := &outage{at: 1 + i/2, late: i%2 == 1}
		if tried < 2*steps {
			o.at = 1 + i*steps/tried + dice.IntN(max(1, steps/tried))
		}
		play(o)
	}
	t.Logf("%d outages in %d steps", tried, steps)
}

// TestO10AnEnrolmentThatLosesThePowerIsWholeOrTold: while offline data is made anew
// the power is cut at every step. Then the person is enrolled with the old data or the
// new, or told that it was not finished; nothing opens without the second factor
// although the policy would let somebody without data in, and the next online sign-in
// mends it, in a TPM that has not been filled with what was left behind (O4, O5, O2).
func TestO10AnEnrolmentThatLosesThePowerIsWholeOrTold(t *testing.T) {
	r := newRig(t, true)
	r.proxy = tpmtest.NewProxy(t, r.emu)
	r.srv.pol.Offline = policy.OfflineMFAOrBypass
	r.sync()
	r.enrol()
	r.srv.ready = false // the next one is a new generation
	files, now, gen := r.snapshot(), r.clk.Now(), r.srv.generation
	putBack := r.emu.Keep()
	free := func() int {
		d := r.config().Device
		h, err := d.FreeHandles(context.Background(), 2)
		ok(t, err)
		return int(h[1])
	}
	most := 0
	play := func(o *outage) int {
		putBack()
		r.clk = clock.NewManual(now)
		r.proxy.Hook(nil)
		r.restore(files)
		r.srv.mu.Lock()
		r.srv.generation, r.srv.ready = gen, false
		r.srv.mu.Unlock()
		r.v.fs = outageFS{r.v.fs, o}
		r.v.jour.fs = r.v.fs
		r.proxy.Hook(func(c []byte) []byte {
			switch done, heard := o.step(fmt.Sprintf("TPM command %#x", tpmtest.Command(c))); {
			case !done:
				return []byte{}
			case !heard:
				_, _ = r.emu.Send(c)
				return []byte{}
			}
			return nil
		})
		_, _ = r.tryEnrol(password)
		_ = r.v.Close()
		r.proxy.Hook(nil)
		r.emu.Restart()
		r.open()
		at := fmt.Sprintf("power cut at step %d of %q", o.at, o.log)
		if r.v.problem != "" {
			t.Fatalf("%s: the state can not be used: %s %s", at, r.v.problem, r.v.detail)
		}
		switch d, _ := r.decide(policy.Logon); d.Outcome {
		case policy.MFAOffline:
			if in, reason := r.signin(policy.Logon, password, r.code()); !in && reason != string(policy.ReasonVaultDamaged) {
				t.Fatalf("%s: %s", at, reason)
			}
		case policy.Deny:
		default:
			t.Fatalf("%s: the sign-in is %s (%s)", at, d.Outcome, d.Reason)
		}
		r.sync()
		r.later()
		r.srv.mu.Lock()
		r.srv.signed = map[string]bool{}
		r.srv.mu.Unlock()
		r.enrol()
		r.want(true, OK, policy.Logon, password, r.code())
		if f := free(); most == 0 {
			most = f
		} else if f > most+2 {
			t.Fatalf("%s: indices were left in the TPM: the next free one is %#x, was %#x", at, f, most)
		}
		return o.n
	}
	steps := play(&outage{at: 1 << 30})
	tried := scale.N(8, 2*steps)
	dice := rand.New(rand.NewPCG(4, 4))
	for i := range tried {
		o := &outage{at: 1 + i/2, late: i%2 == 1}
		if tried < 2*steps {
			o.at = 1 + i*steps/tried + dice.IntN(max(1, steps/tried))
		}
		play(o)
	}
	t.Logf("%d outages in %d steps", tried, steps)
	if _, err := os.Stat(r.dir); err != nil {
		t.Error(err)
	}
}
