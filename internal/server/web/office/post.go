package office

import (
	"fmt"
	"strconv"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// The pages of mails and text messages (M6): settings, a message for trying out, and the
// queue.

// postPage is what such a page shows.
type postPage struct {
	channel        string
	mail           rest.MailSettings
	sms            rest.SMSSettings
	headers        string // as typed
	nets, prefixes string
	tag            string
	own            bool // may change settings
	change         bool // may change the queue
	faults         map[string]string

	to       string // for trying out
	toFaults map[string]string
	tried    *rest.Tested

	queue    rest.Queue
	messages rest.Page[rest.Message]
}

func (p postPage) path(tail string) string { return "/console/settings/" + p.channel + tail }

func postFrame(channel string) ui.Page {
	p := ui.Page{
		Title: words.PostMailTitle, Section: "settings", Lead: words.PostMailLead, Wide: true,
		Crumbs: []ui.Crumb{{Text: words.SettingsTitle, Path: "/console/settings"}},
		Curl:   &ui.Curl{Method: "PATCH", Path: rest.Base + "/settings/mail", Body: map[string]any{"on": true, "host": "mail.example.org", "from": "latchkey@example.org"}},
	}
	if channel == rest.ChannelSMS {
		p.Title, p.Lead = words.PostSMSTitle, words.PostSMSLead
		p.Curl = &ui.Curl{Method: "PATCH", Path: rest.Base + "/settings/sms", Body: map[string]any{"on": true, "url": "https://sms.example.org/send"}}
	}
	return p
}

// readPost reads what the page shows.
func readPost(r *ui.Request, channel string) (postPage, error) {
	a := r.Actor()
	p := postPage{channel: channel, own: a.Can("own"), change: a.Can("change")}
	var err error
	if channel == rest.ChannelSMS {
		s, tag, e := r.Desk.SMSSettings(r.Context(), a)
		p.sms, p.tag, err = s, string(tag), e
		p.headers, p.nets, p.prefixes = headerLines(s.Headers), strings.Join(s.Networks, "\n"), strings.Join(s.Prefixes, "\n")
	} else {
		s, tag, e := r.Desk.MailSettings(r.Context(), a)
		p.mail, p.tag, err = s, string(tag), e
	}
	if err != nil {
		return p, err
	}
	if p.queue, err = r.Desk.Queue(r.Context(), a, channel); err != nil {
		return p, err
	}
	p.messages, err = r.Desk.ListMessages(r.Context(), a, channel, "", r.URL.Query().Get("after"), 0)
	return p, err
}

func headerLines(list []rest.SMSHeader) string {
	var b strings.Builder
	for _, h := range list {
		fmt.Fprintf(&b, "%s: %s\n", h.Name, h.Value)
	}
	return strings.TrimRight(b.String(), "\n")
}

func lines(s string) []string {
	out := []string{}
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func showPost(channel string) func(*ui.Request) error {
	return func(r *ui.Request) error {
		p, err := readPost(r, channel)
		if err != nil {
			return err
		}
		return r.Show(postFrame(channel), postBody(p))
	}
}

// number reads a number of a form; what is none becomes one that is out of range.
func number(r *ui.Request, name string) int {
	n, err := strconv.Atoi(strings.TrimSpace(r.Value(name)))
	if err != nil {
		return -1
	}
	return n
}

// kept is a secret of a form: empty leaves the one that is kept, unless it is to be
// forgotten.
func kept(r *ui.Request, name string) *rest.Secret {
	typed := r.Value(name)
	switch {
	case typed != "":
		s := rest.Hide(secret.FromString(typed))
		return &s
	case r.Value("forget") != "":
		return &rest.Secret{}
	}
	return nil
}

func changeMail(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	s := rest.MailSettings{
		On: r.Value("on") != "", Host: strings.TrimSpace(r.Value("host")), Port: number(r, "port"), Security: r.Value("security"), CA: r.Value("ca"), Auth: r.Value("auth"),
		Username: r.Value("username"), From: strings.TrimSpace(r.Value("from")), FromName: r.Value("from_name"), Hello: strings.TrimSpace(r.Value("hello")),
		Timeout: number(r, "timeout"), CodeMinutes: number(r, "code_minutes"), Notices: r.Value("notices") != "",
	}
	_, _, err := r.Desk.ChangeMailSettings(r.Context(), r.Actor(), r.Value("tag"), rest.MailChange{
		On: &s.On, Host: &s.Host, Port: &s.Port, Security: &s.Security, CA: &s.CA, Auth: &s.Auth, Username: &s.Username, Password: kept(r, "password"), From: &s.From,
		FromName: &s.FromName, Hello: &s.Hello, Timeout: &s.Timeout, CodeMinutes: &s.CodeMinutes, Notices: &s.Notices,
	})
	return savedPost(r, rest.ChannelMail, err, func(p *postPage) {
		s.HasPassword = p.mail.HasPassword
		p.mail = s
	})
}

func changeSMS(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	s := rest.SMSSettings{
		On: r.Value("on") != "", URL: strings.TrimSpace(r.Value("url")), Method: r.Value("method"), Form: r.Value("form"), Body: r.Value("body"), Username: r.Value("username"),
		From: r.Value("from"), CA: r.Value("ca"), Networks: lines(r.Value("networks")), PlainHTTP: r.Value("plain_http") != "", Status: number(r, "status"),
		Contains: r.Value("contains"), Field: strings.TrimSpace(r.Value("field")), Value: strings.TrimSpace(r.Value("value")), Timeout: number(r, "timeout"),
		CodeMinutes: number(r, "code_minutes"), PerMinute: number(r, "per_minute"), PerDay: number(r, "per_day"), Prefixes: lines(r.Value("prefixes")), Headers: []rest.SMSHeader{},
	}
	for _, line := range lines(r.Value("headers")) {
		name, value, _ := strings.Cut(line, ":")
		s.Headers = append(s.Headers, rest.SMSHeader{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	_, _, err := r.Desk.ChangeSMSSettings(r.Context(), r.Actor(), r.Value("tag"), rest.SMSChange{
		On: &s.On, URL: &s.URL, Method: &s.Method, Form: &s.Form, Body: &s.Body, Headers: &s.Headers, Username: &s.Username, Secret: kept(r, "secret"), From: &s.From, CA: &s.CA,
		Networks: &s.Networks, PlainHTTP: &s.PlainHTTP, Status: &s.Status, Contains: &s.Contains, Field: &s.Field, Value: &s.Value, Timeout: &s.Timeout,
		CodeMinutes: &s.CodeMinutes, PerMinute: &s.PerMinute, PerDay: &s.PerDay, Prefixes: &s.Prefixes,
	})
	return savedPost(r, rest.ChannelSMS, err, func(p *postPage) {
		s.HasSecret = p.sms.HasSecret
		p.sms, p.headers, p.nets, p.prefixes = s, r.Value("headers"), r.Value("networks"), r.Value("prefixes")
	})
}

// savedPost goes on after a change, or shows what was typed again.
func savedPost(r *ui.Request, channel string, err error, typed func(*postPage)) error {
	if err == nil {
		return r.Go("/console/settings/"+channel, words.PostSaved)
	}
	if !ui.Refill(err) {
		return err
	}
	p, e := readPost(r, channel)
	if e != nil {
		return e
	}
	typed(&p)
	p.faults = ui.Faults(err)
	return r.ShowStatus(fault.Of(err).Status(), postFrame(channel), postBody(p))
}

func tryPost(channel string) func(*ui.Request) error {
	return func(r *ui.Request) error {
		if _, err := r.Values(); err != nil {
			return err
		}
		to := r.Value("to")
		t, err := r.Desk.TestChannel(r.Context(), r.Actor(), channel, rest.TestMessage{To: to})
		if err != nil && !ui.Refill(err) {
			return err
		}
		p, e := readPost(r, channel)
		if e != nil {
			return e
		}
		if p.to = to; err != nil {
			p.toFaults = ui.Faults(err)
			return r.ShowStatus(fault.Of(err).Status(), postFrame(channel), postBody(p))
		}
		p.tried = &t
		return r.Show(postFrame(channel), postBody(p))
	}
}

// backTo is the page of a message's channel.
func backTo(r *ui.Request) string {
	if r.Value("channel") == rest.ChannelSMS {
		return "/console/settings/sms#queue"
	}
	return "/console/settings/mail#queue"
}

func retryMessage(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	if _, err := r.Desk.RetryMessage(r.Context(), r.Actor(), r.PathValue("message")); err != nil {
		return err
	}
	return r.Go(backTo(r), words.PostRetried)
}

func removeMessage(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	if err := r.Desk.RemoveMessage(r.Context(), r.Actor(), r.PathValue("message")); err != nil {
		return err
	}
	return r.Go(backTo(r), words.PostRemoved)
}

var mailLabels = map[string]string{
	"on": words.PostOn, "host": words.PostHost, "port": words.PostPort, "security": words.PostSecurity, "ca": words.PostCA, "auth": words.PostAuth, "username": words.PostUser,
	"password": words.PostPassword, "from": words.PostFrom, "from_name": words.PostFromName, "hello": words.PostHello, "timeout": words.PostTimeout, "code_minutes": words.PostMinutes,
}

var smsLabels = map[string]string{
	"url": words.PostURL, "method": words.PostMethod, "form": words.PostForm, "body": words.PostBody, "headers": words.PostHeaders, "username": words.PostUser, "secret": words.PostSecret,
	"from": words.PostSMSFrom, "ca": words.PostCA, "networks": words.PostNetworks, "status": words.PostStatus, "contains": words.PostContains, "field": words.PostField,
	"value": words.PostValue, "timeout": words.PostTimeout, "code_minutes": words.PostMinutes, "per_minute": words.PostPerMinute, "per_day": words.PostPerDay, "prefixes": words.PostPrefixes,
}

func yesNo(b bool) string {
	if b {
		return words.PostYes
	}
	return words.PostNo
}

// stateKind is the colour beside the word.
func stateKind(state string) string {
	switch state {
	case rest.MessageSent:
		return ui.OK
	case rest.MessageFailed:
		return ui.Bad
	}
	return ui.Info
}

// securities, auths, verbs and bodies are what may be chosen.
var (
	securities = []ui.Option{{Value: rest.MailStartTLS, Label: words.PostStartTLS}, {Value: rest.MailTLS, Label: words.PostTLS}, {Value: rest.MailPlain, Label: words.PostPlain}}
	auths      = []ui.Option{{Value: "", Label: words.PostAuthBest}, {Value: "plain", Label: "PLAIN"}, {Value: "login", Label: "LOGIN"}, {Value: "cram-md5", Label: "CRAM-MD5"}, {Value: "scram-sha-256", Label: "SCRAM-SHA-256"}}
	verbs      = []ui.Option{{Value: "POST", Label: "POST"}, {Value: "PUT", Label: "PUT"}, {Value: "GET", Label: "GET"}}
	bodies     = []ui.Option{
		{Value: "form", Label: words.PostFormForm},
		{Value: "json", Label: words.PostFormJSON},
		{Value: "xml", Label: words.PostFormXML},
		{Value: "text", Label: words.PostFormText},
		{Value: "none", Label: words.PostFormNone},
	}
)

// next is the address of the queue's next page; empty on the last.
func next(p postPage) string {
	if p.messages.Next == "" {
		return ""
	}
	return p.path("?after=" + p.messages.Next + "#queue")
}
