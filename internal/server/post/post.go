// Package post is what the server sends to people: codes and notes by mail over SMTP,
// and codes by text message through an HTTP gateway.
//
// It promises:
//
//   - What is to go out is a row of the outbox, written in the transaction of what it
//     speaks of. A sign-in never waits for a mail server: it writes a row and asks for
//     the code. Rows are sealed, because codes and addresses stand in them.
//   - One server at a time sends a row. A server that dies while it sends gives it back
//     when its lease ends: so a message comes at least once, and, where a server dies, or
//     its database stays away, between the other side's yes and its own note of it,
//     perhaps twice.
//   - Whoever is slow holds up a worker, never a sign-in and never the codes: one worker
//     of each channel takes nothing but codes.
//   - What the other side refuses for ever is given up at once, with an event; what it
//     defers is tried again, later and later, until it is of no use any more.
//   - Mails go over TLS with a certificate that is right, or not at all; text messages
//     go to the address that was set, and follow no redirection. No value that is filled
//     in can change the form of a mail or of a request.
//   - A code counts for the sign-in that asked for it, for minutes, once, and is stored
//     as a keyed hash. How many go out is bounded for a sign-in, a user, an address, and,
//     for text messages, for the whole server.
//
// What it can not promise: that a relay which has taken a mail delivers it. What it says
// later comes back as a mail, and this server receives none. DKIM is the relay's.
//
// Rows: M6, E1 (enrolment codes by mail; people are told when their factors change).
package post

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Config is what it stands on. All fields but Log, PeopleURL and Proxy are required.
type Config struct {
	Store  *store.Store
	Keys   *keys.Keys
	Clock  clock.Clock
	Random io.Reader // of codes
	Log    *slog.Logger
	// PeopleURL is the address of the portal where the settings name none; may be nil.
	PeopleURL func() string
	// Proxy is where text messages go through where the settings name none; may be nil.
	Proxy *url.URL
}

// Post sends. It is safe for concurrent use.
type Post struct {
	Config
	name string // of this process, for leases
}

// New makes one. Nothing is sent before Run.
func New(c Config) *Post {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Post{Config: c, name: c.Store.Replica() + "/" + store.NewID()}
}

// What a message is for. The words stand in the queue and in events.
const (
	ForCode    = "code"    // of a sign-in
	ForConfirm = "confirm" // of an address that is being set up
	ForEnrol   = "enrol"   // an enrolment code
	ForNotice  = "notice"  // something has changed
)

// The bounds of the queue: messages of a channel that wait. Codes get the last tenth of
// it for themselves.
const (
	maxWaiting = 10_000
	maxNotices = maxWaiting * 9 / 10
)

// How long messages are worth sending, and how long their rows are kept.
const (
	noticeLife = 48 * time.Hour
	keepSent   = 24 * time.Hour
	keepFailed = 14 * 24 * time.Hour
	keepCodes  = 25 * time.Hour
)

// ahead is later than anything is put off, or leased: what waits for longer was written
// with a clock that was ahead, and would wait until then.
const ahead = 3 * time.Hour

// entry is a message on its way into the queue.
type entry struct {
	channel, purpose string
	user             db.User
	message          Message
	expires          time.Time
}

var errFull = errors.New("the queue is full")

// put writes a message into the queue, within the transaction, and has the workers of all
// servers look. errFull means that too many wait.
func (p *Post) put(ctx context.Context, tx *store.Tx, e entry) (id string, err error) {
	urgent := e.purpose != ForNotice
	most := int64(maxNotices)
	if urgent {
		most = maxWaiting
	}
	n, err := tx.CountOutboxWaiting(ctx, db.CountOutboxWaitingParams{Channel: e.channel, Most: most})
	if err != nil {
		return "", fmt.Errorf("the queue: %w", err)
	}
	if n >= most {
		return "", errFull
	}
	plain, err := json.Marshal(e.message)
	if err != nil {
		return "", err
	}
	defer clear(plain)
	id = store.NewID()
	now := clock.Micros(p.Clock.Now())
	err = tx.InsertOutbox(ctx, db.InsertOutboxParams{
		ID: id, Channel: e.channel, Purpose: e.purpose, Urgent: urgent, UserID: e.user.ID, Subject: e.user.Name, Mask: Mask(e.channel, e.message.To),
		Body: p.Keys.Box.Seal(plain, "outbox", "body", id), DueAt: now, ExpiresAt: clock.Micros(e.expires), CreatedAt: now,
	})
	if err != nil {
		return "", fmt.Errorf("put a message into the queue: %w", err)
	}
	tx.Wake(wakeName(e.channel))
	return id, nil
}

