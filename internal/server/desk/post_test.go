package desk_test

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/post"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

func init() {
	selfActions["CanHaveAddress"] = &struct {
		takes string
		do    func(ctx context.Context, d *desk.Desk, a desk.Actor) error
	}{looks, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.CanHaveAddress(ctx, a)
		return err
	}}
	selfActions["BeginOwnAddress"] = &struct {
		takes string
		do    func(ctx context.Context, d *desk.Desk, a desk.Actor) error
	}{proves, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.BeginOwnAddress(ctx, a, rest.ChannelMail, rest.NewAddress{Address: "a@example.org"})
		return err
	}}
	selfActions["ConfirmOwnAddress"] = &struct {
		takes string
		do    func(ctx context.Context, d *desk.Desk, a desk.Actor) error
	}{acts, func(ctx context.Context, d *desk.Desk, a desk.Actor) error {
		_, err := d.ConfirmOwnAddress(ctx, a, rest.ChannelMail, rest.ConfirmAddress{Ticket: "x", Code: rest.HideText("12345678")})
		return err
	}}
}

// sends switches both channels on.
func sends(t *testing.T, r *desktest.Rig) {
	t.Helper()
	_, _, err := r.ChangeMailSettings(t.Context(), desk.Root(), "", rest.MailChange{On: ptr(true), Host: ptr("mail.example.org"), From: ptr("latchkey@example.org")})
	must(t, err)
	_, _, err = r.ChangeSMSSettings(t.Context(), desk.Root(), "", rest.SMSChange{On: ptr(true), URL: ptr("https://sms.example.org/send")})
	must(t, err)
}

// waiting are the messages of the queue, opened, the oldest first.
func waiting(t *testing.T, r *desktest.Rig) []post.Message {
	t.Helper()
	var out []post.Message
	must(t, r.Store.Read(t.Context(), func(q *store.Queries) error {
		rows, err := q.ListOutbox(t.Context(), db.ListOutboxParams{N: 1000})
		for _, row := range slices.Backward(rows) {
			plain, err := r.Keys.Box.Open(row.Body, "outbox", "body", row.ID)
			must(t, err)
			var m post.Message
			must(t, json.Unmarshal(plain.Reveal(), &m))
			out = append(out, m)
		}
		return err
	}))
	return out
}

// last is the one that was put into the queue last.
func last(t *testing.T, r *desktest.Rig) post.Message {
	t.Helper()
	all := waiting(t, r)
	if len(all) == 0 {
		t.Fatal("nothing is in the queue")
	}
	return all[len(all)-1]
}

var aCode = regexp.MustCompile(`\b\d{8}\b`)

func TestSettingsOfMails(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		s, tag, err := r.MailSettings(ctx, root)
		if err != nil || s.On || s.Security != rest.MailStartTLS {
			t.Fatal(s, err)
		}
		secret := rest.HideText("hush hush hush")
		in := rest.MailChange{On: ptr(true), Host: ptr("mail.example.org"), From: ptr("latchkey@example.org"), Username: ptr("latchkey"), Password: &secret}
		s, tag2, err := r.ChangeMailSettings(ctx, root, string(tag), in)
		if err != nil || !s.HasPassword || tag2 == tag {
			t.Fatal(s, err)
		}
		if _, _, err := r.ChangeMailSettings(ctx, root, string(tag), rest.MailChange{FromName: ptr("x")}); !fault.Is(err, fault.Conflict) {
			t.Errorf("with an old tag: %v", err)
		}
		if _, _, err := r.ChangeMailSettings(ctx, root, "", rest.MailChange{Host: ptr("evil.example.org")}); !fault.Is(err, fault.Invalid) {
			t.Errorf("the password would go to another server: %v", err)
		}
		if _, _, err := r.ChangeMailSettings(ctx, root, "", rest.MailChange{Hello: ptr("a b"), Timeout: ptr(1000), From: ptr("x")}); !fault.Is(err, fault.Invalid) || len(fault.Of(err).Fields) != 3 {
			t.Errorf("three faults: %v", err)
		}
		// Neither what is stored nor what is written down holds it.
		must(t, r.Store.Read(ctx, func(q *store.Queries) error {
			v, err := q.GetSetting(ctx, "post.mail")
			if strings.Contains(string(v), "hush") || strings.Contains(string(v), "example.org") {
				t.Error("the settings lie open")
			}
			return err
		}))
		rows, err := r.Store.Events(ctx, store.EventFilter{Types: []string{string(event.SettingsChanged)}, Limit: 10})
		must(t, err)
		if len(rows) != 1 || strings.Contains(rows[0].Data, "hush") || !strings.Contains(rows[0].Data, `"field":"password","old":"none","new":"set"`) {
			t.Errorf("%+v", rows)
		}
		sms := rest.HideText("sesame open")
		_, _, err = r.ChangeSMSSettings(ctx, root, "", rest.SMSChange{On: ptr(true), URL: ptr("https://sms.example.org/send"), Username: ptr("x"), Secret: &sms})
		must(t, err)
		if _, _, err := r.ChangeSMSSettings(ctx, root, "", rest.SMSChange{URL: ptr("https://evil.example.org/send")}); !fault.Is(err, fault.Invalid) {
			t.Errorf("the secret would go to another gateway: %v", err)
		}
		_, _, err = r.ChangeSMSSettings(ctx, root, "", rest.SMSChange{URL: ptr("https://sms.example.org/other")})
		must(t, err)
	})
}

