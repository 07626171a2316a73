// Package ui is what the pages of the console and the portal are made from: the
// route and its request, the frame around every page, the components, and the
// assets that a browser loads. Areas (package office, people, fleet, rules, …)
// import it and never each other; package web collects their routes.
//
// It promises: every page comes in the same frame with a title, one h1 and
// landmarks; everything that came from outside is escaped; no page needs script,
// which only makes it quicker; a page needs nothing from another host; what went
// wrong is a sentence that says what to do next; and the words are those of package
// words. The style sheet's head lists the classes.
//
// A handler is a function of a *Request:
//
//	func list(r *ui.Request) error {
//		page, err := r.Desk.Users(r.Context(), r.Actor(), rest.UserFilter{…})
//		if err != nil {
//			return err
//		}
//		return r.Show(ui.Page{Title: words.Users, Section: "users"}, usersPage(page))
//	}
package ui

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
)

// Needs says who may ask for a route.
type Needs int

// The needs. The zero value is the strictest: a route that forgets to say is not
// open.
const (
	Console Needs = iota // a session that opens the console
	Person               // any session
	Anyone               // nobody needs to have signed in
)

// Route is one page or action.
type Route struct {
	Pattern string // of http.ServeMux: "GET /console/users/{name}"
	Needs   Needs
	// Fresh asks for a second factor that was given within the last five minutes; who
	// has none is sent to the step-up first and comes back.
	Fresh bool
	// MaxBody bounds the body in octets; 0 is DefaultBody.
	MaxBody int64
	// Slow is how long reading the request and answering may take together, where that
	// is more than ten seconds (uploads, streams).
	Slow  time.Duration
	Serve func(*Request) error
}

// DefaultBody bounds the body of a request, unless its route says otherwise.
const DefaultBody = 64 << 10

// Deps are what handlers stand on. They come with the request.
type Deps struct {
	Desk     *desk.Desk
	Sessions *session.Sessions
	Clock    clock.Clock
	Log      *slog.Logger
	Version  string
	Bulk     *bulk.Service // imports users
	// NotReady says why the server can not do its work, empty if it can; may be nil.
	NotReady func(ctx context.Context) string
	// MachinePort is the port at which machines are served, once they are; may be nil.
	MachinePort func() string
	// OtherCA tells whether the people's door shows a certificate that is not of the server's
	// own CA; nil: it does not.
	OtherCA func() bool
	// OpenAPI gives the description of the API as JSON, for the page of the API; may be nil.
	OpenAPI func() ([]byte, error)
}

// Request is one request at the people's door.
type Request struct {
	*http.Request
	W       http.ResponseWriter
	Session *session.Session // nil where nobody has signed in
	*Deps

	route  *Route
	notice *notice
	values url.Values
}

// Door is how this browser reaches the server.
func (r *Request) Door() Door { return Door{r.Host, r.OtherCA != nil && r.OtherCA()} }

// NewRequest is for package web, which serves the routes.
func NewRequest(d *Deps, w http.ResponseWriter, r *http.Request, s *session.Session, route *Route) *Request {
	return &Request{Request: r, W: w, Session: s, Deps: d, route: route}
}

// Actor is who asks, with the rights of the session's role. Without a session it is
// nobody, who may do nothing.
func (r *Request) Actor() desk.Actor {
	if r.Session == nil {
		return desk.Actor{Address: r.Address()}
	}
	return r.Session.Actor(r.Address())
}

// Address is the peer's IP address.
func (r *Request) Address() string {
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return a.Addr().Unmap().String()
	}
	return ""
}

// Values are the fields of the form or, for GET, of the query. A body that is too
// large or of no known form is a fault.
func (r *Request) Values() (url.Values, error) {
	if r.values != nil {
		return r.values, nil
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		v, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, fault.New(fault.BadRequest, err)
		}
		r.values = v
		return v, nil
	}
	err := r.ParseForm()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		err = r.ParseMultipartForm(DefaultBody)
	}
	if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
		return nil, fault.Newf(fault.BadRequest, "The form is larger than %d octets. Send less at once.", big.Limit)
	}
	if err != nil {
		return nil, fault.New(fault.BadRequest, err)
	}
	r.values = r.PostForm
	return r.values, nil
}

// Value is one field of Values, without blanks around it; empty if there is none or
// the form can not be read.
func (r *Request) Value(name string) string {
	v, err := r.Values()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(v.Get(name))
}

// Htmx tells whether a script asks for a part of a page.
func (r *Request) Htmx() bool { return r.Header.Get("HX-Request") == "true" }

// Crumb is a step of the way to a page.
type Crumb struct{ Text, Path string }

// Curl is the API's operation behind a page or action, for "copy as curl". Path is
// that of the URL (/api/v1/…); Body, if not nil, is written as JSON.
type Curl struct {
	Method, Path string
	Body         any
}

