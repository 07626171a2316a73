package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answer is what the person at the keyboard does: wait for a prompt, type.
type answer struct {
	to   string // regular expression over what the screen shows since the last answer; it must end the screen
	say  string
	what string // shown in the transcript instead of a secret
}

// signin is one sign-in as a person saw it.
type signin struct {
	allowed bool
	screen  string          // everything that was shown, with what was typed marked
	said    int             // answers that were asked for
	waits   []time.Duration // until each prompt stood there: the first since the start, the others since the last answer
	took    time.Duration
}

// shows fails unless the screen holds each of the texts (regular expressions, upper and lower case alike).
func (s *signin) shows(texts ...string) error {
	for _, t := range texts {
		if !regexp.MustCompile("(?i)" + t).MatchString(s.screen) {
			return fmt.Errorf("the screen does not say %q", t)
		}
	}
	return nil
}

// lacks is the opposite of shows.
func (s *signin) lacks(text string) error {
	if regexp.MustCompile("(?i)" + text).MatchString(s.screen) {
		return fmt.Errorf("the screen says %q", text)
	}
	return nil
}

// screen collects what a program writes to its terminal.
type screen struct {
	mu    sync.Mutex
	all   bytes.Buffer // the transcript
	fresh bytes.Buffer // since the last answer
	moved chan struct{}
}

func (s *screen) read(f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			s.mu.Lock()
			s.all.Write(buf[:n])
			s.fresh.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.moved <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return
		}
	}
}

// converse starts a program on a terminal of its own and answers its prompts in order. A prompt that never comes ends the
// conversation when the program ends, or after limit.
func converse(ctx context.Context, limit time.Duration, argv []string, answers []answer) (*signin, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	master, slave, err := terminal()
	if err != nil {
		return nil, err
	}
	defer master.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.WaitDelay = 2 * time.Second
	start := time.Now()
	if err := cmd.Start(); err != nil {
		slave.Close()
		return nil, err
	}
	slave.Close()
	sc := &screen{moved: make(chan struct{}, 1)}
	drained := make(chan struct{})
	go func() { sc.read(master); close(drained) }()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	got := &signin{}
	last := start
	var result error
	running := true
	for _, a := range answers {
		want := regexp.MustCompile("(?is)" + a.to + `\s*$`)
		for running {
			sc.mu.Lock()
			there := want.Match(sc.fresh.Bytes())
			sc.mu.Unlock()
			if there {
				break
			}
			select {
			case <-sc.moved:
			case result = <-ended:
				running = false
			}
		}
		if !running {
			break
		}
		got.waits = append(got.waits, time.Since(last))
		got.said++
		time.Sleep(200 * time.Millisecond) // programs throw away what was typed before the prompt
		sc.mu.Lock()
		sc.fresh.Reset()
		what := a.what
		if what == "" {
			what = a.say
		}
		fmt.Fprintf(&sc.all, "‹%s›", what)
		sc.mu.Unlock()
		last = time.Now()
		if _, err := master.WriteString(a.say + "\n"); err != nil && running {
			break
		}
	}
	if running {
		result = <-ended
	}
	<-drained
	got.took = time.Since(start)
	got.screen = tidy(sc.all.String())
	got.allowed = result == nil
	var exit *exec.ExitError
	if result != nil && !errors.As(result, &exit) {
		return got, result
	}
	if ctx.Err() != nil {
		return got, fmt.Errorf("the sign-in did not end within %s", limit)
	}
	return got, nil
}

// tidy makes a transcript of terminal output.
func tidy(s string) string {
	s = strings.ReplaceAll(s, "\r", "")
	var out []string
	for _, l := range strings.Split(s, "\n") {
		if strings.TrimSpace(l) != "" {
			out = append(out, strings.TrimRight(l, " "))
		}
	}
	return strings.Join(out, "\n")
}

// terminal opens a pseudo-terminal.
func terminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("unlocking a terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("asking a terminal's number: %w", err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
