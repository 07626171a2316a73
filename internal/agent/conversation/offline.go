package conversation

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"latchkey/internal/agent/link"
	"latchkey/internal/agent/vault"
	"latchkey/internal/assertion"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func junk(b []byte) bool { return shim.IsJunk(b) }

// offline decides what happens without the server.
type offline struct {
	link policy.Link
	why  link.Reason
	note string // of a refusal
	told bool   // that the server can not be reached
}

// knows tells whether the first factor was accepted by somebody else than us.
func (t *talk) knows() bool {
	return t.r.First == policy.FirstMachine || t.r.First == policy.FirstSSHKey
}

// decide asks the rules.
func (t *talk) decide(ctx context.Context, l policy.Link) (policy.Decision, vault.Facts, policy.Past) {
	f := t.cfg.Vault.Facts(ctx, t.r.User)
	facts := policy.Facts{
		User: f.User, NearMiss: f.NearMiss, Assigned: f.User != nil, Machine: f.Machine, Policies: f.Policies,
		Vault: f.Vault, VaultProblem: f.VaultProblem, PolicyProblem: f.PolicyProblem,
	}
	if t.knows() {
		facts.FirstResult = policy.FirstAccepted
	}
	r := policy.Request{
		User: t.r.User, UID: t.r.UID, Scope: t.r.Scope, Service: t.r.Service, At: t.cfg.Clock.Now(), Link: l, First: t.r.First,
		RemoteSeat: t.r.RemoteSeat || t.r.Unprivileged, Host: t.r.RHost, Boot: t.r.Boot,
	}
	return policy.Decide(r, facts), f, policy.Remember(r, facts)
}

func (s offline) next(ctx context.Context, t *talk) stage {
	if t.r.Purpose != wire.PurposeSignin {
		return t.changeOffline(ctx, s)
	}
	d, f, past := t.decide(ctx, s.link)
	if !s.told && !t.knows() {
		// To find somebody takes longer than to find nobody, and what comes next, a
		// prompt, is not rounded as a denial is.
		t.roundUp(ctx, t.cfg.Grain/40)
	}
	data := map[string]any{"trace": d.Trace, "policy": d.Policy, "past": past}
	if s.why != "" {
		data["link_reason"] = string(s.why)
	}
	switch d.Outcome {
	case policy.Ignore:
		if t.r.Junk {
			return sham{}
		}
		return t.written(ctx, t.event(event.SigninIgnored, policy.Ignore, string(d.Reason), f.User, s.link, data), Verdict{Outcome: policy.Ignore, Reason: string(d.Reason)})
	case policy.Allow:
		if t.r.Junk || !t.knows() {
			return sham{}
		}
		return t.written(ctx, t.event(event.SigninAllowed, policy.Allow, string(d.Reason), f.User, s.link, data), Verdict{Outcome: policy.Allow, Reason: string(d.Reason)})
	case policy.MFAOffline:
		if d.Count < 1 || f.User == nil {
			break
		}
		if !s.told {
			t.say(wire.MessageTell, text.OfflineNow)
			s.told = true
		}
		return offlinePassword{from: s, decision: d, facts: f, data: data}
	case policy.Deny:
		if !t.tellable(d.Reason) {
			if !s.told {
				t.say(wire.MessageTell, text.OfflineNow)
			}
			return sham{ask: true, decision: d, facts: f, link: s.link, data: data}
		}
		words := text.Denied(d.Reason, f.Contact)
		// What the server wrote with a refusal, unless it says no more than we do.
		if note := text.CleanN(s.note, 300); note != "" && !strings.HasPrefix(note, "This machine has been revoked.") {
			words += " " + note
		}
		return t.denied(ctx, s.link, d.Reason, f.User, data, words)
	}
	return t.denied(ctx, s.link, policy.ReasonBadRequest, f.User, data, text.DeniedInternal)
}

// denied writes a denial down and tells it. A denial stands whether or not it can
// be written.
func (t *talk) denied(ctx context.Context, l policy.Link, reason policy.Reason, u *policy.User, data map[string]any, words string) stage {
	if err := t.cfg.Vault.Record(ctx, t.event(event.SigninDenied, policy.Deny, string(reason), u, l, data)); err != nil {
		t.cfg.Log.Error("a denied sign-in can not be journalled", "user", t.r.User, "reason", string(reason), "err", err)
	}
	t.cfg.Server.Deliver()
	return deny(string(reason), words)
}

