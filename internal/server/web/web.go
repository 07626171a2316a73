// Package web is the people's door: it collects the pages of all areas, says who sits
// at the browser, and answers with pages.
//
// It promises: nothing is served to somebody who may not open the area it belongs to,
// and a route that forgets to say what it needs is one of the console; every answer
// carries the headers that forbid scripts, styles and frames of others; a request that
// another site has made changes nothing; bodies, the time of an answer and the number
// of requests from one network are bounded; a mistake in one page is an error page, and
// its cause stays in the log.
//
// Rows: S5 and E3 (who may see what is judged by the desk), V1.
package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/turnstile"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Deps are what the pages stand on. All but the last two of ui.Deps are required.
type Deps struct {
	ui.Deps
	// Areas are the routes of all areas; nil means Areas().
	Areas [][]ui.Route
	// API serves /api/; it judges by itself who asks (see api.Front). It may be nil.
	API http.Handler
	// Phones serves /authenticator/v1/; it judges by itself who asks (see phoneapi). It may be nil.
	Phones http.Handler
	// Who says who sits there; nil asks Sessions.
	Who func(*http.Request) (*session.Session, error)
	// Rate bounds the requests of one network; the zero value is DefaultRate.
	Rate rate.Rate
}

// Policy is the Content-Security-Policy of every page: nothing but what this server
// sends, and no script or style within a page.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// headers stand on every answer of this door.
var headers = [][2]string{
	{"Content-Security-Policy", Policy},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "same-origin"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), display-capture=()"},
	{"Strict-Transport-Security", "max-age=2592000"},
	{"Cache-Control", "no-store"},
}

// answerTime is how long an answer may take, unless its route says more.
const answerTime = 10 * time.Second

// DefaultRate is how much one network (of IPv6 a /64) may ask for: an office behind one
// address works. Guesses of passwords and codes are counted elsewhere, by account (S10).
var DefaultRate = rate.Rate{PerSecond: 50, Burst: 300}

type site struct {
	Deps
	mux    *http.ServeMux
	guests *rate.Keyed
}

// New makes the handler of everything at the people's door but the health endpoints.
func New(d Deps) http.Handler {
	if d.Areas == nil {
		d.Areas = Areas()
	}
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.OpenAPI == nil && d.API != nil {
		d.OpenAPI = sync.OnceValues(func() ([]byte, error) { return description(d.API) })
	}
	s := &site{Deps: d, mux: http.NewServeMux(), guests: rate.New(d.Rate.Or(DefaultRate), d.Clock)}
	for _, area := range d.Areas {
		for _, r := range area {
			s.mux.Handle(r.Pattern, s.serve(r))
		}
	}
	s.mux.Handle("GET "+ui.AssetBase, ui.Assets())
	s.mux.Handle("GET /{$}", s.serve(ui.Route{Needs: ui.Anyone, Serve: start}))
	s.mux.Handle("/", s.serve(ui.Route{Needs: ui.Anyone, Serve: nowhere}))

	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(s.serve(ui.Route{Needs: ui.Anyone, Serve: func(*ui.Request) error {
		return fault.Newf(fault.Forbidden, words.Foreign)
	}}))
	pages := s.guard(cross.Handler(s.mux))
	if d.API == nil && d.Phones == nil {
		return pages
	}
	// The API and the phones' door have headers, bounds and answers of their own.
	both := http.NewServeMux()
	if d.API != nil {
		both.Handle("/api/", d.API)
	}
	if d.Phones != nil {
		both.Handle("/authenticator/v1/", d.Phones)
	}
	both.Handle("/", pages)
	return both
}

// start leads to where somebody belongs.
func start(r *ui.Request) error {
	switch {
	case r.Session == nil:
		return r.Go("/signin", "")
	case r.Session.Console:
		return r.Go("/console", "")
	}
	return r.Go("/me", "")
}

// nowhere answers for every path that is none. It is the same for whoever may not know
// whether something is there.
func nowhere(r *ui.Request) error {
	if at := r.URL.Path; r.Session == nil && (at == "/console" || at == "/me" || strings.HasPrefix(at, "/console/") || strings.HasPrefix(at, "/me/")) {
		return r.Go(signinPath(r), "")
	}
	return fault.Newf(fault.NotFound, "There is no such page.")
}

// guard sets the headers, bounds, and keeps a mistake from being more than a 500.
func (s *site) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, x := range headers {
			h.Set(x[0], x[1])
		}
		defer func() {
			switch p := recover(); {
			case p == nil:
			case p == http.ErrAbortHandler:
				panic(p)
			default:
				s.Log.Error("a page panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				s.fail(ui.NewRequest(&s.Deps.Deps, w, r, nil, nil), fault.New(fault.Internal, nil))
			}
		}()
		if !strings.HasPrefix(r.URL.Path, ui.AssetBase) {
			if wait := s.guests.TakeN(network(r.RemoteAddr), 1); wait > 0 {
				h.Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
				s.fail(ui.NewRequest(&s.Deps.Deps, w, r, nil, nil), fault.New(fault.TooMany, nil))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// network is whom an address stands for.
func network(remote string) string {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	return turnstile.Network(a.Addr().Unmap())
}

// serve answers for one route.
func (s *site) serve(route ui.Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		limit := route.MaxBody
		if limit == 0 {
			limit = ui.DefaultBody
		}
		hr.Body = http.MaxBytesReader(w, hr.Body, limit)
		ctx := hr.Context()
		if route.Slow > 0 {
			c := http.NewResponseController(w)
			until := clock.Deadline(route.Slow)
			if err := errors.Join(c.SetReadDeadline(until), c.SetWriteDeadline(until)); err != nil && !errors.Is(err, http.ErrNotSupported) {
				s.Log.WarnContext(ctx, "the time of a request can not be set", "error", err)
			}
		} else {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, answerTime)
			defer cancel()
		}
		who, err := s.who(ctx, hr)
		if err != nil {
			s.fail(ui.NewRequest(&s.Deps.Deps, w, hr, nil, &route), err)
			return
		}
		r := ui.NewRequest(&s.Deps.Deps, w, hr.WithContext(session.With(ctx, who)), who, &route)
		switch {
		case route.Needs == ui.Anyone:
		case who == nil:
			s.signin(r)
			return
		case route.Needs == ui.Person:
		case route.Needs != ui.Console || !who.Console:
			s.fail(r, fault.Newf(fault.Forbidden, words.NotForConsole))
			return
		}
		if route.Fresh && !who.IsFresh(s.Clock.Now()) {
			s.stepup(r)
			return
		}
		if err := route.Serve(r); err != nil {
			s.fail(r, err)
		}
	})
}

