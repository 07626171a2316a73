package post

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// The limits of codes. They are counted in the database, for all servers together.
const (
	codeDigits   = 8
	maxOfTicket  = 3  // of one sign-in, mails and text messages apart
	maxOfUser    = 10 // in an hour, where the user is at home, or at all other places together
	maxOfNew     = 5  // in an hour, at one machine that has not let the user in lately
	maxUnproven  = 2  // in an hour, where the machine alone says that the first factor was given
	maxOfMachine = 20 // in an hour, of everybody new at one machine, that nobody typed
	maxOfAddress = 20 // in a day, for sign-ins of its owner
	maxOfServer  = 600
	// Codes that show whose an address is go wherever somebody says.
	maxConfirmHour  = 3
	maxConfirmDay   = 5
	maxConfirmPlace = 2 // in a day to one address, whoever asks
	// lately is how far a code that was typed at a machine makes it one of the user's own.
	lately = 23 * time.Hour
	// MaxTries is how often one code is tried, beside what is counted for the person (S10).
	MaxTries = 5
	// resend is how long one waits before the next.
	resend = 20 * time.Second
)

// Reasons of rejections, stored with the event.
const (
	ReasonTooLate  = "post-code-expired"
	ReasonNoCode   = "post-code-none"
	ReasonTriedOut = "post-code-tries"
)

// wanted is a code to be sent.
type wanted struct {
	channel, purpose, ticket string
	user                     db.User
	authenticator, address   string
	ask                      *factor.Ask // of a sign-in; nil: to show whose the address is
	text                     func(code string, minutes int) Message
}

// send makes a code, stores its hash and puts the message into the queue. It is run in
// the transaction of what asks for it. Faults are for people.
func (p *Post) send(ctx context.Context, tx *store.Tx, w wanted, now time.Time) (expires time.Time, err error) {
	minutes, perMinute, perDay, on := 0, maxOfServer, math.MaxInt, false
	if w.channel == rest.ChannelSMS {
		s, _, err := p.ReadSMS(ctx, tx.Queries)
		if err != nil {
			return expires, err
		}
		minutes, perMinute, perDay, on = s.CodeMinutes, s.PerMinute, s.PerDay, s.On
		if on && len(s.Prefixes) > 0 && !slices.ContainsFunc(s.Prefixes, func(p string) bool { return strings.HasPrefix(w.address, p) }) {
			return expires, fault.Newf(fault.Unavailable, text.PostAbroad)
		}
	} else {
		m, _, err := p.ReadMail(ctx, tx.Queries)
		if err != nil {
			return expires, err
		}
		minutes, on = m.CodeMinutes, m.On
	}
	if !on {
		return expires, errOff(w.channel)
	}
	place := p.place(w.channel, w.address)
	if err := p.limit(ctx, tx, w, place, perMinute, perDay, now); err != nil {
		return expires, err
	}
	code, err := newCode(p.Random)
	if err != nil {
		return expires, err
	}
	expires = now.Add(time.Duration(minutes) * time.Minute)
	err = tx.InsertPostCode(ctx, db.InsertPostCodeParams{
		ID: store.NewID(), UserID: w.user.ID, Kind: w.channel, Ticket: w.ticket, AuthenticatorID: w.authenticator,
		Hash: p.hash(w.channel, w.user.ID, w.ticket, code), Place: place, Door: w.door(), MachineID: w.machine(), CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(expires),
	})
	if err != nil {
		return expires, fmt.Errorf("store a code: %w", err)
	}
	m := w.text(code, minutes)
	m.To = w.address
	_, err = p.put(ctx, tx, entry{channel: w.channel, purpose: w.purpose, user: w.user, message: m, expires: expires})
	if errors.Is(err, errFull) {
		return expires, busy()
	}
	return expires, err
}

// standing is the code that was sent last for the ticket, if it can still be typed.
func standing(ctx context.Context, q *db.Queries, channel, userID, ticket string, now time.Time) (*db.PostCode, error) {
	row, err := q.NewestPostCode(ctx, db.NewestPostCodeParams{Ticket: ticket, UserID: userID, Kind: channel})
	if store.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("codes that were sent: %w", err)
	}
	if row.UsedAt != 0 || row.Tries >= MaxTries || clock.Micros(now) >= row.ExpiresAt {
		return nil, nil
	}
	return &row, nil
}

