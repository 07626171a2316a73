package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// The deadlines of frames.
const (
	beginTime = 5 * time.Second
	sendTime  = 5 * time.Second
)

// Texts of the socket itself.
const (
	textTooOld   = "The sign-in module and the agent on this machine are of different versions. Ask an administrator to update them."
	textBusy     = text.DeniedCrowd
	textTarget   = "Now the password of the account that is to be opened."
	textNotYours = "You may only unlock your own session here."
	textOdd      = text.DeniedOddRequest
)

// connection serves one shim.
func (a *agent) connection(ctx context.Context, c net.Conn) {
	// When the agent stops, waiting frames end.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer c.Close()

	ac := shim.NewAgentConn(c)
	who, err := a.identify(c)
	if err != nil {
		a.log.Error("a peer of the socket could not be identified", "err", err)
		return
	}
	leave, ok := a.limits.enter(who)
	if !ok {
		a.complain("too many connections", "uid", who.uid)
		_ = ac.Send(shim.Deny{Text: textBusy}, sendTime)
		return
	}
	defer leave()
	if err := ac.Greet(beginTime, textTooOld); err != nil {
		if errors.Is(err, shim.ErrVersion) {
			a.complain("a sign-in module speaks another version", "uid", who.uid, "pid", who.peer.PID, "exe", text.CleanN(who.peer.Exe, 256), "err", err)
		}
		return
	}
	m, err := ac.Receive(beginTime)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			a.complain("a message of a shim could not be read", "uid", who.uid, "pid", who.peer.PID, "err", err)
			_ = ac.Send(shim.Deny{Text: textOdd}, sendTime)
		}
		return
	}
	switch m := m.(type) {
	case shim.Status:
		_ = ac.Send(shim.Tell{Text: a.statusJSON(ctx, who)}, sendTime)
	case shim.Certificate:
		_ = ac.Send(shim.Tell{Text: a.certificateJSON(ctx, who, m.Request)}, sendTime)
	case shim.Start:
		defer m.Authtok.Wipe()
		a.start(ctx, ac, who, m)
	default:
		_ = ac.Send(shim.Deny{Text: textOdd}, sendTime)
	}
}

// complain logs what strangers cause, a bounded number of lines.
func (a *agent) complain(msg string, args ...any) {
	unsaid, ok := a.limits.line()
	if !ok {
		return
	}
	if unsaid > 0 {
		args = append(args, "lines_left_out", unsaid)
	}
	a.log.Warn(msg, args...)
}

func (a *agent) identify(c net.Conn) (caller, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return caller{}, errNoPeer
	}
	uid, pid, err := peerOf(u)
	if err != nil {
		return caller{}, err
	}
	p, _ := a.procs.Get(pid)
	return caller{uid: uid, peer: p}, nil
}

// The lengths of what a shim says of a sign-in. Part of it goes into the journal and to
// the server, so that a frame full of it would make either too large.
const (
	maxService = 64
	maxTTY     = 64
	maxLabel   = 256 // user names, hosts
)

// fits tells whether names are short and plain enough to be taken as they are. They are
// never cut: what is left could be the name of somebody or something else.
func fits(m shim.Start) bool {
	for _, name := range []string{m.User, m.RUser, m.PWName} {
		if len(name) > maxLabel {
			return false
		}
	}
	return len(m.RHost) <= maxLabel && len(m.Service) <= maxService && text.CleanN(m.Service, maxService) == m.Service
}

