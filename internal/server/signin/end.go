package signin

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/window"
	"latchkey/internal/wire"
)

// This file is about how a conversation ends well, and how it ends at all.

// The person's answers to the question whether the machine is to be enrolled.
const (
	answerYes = "yes"
	answerNo  = "no"
)

// allow ends well: everything that was asked for was given.
func (x *turn) allow(ctx context.Context, u db.User) error {
	t := x.talk
	if !t.Accepted || len(t.Given) < t.Count || x.changeDue() {
		return x.impossible(ctx)
	}
	offline, err := x.offline(ctx, u)
	if err != nil {
		return err
	}
	if offline && t.Policy.OfflineEnrol == policy.EnrolAsk && t.Offline == "" {
		return x.ask(ctx, awaitOfflineChoice{}, wire.Prompt{
			Kind: wire.PromptChoose, For: wire.ForOfflineChoice, Text: text.PromptOffline, Options: []string{text.OptionYes, text.OptionNotNow},
		})
	}
	if err := x.known(ctx); err != nil {
		return err
	}
	if err := x.activate(ctx, u); err != nil {
		return err
	}
	if t.mfa() && t.Opening.Purpose == wire.PurposeSignin && !t.Opening.Unlock {
		x.row.MFAAt = clock.Micros(x.now)
		if err := x.openWindow(ctx); err != nil {
			return err
		}
	}
	if err := x.forgive(ctx, u); err != nil {
		return err
	}
	return x.end(ctx, allowed{Offline: offline && t.Offline != answerNo}, string(t.Decision.Reason), "")
}

// offline tells whether the policy wants this machine enrolled for the user (O4).
func (x *turn) offline(ctx context.Context, u db.User) (bool, error) {
	t := x.talk
	p, enforced := t.Policy, policy.Mode(x.m.Mode) == policy.Enforced
	n := p.FactorsOffline
	if enforced {
		n = max(n, 1)
	}
	wanted := p.Offline == policy.OfflineMFA || p.Offline == policy.OfflineMFAOrBypass || p.Offline == policy.OfflineBypass && enforced
	if !t.mfa() || t.Opening.Unlock || t.Opening.Purpose != wire.PurposeSignin || !wanted || p.OfflineEnrol == policy.EnrolOff || n < 1 {
		return false, nil
	}
	f, err := facts.User(ctx, x.tx.Queries, u, facts.At{Now: x.now})
	if err != nil {
		return false, err
	}
	have := 0
	for _, k := range p.OfflineFactors {
		if slices.Contains(f.Factors, k) {
			have++
		}
	}
	if have < n {
		return false, nil
	}
	if p.OfflineEnrol != policy.EnrolAsk || t.Offline != "" {
		return true, nil
	}
	// Who has said yes before is not asked again.
	v, err := x.tx.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: u.ID, MachineID: x.m.ID})
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return false, fmt.Errorf("offline data: %w", err)
	case !v.DisenrolWanted:
		t.Offline = answerYes
	}
	return true, nil
}

// activate notes the first sign-in of a user who was made for that (D1).
func (x *turn) activate(ctx context.Context, u db.User) error {
	if u.ActivatedAt != 0 || u.Activation == facts.ActivationNow {
		return nil
	}
	n, err := x.tx.ActivateUser(ctx, db.ActivateUserParams{ID: u.ID, At: clock.Micros(x.now)})
	if err != nil {
		return fmt.Errorf("activate a user: %w", err)
	}
	if n == 0 {
		return nil
	}
	return x.note(event.UserChanged, "", reasonActivated, "", map[string]any{"activated": true})
}