func TestAnAddressThatAnAdministratorAnswersFor(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		sends(t, r)
		anna := ok(r.AddUser(ctx, root, rest.NewUser{Name: "anna", Mail: "anna@example.org"}))(t)
		f := ok(r.AddAddress(ctx, root, "anna", rest.ChannelMail, rest.NewAddress{}))(t)
		if f.Kind != rest.ChannelMail || f.To != "a…@example.org" || !f.Weak || f.State != "usable" {
			t.Errorf("%+v", f)
		}
		if m := last(t, r); m.To != "anna@example.org" || !strings.Contains(m.Text, "codes by mail") {
			t.Errorf("she is told %+v", m)
		}
		// Another takes its place.
		ok(r.AddAddress(ctx, root, "anna", rest.ChannelMail, rest.NewAddress{Address: "office@example.org"}))(t)
		ok(r.AddAddress(ctx, root, "anna", rest.ChannelSMS, rest.NewAddress{Address: "+49 170 1234567"}))(t)
		list := ok(r.ListFactors(ctx, root, "anna"))(t).Items
		if len(list) != 2 || list[0].To != "o…@example.org" || list[1].To != "+49…67" {
			t.Errorf("%+v", list)
		}
		// What she has typed herself is nobody's word.
		u, err := r.ChangeMe(ctx, person(anna), 0, rest.MeChange{Mail: ptr("other@example.org")})
		must(t, err)
		if u.Mail != "other@example.org" {
			t.Fatal(u)
		}
		all := waiting(t, r)
		var told []string
		for _, m := range all[len(all)-2:] {
			told = append(told, m.To)
		}
		if slices.Sort(told); !slices.Equal(told, []string{"anna@example.org", "other@example.org"}) {
			t.Errorf("told of the change: %v", told)
		}
		if _, err := r.AddAddress(ctx, root, "anna", rest.ChannelMail, rest.NewAddress{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("an address that nobody answers for: %v", err)
		}
		for channel, bad := range map[string]string{rest.ChannelMail: "a@b\r\nBcc: c", rest.ChannelSMS: "0170"} {
			if _, err := r.AddAddress(ctx, root, "anna", channel, rest.NewAddress{Address: bad}); !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if _, err := r.AddAddress(ctx, root, "anna", "pigeon", rest.NewAddress{Address: "x"}); !fault.Is(err, fault.NotFound) {
			t.Errorf("a kind that there is not: %v", err)
		}
	})
}

