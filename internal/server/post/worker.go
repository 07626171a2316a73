package post

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// The workers of a channel. The first takes nothing but codes, so that no number of slow
// notes holds them up.
var workers = map[string]int{rest.ChannelMail: 6, rest.ChannelSMS: 4}

const (
	// lookEvery is how often a worker looks unasked: for what is due again, and for what
	// a server that died has left behind.
	lookEvery = 5 * time.Second
	// leaseMore is what a lease is longer than sending can take.
	leaseMore = 30 * time.Second
	// restFor is how long notes wait after nobody answered.
	restFor = 30 * time.Second
	// triesOfSMS bounds what a gateway may be charging for.
	triesOfSMS = 4
	// writeTime bounds one try to write down what became of a message, also when the server
	// stops; writeAgain is how long it waits for the next.
	writeTime  = 3 * time.Second
	writeAgain = time.Second
)

// Run sends until the context ends. Every server of a database runs it.
func (p *Post) Run(ctx context.Context) {
	var work sync.WaitGroup
	for channel, n := range workers {
		l := &line{channel: channel}
		for i := range n {
			work.Go(func() { p.work(ctx, l, i == 0) })
		}
	}
	work.Wait()
}

// line is what the workers of a channel share.
type line struct {
	channel string

	mu    sync.Mutex
	until time.Time // until then notes rest
}

func (l *line) rests(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Before(l.until)
}

func (l *line) rest(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = until
}

func (p *Post) work(ctx context.Context, l *line, onlyUrgent bool) {
	// A channel of machines' ids that no machine has.
	woken, cancel := p.Store.Watch(wakeName(l.channel))
	defer cancel()
	for ctx.Err() == nil {
		did, err := p.step(ctx, l, onlyUrgent)
		if err != nil && ctx.Err() == nil {
			p.Log.Error("a message could not be taken from the queue and will be tried again", "channel", l.channel, "error", err)
		}
		if did && err == nil {
			continue
		}
		select {
		case _, open := <-woken:
			if !open {
				return // the store is closed
			}
		case <-p.Clock.After(lookEvery):
		case <-ctx.Done():
		}
	}
}

// step sends one message, if there is one; a panic costs this one try.
func (p *Post) step(ctx context.Context, l *line, onlyUrgent bool) (did bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	t, err := p.take(ctx, l, onlyUrgent)
	if err != nil || t == nil {
		return false, err
	}
	out := Outcome{Reason: ReasonExpired, Detail: "It would have come too late: the mail server or gateway could not be reached in time, or sending is switched off.", Permanent: true}
	if t.row.Reason != "" {
		out.Detail = "It would have come too late. The last try: " + t.row.Detail
	}
	if !t.expired {
		out = p.send1(ctx, t)
	}
	switch out.Reason {
	case ReasonUnreachable, ReasonTLS, ReasonSignin, ReasonSettings:
		l.rest(p.Clock.Now().Add(restFor))
	case "":
		l.rest(time.Time{})
	}
	return true, p.settle(ctx, t, out)
}

// settle writes down what has happened, although the server stops. While the database can
// not be written it is tried until the lease ends: what was sent, and is not written down,
// is sent once more.
func (p *Post) settle(ctx context.Context, t *taken, out Outcome) error {
	for {
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
		err := p.conclude(try, t, out)
		cancel()
		if err == nil || !store.IsUnavailable(err) || clock.Micros(p.Clock.Now()) >= t.until || p.Clock.Sleep(ctx, writeAgain) != nil {
			return err
		}
	}
}

// taken is a message that this worker sends.
type taken struct {
	row     db.Outbox
	lease   string
	until   int64 // when it ends
	expired bool
	mail    Mail
	sms     SMS
}

// take leases the next message.
func (p *Post) take(ctx context.Context, l *line, onlyUrgent bool) (*taken, error) {
	now := p.Clock.Now()
	onlyUrgent = onlyUrgent || l.rests(now)
	var ids []string
	t := &taken{lease: p.name + "/" + store.NewID()}
	on, length := false, time.Duration(0)
	err := p.Store.Read(ctx, func(q *store.Queries) (err error) {
		ids, err = q.ListOutboxDue(ctx, db.ListOutboxDueParams{Channel: l.channel, At: clock.Micros(now), OnlyUrgent: onlyUrgent, N: 8})
		if err != nil || len(ids) == 0 {
			return err
		}
		if l.channel == rest.ChannelSMS {
			t.sms, _, err = p.ReadSMS(ctx, q)
			on, length = t.sms.On, time.Duration(t.sms.Timeout)*time.Second
		} else {
			t.mail, _, err = p.ReadMail(ctx, q)
			on, length = t.mail.On, 2*time.Duration(t.mail.Timeout)*time.Second
		}
		return err
	})
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	for _, id := range ids {
		got := false
		err := p.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			got = false
			row, err := tx.GetOutbox(ctx, id)
			if store.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if t.expired = clock.Micros(now) >= row.ExpiresAt; !on && !t.expired {
				return nil // until it is switched on again
			}
			t.until = clock.Micros(now.Add(length + leaseMore))
			n, err := tx.LeaseOutbox(ctx, db.LeaseOutboxParams{ID: id, Lease: t.lease, Until: t.until, At: clock.Micros(now)})
			if err != nil || n == 0 {
				return err
			}
			row.Tries++
			t.row, got = row, true
			return nil
		})
		if err != nil {
			return nil, err
		}
		if got {
			return t, nil
		}
	}
	return nil, nil
}