// openWindow writes the window that the MFA opens (W1); older ones that were opened
// with no more and end no later are of no use beside it.
func (x *turn) openWindow(ctx context.Context) error {
	t := x.talk
	w, ok := window.Open(t.Policy, t.UserID, x.m.ID, t.Opening.Boot, t.Opening.Scope, t.Given, x.now)
	if !ok {
		return nil
	}
	at := clock.Micros(x.now)
	old, err := x.tx.ListValidWindows(ctx, db.ListValidWindowsParams{UserID: w.UserID, MachineID: w.MachineID, At: at})
	if err != nil {
		return fmt.Errorf("windows: %w", err)
	}
	for _, o := range old {
		var with []policy.Factor
		if json.Unmarshal([]byte(o.Factors), &with) == nil && o.ExpiresAt > clock.Micros(w.Expires) ||
			slices.ContainsFunc(with, func(f policy.Factor) bool { return !slices.Contains(w.Factors, f) }) {
			continue
		}
		if _, err := x.tx.EndWindow(ctx, db.EndWindowParams{ID: o.ID, At: at, Reason: reasonSuperseded}); err != nil {
			return fmt.Errorf("end a window: %w", err)
		}
	}
	with, err := json.Marshal(w.Factors)
	if err != nil {
		return err
	}
	in, err := json.Marshal([]policy.Scope{w.Scope})
	if err != nil {
		return err
	}
	err = x.tx.InsertWindow(ctx, db.InsertWindowParams{
		ID: store.NewID(), UserID: w.UserID, MachineID: w.MachineID, Boot: w.Boot, OpenedAt: at, ExpiresAt: clock.Micros(w.Expires),
		Scopes: string(in), Factors: string(with),
	})
	if err != nil {
		return fmt.Errorf("open a window: %w", err)
	}
	return x.note(event.WindowOpened, "", "", "", map[string]any{"until": w.Expires.UTC().Format(time.RFC3339), "factors": w.Factors})
}

// forgive forgets the failures of the pair after a full MFA. A password alone does
// not: else who knows it could try codes for ever, nine at a time.
func (x *turn) forgive(ctx context.Context, u db.User) error {
	if t := x.talk; t.ForChange || len(t.Given) == 0 || len(t.Given) < t.Count {
		f, err := facts.User(ctx, x.tx.Queries, u, facts.At{Now: x.now})
		if err != nil {
			return err
		}
		owned, err := x.owned(ctx)
		if err != nil {
			return err
		}
		if len(owned) > 0 || len(f.Factors) > 0 {
			return nil
		}
	}
	if _, err := x.tx.ForgiveAttempts(ctx, db.ForgiveAttemptsParams{UserID: u.ID, MachineID: x.m.ID}); err != nil {
		return fmt.Errorf("forget failed attempts: %w", err)
	}
	return nil
}

// end stores how the conversation ended, with its one event.
func (x *turn) end(ctx context.Context, st stage, reason, told string) error {
	t := x.talk
	x.at = st
	d := &wire.Done{Outcome: policy.Deny, Reason: reason, Text: told, Spent: t.Spent, PasswordChanged: t.Changed}
	typ := event.SigninDenied
	switch st := st.(type) {
	case allowed:
		typ, d.Outcome, d.Offline = event.SigninAllowed, policy.Allow, st.Offline
		d.MFA = t.mfa()
	case ignored:
		typ, d.Outcome = event.SigninIgnored, policy.Ignore
	case abandoned:
		typ = event.SigninAbandoned
	}
	if t.Accepted || d.Outcome != policy.Deny {
		d.UserID, d.UserName, d.PasswordJudged = t.UserID, t.UserName, t.Judged
	} else if typ == event.SigninDenied && told == text.DeniedFirst {
		// The machine learns no more than the person.
		d.Reason = string(policy.ReasonFirstRejected)
	}
	outcome := string(d.Outcome)
	if typ == event.SigninAbandoned {
		outcome = facts.Abandoned
	}
	given := make([]string, len(t.Given))
	for i, g := range t.Given {
		given[i] = string(g)
	}
	if err := x.noteEnd(typ, outcome, reason, strings.Join(given, "+")); err != nil {
		return err
	}
	if t.Accepted || d.Outcome != policy.Deny {
		if err := x.report(ctx); err != nil {
			return err
		}
	}
	x.reply.Done = d
	return x.store(ctx, outcome, &x.reply)
}
