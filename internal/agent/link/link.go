// Package link is the machine's connection to its server: one long poll down,
// POSTs up, all over mutual TLS 1.3 to the CA that was pinned when the machine
// joined.
//
// It promises:
//
//   - The state is up, down or refused, and known all the time. Up means that the
//     pinned server answered; an answer without its identity, silence, a captive
//     portal and a 5xx are down, each with its own reason; refused is an object
//     signed by the server for this machine, kept by the vault, and lasts.
//   - A sign-in that begins while the server can not be reached costs at most
//     FirstTime, mostly nothing: Step answers *Down at once when a try has just
//     failed.
//   - Step with a number above one never says *Down: a conversation that began
//     online is repeated with the same octets until its time is over.
//   - No proxy of the environment and no certificate of the system is trusted.
//
// The state is computed by Next, a pure function; one place here enters a state
// and does what has to be done.
//
// Rows O1, O5 (the poll), O11 (delivery), O12, O14 (wiping at contact), E4, W6.
package link

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/health"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/wire"
)

// Vault is what the link brings to and fetches from the machine's offline data.
type Vault interface {
	// ApplyPolicy takes over a signed policy and says what it wiped.
	ApplyPolicy(ctx context.Context, signed []byte) ([]wire.Wiped, error)
	// Pending gives the oldest entries not yet delivered, none if there are none.
	Pending(ctx context.Context, max int) (wire.Journal, error)
	// Delivered says that the server has all entries up to seq.
	Delivered(ctx context.Context, seq uint64, hash []byte) error
	// Renew tells, at each greeting, what the server has of the journal; it notices
	// an old state that was put back, and mends a state that can not be used.
	// What it does then makes another machine of this one for the server.
	Renew(ctx context.Context, seq uint64, hash []byte) (renewed bool, err error)
	// Refuse keeps a signed refusal for ever and wipes.
	Refuse(ctx context.Context, signed []byte) error
	// Refusal is the refusal that is kept, or nil.
	Refusal() *wire.RefusalNote
	// Contacted tells the server's time.
	Contacted(t time.Time)
	// PolicySerial is that of the policy on the disk; 0 if there is none.
	PolicySerial() int64
	// HighestTime is the highest time seen; zero if none.
	HighestTime() time.Time
	// Lift lifts counters where the policy says that an administrator wants it.
	Lift(ctx context.Context, s vault.Server) error
}

var (
	_ Vault        = (*vault.Vault)(nil)
	_ vault.Server = (*Link)(nil)
)

// Timing holds the link's limits; the zero value of a field is its default.
type Timing struct {
	First time.Duration // answer to the first POST of a conversation, and to a probe: 2 s
	Step  time.Duration // each later try of a POST: 5 s
	Poll  time.Duration // answer to a poll; the server hangs at most 60 s: 75 s
	Long  time.Duration // anything else: 20 s
	Again time.Duration // between two tries of a later step: 400 ms
	Ping  time.Duration // silence on the connection before it is asked whether it lives: 8 s
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&t.First, 2*time.Second)
	set(&t.Step, 5*time.Second)
	set(&t.Poll, 75*time.Second)
	set(&t.Long, 20*time.Second)
	set(&t.Again, 400*time.Millisecond)
	set(&t.Ping, 8*time.Second)
	return t
}

// Config is what a Link is made from.
type Config struct {
	Dir      string // state folder, for renewed certificates
	Identity *identity.Identity
	Key      crypto.Signer
	Vault    Vault
	Facts    func(ctx context.Context) wire.MachineFacts
	Clock    clock.Clock
	Log      *slog.Logger
	Health   *health.Register
	Built    time.Time // of this program: certificates are never judged at an earlier time
	Timing   Timing
}

