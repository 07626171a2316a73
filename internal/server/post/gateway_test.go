package post_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/post"
)

// gateway is an HTTP gateway for text messages.
func gateway(t testing.TB, h http.HandlerFunc) post.SMS {
	t.Helper()
	cert, ca := certificate(t, time.Now().Add(time.Hour), "localhost")
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	m := post.NewSMS()
	u, _ := url.Parse(s.URL)
	m.On, m.URL, m.CA, m.Networks, m.From, m.Timeout = true, "https://localhost:"+u.Port()+"/2010/Accounts/AC1/Messages.json", ca, []string{"127.0.0.0/8", "::1"}, "Latchkey", 5
	return m
}

var sms = post.Message{To: "+49 170 1234567", Text: "12345678 is your code & nothing \"else\" = {to}\nÄ"}

func TestATextMessageGoesOut(t *testing.T) {
	t.Run("as a form with basic authentication, the ready template", func(t *testing.T) {
		var form url.Values
		m := gateway(t, func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if user != "AC1" || password != "hush hush" || r.Method != "POST" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_ = r.ParseForm()
			form = r.PostForm
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"sid":"SM1","status":"queued"}`)
		})
		m.Username, m.Secret = "AC1", secret.FromString("hush hush")
		m.Status, m.Field, m.Value = 201, "status", "queued, accepted"
		if err := m.Judge(); err != nil {
			t.Fatal(err)
		}
		if out := post.SendSMS(t.Context(), m, sms); out != (post.Outcome{}) {
			t.Fatal(out)
		}
		if len(form) != 3 || form.Get("To") != "+491701234567" || form.Get("From") != "Latchkey" || form.Get("Body") != sms.Text {
			t.Errorf("%v", form)
		}
	})
	t.Run("as JSON with a header", func(t *testing.T) {
		var body map[string]any
		m := gateway(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer s3cret" {
				w.WriteHeader(http.StatusForbidden)
			}
			_ = json.NewDecoder(r.Body).Decode(&body)
			fmt.Fprint(w, `{"messages":[{"status":0}]}`)
		})
		m.Form, m.Body = post.JSONBody, `{"messages":[{"to":"{to}","text":"{text}"}],"from":"{from}"}`
		m.Headers = []rest.SMSHeader{{Name: "Authorization", Value: "Bearer {secret}"}}
		m.Secret = secret.FromString("s3cret")
		m.Field, m.Value = "messages.0.status", "0"
		if err := m.Judge(); err != nil {
			t.Fatal(err)
		}
		if out := post.SendSMS(t.Context(), m, sms); out != (post.Outcome{}) {
			t.Fatal(out)
		}
		first := body["messages"].([]any)[0].(map[string]any)
		if first["to"] != "+491701234567" || first["text"] != sms.Text || body["from"] != "Latchkey" {
			t.Errorf("%v", body)
		}
	})
	t.Run("by GET", func(t *testing.T) {
		var q url.Values
		m := gateway(t, func(w http.ResponseWriter, r *http.Request) { q = r.URL.Query(); fmt.Fprint(w, "OK: 1") })
		m.Method, m.Form, m.Body = "GET", post.NoBody, ""
		m.URL = strings.Replace(m.URL, "/2010/Accounts/AC1/Messages.json", "/send/{from}?n={to}&t={text}&key={secret}", 1)
		m.Secret, m.Contains = secret.FromString("k&y"), "OK"
		if err := m.Judge(); err != nil {
			t.Fatal(err)
		}
		if out := post.SendSMS(t.Context(), m, sms); out != (post.Outcome{}) {
			t.Fatal(out)
		}
		if q.Get("n") != "+491701234567" || q.Get("t") != sms.Text || q.Get("key") != "k&y" || len(q) != 3 {
			t.Errorf("%v", q)
		}
	})
}

func TestATextMessageDoesNotGoOut(t *testing.T) {
	for name, c := range map[string]struct {
		h         http.HandlerFunc
		change    func(m *post.SMS)
		reason    string
		permanent bool
	}{
		"when the gateway refuses it": {h: func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			w.WriteHeader(400)
			fmt.Fprintf(w, "bad number %s in %q for hush hush", r.PostForm.Get("To"), r.PostForm.Get("Body"))
		}, change: func(m *post.SMS) { m.Username, m.Secret = "x", secret.FromString("hush hush") }, reason: post.ReasonRefused, permanent: true},
		"when it does not let us in":        {h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, reason: post.ReasonSignin},
		"when it is down":                   {h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, reason: post.ReasonDeferred},
		"when there were too many":          {h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, reason: post.ReasonDeferred},
		"when the answer is another status": {h: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) }, change: func(m *post.SMS) { m.Status = 201 }, reason: post.ReasonRefused, permanent: true},
		"when the answer lacks a word":      {h: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ERR") }, change: func(m *post.SMS) { m.Contains = "OK" }, reason: post.ReasonRefused, permanent: true},
		"when a field is another": {
			h: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"failed"}`) }, change: func(m *post.SMS) { m.Field, m.Value = "status", "sent" },
			reason: post.ReasonRefused, permanent: true,
		},
		"when a field is missing": {
			h: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":{"x":1}}`) }, change: func(m *post.SMS) { m.Field, m.Value = "status.y", "" },
			reason: post.ReasonRefused, permanent: true,
		},
		"when it is slow": {h: func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(3 * time.Second):
			}
		}, change: func(m *post.SMS) { m.Timeout = 1 }, reason: post.ReasonUnreachable},
		"when the answer never ends": {h: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, change: func(m *post.SMS) { m.Timeout = 1 }, reason: post.ReasonUnreachable},
		"when it hangs up":              {h: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, reason: post.ReasonUnreachable},
		"to a certificate nobody knows": {change: func(m *post.SMS) { m.CA = "" }, reason: post.ReasonTLS},
		"to a private address":          {change: func(m *post.SMS) { m.Networks = nil }, reason: post.ReasonSettings},
		"to another private address":    {change: func(m *post.SMS) { m.Networks = []string{"10.0.0.0/8"} }, reason: post.ReasonSettings},
		"over plain HTTP":               {change: func(m *post.SMS) { m.URL = strings.Replace(m.URL, "https", "http", 1) }, reason: post.ReasonSettings},
		"to a name that nobody has":     {change: func(m *post.SMS) { m.URL = "https://nobody.invalid/" }, reason: post.ReasonUnreachable},
		"to a number that is none":      {change: func(m *post.SMS) { m.Contains = "number" }, reason: post.ReasonSettings, permanent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			m := gateway(t, func(w http.ResponseWriter, r *http.Request) {
				asked++
				if c.h != nil {
					c.h(w, r)
				}
			})
			if c.change != nil {
				c.change(&m)
			}
			to := sms
			if m.Contains == "number" {
				to.To = "0170 1234567"
			}
			begun := time.Now()
			out := post.SendSMS(t.Context(), m, to)
			if out.Reason != c.reason || out.Permanent != c.permanent {
				t.Errorf("%+v, want %s", out, c.reason)
			}
			if took := time.Since(begun); took > 6*time.Second {
				t.Errorf("it took %s", took)
			}
			if c.h == nil && asked != 0 {
				t.Error("the gateway was asked")
			}
			for _, bad := range []string{"1701234567", "12345678", "hush hush"} {
				if strings.Contains(out.Detail, bad) {
					t.Errorf("the reason says %q: %s", bad, out.Detail)
				}
			}
		})
	}
}

