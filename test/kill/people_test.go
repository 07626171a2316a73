//go:build e2e

package kill

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
)

// totp is RFC 6238 written down a second time: the test takes nobody's word for a code.
func totp(key string, step int64) string {
	k, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimRight(key, "="))
	if err != nil {
		panic(err)
	}
	h := hmac.New(sha1.New, k)
	_ = binary.Write(h, binary.BigEndian, step)
	sum := h.Sum(nil)
	o := sum[len(sum)-1] & 15
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[o:])&0x7fffffff)%1000000)
}

// fresh is a step of alice's that nobody has used; half a minute goes by where this one's was.
func (w *world) fresh() int64 {
	step := w.now().Unix() / 30
	if step <= w.alice.step {
		w.pass(time.Duration(w.alice.step+1-step) * 30 * time.Second)
		step = w.alice.step + 1
	}
	w.alice.step = step
	return step
}

// wrong is a code that is right neither now nor soon.
func (w *world) wrong() string {
	var near []string
	for d := int64(-12); d <= 12; d++ {
		near = append(near, totp(w.alice.key, w.now().Unix()/30+d))
	}
	for {
		if c := fmt.Sprintf("%06d", w.rng.IntN(1000000)); !slices.Contains(near, c) {
			return c
		}
	}
}

// attempt is what a person does.
type attempt struct {
	who      *person
	full     bool      // Latchkey judges the password, else the machine has
	password string    // other than the person's own
	step     int64     // of the right code, given last; 0: none
	wrong    []string  // codes that come before it
	silent   bool      // goes away at the first prompt
	meet     func(int) // what happens at the n-th prompt, from 1
}

// What a sign-in came to.
const (
	allow  = "allow"
	deny   = "deny"
	ignore = "ignore"
	none   = "none" // the agent died, or the person went away
)

// result is what the shim saw.
type result struct {
	attempt
	tag     string
	s       *station
	verdict string
	text    string // of a denial
	mouth
	err    error
	stale  bool    // it took so long that the code may have run out
	events []noted // with its tag, once they were read
}

func (r *result) String() string {
	return fmt.Sprintf("%s at %s: %s %q, heard %q, typed %d codes (step %d), %v", r.tag, r.s.name, r.verdict, r.text, r.heard, r.typed, r.step, r.err)
}

// said tells whether the person read the text.
func (r *result) said(t string) bool { return r.text == t || slices.Contains(r.heard, t) }

// count is how often.
func (r *result) count(t string) (n int) {
	for _, h := range r.heard {
		if h == t {
			n++
		}
	}
	return n
}

// offlineSignin tells whether it was judged on the machine.
func (r *result) offlineSignin() bool { return slices.Contains(r.heard, text.OfflineNow) }

// mouth answers prompts from a list, and remembers what it was told.
type mouth struct {
	password string
	codes    []string
	typed    int
	secrets  int
	heard    []string
	asked    int
	before   func(n int) // is called at the n-th prompt, from 1
}

func (m *mouth) Secret(prompt string) (secret.Bytes, error) {
	m.asked++
	if m.before != nil {
		m.before(m.asked)
	}
	if strings.Contains(prompt, "assword") {
		if m.password == "" || m.secrets > 0 {
			return secret.Bytes{}, shim.ErrGaveUp
		}
		m.secrets++
		return secret.FromString(m.password), nil
	}
	if m.typed == len(m.codes) {
		return secret.Bytes{}, shim.ErrGaveUp
	}
	m.typed++
	return secret.FromString(m.codes[m.typed-1]), nil
}

func (m *mouth) Ask(prompt string) (secret.Bytes, error) { return m.Secret(prompt) }
func (m *mouth) Tell(s string)                           { m.heard = append(m.heard, s) }
func (m *mouth) Warn(s string)                           { m.heard = append(m.heard, s) }

// begin is what the shim says; the tag stands in every event as the terminal.
func (s *station) begin(a attempt, tag string) shim.Start {
	q := shim.Request{Service: "login", User: a.who.name, RUID: uint32(os.Getuid()), RUser: "root", TTY: tag, Mode: shim.ModeSecond, First: shim.FirstMachine}
	if a.full {
		q.Mode, q.First = shim.ModeFull, shim.FirstNone
	}
	return shim.Start{Phase: shim.PhaseAuth, Request: q}
}

// signin has somebody sign in, and enters what came of it into the book.
func (w *world) signin(s *station, a attempt) *result {
	w.t.Helper()
	r := w.converse(s, a)
	w.book.enter(w, r)
	return r
}

// converse has somebody sign in.
func (w *world) converse(s *station, a attempt) *result {
	w.t.Helper()
	r := &result{attempt: a, tag: w.book.tag(w.name), s: s, verdict: none}
	r.mouth.password = a.password
	if a.password == "" {
		r.mouth.password = a.who.password
	}
	r.codes, r.before = slices.Clone(a.wrong), a.meet
	if a.step != 0 {
		r.codes = append(r.codes, totp(w.alice.key, a.step))
	}
	if a.silent {
		r.mouth.password, r.codes = "", nil
	}
	begun := time.Now()
	c, err := s.dial()
	for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); c, err = s.dial() {
		time.Sleep(5 * time.Millisecond) // it is being started
	}
	if err == nil {
		var got shim.Result
		got, err = c.Converse(s.begin(a, r.tag), &r.mouth)
		c.Close()
		if err == nil {
			switch v := got.Verdict.(type) {
			case shim.Allow:
				r.verdict = allow
			case shim.Ignore:
				r.verdict = ignore
			case shim.Deny:
				r.verdict, r.text = deny, v.Text
			}
		}
		got.Authtok.Wipe()
	}
	r.err, r.stale = err, time.Since(begun) > 20*time.Second
	return r
}
