package signin

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
	"latchkey/internal/window"
	"latchkey/internal/wire"
)

// Reasons beside those of package policy.
const (
	reasonBackOff     = "back-off"            // who must wait was not judged
	reasonTooMany     = "too-many-wrong"      // codes in one conversation
	reasonMistakes    = "too-many-mistakes"   // blanks and no choices
	reasonCancelled   = "cancelled"           // by the person
	reasonState       = "state-damaged"       // the default arm
	reasonBusy        = "server-busy"         // nothing was judged
	reasonNotHere     = "no-password-here"    // a change of a password that the server does not hold
	reasonRemote      = "change-needs-local"  // S9
	reasonNotChanged  = "password-not-chosen" // S9
	reasonUnlock      = "unlock-needs-more"   // an unlock enrols nothing
	reasonChanged     = "changed-meanwhile"   // the user was disabled or removed between two steps
	reasonSuperseded  = "superseded"          // a window by a newer one
	reasonActivated   = "first-login"
	reasonEnrolSpent  = "enrol-code-spent"
	changeMust        = "must-change"
	changeExpired     = "expired"
	changeAsked       = "asked"
	answerYes         = "yes"
	answerNo          = "no"
	maxProposalTries  = 4
	maxFirstCodeTries = 5
)

// prepare decides, in the transaction of the claim, what judging the step takes: it
// counts what is to be compared, and leaves the slow part behind. What takes neither
// is settled at once.
func (x *turn) prepare(ctx context.Context) error {
	if x.step.Cancel {
		return x.settle(ctx)
	}
	switch st := x.at.(type) {
	case judging:
		o, b := x.talk.Opening, x.step.Begin
		if b.Password.Empty() {
			return x.settle(ctx)
		}
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		server := o.Mode == modeFull || o.Purpose == wire.PurposePassword
		if !server && u != nil && !x.directory(u).Has(*u) {
			return x.settle(ctx)
		}
		return x.preparePassword(ctx, u, b.Password.Bytes)
	case awaitPassword:
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		return x.preparePassword(ctx, u, x.step.Answer.Text.Bytes)
	case awaitCode, awaitEnrolCode:
		if x.blank() || x.leaves() {
			return x.settle(ctx)
		}
		var err error
		x.counted, x.block, err = attempts.Count(ctx, x.tx, x.talk.UserID, x.m.ID, x.talk.Policy, x.now)
		if err != nil {
			return err
		}
		if x.block.On() {
			return x.settle(ctx)
		}
		return nil // judged behind the commit of the count
	case awaitNewPassword, awaitNewPassword2:
		if x.blank() {
			return x.settle(ctx)
		}
		u, err := x.tx.GetUser(ctx, x.talk.UserID)
		if errors.Is(err, sql.ErrNoRows) {
			return x.settle(ctx)
		}
		if err != nil {
			return fmt.Errorf("user: %w", err)
		}
		return x.prepareNewPassword(u, st)
	}
	return x.settle(ctx)
}

func (x *turn) resolve(ctx context.Context) (*db.User, bool, error) {
	o := x.talk.Opening
	return facts.Resolve(ctx, x.tx.Queries, facts.Name{User: o.User, UID: o.UID, Aliases: o.Aliases})
}

func (x *turn) directory(u *db.User) directory.Directory { return x.s.Directories.Of(u) }

// preparePassword counts the attempt and leaves the hash to be computed outside.
// Whoever is not judged (nobody, or somebody who must wait) costs the same.
func (x *turn) preparePassword(ctx context.Context, u *db.User, password secret.Bytes) error {
	dir := x.directory(u)
	switch { // and nothing is kept
	case dir.Busy() && x.step.Begin != nil:
		// A 5xx before its first answer is to the machine a server that is gone:
		// whoever fills the queue must not choose the offline rules for everybody.
		return fault.Newf(fault.TooMany, text.DeniedBusy).Because(directory.ErrBusy)
	case dir.Busy():
		return fault.New(fault.Unavailable, directory.ErrBusy)
	}
	judged := u
	if u != nil && dir.Has(*u) {
		p, err := x.policyOf(ctx, *u)
		if err != nil {
			return err
		}
		if x.counted, x.block, err = attempts.Count(ctx, x.tx, u.ID, x.m.ID, p, x.now); err != nil {
			return err
		}
		if x.block.On() {
			judged = nil
		}
	}
	first := x.step.Begin != nil
	x.work = func(ctx context.Context) verdict {
		if first {
			// A machine waits two seconds for its first answer and takes a server that needs
			// longer for one that is gone: it is told that there is a queue.
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, firstPatience)
			defer cancel()
		}
		return verdict{password: dir.Verify(ctx, judged, password)}
	}
	return nil
}

// firstPatience is how long the password of a first step waits for its turn.
const firstPatience = time.Second