// written gives the verdict once the event is on the disk, else a denial.
func (t *talk) written(ctx context.Context, e event.Event, v Verdict) stage {
	if err := t.cfg.Vault.Record(ctx, e); err != nil {
		t.cfg.Log.Error("an offline sign-in can not be written down and is denied", "user", t.r.User, "err", err)
		return deny(string(vault.ReasonOf(err)), t.stateText(err))
	}
	failpoint.Hit("conversation.recorded")
	t.cfg.Server.Deliver()
	return end{v}
}

// stateText tells a full disk from what else can be wrong with the state.
func (t *talk) stateText(err error) string { return text.Denied(vault.ReasonOf(err), "") }

// tellable tells whether a person may read the reason of a denial. What is wrong
// with the machine everybody may know. What is wrong with an account is told
// behind an accepted first factor; and at the machine itself also what only the
// network can mend, because a person on a plane must know that it is of no use to
// type on (O6). Who a user is and whether he is locked out is never told before.
func (t *talk) tellable(r policy.Reason) bool {
	if t.knows() {
		return true
	}
	switch r {
	case policy.ReasonRefused, policy.ReasonMachineStatus, policy.ReasonNoPolicy, policy.ReasonBadRequest,
		policy.ReasonPolicyAbsent, policy.ReasonPolicyOlder, policy.ReasonPolicyExpired, policy.ReasonPolicyForeign:
		return true
	case policy.ReasonOfflineDeny, policy.ReasonNoVault, policy.ReasonVaultStale, policy.ReasonVaultSoftware, policy.ReasonVaultDays,
		policy.ReasonVaultSignins, policy.ReasonVaultTries, policy.ReasonVaultFactor, policy.ReasonVaultRolledBack, policy.ReasonVaultDamaged,
		policy.ReasonVaultNewer, policy.ReasonVaultForeign, policy.ReasonVaultUnread, policy.ReasonStateWrite,
		policy.ReasonJournalFull,
		policy.ReasonTPMCleared, policy.ReasonTPMLocked, policy.ReasonTPMGone, policy.ReasonTPMReplaced, policy.ReasonTPMBusy,
		policy.ReasonTPMBoot, policy.ReasonTPMNoRoom, policy.ReasonVaultUnfinished:
		return !t.r.remote()
	}
	return false
}

// offlinePassword gets the password where nobody has typed one here.
type offlinePassword struct {
	from     offline
	decision policy.Decision
	facts    vault.Facts
	data     map[string]any
}

func (s offlinePassword) next(ctx context.Context, t *talk) stage {
	if t.r.Junk {
		return sham{ask: true, decision: s.decision, facts: s.facts, link: s.from.link, data: s.data}
	}
	if t.password.Empty() {
		a, over := t.ask(ctx, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForPassword, Text: text.PromptOfflinePassword})
		if over != nil {
			return t.abandoned(ctx, s.from.link, s.facts.User, over)
		}
		if isJunk(a) {
			a.Wipe()
			t.r.Junk = true
			return s
		}
		t.password = a
	}
	return offlineCodes(s)
}

// abandoned writes down that a sign-in was begun and not ended. It spends nothing.
func (t *talk) abandoned(ctx context.Context, l policy.Link, u *policy.User, over stage) stage {
	reason := "given-up"
	if e, ok := over.(end); ok {
		reason = e.v.Reason
	}
	if err := t.cfg.Vault.Record(context.WithoutCancel(ctx), t.event(event.SigninAbandoned, policy.Deny, reason, u, l, nil)); err != nil {
		t.cfg.Log.Error("an abandoned sign-in can not be journalled", "user", t.r.User, "err", err)
	}
	t.cfg.Server.Deliver()
	return over
}

// codePrompt asks for the i-th of n factors that the policy accepts offline. It
// shows what the policy says and what is plugged in, not what this user has.
func codePrompt(d policy.Decision, i, n int, key bool) wire.Prompt {
	accepted := d.Applied().OfflineFactors
	p := wire.Prompt{Kind: wire.PromptSecret, For: wire.ForCode, Text: text.PromptEitherCode}
	totp, backup := slices.Contains(accepted, policy.TOTP), slices.Contains(accepted, policy.Backup)
	switch {
	case key && !totp && !backup:
		p.Text = text.PromptKeyAlone
	case key:
		p.Text = text.PromptKeyOrCode
	case totp && !backup:
		p.Text = text.PromptCode
	case backup && !totp:
		p.Text = text.PromptBackup
	}
	if n > 1 {
		p.Text = text.Step(i+1, n, "Each is of another kind. "+p.Text)
	}
	return p
}

