package main

// How this command speaks:
//
//   - What was asked for goes to standard output and nothing else does; every
//     other word goes to standard error, one sentence a line, after "latchkey: ".
//   - An error says what happened, why, and what to do next. All mistakes of an
//     input are told at once, one a line.
//   - A secret is printed once, when it is made, and only to standard output; it is
//     never taken from the command line.
//   - --output json is for programs: its field names are those of the API and do
//     not change. Lists are one array, events one object a line. The table is for
//     people and may change.
//   - Times are local in tables and UTC in JSON. Tables fit the terminal.
//   - Exit codes: 0 done, 1 it did not work, 2 the command line is wrong. Only
//     `signin` has one more: 3 for "the machine decides by itself".
//   - What destroys something asks first when a person sits there; --yes answers.

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/text"
)

// The forms of answers.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitIgnore = 3 // signin: left to the machine
)

// usageError is a mistake in the command line.
type usageError struct {
	error
	cmd *cobra.Command
}

func usagef(format string, a ...any) error { return usageError{error: fmt.Errorf(format, a...)} }

// ranError marks an error of a command that ran; what fails before that is a
// mistake in the command line (cobra has no type for those).
type ranError struct{ error }

func (r ranError) Unwrap() error { return r.error }

// codeError ends the command with a code of its own; everything was said.
type codeError int

func (c codeError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// flagRules are the sentences of cobra about flags that belong together.
var flagRules = []struct {
	says *regexp.Regexp
	word string
	join string
}{
	{regexp.MustCompile(`^required flag\(s\) (.*) not set$`), "%s must be given", " and "},
	{regexp.MustCompile(`^at least one of the flags in the group \[(.*)\] is required$`), "say which: give %s", " or "},
	{regexp.MustCompile(`^if any flags in the group \[.*\] are set none of the others can be; \[(.*)\] were all set$`), "%s do not go together", " and "},
}

// flagsInWords tells a wrong choice of flags as this program tells other mistakes.
func flagsInWords(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	for _, r := range flagRules {
		m := r.says.FindStringSubmatch(err.Error())
		if m == nil {
			continue
		}
		names := strings.FieldsFunc(m[1], func(c rune) bool { return strings.ContainsRune(`", `, c) })
		for i := range names {
			names[i] = "--" + names[i]
		}
		return usageError{fmt.Errorf(r.word, strings.Join(names, r.join)), cmd}
	}
	return err
}

// anyChanged tells whether one of these flags was given.
func anyChanged(f *pflag.FlagSet, names ...string) bool { return slices.ContainsFunc(names, f.Changed) }

// exit tells the error and gives the exit code.
func (a *app) exit(err error) int {
	var (
		code  codeError
		usage usageError
		ran   ranError
		p     *rest.Problem
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		for line := range strings.SplitSeq(usage.Error(), "\n") {
			a.say("%s", line)
		}
		if usage.cmd != nil {
			a.say("see: %s --help", usage.cmd.CommandPath())
		}
		return exitUsage
	case errors.As(err, &p):
		if len(p.Fields) == 0 {
			a.say("%s", p.Detail)
		}
		for _, f := range p.Fields {
			a.say("%s", fieldInWords(f))
		}
		return exitFailed
	}
	a.say("%s", err)
	if errors.As(err, &ran) {
		return exitFailed
	}
	return exitUsage
}

// fieldInWords names a field as the command line does.
func fieldInWords(f fault.Field) string {
	name := f.Name
	if s, ok := strings.CutPrefix(name, "settings."); ok {
		return s + ": " + f.Fault
	}
	switch name {
	case "mfa":
		name = "2fa"
	case "valid_for":
		name = "expires"
	}
	return strings.ReplaceAll(name, "_", "-") + ": " + f.Fault
}

// say tells people something beside the answer.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.err, "latchkey: "+text.CleanBlock(fmt.Sprintf(format, args...)))
}

// printer writes the answer for people.
type printer struct {
	w     io.Writer
	width int
	now   time.Time
	err   error
}

// line writes one line of our own words and a stranger's, cleaned.
func (p *printer) line(format string, args ...any) {
	p.raw(text.Clean(fmt.Sprintf(format, args...)) + "\n")
}

// raw writes what must not be touched: a QR code, a secret.
func (p *printer) raw(s string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, s)
	}
}

func (p *printer) table(t *text.Table, none string) {
	if t.Len() == 0 {
		p.line("%s", none)
		return
	}
	if p.err == nil {
		p.err = t.Write(p.w, p.width)
	}
}

