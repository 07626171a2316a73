package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// story is the demo as it is told: numbered steps, each with its result.
type story struct {
	*world
	n    int
	uri  string // otpauth, as the QR code holds it
	key  string
	qr   string
	used string   // the last code that was accepted
	back []string // backup codes left
	last *signin  // what the last sign-in showed
	name string   // account name of the person on the server
}

// play tells the story to the end, whoever plays.
func play(w *world) error {
	defer w.close()
	s := &story{world: w, name: w.user}
	began := time.Now()
	err := s.prepare()
	if err == nil {
		if atTerminal() {
			err = s.person()
		} else {
			err = s.alone()
		}
	}
	if err != nil {
		return err
	}
	fmt.Printf("\nEvery step came out as it should, in %s. Nothing of it is left on this machine.\n", time.Since(began).Round(time.Second))
	return nil
}

// step prints what is tried and what came of it. A step that goes wrong ends the story and shows what was seen.
func (s *story) step(title string, f func() (string, error)) error {
	s.n++
	s.last = nil
	fmt.Printf("%2d  %s\n", s.n, title)
	start := time.Now()
	result, err := f()
	if s.last != nil {
		for _, l := range strings.Split(s.last.screen, "\n") {
			fmt.Println("      │ " + l)
		}
	}
	took := time.Since(start).Round(10 * time.Millisecond)
	if err != nil {
		fmt.Printf("    ✗ FAILED after %s: %v\n", took, err)
		for name, p := range map[string]*process{"server": s.server, "agent": s.agent} {
			if t := p.tail(15); t != "" {
				fmt.Printf("      the %s's log ends with:\n        %s\n", name, strings.ReplaceAll(t, "\n", "\n        "))
			}
		}
		return fmt.Errorf("step %d, %q, failed", s.n, title)
	}
	fmt.Printf("    ✓ %s (%s)\n", result, took)
	return nil
}

// steps runs steps until one fails.
func steps(f ...func() error) error {
	for _, x := range f {
		if err := x(); err != nil {
			return err
		}
	}
	return nil
}

// prepare is the administrator's part.
func (s *story) prepare() error {
	return steps(
		func() error {
			return s.step("An administrator starts the server; it makes its keys, CA, database and default policy", func() (string, error) {
				return "it answers on its admin socket", s.startServer()
			})
		},
		func() error {
			return s.step("A machine joins with a one-time token; its agent starts", func() (string, error) {
				tpm, err := s.startTPM()
				if err != nil {
					return "", err
				}
				if err := s.join(); err != nil {
					return "", err
				}
				if err := s.startAgent(); err != nil {
					return "", err
				}
				return "the link is up; " + tpm, nil
			})
		},
		func() error {
			return s.step("The default policy: at most 2 offline sign-ins, so that the limit can be seen", func() (string, error) {
				_, err := s.cli("policy", "set", "default", "offline_signins=2")
				return "set", err
			})
		},
		func() error {
			return s.step("User "+s.name+" is made, with a password, an authenticator and backup codes", s.makeUser)
		},
	)
}

func (s *story) makeUser() (string, error) {
	if _, err := s.cliWith(password+"\n", "user", "add", s.name, "--password-stdin", "--2fa", "on"); err != nil {
		return "", err
	}
	out, err := s.cli("factor", "add", "totp", s.name, "--output", "json")
	if err != nil {
		return "", err
	}
	var totp struct{ URI, Key, QR string }
	if err := json.Unmarshal(out, &totp); err != nil || totp.URI == "" {
		return "", fmt.Errorf("no otpauth URI in %s (%v)", out, err)
	}
	u, err := url.Parse(totp.URI)
	if err != nil {
		return "", err
	}
	s.uri, s.qr, s.key = totp.URI, totp.QR, u.Query().Get("secret")
	out, err = s.cli("factor", "add", "backup", s.name, "--output", "json")
	if err != nil {
		return "", err
	}
	var backup struct{ Codes []string }
	if err := json.Unmarshal(out, &backup); err != nil || len(backup.Codes) == 0 {
		return "", fmt.Errorf("no codes in %s (%v)", out, err)
	}
	s.back = backup.Codes
	fmt.Println(indent(s.qr))
	return "an authenticator app scans this, or takes the key " + s.key, nil
}

func indent(text string) string {
	return "      " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n      ")
}