// policyOf is the policy whose limits hold for the user.
func (x *turn) policyOf(ctx context.Context, u db.User) (policy.Policy, error) {
	ps, err := facts.Policies(ctx, x.tx.Queries)
	if err != nil {
		return policy.Policy{}, err
	}
	f, err := facts.User(ctx, x.tx.Queries, u, facts.At{MachineID: x.m.ID, Scope: x.talk.Opening.Scope, Now: x.now})
	if err != nil {
		return policy.Policy{}, err
	}
	if p, _ := policy.Choose(&f, ps); p != nil {
		return *p, nil
	}
	return policy.NewPolicy(), nil
}

func (x *turn) prepareNewPassword(u db.User, st stage) error {
	dir, typed := x.directory(&u), x.step.Answer.Text.Bytes
	if dir.Busy() {
		return fault.New(fault.Unavailable, directory.ErrBusy)
	}
	if st, ok := st.(awaitNewPassword2); ok {
		x.work = func(ctx context.Context) (v verdict) {
			v.same, v.err = dir.Same(ctx, st.Proposal, typed)
			return v
		}
		return nil
	}
	x.work = func(ctx context.Context) (v verdict) {
		var refusal *directory.Refusal
		v.proposal, v.err = dir.Propose(ctx, u, typed)
		if errors.As(v.err, &refusal) {
			v.refusal, v.err = refusal.Text, nil
		}
		return v
	}
	return nil
}

func (x *turn) blank() bool {
	s, ok := factor.Typed(x.step.Answer.Text.Bytes)
	return ok && s == ""
}

// settle judges in the transaction of the claim.
func (x *turn) settle(ctx context.Context) error {
	x.mine, x.settled = false, true
	return x.act(ctx, false)
}

// finish stores what came of a step that was claimed at the revision.
func (x *turn) finish(ctx context.Context, rev int64) error {
	row, err := x.tx.GetConversation(ctx, x.id)
	if err != nil {
		return fmt.Errorf("conversation: %w", err)
	}
	x.row = row
	if row.Rev != rev || row.Outcome != facts.Open {
		// Somebody took the step over, or time was up: what we found does not count.
		return fault.Newf(fault.Conflict, "The sign-in went on without this step. Begin again.")
	}
	// What the claim has read is what lies in the row, for nobody has moved it.
	if x.talk == nil {
		if err := x.load(); err != nil {
			return err
		}
	}
	return x.act(ctx, true)
}

// act takes the step. judged says that the slow part, or the count, lies behind us.
func (x *turn) act(ctx context.Context, judged bool) error {
	if x.step.Cancel {
		return x.end(ctx, abandoned{}, reasonCancelled, text.DeniedGivenUp)
	}
	switch x.at.(type) {
	case judging:
		return x.onBegin(ctx, judged)
	case awaitPassword:
		return x.onPassword(ctx)
	case nil:
		return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
	}
	// Behind the first factor: the user must still be there.
	u, err := x.tx.GetUser(ctx, x.talk.UserID)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && (u.Disabled || facts.NotYet(u, x.now)):
		return x.end(ctx, denied{}, reasonChanged, x.denial(ctx, policy.ReasonDisabled))
	case err != nil:
		return fmt.Errorf("user: %w", err)
	}
	switch st := x.at.(type) {
	case awaitChoice:
		return x.onChoice(ctx, st)
	case awaitCode:
		return x.onCode(ctx, u, st)
	case awaitAnswer:
		return x.onAnswer(ctx, u, st)
	case awaitEnrolCode:
		return x.onEnrolCode(ctx, u, st)
	case awaitFirstCode:
		return x.onFirstCode(ctx, u, st)
	case awaitNewPassword:
		return x.onNewPassword(ctx)
	case awaitNewPassword2:
		return x.onNewPassword2(ctx, u, st)
	case awaitOfflineChoice:
		x.talk.Offline = answerNo
		if x.chosen(2) == 0 {
			x.talk.Offline = answerYes
		}
		return x.allow(ctx, u)
	}
	return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
}

// onBegin: the first step, with its password judged if there was one to judge.
func (x *turn) onBegin(ctx context.Context, judged bool) error {
	o := x.talk.Opening
	key := o.First == policy.FirstSSHKey && o.Scope == policy.Remote
	if judged || o.Purpose == wire.PurposePassword && o.Mode == modeSecond {
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		if o.Purpose == wire.PurposePassword && o.Mode == modeSecond && (u == nil || !x.directory(u).Has(*u)) {
			// The machine's own password: its own modules change it.
			x.remember(u)
			return x.end(ctx, ignored{}, reasonNotHere, "")
		}
		if judged {
			return x.onFirst(ctx, u)
		}
	}
	switch {
	case o.Purpose == wire.PurposePassword || o.Mode == modeFull && !key:
		return x.askPassword(ctx)
	case key:
		return x.decide(ctx, policy.FirstSSHKey, policy.FirstAccepted)
	case o.First == policy.FirstMachine:
		return x.decide(ctx, policy.FirstMachine, policy.FirstAccepted)
	}
	// mode=second, and nobody has judged anything.
	return x.decide(ctx, policy.FirstNone, policy.FirstRejected)
}