// Page is what the frame shows around the body.
type Page struct {
	Title   string // the h1 and the title of the window
	Section string // of the navigation: "users", "machines", …; empty: none
	Crumbs  []Crumb
	Lead    string          // a sentence below the title; may be empty
	Badge   templ.Component // beside the title; may be nil
	Actions templ.Component // buttons to the right of the title; may be nil
	Curl    *Curl
	Wide    bool // the body may use the window's whole width
}

// Show answers with a whole page.
func (r *Request) Show(p Page, body templ.Component) error {
	return r.ShowStatus(http.StatusOK, p, body)
}

// ShowStatus answers with a whole page and a status: 422 for a form that has to be
// filled in again.
func (r *Request) ShowStatus(status int, p Page, body templ.Component) error {
	r.notice = r.takeNotice()
	return r.write(status, Frame(r, p, body))
}

// Part answers with a fragment.
func (r *Request) Part(c templ.Component) error { return r.write(http.StatusOK, c) }

// write renders into memory first: a page that fails half-way is an error page, not
// half a page.
func (r *Request) write(status int, c templ.Component) error {
	b := templ.GetBuffer()
	defer templ.ReleaseBuffer(b)
	if err := c.Render(context.WithValue(r.Context(), requestKey{}, r), b); err != nil {
		return err
	}
	h := r.W.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	r.W.WriteHeader(status)
	_, err := r.W.Write(b.Bytes())
	if err != nil {
		r.Log.DebugContext(r.Context(), "a page was not taken", "error", err)
	}
	return nil
}

// Go sends the browser to another page after something was done, with a notice that
// is shown there once. path must be one of this server.
func (r *Request) Go(path, notice string) error { return r.GoWith(path, "ok", notice) }

// GoWith is Go with the kind of the notice: "ok", "info", "warn" or "bad".
func (r *Request) GoWith(path, kind, text string) error {
	if !Inside(path) {
		return fault.New(fault.Internal, errors.New("a redirect leaves this server: "+path))
	}
	if text != "" {
		r.leaveNotice(notice{kind, text})
	}
	if r.Htmx() {
		r.W.Header().Set("HX-Redirect", path)
		r.W.WriteHeader(http.StatusOK)
		return nil
	}
	http.Redirect(r.W, r.Request, path, http.StatusSeeOther)
	return nil
}

// Inside tells whether a path leads to a page of this server, wherever it came from.
func Inside(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return false
	}
	u, err := url.Parse(path)
	return err == nil && u.Host == "" && u.Scheme == ""
}

// notice is one that is shown on the next page.
type notice struct{ kind, text string }

// NoticeCookie carries it. It is not signed: the prefix keeps others from setting it,
// its text is escaped, and it grants nothing.
const NoticeCookie = "__Host-latchkey-notice"

const maxNotice = 1000

func (r *Request) leaveNotice(n notice) {
	if len(n.text) > maxNotice {
		n.text = strings.ToValidUTF8(n.text[:maxNotice], "") + "…"
	}
	http.SetCookie(r.W, &http.Cookie{
		Name: NoticeCookie, Value: base64.RawURLEncoding.EncodeToString([]byte(n.kind + "\n" + n.text)),
		Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 60,
	})
}

func (r *Request) takeNotice() *notice {
	c, err := r.Cookie(NoticeCookie)
	if err != nil {
		return nil
	}
	http.SetCookie(r.W, &http.Cookie{Name: NoticeCookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1})
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	kind, text, ok := strings.Cut(string(b), "\n")
	if err != nil || !ok || len(text) > maxNotice+8 || kinds[kind] == "" {
		return nil
	}
	return &notice{kind, text}
}

type requestKey struct{}

// From is the request for which a component is rendered; nil in a component that is
// rendered by itself.
func From(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}

// now is the time of the request.
func now(ctx context.Context) time.Time {
	if r := From(ctx); r != nil && r.Clock != nil {
		return r.Clock.Now()
	}
	return time.Time{}
}

// Faults sorts what is wrong with an input by its fields: what has no field, or is
// no fault of the input, stands under "". A nil error gives an empty map. Whoever
// shows the form again answers with fault.Of(err).Status().
func Faults(err error) map[string]string {
	m := map[string]string{}
	if err == nil {
		return m
	}
	f := fault.Of(err)
	for _, x := range f.Fields {
		if m[x.Name] != "" {
			m[x.Name] += "; "
		}
		m[x.Name] += x.Fault
	}
	if len(f.Fields) == 0 {
		m[""] = f.Public()
	}
	return m
}

// Refill tells whether an error is one for the form that was sent: the input was
// wrong, or somebody else was faster. Everything else is an error page.
func Refill(err error) bool {
	switch fault.Of(err).Code {
	case fault.Invalid, fault.Exists, fault.Conflict:
		return true
	}
	return false
}