// limit refuses who has asked too often. What is counted includes codes of sign-ins that
// were given up.
func (p *Post) limit(ctx context.Context, tx *store.Tx, w wanted, place []byte, perMinute, perDay int, now time.Time) error {
	last, err := tx.NewestPostCode(ctx, db.NewestPostCodeParams{Ticket: w.ticket, UserID: w.user.ID, Kind: w.channel})
	switch {
	case err == nil && now.Sub(clock.FromMicros(last.CreatedAt)) < resend && last.CreatedAt <= clock.Micros(now):
		return fault.Newf(fault.TooMany, text.PostTooSoon)
	case err != nil && !store.IsNotFound(err):
		return fmt.Errorf("codes that were sent: %w", err)
	}
	counts, err := p.bounds(ctx, tx, w, place, now)
	if err != nil {
		return err
	}
	since := func(d time.Duration) int64 { return clock.Micros(now.Add(-d)) }
	counts = append(counts,
		bound{maxOfTicket, text.PostTooMany, "", func() (int64, error) {
			return tx.CountPostCodesOfTicket(ctx, db.CountPostCodesOfTicketParams{Ticket: w.ticket, Kind: w.channel})
		}},
		bound{int64(perMinute), text.PostServerBusy, "", func() (int64, error) {
			return tx.CountPostCodesOfKind(ctx, db.CountPostCodesOfKindParams{Kind: w.channel, Since: since(time.Minute)})
		}})
	if perDay < math.MaxInt { // a day of mails may be many, and everybody waits for who counts
		counts = append(counts, bound{int64(perDay), text.PostServerBusy, "", func() (int64, error) {
			return tx.CountPostCodesOfKind(ctx, db.CountPostCodesOfKindParams{Kind: w.channel, Since: since(24 * time.Hour)})
		}})
	}
	for _, b := range counts {
		n, err := b.count()
		switch {
		case err != nil:
			return fmt.Errorf("count codes that were sent: %w", err)
		case n < b.n:
			continue
		case b.event != "":
			if err := noteLimit(tx, w, b.event, n); err != nil {
				return err
			}
		}
		return fault.Newf(fault.TooMany, "%s", b.told)
	}
	return nil
}

// bound is how many of something may have gone out.
type bound struct {
	n     int64
	told  string
	event event.Type // of a refusal; empty: none
	count func() (int64, error)
}

// bounds are those of the person and the place. Where the user has lately been let in, and
// at the people's door, what was asked elsewhere does not count: a machine that somebody
// else holds must not keep the person from a code.
func (p *Post) bounds(ctx context.Context, tx *store.Tx, w wanted, place []byte, now time.Time) ([]bound, error) {
	since := func(d time.Duration) int64 { return clock.Micros(now.Add(-d)) }
	confirmed := func(d time.Duration) func() (int64, error) {
		return func() (int64, error) {
			return tx.CountPostConfirmations(ctx, db.CountPostConfirmationsParams{UserID: w.user.ID, Since: since(d)})
		}
	}
	if w.ask == nil {
		return []bound{
			{maxConfirmHour, text.PostTooMany, "", confirmed(time.Hour)},
			{maxConfirmDay, text.PostTooMany, "", confirmed(24 * time.Hour)},
			{maxConfirmPlace, text.PostTooMany, "", func() (int64, error) {
				return tx.CountPostConfirmationsOfPlace(ctx, db.CountPostConfirmationsOfPlaceParams{Place: place, Since: since(24 * time.Hour)})
			}},
		}, nil
	}
	own, err := p.own(ctx, tx, *w.ask)
	if err != nil {
		return nil, err
	}
	here := int64(maxOfUser)
	switch {
	case own:
	case w.ask.Unproven:
		here = maxUnproven
	default:
		here = maxOfNew
	}
	out := []bound{
		{here, text.PostTooMany, "", func() (int64, error) {
			return tx.CountPostCodesAt(ctx, db.CountPostCodesAtParams{UserID: w.user.ID, Since: since(time.Hour), Door: w.door(), MachineID: w.machine()})
		}},
	}
	if own {
		return out, nil
	}
	return append(out,
		bound{maxOfUser, text.PostTooMany, "", func() (int64, error) {
			return tx.CountPostCodesOfUser(ctx, db.CountPostCodesOfUserParams{UserID: w.user.ID, Since: since(time.Hour)})
		}},
		bound{maxOfAddress, text.PostTooMany, "", func() (int64, error) {
			return tx.CountPostCodesOfPlace(ctx, db.CountPostCodesOfPlaceParams{Place: place, UserID: w.user.ID, Since: since(24 * time.Hour)})
		}},
		bound{maxOfMachine, text.PostTooMany, event.FactorLimited, func() (int64, error) {
			return tx.CountPostCodesOfMachine(ctx, db.CountPostCodesOfMachineParams{MachineID: w.machine(), Since: since(time.Hour)})
		}}), nil
}

