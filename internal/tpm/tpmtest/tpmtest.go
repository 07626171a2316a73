// Package tpmtest starts TPM emulators (swtpm) for tests and stands between
// them and the code under test. It is for tests alone and must not be linked
// into a binary.
package tpmtest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"latchkey/internal/clock"
)

// Emulator is a software TPM with a state folder of its own. It ends with the
// test.
type Emulator struct {
	t     testing.TB
	dir   string
	flags string
	cmd   *exec.Cmd
}

// Start starts an emulator that is ready for use. Without swtpm the test fails:
// a suite that skips its TPM proves nothing.
func Start(t testing.TB) *Emulator {
	t.Helper()
	return start(t, "not-need-init,startup-clear")
}

// StartRaw starts an emulator to which nobody has said TPM2_Startup yet, as after
// power-on.
func StartRaw(t testing.TB) *Emulator {
	t.Helper()
	return start(t, "not-need-init")
}

func start(t testing.TB, flags string) *Emulator {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Fatal("swtpm is not installed, and these tests are about a TPM: apt-get install swtpm")
	}
	dir, err := os.MkdirTemp("", "tpm") // short: a socket's path has about 100 octets
	if err != nil {
		t.Fatal(err)
	}
	e := &Emulator{t: t, dir: dir, flags: flags}
	t.Cleanup(func() { e.Kill(); _ = os.RemoveAll(dir) })
	e.Start()
	return e
}

// Socket is where the emulator listens, one connection at a time.
func (e *Emulator) Socket() string { return filepath.Join(e.dir, "s") }

// Spec names the emulator as tpm.OpenDevice and --tpm take it.
func (e *Emulator) Spec() string { return "socket:" + e.Socket() }

// Start starts a killed emulator on the state that it had.
func (e *Emulator) Start() {
	e.t.Helper()
	_ = os.Remove(e.Socket())
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+e.dir,
		"--server", "type=unixio,path="+e.Socket(), "--flags", e.flags)
	// It speaks of every client that leaves: of interest only when it fails.
	log, err := os.Create(filepath.Join(e.dir, "log"))
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.cmd = cmd
	for range 500 {
		if c, err := net.Dial("unix", e.Socket()); err == nil {
			_ = c.Close()
			return
		}
		sleep(10 * time.Millisecond)
	}
	said, _ := os.ReadFile(log.Name())
	e.t.Fatalf("swtpm did not start within 5 s: %s", said)
}

// Kill ends the emulator with SIGKILL: the power is cut.
func (e *Emulator) Kill() {
	if e.cmd != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait() // its error is that it was killed
		e.cmd = nil
	}
}

// Restart cuts the power and gives it back.
func (e *Emulator) Restart() {
	e.t.Helper()
	e.Kill()
	e.Start()
}

// Clear does TPM2_Clear, as firmware or an owner would.
func (e *Emulator) Clear() {
	e.t.Helper()
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(e); err != nil {
		e.t.Fatalf("clearing the TPM: %v", err)
	}
}

// SetOwnerAuth gives the owner hierarchy a password.
func (e *Emulator) SetOwnerAuth(auth []byte) {
	e.t.Helper()
	if _, err := (tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: auth},
	}).Execute(e); err != nil {
		e.t.Fatalf("setting the owner's password: %v", err)
	}
}

// Undefine deletes an NV index, as root could.
func (e *Emulator) Undefine(handle uint32) {
	e.t.Helper()
	h := tpm2.TPMHandle(handle)
	r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(e)
	if err != nil {
		e.t.Fatalf("deleting index %#08x: %v", handle, err)
	}
	if _, err := (tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: h, Name: r.NVName},
	}).Execute(e); err != nil {
		e.t.Fatalf("deleting index %#08x: %v", handle, err)
	}
}

// Extend extends a PCR of the SHA-256 bank, as firmware does that measures something
// new. A restart takes it back.
func (e *Emulator) Extend(pcr uint32, what string) {
	e.t.Helper()
	sum := sha256.Sum256([]byte(what))
	if _, err := (tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: sum[:]}}},
	}).Execute(e); err != nil {
		e.t.Fatalf("extending PCR %d: %v", pcr, err)
	}
}

// Fill takes what room the TPM has for indices, with handles from first on, and gives
// those that it took. A TPM keeps room for a few counters; it is taken only if asked.
func (e *Emulator) Fill(first uint32, counters bool) (taken []uint32) {
	e.t.Helper()
	ordinary := tpm2.TPMANV{AuthRead: true, AuthWrite: true, NoDA: true}
	counter := ordinary
	counter.NT = tpm2.TPMNTCounter
	kinds := []struct {
		size uint16
		a    tpm2.TPMANV
	}{{2048, ordinary}, {64, ordinary}, {8, ordinary}, {8, counter}}
	if !counters {
		kinds = kinds[:3]
	}
	for _, k := range kinds {
		for full := false; !full; {
			h := first + uint32(len(taken))
			_, err := tpm2.NVDefineSpace{
				AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
				PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{NVIndex: tpm2.TPMHandle(h), NameAlg: tpm2.TPMAlgSHA256, DataSize: k.size, Attributes: k.a}),
			}.Execute(e)
			switch {
			case err == nil:
				taken = append(taken, h)
			case errors.Is(err, tpm2.TPMRCNVSpace):
				full = true
			default:
				e.t.Fatalf("filling the TPM: %v", err)
			}
		}
	}
	return taken
}

