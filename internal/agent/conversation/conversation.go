// Package conversation is a sign-in as the shim sees it: prompts out, answers in,
// one verdict at the end. Online it relays what the server asks; offline it asks
// the rules (policy.Decide) over the signed policy and lets the vault judge.
//
// Each stage of a sign-in is a type of its own, and each says which stage comes
// next; a stage that says nothing is a denial. It promises:
//
//   - "Allow" and "ignore" come from four places only: the server's Done, the
//     vault's accepted attempt, the rules over the signed policy, and the
//     break-glass list.
//   - A conversation that the server has answered once is online to its end. One
//     that it has not is offline to its end.
//   - What ends offline is written down before the person is told (O10, O11). If it
//     can not be written the answer is a denial that says so (O17).
//   - What the server accepted is marked as spent before the shim is answered.
//   - Before an accepted first factor there is one text, and the time of an answer
//     is rounded up, so that it does not tell whose name or password was right (S5).
//   - A conversation has fifty seconds, and some more to scan a QR code.
//
// Rows S1-S5, S9 and S12 (relayed), M7, O2, O3, O6, O11, O17.
package conversation

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// Server is what a conversation asks of the link.
type Server interface {
	// Step carries a message to the server; see link.Link.Step for its errors.
	Step(ctx context.Context, id string, seq int, step wire.Step) (wire.StepReply, error)
	// Wait returns when what the conversation waits for may have come to the server, when
	// the server has hung long enough, or with an error when it can not hang.
	Wait(ctx context.Context, id string) error
	// Look settles doubt about the link while the person types.
	Look(ctx context.Context)
	// Deliver says that the journal has something new.
	Deliver()
	vault.Server
}

// Vault is what it asks of the machine's offline data.
type Vault interface {
	Facts(ctx context.Context, user string) vault.Facts
	Attempt(ctx context.Context, a vault.Attempt) (vault.Result, error)
	Record(ctx context.Context, e event.Event) error
	NoteOnline(ctx context.Context, userID string, spent []wire.Spent) error
	Enrol(ctx context.Context, o vault.Offer, s vault.Server) (string, error)
	Burn(ctx context.Context, password secret.Bytes)
}

// Person is who sits behind the shim.
type Person interface {
	// Prompt asks and waits no longer than said; an error means that there will be no
	// answer. The answer to a choice is the number as typed.
	Prompt(ctx context.Context, p wire.Prompt, within time.Duration) (secret.Bytes, error)
	// Tell shows a message; one of the kind Needed also where the program wants silence.
	Tell(m wire.Message) error
	// Watch gives a context that ends also when the person gives up while nothing is
	// asked. The function ends the watch and is called before anything else is said.
	Watch(ctx context.Context) (context.Context, func())
}

// ErrGaveUp is the error of a Person who wants no more.
var ErrGaveUp = errors.New("the sign-in was given up")

// Needed is the kind of a message without which nobody could sign in: what is to be
// typed on the phone, or that the key is to be touched.
const Needed = "needed"

// Request is a sign-in as the agent made it of a shim's words and of who the
// caller is. The caller's rights have been judged.
type Request struct {
	Purpose      string // wire.PurposeSignin or PurposePassword
	User         string // as typed; for su the caller
	Target       string
	Caller       string // who has started root's program that asks; empty: root
	UID          *uint32
	Aliases      []string
	Scope        policy.Scope
	Service      string
	TTY, RHost   string
	RemoteSeat   bool
	Mode         string // full or second
	First        policy.First
	Password     secret.Bytes // that the stack holds; the conversation wipes it
	HasPassword  bool
	Junk         bool // sshd refuses the user whatever we say; Password is none
	Boot         string
	Unprivileged bool // the peer unlocks its own session: yes or no
	BreakGlass   bool // listed, and at a local seat
	Live         bool // the program shows text when it comes, not only with a prompt behind it
}

// remote tells requests from over the network, and those that count like them.
func (r Request) remote() bool {
	return r.Scope == policy.Remote || r.RemoteSeat || policy.Elsewhere(r.RHost) || r.Unprivileged
}

// Verdict ends a conversation.
type Verdict struct {
	Outcome    policy.Outcome // Allow, Ignore or Deny; anything else is Deny
	Reason     string
	Text       string       // with Deny
	Authtok    secret.Bytes // for later modules; the caller wipes it
	HasAuthtok bool
	Online     bool
}

