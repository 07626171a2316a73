package desk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/post"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// What has to do with mails and text messages (M6): the settings, the queue, and the
// addresses that codes go to.

// testRate bounds messages for trying out, of everybody together: each goes past the
// queue and its limits.
var testRate = rate.Rate{PerSecond: 0.1, Burst: 5}

// posts is the part that sends; a server without it sends nothing.
func (d *Desk) posts() (*post.Post, error) {
	if d.Post == nil {
		return nil, fault.Newf(fault.Unavailable, "This server can not send messages.")
	}
	return d.Post, nil
}

// change1 takes over what is given of the fields of a change, which have the names of the
// settings' fields, and notes the differences.
func change1(list *[]changed, to, from any) {
	dst, src := reflect.ValueOf(to).Elem(), reflect.ValueOf(from)
	for i := range src.NumField() {
		f := src.Type().Field(i)
		v, at := src.Field(i), dst.FieldByName(f.Name)
		if !at.IsValid() || v.IsNil() || v.Elem().Type() != at.Type() || reflect.DeepEqual(at.Interface(), v.Elem().Interface()) {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		*list = append(*list, changed{name, at.Interface(), v.Elem().Interface()})
		at.Set(v.Elem())
	}
}

// secretChanged notes that a secret is another one, without saying which.
func secretChanged(list *[]changed, field string, had, has bool) {
	words := map[bool]string{true: "set", false: "none"}
	*list = append(*list, changed{field, words[had], words[has]})
}

// MailSettings gives how mails go out, and the tag of that.
func (d *Desk) MailSettings(ctx context.Context, a Actor) (out rest.MailSettings, tag post.Tag, err error) {
	if err := a.may(read); err != nil {
		return out, "", err
	}
	p, err := d.posts()
	if err != nil {
		return out, "", err
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		m, t, err := p.ReadMail(ctx, q)
		out, tag = m.MailSettings, t
		return err
	})
	return out, tag, err
}

// ChangeMailSettings changes them if they still have the tag that was seen; empty is any.
func (d *Desk) ChangeMailSettings(ctx context.Context, a Actor, seen string, in rest.MailChange) (out rest.MailSettings, tag post.Tag, err error) {
	if err := a.may(own); err != nil {
		return out, "", err
	}
	p, err := d.posts()
	if err != nil {
		return out, "", err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, was, err := p.ReadMail(ctx, tx.Queries)
		if err != nil {
			return err
		}
		if seen != "" && seen != string(was) {
			return fault.New(fault.Conflict, nil)
		}
		host, port := m.Host, m.Port
		var list []changed
		change1(&list, &m.MailSettings, in)
		if in.Password != nil && !in.Password.Equal(m.Password) {
			secretChanged(&list, "password", m.HasPassword, !in.Password.Empty())
			m.Password, m.HasPassword = in.Password.Bytes, !in.Password.Empty()
		} else if in.Password == nil && m.HasPassword && m.Username == "" {
			// A password without a user name is of no use, and goes with it.
			secretChanged(&list, "password", true, false)
			m.Password, m.HasPassword = secret.Bytes{}, false
		} else if in.Password == nil && m.HasPassword && (m.Host != host || m.Port != port) {
			// The password of one server is not shown to another.
			return fault.New(fault.Invalid, nil).With("password", "the mail server is another one: type the password for it (--password-stdin at the command line), or leave the user name empty")
		}
		if err := m.Judge(); err != nil {
			return err
		}
		out, tag = m.MailSettings, was
		if len(list) == 0 {
			return nil
		}
		if tag, err = p.WriteMail(ctx, tx, m, d.now()); err != nil {
			return err
		}
		return note(tx, a, event.Event{Type: event.SettingsChanged, Subject: rest.ChannelMail}, map[string]any{"changes": list})
	})
	return out, tag, err
}

