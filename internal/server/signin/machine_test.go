package signin_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/wire"
)

// Whatever steps come in whatever order: nobody gets in without the password and a
// code that was never accepted before, or a window of the same user, machine and
// boot, at a logon.
func TestNoOrderOfStepsOpensWithoutTheFactors(t *testing.T) {
	c := clock.NewManual(start)
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
	r.svc.Impatient()
	round, opened, silent := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		// People and machines of its own, over one store: opening one takes longer.
		round++
		m := &model{r: r, used: map[string]bool{}, windows: map[string]time.Time{}}
		for _, name := range []string{"alice", "bob"} {
			u := r.addUser(fmt.Sprint(name, round))
			m.people = append(m.people, &person{u.Name, r.addTOTP(u), r.addBackup(u)})
		}
		for range 2 {
			m.machines = append(m.machines, new(r.addMachine(fmt.Sprint("desk-", round))))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"begin":  m.begin,
			"answer": m.answer,
			"answer again and again": func(rt *rapid.T) {
				for range rapid.IntRange(1, 4).Draw(rt, "times") {
					m.answer(rt)
				}
			},
			"begin again": m.begin,
			"go on sensibly": func(rt *rapid.T) {
				t := m.pick(rt)
				for i := 0; t != nil && !t.over && i < 4; i++ {
					m.sensible(rt, t)
				}
			},
			"repeat": m.repeat,
			"cancel": func(rt *rapid.T) {
				if t := m.pick(rt); t != nil {
					m.took(rt, t, wire.Step{Cancel: true}, "", "")
				}
			},
			"wait": func(rt *rapid.T) {
				c.Advance(rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute, 20 * time.Minute, 9 * time.Hour}).Draw(rt, "time"))
			},
			"expire": func(rt *rapid.T) {
				if _, err := r.svc.Expire(t.Context()); err != nil {
					rt.Fatal(err)
				}
			},
		})
		opened, silent = opened+len(m.used), silent+m.silent
	})
	r.eachEndHasOneEvent()
	r.nothingSecretIsStored()
	if opened == 0 {
		t.Errorf("in %d rounds %d sign-ins were opened and %d were silent: the test looks at nothing", round, opened, silent)
	}
	t.Logf("%d rounds, %d opened, %d silent", round, opened, silent)
}

// draw chooses one without printing it.
func draw[T any](rt *rapid.T, label string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(rt, label)]
}

type person struct {
	name  string
	phone app
	codes []string
}

type model struct {
	r        *rig
	people   []*person
	machines []*db.Machine
	talks    []*tale
	used     map[string]bool      // codes that were accepted
	windows  map[string]time.Time // user, machine, boot → end
	silent   int
}

// tale is a conversation as the model knows it.
type tale struct {
	*conv
	who      *person
	born     time.Time
	begin    wire.Begin
	password bool // the right one was given
	over     bool
}

func (m *model) begin(rt *rapid.T) {
	who := draw(rt, "who", m.people)
	b := begin(who.name, boot(rapid.SampledFrom([]string{"b1", "b2"}).Draw(rt, "boot")))
	typed := rapid.SampledFrom([]string{password, password, wrongPassword, "", newPassword}).Draw(rt, "password")
	with(typed)(&b)
	switch rapid.SampledFrom([]string{"logon", "sudo", "ssh"}).Draw(rt, "scope") {
	case "sudo":
		in(policy.Elevation, "sudo")(&b)
	case "ssh":
		ssh(&b)
	}
	t := &tale{conv: m.r.talk().on(*draw(rt, "machine", m.machines)), who: who, begin: b, born: m.r.clock.Now()}
	m.talks = append(m.talks, t)
	m.took(rt, t, wire.Step{Begin: &b}, typed, "")
}