// wakeName stands among the ids of machines, and is none.
func wakeName(channel string) string { return "post/" + channel }

// Mask shows so much of an address that its owner knows it.
func Mask(channel, address string) string {
	if channel == rest.ChannelSMS {
		return MaskNumber(address)
	}
	return MaskMail(address)
}

// Parse judges an address of the channel.
func Parse(channel, address string) (string, error) {
	if channel == rest.ChannelSMS {
		return ParseNumber(address)
	}
	return ParseMail(address)
}

// place is what is stored of an address, for counting: HMAC-SHA-256 under the pepper.
func (p *Post) place(channel, address string) []byte {
	h := hmac.New(sha256.New, p.Keys.Pepper.Reveal())
	fmt.Fprintf(h, "latchkey/post/place/1\x00%d:%s\x00%s", len(channel), channel, strings.ToLower(address))
	return h.Sum(nil)
}

// hash is what is stored of a code: it counts for this ticket and user alone.
func (p *Post) hash(channel, userID, ticket, code string) []byte {
	h := hmac.New(sha256.New, p.Keys.Pepper.Reveal())
	fmt.Fprint(h, "latchkey/post/code/1\x00")
	for _, s := range []string{channel, userID, ticket, code} {
		fmt.Fprintf(h, "%d:%s\x00", len(s), s)
	}
	return h.Sum(nil)
}

// On tells whether the channel is switched on.
func (p *Post) On(ctx context.Context, q *db.Queries, channel string) (bool, error) {
	if channel == rest.ChannelSMS {
		s, _, err := p.ReadSMS(ctx, q)
		return s.On, err
	}
	m, _, err := p.ReadMail(ctx, q)
	return m.On, err
}

// errOff is told to people.
func errOff(channel string) error {
	if channel == rest.ChannelSMS {
		return fault.Newf(fault.Unavailable, "This server sends no text messages: an administrator must set up a gateway first.")
	}
	return fault.Newf(fault.Unavailable, "This server sends no mail: an administrator must set up a mail server first.")
}

// MailEnrolCode sends an enrolment code to the user's mail address, if somebody else than
// the user has answered for that: the address of the account that an administrator, an
// import or a directory has set, or one that is confirmed as a factor (E1). It gives the
// address, masked.
func (p *Post) MailEnrolCode(ctx context.Context, tx *store.Tx, u db.User, code string, until time.Time) (string, error) {
	on, err := p.On(ctx, tx.Queries, rest.ChannelMail)
	switch {
	case err != nil:
		return "", err
	case !on:
		return "", fault.Newf(fault.Conflict, "This server sends no mail: an owner must set up a mail server first (latchkey mail set --on). Show the code instead.")
	case u.Mail == "":
		return "", fault.Newf(fault.Conflict, "%s has no mail address. Set one (latchkey user set %s --mail ADDRESS), or show the code.", u.Name, u.Name)
	}
	to, err := ParseMail(u.Mail)
	if err != nil {
		return "", fault.Newf(fault.Conflict, "The mail address of %s can not be used: %s. Set another, or show the code.", u.Name, err)
	}
	if u.MailOwn {
		proven, err := p.confirmed(ctx, tx.Queries, u.ID, to)
		if err != nil {
			return "", err
		}
		if !proven {
			return "", fault.Newf(fault.Conflict, "%s has typed this mail address in the portal, and nobody has confirmed it: whoever could change it would get the code. Ask %s, set the address in the account, or show the code.", u.Name, u.Name)
		}
	}
	m, err := p.enrolText(ctx, tx.Queries, u, code, until)
	if err != nil {
		return "", err
	}
	m.To = to
	_, err = p.put(ctx, tx, entry{channel: rest.ChannelMail, purpose: ForEnrol, user: u, message: m, expires: until})
	if errors.Is(err, errFull) {
		return "", busy()
	}
	return MaskMail(to), err
}