// askPassword asks for the first factor, whoever it may be; only who is exempt, and
// has no password here that could be rejected (S5), is left to the machine before
// that.
//
// Whose name it is is not looked up before it must be: the time of the prompt must
// not tell it either.
func (x *turn) askPassword(ctx context.Context) error {
	if exempt, err := x.mayBeExempt(ctx); err != nil {
		return err
	} else if exempt {
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		has := u != nil && x.directory(u).Has(*u)
		_, d, err := x.consult(ctx, policy.FirstNone, policy.FirstPending)
		if err != nil {
			return err
		}
		if !has && d.Outcome == policy.Ignore && d.Reason == policy.ReasonExemptAccount {
			x.talk.Decision = d
			return x.end(ctx, ignored{}, string(d.Reason), "")
		}
	}
	return x.ask(ctx, awaitPassword{}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForPassword, Text: text.PromptPassword})
}

// mayBeExempt tells whether any policy exempts the account number.
func (x *turn) mayBeExempt(ctx context.Context) (bool, error) {
	uid := x.talk.Opening.UID
	if uid == nil {
		return false, nil
	}
	ps, err := facts.Policies(ctx, x.tx.Queries)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(ps, func(p policy.Policy) bool { return slices.Contains(p.ExemptUIDs, *uid) }), nil
}

func (x *turn) onPassword(ctx context.Context) error {
	u, _, err := x.resolve(ctx)
	if err != nil {
		return err
	}
	return x.onFirst(ctx, u)
}

// onFirst turns what the directory said into the fact that Decide wants.
func (x *turn) onFirst(ctx context.Context, u *db.User) error {
	o := x.talk.Opening
	second := o.Mode == modeSecond && o.Purpose == wire.PurposeSignin
	has := u != nil && x.directory(u).Has(*u)
	switch v := x.verdict.password; {
	case v == directory.Unavailable:
		if err := x.counted.TakeBack(ctx, x.tx); err != nil {
			return err
		}
		x.remember(u)
		return x.end(ctx, denied{}, reasonBusy, text.DeniedBusy)
	case second && !has && o.First == policy.FirstMachine:
		// The server has nothing to judge by: the machine's word stands.
		return x.decide(ctx, policy.FirstMachine, policy.FirstAccepted)
	case second && !has && o.First == policy.FirstSSHKey && o.Scope == policy.Remote:
		return x.decide(ctx, policy.FirstSSHKey, policy.FirstAccepted)
	case !has || x.block.On():
		// What the machine has accepted may be told to wait; anybody else is told
		// nothing.
		x.tellWait = second && has && o.First == policy.FirstMachine
		return x.decide(ctx, policy.FirstNone, policy.FirstPending)
	case v.Proved():
		if err := x.counted.TakeBack(ctx, x.tx); err != nil {
			return err
		}
		x.talk.Judged = true
		switch {
		case v == directory.MustChange:
			x.talk.Change = changeMust
		case v == directory.Expired:
			x.talk.Change = changeExpired
		}
		first := policy.FirstServer
		if second && o.First == policy.FirstMachine {
			first = policy.FirstMachine
		}
		return x.decide(ctx, first, policy.FirstAccepted)
	}
	return x.decide(ctx, policy.FirstServer, policy.FirstRejected)
}

// consult asks Decide.
func (x *turn) consult(ctx context.Context, first policy.First, result policy.FirstResult) (policy.Facts, policy.Decision, error) {
	o := x.talk.Opening
	r, f, u, err := facts.Gather(ctx, x.tx.Queries, x.m, facts.Ask{
		Name:  facts.Name{User: o.User, UID: o.UID, Aliases: o.Aliases},
		Scope: o.Scope, Service: o.Service, At: x.now, Link: policy.LinkUp, First: first, Result: result,
		Peer: facts.Peer(o.RHost), RemoteSeat: o.RemoteSeat, MachineAddr: o.MachineAddr, Boot: o.Boot, Cannot: x.cannot(),
		NoWindow: o.Purpose == wire.PurposePassword,
	})
	if err != nil {
		return f, policy.Decision{}, err
	}
	x.remember(u)
	d := policy.Decide(r, f)
	x.talk.Policy, x.talk.Past, x.talk.Reports = d.Applied(), policy.Remember(r, f), policy.Reports(r, f, d)
	x.talk.Past.NoWindow = o.Purpose == wire.PurposePassword
	return f, d, nil
}

func (x *turn) remember(u *db.User) {
	if u != nil {
		x.talk.UserID, x.talk.UserName = u.ID, u.Name
	}
}