// start begins a phase.
func (a *agent) start(ctx context.Context, ac *shim.AgentConn, who caller, m shim.Start) {
	if !fits(m) {
		a.complain("a request with names that nobody has", "uid", who.uid, "pid", who.peer.PID, "exe", text.CleanN(who.peer.Exe, 256), "service", text.CleanN(m.Service, maxService))
		_ = ac.Send(shim.Deny{Text: textOdd}, sendTime)
		return
	}
	s, known := serviceOf(m.Service)
	s.remote = s.remote || !s.here(m.RHost) || m.Scope == shim.ScopeRemote
	scope := a.scopeOf(who, s, m)
	afar := s.remote || scope == policy.Remote
	if !known {
		a.complain("a service that the agent does not know", "taken_for", string(scope), "service", text.CleanN(m.Service, 64), "pid", who.peer.PID)
	}
	if !s.runs(who.peer.Exe) {
		a.complain("a program calls itself another service", "service", text.CleanN(m.Service, 64), "exe", text.CleanN(who.peer.Exe, 256), "pid", who.peer.PID, "uid", who.uid)
	}
	if k := behind(who, m); k != "" {
		leave, ok := a.limits.behind(k)
		if !ok {
			a.complain("too many sign-ins of one caller", "caller", text.CleanN(k, 64), "service", text.CleanN(m.Service, 64))
			_ = ac.Send(shim.Deny{Text: textBusy}, sendTime)
			return
		}
		defer leave()
	}
	if afar && (m.Phase == shim.PhaseAuth || m.Phase == shim.PhaseChauthtok) {
		leave, ok := a.limits.fromAfar()
		if !ok {
			a.complain("too many sign-ins from over the network", "service", text.CleanN(m.Service, 64), "from", text.CleanN(m.RHost, 64))
			_ = ac.Send(shim.Deny{Text: textBusy}, sendTime)
			return
		}
		defer leave()
	}
	switch m.Phase {
	case shim.PhaseAuth:
		a.auth(ctx, ac, who, s, m)
	case shim.PhaseAccount:
		_ = ac.Send(a.account(ctx, who, s, m), sendTime)
	case shim.PhaseChauthtok:
		a.chauthtok(ctx, ac, who, s, m)
	case shim.PhaseSetcred:
		_ = ac.Send(a.quiet(who, m), sendTime)
	case shim.PhaseSessionOpen:
		a.sessionOpen(ctx, who, s, m)
		_ = ac.Send(a.quiet(who, m), sendTime)
	case shim.PhaseSessionClose:
		a.sessionClose(who, m)
		_ = ac.Send(a.quiet(who, m), sendTime)
	default:
		_ = ac.Send(shim.Deny{Text: textOdd}, sendTime)
	}
}

// behind names who has started the program of root's that asks: su, sudo, passwd and
// their like run as root for everybody. It is empty where that is root.
func behind(who caller, m shim.Start) string {
	switch {
	case !who.privileged() || m.Phase != shim.PhaseAuth && m.Phase != shim.PhaseChauthtok:
	case m.RUID != 0 && int64(m.RUID) != int64(os.Geteuid()):
		return "uid " + strconv.FormatUint(uint64(m.RUID), 10)
	case m.RUID == 0 && m.RUser != "root":
		return m.RUser // sudo has become root altogether
	}
	return ""
}

// admit tells whether a sign-in may be carried to the server or judged here: whoever
// sits at the machine is always admitted, what comes over the network, under whichever
// name, or is started by its users (su, sudo) as often as limits says. Unlocks of
// somebody's own programs have a limit of their own.
func (a *agent) admit(r conversation.Request) bool {
	switch r.Scope {
	case policy.Remote:
		return a.limits.judge(neighbourhood(r.RHost), true)
	case policy.Logon:
		if (r.RemoteSeat || r.RHost != "") && !r.Unprivileged {
			return a.limits.judge(neighbourhood(r.RHost), true)
		}
		return true
	case policy.Elevation:
		// Not by whose account it is: others may name any.
		if r.Caller != "" {
			return a.limits.judge("by "+r.Caller, false)
		}
		return a.limits.judge("root for "+r.User, false)
	default:
		return false
	}
}

// quiet answers the phases that decide nothing. Success, because a stack in which
// nobody else speaks would fail without it.
func (a *agent) quiet(who caller, m shim.Start) shim.FromAgent {
	if !who.privileged() {
		return shim.Ignore{}
	}
	return shim.Allow{User: m.User}
}

// auth leads a sign-in.
func (a *agent) auth(ctx context.Context, ac *shim.AgentConn, who caller, s service, m shim.Start) {
	r, why := a.request(ctx, who, s, m)
	if why != "" {
		a.complain("a caller may not do what it asked for", "uid", who.uid, "pid", who.peer.PID, "exe", text.CleanN(who.peer.Exe, 256), "user", text.CleanN(m.User, 64), "service", text.CleanN(m.Service, 64))
		_ = ac.Send(shim.Deny{Text: why}, sendTime)
		return
	}
	if r.Unprivileged {
		leave, ok := a.limits.unlock(who.uid)
		if !ok {
			a.complain("too many unlocks", "uid", who.uid)
			_ = ac.Send(shim.Deny{Text: textBusy}, sendTime)
			return
		}
		defer leave()
	}
	v := a.talks.Sign(ctx, r, &person{c: ac})
	defer v.Authtok.Wipe()
	if leaveTarget(&v, r.User, m) && ac.Send(shim.Tell{Text: textTarget}, sendTime) != nil {
		return
	}
	if v.Outcome == policy.Allow || v.Outcome == policy.Ignore {
		parent, _ := a.procs.Get(who.peer.PPID)
		if r.Scope != policy.Elevation && v.Outcome == policy.Allow {
			a.limits.cameIn(neighbourhood(r.RHost))
		}
		a.seen.finish(finished{peer: who.peer, parent: parent, service: m.Service, user: m.User, outcome: v.Outcome})
	}
	if why := whyTold(who, v); why != "" && ac.Send(shim.Tell{Text: why}, sendTime) != nil {
		return
	}
	a.say(ac, v, m.User)
}

