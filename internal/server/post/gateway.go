package post

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/server/outward"
	"latchkey/internal/text"
)

// maxReply bounds what is read of a gateway's answer.
const maxReply = 64 << 10

// sendSMS hands one message to the gateway.
func sendSMS(ctx context.Context, s SMS, m Message) Outcome {
	list, err := outward.Networks(s.Networks)
	if err != nil {
		return Outcome{ReasonSettings, "The networks of the gateway can not be read.", false}
	}
	roots, err := pool(s.CA)
	if err != nil {
		return Outcome{ReasonSettings, "The certificates of the gateway's CA can not be read.", false}
	}
	to, err := ParseNumber(m.To)
	if err != nil {
		return Outcome{ReasonSettings, "The number of the person is not right: " + err.Error() + ".", true}
	}
	m.To = to
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.Timeout)*time.Second)
	defer cancel()
	req, err := request(ctx, s, m)
	if err != nil {
		return Outcome{ReasonSettings, "The settings of the gateway can not be used: " + cleanSMS(err.Error(), s, m), false}
	}
	rules := outward.Rules{Private: list, Roots: roots, Proxy: s.Proxy}
	if len(list) > 0 {
		rules.Proxy = nil // it stands within a network of one's own
	}
	client := rules.Client()
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return judgeHTTP(ctx, err, s, m)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	if err != nil {
		return judgeHTTP(ctx, err, s, m)
	}
	return s.verdict(res.StatusCode, body, m)
}

// request makes the request of the template.
func request(ctx context.Context, s SMS, m Message) (*http.Request, error) {
	values := map[string]string{holdTo: m.To, holdFrom: s.From, holdText: m.Text, holdSecret: string(s.Secret.Reveal())}
	t, _, err := parseURL(s.URL, s.PlainHTTP)
	if err != nil {
		return nil, err
	}
	body, err := parseBody(s.Form, s.Body)
	if err != nil {
		return nil, err
	}
	var reader io.Reader
	if s.Form != NoBody {
		reader = strings.NewReader(body.fill(values, escapes[s.Form]))
	}
	req, err := http.NewRequestWithContext(ctx, s.Method, t.fill(values, escapeURL), reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "Latchkey")
	if s.Form != NoBody {
		req.Header.Set("Content-Type", contentTypes[s.Form])
	}
	for _, h := range s.Headers {
		v, err := Header(h).fill(values)
		if err != nil {
			return nil, err
		}
		req.Header.Set(h.Name, v)
	}
	if s.Username != "" {
		req.SetBasicAuth(s.Username, string(s.Secret.Reveal()))
	}
	return req, nil
}

// verdict judges the gateway's answer.
func (m SMS) verdict(status int, body []byte, to Message) Outcome {
	said := strconv.Itoa(status) + " " + cleanSMS(string(body), m, to)
	switch {
	case status >= 300 && status < 400:
		return Outcome{ReasonSettings, "The gateway sends us elsewhere, where messages are not sent to: " + said, false}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return Outcome{ReasonSignin, "The gateway does not let us in: " + said, false}
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		return Outcome{ReasonDeferred, "The gateway asks to come again: " + said, false}
	case status < 200 || status >= 400:
		return Outcome{ReasonRefused, "The gateway refuses this message: " + said, true}
	case m.Status != 0 && status != m.Status:
		return Outcome{ReasonRefused, "The gateway's answer is not the one that means success: " + said, true}
	case m.Contains != "" && !bytes.Contains(body, []byte(m.Contains)):
		return Outcome{ReasonRefused, "The gateway's answer does not hold what means success: " + said, true}
	case m.Field != "" && !hasField(body, m.Field, m.Value):
		return Outcome{ReasonRefused, "The gateway's answer does not have the field that means success: " + said, true}
	}
	return Outcome{}
}

// hasField looks for a field such as "messages.0.status" in JSON.
func hasField(body []byte, path, want string) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return false
	}
	for _, name := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(at) {
				return false
			}
			v = at[i]
		default:
			return false
		}
	}
	if want == "" {
		return v != nil
	}
	is := ""
	switch x := v.(type) {
	case string:
		is = x
	case json.Number:
		is = x.String()
	case bool:
		is = strconv.FormatBool(x)
	case nil:
		is = "null"
	default:
		return false
	}
	for _, w := range strings.Split(want, ",") {
		if is == strings.TrimSpace(w) {
			return true
		}
	}
	return false
}

func judgeHTTP(ctx context.Context, err error, s SMS, m Message) Outcome {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the other half is the address, which may hold secrets
	}
	said := cleanSMS(err.Error(), s, m)
	var (
		verify *tls.CertificateVerificationError
		ca     x509.UnknownAuthorityError
		name   x509.HostnameError
		record tls.RecordHeaderError
		alert  tls.AlertError
		dns    *net.DNSError
		netErr net.Error
	)
	switch {
	case errors.Is(err, outward.ErrPrivate):
		return Outcome{ReasonSettings, "The message was not sent: the gateway's name leads to a private address that is not listed under networks: " + said, false}
	case errors.As(err, &verify), errors.As(err, &ca), errors.As(err, &name), errors.As(err, &record), errors.As(err, &alert):
		return Outcome{ReasonTLS, "The gateway's certificate is not right: " + said, false}
	case errors.As(err, &dns):
		return Outcome{ReasonUnreachable, "The gateway's name is not known: " + said, false}
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return Outcome{ReasonUnreachable, "The gateway did not answer in time: " + said, false}
	}
	return Outcome{ReasonUnreachable, "The gateway can not be reached: " + said, false}
}

// cleanSMS is what the other side said, without what must not stand in a log: the
// message, the number and the secret, also where they are said back.
func cleanSMS(said string, s SMS, m Message) string {
	said = text.CleanN(said, 4*maxAnswer)
	for _, hidden := range []string{string(s.Secret.Reveal()), m.Text, url.QueryEscape(m.Text), escapeJSON(m.Text)} {
		said = without(said, hidden)
	}
	for _, code := range digits(m.Text) {
		said = strings.ReplaceAll(said, code, "…")
	}
	mask := MaskNumber(m.To)
	said = strings.ReplaceAll(said, m.To, mask)
	return masked(said, strings.TrimPrefix(m.To, "+"), mask)
}

// digits are the runs of six digits and more in a text: codes.
func digits(s string) []string {
	runs := strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	return slices.DeleteFunc(runs, func(d string) bool { return len(d) < 6 })
}
