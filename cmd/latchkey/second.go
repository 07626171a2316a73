package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/text"
)

// second asks for a second factor, at a login and where one is wanted anew: as over ssh,
// by a menu of numbers, the strongest first, and without one where there is nothing to
// choose. Where there is no terminal it takes what --factor says, else a line that is a
// code, else the strongest; then nothing is asked twice.
type second struct {
	app    *app
	server string
	ways   []rest.Way
	wanted string // by --factor; empty: none
	choose func(ctx context.Context, kind string, again bool) (rest.Asked, error)
	// answer brings a code, or looks whether the answer has come that comes another way.
	answer func(ctx context.Context, kind string, code secret.Bytes) (done bool, err error)
	// cancel says that nobody waits any more.
	cancel func(ctx context.Context) error

	asked rest.Asked   // what was sent and can still be answered
	typed secret.Bytes // what stood on standard input before the kind was known
}

var (
	errBack        = errors.New("back to the choice")
	errNotGiven    = errors.New("no second factor was given")
	errInterrupted = errors.New("interrupted")
)

// maxWrongAnswers is how often somebody is asked again here; a server may end it before.
const maxWrongAnswers = 3

// leastLook is the least time between two looks whether a phone has answered. The server
// waits by itself; this is for one that does not.
const leastLook = time.Second

// give asks until a factor was accepted, or nothing is left to ask for.
func (x *second) give(ctx context.Context) error {
	var here []rest.Way
	for _, w := range x.ways {
		if w.Browser {
			x.app.say("%s: in a browser only, at %s", w.Option, x.server)
		} else {
			here = append(here, w)
		}
	}
	if len(here) == 0 {
		return fmt.Errorf("you have no second factor that can be given at a command line; use a browser, at %s, or add another factor there (%s/me/factors)", x.server, x.server)
	}
	x.ways = here
	for first := true; ; first = false {
		w, again, err := x.pick(first)
		if err != nil {
			return err
		}
		if err = x.ask(ctx, w, again); !errors.Is(err, errBack) {
			return err
		}
	}
}

// pick finds out which factor is to be given; again: what it sends shall be sent anew.
func (x *second) pick(first bool) (w rest.Way, again bool, err error) {
	if first && x.wanted != "" {
		for _, w := range x.ways {
			if w.Kind == x.wanted {
				return w, false, nil
			}
		}
		var kinds []string
		for _, w := range x.ways {
			kinds = append(kinds, w.Kind)
		}
		return w, false, fmt.Errorf("--factor: you have none of the kind %q that can be given here; you have: %s", text.CleanN(x.wanted, 32), strings.Join(kinds, ", "))
	}
	switch {
	case first && len(x.ways) == 1:
		return x.ways[0], false, nil
	case x.app.terminal():
		return x.menu()
	}
	return x.unasked()
}

// unasked picks where nobody can be asked: a code by its form, where there are codes.
func (x *second) unasked() (rest.Way, bool, error) {
	var codes []string
	for _, w := range x.ways {
		if w.Kind == "totp" || w.Kind == "backup" {
			codes = append(codes, w.Kind)
		}
	}
	if len(codes) == 0 {
		return x.ways[0], false, nil
	}
	code, err := x.app.readLine()
	if err != nil || code.Empty() {
		return rest.Way{}, false, errNotGiven
	}
	x.typed = code
	kind := codeKind(code, codes)
	for _, w := range x.ways {
		if w.Kind == kind {
			return w, false, nil
		}
	}
	return x.ways[0], false, nil
}

// codeKind tells a backup code from one of an app by its form.
func codeKind(code secret.Bytes, kinds []string) string {
	digits := strings.Trim(strings.TrimSpace(string(code.Reveal())), "0123456789 ") == ""
	for _, k := range kinds {
		if len(kinds) == 1 || (k == "backup") != digits {
			return k
		}
	}
	return kinds[0]
}

// menu shows the choice and reads a number.
func (x *second) menu() (rest.Way, bool, error) {
	options := make([]string, 0, len(x.ways)+1)
	var sent *rest.Way
	for i, w := range x.ways {
		options = append(options, w.Option)
		if w.Sends && !w.Waits && w.Kind == x.asked.Kind {
			sent = &x.ways[i]
		}
	}
	if sent != nil {
		options = append(options, "Send the code again")
	}
	for range maxWrongAnswers {
		fmt.Fprintln(x.app.err, text.PromptFactor)
		for i, o := range options {
			fmt.Fprintf(x.app.err, "  %d) %s\n", i+1, text.Clean(o))
		}
		fmt.Fprintf(x.app.err, "[1-%d]: ", len(options))
		line, err := x.app.readLine()
		if err != nil {
			return rest.Way{}, false, readFault(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(line.Reveal())))
		switch {
		case err != nil || n < 1 || n > len(options):
			x.app.say("%s", text.NotAChoice)
		case n > len(x.ways):
			return *sent, true, nil
		default:
			return x.ways[n-1], false, nil
		}
	}
	return rest.Way{}, false, errNotGiven
}

func readFault(err error) error {
	if errors.Is(err, errInterrupted) {
		return err
	}
	return errNotGiven
}