// card writes names and values below each other; empty values are left out.
func (p *printer) card(pairs ...string) {
	wide := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			wide = max(wide, text.Width(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			p.line("%s:%s  %s", pairs[i], strings.Repeat(" ", wide-text.Width(pairs[i])), pairs[i+1])
		}
	}
}

// emit writes the answer in the form that was asked for.
func (a *app) emit(v any, table func(p *printer)) error {
	if a.output == outputJSON {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := bufio.NewWriter(a.out)
	p := &printer{w: w, width: a.width(), now: a.clock.Now()}
	table(p)
	return errors.Join(p.err, w.Flush())
}

// width is that of the terminal; 0 where there is none.
func (a *app) width() int {
	w, _, err := term.GetSize(int(a.out.Fd()))
	if err != nil {
		return 0
	}
	return w
}

func (a *app) terminal() bool { return term.IsTerminal(int(a.in.Fd())) }

// when is a time for people: local, to the minute.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04")
}

// ago is a time as a distance.
func (p *printer) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return text.Ago(t, p.now)
}

// confirm asks before something is destroyed. Without a terminal nobody can be
// asked, and whoever wrote the script has decided.
func (a *app) confirm(format string, args ...any) error {
	if a.yes || !a.terminal() {
		return nil
	}
	fmt.Fprintf(a.err, "%s Type yes: ", text.Clean(fmt.Sprintf(format, args...)))
	s, err := a.readLine()
	if err != nil || strings.TrimSpace(string(s.Reveal())) != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// maxTyped bounds what is read as one line.
const maxTyped = 4096

// lineReader reads lines of standard input one by one, without taking more from a
// terminal than needed.
type lineReader struct{ r *bufio.Reader }

// readLine reads one line from standard input, echoed if it is a terminal.
func (a *app) readLine() (secret.Bytes, error) {
	if a.lines == nil {
		a.lines = &lineReader{bufio.NewReaderSize(a.in, maxTyped)}
	}
	var (
		b   []byte
		err error
	)
	if !a.untilEnded(func() { b, err = a.lines.r.ReadSlice('\n') }) {
		return secret.Bytes{}, errInterrupted
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return secret.Bytes{}, fmt.Errorf("the line on standard input is longer than %d octets", maxTyped)
	case err != nil && (!errors.Is(err, io.EOF) || len(b) == 0):
		return secret.Bytes{}, err
	}
	out := secret.New([]byte(strings.TrimRight(string(b), "\r\n")))
	clear(b)
	return out, nil
}

// untilEnded reads from a terminal, and tells whether it came to its end before somebody
// has interrupted the program. A read that was interrupted goes on until the program ends,
// which is next.
func (a *app) untilEnded(read func()) bool {
	if a.ended == nil || !a.terminal() {
		read()
		return true
	}
	done := make(chan struct{})
	go func() { defer close(done); read() }()
	select {
	case <-done:
		return true
	case <-a.ended:
		return false
	}
}

// readSecret asks without echo on a terminal, and reads a line elsewhere.
func (a *app) readSecret(prompt string) (secret.Bytes, error) {
	if !a.terminal() {
		return a.readLine()
	}
	fmt.Fprint(a.err, prompt)
	var b []byte
	before, err := term.GetState(int(a.in.Fd()))
	if err != nil {
		return secret.Bytes{}, err
	}
	if !a.untilEnded(func() { b, err = term.ReadPassword(int(a.in.Fd())) }) {
		fmt.Fprintln(a.err)
		return secret.Bytes{}, errors.Join(errInterrupted, term.Restore(int(a.in.Fd()), before))
	}
	fmt.Fprintln(a.err)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(b), nil
}

// readPassword reads a new password: one line with fromStdin, else twice from the
// terminal. optional allows an empty one.
func (a *app) readPassword(user string, fromStdin, optional bool) (secret.Bytes, error) {
	if fromStdin {
		p, err := a.readLine()
		if errors.Is(err, io.EOF) || err == nil && p.Empty() {
			return p, errors.New("there is no password on standard input; give it as one line")
		}
		return p, err
	}
	if !a.terminal() {
		if optional {
			return secret.Bytes{}, nil
		}
		return secret.Bytes{}, usagef("there is no terminal to ask for the password at; give it as one line on standard input with --password-stdin")
	}
	hint := ""
	if optional {
		hint = " (empty: none yet)"
	}
	p, err := a.readSecret(fmt.Sprintf("New password for %s%s: ", text.Clean(user), hint))
	if err != nil || p.Empty() && optional {
		return p, err
	}
	again, err := a.readSecret("The same again: ")
	if err != nil {
		return p, err
	}
	defer again.Wipe()
	if !p.Equal(again) {
		p.Wipe()
		return p, errors.New("the two passwords differ; nothing was changed")
	}
	return p, nil
}