// own tells whether the place is one of the user's own: the people's door, which has
// judged the first factor itself, or a machine that has lately let the user in.
func (p *Post) own(ctx context.Context, tx *store.Tx, a factor.Ask) (bool, error) {
	if a.Door != factor.AtMachine {
		return true, nil
	}
	if ok, err := attempts.Own(ctx, tx, a.User.ID, a.Machine, a.Now); ok || err != nil {
		return ok, err
	}
	n, err := tx.CountPostCodesUsedAt(ctx, db.CountPostCodesUsedAtParams{
		UserID: a.User.ID, Since: clock.Micros(a.Now.Add(-lately)), Door: string(a.Door), MachineID: a.Machine,
	})
	if err != nil {
		return false, fmt.Errorf("count codes that were typed: %w", err)
	}
	return n > 0, nil
}

// noteLimit says that a machine has too much sent.
func noteLimit(tx *store.Tx, w wanted, what event.Type, n int64) error {
	data, err := json.Marshal(map[string]any{"codes": n, "severity": "alert"})
	if err != nil {
		return err
	}
	_, err = tx.Event(event.Event{
		Type: what, Actor: w.user.Name, Subject: w.user.Name, UserID: w.user.ID, MachineID: w.ask.Machine, Machine: w.ask.Name, Scope: string(w.ask.Scope),
		Service: w.ask.Service, Address: w.ask.Address, Reason: factor.ReasonMachine, Factor: w.channel, Data: data,
	})
	return err
}

// doorConfirm is the door of codes that show whose an address is.
const doorConfirm = "confirm"

func (w wanted) door() string {
	if w.ask == nil {
		return doorConfirm
	}
	return string(w.ask.Door)
}

func (w wanted) machine() string {
	if w.ask == nil {
		return ""
	}
	return w.ask.Machine
}

// newCode makes eight digits, each combination as likely as any other.
func newCode(random io.Reader) (string, error) {
	const all = 100_000_000
	var b [8]byte
	for {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("make a code: %w", err)
		}
		n := binary.BigEndian.Uint64(b[:])
		if n < ^uint64(0)/all*all {
			return fmt.Sprintf("%0*d", codeDigits, n%all), nil
		}
	}
}

// cleanCode leaves out blanks and hyphens, which people type as they read.
func cleanCode(typed secret.Bytes) (string, bool) {
	s, ok := factor.Typed(typed)
	if !ok {
		return "", false
	}
	s = strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '\u00a0' {
			return -1
		}
		return r
	}, s)
	if len(s) != codeDigits || strings.Trim(s, "0123456789") != "" {
		return "", false
	}
	return s, true
}

// SendCode sends a code for a sign-in: Factor.Send of the kinds mail and sms.
func (p *Post) SendCode(ctx context.Context, tx *store.Tx, channel string, a factor.Ask) (factor.Sent, error) {
	row, err := p.usable(ctx, tx.Queries, channel, a.User.ID)
	if err != nil {
		return factor.Sent{}, err
	}
	if row == nil {
		return factor.Sent{}, fault.Newf(fault.Unavailable, text.PostNoAddress)
	}
	address, err := Parse(channel, AddressOf(*row))
	if err != nil {
		return factor.Sent{}, fault.Newf(fault.Unavailable, text.PostNoAddress).Because(err)
	}
	contact, err := p.contact(ctx, tx.Queries)
	if err != nil {
		return factor.Sent{}, err
	}
	shown := Mask(channel, address)
	expires, err := p.send(ctx, tx, wanted{
		channel: channel, purpose: ForCode, ticket: a.Ticket, user: a.User, authenticator: row.ID, address: address, ask: &a,
		text: func(code string, minutes int) Message { return codeText(channel, a, code, minutes, contact) },
	}, a.Now)
	if f := fault.Of(err); err != nil && f.Code == fault.TooMany {
		// Who has asked too often, or has come back by the menu, can still type the last
		// code.
		last, e := standing(ctx, tx.Queries, channel, a.User.ID, a.Ticket, a.Now)
		if e != nil || last == nil {
			return factor.Sent{}, errors.Join(e, err)
		}
		return factor.Sent{Tell: f.Detail, Prompt: text.PromptPost, Expires: clock.FromMicros(last.ExpiresAt), Data: map[string]any{"to": shown, "sent": false}}, nil
	}
	if err != nil {
		return factor.Sent{}, err
	}
	tell := text.PostMailed(shown)
	if channel == rest.ChannelSMS {
		tell = text.PostTexted(shown)
	}
	if a.Door == factor.AtMachine { // a page has buttons for that
		tell += " " + text.PostBack
	}
	return factor.Sent{Tell: tell, Prompt: text.PromptPost, Expires: expires, Data: map[string]any{"to": shown}}, nil
}