// decide carries the decision out.
func (x *turn) decide(ctx context.Context, first policy.First, result policy.FirstResult) error {
	f, d, err := x.consult(ctx, first, result)
	if err != nil {
		return err
	}
	if d.Outcome == policy.AskFirst {
		// It was given and could not be judged: that is a rejection, or a pause.
		if !x.block.On() {
			if f, d, err = x.consult(ctx, first, policy.FirstRejected); err != nil {
				return err
			}
		} else {
			d = x.waiting(d)
		}
	}
	t := x.talk
	t.First, t.Decision, t.Accepted = first, d, result == policy.FirstAccepted
	if !t.Accepted {
		if err := x.lockedNow(ctx); err != nil {
			return err
		}
	} else if f.User != nil && (t.Judged && d.Outcome != policy.Deny || d.Outcome == policy.Ignore || d.Outcome == policy.Allow) {
		if err := x.known(ctx); err != nil {
			return err
		}
	}
	if t.Opening.Purpose == wire.PurposePassword && t.Accepted && t.Judged {
		t.Change = changeAsked
		// Who has no factor at all changes the password at a local seat, whatever the
		// policy asks of a sign-in (S9).
		if d.Outcome == policy.EnrolFirst || d.Reason == policy.ReasonNotEnrolled {
			owned, err := x.owned(ctx)
			if err != nil {
				return err
			}
			if len(owned) == 0 && len(f.User.Factors) == 0 {
				return x.change(ctx)
			}
		}
	}
	switch d.Outcome {
	case policy.Ignore:
		return x.end(ctx, ignored{}, string(d.Reason), "")
	case policy.Allow:
		return x.firstAlone(ctx, f)
	case policy.MFA:
		t.Kinds, t.Count = x.s.Factors.Known(d.Factors), d.Count
		return x.askFactorUnlessBlocked(ctx)
	case policy.EnrolFirst:
		return x.askEnrolment(ctx, f)
	case policy.Deny:
		return x.deny(ctx, d.Reason, f)
	}
	return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
}

// known notes that the user is one of this machine's, whose policy file names him and
// whose journal may speak of him. While a second factor is asked for, the machine's
// word alone that it has judged a password is not enough: it could say so of anybody.
func (x *turn) known(ctx context.Context) error {
	if x.talk.Opening.Unlock {
		return nil
	}
	return touch.Known(ctx, x.tx, x.m.ID, x.talk.UserID, x.now)
}

// waiting is the decision for somebody who must wait: Decide knows of lock-outs, the
// pause is noted behind its trace.
func (x *turn) waiting(d policy.Decision) policy.Decision {
	d.Outcome, d.Reason = policy.Deny, reasonBackOff
	d.Trace = append(slices.Clone(d.Trace), policy.Step{
		Rule: "S10 pause after failures", Verdict: policy.Applied,
		Why: fmt.Sprintf("nothing is judged before %s", x.block.Until.UTC().Format(time.RFC3339)),
	})
	return d
}

// deny tells the truth behind an accepted first factor, and the one text before it.
func (x *turn) deny(ctx context.Context, reason policy.Reason, f policy.Facts) error {
	switch {
	case !x.talk.Accepted && x.tellWait && x.block.On():
		return x.wait(ctx, x.block)
	case !x.talk.Accepted:
		return x.end(ctx, denied{}, string(reason), text.DeniedFirst)
	case reason == policy.ReasonLocked && f.User != nil:
		return x.end(ctx, denied{}, string(reason), text.Locked(f.User.LockedUntil.Sub(x.now)))
	}
	return x.end(ctx, denied{}, string(reason), x.denial(ctx, reason))
}

// denial is the text of a denial, with whom to ask.
func (x *turn) denial(ctx context.Context, reason policy.Reason) string {
	// A failure to read spoils the transaction, which then says so.
	set, _ := settings.Read(ctx, x.tx.Queries)
	return text.Denied(reason, set.Contact)
}

// firstAlone: no second factor is asked. But whoever must change the password and
// has a factor gives it first (S9): as many as the policy asks, of the kinds that it
// accepts, or else of those that open the console. It is for the change alone, and no
// MFA otherwise. Whoever has one that can not be given here and now changes nothing:
// the password alone must not become a new one.
func (x *turn) firstAlone(ctx context.Context, f policy.Facts) error {
	t := x.talk
	if t.UserID == "" { // an exempt account that the server does not know
		return x.end(ctx, allowed{}, string(t.Decision.Reason), "")
	}
	if !x.changeDue() {
		u, err := x.tx.GetUser(ctx, t.UserID)
		if err != nil {
			return fmt.Errorf("user: %w", err)
		}
		return x.allow(ctx, u)
	}
	owned, err := x.owned(ctx)
	if err != nil {
		return err
	}
	if len(owned) == 0 {
		return x.change(ctx)
	}
	not := append(x.notHere(), policy.Bypass)
	for _, accepted := range [][]policy.Factor{t.Policy.OnlineFactors, {policy.FIDO2, policy.Push, policy.TOTP}} {
		own := slices.DeleteFunc(x.s.Factors.Known(accepted), func(k policy.Factor) bool { return !slices.Contains(owned, k) })
		here := slices.DeleteFunc(slices.Clone(own), func(k policy.Factor) bool { return slices.Contains(not, k) || !slices.Contains(f.User.Factors, k) })
		if len(here) > 0 {
			t.Kinds, t.Count, t.ForChange = here, min(max(1, t.Policy.FactorsOnline), len(own)), true
			return x.askFactorUnlessBlocked(ctx)
		}
	}
	return x.deny(ctx, policy.ReasonNotEnrolled, f)
}