// signin sends whoever has not signed in, or no longer, to do so and back.
func (s *site) signin(r *ui.Request) {
	if r.Htmx() {
		r.W.Header().Set("HX-Redirect", signinPath(r))
		r.W.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.Redirect(r.W, r.Request, signinPath(r), http.StatusSeeOther)
}

func signinPath(r *ui.Request) string { return "/signin?" + url.Values{"next": {back(r)}}.Encode() }

// stepup asks for the second factor again and comes back to the page from which the
// action was begun.
func (s *site) stepup(r *ui.Request) {
	to := "/stepup?" + url.Values{"next": {back(r)}}.Encode()
	if err := r.Go(to, ""); err != nil {
		s.fail(r, err)
	}
}

// back is the page to which somebody comes back: the one asked for or, where that was
// an action or a part of a page, the one from which it was.
func back(r *ui.Request) string {
	if r.Method == http.MethodGet && !r.Htmx() {
		return r.URL.RequestURI()
	}
	u, err := url.Parse(r.Referer())
	if err != nil || u.Host != r.Host || !ui.Inside(u.RequestURI()) {
		return "/"
	}
	return u.RequestURI()
}

// fail answers with an error: a page, or a notice where a script had asked for a part.
func (s *site) fail(r *ui.Request, err error) {
	f := fault.Of(err)
	ctx := r.Context()
	switch {
	case f.Code == fault.Internal && store.IsUnavailable(err):
		f = fault.New(fault.Unavailable, err)
		s.Log.WarnContext(ctx, "a page could not be answered", "path", r.URL.Path, "error", err)
	case f.Code == fault.Internal && errors.Is(err, context.DeadlineExceeded):
		f = fault.New(fault.Unavailable, err)
		s.Log.WarnContext(ctx, "a page took too long", "path", r.URL.Path)
	case f.Code == fault.Internal && !errors.Is(err, context.Canceled):
		s.Log.ErrorContext(ctx, "a page failed", "path", r.URL.Path, "error", err)
	}
	said := f.Public()
	if f.Code == fault.Unavailable && s.NotReady != nil && f.Detail == "" {
		if why := s.NotReady(context.WithoutCancel(ctx)); why != "" {
			said += " The cause: " + why + "."
		}
	}
	if r.Htmx() {
		h := r.W.Header()
		h.Set("HX-Retarget", "#notices")
		h.Set("HX-Reswap", "innerHTML")
		h.Set("HX-Reselect", ".notice")
		h.Set("Content-Type", "text/html; charset=utf-8")
		r.W.WriteHeader(f.Status())
		if err := ui.Notice(ui.Bad, said).Render(ctx, r.W); err != nil {
			s.Log.DebugContext(ctx, "a page was not taken", "error", err)
		}
		return
	}
	next, path := words.ErrorHome, "/"
	if f.Code == fault.Unauthorized {
		next, path = words.SignIn, "/signin"
	} else if b := back(r); r.Method != http.MethodGet && b != "/" {
		next, path = words.ErrorBack, b
	}
	err = r.ShowStatus(f.Status(), ui.Page{Title: words.ErrorTitle(f.Status())}, ui.ErrorBody(said, next, path))
	if err != nil {
		s.Log.ErrorContext(ctx, "an error page failed", "error", err)
		http.Error(r.W, said, f.Status())
	}
}

// who is the session of the request.
func (s *site) who(ctx context.Context, r *http.Request) (*session.Session, error) {
	if s.Who != nil {
		return s.Who(r)
	}
	if s.Sessions == nil || strings.HasPrefix(r.URL.Path, ui.AssetBase) {
		return nil, nil
	}
	return s.Sessions.OfRequest(r.WithContext(ctx))
}

// patterns are all patterns of the areas, for tests.
func patterns(areas [][]ui.Route) (out []string) {
	for _, a := range areas {
		for _, r := range a {
			out = append(out, r.Pattern)
		}
	}
	slices.Sort(out)
	return out
}

// description asks the API for its description.
func description(api http.Handler) ([]byte, error) {
	r, err := http.NewRequest(http.MethodGet, rest.Base+"/openapi.json", http.NoBody)
	if err != nil {
		return nil, err
	}
	// It is asked within this process, which is as good as TLS.
	r.TLS, r.RemoteAddr = &tls.ConnectionState{}, "127.0.0.1:0"
	w := &memory{header: http.Header{}}
	api.ServeHTTP(w, r)
	if w.status != 0 && w.status != http.StatusOK {
		return nil, fmt.Errorf("the API answers %d when it is asked for its description", w.status)
	}
	return w.body.Bytes(), nil
}

// memory keeps an answer.
type memory struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (m *memory) Header() http.Header         { return m.header }
func (m *memory) Write(b []byte) (int, error) { return m.body.Write(b) }
func (m *memory) WriteHeader(status int)      { m.status = status }