// Link is the connection. Its methods may be called from any goroutine.
type Link struct {
	cfg    Config
	clk    clock.Clock
	log    *slog.Logger
	vault  Vault
	timing Timing
	nudge  chan struct{} // ends the loop's pause
	work   chan struct{} // wakes the chores
	speaks *atomic.Int32 // the version of the protocol that the server understands, as far as is known

	down, refused, standing, renewing *health.Item

	renewal sync.Mutex    // held while the certificate is renewed
	bearer  chan struct{} // held by whoever delivers the journal
	owed    atomic.Int64  // how often the journal got something that may not be delivered yet
	posting atomic.Bool   // a part of it is on its way

	mu        sync.Mutex
	state     State
	id        *identity.Identity
	client    *client
	cut       context.CancelFunc // ends the present poll
	trouble   *wire.Problem      // what the server answers to hello, if it is no welcome
	server    string             // its version
	serial    int64              // of the policy that was applied last
	fetched   time.Time          // when a whole policy was asked for last
	renewAt   time.Time
	wiped     []wire.Wiped
	occasions []wire.Occasion
	network   string    // through which the server was reached last
	noted     string    // last policy trouble that was logged
	stuck     time.Time // when the journal could not be delivered though the server is there
	highest   time.Time
}

// New makes a link that is down until Run connects it.
func New(cfg Config) *Link {
	l := &Link{
		cfg: cfg, clk: cfg.Clock, log: cfg.Log, vault: cfg.Vault, timing: cfg.Timing.withDefaults(), speaks: newest(),
		nudge: make(chan struct{}, 1), work: make(chan struct{}, 1), bearer: make(chan struct{}, 1), id: cfg.Identity,
	}
	h := cfg.Health
	l.down = h.Define(health.Problem{
		Code: "link-down", Severity: health.Warning, Text: "The server can not be reached.",
		Next: "Check the network and the server; people sign in offline meanwhile.",
	})
	l.refused = h.Define(health.Problem{
		Code: "machine-refused", Severity: health.Failure, Text: "The server has revoked this machine.",
		Next: "Ask an administrator; to use the machine again, join it anew (latchkey-agent join --again -, which reads the token).",
	})
	l.standing = h.Define(health.Problem{
		Code: "server-says-no", Severity: health.Failure, Text: "The server answers, but not as it does to a machine in good standing.",
		Next: "Do what the detail says.",
	})
	l.renewing = h.Define(health.Problem{
		Code: "certificate-renewal", Severity: health.Warning, Text: "The machine's certificate is due and could not be renewed.",
		Next: "Look into the server's log; an expired certificate can still be renewed.",
	})
	l.owed.Store(1) // what was left by the last run
	l.state, l.serial, l.highest = Start(l.clk.Now()), cfg.Vault.PolicySerial(), cfg.Vault.HighestTime()
	l.client = l.newClient()
	if cfg.Vault.Refusal() != nil {
		l.enter(Refusal{At: l.clk.Now()})
	}
	return l
}

func (l *Link) newClient() *client {
	id := l.id
	return newClient(clientConfig{
		server: id.Server, proxy: id.Proxy, timing: l.timing,
		trust: trust{ca: id.CACertificate(), now: l.judgeTime},
		key:   l.cfg.Key, certificate: [][]byte{id.Certificate}, machine: id.MachineID, speaks: l.speaks,
	})
}

// judgeTime is at what time certificates are judged: a dead battery must not cut
// the machine off. The highest time seen is kept here, so that no handshake waits
// for the vault, which may wait for the TPM.
func (l *Link) judgeTime() time.Time {
	l.mu.Lock()
	highest := l.highest
	l.mu.Unlock()
	now := l.clk.Now()
	if now.After(latest(l.cfg.Built, firstYear)) && highest.Sub(now) > doubtful {
		// The clock is not dead, and one of the two was wrong: ours, or the server's when
		// it told its time. A server whose clock was ahead for an hour must not cut its
		// machines off until that time has come.
		return now
	}
	return latest(now, highest, l.cfg.Built)
}

// doubtful is how far a time that was seen may lie ahead of a clock that could be
// right.
const doubtful = 24 * time.Hour

// firstYear is before every build: a clock that says less is dead.
var firstYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// contacted takes over the server's time.
func (l *Link) contacted(us int64) {
	t := clock.FromMicros(us)
	l.mu.Lock()
	l.highest = t
	l.mu.Unlock()
	l.vault.Contacted(t)
}