// owned are the kinds of which the user has, or had, an authenticator or codes, whether
// they can be used now or not: who locks somebody's phone, or sits where no key can be
// asked, has not taken the factor away.
func (x *turn) owned(ctx context.Context) ([]policy.Factor, error) {
	if x.talk.UserID == "" {
		return nil, nil
	}
	rows, err := x.tx.ListAuthenticators(ctx, x.talk.UserID)
	if err != nil {
		return nil, fmt.Errorf("authenticators: %w", err)
	}
	var out []policy.Factor
	for _, a := range rows {
		kind := policy.Factor(a.Kind)
		// What nobody has confirmed has never been a factor; see facts.Usable.
		if (a.ConfirmedAt > 0 || kind == policy.TOTP) && !slices.Contains(out, kind) {
			out = append(out, kind)
		}
	}
	codes, err := x.tx.ListBackupCodes(ctx, x.talk.UserID)
	if err != nil {
		return nil, fmt.Errorf("backup codes: %w", err)
	}
	if len(codes) > 0 {
		out = append(out, policy.Backup)
	}
	return out, nil
}

// changeDue tells whether a new password is to be chosen now. An unlock changes
// nothing.
func (x *turn) changeDue() bool {
	t := x.talk
	return t.Change != "" && !t.Changed && t.Judged && !t.Opening.Unlock
}