// Limit is the time of a whole conversation; login gives up after 60 s. Whoever
// has to scan a QR code gets ScanTime on top; the module waits 110 s.
const (
	Limit    = 50 * time.Second
	ScanTime = 55 * time.Second
)

// grain is what the time of a denial is rounded up to.
const grain = time.Second

// tries is how many wrong codes one conversation takes, and steps how many
// messages the server may need.
const (
	tries = 3
	steps = 160
)

// keepPassword is how long the password may stay in memory behind the sign-in.
const keepPassword = 60 * time.Second

// Config is what Conversations are made from.
type Config struct {
	Server  Server
	Vault   Vault
	Clock   clock.Clock
	Log     *slog.Logger
	Machine string        // its name, for events
	Key     Key           // the security keys at this machine; nil: none is asked for
	Grain   time.Duration // zero: one second; negative: none
	// Admit tells whether one more sign-in like this may be carried to the server or
	// judged here; nil admits all.
	Admit func(r Request) bool
}

// Conversations holds sign-ins. Its methods may be called from any goroutine.
type Conversations struct {
	cfg   Config
	wg    sync.WaitGroup // background work behind answers
	bg    context.Context
	stop  context.CancelFunc
	mu    sync.Mutex
	owing map[string][]wire.Spent // accepted online, not yet in the ledger
}

// New makes Conversations.
func New(cfg Config) *Conversations {
	if cfg.Grain == 0 {
		cfg.Grain = grain
	}
	c := &Conversations{cfg: cfg, owing: map[string][]wire.Spent{}}
	c.bg, c.stop = context.WithCancel(context.Background())
	return c
}

// Wait waits for work that goes on behind answers.
func (c *Conversations) Wait() { c.wg.Wait() }

// Close ends that work and waits for it. It is safe at any point: offline data that
// is half made is none.
func (c *Conversations) Close() {
	c.stop()
	c.wg.Wait()
}

// stage is a state of a conversation. It returns the next one; nil is a denial.
type stage interface {
	next(ctx context.Context, t *talk) stage
}

// end is the last stage.
type end struct{ v Verdict }

func (e end) next(context.Context, *talk) stage { return nil }

func deny(reason, words string) stage {
	return end{Verdict{Outcome: policy.Deny, Reason: reason, Text: words}}
}

// talk is one conversation.
type talk struct {
	*Conversations
	r        Request
	person   Person
	id       string
	began    time.Time
	limit    time.Duration
	heard    time.Time     // when the person said something last
	password secret.Bytes  // what the person typed or the stack held
	fresh    secret.Bytes  // the last new password that was typed
	wrong    int           // wrong offline codes
	kdf, tpm time.Duration // of that, the vault's derivations and waiting for the TPM
}

// Sign leads one conversation to its verdict. It always returns one.
func (c *Conversations) Sign(ctx context.Context, r Request, p Person) Verdict {
	now := c.cfg.Clock.Now()
	t := &talk{Conversations: c, r: r, person: p, id: newID(), began: now, limit: Limit, heard: now}
	if r.HasPassword && !r.Junk {
		t.password = r.Password.Clone()
	}
	r.Password.Wipe()
	defer func() { t.password.Wipe(); t.fresh.Wipe() }()
	ctx, cancel := context.WithTimeout(ctx, Limit+ScanTime)
	defer cancel()

	var s stage = opening{}
	for s != nil {
		if e, over := s.(end); over {
			return t.finish(ctx, e.v)
		}
		s = s.next(ctx, t)
	}
	c.cfg.Log.Error("a sign-in ended without a verdict and is denied", "user", r.User, "service", r.Service)
	return t.finish(ctx, Verdict{Outcome: policy.Deny, Reason: "internal", Text: text.DeniedInternal})
}

