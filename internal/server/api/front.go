package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/session"
	"latchkey/internal/server/turnstile"
)

// Rates bound how often somebody may ask at the people's door. The zero value of each
// is its default.
type Rates struct {
	Address rate.Rate // of one network, whoever asks
	Refused rate.Rate // of one network, tokens and sessions that are none
	Holder  rate.Rate // of one token or session
}

// The defaults: a script may be quick, guessing may not.
var (
	DefaultAddress = rate.Rate{PerSecond: 50, Burst: 300}
	DefaultRefused = rate.Rate{PerSecond: 0.5, Burst: 20}
	DefaultHolder  = rate.Rate{PerSecond: 20, Burst: 200}
)

// FrontDeps is what the API at the people's door stands on. All but Logger and Rates
// are required.
type FrontDeps struct {
	API      http.Handler // of New
	Sessions *session.Sessions
	Clock    clock.Clock
	Logger   *slog.Logger
	Rates    Rates
}

// Front is the API at the people's door: it says who asks, by an API token or the
// session of a program in the header Authorization, or by a browser's cookie. A request
// that nothing of this is on is nobody's, and the handler behind refuses it.
//
// It promises: a secret that is none is 401, never nobody; a cookie changes something
// only where the request comes from this very site; one network, one token and one
// guesser have bounds; nothing is answered without TLS.
func Front(d FrontDeps) http.Handler {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return &front{
		FrontDeps: d,
		address:   rate.New(d.Rates.Address.Or(DefaultAddress), d.Clock),
		refused:   rate.New(d.Rates.Refused.Or(DefaultRefused), d.Clock),
		holder:    rate.New(d.Rates.Holder.Or(DefaultHolder), d.Clock),
	}
}

type front struct {
	FrontDeps
	address, refused, holder *rate.Keyed
}

// frontHeaders stand on every answer: it is data, and for nobody but who asked.
var frontHeaders = [][2]string{
	{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Strict-Transport-Security", "max-age=2592000"},
	{"Vary", "Authorization, Cookie"},
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, h := range frontHeaders {
		w.Header().Set(h[0], h[1])
	}
	if r.TLS == nil {
		f.refuse(w, r, fault.Newf(fault.Forbidden, "The API is served over TLS alone."))
		return
	}
	address, network := peer(r.RemoteAddr)
	if f.late(w, r, f.address.TakeN(network, 1)) {
		return
	}
	r = r.WithContext(session.WithPeer(r.Context(), r.TLS))
	who, holder, err := f.who(r, address)
	if err != nil {
		// Only who is refused pays: a script with a good token is not held up by a
		// neighbour's bad one.
		if fault.Is(err, fault.Unauthorized) && f.late(w, r, f.refused.TakeN(network, 1)) {
			return
		}
		f.refuse(w, r, err)
		return
	}
	ctx := withAddress(r.Context(), address)
	if who.session != nil {
		ctx = session.With(ctx, who.session)
	}
	if who.actor.Name != "" {
		if f.late(w, r, f.holder.TakeN(holder, 1)) {
			return
		}
		ctx = WithActor(ctx, who.actor)
	}
	if who.token != nil {
		ctx = context.WithValue(ctx, tokenKey{}, who.token)
	}
	f.API.ServeHTTP(w, r.WithContext(ctx))
}

// late refuses who asks too often.
func (f *front) late(w http.ResponseWriter, r *http.Request, wait time.Duration) bool {
	if wait == 0 {
		return false
	}
	seconds := int(wait/time.Second) + 1
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	f.refuse(w, r, fault.Newf(fault.TooMany, "Too many requests. Wait %d s.", seconds))
	return true
}

func (f *front) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := fault.Of(err)
	if p.Code == fault.Internal {
		f.Logger.ErrorContext(r.Context(), "who asks the API is not known", "error", err)
	}
	writeProblem(w, newProblem(p, false))
}

// known is who asks; the zero value is nobody.
type known struct {
	actor   desk.Actor
	session *session.Session
	token   *session.Token
}