// SMSSettings gives how text messages go out, and the tag of that.
func (d *Desk) SMSSettings(ctx context.Context, a Actor) (out rest.SMSSettings, tag post.Tag, err error) {
	if err := a.may(read); err != nil {
		return out, "", err
	}
	p, err := d.posts()
	if err != nil {
		return out, "", err
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		m, t, err := p.ReadSMS(ctx, q)
		out, tag = m.SMSSettings, t
		return err
	})
	return out, tag, err
}

// ChangeSMSSettings changes them if they still have the tag that was seen; empty is any.
func (d *Desk) ChangeSMSSettings(ctx context.Context, a Actor, seen string, in rest.SMSChange) (out rest.SMSSettings, tag post.Tag, err error) {
	if err := a.may(own); err != nil {
		return out, "", err
	}
	p, err := d.posts()
	if err != nil {
		return out, "", err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, was, err := p.ReadSMS(ctx, tx.Queries)
		if err != nil {
			return err
		}
		if seen != "" && seen != string(was) {
			return fault.New(fault.Conflict, nil)
		}
		host := post.HostOf(m.URL)
		var list []changed
		change1(&list, &m.SMSSettings, in)
		if in.Secret != nil && !in.Secret.Equal(m.Secret) {
			secretChanged(&list, "secret", m.HasSecret, !in.Secret.Empty())
			m.Secret, m.HasSecret = in.Secret.Bytes, !in.Secret.Empty()
		} else if in.Secret == nil && m.HasSecret && post.HostOf(m.URL) != host {
			return fault.New(fault.Invalid, nil).With("secret", "the gateway is another one: type the secret for it")
		}
		if err := m.Judge(); err != nil {
			return err
		}
		out, tag = m.SMSSettings, was
		if len(list) == 0 {
			return nil
		}
		if tag, err = p.WriteSMS(ctx, tx, m, d.now()); err != nil {
			return err
		}
		return note(tx, a, event.Event{Type: event.SettingsChanged, Subject: rest.ChannelSMS}, map[string]any{"changes": list})
	})
	return out, tag, err
}

// TestChannel sends a message at once and tells what came of it.
func (d *Desk) TestChannel(ctx context.Context, a Actor, channel string, in rest.TestMessage) (rest.Tested, error) {
	if err := a.may(own); err != nil {
		return rest.Tested{}, err
	}
	p, err := d.posts()
	if err != nil {
		return rest.Tested{}, err
	}
	if _, err := post.Parse(channel, in.To); err != nil {
		return rest.Tested{}, fault.New(fault.Invalid, nil).With("to", "%s", err)
	}
	if !d.tests.Take(channel) {
		return rest.Tested{}, fault.Newf(fault.TooMany, "Several messages were sent for trying out just now. Wait a little.")
	}
	return p.Test(ctx, channel, in.To, a.Name)
}

// ── the queue ──

// Queue counts the messages of a channel.
func (d *Desk) Queue(ctx context.Context, a Actor, channel string) (rest.Queue, error) {
	var out rest.Queue
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.CountOutbox(ctx, channel)
		for _, r := range rows {
			switch r.State {
			case rest.MessageWaiting:
				out.Waiting = r.N
			case rest.MessageFailed:
				out.Failed = r.N
			case rest.MessageSent:
				out.Sent = r.N
			}
		}
		return err
	})
	return out, err
}

func messageOf(r db.Outbox, now int64) rest.Message {
	m := rest.Message{
		ID: rest.MessagePrefix + r.ID, Channel: r.Channel, Purpose: r.Purpose, User: r.Subject, To: r.Mask, State: r.State, Tries: r.Tries,
		Reason: r.Reason, Detail: r.Detail, CreatedAt: rest.Time(r.CreatedAt), DoneAt: rest.Time(r.DoneAt), Again: r.Body != nil && r.LeasedUntil <= now,
	}
	if r.State == rest.MessageWaiting {
		m.DueAt, m.ExpiresAt = rest.Time(r.DueAt), rest.Time(r.ExpiresAt)
	}
	return m
}