func latest(ts ...time.Time) time.Time {
	var out time.Time
	for _, t := range ts {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// State tells what is known now.
func (l *Link) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Server tells the version of the server that answered last, and the trouble that
// it has with this machine, if any.
func (l *Link) Server() (version string, trouble *wire.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.server, l.trouble
}

// CertificateUntil is when the machine's present certificate ends.
func (l *Link) CertificateUntil() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id.MachineCertificate().NotAfter
}

// enter is the only place where the state changes.
func (l *Link) enter(e Event) {
	l.mu.Lock()
	was := l.state
	l.state = Next(was, e)
	now := l.state
	var cut context.CancelFunc
	var old *client
	if now.Link != policy.LinkUp {
		// Whatever connection there was is not used again: packets that vanish would
		// otherwise take one sign-in after the other with them.
		cut, l.cut = l.cut, nil
		old, l.client = l.client, l.newClient()
	}
	l.mu.Unlock()

	if old != nil {
		old.close()
	}
	if cut != nil {
		cut()
	}
	switch now.Link {
	case policy.LinkUp:
		l.down.Clear()
		if was.Link != policy.LinkUp {
			l.log.Info("link is up", "server", l.cfg.Identity.Server)
			l.wake(l.nudge)
			l.wake(l.work)
		}
	case policy.LinkDown:
		l.down.Set(now.Reason.Text())
		if was.Link != policy.LinkDown || was.Reason != now.Reason {
			l.log.Warn("link is down", "server", l.cfg.Identity.Server, "reason", string(now.Reason), "detail", now.Detail)
		}
	case policy.LinkRefused:
		l.down.Clear()
		note := ""
		if n := l.vault.Refusal(); n != nil {
			note = n.Text
		}
		l.refused.Set(note)
		if was.Link != policy.LinkRefused {
			l.log.Error("the server has revoked this machine; its offline data is wiped", "text", note)
		}
	}
}

func (l *Link) wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Nudge makes a link that is down look for the server at once. A sign-in calls it
// while the person still types the password.
func (l *Link) Nudge() {
	if l.State().Link == policy.LinkDown {
		l.wake(l.nudge)
	}
}

// Deliver says that the journal has something new.
func (l *Link) Deliver() {
	l.owed.Add(1)
	l.wake(l.work)
}

// Occasion reports something that may end a window (W6). It is kept until the
// server was told, but not over a restart of the agent: the server learns of
// reboots and offline sign-ins by other ways.
func (l *Link) Occasion(o wire.Occasion) {
	l.mu.Lock()
	if len(l.occasions) < 256 {
		l.occasions = append(l.occasions, o)
	}
	l.mu.Unlock()
	l.wake(l.work)
}

// Run keeps the connection until the context ends.
func (l *Link) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { l.chores(ctx) })
	defer wg.Wait()
	short := 0 // connections in a row that did not last
	for ctx.Err() == nil {
		if l.State().Link == policy.LinkRefused {
			<-ctx.Done()
			return
		}
		begun := l.clk.Now()
		err := l.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		if short = min(short+1, maxFailures); l.clk.Now().Sub(begun) > lasting {
			short = 0
		}
		s := l.State()
		wait := Pause(max(s.Failures, short), jitter())
		var p *wire.Problem
		if errors.As(err, &p) || s.Link == policy.LinkUp {
			wait = Pause(maxFailures, jitter()) // it answers, but has no use for us yet
		}
		// What nudged before this failure is answered by it.
		select {
		case <-l.nudge:
		default:
		}
		l.pause(ctx, wait)
		// However many sign-ins nudge: a server is not asked more often than this.
		if since := l.clk.Now().Sub(begun); short > 1 && since >= 0 && since < firstPause {
			_ = l.clk.Sleep(ctx, firstPause-since)
		}
	}
}

// lasting is how long a connection must hold to be more than a flicker: a server
// that greets and then fails is not asked in a tight circle.
const lasting = 10 * time.Second

// pause waits unless somebody nudges.
func (l *Link) pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-l.clk.After(d):
	case <-l.nudge:
	case <-ctx.Done():
	}
}

