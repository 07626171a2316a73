package post

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Notice tells people by mail what has changed about how they sign in (E1). It is run for
// every event, in the transaction that writes it (store.OnEvent), so that nobody who
// changes something can forget it. A person without a mail address, and a server without
// mail, are told nothing.
func (p *Post) Notice(ctx context.Context, tx *store.Tx, e event.Event) error {
	if e.UserID == "" {
		return nil
	}
	what, ok := noticeOf(e)
	if !ok {
		return nil
	}
	m, _, err := p.ReadMail(ctx, tx.Queries)
	if err != nil {
		return err
	}
	if !m.On || !m.Notices {
		return nil
	}
	u, err := tx.GetUser(ctx, e.UserID)
	if store.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	set, err := p.settings(ctx, tx.Queries)
	if err != nil {
		return err
	}
	now := p.Clock.Now()
	body := noticeText(what, u, e, set, now)
	// The old address is told too: whoever has changed it reads the new one.
	for _, to := range slices.Compact([]string{u.Mail, oldMail(e)}) {
		address, err := ParseMail(to)
		if err != nil {
			continue
		}
		body.To = address
		_, err = p.put(ctx, tx, entry{channel: rest.ChannelMail, purpose: ForNotice, user: u, message: body, expires: now.Add(noticeLife)})
		if errors.Is(err, errFull) {
			p.Log.Warn("a note to a person was not put into the queue, which is full", "event", string(e.Type))
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// noticeOf says what an event means for a person, in a sentence; false for nothing.
func noticeOf(e event.Event) (string, bool) {
	var data struct {
		Changes []struct {
			Field string `json:"field"`
		} `json:"changes"`
		Import     any    `json:"import"`
		NewBrowser bool   `json:"new_browser"`
		Mail       string `json:"mail"`

		Sessions     int `json:"sessions_ended"`
		Tokens       int `json:"tokens_ended"`
		Certificates int `json:"certificates_ended"`
	}
	switch e.Type {
	case event.FactorAdded, event.FactorRemoved, event.FactorLost, event.CodeIssued, event.PasswordChanged, event.PushReported, event.UserChanged, event.SessionOpened,
		event.FactorCloned, event.CertificateIssued:
		if len(e.Data) > 0 {
			// Data of another form says nothing that is asked for here.
			_ = json.Unmarshal(e.Data, &data)
		}
	default:
		return "", false
	}
	switch e.Type {
	case event.FactorAdded:
		if e.Factor == string(policy.Backup) {
			return "New backup codes were made for you. The old ones no longer work.", true
		}
		return "A second factor was added to your account: " + kindName(e.Factor) + ".", true
	case event.FactorRemoved:
		if e.Factor == string(policy.Bypass) || e.Factor == "enrol" {
			return "", false // a code that nobody has used is gone: nothing to fear
		}
		return "A second factor was removed from your account: " + kindName(e.Factor) + ".", true
	case event.FactorLost:
		return "A second factor of yours was marked as lost and is no longer accepted: " + kindName(e.Factor) + ".", true
	case event.FactorCloned:
		return "There may be a copy of your security key or passkey: it has counted backwards. It is no longer accepted.", true
	case event.CertificateIssued:
		if e.Reason == "renewed" {
			return "", false // every few weeks, without anybody's doing
		}
		return "A certificate was issued for you: with it somebody signs in to your account without your password.", true
	case event.PasswordChanged:
		var with []string
		for _, x := range []struct {
			n         int
			one, many string
		}{{data.Sessions, "session", "sessions"}, {data.Tokens, "API token", "API tokens"}, {data.Certificates, "certificate", "certificates"}} {
			switch {
			case x.n == 1:
				with = append(with, "1 "+x.one)
			case x.n > 1:
				with = append(with, fmt.Sprintf("%d %s", x.n, x.many))
			}
		}
		if len(with) == 0 {
			return "Your password was changed.", true
		}
		return "Your password was changed. What was opened with the old one has ended: " + strings.Join(with, ", ") + ".", true
	case event.PushReported:
		return "A sign-in was reported as somebody else's from your phone. Requests to your phone are locked until the help desk unlocks them.", true
	case event.CodeIssued:
		switch {
		case data.Import != nil || data.Mail != "":
			return "", false // of thousands at once, or in a mail of its own
		case e.Factor == string(policy.Bypass):
			return "A bypass code was issued for you: one sign-in without your second factor.", true
		}
		return "An enrolment code was issued for you: with it and your password a second factor can be set up.", true
	case event.UserChanged:
		if data.Import != nil {
			return "", false // of thousands at once
		}
		for _, c := range data.Changes {
			if c.Field == "mail" {
				return "The mail address of your account was changed.", true
			}
			if c.Field == "mfa" {
				return "Whether you are asked for a second factor was changed.", true
			}
		}
	case event.SessionOpened:
		if data.NewBrowser {
			return "Somebody signed in to your account with a browser that has not been used for it before.", true
		}
	}
	return "", false
}

// oldMail is the address that a change has replaced; empty for none.
func oldMail(e event.Event) string {
	if e.Type != event.UserChanged {
		return ""
	}
	var data struct {
		Changes []struct {
			Field string `json:"field"`
			Old   any    `json:"old"`
		} `json:"changes"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return ""
	}
	for _, c := range data.Changes {
		if old, ok := c.Old.(string); ok && c.Field == "mail" {
			return old
		}
	}
	return ""
}

// kindNames are the words for people.
var kindNames = map[string]string{
	string(policy.FIDO2): "a security key or passkey", string(policy.Push): "the Latchkey Authenticator on a phone", string(policy.TOTP): "an authenticator app",
	string(policy.Backup): "backup codes", string(policy.Mail): "codes by mail", string(policy.SMS): "codes by text message", "certificate": "a certificate",
}

func kindName(kind string) string {
	if s, ok := kindNames[kind]; ok {
		return s
	}
	return "of the kind " + text.CleanN(kind, 32)
}

// contact is whom people call; empty if nobody has said.
func (p *Post) contact(ctx context.Context, q *db.Queries) (string, error) {
	s, err := settings.Read(ctx, q)
	return s.Contact, err
}

// settings are those that texts speak of.
func (p *Post) settings(ctx context.Context, q *db.Queries) (settings.Settings, error) {
	s, err := settings.Read(ctx, q)
	if err == nil {
		s.PeopleURL, err = settings.People(ctx, q, p.PeopleURL)
	}
	return s, err
}

// ── what is written ──

// Mails are plain text. They hold no link but the address of this server's own portal, so
// that nobody learns to follow links in mails that look like these.

const signature = "\n-- \nThis is an automatic message of Latchkey. Answers to it are not read.\n"

// ask says whom to turn to.
func ask(contact string) string {
	if contact == "" {
		return "your help desk"
	}
	return text.CleanN(contact, 256)
}

// short is a name as it may stand in a text: cut, and without anything that a program
// could make a link of.
func short(s string, most int) string {
	s = text.CleanN(s, most)
	s = strings.NewReplacer("://", " ", "www.", "www ", "\n", " ").Replace(s)
	return strings.Join(strings.Fields(s), " ")
}

func at(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// hail begins a mail.
func hail(u db.User) string { return "Hello " + short(u.Name, 64) + ",\n\n" }

func minutesOf(n int) string {
	if n == 1 {
		return "1 minute"
	}
	return fmt.Sprintf("%d minutes", n)
}

// codeText is a code for a sign-in.
func codeText(channel string, a factor.Ask, code string, minutes int, contact string) Message {
	where := "the sign-in at " + short(a.Name, 48)
	switch a.Door {
	case factor.AtPortal:
		where = "the sign-in to Latchkey in a browser"
		if a.Program {
			where = "the sign-in to Latchkey at a command line"
		}
	case factor.AtStepUp:
		where = "a change of your settings in Latchkey"
	}
	if channel == rest.ChannelSMS {
		return Message{Text: code + " is your Latchkey code for " + where + ", for " + minutesOf(minutes) + ". Tell it to nobody."}
	}
	b := hail(a.User) + "your code is " + code + "\n\nIt is for " + where
	if a.Address != "" {
		b += " from " + short(a.Address, 64)
	}
	b += ", and counts for " + minutesOf(minutes) + ".\n\nNobody will ask you for this code by telephone, mail or chat. If you are not signing in now, somebody knows your password: " +
		"change it, and tell " + ask(contact) + ".\n" + signature
	return Message{Subject: "Your Latchkey code", Text: b}
}

// confirmText is a code that confirms an address.
func confirmText(channel string, u db.User, code string, minutes int, contact string) Message {
	if channel == rest.ChannelSMS {
		return Message{Text: code + " confirms this number for Latchkey, for " + minutesOf(minutes) + ". Tell it to nobody."}
	}
	return Message{Subject: "Confirm this address for Latchkey", Text: hail(u) + "the code that confirms this address is " + code + "\n\nType it where you have given the address; it counts for " +
		minutesOf(minutes) + ". From then on codes for your sign-ins can be sent here.\n\nIf you have not asked for this, do nothing, and tell " + ask(contact) + ".\n" + signature}
}

// enrolText carries an enrolment code.
func (p *Post) enrolText(ctx context.Context, q *db.Queries, u db.User, code string, until time.Time) (Message, error) {
	s, err := p.settings(ctx, q)
	if err != nil {
		return Message{}, err
	}
	b := hail(u) + "your enrolment code is " + code + "\n\nWith it and your password you set up your second factor"
	if s.PeopleURL != "" {
		b += ". Open Latchkey at\n\n    " + s.PeopleURL + "\n\nand sign in"
	} else {
		b += " in Latchkey"
	}
	b += ". The code counts once, until " + at(until) + ".\n\nNobody will ask you for this code by telephone, mail or chat. If you did not expect it, tell " + ask(s.Contact) + ".\n" + signature
	return Message{Subject: "Your Latchkey enrolment code", Text: b}, nil
}

// noticeText tells of a change.
func noticeText(what string, u db.User, e event.Event, s settings.Settings, now time.Time) Message {
	b := hail(u) + what + "\n\n    When: " + at(timeOf(e, now))
	switch {
	case e.Actor == "" || e.Actor == "server" || e.Actor == "agent":
	case e.Actor == u.Name:
		b += "\n    By:   your own account"
	default:
		b += "\n    By:   " + short(e.Actor, 64)
	}
	if e.Machine != "" {
		b += "\n    At:   " + short(e.Machine, 64)
	}
	if e.Address != "" {
		b += "\n    From: " + short(e.Address, 64)
	}
	b += "\n\nIf you know of this, you need do nothing. If not, tell " + ask(s.Contact) + " at once"
	if s.PeopleURL != "" {
		b += ", or look into your account at\n\n    " + s.PeopleURL + "\n"
	} else {
		b += ".\n"
	}
	return Message{Subject: "A change of your Latchkey account", Text: b + signature}
}

func timeOf(e event.Event, now time.Time) time.Time {
	if e.At > 0 {
		return clock.FromMicros(e.At)
	}
	return now
}

// testText shows that the settings work.
func testText(channel, by string, now time.Time) Message {
	if channel == rest.ChannelSMS {
		return Message{Text: "A test message of Latchkey, " + at(now) + "."}
	}
	return Message{Subject: "A test message of Latchkey", Text: "This message shows that Latchkey can send mail. " + short(by, 64) + " has asked for it on " + at(now) + ".\n" + signature}
}