func TestAnAddressOfOnesOwn(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		anna := person(ok(r.AddUser(ctx, root, rest.NewUser{Name: "anna", Mail: "anna@example.org"}))(t))
		begin := func(channel, address string) (rest.PendingAddress, error) {
			return r.BeginOwnAddress(ctx, anna, channel, rest.NewAddress{Address: address})
		}
		if _, err := begin(rest.ChannelMail, "anna@example.org"); !fault.Is(err, fault.Conflict) {
			t.Errorf("where nothing is sent: %v", err)
		}
		sends(t, r)
		if _, err := begin(rest.ChannelMail, "anna@example.org"); !fault.Is(err, fault.Conflict) {
			t.Errorf("where no policy names it: %v", err)
		}
		if can := ok(r.CanHaveAddress(ctx, anna))(t); len(can) != 0 {
			t.Error(can)
		}
		p := ok(r.ShowPolicy(ctx, root, "default"))(t)
		ok(r.ChangePolicy(ctx, root, "default", p.Rev, rest.PolicyChange{Settings: json.RawMessage(`{"online_factors":["totp","mail","sms"]}`)}))(t)
		if can := ok(r.CanHaveAddress(ctx, anna))(t); !slices.Equal(can, []string{rest.ChannelMail, rest.ChannelSMS}) {
			t.Error(can)
		}
		if _, err := r.BeginOwnAddress(ctx, stale(anna), rest.ChannelSMS, rest.NewAddress{Address: "+49 170 1234567"}); !fault.Is(err, fault.StepUp) {
			t.Errorf("without a fresh factor: %v", err)
		}
		at := ok(begin(rest.ChannelSMS, "+49 170 1234567"))(t)
		if at.To != "+49…67" {
			t.Errorf("%+v", at)
		}
		m := last(t, r)
		code := aCode.FindString(m.Text)
		if m.To != "+491701234567" || code == "" {
			t.Fatalf("%+v", m)
		}
		confirm := func(a desk.Actor, channel, ticket, code string) (rest.Factor, error) {
			return r.ConfirmOwnAddress(ctx, a, channel, rest.ConfirmAddress{Ticket: ticket, Code: rest.HideText(code)})
		}
		ben := person(addUser(t, r, "ben", rest.RoleNone))
		for name, err := range map[string]error{
			"a wrong code":        failed(confirm(anna, rest.ChannelSMS, at.Ticket, "00000000")),
			"no code":             failed(confirm(anna, rest.ChannelSMS, at.Ticket, "")),
			"another channel":     failed(confirm(anna, rest.ChannelMail, at.Ticket, code)),
			"another person":      failed(confirm(ben, rest.ChannelSMS, at.Ticket, code)),
			"a ticket of nothing": failed(confirm(anna, rest.ChannelSMS, "abcd", code)),
		} {
			if err == nil {
				t.Errorf("%s is taken", name)
			}
		}
		// The try with no code and those with no ticket were not tries of this code.
		for range post.MaxTries - 1 {
			if _, err := confirm(anna, rest.ChannelSMS, at.Ticket, "00000000"); !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
		}
		if _, err := confirm(anna, rest.ChannelSMS, at.Ticket, code); err == nil {
			t.Error("the code was tried out and counts")
		}
		c.Advance(time.Minute)
		at = ok(begin(rest.ChannelSMS, "+49 170 1234567"))(t)
		code = aCode.FindString(last(t, r).Text)
		f := ok(confirm(anna, rest.ChannelSMS, at.Ticket, code))(t)
		if f.Kind != rest.ChannelSMS || !f.Weak || f.To != "+49…67" || f.ConfirmedAt.IsZero() {
			t.Errorf("%+v", f)
		}
		if _, err := confirm(anna, rest.ChannelSMS, at.Ticket, code); err == nil {
			t.Error("the same code again")
		}
		if m := last(t, r); m.To != "anna@example.org" || !strings.Contains(m.Text, "codes by text message") || !strings.Contains(m.Text, "your own account") {
			t.Errorf("she is told %+v", m)
		}
		// One that took too long.
		c.Advance(time.Minute)
		at = ok(begin(rest.ChannelMail, ""))(t)
		code = aCode.FindString(last(t, r).Text)
		c.Advance(5 * time.Minute)
		if _, err := confirm(anna, rest.ChannelMail, at.Ticket, code); !fault.Is(err, fault.Expired) {
			t.Errorf("too late: %v", err)
		}
	})
}

func failed[T any](_ T, err error) error { return err }

