//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a program that runs on a pseudo terminal of its own.
type Terminal struct {
	t       testing.TB
	cmd     *exec.Cmd
	ptm     *os.File
	started time.Time
	done    chan struct{}

	mu   sync.Mutex
	out  []byte // without carriage returns
	read int    // what Expect has passed over
	more chan struct{}
	// refusal are texts after which no prompt is waited for.
	refusal []string
}

// Terminal starts a program as a user ("" is root) on a terminal that belongs to
// that user.
func (m *Machine) Terminal(name string, argv ...string) *Terminal {
	m.t.Helper()
	ptm, pts, err := openPTY()
	if err != nil {
		m.t.Fatalf("no pseudo terminal: %v", err)
	}
	defer pts.Close()
	if name != "" {
		uid, err := strconv.Atoi(strings.TrimSpace(m.Run("id", "-u", name)))
		if err == nil {
			err = pts.Chown(uid, -1)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	argv = m.inside(name, argv)
	t := &Terminal{t: m.t, ptm: ptm, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{}), more: make(chan struct{}, 1)}
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = pts, pts, pts
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	t.started = time.Now()
	if err := t.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		b := make([]byte, 4096)
		for {
			n, err := ptm.Read(b)
			if err != nil {
				return
			}
			t.mu.Lock()
			t.out = append(t.out, bytes.ReplaceAll(b[:n], []byte("\r"), nil)...)
			t.mu.Unlock()
			t.wake()
		}
	}()
	go func() {
		t.cmd.Wait()
		// What was printed last is still to be read; a program left behind in the
		// background may hold the terminal open.
		select {
		case <-drained:
		case <-time.After(300 * time.Millisecond):
		}
		close(t.done)
		t.wake()
	}()
	m.t.Cleanup(t.Close)
	return t
}

func openPTY() (ptm, pts *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	ptm = os.NewFile(uintptr(fd), "/dev/ptmx")
	pts, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		ptm.Close()
		return nil, nil, err
	}
	return ptm, pts, nil
}

func (t *Terminal) wake() {
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// Output is what was shown so far, carriage returns removed.
func (t *Terminal) Output() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.out)
}

// Expect waits for a text after what earlier calls have found, and tells whether
// it came before the time or the program ended.
func (t *Terminal) Expect(text string, within time.Duration) bool {
	end := time.After(within)
	for ended := false; ; {
		t.mu.Lock()
		i := bytes.Index(t.out[t.read:], []byte(text))
		if i >= 0 {
			t.read += i + len(text)
		}
		refused := false
		for _, no := range t.refusal {
			refused = refused || bytes.Contains(t.out[t.read:], []byte(no))
		}
		t.mu.Unlock()
		switch {
		case i >= 0:
			return true
		case ended || refused:
			return false
		}
		select {
		case <-t.more:
		case <-t.done:
			ended = true
		case <-end:
			return false
		}
	}
}

// Type types a line.
func (t *Terminal) Type(line string) { _, _ = t.ptm.Write([]byte(line + "\n")) }

// Press types octets as they are: "\x03" is Ctrl-C, "\x04" the end of input.
func (t *Terminal) Press(keys string) { _, _ = t.ptm.Write([]byte(keys)) }

// Exit waits for the end and returns the exit status, -1 after a signal or when the
// program had to be killed.
func (t *Terminal) Exit(within time.Duration) int {
	select {
	case <-t.done:
		return t.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		return -1
	}
}

// Close hangs up, as closing a window does.
func (t *Terminal) Close() {
	t.ptm.Close()
	select {
	case <-t.done:
	case <-time.After(2 * time.Second):
		t.cmd.Process.Kill()
		<-t.done
	}
}

// Turn is one prompt and its answer.
type Turn struct {
	// Prompt is a part of what is shown, best its end.
	Prompt string
	// Answer gives what is typed, when it is typed.
	Answer func() string
	// Keys says that Answer is typed as it is, without Enter.
	Keys bool
}

// Say makes turns of pairs: a prompt (string) and its answer (string, or func()
// string for what depends on the time).
func Say(pairs ...any) []Turn {
	var turns []Turn
	for i := 0; i+1 < len(pairs); i += 2 {
		turn := Turn{Prompt: pairs[i].(string)}
		switch a := pairs[i+1].(type) {
		case string:
			turn.Answer = func() string { return a }
		case func() string:
			turn.Answer = a
		default:
			panic("an answer is a string or a func() string")
		}
		turns = append(turns, turn)
	}
	if len(pairs)%2 != 0 {
		panic("a prompt without an answer")
	}
	return turns
}

// Result is how a sign-in went.
type Result struct {
	// Opened: a command ran behind the sign-in.
	Opened bool
	// Output is all that was shown.
	Output string
	// Exit is the exit status, -1 if the program had to be killed.
	Exit int
	// Unasked is the first prompt of the dialogue that did not come.
	Unasked string
	// Waits are the times from the start, or from the last answer, to each prompt.
	Waits []time.Duration
	// Took is the time from the start to the end.
	Took time.Duration
}

// Patience is how long a prompt, and the end, may take.
const Patience = 30 * time.Second

// marker is printed by the shell behind a sign-in. The terminal's echo of the
// command that prints it does not hold it.
const (
	marker    = "OPENED-42"
	markerCmd = "echo OPENED-$((6*7))"
)

// Talk answers prompts until they are used up or one does not come, then waits
// for the end.
func (t *Terminal) Talk(turns []Turn) Result {
	var r Result
	last := t.started
	for _, turn := range turns {
		if !t.Expect(turn.Prompt, Patience) {
			r.Unasked = turn.Prompt
			break
		}
		r.Waits = append(r.Waits, time.Since(last))
		// getpass of login and others throws away what was typed ahead.
		time.Sleep(200 * time.Millisecond)
		if turn.Keys {
			t.Press(turn.Answer())
		} else {
			t.Type(turn.Answer())
		}
		last = time.Now()
	}
	if r.Unasked != "" {
		t.ptm.Close() // hang up
	}
	r.Exit = t.Exit(Patience)
	r.Took = time.Since(t.started)
	r.Output = t.Output()
	r.Opened = strings.Contains(r.Output, marker)
	return r
}