// usable is the user's confirmed address of the channel; nil for none.
func (p *Post) usable(ctx context.Context, q *db.Queries, channel, userID string) (*db.Authenticator, error) {
	rows, err := q.ListAuthenticators(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("authenticators: %w", err)
	}
	var found *db.Authenticator
	for i, r := range rows {
		if r.Kind == channel && !r.Lost && r.ConfirmedAt > 0 && (found == nil || r.ConfirmedAt > found.ConfirmedAt) {
			found = &rows[i]
		}
	}
	return found, nil
}

// JudgeCode judges a code that SendCode has sent for the ticket: the newest alone counts.
func (p *Post) JudgeCode(ctx context.Context, tx *store.Tx, channel string, t factor.Try) (factor.Verdict, error) {
	v, row, err := p.judge(ctx, tx, channel, string(t.Door), machineOf(t), t.User.ID, t.Ticket, t.Typed, t.Now)
	if err != nil || !v.OK() {
		return v, err
	}
	n, err := tx.UseAuthenticator(ctx, db.UseAuthenticatorParams{ID: row.AuthenticatorID, At: clock.Micros(t.Now)})
	if err != nil {
		return factor.Verdict{}, fmt.Errorf("use an authenticator: %w", err)
	}
	if n == 0 {
		return factor.Verdict{Reason: factor.ReasonNothingThere, Text: text.WrongCode}, nil
	}
	v.ID, v.Own, v.Data = row.AuthenticatorID, true, map[string]any{"authenticator": row.AuthenticatorID}
	return v, nil
}

// machineOf is where a code must have been asked for.
func machineOf(t factor.Try) string {
	if t.Door == factor.AtMachine {
		return t.Machine
	}
	return ""
}

func (p *Post) judge(ctx context.Context, tx *store.Tx, channel, door, machine, userID, ticket string, typed secret.Bytes, now time.Time) (factor.Verdict, db.PostCode, error) {
	none := db.PostCode{}
	if ticket == "" {
		return factor.Verdict{Reason: ReasonNoCode, Text: text.WrongCode}, none, nil
	}
	row, err := tx.NewestPostCode(ctx, db.NewestPostCodeParams{Ticket: ticket, UserID: userID, Kind: channel})
	if store.IsNotFound(err) {
		return factor.Verdict{Reason: ReasonNoCode, Text: text.WrongCode}, none, nil
	}
	if err != nil {
		return factor.Verdict{}, none, fmt.Errorf("codes that were sent: %w", err)
	}
	if row.Door != door || row.MachineID != machine {
		return factor.Verdict{Reason: ReasonNoCode, Text: text.WrongCode}, none, nil
	}
	// Counted before it is judged.
	if _, err := tx.CountPostCodeTry(ctx, row.ID); err != nil {
		return factor.Verdict{}, none, fmt.Errorf("count a try: %w", err)
	}
	code, ok := cleanCode(typed)
	right := hmac.Equal(p.hash(channel, userID, ticket, code), row.Hash) && ok
	switch {
	case row.Tries >= MaxTries:
		return factor.Verdict{Reason: ReasonTriedOut, Text: text.PostTriedOut}, row, nil
	case clock.Micros(now) >= row.ExpiresAt || clock.Micros(now) < row.CreatedAt-int64(time.Minute/time.Microsecond):
		return factor.Verdict{Reason: ReasonTooLate, Text: text.PostTooLate}, row, nil
	case !right:
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode}, row, nil
	}
	n, err := tx.SpendPostCode(ctx, db.SpendPostCodeParams{ID: row.ID, At: clock.Micros(now)})
	if err != nil {
		return factor.Verdict{}, none, fmt.Errorf("spend a code: %w", err)
	}
	if n == 0 {
		return factor.Verdict{Reason: factor.ReasonReplayed, Text: text.CodeUsed}, row, nil
	}
	return factor.Verdict{Outcome: factor.Accepted}, row, nil
}

// SendConfirm sends the code that shows whose an address is, to that address.
func (p *Post) SendConfirm(ctx context.Context, tx *store.Tx, channel, ticket string, u db.User, address string) (time.Time, error) {
	contact, err := p.contact(ctx, tx.Queries)
	if err != nil {
		return time.Time{}, err
	}
	return p.send(ctx, tx, wanted{
		channel: channel, purpose: ForConfirm, ticket: ticket, user: u, address: address,
		text: func(code string, minutes int) Message { return confirmText(channel, u, code, minutes, contact) },
	}, p.Clock.Now())
}

// JudgeConfirm judges that code. The transaction must be kept whatever it says, so that
// tries are counted.
func (p *Post) JudgeConfirm(ctx context.Context, tx *store.Tx, channel, ticket, userID string, typed secret.Bytes) (factor.Verdict, error) {
	v, _, err := p.judge(ctx, tx, channel, doorConfirm, "", userID, ticket, typed, p.Clock.Now())
	return v, err
}