func TestAnEnrolmentCodeByMail(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		mail := rest.NewEnrolCode{Mail: true}
		ok(r.AddUser(ctx, root, rest.NewUser{Name: "ben"}))(t)
		u := ok(r.AddUser(ctx, root, rest.NewUser{Name: "anna", Mail: "anna@example.org"}))(t)
		if _, err := r.IssueEnrolCode(ctx, root, "anna", mail); !fault.Is(err, fault.Conflict) {
			t.Errorf("where nothing is sent: %v", err)
		}
		sends(t, r)
		if _, err := r.IssueEnrolCode(ctx, root, "ben", mail); !fault.Is(err, fault.Conflict) {
			t.Errorf("without an address: %v", err)
		}
		before := len(waiting(t, r))
		c := ok(r.IssueEnrolCode(ctx, root, "anna", mail))(t)
		if !c.Code.Empty() || c.MailedTo != "a…@example.org" {
			t.Errorf("%+v", c)
		}
		all := waiting(t, r)
		if len(all) != before+1 {
			t.Errorf("%d messages for one code", len(all)-before)
		}
		m := all[len(all)-1]
		typed := regexp.MustCompile(`code is (\S+)`).FindStringSubmatch(m.Text)
		if m.To != "anna@example.org" || typed == nil {
			t.Fatalf("%+v", m)
		}
		code := rest.HideText(typed[1])
		must(t, r.Store.Read(ctx, func(q *store.Queries) error {
			found, err := r.Keeper.FindEnrol(ctx, q, id(u.ID), code.Bytes, r.Clock.Now())
			if found == nil || rest.FactorPrefix+found.ID != c.ID {
				t.Errorf("the code of the mail is not the one that was issued")
			}
			return err
		}))
		rows, err := r.Store.Events(ctx, store.EventFilter{Types: []string{string(event.CodeIssued)}, Limit: 10})
		must(t, err)
		if len(rows) != 1 || strings.Contains(rows[0].Data, "anna@") || !strings.Contains(rows[0].Data, "a…@example.org") {
			t.Errorf("%+v", rows)
		}
		// One that she has typed herself gets none, until a code has confirmed it.
		_, err = r.ChangeMe(ctx, person(u), 0, rest.MeChange{Mail: ptr("eve@example.org")})
		must(t, err)
		if _, err := r.IssueEnrolCode(ctx, root, "anna", mail); !fault.Is(err, fault.Conflict) {
			t.Errorf("to an address that nobody answers for: %v", err)
		}
		ok(r.AddAddress(ctx, root, "anna", rest.ChannelMail, rest.NewAddress{Address: "eve@example.org"}))(t)
		ok(r.IssueEnrolCode(ctx, root, "anna", mail))(t)
	})
}

func TestTheQueueAtTheDesk(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		sends(t, r)
		ok(r.AddUser(ctx, root, rest.NewUser{Name: "anna", Mail: "anna@example.org"}))(t)
		for range 3 {
			ok(r.IssueEnrolCode(ctx, root, "anna", rest.NewEnrolCode{Mail: true}))(t)
		}
		q := ok(r.Queue(ctx, root, rest.ChannelMail))(t)
		if q != (rest.Queue{Waiting: 3}) {
			t.Errorf("%+v", q)
		}
		page := ok(r.ListMessages(ctx, root, rest.ChannelMail, rest.MessageWaiting, "", 2))(t)
		if len(page.Items) != 2 || page.Next == "" {
			t.Fatalf("%+v", page)
		}
		rest2 := ok(r.ListMessages(ctx, root, "", "", page.Next, 2))(t)
		if len(rest2.Items) != 1 || rest2.Next != "" {
			t.Errorf("%+v", rest2)
		}
		m := page.Items[0]
		if m.To != "a…@example.org" || m.User != "anna" || m.Purpose != "enrol" || !m.Again || m.State != rest.MessageWaiting {
			t.Errorf("%+v", m)
		}
		ok(r.RetryMessage(ctx, root, m.ID))(t)
		must(t, r.RemoveMessage(ctx, root, m.ID))
		if err := r.RemoveMessage(ctx, root, m.ID); !fault.Is(err, fault.NotFound) {
			t.Errorf("again: %v", err)
		}
		// One that is being sent can not be sent beside that.
		must(t, r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			row := strings.TrimPrefix(page.Items[1].ID, rest.MessagePrefix)
			_, err := tx.LeaseOutbox(ctx, db.LeaseOutboxParams{ID: row, Lease: "x", Until: clock.Micros(c.Now().Add(time.Minute)), At: clock.Micros(c.Now())})
			return err
		}))
		if _, err := r.RetryMessage(ctx, root, page.Items[1].ID); !fault.Is(err, fault.Conflict) {
			t.Errorf("while it is being sent: %v", err)
		}
		rows, err := r.Store.Events(ctx, store.EventFilter{Types: []string{string(event.PostRemoved), string(event.PostRetried)}, Limit: 10})
		must(t, err)
		if len(rows) != 2 {
			t.Errorf("%+v", rows)
		}
	})
}