// ListMessages gives a page of the queue, the youngest first.
func (d *Desk) ListMessages(ctx context.Context, a Actor, channel, state, after string, limit int) (rest.Page[rest.Message], error) {
	out := rest.Page[rest.Message]{Items: []rest.Message{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	var v faults
	if channel != "" {
		v.word("channel", channel, []string{rest.ChannelMail, rest.ChannelSMS})
	}
	if state != "" {
		v.word("state", state, []string{rest.MessageWaiting, rest.MessageSent, rest.MessageFailed})
	}
	if err := v.err(); err != nil {
		return out, err
	}
	from, err := resume("messages", after, 1)
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.ListOutbox(ctx, db.ListOutboxParams{Before: from[0], Channel: channel, State: state, N: ask})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			out.Next = cursor("messages", rows[show-1].ID)
		}
		for _, r := range rows {
			out.Items = append(out.Items, messageOf(r, d.now()))
		}
		return nil
	})
	return out, err
}

// message finds one by its id.
func message(ctx context.Context, q *db.Queries, ref string) (db.Outbox, error) {
	id, ok := cut(rest.MessagePrefix, ref)
	if !ok {
		return db.Outbox{}, missing("message", ref)
	}
	m, err := q.GetOutbox(ctx, id)
	if store.IsNotFound(err) {
		return m, missing("message", ref)
	}
	return m, err
}

// RetryMessage has a message that waits or has failed sent again at once. A code that was
// given up is of no use any more, and is not.
func (d *Desk) RetryMessage(ctx context.Context, a Actor, ref string) (rest.Message, error) {
	var out rest.Message
	if err := a.may(change); err != nil {
		return out, err
	}
	p, err := d.posts()
	if err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, err := message(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		done, err := p.Again(ctx, tx, m)
		if err != nil {
			return err
		}
		if !done {
			return fault.Newf(fault.Conflict, "This message can not be sent again: it was sent, is being sent now, or was a code that is of no use any more.")
		}
		if m, err = tx.GetOutbox(ctx, m.ID); err != nil {
			return err
		}
		out = messageOf(m, d.now())
		return note(tx, a, event.Event{Type: event.PostRetried, Subject: m.Subject, UserID: m.UserID}, map[string]any{"message": out.ID, "channel": m.Channel, "purpose": m.Purpose, "to": m.Mask})
	})
	return out, err
}

// RemoveMessage takes a message out of the queue. One that is being sent may still
// arrive.
func (d *Desk) RemoveMessage(ctx context.Context, a Actor, ref string) error {
	if err := a.may(change); err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, err := message(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if _, err := tx.DeleteOutbox(ctx, m.ID); err != nil {
			return err
		}
		return note(tx, a, event.Event{Type: event.PostRemoved, Subject: m.Subject, UserID: m.UserID}, map[string]any{
			"message": rest.MessagePrefix + m.ID, "channel": m.Channel, "purpose": m.Purpose, "to": m.Mask, "was": m.State,
		})
	})
}

// ── addresses ──

// channels are the kinds whose codes are sent.
var channels = []string{string(policy.Mail), string(policy.SMS)}

func channelFault(channel string) error {
	if slices.Contains(channels, channel) {
		return nil
	}
	return missing("kind of address", channel)
}

// AddAddress gives a user an address to which codes go: an administrator answers for it,
// and no code confirms it. It takes the place of the one that was there (M6).
func (d *Desk) AddAddress(ctx context.Context, a Actor, ref, channel string, in rest.NewAddress) (rest.Factor, error) {
	var out rest.Factor
	if err := a.may(change); err != nil {
		return out, err
	}
	if err := channelFault(channel); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		typed := in.Address
		if typed == "" && channel == rest.ChannelMail {
			if typed = u.Mail; u.MailOwn && typed != "" {
				return fault.New(fault.Invalid, nil).With("address", "%s has typed the mail address of the account in the portal, and nobody has confirmed it; give the address that you answer for", u.Name)
			}
		}
		address, err := post.Parse(channel, typed)
		if err != nil {
			return fault.New(fault.Invalid, nil).With("address", "%s", err)
		}
		out, err = d.setAddress(ctx, tx, a, u, channel, address, false)
		return err
	})
	return out, err
}