// TestNobodyIsSentElsewhere: a redirection is not followed, whatever its kind.
func TestNobodyIsSentElsewhere(t *testing.T) {
	there := 0
	other := gateway(t, func(http.ResponseWriter, *http.Request) { there++ })
	for _, status := range []int{301, 302, 303, 307, 308} {
		m := gateway(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, status) })
		if out := post.SendSMS(t.Context(), m, sms); out.Reason != post.ReasonSettings {
			t.Errorf("%d: %+v", status, out)
		}
	}
	if there != 0 {
		t.Errorf("%d messages went elsewhere", there)
	}
}

// TestACodeByTextMessage goes from the question to the answer through the queue.
func TestACodeByTextMessage(t *testing.T) {
	o := open(t, fixed{start})
	var got []string
	m := gateway(t, func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = append(got, r.PostForm.Get("To")+" "+r.PostForm.Get("Body"))
	})
	o.sms(m)
	o.address(o.user, rest.ChannelSMS, "+491701234567")
	sent, err := o.ask(rest.ChannelSMS, "t", start)
	if err != nil || !strings.Contains(sent.Tell, "+49…67") {
		t.Fatal(sent, err)
	}
	o.step(rest.ChannelSMS)
	if len(got) != 1 || !strings.HasPrefix(got[0], "+491701234567 ") || len(got[0]) > 160+14 {
		t.Fatalf("%q", got)
	}
	if v := o.answer(rest.ChannelSMS, "t", codeIn(t, strings.TrimPrefix(got[0], "+491701234567 ")), start); !v.OK() {
		t.Errorf("%+v", v)
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ form, body string }{
		"an unknown placeholder":           {post.FormBody, "To={number}"},
		"a number without quotation marks": {post.JSONBody, `{"to":{to}}`},
		"a key":                            {post.JSONBody, `{"{to}":"x"}`},
		"no JSON":                          {post.JSONBody, `To={to}`},
		"an element's name":                {post.XMLBody, `<m><{to}/></m>`},
		"an attribute without marks":       {post.XMLBody, `<m to={to}/>`},
		"a comment":                        {post.XMLBody, `<m><!-- {to} --></m>`},
		"two documents":                    {post.XMLBody, `<m>{to}</m><m>{text}</m>`},
		"a document type":                  {post.XMLBody, `<!DOCTYPE m [<!ENTITY x "y">]><m>{to}</m>`},
		"an unknown form":                  {"yaml", "to: {to}"},
		"a body where there is none":       {post.NoBody, "{to}"},
		"too much":                         {post.TextBody, strings.Repeat("x", 5000)},
	} {
		if _, err := post.ParseBody(c.form, c.body); err == nil {
			t.Errorf("%s is taken: %s", name, c.body)
		}
	}
	for _, u := range []string{
		"", "sms.example.org", "ftp://sms.example.org/", "http://sms.example.org/", "https://{to}.example.org/", "https://sms.example.org:{to}/", "https://{to}@sms.example.org/",
		"https://user:password@sms.example.org/", "https://sms.example.org/#x", "https:{to}", "https://sms.example.org/{nothing}", "{to}", "https:///x", "https://sms.example.org{text}/",
	} {
		if _, _, err := post.ParseURL(u, false); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	field := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	sms := func() post.SMS { m := post.NewSMS(); m.On, m.URL = true, "https://sms.example.org/"; return m }
	if err := sms().Judge(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(m *post.SMS){
		"url":        func(m *post.SMS) { m.URL = "https://192.168.1.1/" },
		"form":       func(m *post.SMS) { m.Method = "GET" },
		"{text}":     func(m *post.SMS) { m.Body = "To={to}" },
		"headers":    func(m *post.SMS) { m.Headers = []rest.SMSHeader{{Name: "Host", Value: "x"}} },
		"printable":  func(m *post.SMS) { m.Headers = []rest.SMSHeader{{Name: "X", Value: "a\r\nB: c"}} },
		"no name":    func(m *post.SMS) { m.Headers = []rest.SMSHeader{{Name: "X Y", Value: "a"}} },
		"{text} is":  func(m *post.SMS) { m.Headers = []rest.SMSHeader{{Name: "X", Value: "{text}"}} },
		"secret":     func(m *post.SMS) { m.Username = "x" },
		"networks":   func(m *post.SMS) { m.Networks = []string{"x"} },
		"status":     func(m *post.SMS) { m.Status = 302 },
		"field":      func(m *post.SMS) { m.Value = "x" },
		"timeout":    func(m *post.SMS) { m.Timeout = 1 },
		"per_minute": func(m *post.SMS) { m.PerMinute = 0 },
		"per_day":    func(m *post.SMS) { m.PerDay = 0 },
		"prefixes":   func(m *post.SMS) { m.Prefixes = []string{"49"} },
		"ca":         func(m *post.SMS) { m.CA = "x" },
	} {
		m := sms()
		change(&m)
		if err := m.Judge(); !strings.Contains(field(err), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	mail := func() post.Mail {
		m := post.NewMail()
		m.On, m.Host, m.From = true, "mail.example.org", "a@example.org"
		return m
	}
	if err := mail().Judge(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(m *post.Mail){
		"host":         func(m *post.Mail) { m.Host = "a b" },
		"port":         func(m *post.Mail) { m.Port = 70000 },
		"security":     func(m *post.Mail) { m.Security = "none" },
		"\"maybe\"":    func(m *post.Mail) { m.Security = "maybe" },
		"from":         func(m *post.Mail) { m.From = "a" },
		"from_name":    func(m *post.Mail) { m.FromName = "a\r\nb" },
		"quotation":    func(m *post.Mail) { m.FromName = "a\" <x@y>" },
		"password":     func(m *post.Mail) { m.Username = "x" },
		"control":      func(m *post.Mail) { m.Username, m.Password = "x", secret.FromString("a\nb") },
		"auth":         func(m *post.Mail) { m.Auth = "ntlm" },
		"hello":        func(m *post.Mail) { m.Hello = "a\r\nb" },
		"timeout":      func(m *post.Mail) { m.Timeout = 500 },
		"code_minutes": func(m *post.Mail) { m.CodeMinutes = 60 },
		"private key":  func(m *post.Mail) { m.CA = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" },
	} {
		m := mail()
		change(&m)
		if err := m.Judge(); !strings.Contains(field(err), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"+49 170 1234567": "+491701234567", " +1 (555) 123-4567 ": "+15551234567", "+49/170.1234567": "+491701234567",
		"": "", "0170 1234567": "", "0049 170 1234567": "", "+0170 1234567": "", "+49": "", "+1234567890123456": "", "+49 170 123456x": "", "+49\n1701234567": "", "+٤٩١٧٠١٢٣٤٥٦٧": "", "++491701234567": "",
	} {
		got, err := post.ParseNumber(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if m := post.MaskNumber("+491701234567"); m != "+49…67" {
		t.Error(m)
	}
	if m := post.MaskMail("ä@example.org"); m != "ä…@example.org" {
		t.Error(m)
	}
}

// FuzzParseMail: what is taken is one address, with nothing that a mail program or a
// server could take for more, and reading it again changes nothing.
func FuzzParseMail(f *testing.F) {
	for _, s := range []string{"anna@example.org", "a.b+c@x.y", "a@b\r\nBcc: c", "\"a b\"@c", "a@[1.2.3.4]", "é@x", "a@b@c", "<a@b>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := post.ParseMail(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(got, " \t\r\n<>,;:()[]\\\"\x00") || strings.Count(got, "@") != 1 || len(got) > 254 {
			t.Errorf("%q is taken as %q", s, got)
		}
		if again, err := post.ParseMail(got); err != nil || again != got {
			t.Errorf("%q, again %q, %v", got, again, err)
		}
		if m := post.NewMail(); true {
			m.From = "a@example.org"
			if _, problem := post.Compose(m, post.Message{To: got, Subject: s, Text: s}, time.Now()); problem != "" {
				t.Errorf("%q can not be sent to: %s", got, problem)
			}
		}
	})
}

// FuzzParseNumber: what is taken is E.164.
func FuzzParseNumber(f *testing.F) {
	for _, s := range []string{"+49 170 1234567", "0049", "+1(555)", "+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := post.ParseNumber(s)
		if err != nil {
			return
		}
		if len(got) < 8 || len(got) > 16 || got[0] != '+' || got[1] == '0' || strings.Trim(got[1:], "0123456789") != "" {
			t.Errorf("%q is taken as %q", s, got)
		}
	})
}

// FuzzTemplate: whatever the template and the value, a body that is taken keeps its form,
// and an address keeps its host.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"To={to}&Body={text}", `{"to":"{to}","t":["{text}"]}`, `<m to="{to}">{text}</m>`, "https://x.org/{to}?a={text}", "{}{to}{{text}}", `{"a":"\{to}"}`} {
		for _, v := range []string{"+49", "\"}],", "&a=b", "</m><m>", "\r\n", "é", "\xff", "../../x", "%2f"} {
			f.Add(s, v)
		}
	}
	f.Fuzz(func(t *testing.T, s, v string) {
		values := func(v string) map[string]string { return map[string]string{"to": v, "from": v, "text": v, "secret": v} }
		if out, err := post.Fill(post.FormBody, s, values(v)); err == nil {
			plain, _ := post.Fill(post.FormBody, s, values("x"))
			if strings.Count(out, "&") != strings.Count(plain, "&") || strings.Count(out, "=") != strings.Count(plain, "=") || strings.ContainsAny(strings.TrimLeft(out, s), "\x00") && !strings.Contains(s, "\x00") {
				t.Errorf("form: %q with %q: %q", s, v, out)
			}
		}
		if out, err := post.Fill(post.JSONBody, s, values(v)); err == nil && !json.Valid([]byte(out)) {
			t.Errorf("JSON: %q with %q: %q", s, v, out)
		}
		if out, err := post.Fill(post.XMLBody, s, values(v)); err == nil {
			d := xml.NewDecoder(strings.NewReader(out))
			n := 0
			for {
				tok, err := d.Token()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("XML: %q with %q: %q: %v", s, v, out, err)
				}
				if _, ok := tok.(xml.StartElement); ok {
					n++
				}
			}
			if plain, _ := post.Fill(post.XMLBody, s, values("x")); strings.Count(out, "<") != strings.Count(plain, "<") {
				t.Errorf("XML: %q with %q: %q", s, v, out)
			}
		}
		if out, err := post.FillURL(s, values(v)); err == nil {
			u, err := url.Parse(out)
			plain, _ := post.FillURL(s, values("x"))
			p, _ := url.Parse(plain)
			if err != nil || u.Host != p.Host || u.Scheme != p.Scheme || len(u.Query()) > strings.Count(plain, "&")+1 {
				t.Errorf("address: %q with %q: %q, %v", s, v, out, err)
			}
		}
	})
}

// A proxy gets messages for the Internet, and can not read them; a gateway of one's own
// network is met straight.
func TestATextMessageGoesThroughTheProxy(t *testing.T) {
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	m := gateway(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
	m.Proxy, _ = url.Parse(proxy.URL)
	if out := post.SendSMS(t.Context(), m, sms); out != (post.Outcome{}) || len(asked) != 0 {
		t.Errorf("to a gateway of one's own network: %+v, the proxy was asked %d times", out, len(asked))
	}
	m.Networks, m.URL = nil, "https://gateway.example.org/messages"
	if out := post.SendSMS(t.Context(), m, sms); out.Reason != post.ReasonUnreachable || len(asked) != 1 || <-asked != "CONNECT gateway.example.org:443" {
		t.Errorf("to the Internet: %+v", out)
	}
	m.PlainHTTP, m.URL = true, strings.Replace(m.URL, "https", "http", 1)
	if out := post.SendSMS(t.Context(), m, sms); out.Reason == "" || len(asked) != 0 {
		t.Errorf("over plain HTTP: %+v, the proxy was asked %d times", out, len(asked))
	}
	m.URL = proxy.URL // which is met, but not so
	if out := post.SendSMS(t.Context(), m, sms); out.Reason != post.ReasonSettings || len(asked) != 0 {
		t.Errorf("to the proxy itself: %+v, it was asked %d times", out, len(asked))
	}
	m.PlainHTTP = false
	for _, host := range []string{"127.1", "2130706433", "0x7f.1", "vault.internal", "nas.local", "printer", "localhost"} {
		m.URL = "https://" + host + ":8200/messages"
		if out := post.SendSMS(t.Context(), m, sms); out.Reason != post.ReasonSettings || len(asked) != 0 {
			t.Errorf("to %s: %+v, the proxy was asked %d times", host, out, len(asked))
		}
		if err := m.Judge(); err == nil || !strings.Contains(err.Error(), "not public") {
			t.Errorf("%s is saved: %v", host, err)
		}
	}
}