// code computes a code with oathtool, which shares nothing with Latchkey.
func (s *story) code(at time.Time) (string, error) {
	out, err := exec.CommandContext(s.ctx, "oathtool", "--totp", "-b", "--now", at.UTC().Format("2006-01-02 15:04:05 UTC"), s.key).Output()
	if err != nil {
		return "", fmt.Errorf("oathtool: %w", err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// freshCode returns a code that was not used, waiting for the next one if it must.
func (s *story) freshCode() (string, error) {
	for {
		now := time.Now()
		c, err := s.code(now)
		if err != nil {
			return "", err
		}
		left := 30*time.Second - time.Duration(now.Unix()%30)*time.Second
		if c != s.used && left > 4*time.Second { // enough time to type it
			s.used = c
			return c, nil
		}
		fmt.Printf("      … waiting %d s for the next code\n", int(left.Seconds()))
		select {
		case <-time.After(left + 200*time.Millisecond):
		case <-s.ctx.Done():
			return "", s.ctx.Err()
		}
	}
}

// wrongCode is a code that is right at no time round now.
func (s *story) wrongCode() (string, error) {
	taken := map[string]bool{}
	for d := -3; d <= 3; d++ {
		c, err := s.code(time.Now().Add(time.Duration(d) * 30 * time.Second))
		if err != nil {
			return "", err
		}
		taken[c] = true
	}
	for n := 111111; ; n += 1111 {
		if c := fmt.Sprint(n); !taken[c] {
			return c, nil
		}
	}
}

// What the prompts look like.
const (
	passwordPrompt = `password[^\n]*:`
	codePrompt     = `code[^\n]*:`
	menuPrompt     = `\[1-\d+\]:`
)

// app chooses the authenticator app where more than one kind of factor is offered; the app is preferred and so the first.
func app() answer { return answer{to: menuPrompt, say: "1"} }

func (s *story) pass() answer { return answer{passwordPrompt, password, "the password"} }

// signIn is one sign-in by the demo itself. Where the person is offered a choice of factors, choice is the answer.
func (s *story) signIn(service string, answers ...answer) (*signin, error) {
	got, err := converse(s.ctx, 50*time.Second, s.signInArgs(service), answers)
	s.last = got
	return got, err
}

// alone plays everything by itself.
func (s *story) alone() error {
	var code string
	var left int // seconds of the pause
	pause := regexp.MustCompile(`(?i)wait (\d+) s`)
	return steps(
		func() error {
			return s.step("Online: a logon with password and code", func() (string, error) {
				var err error
				if code, err = s.freshCode(); err != nil {
					return "", err
				}
				return "allowed", s.mustAllow(3, "login", s.pass(), app(), answer{to: codePrompt, say: code})
			})
		},
		func() error {
			return s.step("A second logon: the MFA window of the first one silences the code (W5)", func() (string, error) {
				if err := s.mustAllow(1, "login", s.pass()); err != nil {
					return "", err
				}
				return "allowed by the password alone", s.last.lacks(codePrompt)
			})
		},
		func() error {
			return s.step("sudo: there the window does not count, and a used code is worth nothing (S10)", func() (string, error) {
				wrong, err := s.wrongCode()
				if err != nil {
					return "", err
				}
				err = s.mustDeny(4, "sudo", s.pass(), app(), answer{to: codePrompt, say: code}, answer{to: codePrompt, say: wrong}, answer{to: codePrompt, say: wrong})
				if err != nil {
					return "", err
				}
				return "the replay was refused, and so were wrong codes", s.last.shows("used already")
			})
		},
		func() error {
			return s.step("More wrong codes: each makes the next one wait (S10)", func() (string, error) {
				wrong, err := s.wrongCode()
				if err != nil {
					return "", err
				}
				for range 4 {
					a := answer{to: codePrompt, say: wrong}
					if err := s.mustDeny(1, "sudo", s.pass(), app(), a, a, a); err != nil {
						return "", err
					}
					if m := pause.FindStringSubmatch(s.last.screen); m != nil {
						if _, err := fmt.Sscan(m[1], &left); err != nil {
							return "", err
						}
						return "backed off for " + m[1] + " s", nil
					}
				}
				return "", errors.New("nobody had to wait")
			})
		},
		func() error {
			return s.step("After the pause a fresh code opens sudo", func() (string, error) {
				time.Sleep(time.Duration(left)*time.Second + 500*time.Millisecond)
				c, err := s.freshCode()
				if err != nil {
					return "", err
				}
				return "allowed", s.mustAllow(3, "sudo", s.pass(), app(), answer{to: codePrompt, say: c})
			})
		},
		func() error {
			return s.step("The machine has fetched what it needs to do without the server", func() (string, error) {
				want, result := "software", "enrolled for offline sign-in, under the password and a key of this machine"
				if s.tpmArg != "none" {
					want, result = "tpm", "enrolled for offline sign-in; the key to check codes with is in the TPM and never leaves it"
				}
				return result, s.until("offline data", 30*time.Second, func() error {
					n, err := s.enrolments()
					if err == nil && n != 1 {
						err = fmt.Errorf("%d enrolments", n)
					}
					if err != nil {
						return err
					}
					class, err := s.class()
					if err == nil && class != want {
						err = fmt.Errorf("the data is kept in class %q, not %q", class, want)
					}
					return err
				})
			})
		},
		func() error {
			return s.step("The server is gone ("+s.how()+"): a logon with password and code (O3)", func() (string, error) {
				c, err := s.freshCode()
				if err != nil {
					return "", err
				}
				if err := s.cut(); err != nil {
					return "", err
				}
				if err := s.mustAllow(2, "login", s.pass(), answer{to: codePrompt, say: c}); err != nil {
					return "", err
				}
				for i, d := range s.last.waits {
					if d > 3*time.Second {
						return "", fmt.Errorf("prompt %d stood there only after %s (O1: 3 s)", i+1, d.Round(time.Millisecond))
					}
				}
				return fmt.Sprintf("allowed; the prompts stood there after %s and %s", s.last.waits[0].Round(time.Millisecond), s.last.waits[1].Round(time.Millisecond)), nil
			})
		},
		func() error {
			return s.step("Still gone: a backup code does it too, and says what is left (O16)", func() (string, error) {
				return "allowed", s.mustAllow(2, "login", s.pass(), answer{to: codePrompt, say: s.back[0], what: "a backup code"})
			})
		},
		func() error {
			return s.step("A third offline sign-in: the limit of 2 is used up (O6)", func() (string, error) {
				if err := s.mustDeny(0, "login", s.pass(), answer{to: codePrompt, say: s.back[1], what: "another backup code"}); err != nil {
					return "", err
				}
				return "denied, and the person is told to connect", s.last.shows(`used up|limit|connect`)
			})
		},
		func() error { return s.step("The server is back", s.delivered) },
		func() error {
			return s.step("The server's log is one unbroken chain (V4)", func() (string, error) {
				out, err := s.cli("events", "verify")
				return strings.SplitN(string(out), "\n", 2)[0], err
			})
		},
		func() error {
			return s.step("An administrator takes offline sign-in away: the machine wipes the data at once (O14)", s.disenrol)
		},
		func() error {
			return s.step("The server is gone once more: without that data there is no way in", func() (string, error) {
				if err := s.cut(); err != nil {
					return "", err
				}
				if err := s.mustDeny(0, "login", s.pass(), answer{to: codePrompt, say: s.back[1], what: "another backup code"}); err != nil {
					return "", err
				}
				return "denied", nil
			})
		},
	)
}

// how says in which way the server is gone.
func (s *story) how() string {
	if s.private {
		return "its packets are dropped"
	}
	return "it is frozen and answers nothing"
}

// mustAllow signs in and fails unless it was allowed after exactly n of the answers were asked for.
func (s *story) mustAllow(n int, service string, answers ...answer) error {
	got, err := s.signIn(service, answers...)
	switch {
	case err != nil:
		return err
	case !got.allowed:
		return errors.New("denied, but it should have been allowed")
	case got.said != n:
		return fmt.Errorf("%d answers were asked for, not %d", got.said, n)
	}
	return nil
}

// mustDeny signs in and fails unless it was denied after at least n of the answers were asked for.
func (s *story) mustDeny(n int, service string, answers ...answer) error {
	got, err := s.signIn(service, answers...)
	switch {
	case err != nil:
		return err
	case got.allowed:
		return errors.New("allowed, but it should have been denied")
	case got.said < n:
		return fmt.Errorf("only %d answers were asked for, not %d", got.said, n)
	}
	return nil
}

// enrolments counts what the server's report of offline enrolments lists for the person.
func (s *story) enrolments() (int, error) {
	out, err := s.cli("offline", "list", "--output", "json")
	if err != nil {
		return 0, err
	}
	var l []json.RawMessage
	if err := json.Unmarshal(out, &l); err != nil {
		return 0, fmt.Errorf("no list: %s", out)
	}
	return len(l), nil
}

// event is what the story reads of an event.
type event struct {
	ID, Type, Subject, Link, Service, Reason, Outcome string
}

// offlineEvents returns the sign-ins that the machine judged alone, as the server has them.
func (s *story) offlineEvents() ([]event, error) {
	out, err := s.cli("events", "--limit", "0", "--output", "json")
	if err != nil {
		return nil, err
	}
	var all []event
	dec := json.NewDecoder(bytes.NewReader(out)) // one object a line
	for dec.More() {
		var e event
		if err := dec.Decode(&e); err != nil {
			return nil, fmt.Errorf("%w in %s", err, out)
		}
		all = append(all, e)
	}
	var got []event
	for _, e := range all {
		if e.Link == "down" && strings.HasPrefix(e.Type, "signin.") {
			got = append(got, e)
		}
	}
	return got, nil
}

func (s *story) delivered() (string, error) {
	if err := s.mend(); err != nil {
		return "", err
	}
	if err := s.waitLink("up", 90*time.Second); err != nil {
		return "", err
	}
	want := func() error {
		l, err := s.offlineEvents()
		if err != nil {
			return err
		}
		allowed, denied, ids := 0, 0, map[string]bool{}
		for _, e := range l {
			ids[e.ID] = true
			switch e.Type {
			case "signin.allowed":
				allowed++
			case "signin.denied":
				denied++
			}
		}
		if allowed != 2 || denied != 1 || len(ids) != 3 {
			return fmt.Errorf("the server has %d allowed and %d denied offline sign-ins (%d events), not 2 and 1", allowed, denied, len(ids))
		}
		return nil
	}
	if err := s.until("delivery", 30*time.Second, want); err != nil {
		return "", err
	}
	time.Sleep(3 * time.Second) // what is delivered twice comes soon
	if err := want(); err != nil {
		return "", err
	}
	return "2 allowed and 1 denied sign-in were delivered, once each (O11)", nil
}

func (s *story) disenrol() (string, error) {
	before, err := s.vaultFiles()
	if err != nil {
		return "", err
	}
	if len(before) == 0 {
		return "", errors.New("the machine holds no offline data to wipe")
	}
	if _, err := s.cli("offline", "disenroll", "--user", s.name, "--machine", machineName, "--yes"); err != nil {
		return "", err
	}
	start := time.Now()
	err = s.until("wiping", 10*time.Second, func() error {
		l, err := s.vaultFiles()
		if err == nil && len(l) != 0 {
			err = fmt.Errorf("there is still %s", strings.Join(l, ", "))
		}
		return err
	})
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	return fmt.Sprintf("wiped %s after the command", took.Round(10*time.Millisecond)), s.until("the report", 10*time.Second, func() error {
		n, err := s.enrolments()
		if err == nil && n != 0 {
			err = fmt.Errorf("the report still lists %d", n)
		}
		return err
	})
}

// vaultFiles lists what the agent's folder holds for offline sign-ins of people.
func (s *story) vaultFiles() ([]string, error) {
	var out []string
	err := filepath.WalkDir(s.path("agent"), func(p string, d fs.DirEntry, err error) error {
		switch folder := filepath.Base(filepath.Dir(p)); {
		case errors.Is(err, fs.ErrNotExist): // wiped while it was looked at
			return nil
		case err != nil:
			return err
		case !d.IsDir() && (folder == "vaults" || folder == "bundles"):
			out = append(out, filepath.Join(folder, d.Name()))
		}
		return nil
	})
	return out, err
}

// person lets the one at the terminal play.
func (s *story) person() error {
	fmt.Printf(`
Scan the code above with an authenticator app. (Without one: oathtool --totp -b %s)
The password of %s is: %s

`, s.key, s.name, password)
	fmt.Println("Sign in now. The server is there.")
	if err := s.tries("login"); err != nil {
		return err
	}
	fmt.Println("\nThat opened an MFA window: another logon now asks for the password alone; sudo asks for the code. Try sudo,")
	fmt.Println("with the next code (a code counts once).")
	if err := ready(); err != nil {
		return err
	}
	if err := s.tries("sudo"); err != nil {
		return err
	}
	if err := s.until("offline data", 30*time.Second, func() error {
		n, err := s.enrolments()
		if err == nil && n == 0 {
			err = errors.New("not enrolled")
		}
		return err
	}); err != nil {
		return err
	}
	if err := s.cut(); err != nil {
		return err
	}
	fmt.Printf("\nThe server is gone now: %s. Sign in again, with the next code or with this backup code: %s\n", s.how(), s.back[0])
	if err := ready(); err != nil {
		return err
	}
	if err := s.tries("login"); err != nil {
		return err
	}
	if err := s.mend(); err != nil {
		return err
	}
	fmt.Println("\nThe server is back. What happened without it arrives there:")
	if err := s.waitLink("up", 90*time.Second); err != nil {
		return err
	}
	err := s.until("delivery", 30*time.Second, func() error {
		l, err := s.offlineEvents()
		if err == nil && len(l) == 0 {
			err = errors.New("nothing arrived yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	out, err := s.cli("events", "--output", "table")
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", out)
	return nil
}

// ready waits for Enter: a sign-in has fifty seconds, and the next code may take
// thirty of them. It reads no octet more than the line has.
func ready() error {
	fmt.Print("Press Enter when you have it: ")
	for b := []byte{0}; b[0] != '\n'; {
		if _, err := os.Stdin.Read(b); err != nil {
			return fmt.Errorf("waiting for Enter: %w", err)
		}
	}
	return nil
}

// tries lets the person sign in at the terminal until it works.
func (s *story) tries(service string) error {
	for {
		argv := s.signInArgs(service)
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		err := cmd.Run()
		if err == nil {
			return nil
		}
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		fmt.Println("Once more (Ctrl-C ends the demo).")
	}
}
