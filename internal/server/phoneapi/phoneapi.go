// Package phoneapi is the door for phones at the people's listener: /authenticator/v1/,
// JSON, for Latchkey Authenticator and nobody else.
//
// It promises: every call but the enrolment is signed by the phone's own key, over
// method, path, time and body, and the time is near this server's; nothing is done for a
// phone that was removed, marked as lost, or whose owner is disabled; bodies, times, the
// number of calls of a network and of a phone, and the polls that hang are bounded;
// there are no cookies, so that a page of somebody else can do nothing here; and no
// answer holds more than it must.
//
// Rows: M3, S12.
package phoneapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/push"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/turnstile"
)

// Desk is what is written down by the desk, with its rights and events.
type Desk interface {
	// EnrolPhone makes the phone of a code.
	EnrolPhone(ctx context.Context, address string, in push.EnrolAsk) (push.Enrolled, error)
	// RenamePhone gives a phone another name, and RemovePhone removes it, as it wishes itself.
	RenamePhone(ctx context.Context, d push.Device, in push.Rename) error
	RemovePhone(ctx context.Context, d push.Device) error
}

// Deps is what the door stands on. All fields but Log, Rate and PerPhone are required.
type Deps struct {
	Push  *push.Service
	Desk  Desk
	Store *store.Store
	Clock clock.Clock
	Log   *slog.Logger
	// Rate bounds the calls of a network, PerPhone those of a phone; zero values are the
	// defaults.
	Rate, PerPhone rate.Rate
}

// The bounds.
const (
	maxBody    = 32 << 10
	answerTime = 10 * time.Second
	// pollsPerPhone hang at once: one, and one that was cut without telling.
	pollsPerPhone = 2
	// maxPolls hang at once in all.
	maxPolls = 50_000
	// maxKnown bounds the ids that a poll names.
	maxKnown = 20
)

var (
	defaultRate  = rate.Rate{PerSecond: 50, Burst: 300}
	defaultPhone = rate.Rate{PerSecond: 2, Burst: 30}
	enrolRate    = rate.Rate{PerSecond: 0.2, Burst: 20}
)

// Door is the handler.
type Door struct {
	Deps
	mux      *http.ServeMux
	networks *rate.Keyed
	phones   *rate.Keyed
	enrols   *rate.Keyed
	stop     chan struct{}
	once     sync.Once

	mu    sync.Mutex
	polls map[string]int
	all   int
}

// New makes the door.
func New(d Deps) *Door {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	x := &Door{
		Deps: d, mux: http.NewServeMux(), stop: make(chan struct{}), polls: map[string]int{},
		networks: rate.New(d.Rate.Or(defaultRate), d.Clock), phones: rate.New(d.PerPhone.Or(defaultPhone), d.Clock), enrols: rate.New(enrolRate, d.Clock),
	}
	x.mux.HandleFunc("POST "+push.Base+"enrol", x.serve(x.enrol))
	for pattern, h := range map[string]signed{
		"GET account":               x.account,
		"PATCH account":             x.rename,
		"DELETE account":            x.remove,
		"GET requests":              x.requests,
		"GET requests/{id}":         x.past,
		"POST requests/{id}/answer": x.answer,
		"POST subscription":         x.subscribe,
		"DELETE subscription":       x.unsubscribe,
		"POST verification/begin":   x.beginVerification,
		"POST verification":         x.finishVerification,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		x.mux.HandleFunc(method+" "+push.Base+path, x.serve(x.signed(h)))
	}
	x.mux.HandleFunc("/", x.serve(func(context.Context, *call) (any, error) {
		return nil, &push.Refusal{Status: http.StatusNotFound, Code: "not-found", Message: "There is no such call."}
	}))
	return x
}

// Stop ends the polls that hang.
func (x *Door) Stop() { x.once.Do(func() { close(x.stop) }) }

// call is one request under way.
type call struct {
	*http.Request
	w       http.ResponseWriter
	address string
	body    []byte
	device  push.Device
}

type handler func(ctx context.Context, c *call) (any, error)

// signed is a handler of a phone that has proven to be one.
type signed = handler

// ServeHTTP answers.
func (x *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Strict-Transport-Security", "max-age=2592000")
	x.mux.ServeHTTP(w, r)
}

