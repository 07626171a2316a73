package vault

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"latchkey/internal/policy"
)

// memFS records every operation that changes something, so that a power cut
// after any of them can be played. A file that was written and not yet renamed
// is lost, as is an append that was not synced; RealFS promises both.
type memFS struct {
	files map[string][]byte
	log   *[]func(map[string][]byte)
}

func newMemFS() *memFS { return &memFS{map[string][]byte{}, &[]func(map[string][]byte){}} }

func (m *memFS) do(op func(map[string][]byte)) {
	op(m.files)
	*m.log = append(*m.log, op)
}

func (m *memFS) ReadFile(name string) ([]byte, error) {
	b, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return append([]byte(nil), b...), nil
}

func (m *memFS) WriteFile(name string, data []byte) error {
	b := append([]byte(nil), data...)
	m.do(func(f map[string][]byte) { f[name] = b })
	return nil
}

func (m *memFS) Append(name string) (Appender, error) { return memAppender{m, name}, nil }

type memAppender struct {
	m    *memFS
	name string
}

func (a memAppender) Append(b []byte) error {
	// A crash may leave any part of an append: half of it is a step of its own.
	half := append([]byte(nil), b[:len(b)/2]...)
	rest := append([]byte(nil), b[len(b)/2:]...)
	a.m.do(func(f map[string][]byte) { f[a.name] = append(f[a.name][:len(f[a.name]):len(f[a.name])], half...) })
	a.m.do(func(f map[string][]byte) { f[a.name] = append(f[a.name][:len(f[a.name]):len(f[a.name])], rest...) })
	return nil
}
func (a memAppender) Close() error { return nil }

func (m *memFS) Remove(name string) error {
	m.do(func(f map[string][]byte) { delete(f, name) })
	return nil
}

func (m *memFS) List(dir string) (names []string, err error) {
	for n := range m.files {
		if d, base := path.Split(n); strings.TrimSuffix(d, "/") == dir {
			names = append(names, base)
		}
	}
	return names, nil
}
func (m *memFS) MkdirAll(string) error { return nil }
func (m *memFS) Lock(string) (*os.File, error) {
	return nil, nil
}

// After a power cut at any moment the machine starts, no attempt is given back,
// and a code that was answered with "allow" is not accepted again (O10). The
// software class is played because a TPM can not be turned back.
func TestO10EveryPrefixOfTheWritesIsAStateThatKeepsItsPromises(t *testing.T) {
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
	r.sync()
	r.enrol()
	wrongCode := secretCode("000000")
	type promise struct {
		after int // operations
		tries int
		used  bool
	}
	var promises []promise
	code := r.code()
	note := func(tries int, used bool) { promises = append(promises, promise{len(*mem.log), tries, used}) }
	note(0, false)
	for i := range 3 {
		r.want(false, WrongCode, policy.Logon, password, wrongCode)
		note(i+1, false)
	}
	r.want(true, OK, policy.Logon, password, code)
	note(0, true)
	r.want(false, CodeUsed, policy.Logon, password, code)
	note(1, true)

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
		us := r.v.led.Users[userID]
		if us.Tries < last.tries {
			t.Fatalf("cut after %d: %d tries on record, %d were answered", cut, us.Tries, last.tries)
		}
		got, reason := r.signin(policy.Logon, password, code)
		if last.used && got {
			t.Fatalf("cut after %d: a code is accepted twice", cut)
		}
		if !got && reason != CodeUsed {
			t.Fatalf("cut after %d: the machine is not usable: %s", cut, reason)
		}
		if r.v.problem != "" {
			t.Fatalf("cut after %d: %s %s", cut, r.v.problem, r.v.detail)
		}
	}
	if len(ops)-first < 10 {
		t.Errorf("only %d operations were recorded", len(ops)-first)
	}
	*mem.log = nil
	r.v = reopen(mem.files)
	if _, err := r.v.fs.ReadFile("nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