// byKey tells whether an empty answer means a security key: where the policy takes one
// offline, at a local seat, with one plugged in or nothing else accepted.
func (t *talk) byKey(d policy.Decision) bool {
	accepted := d.Applied().OfflineFactors
	if t.cfg.Key == nil || t.r.remote() || !slices.Contains(accepted, policy.FIDO2) {
		return false
	}
	return t.cfg.Key.Present() || !slices.Contains(accepted, policy.TOTP) && !slices.Contains(accepted, policy.Backup)
}

// keyTries is how often a key may be tried for one factor, and keyTime how long each
// time: there may be other ways.
const (
	keyTries = 3
	keyTime  = 20 * time.Second
)

// offlineFactor asks for one factor: a code, or the answer of a security key.
func (t *talk) offlineFactor(ctx context.Context, d policy.Decision, f vault.Facts, i, n int) (code secret.Bytes, given *vault.KeyGiven, over stage) {
	for tried := 0; ; tried++ {
		key := tried < keyTries && t.byKey(d)
		a, over := t.ask(ctx, codePrompt(d, i, n, key))
		if over != nil || !key || strings.TrimSpace(string(a.Reveal())) != "" {
			return a, nil, over
		}
		a.Wipe()
		if given, err := t.offlineKey(ctx, d, f); err == nil {
			return secret.Bytes{}, given, nil
		} else if over := t.keyless(ctx, err); over != nil {
			return secret.Bytes{}, nil, over
		}
	}
}

// offlineKey has a security key of the user sign a nonce of ours. Somebody who has none
// here, or who is nobody, is asked for one all the same.
func (t *talk) offlineKey(ctx context.Context, d policy.Decision, f vault.Facts) (*vault.KeyGiven, error) {
	var random [assertion.NonceSize - 8]byte
	_, _ = rand.Read(random[:]) // never fails
	none := make([]byte, 32)
	_, _ = rand.Read(none)
	nonce := assertion.OfflineNonce(clock.Micros(t.cfg.Clock.Now()), random)
	q := KeyQuestion{User: t.r.User, Offline: true, Within: max(0, min(keyTime, t.left()))}
	q.KeyChallenge = wire.KeyChallenge{RPID: f.Keys.RPID, Challenge: nonce, Credentials: f.Keys.Credentials, Verification: d.Applied().KeyVerification}
	if f.User != nil {
		q.UserID = f.User.ID
	}
	if q.RPID == "" || len(q.Credentials) == 0 {
		q.RPID, q.Credentials = "invalid", [][]byte{none}
	}
	t.limit = max(t.limit, Limit+ScanTime)
	answer, err := t.cfg.Key.Assert(ctx, q, t.person)
	t.heard = t.cfg.Clock.Now()
	if err != nil {
		return nil, err
	}
	return &vault.KeyGiven{Nonce: nonce, Answer: answer}, nil
}

// keyless says why a key gave no answer; a stage ends the conversation.
func (t *talk) keyless(ctx context.Context, err error) stage {
	switch {
	case errors.Is(err, ErrGaveUp):
		return deny("given-up", text.DeniedGivenUp)
	case ctx.Err() != nil || t.left() <= 0:
		return deny("too-long", text.DeniedTooLong)
	}
	t.say(wire.MessageWarn, err.Error())
	return nil
}

// offlineCodes asks for the codes and has the vault judge them with the password.
type offlineCodes offlinePassword

func (s offlineCodes) next(ctx context.Context, t *talk) stage {
	var codes []secret.Bytes
	defer func() {
		for _, c := range codes {
			c.Wipe()
		}
	}()
	var key *vault.KeyGiven
	for i := range s.decision.Count {
		a, given, over := t.offlineFactor(ctx, s.decision, s.facts, i, s.decision.Count)
		if over != nil {
			return t.abandoned(ctx, s.from.link, s.facts.User, over)
		}
		codes = append(codes, a)
		if given != nil {
			key = given
		}
	}
	if err := t.settle(ctx, s.facts.User.ID); err != nil {
		t.cfg.Log.Error("what was accepted online can not be written down; the offline sign-in is denied", "err", err)
		return t.denied(ctx, s.from.link, vault.ReasonOf(err), s.facts.User, s.data, t.stateText(err))
	}
	r, err := t.cfg.Vault.Attempt(ctx, vault.Attempt{
		User: s.facts.User, Decision: s.decision, Remote: t.r.remote(), Password: t.password, Codes: codes, Key: key,
		Event: t.event("", "", "", s.facts.User, s.from.link, s.data),
	})
	failpoint.Hit("conversation.judged")
	t.kdf, t.tpm = t.kdf+r.KDF, t.tpm+r.TPM
	t.cfg.Server.Deliver()
	if err != nil {
		t.cfg.Log.Error("an offline sign-in could not be judged and is denied", "user", t.r.User, "err", err)
		if ctx.Err() != nil {
			return deny("too-long", text.DeniedTooLong)
		}
		return deny(string(vault.ReasonOf(err)), t.stateText(err))
	}
	return judged{from: s, result: r}
}