// serve reads the body, bounds the time, and writes the answer.
func (x *Door) serve(next handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		c := &call{Request: r, w: w, address: address(r.RemoteAddr)}
		defer func() {
			switch p := recover(); {
			case p == nil:
			case p == http.ErrAbortHandler:
				panic(p)
			default:
				x.Log.Error("the phones' door panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				x.fail(ctx, c, fault.New(fault.Internal, nil))
			}
		}()
		if wait := x.networks.TakeN(turnstile.Network(addr(r.RemoteAddr)), 1); wait > 0 {
			x.fail(ctx, c, tooMany(w, wait))
			return
		}
		var err error
		if c.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
			x.fail(ctx, c, &push.Refusal{Status: http.StatusRequestEntityTooLarge, Code: "bad-request", Message: "The body is too long or did not arrive."})
			return
		}
		out, err := next(ctx, c)
		if err != nil {
			x.fail(ctx, c, err)
			return
		}
		x.write(c, http.StatusOK, out)
	}
}

// signed judges the signature of the call.
func (x *Door) signed(next signed) handler {
	return func(ctx context.Context, c *call) (any, error) {
		h := c.Header
		d, err := x.Push.Find(ctx, h.Get(push.HeaderDevice), c.address)
		var r *push.Refusal
		if err != nil && !(errors.As(err, &r) && r.Code == "disabled") {
			return nil, err
		}
		now := x.Clock.Now().Unix()
		switch e := d.Key.VerifyCall(c.Method, c.URL.RequestURI(), h.Get(push.HeaderTime), h.Get(push.HeaderSignature), c.body, now); {
		case errors.Is(e, push.ErrTime):
			return nil, &push.Refusal{Status: http.StatusUnauthorized, Code: "time", Message: "The phone's clock is off. Set it by the network."}
		case e != nil:
			return nil, &push.Refusal{Status: http.StatusUnauthorized, Code: "signature", Message: "The call is not signed by the phone's key."}
		case err != nil: // disabled: told to the phone alone
			return nil, err
		}
		if wait := x.phones.TakeN(d.ID, 1); wait > 0 {
			return nil, tooMany(c.w, wait)
		}
		c.device = d
		if err := x.Push.Seen(ctx, d); err != nil {
			x.Log.WarnContext(ctx, "when a phone was seen could not be noted", "error", err)
		}
		return next(ctx, c)
	}
}

func tooMany(w http.ResponseWriter, wait time.Duration) error {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	return fault.New(fault.TooMany, nil)
}

// addr is the address of the peer.
func addr(remote string) netip.Addr {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

func address(remote string) string {
	if a := addr(remote); a.IsValid() {
		return a.String()
	}
	return ""
}

// read takes the body: one JSON value of known fields, and nothing behind it.
func read(body []byte, v any) error {
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, e := dec.Token(); !errors.Is(e, io.EOF) {
			err = errors.New("text behind the end")
		}
	}
	if err != nil {
		return fault.New(fault.BadRequest, err)
	}
	return nil
}