// setAddress makes the authenticator, in the place of an older one.
func (d *Desk) setAddress(ctx context.Context, tx *store.Tx, a Actor, u db.User, channel, address string, self bool) (rest.Factor, error) {
	var out rest.Factor
	have, err := tx.ListAuthenticators(ctx, u.ID)
	if err != nil {
		return out, err
	}
	left := len(have)
	for _, x := range have {
		if x.Kind != channel {
			continue
		}
		if _, err := tx.DeleteAuthenticator(ctx, x.ID); err != nil {
			return out, err
		}
		left--
		if err := note(tx, a, event.Event{Type: event.FactorRemoved, Subject: u.Name, UserID: u.ID, Factor: channel}, map[string]any{
			"authenticator": rest.FactorPrefix + x.ID, "to": post.Mask(channel, post.AddressOf(x)), "was": "replaced", "self": self,
		}); err != nil {
			return out, err
		}
	}
	if left >= maxAuthenticators {
		return out, fault.Newf(fault.Conflict, "%s has %d authenticators already; at most %d are allowed. Remove one first.", u.Name, left, maxAuthenticators)
	}
	id := store.NewID()
	err = tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{
		ID: id, UserID: u.ID, Kind: channel, Name: post.Mask(channel, address), Params: post.ParamsOf(address), ConfirmedAt: d.now(), CreatedAt: d.now(),
	})
	if err != nil {
		return out, err
	}
	if err := factor.Changed(ctx, tx, u.ID); err != nil {
		return out, err
	}
	if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
		return out, err
	}
	if err := note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: channel}, map[string]any{
		"authenticator": rest.FactorPrefix + id, "to": post.Mask(channel, address), "self": self,
	}); err != nil {
		return out, err
	}
	all, err := d.factors(ctx, tx.Queries, u)
	if err != nil {
		return out, err
	}
	if i := slices.IndexFunc(all, func(f rest.Factor) bool { return f.ID == rest.FactorPrefix+id }); i >= 0 {
		out = all[i]
	}
	return out, nil
}

// pendingAddress is an address that waits for the code that was sent to it. It lies
// sealed in the ticket that the person sends back, and nowhere else.
type pendingAddress struct {
	Channel    string `json:"channel"`
	Address    string `json:"address"`
	Code       string `json:"code"` // ticket of the code
	Generation int64  `json:"generation"`
	Expires    int64  `json:"expires"`
}

func addressPlace(userID string) []string { return []string{"self", "address", userID} }

// mayAddress tells whether the actor may set up an address of the channel: with a fresh
// factor, where the server sends such messages and the person's policy takes their codes.
// An enrolment code sets up something stronger.
func (d *Desk) mayAddress(ctx context.Context, q *db.Queries, a Actor, channel string) (db.User, error) {
	u, err := a.me(ctx, q)
	if err != nil {
		return u, err
	}
	if err := a.reach(u); err != nil {
		return u, err
	}
	p, err := d.posts()
	if err != nil {
		return u, err
	}
	on, err := p.On(ctx, q, channel)
	switch {
	case err != nil:
		return u, err
	case !on:
		return u, fault.Newf(fault.Conflict, "This server does not send codes this way.")
	}
	pol, err := facts.PolicyOf(ctx, q, u.ID)
	if err != nil {
		return u, err
	}
	if !slices.Contains(pol.OnlineFactors, policy.Factor(channel)) {
		return u, fault.Newf(fault.Conflict, "Your organisation does not accept codes this way, because they are weaker than an app or a key.")
	}
	return u, nil
}

// CanHaveAddress lists the channels that the actor may set up, for pages.
func (d *Desk) CanHaveAddress(ctx context.Context, a Actor) ([]string, error) {
	out := []string{}
	if err := a.look(); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		out = out[:0]
		for _, c := range channels {
			switch _, err := d.mayAddress(ctx, q, a, c); {
			case err == nil:
				out = append(out, c)
			case !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Forbidden):
				return err
			}
		}
		return nil
	})
	return out, err
}