// connection greets the server and polls until something goes wrong.
func (l *Link) connection(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.cut = cancel
	l.mu.Unlock()

	l.renewIfDue(ctx)
	if err := l.hello(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := l.poll(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// unwelcome notes that the server has no use for this machine, and why.
func (l *Link) unwelcome(p *wire.Problem) {
	l.mu.Lock()
	before := l.trouble
	l.trouble = p
	l.mu.Unlock()
	l.standing.Set(p.Detail)
	if before == nil || before.Code != p.Code {
		l.log.Warn("the server does not welcome this machine", "code", p.Code, "detail", p.Detail)
	}
}

func (l *Link) hello(ctx context.Context) error {
	var reply wire.HelloReply
	err := l.do(ctx, l.timing.Step, "POST", wire.PathHello, wire.Hello{Facts: l.cfg.Facts(ctx)}, &reply)
	var p *wire.Problem
	if errors.As(err, &p) {
		l.unwelcome(p)
		return err
	}
	if err != nil {
		return err
	}
	l.standing.Clear()
	l.contacted(reply.Time)
	if err := l.lineUp(ctx, &reply); err != nil {
		return err
	}
	l.mu.Lock()
	l.trouble, l.server = nil, reply.ServerVersion
	if reply.RenewAfter > 0 {
		l.renewAt = clock.FromMicros(reply.RenewAfter)
	}
	network := l.client.network()
	moved := l.network != "" && network != "" && network != l.network
	if network != "" {
		l.network = network
	}
	l.mu.Unlock()
	if moved {
		l.Occasion(wire.Occasion{Kind: policy.EndNetwork})
	}
	l.wake(l.work)
	return nil
}

// lineUp lets the vault compare itself with what the server knows. Where it has to be
// made anew there are other keys, another counter, no policy: the server is told before
// the journal reaches it under them, and sends everything anew.
func (l *Link) lineUp(ctx context.Context, reply *wire.HelloReply) error {
	select {
	case l.bearer <- struct{}{}:
		defer func() { <-l.bearer }()
	case <-ctx.Done():
		return ctx.Err()
	}
	renewed, err := l.vault.Renew(ctx, reply.JournalSeq, reply.JournalHash)
	if err != nil {
		l.log.Error("the offline state could not be lined up with the server", "err", err)
	}
	if !renewed {
		return nil
	}
	l.mu.Lock()
	l.fetched = time.Time{}
	l.mu.Unlock()
	return l.do(ctx, l.timing.Step, "POST", wire.PathHello, wire.Hello{Facts: l.cfg.Facts(ctx)}, reply)
}

// wholeEvery is how often, and at each start, a whole policy is asked for though
// nothing changed, so that its end never comes near while the server is there.
const wholeEvery = 24 * time.Hour

func (l *Link) poll(ctx context.Context) error {
	l.mu.Lock()
	since, now := l.serial, l.clk.Now()
	whole := l.fetched.IsZero() || now.Sub(l.fetched) > wholeEvery
	l.mu.Unlock()
	if whole {
		since = 0
	}
	var c wire.Changes
	if err := l.do(ctx, l.timing.Poll, "GET", wire.PathChanges+"?since="+strconv.FormatInt(since, 10), nil, &c); err != nil {
		var p *wire.Problem
		if errors.As(err, &p) && p.Code == string(fault.MachineUnknown) {
			l.unwelcome(p) // its certificate was revoked a moment ago
		}
		return err
	}
	l.contacted(c.Time)
	if len(c.Policy) == 0 {
		if c.Serial != since {
			// Changed, and yet nothing came: asked again, but not in a tight circle.
			l.mu.Lock()
			l.serial = c.Serial
			l.mu.Unlock()
			l.pause(ctx, time.Second)
		}
		return nil
	}
	failpoint.Hit("link.policy")
	wiped, err := l.vault.ApplyPolicy(ctx, c.Policy)
	l.mu.Lock()
	l.wiped = append(l.wiped, wiped...)
	noted := ""
	l.fetched = now
	if err != nil {
		// Told truthfully what the machine has, a server that was restored from a
		// backup makes a policy that is not older.
		noted, l.serial = err.Error(), l.vault.PolicySerial()
	} else {
		l.serial = c.Serial
	}
	news := noted != l.noted
	l.noted = noted
	l.mu.Unlock()
	if err != nil {
		if news {
			l.log.Error("the server's policy could not be applied", "err", err)
		}
		l.pause(ctx, Pause(maxFailures, jitter()))
		return nil
	}
	l.wake(l.work)
	return nil
}

// due tells whether the certificate should be renewed: when the server said so, or
// at two thirds of its life.
func (l *Link) due(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	cert := l.id.MachineCertificate()
	at := cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) * 2 / 3)
	if !l.renewAt.IsZero() && l.renewAt.Before(at) {
		at = l.renewAt
	}
	return !now.Before(at)
}

// renewIfDue renews the certificate; of the connection and the chores, which both
// look, only one does it.
func (l *Link) renewIfDue(ctx context.Context) {
	l.renewal.Lock()
	defer l.renewal.Unlock()
	if !l.due(l.judgeTime()) {
		return
	}
	err := l.renewed(ctx)
	if l.renewing.Judge(err) != nil {
		l.log.Warn("the machine's certificate could not be renewed", "err", err)
	}
}

func (l *Link) renewed(ctx context.Context) error {
	csr, err := identity.Request(l.cfg.Key, l.cfg.Identity.Name)
	if err != nil {
		return err
	}
	var reply wire.RenewReply
	if err := l.do(ctx, l.timing.Long, "POST", wire.PathRenew, wire.Renew{CSR: csr}, &reply); err != nil {
		return err
	}
	l.mu.Lock()
	id := l.id
	l.mu.Unlock()
	failpoint.Hit("link.renewed")
	fresh, err := identity.Renew(l.cfg.Dir, id, reply.Certificate)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.id, l.renewAt = fresh, time.Time{}
	old := l.client
	l.client = l.newClient()
	l.mu.Unlock()
	old.retire()
	l.log.Info("the machine's certificate was renewed", "until", fresh.MachineCertificate().NotAfter)
	return nil
}

// do makes one request and enters the state that its outcome means.
func (l *Link) do(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	m := &letter{v: in}
	defer m.wipe()
	return l.send(ctx, limit, method, path, m, out)
}

// send is do with a letter that may have been sent before.
func (l *Link) send(ctx context.Context, limit time.Duration, method, path string, m *letter, out any) error {
	l.mu.Lock()
	c := l.client
	l.mu.Unlock()
	tctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := c.call(tctx, method, path, m, out)
	var (
		p    *wire.Problem
		down *Down
	)
	switch {
	case err == nil:
		l.enter(Answer{At: l.clk.Now()})
	case errors.As(err, &p):
		l.enter(Answer{At: l.clk.Now()})
		if p.Code == string(fault.MachineRefused) {
			return l.refuse(ctx, p)
		}
	case errors.As(err, &down):
		if ctx.Err() != nil {
			return ctx.Err() // the caller gave up: says nothing about the server
		}
		l.enter(Failure{At: l.clk.Now(), Reason: down.Reason, Detail: down.Error()})
	}
	return err
}

// refuse takes over a signed refusal. One that is not signed for this machine
// is the server's word for this request, and nothing more.
func (l *Link) refuse(ctx context.Context, p *wire.Problem) error {
	if len(p.Refusal) == 0 {
		return p
	}
	if _, err := seal.Verify(l.cfg.Identity.Grant(), seal.Refusal, l.cfg.Identity.MachineID, p.Refusal); err != nil {
		l.log.Error("a refusal of this machine is not signed by the server's key", "err", err)
		return p
	}
	failpoint.Hit("link.refused")
	// The machine is refused from now on, whatever happens to the disk.
	if err := l.vault.Refuse(context.WithoutCancel(ctx), p.Refusal); err != nil {
		l.log.Error("the refusal could not be kept whole", "err", err)
	}
	l.enter(Refusal{At: l.clk.Now()})
	return &Refused{Note: l.vault.Refusal(), Problem: p}
}

// Step carries one message of a sign-in conversation to the server. The error is
//
//   - *Down with seq 1 only: the server did not answer in time, and this
//     conversation is an offline one. At most Timing.First has passed.
//   - *Refused: the machine is refused for ever.
//   - *wire.Problem: the server answered, with a denial of its own.
//   - ErrLost: the conversation is online, and the server was not reached again
//     before ctx ended. The caller must deny.
//   - ErrTrouble: the same, but the server was there and said that it can not work.
//   - the context's error.
func (l *Link) Step(ctx context.Context, id string, seq int, step wire.Step) (wire.StepReply, error) {
	m := &letter{v: step}
	defer m.wipe()
	path := strings.NewReplacer("{id}", url.PathEscape(id), "{seq}", strconv.Itoa(seq)).Replace(wire.PathStep)
	if seq == 1 {
		return l.first(ctx, path, m)
	}
	var reply wire.StepReply
	why := ErrLost // a server that says that it can not work has not gone away
	for {
		// Another sign-in may have gone on without the server in the meantime.
		err := l.settle(ctx)
		busy := err != nil && fault.Code(codeOf(err)) == fault.TooMany
		if err == nil {
			err = l.send(ctx, l.timing.Step, "POST", path, m, &reply)
		}
		var down *Down
		switch {
		case err == nil:
			return reply, nil
		case ctx.Err() != nil:
			return wire.StepReply{}, errors.Join(why, ctx.Err())
		case busy: // the server is at the journal
		case !errors.As(err, &down):
			return wire.StepReply{}, err
		case down.Reason == ServerError:
			why = ErrTrouble
		default:
			why = ErrLost
		}
		if err := l.clk.Sleep(ctx, l.timing.Again); err != nil {
			return wire.StepReply{}, errors.Join(why, err)
		}
	}
}

// Wait hangs on the server until what the conversation waits for may have come, at
// most wire.WaitTime.
func (l *Link) Wait(ctx context.Context, id string) error {
	path := strings.NewReplacer("{id}", url.PathEscape(id)).Replace(wire.PathWait)
	return l.do(ctx, wire.WaitTime+l.timing.Step, "GET", path, nil, &wire.Empty{})
}

// codeOf is the code of the server's problem, if err is one.
func codeOf(err error) string {
	var p *wire.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// first sends the opening of a conversation, or says *Down.
func (l *Link) first(ctx context.Context, path string, m *letter) (reply wire.StepReply, err error) {
	switch s := l.State(); s.Choose(l.clk.Now()) {
	case BeRefused:
		return reply, &Refused{Note: l.vault.Refusal()}
	case BeOffline:
		return reply, &Down{Reason: s.Reason, cause: errors.New("a try failed just now")}
	}
	if err := l.settle(ctx); err != nil {
		return reply, err
	}
	// A connection that the server closed while it lay idle: the same octets once
	// more, within the same time.
	begun := l.clk.Now()
	for range 2 {
		left := l.timing.First - l.clk.Now().Sub(begun)
		err = l.send(ctx, max(left, 0), "POST", path, m, &reply)
		var down *Down
		if !errors.As(err, &down) || down.Reason != Broken {
			break
		}
	}
	return reply, err
}

// Look settles doubt while somebody is typing: if the server has not been heard
// of for a while, it is asked for a sign of life.
func (l *Link) Look(ctx context.Context) {
	s := l.State()
	switch {
	case s.Link == policy.LinkDown:
		l.Nudge()
	case s.Link == policy.LinkUp && l.clk.Now().Sub(s.LastAnswer) > fresh:
		_ = l.do(ctx, l.timing.First, "GET", wire.PathProbe, nil, nil)
	}
}

// fresh is how long an answer makes a probe needless.
const fresh = 3 * time.Second

// Prepare asks for offline data after a completed MFA.
func (l *Link) Prepare(ctx context.Context, p wire.Prepare) (r wire.PrepareReply, err error) {
	return r, l.do(ctx, l.timing.Long, "POST", wire.PathPrepare, p, &r)
}

// Permit asks for the server's signature to write a counter of the TPM.
func (l *Link) Permit(ctx context.Context, p wire.PermitRequest) (r wire.Permit, err error) {
	return r, l.do(ctx, l.timing.Step, "POST", wire.PathPermit, p, &r)
}

// Ready says that a generation can be used.
func (l *Link) Ready(ctx context.Context, r wire.Ready) error {
	return l.do(ctx, l.timing.Long, "POST", wire.PathReady, r, nil)
}

// Bundle fetches the tags of the allowed days.
func (l *Link) Bundle(ctx context.Context, q wire.BundleRequest) (r wire.BundleReply, err error) {
	return r, l.do(ctx, l.timing.Long, "POST", wire.PathBundle, q, &r)
}

// UserCertificate asks for a certificate of a user who has signed in here.
func (l *Link) UserCertificate(ctx context.Context, q wire.UserCertificate) (r wire.UserCertificateReply, err error) {
	return r, l.do(ctx, l.timing.Step, "POST", wire.PathUserCert, q, &r)
}