func (f *front) who(r *http.Request, address string) (k known, holder string, err error) {
	raw, ok, err := bearer(r.Header.Values("Authorization"))
	switch {
	case err != nil:
		return k, "", err
	case ok && strings.HasPrefix(raw, session.TokenPrefix):
		k.actor, k.token, err = f.Sessions.TokenActor(r.Context(), raw, address)
		if err != nil {
			return known{}, "", err
		}
		return k, "token " + k.token.ID, nil
	case ok:
		k.session, err = f.Sessions.OfProgram(r.Context(), raw)
		if err == nil && k.session == nil {
			err = fault.Newf(fault.Unauthorized, "The session has ended. Sign in again (latchkey login).")
		}
	default:
		k.session, err = f.Sessions.OfRequest(r)
		if err == nil && k.session != nil {
			err = sameSite(r)
		}
		if err == nil && k.session == nil && session.Peer(r.Context()) != nil {
			return f.shown(r, address)
		}
	}
	if err != nil || k.session == nil {
		return known{}, "", err
	}
	k.actor = k.session.Actor(address)
	return k, "session " + k.session.ID, nil
}

// shown is who shows a client certificate and nothing else (M4). A browser shows one by
// itself, also where another site sends it: that is refused, by what browsers say.
func (f *front) shown(r *http.Request, address string) (k known, holder string, err error) {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site != "" && site != "same-origin" && site != "none" || origin != "" && sameSite(r) != nil {
		return known{}, "", fault.Newf(fault.Forbidden, "With the certificate of a browser this can only be done from a page of this server.")
	}
	if r.URL.Path == rest.Base+pathCertificateSession {
		return known{}, "", nil // it says by itself why it opens nothing
	}
	if k.session, err = f.Sessions.OfCertificate(r.Context(), address, r.UserAgent()); err != nil || k.session == nil {
		return known{}, "", err
	}
	k.actor = k.session.Actor(address)
	return k, "certificate " + k.session.UserID, nil
}

// maxBearer bounds what is looked at.
const maxBearer = 256

// bearer finds the secret of the header Authorization (RFC 6750 §2.1); ok is false
// where there is no such header. What is there and can not be one is refused.
func bearer(values []string) (raw string, ok bool, err error) {
	if len(values) == 0 {
		return "", false, nil
	}
	scheme, raw, found := strings.Cut(values[0], " ")
	raw = strings.Trim(raw, " ")
	if len(values) != 1 || !found || !strings.EqualFold(scheme, "Bearer") || len(raw) > maxBearer ||
		!strings.HasPrefix(raw, session.TokenPrefix) && !strings.HasPrefix(raw, session.CLIPrefix) {
		return "", false, fault.Newf(fault.Unauthorized, "The header Authorization is not understood; it is Bearer, a blank, and an API token (%s…) or a session (%s…).", session.TokenPrefix, session.CLIPrefix)
	}
	return raw, true, nil
}

// sameSite refuses what another site has a browser do with its cookie. Every browser
// that is in use says where a request comes from that is no plain reading.
func sameSite(r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		if site == "same-origin" {
			return nil
		}
	} else if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err == nil && u.Scheme == "https" && u.Host == r.Host {
			return nil
		}
	}
	return fault.Newf(fault.Forbidden, "With the cookie of a browser this can only be done from a page of this server. Programs send an API token in the header Authorization.")
}

// peer is the address of a connection and the network that it is counted with.
func peer(remote string) (address, network string) {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return "", remote
	}
	return a.Addr().Unmap().String(), turnstile.Network(a.Addr().Unmap())
}

type (
	addressKey struct{}
	tokenKey   struct{}
)

func withAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

// addressOf is the peer's address; empty at the admin socket.
func addressOf(ctx context.Context) string {
	s, _ := ctx.Value(addressKey{}).(string)
	return s
}

// tokenOf is the API token of the request; nil if there is none.
func tokenOf(ctx context.Context) *session.Token {
	t, _ := ctx.Value(tokenKey{}).(*session.Token)
	return t
}