// judged carries out the vault's word.
type judged struct {
	from   offlineCodes
	result vault.Result
}

func (s judged) next(_ context.Context, t *talk) stage {
	r := s.result
	if r.OK {
		if r.Left.Warn {
			t.say(wire.MessageWarn, text.OfflineLeft(r.Left.Days, r.Left.Signins, r.Left.Tries))
		}
		return end{Verdict{Outcome: policy.Allow, Reason: r.Reason}}
	}
	switch r.Reason {
	case vault.WrongCode, vault.CodeUsed, vault.BackupUsed, vault.ClockBehind, vault.KeyWrong, vault.KeyCloned:
		// Only behind a right password: the first factor is accepted.
		words := text.WrongCode
		switch r.Reason {
		case vault.CodeUsed:
			words = text.CodeUsed
		case vault.BackupUsed:
			words = text.BackupUsed
		case vault.ClockBehind:
			words = text.ClockBehind
		case vault.KeyWrong:
			words = text.KeyNotAccepted
		case vault.KeyCloned:
			words = text.KeyCloned
		}
		t.say(wire.MessageWarn, words)
	case vault.WrongPassword:
		if !t.knows() {
			return deny(r.Reason, text.DeniedOffline)
		}
		t.say(wire.MessageWarn, text.DeniedOffline)
		t.password.Wipe()
		t.password = secret.Bytes{}
	default:
		if !t.tellable(policy.Reason(r.Reason)) {
			return deny(r.Reason, text.DeniedOffline)
		}
		return deny(r.Reason, text.Denied(policy.Reason(r.Reason), s.from.facts.Contact))
	}
	if t.wrong++; t.wrong >= tries {
		return deny(r.Reason, text.DeniedCodes)
	}
	return s.from.from // the limits may have been reached: the rules are asked again
}

// sham goes on as if there were something to judge, so that a name that nobody
// has, or that sshd refuses, looks like any other.
type sham struct {
	online   bool // the server has been asked
	open     bool // and waits for an answer
	ask      bool // a code is asked for
	decision policy.Decision
	facts    vault.Facts
	link     policy.Link
	data     map[string]any
}

func (s sham) next(ctx context.Context, t *talk) stage {
	if s.online {
		if s.open {
			t.cancel(2)
		}
		t.cfg.Vault.Burn(ctx, secret.FromString("nobody"))
		return end{Verdict{Outcome: policy.Deny, Reason: "user-unknown-here", Text: text.DeniedFirst, Online: true}}
	}
	if s.ask {
		n := max(1, s.decision.Applied().FactorsOffline)
		for i := range n {
			a, _, over := t.offlineFactor(ctx, s.decision, s.facts, i, n)
			a.Wipe()
			if over != nil {
				return t.abandoned(ctx, s.link, s.facts.User, over)
			}
		}
	}
	t.cfg.Vault.Burn(ctx, secret.FromString("nobody"))
	reason := s.decision.Reason
	if t.r.Junk || reason == "" {
		reason = policy.ReasonUnknownDenied
	}
	return t.denied(ctx, policy.LinkDown, reason, s.facts.User, s.data, text.DeniedOffline)
}

// changeOffline ends a change of password without the server: accounts that the
// server does not know are left to the machine, the others must wait.
func (t *talk) changeOffline(ctx context.Context, s offline) stage {
	f := t.cfg.Vault.Facts(ctx, t.r.User)
	if s.link == policy.LinkDown && f.PolicyProblem == "" && f.User == nil && !f.NearMiss {
		return end{Verdict{Outcome: policy.Ignore, Reason: string(policy.ReasonUnknownSkipped)}}
	}
	return deny("offline-no-change", textNoChange)
}

const textNoChange = "The password can be changed only while the server can be reached. " + text.DeniedNoChange
