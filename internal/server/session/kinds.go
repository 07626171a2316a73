package session

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Which factor opens what. A factor that is not named here opens nothing: a bypass code
// is an administrator's word, and that is no proof of who sits at a browser (E3).
var (
	// strong are the factors that open the console.
	strong = []string{FIDO2, Push, TOTP}
	// modest are those that open the portal alone: whoever reads somebody's paper, mail
	// or SIM must not have his role.
	modest = []string{Backup, Mail, SMS}
	// listed are those that somebody's policy must accept: they are off by default.
	listed = []string{Mail, SMS}
)

// Strong tells whether a session that the factor has opened opens the console, to whose
// role does.
func Strong(kind string) bool { return slices.Contains(strong, kind) }

// Kind is a factor that a person may choose.
type Kind struct {
	Name   string // such as TOTP
	Option string // how a menu names it
	Prompt string // what is asked, where what was sent says nothing else
	Sends  bool   // Choose comes first: something goes out
	Waits  bool   // the answer comes another way; Answer without a code looks whether it has
}

// Asked is what somebody was asked for. The zero value: nothing was chosen yet.
type Asked struct {
	Kind string
	Sent factor.Sent // where the kind sends something
}

// asked is Asked with what binds an answer to it.
type asked struct {
	Asked
	Ticket string
}

// over tells that no answer to it counts any more.
func (a *asked) over(now time.Time) bool {
	return a == nil || !a.Sent.Expires.IsZero() && !now.Before(a.Sent.Expires)
}

// shown is what of it the person sees.
func (a *asked) shown(now time.Time) Asked {
	if a.over(now) {
		return Asked{}
	}
	return a.Asked
}

// usable are the factors with which the user may prove who he is, strongest first.
// program is a sign-in of the command line, which has no browser to ask a key: elsewhere
// are those that only a browser could take.
func (m *Sessions) usable(ctx context.Context, q *db.Queries, u db.User, program, console bool, now time.Time) (here, elsewhere []string, err error) {
	f, err := facts.User(ctx, q, u, facts.At{Now: now})
	if err != nil {
		return nil, nil, err
	}
	var accepted []policy.Factor
	for _, k := range listed {
		if slices.Contains(f.Factors, policy.Factor(k)) {
			p, err := policyOf(ctx, q, u, now)
			if err != nil {
				return nil, nil, err
			}
			accepted = p.OnlineFactors
			break
		}
	}
	for _, k := range policy.Kinds {
		name := string(k)
		_, known := m.Factors.Get(k)
		switch {
		case !known || !slices.Contains(f.Factors, k):
		case !Strong(name) && (console || !slices.Contains(modest, name)):
		case slices.Contains(listed, name) && !slices.Contains(accepted, k):
		case name == FIDO2 && program:
			elsewhere = append(elsewhere, name)
		default:
			here = append(here, name)
		}
	}
	return here, elsewhere, nil
}

// enrols tells whether the user may give an enrolment code beside what he has: there is one
// for him, and nothing else of his opens more than the portal.
func (m *Sessions) enrols(ctx context.Context, q *db.Queries, u db.User, now time.Time) (bool, error) {
	have, err := q.ListUsableAuthenticators(ctx, u.ID)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(have, func(a db.Authenticator) bool { return Strong(a.Kind) }) {
		return false, nil
	}
	codes, err := q.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: u.ID, At: clock.Micros(now)})
	return len(codes) > 0, err
}

// kindsOf tells of factors what a page must know.
func (m *Sessions) kindsOf(names []string) []Kind {
	out := make([]Kind, 0, len(names))
	for _, n := range names {
		if n == Enrol {
			out = append(out, Kind{Name: Enrol, Option: text.OptionEnrol})
			continue
		}
		f, ok := m.Factors.Get(policy.Factor(n))
		if !ok {
			continue // it was there when the sign-in began, on another replica
		}
		k := Kind{Name: n, Option: f.Option(), Prompt: f.Prompt()}
		_, k.Sends = f.(factor.Sender)
		_, k.Waits = f.(factor.Waiter)
		out = append(out, k)
	}
	return out
}

// plug is the plug-in of a factor.
func (m *Sessions) plug(kind string) (factor.Factor, error) {
	f, ok := m.Factors.Get(policy.Factor(kind))
	if !ok {
		return nil, fault.New(fault.Internal, fmt.Errorf("this program has no factor %q", kind))
	}
	return f, nil
}

// waits tells whether the answer to the kind comes another way.
func (m *Sessions) waits(kind string) (factor.Waiter, bool) {
	f, ok := m.Factors.Get(policy.Factor(kind))
	if !ok {
		return nil, false
	}
	w, ok := f.(factor.Waiter)
	return w, ok
}

// The bounds of answers: a code is short, what a key signs is not.
const (
	maxCode = 128
	maxKey  = 16 << 10
)

// typed judges the form of an answer.
func typed(kind string, code secret.Bytes) error {
	most := maxCode
	if kind == FIDO2 {
		most = maxKey
	}
	if code.Len() > most || len(bytes.TrimSpace(code.Reveal())) == 0 {
		return wrongField(FieldCode, text.NothingTyped)
	}
	return nil
}

// longestLook is Config.LongestLook where none is said. A browser without scripts loads a
// page that long.
const longestLook = 4 * time.Second

// said is what the person reads of a rejection.
func said(v factor.Verdict) string {
	switch {
	case v.Text != "":
		return v.Text
	case v.Outcome == factor.Over:
		return text.NobodyThere
	case v.Outcome == factor.Ended:
		return text.SaidNo
	}
	return text.WrongCode
}