// askFactorUnlessBlocked refuses who must wait before anything is asked.
func (x *turn) askFactorUnlessBlocked(ctx context.Context) error {
	b, err := attempts.Blocked(ctx, x.tx, x.talk.UserID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	if b.On() {
		return x.wait(ctx, b)
	}
	return x.askFactor(ctx)
}

func (x *turn) wait(ctx context.Context, b attempts.Block) error {
	if b.Locked {
		return x.end(ctx, denied{}, string(policy.ReasonLocked), text.Locked(b.Until.Sub(x.now)))
	}
	return x.end(ctx, denied{}, reasonBackOff, text.Wait(b.Until.Sub(x.now)))
}

// askFactor asks for the next factor: a menu where there is a choice.
func (x *turn) askFactor(ctx context.Context) error {
	left, need := x.talk.left(), x.talk.Count-len(x.talk.Given)
	switch {
	case need <= 0 || len(left) < need:
		return x.end(ctx, denied{}, string(policy.ReasonNotEnrolled), x.denial(ctx, policy.ReasonNotEnrolled))
	case len(left) == need:
		return x.askCode(ctx, left[0])
	}
	return x.askChoice(ctx, left)
}

func (x *turn) askChoice(ctx context.Context, kinds []policy.Factor) error {
	options := make([]string, len(kinds))
	for i, k := range kinds {
		plug, ok := x.s.Factors.Get(k)
		if !ok {
			return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
		}
		options[i] = plug.Option()
	}
	return x.ask(ctx, awaitChoice{kinds}, wire.Prompt{Kind: wire.PromptChoose, For: wire.ForChoice, Text: x.ofSteps(text.PromptFactor), Options: options})
}

// ofSteps says which of several factors is asked for (P1).
func (x *turn) ofSteps(s string) string { return text.Step(len(x.talk.Given)+1, x.talk.Count, s) }

func (x *turn) askCode(ctx context.Context, kind policy.Factor) error {
	plug, ok := x.s.Factors.Get(kind)
	if !ok {
		return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
	}
	if sender, ok := plug.(factor.Sender); ok {
		return x.send(ctx, sender)
	}
	return x.ask(ctx, awaitCode{Kind: kind}, x.codePrompt(plug, ""))
}

func (x *turn) codePrompt(plug factor.Factor, words string) wire.Prompt {
	if words == "" {
		words = plug.Prompt()
	}
	p := wire.Prompt{Kind: wire.PromptSecret, For: wire.ForCode, Text: x.ofSteps(words)}
	if plug.Echo() {
		p.Kind = wire.PromptAsk
	}
	return p
}

// chosen is the place of the chosen option, or -1: the number as people count.
func (x *turn) chosen(n int) int {
	s, ok := factor.Typed(x.step.Answer.Text.Bytes)
	if !ok {
		return -1
	}
	i, err := strconv.Atoi(s)
	if err != nil || i < 1 || i > n {
		return -1
	}
	return i - 1
}

// mistake counts what is neither right nor wrong.
func (x *turn) mistake() (enough bool) {
	x.talk.Mistakes++
	return x.talk.Mistakes >= maxMistakes
}

func (x *turn) onChoice(ctx context.Context, st awaitChoice) error {
	if i := x.chosen(len(st.Kinds)); i >= 0 {
		return x.askCode(ctx, st.Kinds[i])
	}
	if x.mistake() {
		return x.end(ctx, denied{}, reasonMistakes, text.DeniedCodes)
	}
	x.say(wire.MessageWarn, text.NotAChoice)
	return x.askChoice(ctx, st.Kinds)
}

func (x *turn) onCode(ctx context.Context, u db.User, st awaitCode) error {
	if x.block.On() {
		return x.wait(ctx, x.block)
	}
	if x.blank() || x.leaves() {
		// Not an attempt: back to the menu, where there is one; else it is sent again.
		if x.mistake() {
			return x.end(ctx, denied{}, reasonMistakes, text.DeniedCodes)
		}
		if x.blank() && st.Kind != policy.FIDO2 { // a key that did not answer: the agent has said why
			x.say(wire.MessageWarn, text.NothingTyped)
		}
		return x.askFactor(ctx)
	}
	plug, ok := x.s.Factors.Get(st.Kind)
	if !ok || !slices.Contains(x.talk.left(), st.Kind) {
		return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
	}
	v, err := plug.Judge(ctx, x.tx, x.try(u))
	if err != nil {
		return err
	}
	if !v.OK {
		return x.rejected(ctx, st.Kind, v, func() error { return x.codeAgain(ctx, st) })
	}
	if err := x.accepted(ctx, st.Kind, v); err != nil {
		return err
	}
	if st.Kind == policy.Backup || st.Kind == policy.Bypass {
		if err := x.note(event.CodeSpent, "", "", string(st.Kind), v.Data); err != nil {
			return err
		}
	}
	return x.behindFactor(ctx, u)
}

func (x *turn) try(u db.User) factor.Try {
	return factor.Try{User: u, Machine: x.m.ID, Scope: x.talk.Opening.Scope, Typed: x.step.Answer.Text.Bytes, Now: x.now, Ticket: x.id, Door: factor.AtMachine}
}

// accepted notes a factor that was given.
func (x *turn) accepted(ctx context.Context, kind policy.Factor, v factor.Verdict) error {
	if err := x.counted.TakeBack(ctx, x.tx); err != nil {
		return err
	}
	t := x.talk
	t.Given = append(t.Given, kind)
	t.Lent = t.Lent || !v.Own
	if v.Spent != nil {
		t.Spent = append(t.Spent, *v.Spent)
	}
	if v.Tell != "" {
		x.say(wire.MessageTell, v.Tell)
	}
	return x.note(event.FactorAccepted, "", "", string(kind), v.Data)
}

// rejected notes a wrong code. It is counted already; who must wait from now on, and
// who has had three, begins anew.
func (x *turn) rejected(ctx context.Context, kind policy.Factor, v factor.Verdict, again func() error) error {
	if err := x.note(event.FactorRejected, "", v.Reason, string(kind), idOf(v)); err != nil {
		return err
	}
	if err := x.lockedNow(ctx); err != nil {
		return err
	}
	b, err := attempts.Blocked(ctx, x.tx, x.talk.UserID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	x.talk.Wrong++
	switch {
	case b.On():
		x.say(wire.MessageWarn, v.Text)
		return x.wait(ctx, b)
	case x.talk.Wrong >= maxWrong:
		x.say(wire.MessageWarn, v.Text)
		return x.end(ctx, denied{}, reasonTooMany, text.DeniedCodes)
	}
	x.say(wire.MessageWarn, v.Text)
	return again()
}

func idOf(v factor.Verdict) map[string]any {
	if v.ID == "" {
		return nil
	}
	return map[string]any{"id": v.ID}
}

// lockedNow notes, once, that this failure has locked the pair.
func (x *turn) lockedNow(ctx context.Context) error {
	until := x.counted.LockedOut()
	if until.IsZero() {
		return nil
	}
	err := x.note(event.LockoutBegan, "", "", "", map[string]any{"until": until.UTC().Format(time.RFC3339), "failures": x.counted.Failures})
	if err != nil {
		return err
	}
	return touch.Machine(ctx, x.tx, x.m.ID) // lock-outs hold without the server too
}

// behindFactor goes on when a factor was accepted.
func (x *turn) behindFactor(ctx context.Context, u db.User) error {
	if len(x.talk.Given) < x.talk.Count {
		return x.askFactor(ctx)
	}
	if x.changeDue() {
		return x.change(ctx)
	}
	return x.allow(ctx, u)
}

// ── enrolment within the sign-in (E1) ──

func (x *turn) askEnrolment(ctx context.Context, f policy.Facts) error {
	t := x.talk
	if t.Opening.Unlock {
		return x.end(ctx, denied{}, reasonUnlock, text.DeniedUnlock)
	}
	b, err := attempts.Blocked(ctx, x.tx, t.UserID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	if b.On() {
		return x.wait(ctx, b)
	}
	kinds, not := x.s.Factors.Known(t.Policy.OnlineFactors), x.notHere()
	t.Kinds, t.Count = slices.DeleteFunc(kinds, func(k policy.Factor) bool {
		return slices.Contains(not, k) || !slices.Contains(f.User.Factors, k) && !slices.Contains(t.Decision.Factors, k)
	}), t.Decision.Count
	for _, k := range x.s.Factors.Known(t.Decision.Factors) {
		plug, _ := x.s.Factors.Get(k)
		if _, ok := plug.(factor.Enroller); ok && !slices.Contains(f.User.Factors, k) && len(t.Kinds) >= t.Count {
			x.say(wire.MessageTell, text.EnrolNow)
			return x.askEnrolCode(ctx, k)
		}
	}
	return x.end(ctx, denied{}, string(policy.ReasonNotEnrolled), x.denial(ctx, policy.ReasonNotEnrolled))
}

func (x *turn) askEnrolCode(ctx context.Context, kind policy.Factor) error {
	return x.ask(ctx, awaitEnrolCode{kind}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForEnrolCode, Text: text.PromptEnrolCode})
}

func (x *turn) onEnrolCode(ctx context.Context, u db.User, st awaitEnrolCode) error {
	if x.block.On() {
		return x.wait(ctx, x.block)
	}
	if x.blank() {
		if x.mistake() {
			return x.end(ctx, denied{}, reasonMistakes, text.DeniedCodes)
		}
		x.say(wire.MessageWarn, text.NothingTyped)
		return x.askEnrolCode(ctx, st.Kind)
	}
	code, err := x.s.Factors.FindEnrol(ctx, x.tx.Queries, u.ID, x.step.Answer.Text.Bytes, x.now)
	if err != nil {
		return err
	}
	if code == nil {
		return x.rejected(ctx, "enrol-code", factor.Verdict{Reason: factor.ReasonWrong, Text: text.EnrolWrong},
			func() error { return x.askEnrolCode(ctx, st.Kind) })
	}
	if err := x.counted.TakeBack(ctx, x.tx); err != nil {
		return err
	}
	enroller, ok := x.enroller(st.Kind)
	if !ok {
		return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
	}
	pending, show, err := enroller.Begin(u)
	if err != nil {
		return err
	}
	defer pending.Wipe()
	for _, s := range show {
		x.say(wire.MessageTell, s)
	}
	// Scanning takes time that a sign-in does not have.
	x.row.ExpiresAt = clock.Micros(x.now.Add(enrolTime))
	return x.askFirstCode(ctx, awaitFirstCode{st.Kind, code.ID, slices.Clone(pending.Reveal())})
}

func (x *turn) enroller(kind policy.Factor) (factor.Enroller, bool) {
	plug, _ := x.s.Factors.Get(kind)
	e, ok := plug.(factor.Enroller)
	return e, ok
}

func (x *turn) askFirstCode(ctx context.Context, st awaitFirstCode) error {
	return x.ask(ctx, st, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForFirstCode, Text: text.PromptFirstCode})
}

// onFirstCode: the seed is on the screen, so a wrong code is a slip and no attempt.
// The enrolment code is spent together with the first code: who does not get to the
// end can begin again with it.
func (x *turn) onFirstCode(ctx context.Context, u db.User, st awaitFirstCode) error {
	enroller, ok := x.enroller(st.Kind)
	if !ok {
		return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
	}
	codes, err := x.tx.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: u.ID, At: clock.Micros(x.now)})
	if err != nil {
		return fmt.Errorf("enrolment codes: %w", err)
	}
	if !slices.ContainsFunc(codes, func(c db.EnrolCode) bool { return c.ID == st.CodeID }) {
		return x.end(ctx, denied{}, reasonEnrolSpent, text.EnrolWrong)
	}
	v, err := enroller.Confirm(ctx, x.tx, secret.New(slices.Clone(st.Pending)), x.try(u))
	if err != nil {
		return err
	}
	if !v.OK {
		x.talk.Wrong++
		x.say(wire.MessageWarn, v.Text)
		if x.talk.Wrong >= maxFirstCodeTries {
			return x.end(ctx, denied{}, reasonTooMany, text.DeniedCodes)
		}
		return x.askFirstCode(ctx, st)
	}
	n, err := x.tx.SpendEnrolCode(ctx, db.SpendEnrolCodeParams{ID: st.CodeID, At: clock.Micros(x.now)})
	if err != nil {
		return fmt.Errorf("spend an enrolment code: %w", err)
	}
	if n == 0 {
		// Used in this very moment: what Confirm has just made must go with it.
		return errEnrolSpent
	}
	if err := x.note(event.CodeSpent, "", "", "enrol-code", map[string]any{"code": st.CodeID}); err != nil {
		return err
	}
	if err := x.note(event.FactorAdded, "", "", string(st.Kind), map[string]any{"authenticator": v.ID, "at": "sign-in"}); err != nil {
		return err
	}
	if err := x.accepted(ctx, st.Kind, v); err != nil {
		return err
	}
	return x.behindFactor(ctx, u)
}