// confirmed tells whether the address is a usable mail factor of the user.
func (p *Post) confirmed(ctx context.Context, q *db.Queries, userID, address string) (bool, error) {
	rows, err := q.ListAuthenticators(ctx, userID)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		if r.Kind == rest.ChannelMail && !r.Lost && r.ConfirmedAt > 0 && strings.EqualFold(AddressOf(r), address) {
			return true, nil
		}
	}
	return false, nil
}

func busy() error {
	return fault.Newf(fault.Unavailable, "Too many messages wait to be sent. Try again later, or use another factor.")
}

// params are those of an authenticator of kind mail or sms.
type params struct {
	Address string `json:"address"`
}

// AddressOf is the address of an authenticator of kind mail or sms; empty if it has none
// that can be read.
func AddressOf(a db.Authenticator) string {
	var x params
	if err := json.Unmarshal([]byte(a.Params), &x); err != nil {
		return ""
	}
	return x.Address
}

// ParamsOf is the other way round.
func ParamsOf(address string) string {
	b, err := json.Marshal(params{address})
	if err != nil {
		return "{}" // a text is always JSON
	}
	return string(b)
}

// Ticket makes a name for codes that nothing else is the ticket of.
func Ticket(prefix string, random io.Reader) (string, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("make a ticket: %w", err)
	}
	return prefix + ":" + hex.EncodeToString(b), nil
}

// Clear removes what is over, and brings back what a clock that was ahead has put off.
func (p *Post) Clear(ctx context.Context) error {
	now := p.Clock.Now()
	before := func(d time.Duration) int64 { return clock.Micros(now.Add(-d)) }
	back := int64(0)
	err := p.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.PurgeOutbox(ctx, db.PurgeOutboxParams{SentBefore: before(keepSent), FailedBefore: before(keepFailed)}); err != nil {
			return err
		}
		if _, err := tx.DeleteOldPostCodes(ctx, before(keepCodes)); err != nil {
			return err
		}
		// They count for nothing, and would be counted for as long as the clock was ahead.
		if _, err := tx.DeletePostCodesAhead(ctx, before(-keepCodes)); err != nil {
			return err
		}
		n, err := tx.BringOutboxBack(ctx, db.BringOutboxBackParams{At: clock.Micros(now), Later: before(-ahead)})
		if back = n; n > 0 {
			tx.Wake(wakeName(rest.ChannelMail), wakeName(rest.ChannelSMS))
		}
		return err
	})
	if err == nil && back > 0 {
		p.Log.WarnContext(ctx, "messages waited for a time that lies far ahead, and are sent now: the clock was put back", "messages", back)
	}
	return err
}

// Again has a message sent at once that waits or has failed; false if it was sent, is
// being sent, or is not kept any more.
func (p *Post) Again(ctx context.Context, tx *store.Tx, m db.Outbox) (bool, error) {
	now := p.Clock.Now()
	until := max(m.ExpiresAt, clock.Micros(now.Add(noticeLife)))
	if m.Purpose != ForNotice {
		until = m.ExpiresAt // a code does not count longer for that
	}
	n, err := tx.RetryOutbox(ctx, db.RetryOutboxParams{ID: m.ID, At: clock.Micros(now), ExpiresAt: until})
	if err != nil {
		return false, err
	}
	tx.Wake(wakeName(m.Channel))
	return n == 1, nil
}