func (x *Door) write(c *call, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"The server has an internal problem."}`)
		x.Log.Error("an answer to a phone could not be written", "path", c.URL.Path, "error", err)
	}
	c.w.Header().Set(push.HeaderTime, strconv.FormatInt(x.Clock.Now().UnixMilli(), 10))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(append(b, '\n'))
}

// fail answers with a refusal, a fault, or the word that something is wrong here.
func (x *Door) fail(ctx context.Context, c *call, err error) {
	var r *push.Refusal
	if errors.As(err, &r) {
		x.write(c, r.Status, push.ErrorBody{Code: r.Code, Message: r.Message})
		return
	}
	f := fault.Of(err)
	if f.Code == fault.Internal {
		if store.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) {
			f = fault.New(fault.Unavailable, err)
		}
		if !errors.Is(err, context.Canceled) {
			x.Log.ErrorContext(ctx, "a phone could not be answered", "path", c.URL.Path, "error", err)
		}
	}
	body := push.ErrorBody{Code: string(f.Code), Message: f.Public()}
	for _, field := range f.Fields {
		if body.Fields == nil {
			body.Fields = map[string]string{}
		}
		body.Fields[field.Name] = field.Fault
	}
	x.write(c, f.Status(), body)
}

// ── the calls ──

type none struct{}

func (x *Door) enrol(ctx context.Context, c *call) (any, error) {
	if wait := x.enrols.TakeN(turnstile.Network(addr(c.RemoteAddr)), 1); wait > 0 {
		return nil, tooMany(c.w, wait)
	}
	var in push.EnrolAsk
	if err := read(c.body, &in); err != nil {
		return nil, err
	}
	return x.Desk.EnrolPhone(ctx, c.address, in)
}

func (x *Door) account(ctx context.Context, c *call) (any, error) {
	return x.Push.Account(ctx, c.device)
}

func (x *Door) rename(ctx context.Context, c *call) (any, error) {
	var in push.Rename
	if err := read(c.body, &in); err != nil {
		return nil, err
	}
	return none{}, x.Desk.RenamePhone(ctx, c.device, in)
}

func (x *Door) remove(ctx context.Context, c *call) (any, error) {
	return none{}, x.Desk.RemovePhone(ctx, c.device)
}

func (x *Door) answer(ctx context.Context, c *call) (any, error) {
	var in push.Answer
	if err := read(c.body, &in); err != nil {
		return nil, err
	}
	return x.Push.Answer(ctx, c.device, c.PathValue("id"), in)
}

func (x *Door) subscribe(ctx context.Context, c *call) (any, error) {
	var in push.Subscription
	if err := read(c.body, &in); err != nil {
		return nil, err
	}
	return none{}, x.Push.Subscribe(ctx, c.device, in)
}

func (x *Door) unsubscribe(ctx context.Context, c *call) (any, error) {
	return none{}, x.Push.Unsubscribe(ctx, c.device)
}

func (x *Door) beginVerification(ctx context.Context, c *call) (any, error) {
	return x.Push.BeginVerification(ctx, c.device)
}

func (x *Door) finishVerification(ctx context.Context, c *call) (any, error) {
	var in push.Verification
	if err := read(c.body, &in); err != nil {
		return nil, err
	}
	return x.Push.FinishVerification(ctx, c.device, in)
}

// requests is the long poll: it ends at once when something is open that the phone does
// not know, or no longer is.
func (x *Door) requests(ctx context.Context, c *call) (any, error) {
	q := c.URL.Query()
	wait := 0
	if s := q.Get("wait"); s != "" {
		var err error
		if wait, err = strconv.Atoi(s); err != nil || wait < 0 {
			return nil, fault.New(fault.Invalid, nil).With("wait", "it is not a number of seconds")
		}
	}
	hang := min(time.Duration(wait)*time.Second, push.PollTime)
	known := map[string]bool{}
	if s := q.Get("known"); s != "" {
		ids := strings.Split(s, ",")
		if len(ids) > maxKnown {
			return nil, fault.New(fault.Invalid, nil).With("known", "allowed are at most %d ids", maxKnown)
		}
		for _, id := range ids {
			known[id] = true
		}
	}
	// First this, then the look, so that nothing comes in between.
	woken, unhear := x.Store.Watch(push.UserKey(c.device.UserID))
	defer unhear()
	out, err := x.Push.Open(ctx, c.device)
	if err != nil || news(out, known) || hang == 0 {
		return out, err
	}
	if !x.enter(c.device.ID) {
		return nil, tooMany(c.w, time.Second)
	}
	defer x.leave(c.device.ID)
	control := http.NewResponseController(c.w)
	until := clock.Deadline(hang + answerTime)
	if err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("the time of a poll can not be set: %w", err)
	}
	// The call's own time is for answers; this one hangs.
	long, cancel := context.WithTimeout(c.Context(), hang)
	defer cancel()
	for {
		select {
		case _, ok := <-woken:
			if !ok {
				return out, nil
			}
		case <-x.stop:
			return out, nil
		case <-long.Done():
			if c.Context().Err() != nil {
				return nil, c.Context().Err()
			}
			out.Time = x.Clock.Now().Unix()
			return out, nil
		}
		look, done := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
		d, err := x.Push.Find(look, c.device.ID, c.address)
		if err == nil {
			out, err = x.Push.Open(look, d)
		}
		done()
		if err != nil || news(out, known) {
			return out, err
		}
	}
}

// past is one request that is over, as long as it can be reported.
func (x *Door) past(ctx context.Context, c *call) (any, error) {
	return x.Push.Past(ctx, c.device, c.PathValue("id"))
}

// news tells whether the phone's picture is another.
func news(out push.Requests, known map[string]bool) bool {
	if len(out.Requests) != len(known) {
		return true
	}
	for _, r := range out.Requests {
		if !known[r.ID] {
			return true
		}
	}
	return false
}

func (x *Door) enter(device string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.all >= maxPolls || x.polls[device] >= pollsPerPhone {
		return false
	}
	x.all++
	x.polls[device]++
	return true
}

func (x *Door) leave(device string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all--
	if x.polls[device]--; x.polls[device] == 0 {
		delete(x.polls, device)
	}
}