// LockOut brings the whole TPM into its lock-out, by wrong passwords for something
// that is nobody's.
func (e *Emulator) LockOut() {
	e.t.Helper()
	c, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
		}),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: []byte("x")}, Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte("y")}),
		}},
	}.Execute(e)
	if err != nil {
		e.t.Fatalf("locking the TPM: %v", err)
	}
	defer func() { _, _ = tpm2.FlushContext{FlushHandle: c.ObjectHandle}.Execute(e) }()
	for range 100 {
		_, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: c.ObjectHandle, Name: c.Name, Auth: tpm2.PasswordAuth([]byte("bad"))}}.Execute(e)
		if errors.Is(err, tpm2.TPMRCLockout) {
			return
		}
	}
	e.t.Fatal("the TPM does not lock")
}

// Keep copies what the TPM has in its memory; the function puts the copy back, which
// nobody can do to a TPM that is not virtual. The power is cut for both.
func (e *Emulator) Keep() (putBack func()) {
	e.t.Helper()
	e.Kill()
	files := map[string][]byte{}
	names, err := filepath.Glob(filepath.Join(e.dir, "tpm2-*"))
	for _, n := range names {
		var b []byte
		if b, err = os.ReadFile(n); err != nil {
			break
		}
		files[n] = b
	}
	if err != nil || len(files) == 0 {
		e.t.Fatalf("the TPM's memory can not be copied: %v, %d files", err, len(files))
	}
	e.Start()
	return func() {
		e.t.Helper()
		e.Kill()
		for n, b := range files {
			if err := os.WriteFile(n, b, 0o600); err != nil {
				e.t.Fatal(err)
			}
		}
		e.Start()
	}
}

// Loaded is how many sessions and objects lie in the TPM.
func (e *Emulator) Loaded() int {
	e.t.Helper()
	n := 0
	for _, first := range []uint32{0x02000000, 0x03000000, 0x80000000} {
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 254}.Execute(e)
		if err != nil {
			e.t.Fatal(err)
		}
		l, err := r.CapabilityData.Data.Handles()
		if err != nil {
			e.t.Fatal(err)
		}
		n += len(l.Handle)
	}
	return n
}

// Send implements go-tpm's transport.TPM, with a connection for each command.
func (e *Emulator) Send(command []byte) ([]byte, error) {
	c, err := net.Dial("unix", e.Socket())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(clock.Deadline(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	return readMessage(c)
}

// readMessage reads a command or an answer: both have their size in the header.
func readMessage(r io.Reader) ([]byte, error) {
	h := make([]byte, 10)
	if _, err := io.ReadFull(r, h); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(h[2:])
	if n < 10 || n > 4096 {
		return nil, fmt.Errorf("a message of %d octets", n)
	}
	m := append(h, make([]byte, n-10)...)
	_, err := io.ReadFull(r, m[10:])
	return m, err
}

func sleep(d time.Duration) { _ = clock.Real.Sleep(context.Background(), d) }

// Answer is a TPM's answer that consists of a return code.
func Answer(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, code)
}

// Command is the command code of a command.
func Command(c []byte) uint32 { return binary.BigEndian.Uint32(c[6:]) }

// Proxy stands between the code under test and an emulator.
type Proxy struct {
	socket string

	mu   sync.Mutex
	hook func(command []byte) (answer []byte)
	edit func(command, answer []byte) []byte
	seen [][]byte
}

// NewProxy starts a proxy in front of e that lets everything through.
func NewProxy(t testing.TB, e *Emulator) *Proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{socket: filepath.Join(dir, "p")}
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); _ = os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(c, e)
		}
	}()
	return p
}

// Spec names the proxy as tpm.OpenDevice and --tpm take it.
func (p *Proxy) Spec() string { return "socket:" + p.socket }

// Hook sees every command before the emulator does. What it returns, unless it
// is nil, is the answer, and the emulator never sees the command; an empty one
// hangs up. It may wait. A nil hook lets everything through.
func (p *Proxy) Hook(hook func(command []byte) (answer []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = hook
}

// Edit sees every answer of the emulator and gives the one that is passed on. A
// nil edit passes on what comes.
func (p *Proxy) Edit(edit func(command, answer []byte) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit = edit
}

// Slow makes every command take d longer.
func (p *Proxy) Slow(d time.Duration) {
	p.Hook(func([]byte) []byte { sleep(d); return nil })
}

// Seen is all that has crossed so far, commands and answers in turn.
func (p *Proxy) Seen() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([][]byte(nil), p.seen...)
}

func (p *Proxy) serve(c net.Conn, e *Emulator) {
	defer func() { _ = c.Close() }()
	for {
		command, err := readMessage(c)
		if err != nil {
			return
		}
		p.mu.Lock()
		hook, edit := p.hook, p.edit
		p.mu.Unlock()
		var answer []byte
		if hook != nil {
			answer = hook(command)
		}
		if answer == nil {
			if answer, err = e.Send(command); err != nil {
				return
			}
			if edit != nil {
				answer = edit(command, answer)
			}
		}
		p.mu.Lock()
		p.seen = append(p.seen, command, answer)
		p.mu.Unlock()
		if len(answer) == 0 {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