var errEnrolSpent = fault.Newf(fault.Conflict, "The enrolment code has been used or has expired meanwhile. Begin again with a new one.")

// ── a new password (S9) ──

// change asks for a new password: behind a factor of the user's own, or at a local
// seat.
func (x *turn) change(ctx context.Context) error {
	t := x.talk
	if !t.proven() && !t.Opening.local() {
		return x.end(ctx, denied{}, reasonRemote, text.DeniedRemoteChange)
	}
	switch t.Change {
	case changeMust:
		x.say(wire.MessageTell, text.MustChangeNow)
	case changeExpired:
		x.say(wire.MessageTell, text.ExpiredNow)
	}
	return x.askNewPassword(ctx)
}

func (x *turn) askNewPassword(ctx context.Context) error {
	return x.ask(ctx, awaitNewPassword{}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForNewPassword, Text: text.PromptNewPassword})
}

func (x *turn) onNewPassword(ctx context.Context) error {
	switch v := x.verdict; {
	case x.blank():
		return x.notChosen(ctx, text.NothingTyped)
	case errors.Is(v.err, directory.ErrBusy):
		return x.notChosen(ctx, text.DeniedBusy)
	case v.err != nil:
		return v.err
	case v.refusal != "":
		return x.notChosen(ctx, v.refusal)
	}
	return x.ask(ctx, awaitNewPassword2{x.verdict.proposal}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForNewPassword2, Text: text.PromptNewPassword2})
}