// BeginOwnAddress sends a code to an address that the actor wants codes at.
func (d *Desk) BeginOwnAddress(ctx context.Context, a Actor, channel string, in rest.NewAddress) (rest.PendingAddress, error) {
	var out rest.PendingAddress
	if err := a.fresh(); err != nil {
		return out, err
	}
	if err := channelFault(channel); err != nil {
		return out, err
	}
	p, err := d.posts()
	if err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := d.mayAddress(ctx, tx.Queries, a, channel)
		if err != nil {
			return err
		}
		typed := in.Address
		if typed == "" && channel == rest.ChannelMail {
			typed = u.Mail
		}
		address, err := post.Parse(channel, typed)
		if err != nil {
			return fault.New(fault.Invalid, nil).With("address", "%s", err)
		}
		ticket, err := post.Ticket("confirm", d.Random)
		if err != nil {
			return err
		}
		expires, err := p.SendConfirm(ctx, tx, channel, ticket, u, address)
		if err != nil {
			return err
		}
		plain, err := json.Marshal(pendingAddress{channel, address, ticket, u.PasswordGeneration, clock.Micros(expires)})
		if err != nil {
			return err
		}
		out = rest.PendingAddress{
			Ticket: base64.RawURLEncoding.EncodeToString(d.Keys.Box.Seal(plain, addressPlace(u.ID)...)), To: post.Mask(channel, address), ExpiresAt: expires.UTC(),
		}
		clear(plain)
		return nil
	})
	return out, err
}

// ConfirmOwnAddress makes the factor, if the code is right.
func (d *Desk) ConfirmOwnAddress(ctx context.Context, a Actor, channel string, in rest.ConfirmAddress) (rest.Factor, error) {
	var out rest.Factor
	// The ticket is the proof of a fresh factor: it was only given to one.
	if err := a.act(); err != nil {
		return out, err
	}
	if err := channelFault(channel); err != nil {
		return out, err
	}
	p, err := d.posts()
	if err != nil {
		return out, err
	}
	if in.Code.Empty() {
		return out, fault.New(fault.Invalid, nil).With("code", "it is missing; type the code of the message")
	}
	// Counted whatever comes of it, so in a transaction of its own.
	var (
		at      pendingAddress
		verdict factor.Verdict
	)
	err = d.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := d.mayAddress(ctx, tx.Queries, a, channel)
		if err != nil {
			return err
		}
		if at, err = d.addressTicket(u, channel, in.Ticket); err != nil {
			return err
		}
		verdict, err = p.JudgeConfirm(ctx, tx, channel, at.Code, u.ID, in.Code.Bytes)
		return err
	})
	if err != nil {
		return out, err
	}
	if !verdict.OK() {
		return out, fault.New(fault.Invalid, nil).With("code", "%s", strings.TrimSuffix(text.CleanN(verdict.Text, 256), "."))
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := d.mayAddress(ctx, tx.Queries, a, channel)
		if err != nil {
			return err
		}
		if at.Generation != u.PasswordGeneration {
			return errAddressOver()
		}
		out, err = d.setAddress(ctx, tx, a, u, channel, at.Address, true)
		return err
	})
	return out, err
}

func errAddressOver() error {
	return fault.Newf(fault.Expired, "Confirming took too long, or something about your account has changed meanwhile. Begin again: another code is sent then.")
}

func (d *Desk) addressTicket(u db.User, channel, ticket string) (pendingAddress, error) {
	var p pendingAddress
	if ticket == "" || len(ticket) > maxTicket {
		return p, errAddressOver()
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil {
		return p, errAddressOver()
	}
	plain, err := d.Keys.Box.Open(sealed, addressPlace(u.ID)...)
	if err != nil {
		return p, errAddressOver()
	}
	defer plain.Wipe()
	if err := json.Unmarshal(plain.Reveal(), &p); err != nil {
		return p, errAddressOver()
	}
	if p.Channel != channel || d.now() >= p.Expires || p.Generation != u.PasswordGeneration {
		return p, errAddressOver()
	}
	return p, nil
}
