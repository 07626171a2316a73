// Package phonetest is a phone with Latchkey Authenticator in software, for tests and
// benchmarks: it enrols, polls, signs and answers as the app does, over the real door.
//
// It promises: it takes nothing from the server's side but the forms of the messages,
// so that a server that changes what is signed is noticed; and each part of an answer
// can be bent, for what must be refused.
//
// Rows: M3, S12.
package phonetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/push"
)

// Phone is one account on one phone.
type Phone struct {
	Base   string // https://HOST[:PORT]
	HTTP   *http.Client
	Clock  clock.Clock // the phone's
	Key    *ecdsa.PrivateKey
	Device string
	User   string
	TOTP   string // otpauth URI
	Told   push.Enrolled
}

// Error is how the door refused.
type Error struct {
	Status int
	push.ErrorBody
	Time int64 // unix milliseconds of the server
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

// Code is the code of a refusal; empty if err is none.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// New makes a phone without an account, with a key of its own.
func New(client *http.Client, c clock.Clock) (*Phone, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if c == nil {
		c = clock.Real
	}
	return &Phone{HTTP: client, Clock: c, Key: k}, nil
}

// Enrol makes a phone of the link that the portal shows.
func Enrol(ctx context.Context, client *http.Client, c clock.Clock, link, name string) (*Phone, error) {
	p, err := New(client, c)
	if err != nil {
		return nil, err
	}
	return p, p.Enrol(ctx, link, name)
}

// Split takes the link apart.
func Split(link string) (base, code string, err error) {
	u, err := url.Parse(link)
	if err != nil {
		return "", "", err
	}
	code, ok := strings.CutPrefix(u.Fragment, "e=")
	if !ok || u.Scheme != "https" {
		return "", "", fmt.Errorf("%q is no link of an enrolment", link)
	}
	return "https://" + u.Host, code, nil
}

// Public is the public half as it is sent.
func (p *Phone) Public() string {
	der, err := x509.MarshalPKIXPublicKey(&p.Key.PublicKey)
	if err != nil {
		panic(err)
	}
	return encode(der)
}

// Enrol brings the code of the link.
func (p *Phone) Enrol(ctx context.Context, link, name string) error {
	base, code, err := Split(link)
	if err != nil {
		return err
	}
	if p.Base == "" {
		p.Base = base
	}
	ask := push.EnrolAsk{
		Code: code, PublicKey: p.Public(), Proof: p.Sign("latchkey-enrol/1\n" + code + "\n" + p.Public()), Name: name, Platform: "Android", Standalone: true, Agent: "phonetest",
	}
	if err := p.call(ctx, "POST", "enrol", ask, &p.Told, false); err != nil {
		return err
	}
	p.Device, p.User, p.TOTP = p.Told.Device, p.Told.User, p.Told.TOTP
	return nil
}

// Sign signs as WebCrypto does: r and s, 32 octets each.
func (p *Phone) Sign(message string) string {
	h := sha256.Sum256([]byte(message))
	r, s, err := ecdsa.Sign(rand.Reader, p.Key, h[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return encode(sig)
}

// Call makes a signed call: path without the base, in a body (nil: none), out the answer
// (may be nil).
func (p *Phone) Call(ctx context.Context, method, path string, in, out any) error {
	return p.call(ctx, method, path, in, out, true)
}

func (p *Phone) call(ctx context.Context, method, path string, in, out any, signed bool) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, p.Base+push.Base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if signed {
		p.SignCall(r, body)
	}
	return p.Do(r, out)
}

// SignCall sets the headers of a signed call.
func (p *Phone) SignCall(r *http.Request, body []byte) {
	at := strconv.FormatInt(p.Clock.Now().Unix(), 10)
	h := sha256.Sum256(body)
	r.Header.Set("Latchkey-Device", p.Device)
	r.Header.Set("Latchkey-Time", at)
	r.Header.Set("Latchkey-Signature", p.Sign("latchkey-authenticator/1\n"+r.Method+"\n"+r.URL.RequestURI()+"\n"+at+"\n"+hex.EncodeToString(h[:])))
}

// Do sends a call and reads its answer.
func (p *Phone) Do(r *http.Request, out any) error {
	res, err := p.HTTP.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		e := &Error{Status: res.StatusCode}
		e.Time, _ = strconv.ParseInt(res.Header.Get("Latchkey-Time"), 10, 64)
		if err := json.Unmarshal(b, &e.ErrorBody); err != nil {
			return fmt.Errorf("%s: %q", res.Status, b)
		}
		return e
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// Requests polls, for at most wait; known are the ids that the phone knows.
func (p *Phone) Requests(ctx context.Context, wait time.Duration, known ...string) (push.Requests, error) {
	q := url.Values{"wait": {strconv.Itoa(int(wait / time.Second))}}
	if len(known) > 0 {
		q.Set("known", strings.Join(known, ","))
	}
	var out push.Requests
	err := p.Call(ctx, "GET", "requests?"+q.Encode(), nil, &out)
	return out, err
}

// Next waits until there is a request, for at most wait.
func (p *Phone) Next(ctx context.Context, wait time.Duration) (push.Request, push.Content, error) {
	until := time.Now().Add(wait)
	for {
		all, err := p.Requests(ctx, max(time.Until(until), 0))
		if err != nil {
			return push.Request{}, push.Content{}, err
		}
		if len(all.Requests) > 0 {
			var c push.Content
			r := all.Requests[0]
			return r, c, json.Unmarshal([]byte(r.Content), &c)
		}
		if time.Now().After(until) {
			return push.Request{}, push.Content{}, errors.New("no request came")
		}
	}
}

// Past is a request that is over, as long as it can be reported.
func (p *Phone) Past(ctx context.Context, id string) (r push.Request, err error) {
	return r, p.Call(ctx, "GET", "requests/"+url.PathEscape(id), nil, &r)
}

// Draft is the answer to a request, signed.
func (p *Phone) Draft(r push.Request, decision, number string) push.Answer {
	h := sha256.Sum256([]byte(r.Content))
	a := push.Answer{Decision: decision, Number: number, Nonce: r.Nonce, ContentHash: encode(h[:])}
	a.Signature = p.Sign(Message(r.ID, a))
	return a
}

// Message is what the answer signs.
func Message(id string, a push.Answer) string {
	return "latchkey-push/1\n" + id + "\n" + a.Decision + "\n" + a.Number + "\n" + a.Nonce + "\n" + a.ContentHash
}

// Send sends an answer as it is.
func (p *Phone) Send(ctx context.Context, id string, a push.Answer) (string, error) {
	var out push.Answered
	err := p.Call(ctx, "POST", "requests/"+id+"/answer", a, &out)
	return out.State, err
}

// Approve answers with the number that stands at the sign-in.
func (p *Phone) Approve(ctx context.Context, r push.Request, number string) error {
	return p.answer(ctx, r, push.Approve, number, push.StateApproved)
}

// Deny says no.
func (p *Phone) Deny(ctx context.Context, r push.Request) error {
	return p.answer(ctx, r, push.Deny, "", push.StateDenied)
}

// Report says "it wasn't me".
func (p *Phone) Report(ctx context.Context, r push.Request) error {
	return p.answer(ctx, r, push.Report, "", push.StateReported)
}

func (p *Phone) answer(ctx context.Context, r push.Request, decision, number, want string) error {
	state, err := p.Send(ctx, r.ID, p.Draft(r, decision, number))
	if err == nil && state != want {
		err = fmt.Errorf("the request is %s, want %s", state, want)
	}
	return err
}

// Account asks what the phone is to the server.
func (p *Phone) Account(ctx context.Context) (push.Account, error) {
	var out push.Account
	err := p.Call(ctx, "GET", "account", nil, &out)
	return out, err
}

// Subscribe names a push service.
func (p *Phone) Subscribe(ctx context.Context, s push.Subscription) error {
	return p.Call(ctx, "POST", "subscription", s, nil)
}

// Remove removes the account from the phone.
func (p *Phone) Remove(ctx context.Context) error { return p.Call(ctx, "DELETE", "account", nil, nil) }