func (x *turn) notChosen(ctx context.Context, why string) error {
	x.talk.Mistakes++
	x.say(wire.MessageWarn, why)
	if x.talk.Mistakes >= maxProposalTries {
		return x.end(ctx, denied{}, reasonNotChanged, text.DeniedNoChange)
	}
	return x.askNewPassword(ctx)
}

func (x *turn) onNewPassword2(ctx context.Context, u db.User, st awaitNewPassword2) error {
	switch v := x.verdict; {
	case errors.Is(v.err, directory.ErrBusy):
		return x.notChosen(ctx, text.DeniedBusy)
	case v.err != nil:
		return v.err
	case !v.same:
		return x.notChosen(ctx, text.NewDiffers)
	}
	if err := x.directory(&u).Apply(ctx, x.tx, u, st.Proposal, x.now); err != nil {
		return err
	}
	x.talk.Changed = true
	changed := x.event(event.PasswordChanged)
	changed.Reason = x.talk.Change
	if err := ending.Password(ctx, x.tx, changed, map[string]any{"conversation": x.id}, "", x.now); err != nil {
		return err
	}
	x.say(wire.MessageTell, text.PasswordChanged)
	u, err := x.tx.GetUser(ctx, u.ID)
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	return x.allow(ctx, u)
}

// ── the end ──

// allow ends well: everything that was asked for was given.
func (x *turn) allow(ctx context.Context, u db.User) error {
	t := x.talk
	if !t.Accepted || len(t.Given) < t.Count || x.changeDue() {
		return x.end(ctx, denied{}, reasonState, text.DeniedInternal) // can not be
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
		ID: x.newID(), UserID: w.UserID, MachineID: w.MachineID, Boot: w.Boot, OpenedAt: at, ExpiresAt: clock.Micros(w.Expires),
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

// say shows something before the prompt or the end.
func (x *turn) say(kind, s string) {
	x.reply.Messages = append(x.reply.Messages, wire.Message{Kind: kind, Text: text.CleanBlock(s)})
}

// ask stores the stage and asks.
func (x *turn) ask(ctx context.Context, st stage, p wire.Prompt) error {
	x.at = st
	x.reply.Prompt = &p
	return x.store(ctx, facts.Open, &x.reply)
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

// store writes the stage and the reply, if nobody else has moved the conversation.
func (x *turn) store(ctx context.Context, outcome string, reply *wire.StepReply) error {
	var sealed []byte
	if reply != nil {
		b, err := json.Marshal(reply)
		if err != nil {
			return fmt.Errorf("reply: %w", err)
		}
		sealed = x.s.Keys.Box.Seal(b, "conversations", "reply", x.id)
	}
	n, err := x.advance(ctx, outcome, sealed)
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.Newf(fault.Conflict, "The sign-in went on without this step. Begin again.")
	}
	return nil
}

func (x *turn) advance(ctx context.Context, outcome string, reply []byte) (int64, error) {
	var data []byte
	if outcome == facts.Open {
		var err error
		if data, err = x.sealed(x.talk, x.at); err != nil {
			return 0, err
		}
	}
	n, err := x.tx.AdvanceConversation(ctx, db.AdvanceConversationParams{
		ID: x.row.ID, Rev: x.row.Rev, Stage: x.at.name(), Data: data, Seq: x.row.Seq, BodyHash: x.row.BodyHash, Reply: reply, Outcome: outcome,
		MFAAt: x.row.MFAAt, UserID: x.talk.UserID, ExpiresAt: x.row.ExpiresAt,
	})
	if err != nil {
		return 0, fmt.Errorf("store a conversation: %w", err)
	}
	if n > 0 && x.row.Stage == stageAnswer && x.at.name() != stageAnswer {
		return n, x.withdraw(ctx)
	}
	return n, nil
}
