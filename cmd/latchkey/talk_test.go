//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"latchkey/internal/clock"
	"latchkey/internal/server/push/phonetest"
)

func init() {
	realCmds["outbox"], realCmds["phone"], realCmds["talk"] = cmdOutbox, cmdOwnPhone, cmdTalk
}

// patience is how long a step of a talk may take.
const patience = 30 * time.Second

// outbox is a mail server that keeps what it takes; one of another's making.
type outbox struct {
	mu   sync.Mutex
	got  []string
	read int
}

// cmdOutbox: outbox starts one and sets $MAILPORT.
func cmdOutbox(ts *testscript.TestScript, _ bool, _ []string) {
	b := &outbox{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return b, nil }))
	s.Domain = "localhost"
	go func() { _ = s.Serve(l) }()
	ts.Defer(func() { _ = s.Close() })
	ts.Setenv("MAILPORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	talks(ts).box = b
}

func (*outbox) Reset()                               {}
func (*outbox) Logout() error                        { return nil }
func (*outbox) Mail(string, *smtp.MailOptions) error { return nil }
func (*outbox) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (b *outbox) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, string(raw))
	return err
}

var mailedCode = regexp.MustCompile(`code is (\d{8})`)

// next is the code of the next mail that holds one.
func (b *outbox) next() string {
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		b.mu.Lock()
		for b.read < len(b.got) {
			m := mailedCode.FindStringSubmatch(b.got[b.read])
			if b.read++; m != nil {
				b.mu.Unlock()
				return m[1]
			}
		}
		b.mu.Unlock()
	}
	return ""
}

// props are what the people of a script have at hand.
type props struct {
	box   *outbox
	phone *phonetest.Phone
}

var (
	propsMu sync.Mutex
	allOf   = map[string]*props{} // by the folder of the script
)

func talks(ts *testscript.TestScript) *props {
	propsMu.Lock()
	defer propsMu.Unlock()
	dir := ts.Getenv("WORK")
	if allOf[dir] == nil {
		allOf[dir] = &props{}
		ts.Defer(func() { propsMu.Lock(); delete(allOf, dir); propsMu.Unlock() })
	}
	return allOf[dir]
}

// cmdOwnPhone: phone LINK enrols a phone in software.
func cmdOwnPhone(ts *testscript.TestScript, _ bool, args []string) {
	p, err := phonetest.New(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}, clock.Real)
	ts.Check(err)
	p.Base = ts.Getenv("PEOPLE")
	ts.Check(p.Enrol(context.Background(), args[0], "my phone"))
	talks(ts).phone = p
}

// cmdTalk: talk STEPS OUT latchkey ARG… runs the command at a terminal, writes what was shown
// there into OUT, and does step by step what stands in STEPS:
//
//	see REGEXP   waits until that is shown, behind what was seen before
//	type TEXT    types a line
//	mail         types the code of the next mail
//	approve      types the number that was seen last on the phone
//	wrong        types another one there
//	deny         says no there
//	interrupt    presses Ctrl-C
func cmdTalk(ts *testscript.TestScript, neg bool, args []string) {
	steps, file, props := ts.ReadFile(args[0]), ts.MkAbs(args[1]), talks(ts)
	master, tty := openPTY(ts)
	defer master.Close()
	self := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[2]); self == "" {
			if _, err := os.Stat(p); err == nil {
				self = p
			}
		}
	}
	cmd := exec.Command(self, args[3:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), tty, tty, tty
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err := cmd.Start()
	ts.Check(err)
	_ = tty.Close()
	var (
		mu    sync.Mutex
		shown strings.Builder
	)
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			mu.Lock()
			shown.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.ReplaceAll(shown.String(), "\r\n", "\n")
	}
	fail := func(format string, a ...any) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ts.Fatalf("%s; shown was:\n%s", fmt.Sprintf(format, a...), text())
	}
	number := regexp.MustCompile(`type the number (\d+) there`)
	seen, last := 0, ""
	for line := range strings.Lines(steps) {
		step, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		switch step {
		case "":
		case "see":
			re := regexp.MustCompile(arg)
			for at := []int(nil); at == nil; time.Sleep(10 * time.Millisecond) {
				now := text()
				if at = re.FindStringIndex(now[seen:]); at != nil {
					if m := number.FindAllStringSubmatch(now, -1); m != nil {
						last = m[len(m)-1][1]
					}
					seen += at[1]
				} else if ctx.Err() != nil {
					fail("%q is not shown", arg)
				}
			}
		case "type", "mail":
			if step == "mail" {
				if arg = props.box.next(); arg == "" {
					fail("no mail came")
				}
			}
			_, err := io.WriteString(master, arg+"\n")
			ts.Check(err)
		case "approve", "wrong", "deny":
			r, c, err := props.phone.Next(ctx, patience)
			switch {
			case err != nil:
				fail("%v", err)
			case c.Place != "at a command line":
				fail("the phone is told that it is %q", c.Place)
			case step == "deny":
				err = props.phone.Deny(ctx, r)
			case step == "wrong":
				if err = props.phone.Approve(ctx, r, other(last)); phonetest.Code(err) == "number" {
					err = nil
				}
			default:
				err = props.phone.Approve(ctx, r, last)
			}
			if err != nil {
				fail("%s: %v", step, err)
			}
		case "interrupt":
			_, err := master.Write([]byte{3})
			ts.Check(err)
		default:
			ts.Fatalf("there is no step %q", step)
		}
		cancel()
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended
		ts.Fatalf("the command does not end; shown was:\n%s", text())
	}
	<-read
	ts.Check(os.WriteFile(file, []byte(text()), 0o600))
	if neg != (err != nil) {
		ts.Fatalf("%v; shown was:\n%s", err, text())
	}
}

func other(number string) string {
	if number == "11" {
		return "12"
	}
	return "11"
}

// openPTY opens a terminal: the end of who sits there, and the program's.
func openPTY(ts *testscript.TestScript) (master, tty *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	ts.Check(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	ts.Check(err)
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	return master, tty
}