// send1 opens and sends it.
func (p *Post) send1(ctx context.Context, t *taken) Outcome {
	plain, err := p.Keys.Box.Open(t.row.Body, "outbox", "body", t.row.ID)
	if err != nil {
		return Outcome{ReasonSettings, "The message can not be opened: it is damaged, or of another server.", true}
	}
	defer plain.Wipe()
	var m Message
	if err := json.Unmarshal(plain.Reveal(), &m); err != nil {
		return Outcome{ReasonSettings, "The message can not be read.", true}
	}
	if t.row.Channel == rest.ChannelSMS {
		return sendSMS(ctx, t.sms, m)
	}
	return sendMail(ctx, t.mail, m, p.Clock.Now())
}

// conclude writes down what became of it.
func (p *Post) conclude(ctx context.Context, t *taken, out Outcome) error {
	row := t.row
	return p.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := p.Clock.Now()
		if out.Reason == "" {
			_, err := tx.FinishOutbox(ctx, db.FinishOutboxParams{ID: row.ID, At: clock.Micros(now), Lease: t.lease})
			return err
		}
		next := now.Add(pause(row))
		if !out.Permanent && row.Channel == rest.ChannelSMS && row.Tries >= triesOfSMS {
			out.Permanent = true
		}
		if !out.Permanent {
			if row.Urgent && clock.Micros(next) > row.ExpiresAt {
				next = clock.FromMicros(row.ExpiresAt) // to be given up then
			}
			_, err := tx.DeferOutbox(ctx, db.DeferOutboxParams{ID: row.ID, DueAt: clock.Micros(next), Reason: out.Reason, Detail: text.CleanN(out.Detail, 512), Lease: t.lease})
			return err
		}
		n, err := tx.FailOutbox(ctx, db.FailOutboxParams{ID: row.ID, Reason: out.Reason, Detail: text.CleanN(out.Detail, 512), At: clock.Micros(now), Lease: t.lease})
		if err != nil || n == 0 {
			return err // somebody else has it, or has removed it
		}
		if row.Purpose != ForNotice {
			// A code that was not sent is not sent later.
			if _, err := tx.ForgetOutboxBody(ctx, row.ID); err != nil {
				return err
			}
		}
		what := event.PostGivenUp
		if out.Reason == ReasonRefused {
			what = event.PostRefused
		}
		data, err := json.Marshal(map[string]any{
			"message": rest.MessagePrefix + row.ID, "channel": row.Channel, "purpose": row.Purpose, "to": row.Mask, "tries": row.Tries, "detail": text.CleanN(out.Detail, 512),
		})
		if err != nil {
			return err
		}
		_, err = tx.Event(event.Event{Type: what, Actor: "server", Subject: row.Subject, UserID: row.UserID, Reason: out.Reason, Data: data})
		return err
	})
}

// pause is how long to wait after so many tries: a code seconds, a note minutes.
func pause(row db.Outbox) time.Duration {
	first, most := time.Minute, 2*time.Hour
	if row.Urgent {
		first, most = 5*time.Second, time.Minute
	}
	d := first
	for i := int64(1); i < row.Tries && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

// Test sends a message at once, past the queue, and tells what came of it.
func (p *Post) Test(ctx context.Context, channel, to, by string) (rest.Tested, error) {
	address, err := Parse(channel, to)
	if err != nil {
		return rest.Tested{}, fault.New(fault.Invalid, nil).With("to", "%s", err)
	}
	var (
		m Mail
		s SMS
	)
	err = p.Store.Read(ctx, func(q *store.Queries) (err error) {
		if m, _, err = p.ReadMail(ctx, q); err != nil {
			return err
		}
		s, _, err = p.ReadSMS(ctx, q)
		return err
	})
	if err != nil {
		return rest.Tested{}, err
	}
	begun := p.Clock.Now()
	msg := testText(channel, by, begun)
	msg.To = address
	var out Outcome
	// What is tried may still be switched off, and somebody waits for it.
	m.Timeout, s.Timeout = min(m.Timeout, 12), min(s.Timeout, 24)
	if channel == rest.ChannelSMS {
		if s.On = true; s.Judge() != nil {
			return rest.Tested{}, notComplete("text messages", "sms", s.Judge())
		}
		out = sendSMS(ctx, s, msg)
	} else {
		if m.On = true; m.Judge() != nil {
			return rest.Tested{}, notComplete("mails", "mail", m.Judge())
		}
		out = sendMail(ctx, m, msg, begun)
	}
	t := rest.Tested{OK: out.Reason == "", Reason: out.Reason, Detail: out.Detail, Seconds: int(p.Clock.Now().Sub(begun) / time.Second)}
	if t.OK {
		t.Detail = "It was taken. Look whether it arrives."
	}
	return t, nil
}

// notComplete says what is missing before anything can be sent.
func notComplete(what, command string, err error) error {
	var parts []string
	var f *fault.Fault
	if errors.As(err, &f) {
		for _, x := range f.Fields {
			parts = append(parts, x.Name+": "+x.Fault)
		}
	}
	return fault.Newf(fault.Conflict, "It is not said completely how %s are sent (%s). Save the settings first, with what is missing: latchkey %s set.", what, strings.Join(parts, "; "), command)
}