func (m *model) pick(rt *rapid.T) *tale {
	var open []*tale
	for _, t := range m.talks {
		if !t.over {
			open = append(open, t)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return draw(rt, "conversation", open)
}

// answer says something, sensible or not, to a conversation that is open.
func (m *model) answer(rt *rapid.T) {
	t := m.pick(rt)
	if t == nil {
		return
	}
	other := m.people[0]
	if other.name == t.who.name {
		other = m.people[1]
	}
	step := otp.DefaultParams.Step(m.r.clock.Now())
	kind := rapid.SampledFrom([]string{"code", "code", "backup", "choose", "old code", "other's code", "other's backup", "password", "wrong password", "blank", "digits", "junk"}).Draw(rt, "answer")
	var say, code string
	switch kind {
	case "code":
		say = t.who.phone.code()
		code = fmt.Sprint(t.who.name, " totp ", step)
	case "old code":
		off := rapid.Int64Range(-3, 3).Draw(rt, "steps away")
		say = otp.DefaultParams.Code(t.who.phone.seed, step+off)
		if off >= -3 && off <= 3 { // drift may make it right
			code = fmt.Sprint(t.who.name, " totp ", step+off)
		}
	case "backup":
		i := rapid.IntRange(0, len(t.who.codes)-1).Draw(rt, "which")
		say, code = t.who.codes[i], fmt.Sprint(t.who.name, " backup ", i)
	case "choose":
		say = rapid.SampledFrom([]string{"1", "2", "3", "0", "-1"}).Draw(rt, "choice")
	case "other's code":
		say = other.phone.code()
	case "other's backup":
		say = other.codes[0]
	case "password":
		say = password
	case "wrong password":
		say = wrongPassword
	case "digits":
		say = "000000"
	case "junk":
		say = "\x00\xff'; DROP TABLE users"
	}
	m.took(rt, t, answerStep(say), say, code)
}

// sensible answers what was asked as its owner would.
func (m *model) sensible(rt *rapid.T, t *tale) {
	switch t.last.Prompt.For {
	case wire.ForPassword:
		m.took(rt, t, answerStep(password), password, "")
	case wire.ForChoice:
		m.took(rt, t, answerStep("1"), "", "")
	default:
		step := otp.DefaultParams.Step(m.r.clock.Now())
		m.took(rt, t, answerStep(t.who.phone.code()), "", fmt.Sprint(t.who.name, " totp ", step))
	}
}

// took sends the step and holds the reply against what may be.
func (m *model) took(rt *rapid.T, t *tale, s wire.Step, typed, code string) {
	asked := ""
	if t.last.Prompt != nil && t.err == nil {
		asked = t.last.Prompt.For
	}
	if (s.Begin != nil || asked == wire.ForPassword) && typed == password {
		t.password = true
	}
	t.send(s)
	if t.err != nil {
		t.over = true
		return
	}
	if t.last.Prompt != nil {
		if f := t.last.Prompt.For; f != wire.ForPassword && !t.password {
			rt.Fatalf("asks for %s without the password", f)
		}
		return
	}
	t.over = true
	d := t.last.Done
	if d.Outcome != policy.Allow {
		return
	}
	key := t.who.name + t.m.ID + t.begin.Boot
	switch {
	case !t.password:
		rt.Fatalf("allowed without the password: %s", t.show())
	case d.MFA:
		if asked != wire.ForCode || code == "" {
			rt.Fatalf("allowed by something that is no code of %s: %s", t.who.name, t.show())
		}
		if m.used[code] {
			rt.Fatalf("%s was accepted twice", code)
		}
		m.used[code] = true
		m.windows[key] = m.r.clock.Now().Add(8 * time.Hour)
	case t.begin.Scope != policy.Logon || !m.r.clock.Now().Before(m.windows[key]):
		rt.Fatalf("silent without a window: %s", t.show())
	default:
		m.silent++
	}
}

// repeat sends the last step of any conversation again: nothing changes.
func (m *model) repeat(rt *rapid.T) {
	if len(m.talks) == 0 {
		return
	}
	t := draw(rt, "conversation", m.talks)
	// What is older than a day is forgotten, and its beginning begins anew.
	if t.err != nil || m.r.clock.Now().Sub(t.born) > 24*time.Hour {
		return
	}
	events, was := m.events(), t.show()
	t.again()
	if got := t.show(); t.err == nil && got != was {
		rt.Fatalf("a repeat was answered differently:\n%s\n%s", was, got)
	}
	if n := m.events(); n != events {
		rt.Fatalf("a repeat made %d events", n-events)
	}
}

// events is how many there are.
func (m *model) events() (n int64) {
	m.r.read(func(q *store.Queries) error {
		chains, err := q.ListChains(context.Background())
		for _, c := range chains {
			n += c.Seq
		}
		return err
	})
	return n
}