// ask asks for one factor. errBack: something else may be chosen.
func (x *second) ask(ctx context.Context, w rest.Way, again bool) error {
	if w.Sends && (again || x.asked.Kind != w.Kind) {
		asked, err := x.choose(ctx, w.Kind, again)
		if err != nil {
			// Nothing could be sent. What was sent before still counts.
			if x.app.terminal() && (len(x.ways) > 1 || again) && said(err, fault.TooMany, fault.Unavailable, fault.Invalid) {
				x.tell(err)
				return errBack
			}
			return err
		}
		x.asked = asked
		if asked.Tell != "" {
			x.app.say("%s", asked.Tell)
		}
	}
	if w.Waits {
		return x.wait(ctx, w)
	}
	return x.code(ctx, w)
}

// wait looks until the phone has answered.
func (x *second) wait(ctx context.Context, w rest.Way) error {
	x.app.say("%s", x.asked.Prompt)
	x.app.say("waiting for your phone; Ctrl-C gives up")
	err := x.look(ctx, w)
	if errors.Is(err, errInterrupted) {
		x.withdraw(ctx)
	}
	return err
}

// cancelTime bounds what is still said to the server behind Ctrl-C.
const cancelTime = 3 * time.Second

// withdraw has the phone ask no more, for somebody who does not wait.
func (x *second) withdraw(ctx context.Context) {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer done()
	if err := x.cancel(ctx); err != nil {
		x.app.say("the server could not be told (%s): your phone may ask for up to a minute; deny it there", err)
	}
}

// look asks until there is an answer.
func (x *second) look(ctx context.Context, w rest.Way) error {
	for {
		began := x.app.clock.Now()
		done, err := x.answer(ctx, w.Kind, secret.Bytes{})
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		case err == nil && done:
			return nil
		case err == nil:
			if left := leastLook - x.app.clock.Now().Sub(began); left > 0 && x.app.clock.Sleep(ctx, left) != nil {
				return errInterrupted
			}
			continue
		}
		x.asked = rest.Asked{}
		if x.app.terminal() && said(err, fault.Invalid) {
			x.tell(err)
			return errBack
		}
		return err
	}
}

// code asks for a code. At a terminal a wrong one is asked for again, and nothing leads
// back to the choice.
func (x *second) code(ctx context.Context, w rest.Way) error {
	prompt := "Code: "
	switch {
	case w.Sends:
		prompt = x.asked.Prompt
		if x.app.terminal() {
			x.app.say("Enter alone shows what else there is, such as sending it again")
		}
	case w.Kind == "backup":
		prompt = text.PromptBackup
	}
	for wrong := 0; ; {
		code := x.typed
		if x.typed = (secret.Bytes{}); code.Empty() {
			var err error
			if code, err = x.app.readSecret(text.Clean(prompt)); err != nil {
				return readFault(err)
			}
		}
		if len(strings.TrimSpace(string(code.Reveal()))) == 0 {
			if x.app.terminal() && (len(x.ways) > 1 || w.Sends) {
				return errBack
			}
			return errNotGiven
		}
		done, err := x.answer(ctx, w.Kind, code)
		code.Wipe()
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			return errors.New("the server's answer is not understood; is it of another version than this command?")
		}
		if wrong++; !x.app.terminal() || wrong >= maxWrongAnswers || !said(err, fault.Invalid, fault.BadRequest, fault.Conflict, fault.Unauthorized, fault.Forbidden) {
			return err
		}
		x.tell(err)
	}
}

// said tells whether the server has answered with one of the codes.
func said(err error, codes ...fault.Code) bool {
	var p *rest.Problem
	if !errors.As(err, &p) || p.Status >= http.StatusInternalServerError && p.Code != fault.Unavailable {
		return false
	}
	for _, c := range codes {
		if p.Code == c {
			return true
		}
	}
	return false
}

// tell says what the server has said, in the words that are for people.
func (x *second) tell(err error) {
	var p *rest.Problem
	if errors.As(err, &p) && len(p.Fields) > 0 {
		for _, f := range p.Fields {
			x.app.say("%s", f.Fault)
		}
		return
	}
	x.app.say("%s", err)
}

// stepUp gives the second factor of the client's session anew.
func (c *client) stepUp(ctx context.Context) error {
	quiet := *c
	quiet.renewed = nil // so that it is not asked within the question
	var p rest.Proving
	if err := quiet.call(ctx, http.MethodGet, "/session/proof", nil, nil, &p); err != nil {
		return err
	}
	var fresh rest.Fresh
	x := &second{
		app: c.app, server: c.name, ways: p.Choices,
		choose: func(ctx context.Context, kind string, again bool) (asked rest.Asked, err error) {
			err = quiet.call(ctx, http.MethodPost, "/session/proof/choose", nil, rest.ProofChoice{Kind: kind, Again: again}, &asked)
			return asked, err
		},
		answer: func(ctx context.Context, kind string, code secret.Bytes) (bool, error) {
			err := quiet.call(ctx, http.MethodPost, "/session/proof", nil, rest.Proof{Kind: kind, Code: rest.Hide(code)}, &fresh)
			return fresh.Asked == nil, err
		},
		cancel: func(ctx context.Context) error {
			return quiet.call(ctx, http.MethodPost, "/session/proof/cancel", nil, nil, nil)
		},
	}
	if p.Asked != nil {
		x.asked = *p.Asked
		if x.asked.Waits { // of another run, whose number nobody sees any more
			x.asked = rest.Asked{}
		}
	}
	if err := x.give(ctx); err != nil {
		return err
	}
	c.bearer = fresh.Secret.Bytes
	return c.renewed(fresh.Secret.Show())
}
