package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
)

const defaultAgent = "/run/latchkey/agent.sock"

// agent connects to the agent's socket.
func agent(ctx context.Context, path string) (*shim.ShimConn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return shim.NewShimConn(c), nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no socket %s: latchkey-agent does not run on this machine; start it, or name the socket with --socket", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nobody listens on %s: latchkey-agent does not run; start it", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("you may not open %s; try again with sudo", path)
	}
	return nil, fmt.Errorf("the agent at %s does not answer: %w", path, err)
}

func (a *app) signinCommand() *cobra.Command {
	var service, mode, scope, first, socket, tty, rhost string
	c := &cobra.Command{
		Use: "signin USER", Short: "Sign in from this terminal, as a PAM module would ask", Args: words("USER"),
		Long: `Speaks to this machine's agent as the PAM module does, for trying out and for scripts.
Prompts are answered at the terminal, secrets without echo; where standard input is no
terminal each answer is a line of it. Only root may sign in anybody; others may unlock
their own account.

Exit codes: 0 allowed, 1 denied, 3 left to the machine's own sign-in.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s := shim.Start{Phase: shim.PhaseAuth, Request: shim.Request{
				Service: service, User: args[0], RUID: uint32(max(0, os.Getuid())), PPID: uint32(max(0, os.Getppid())),
				TTY: tty, RHost: rhost, Mode: shim.Mode(mode), First: shim.First(first), Scope: shim.Scope(scope),
			}}
			if err := judge(&s, cmd); err != nil {
				return err
			}
			if me, err := user.Current(); err == nil {
				s.RUser = me.Username
			}
			if u, err := user.Lookup(s.User); err == nil {
				if uid, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
					s.Known, s.PWName, s.UID = true, u.Username, uint32(uid)
				}
			}
			if s.TTY == "" && a.terminal() {
				if name, err := os.Readlink("/proc/self/fd/0"); err == nil {
					s.TTY = name
				}
			}
			conn, err := agent(cmd.Context(), socket)
			if err != nil {
				return err
			}
			defer conn.Close()
			stop := context.AfterFunc(cmd.Context(), func() { _ = conn.Close() })
			defer stop()
			who := &person{a: a}
			r, err := conn.Converse(s, who)
			r.Authtok.Wipe()
			if s.First == shim.FirstNone {
				who.asked-- // the password
			}
			return a.verdict(cmd.Context(), s, who, r, err)
		},
	}
	f := c.Flags()
	f.StringVar(&service, "service", "", "PAM service, such as login, sudo or sshd; required")
	f.StringVar(&mode, "mode", string(shim.ModeFull), "full: the password is asked for too; second: the machine has judged it")
	f.StringVar(&scope, "scope", "", "logon, elevation or remote (default what the agent makes of the service)")
	f.StringVar(&first, "first", "", "who judged the first factor: none (with mode full), machine or sshkey")
	f.StringVar(&tty, "tty", "", "terminal to name (default this one)")
	f.StringVar(&rhost, "rhost", "", "remote host to name, as sshd would")
	f.StringVar(&socket, "socket", defaultAgent, "the agent's socket")
	if err := c.MarkFlagRequired("service"); err != nil {
		panic(err)
	}
	choose(c, "mode", string(shim.ModeFull), string(shim.ModeSecond))
	choose(c, "scope", scopeWords()...)
	choose(c, "first", string(shim.FirstNone), string(shim.FirstMachine), string(shim.FirstSSHKey))
	return c
}

// judge checks the words of a sign-in before the agent hears of it, all at once.
func judge(s *shim.Start, cmd *cobra.Command) error {
	var bad []string
	oneOf := func(flag, v string, allowed ...string) {
		for _, w := range allowed {
			if v == w {
				return
			}
		}
		bad = append(bad, fmt.Sprintf("--%s: %q is not allowed; allowed are %s", flag, text.CleanN(v, 40), strings.Join(allowed, ", ")))
	}
	oneOf("mode", string(s.Mode), string(shim.ModeFull), string(shim.ModeSecond))
	if s.Scope != shim.ScopeNone {
		oneOf("scope", string(s.Scope), scopeWords()...)
	}
	switch {
	case s.First == "" && s.Mode == shim.ModeSecond:
		s.First = shim.FirstMachine
	case s.First == "":
		s.First = shim.FirstNone
	case s.Mode == shim.ModeSecond:
		oneOf("first", string(s.First), string(shim.FirstMachine), string(shim.FirstSSHKey))
	default:
		oneOf("first", string(s.First), string(shim.FirstNone), string(shim.FirstSSHKey))
	}
	for flag, v := range map[string]string{"service": s.Service, "tty": s.TTY, "rhost": s.RHost, "USER": s.User} {
		if len(v) > 256 || strings.ContainsFunc(v, text.Invisible) {
			bad = append(bad, fmt.Sprintf("--%s: it is longer than 256 octets or holds control characters", flag))
		}
	}
	if s.Service == "" {
		bad = append(bad, "--service: it is empty; allowed is a PAM service such as login")
	}
	if len(bad) > 0 {
		return usageError{errors.New(strings.Join(bad, "\n")), cmd}
	}
	return nil
}

// verdict tells how the sign-in ended.
func (a *app) verdict(ctx context.Context, s shim.Start, who *person, r shim.Result, err error) error {
	type outcome struct {
		Outcome string `json:"outcome"`
		User    string `json:"user,omitempty"`
		Text    string `json:"text,omitempty"`
		Why     string `json:"why,omitempty"`
	}
	denied := func(why string) error {
		if err := a.emit(outcome{Outcome: "deny", Text: why}, func(p *printer) { p.line("Denied.") }); err != nil {
			return err
		}
		if why != "" {
			a.say("%s", why)
		}
		return codeError(exitFailed)
	}
	switch {
	case ctx.Err() != nil:
		return denied("interrupted")
	case errors.Is(err, shim.ErrGaveUp):
		return denied("there was no answer to a prompt: standard input has ended")
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return denied("the agent no longer waits for an answer: it took too long, or the agent was stopped. Begin again")
	case err != nil:
		return denied(fmt.Sprintf("the agent ended the conversation without a word, which is a denial (%v)", err))
	}
	switch v := r.Verdict.(type) {
	case shim.Allow:
		return a.emit(outcome{Outcome: "allow", User: v.User, Why: who.why}, func(p *printer) {
			p.line("Allowed: %s.", v.User)
			switch {
			case who.asked > 0:
			case who.why != "":
				p.line("No second factor was asked for. %s", who.why)
				p.line("The rule that decides: latchkey explain --user %s --machine THIS-ONE --scope %s --service %s (where you administer the server).", v.User, cmp.Or(string(s.Scope), string(shim.ScopeLogon)), s.Service)
			default:
				// The agent tells its reasons to root alone.
				p.line("No second factor was asked for: a window may be open, or the policy wants none here. Root is told which. The rule that")
				p.line("decides: latchkey explain --user %s --machine THIS-ONE --scope %s --service %s (where you administer the server).", v.User, cmp.Or(string(s.Scope), string(shim.ScopeLogon)), s.Service)
			}
		})
	case shim.Ignore:
		if err := a.emit(outcome{Outcome: "ignore", Why: who.why}, func(p *printer) { p.line("%s", strings.TrimSpace("Left to the machine's own sign-in. "+who.why)) }); err != nil {
			return err
		}
		return codeError(exitIgnore)
	case shim.Deny:
		return denied(v.Text)
	case shim.TooOld:
		return denied(v.Text)
	}
	return denied("")
}

// person is whoever sits at the terminal, or writes to standard input.
type person struct {
	a     *app
	asked int    // how many prompts were answered
	why   string // why the agent let in whom it let in, if it says so
}

func (p *person) Secret(prompt string) (secret.Bytes, error) { return p.answer(prompt, true) }
func (p *person) Ask(prompt string) (secret.Bytes, error)    { return p.answer(prompt, false) }

func (p *person) answer(prompt string, hidden bool) (secret.Bytes, error) {
	prompt = text.CleanBlock(prompt)
	p.asked++
	var (
		s   secret.Bytes
		err error
	)
	if hidden && p.a.terminal() {
		s, err = p.a.readSecret(prompt)
	} else {
		fmt.Fprint(p.a.err, prompt)
		s, err = p.a.readLine()
		if !p.a.terminal() {
			fmt.Fprintln(p.a.err) // nobody has typed a line end there
		}
	}
	if err != nil {
		return s, shim.ErrGaveUp
	}
	return s, nil
}

func (p *person) Tell(s string) {
	if why, ok := strings.CutPrefix(s, text.WhyHead); ok {
		p.why = text.CleanN(why, 256)
		return
	}
	fmt.Fprintln(p.a.err, text.CleanBlock(s))
}
func (p *person) Warn(s string) { fmt.Fprintln(p.a.err, text.CleanBlock(s)) }