// trial is the command with which root tries a sign-in out: latchkey signin.
const trial = "latchkey"

// whyTold is why somebody was let in, for root's trial alone. A sign-in module would show it
// to whoever signs in, and that is no business of theirs.
func whyTold(who caller, v conversation.Verdict) string {
	sentence := event.Reasons[v.Reason]
	if !who.privileged() || filepath.Base(who.peer.Exe) != trial || v.Outcome == policy.Deny || sentence == "" {
		return ""
	}
	return text.WhyHead + sentence
}

// leaveTarget makes of a caller's success what it is worth where he asks for another
// account (su): he is who he says, but whether he may become the other one has not
// been judged. With mode=full that is left to the modules behind, which ask for the
// other account's password; with mode=second they have asked for it before. The
// caller's own password is nothing for them. next tells that they will ask.
func leaveTarget(v *conversation.Verdict, subject string, m shim.Start) (next bool) {
	if subject == m.User {
		return false
	}
	v.Authtok.Wipe()
	v.HasAuthtok = false
	if m.Mode == shim.ModeSecond {
		return false
	}
	if v.Outcome == policy.Allow {
		v.Outcome = policy.Ignore
	}
	return v.Outcome == policy.Ignore
}

// say tells the verdict.
func (a *agent) say(ac *shim.AgentConn, v conversation.Verdict, user string) {
	if v.HasAuthtok && (v.Outcome == policy.Allow || v.Outcome == policy.Ignore) {
		if err := ac.Send(shim.Authtok{Value: v.Authtok}, sendTime); err != nil {
			return
		}
	}
	switch v.Outcome {
	case policy.Allow:
		_ = ac.Send(shim.Allow{User: user}, sendTime)
	case policy.Ignore:
		_ = ac.Send(shim.Ignore{}, sendTime)
	default:
		_ = ac.Send(shim.Deny{Text: v.Text, Expired: v.Reason == string(policy.ReasonDisabled)}, sendTime)
	}
}

// request makes a sign-in of what the shim says and who it is. why is not empty if
// the caller may not begin it.
func (a *agent) request(ctx context.Context, who caller, s service, m shim.Start) (r conversation.Request, why string) {
	r = conversation.Request{
		Purpose: wire.PurposeSignin, User: m.User, Scope: a.scopeOf(who, s, m), Service: m.Service, TTY: text.CleanN(m.TTY, maxTTY), Mode: string(m.Mode),
		Caller: behind(who, m), Password: m.Authtok.Clone(), HasPassword: m.HasAuthtok && !m.Junk, Junk: m.Junk, Boot: a.bootNow(),
		Live: s.live,
	}
	if !who.privileged() {
		names := a.names.Names(ctx, who.uid)
		if !slices.Contains(names, m.User) {
			r.Password.Wipe()
			return r, textNotYours
		}
		uid := who.uid
		r.UID, r.Aliases, r.Scope, r.RHost, r.Unprivileged = &uid, others(names, m.User), policy.Logon, "", true
		if m.Mode == shim.ModeSecond {
			// A program of the user's own says that the machine has judged the password:
			// nobody has to believe it.
			r.Mode = string(shim.ModeFull)
		}
		r.RemoteSeat, _ = a.seat(who.peer.PID, who.uid, true)
		return r, ""
	}
	a.subject(ctx, &r, s, m)
	switch m.First {
	case shim.FirstMachine:
		r.First = policy.FirstMachine
	case shim.FirstSSHKey:
		if r.Scope == policy.Remote && (s.scope == policy.Remote || m.Scope == shim.ScopeRemote) {
			r.First = policy.FirstSSHKey
		}
	}
	switch {
	case !s.here(m.RHost):
		// The program says itself that the person is elsewhere. It is believed in every
		// scope: what follows from it only ever takes something away.
		r.RHost, r.RemoteSeat = hostName(m.RHost), r.Scope != policy.Remote
	case r.Scope != policy.Remote:
		r.RemoteSeat, r.RHost = a.seat(who.peer.PID, deref(r.UID), r.UID != nil)
	}
	if r.UID != nil && m.RUID != 0 && m.RUID != *r.UID && int64(m.RUID) != int64(os.Geteuid()) {
		// Started by another than whose account it is: everybody may do that with
		// polkit's helper, and must not use up the tries of the person at the keyboard.
		r.RemoteSeat = true
	}
	if r.UID != nil && !r.RemoteSeat && localSeat(s, m.TTY, m.RHost) {
		listed, err := a.glass.lists(*r.UID)
		if err != nil {
			a.log.Error("break-glass", "err", err)
		}
		r.BreakGlass = listed
	}
	return r, ""
}

