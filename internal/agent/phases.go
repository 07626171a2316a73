package agent

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// Texts of the account phase.
const (
	textKeyAlone = "A key alone does not open this machine: a second factor is required. Administrators: set AuthenticationMethods publickey,keyboard-interactive:pam in sshd_config."
	textDisabled = "This account is disabled."
)

// account answers the account phase: may this account in at all? It comes right
// behind auth, or alone where a program skipped auth: sshd after a key, cron, su by
// root.
func (a *agent) account(ctx context.Context, who caller, s service, m shim.Start) shim.FromAgent {
	if !who.privileged() {
		if !slices.Contains(a.names.Names(ctx, who.uid), m.User) {
			return shim.Deny{Text: textNotYours}
		}
		return shim.Ignore{}
	}
	done, ok := a.seen.auth(who.peer, m.Service, m.User)
	if ok {
		if done.outcome == policy.Ignore {
			return shim.Ignore{}
		}
		return shim.Allow{User: m.User}
	}
	f := a.vault.Facts(ctx, m.User)
	if f.User != nil && (f.User.Disabled || f.User.NotYet) {
		a.log.Warn("account phase denied: the account is disabled or not active yet", "user", text.CleanN(m.User, 64), "service", m.Service)
		return shim.Deny{Text: textDisabled, Expired: true}
	}
	switch {
	case s.remote || !s.here(m.RHost) || m.Scope == shim.ScopeRemote:
		return a.keyAlone(ctx, m)
	case s.job:
		return shim.Ignore{}
	case s.local && f.User != nil && f.User.MustChange:
		return shim.MustChange{}
	}
	return shim.Allow{User: m.User}
}

// keyAlone judges a remote login whose auth phase never came here: it is denied,
// unless the signed policy asks nothing more of this account anyway (S4).
func (a *agent) keyAlone(ctx context.Context, m shim.Start) shim.FromAgent {
	f := a.vault.Facts(ctx, m.User)
	var uid *uint32
	if m.Known {
		uid = &m.UID
	}
	d := policy.Decide(policy.Request{
		User: m.User, UID: uid, Scope: policy.Remote, Service: m.Service, At: a.clk.Now(), Link: policy.LinkDown, First: policy.FirstSSHKey,
	}, policy.Facts{
		User: f.User, NearMiss: f.NearMiss, Assigned: f.User != nil, FirstResult: policy.FirstAccepted, Machine: f.Machine,
		Policies: f.Policies, PolicyProblem: f.PolicyProblem,
	})
	relaxed := []policy.Reason{policy.ReasonExemptAccount, policy.ReasonMachineExempt, policy.ReasonTwoFactorOff, policy.ReasonScope}
	allowed := d.Outcome == policy.Allow && slices.Contains(relaxed, d.Reason)

	link := a.link.State().Link
	e := event.Event{
		Type: event.SigninDenied, Actor: text.CleanN(m.User, text.MaxName), Subject: text.CleanN(m.User, text.MaxName), Machine: a.id.Name,
		Address: hostName(m.RHost), Scope: string(policy.Remote), Service: text.CleanN(m.Service, 64), Link: string(link),
		Outcome: string(policy.Deny), Reason: "key-alone", At: clock.Micros(a.clk.Now()),
	}
	if f.User != nil {
		e.UserID = f.User.ID
	}
	if allowed {
		e.Type, e.Outcome, e.Reason = event.SigninAllowed, string(policy.Allow), string(d.Reason)
	}
	if raw, err := json.Marshal(map[string]any{"trace": d.Trace, "policy": d.Policy, "first": "sshkey", "phase": "account"}); err == nil {
		e.Data = raw
	}
	err := a.vault.Record(ctx, e)
	a.link.Deliver()
	if err != nil {
		a.log.Error("a key login can not be written down", "user", e.Subject, "err", err)
	}
	if allowed && err == nil {
		return shim.Allow{User: m.User}
	}
	a.log.Warn("a login by key alone is denied", "user", e.Subject, "from", e.Address)
	return shim.Deny{Text: textKeyAlone}
}

// chauthtok leads a change of password, for users whom the server knows.
func (a *agent) chauthtok(ctx context.Context, ac *shim.AgentConn, who caller, s service, m shim.Start) {
	switch {
	case !who.privileged():
		_ = ac.Send(shim.Deny{Text: textNotYours}, sendTime)
		return
	case m.Flags&shim.FlagPrelimCheck != 0:
		// Nothing is decided before the change itself.
		_ = ac.Send(shim.Allow{User: m.User}, sendTime)
		return
	case m.Service == "passwd" && m.RUID == 0 && m.RHost == "":
		// Root sets passwords of the machine; those of the server are set there.
		_ = ac.Send(shim.Ignore{}, sendTime)
		return
	}
	r, why := a.request(ctx, who, service{scope: s.scope, writes: s.writes}, m)
	if why != "" {
		_ = ac.Send(shim.Deny{Text: why}, sendTime)
		return
	}
	r.Purpose, r.BreakGlass = wire.PurposePassword, false
	v := a.talks.Sign(ctx, r, &person{c: ac})
	defer v.Authtok.Wipe()
	a.say(ac, v, m.User)
}

// sessionOpen remembers a session, for log-off (W6) and for what is done in it.
func (a *agent) sessionOpen(ctx context.Context, who caller, s service, m shim.Start) {
	if !who.privileged() || s.scope == policy.Elevation || s.job {
		return
	}
	x := session{
		leader: who.peer, service: m.Service, user: m.User, uid: m.UID, known: m.Known, host: numeric(m.RHost),
		remote: s.remote || !s.here(m.RHost) || a.scopeOf(who, s, m) == policy.Remote,
	}
	if !x.known {
		x.uid, x.known = a.names.UID(ctx, m.User)
	}
	a.seen.open(x)
}

func (a *agent) sessionClose(who caller, m shim.Start) {
	if !who.privileged() {
		return
	}
	if x, last, ok := a.seen.shut(who.peer, m.Service, m.User); ok && last {
		a.link.Occasion(wire.Occasion{Kind: policy.EndLogoff, User: x.user})
	}
}

// sweepEvery is how often sessions are looked for that ended without a word.
const sweepEvery = 30 * time.Second

func (a *agent) sweep(ctx context.Context) {
	for a.clk.Sleep(ctx, sweepEvery) == nil {
		for _, user := range a.seen.gone(a.procs) {
			a.link.Occasion(wire.Occasion{Kind: policy.EndLogoff, User: user})
		}
	}
}

var _ conversation.Person = (*person)(nil)