// finish rounds up the time of a denial and gives what belongs to the verdict.
func (t *talk) finish(ctx context.Context, v Verdict) Verdict {
	switch v.Outcome {
	case policy.Allow, policy.Ignore:
		if t.r.Mode == "full" && !t.r.Unprivileged && !v.HasAuthtok && !t.password.Empty() && t.r.Purpose == wire.PurposeSignin {
			v.Authtok, v.HasAuthtok = t.password.Clone(), true
		}
	default:
		v.Outcome = policy.Deny
		v.Authtok.Wipe()
		v.HasAuthtok = false
		if v.Text == "" {
			v.Text = text.DeniedInternal
		}
		t.roundUp(ctx, t.cfg.Grain)
	}
	line := []any{
		"user", text.CleanN(t.r.User, 64), "service", text.CleanN(t.r.Service, 32),
		"outcome", string(v.Outcome), "reason", v.Reason, "online", v.Online, "conversation", t.id,
	}
	if t.kdf > 0 {
		// Most of the time of an offline sign-in.
		line = append(line, "kdf", t.kdf.String(), "tpm", t.tpm.String())
	}
	t.cfg.Log.Info("sign-in ended", line...)
	return v
}

// roundUp waits until the time since the person's last answer is a multiple of g.
func (t *talk) roundUp(ctx context.Context, g time.Duration) {
	if g <= 0 {
		return
	}
	if past := t.cfg.Clock.Now().Sub(t.heard); past >= 0 {
		_ = t.cfg.Clock.Sleep(ctx, g-past%g)
	}
}

// ask prompts; the stage is not nil if the conversation ends here.
func (t *talk) ask(ctx context.Context, p wire.Prompt) (secret.Bytes, stage) {
	switch p.Kind {
	case wire.PromptSecret, wire.PromptAsk, wire.PromptChoose, wire.PromptWait:
	default:
		return secret.Bytes{}, deny("prompt-unknown", text.DeniedInternal)
	}
	if p.For == wire.ForFirstCode {
		t.limit = max(t.limit, Limit+ScanTime)
	}
	left := t.left()
	if left <= 0 {
		return secret.Bytes{}, deny("too-long", text.DeniedTooLong)
	}
	a, err := t.person.Prompt(ctx, p, left)
	t.heard = t.cfg.Clock.Now()
	switch {
	case err == nil && ctx.Err() == nil && t.left() > 0:
		return a, nil
	case ctx.Err() != nil || t.left() <= 0:
		a.Wipe()
		return secret.Bytes{}, deny("too-long", text.DeniedTooLong)
	}
	a.Wipe()
	return secret.Bytes{}, deny("given-up", text.DeniedGivenUp)
}

// left is what the conversation has left of its time.
func (t *talk) left() time.Duration { return t.limit - t.cfg.Clock.Now().Sub(t.began) }

// step carries a message to the server within the time that is left.
func (t *talk) step(ctx context.Context, seq int, s wire.Step) (wire.StepReply, error) {
	ctx, cancel := context.WithTimeout(ctx, max(t.left(), 0))
	defer cancel()
	return t.cfg.Server.Step(ctx, t.id, seq, s)
}

// say shows a message; whether it arrives is seen at the next prompt.
func (t *talk) say(kind, words string) {
	_ = t.person.Tell(wire.Message{Kind: kind, Text: words})
}

func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.NewString()
	}
	return id.String()
}

// event is what is written down of this conversation.
func (t *talk) event(kind event.Type, outcome policy.Outcome, reason string, u *policy.User, link policy.Link, data map[string]any) event.Event {
	e := event.Event{
		ID: newID(), Type: kind, Actor: t.r.User, Subject: t.r.User, Machine: t.cfg.Machine, Address: t.r.RHost,
		Scope: string(t.r.Scope), Service: t.r.Service, Link: string(link), Outcome: string(outcome), Reason: reason,
		At: clock.Micros(t.cfg.Clock.Now()),
	}
	e.Actor, e.Subject = text.CleanN(e.Actor, text.MaxName), text.CleanN(e.Subject, text.MaxName)
	e.Address, e.Service = text.CleanN(e.Address, 256), text.CleanN(e.Service, 64)
	if u != nil {
		e.UserID = u.ID
	}
	if data == nil {
		data = map[string]any{}
	}
	data["conversation"], data["mode"] = t.id, t.r.Mode
	if t.r.Target != "" {
		data["target"] = text.CleanN(t.r.Target, 64)
		if t.r.First == policy.FirstMachine {
			data["first_of"] = data["target"] // su asks for that one's password
		}
	}
	if t.r.TTY != "" {
		data["tty"] = text.CleanN(t.r.TTY, 64)
	}
	if t.r.RemoteSeat {
		data["remote_seat"] = true
	}
	if t.r.Unprivileged {
		data["unlock"] = true
	}
	if raw, err := json.Marshal(data); err == nil {
		e.Data = raw
	}
	return e
}