// hostName is a remote host as it is told to others: what is harmless of it, and "?" where
// too little is left to be seen that there is one.
func hostName(host string) string {
	clean := text.CleanN(host, maxLabel)
	if policy.Elsewhere(host) && !policy.Elsewhere(clean) {
		return "?"
	}
	return clean
}

// scopeOf is what a sign-in opens. scope= of the stack wins. Without it a logon that
// names a remote host is remote, whatever the service is called; and so is one of a
// service that nobody has described, if nothing says that it is of this machine: a
// daemon need not name the host of whom it asks for.
func (a *agent) scopeOf(who caller, s service, m shim.Start) policy.Scope {
	switch _, known := services[m.Service]; {
	case m.Scope != shim.ScopeNone:
		return policy.Scope(m.Scope)
	case s.scope != policy.Logon:
		return s.scope
	case !s.here(m.RHost):
		return policy.Remote
	case !known && !consoleTTY(m.TTY) && !a.placed(who.peer.PID):
		return policy.Remote
	}
	return s.scope
}

func deref(u *uint32) uint32 {
	if u == nil {
		return 0
	}
	return *u
}

// subject finds who it is that signs in: for su and sudo the one who calls.
func (a *agent) subject(ctx context.Context, r *conversation.Request, s service, m shim.Start) {
	if s.caller && m.RUser != "" {
		r.User, r.Target = m.RUser, m.User
	}
	if r.User != m.User {
		// What the stack holds is the target's password (su asks for that one): it says
		// nothing of the caller, and the server must not judge it as his.
		r.Password.Wipe()
		r.Password, r.HasPassword = secret.Bytes{}, false
	}
	switch {
	case r.User == m.User && m.Known:
		uid := m.UID
		r.UID = &uid
	default:
		if uid, ok := a.names.UID(ctx, r.User); ok {
			r.UID = &uid
		}
	}
	if r.UID == nil {
		return
	}
	r.Aliases = others(a.names.Names(ctx, *r.UID), r.User)
	if r.User == m.User && m.PWName != "" && m.PWName != r.User && !slices.Contains(r.Aliases, m.PWName) {
		r.Aliases = append(r.Aliases, m.PWName)
	}
}

// others is the list without one name, bounded.
func others(names []string, but string) []string {
	var out []string
	for _, n := range names {
		if n != but && len(out) < 8 {
			out = append(out, n)
		}
	}
	return out
}

// person is who sits behind a shim.
type person struct {
	c *shim.AgentConn
	n int
}

// Prompt implements conversation.Person.
func (p *person) Prompt(_ context.Context, q wire.Prompt, within time.Duration) (secret.Bytes, error) {
	p.n++
	var m shim.FromAgent
	switch q.Kind {
	case wire.PromptSecret:
		m = shim.Secret{N: p.n, Text: q.Text}
	case wire.PromptAsk:
		m = shim.Ask{N: p.n, Text: q.Text}
	case wire.PromptChoose:
		m = shim.Choose{N: p.n, Text: q.Text, Options: q.Options}
	case wire.PromptWait:
		m = shim.Wait{N: p.n, Text: q.Text}
	default:
		return secret.Bytes{}, errors.New("a kind of prompt that the agent does not know")
	}
	if err := p.c.Send(m, sendTime); err != nil {
		return secret.Bytes{}, err
	}
	got, err := p.c.Receive(within)
	if err != nil {
		return secret.Bytes{}, err
	}
	answer, ok := got.(shim.Answer)
	switch {
	case !ok:
		return secret.Bytes{}, conversation.ErrGaveUp
	case answer.N != p.n:
		answer.Value.Wipe()
		return secret.Bytes{}, shim.ErrShape
	}
	return answer.Value, nil
}

// Watch implements conversation.Person.
func (p *person) Watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	gone, stop := p.c.Listen()
	go func() {
		select {
		case <-gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		stop()
		cancel()
	}
}

// Tell implements conversation.Person.
func (p *person) Tell(m wire.Message) error {
	if m.Kind == wire.MessageWarn {
		return p.c.Send(shim.Warn{Text: m.Text}, sendTime)
	}
	return p.c.Send(shim.Tell{Text: m.Text, Needed: m.Kind == conversation.Needed}, sendTime)
}
