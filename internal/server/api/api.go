// Package api is the door for programs and for the command `latchkey`: REST under
// /api/v1, described by /api/v1/openapi.json.
//
// It is thin: it says who asks (WithActor, set by the listener from what it has
// proven), reads bodies of package rest, calls package desk, and writes the answer.
// It promises: every answer that is not 2xx is a problem (RFC 9457) with a stable
// code, a sentence for people and every field at fault; causes stay in the log;
// lists are Paged by opaque cursors; what can be changed carries an ETag, and
// If-Match refuses a change of something that was changed meanwhile (412); bodies
// are bounded.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
)

// MaxBody bounds the body of a request in octets: a policy of full size, and some
// room.
const MaxBody = 128 << 10

// Deps is what the API stands on.
type Deps struct {
	Desk    *desk.Desk
	Version string
	Logger  *slog.Logger // may be nil
	// NotReady says why the server can not do its work, empty if it can; may be nil. The
	// people at this door are the ones who can do something about it.
	NotReady func(ctx context.Context) string
	// Sessions signs people in; nil: nobody can, and only the admin socket is served.
	Sessions *session.Sessions
	// Bulk imports users.
	Bulk *bulk.Service
}

type actorKey struct{}

// WithActor says on whose behalf the request is made. Only a listener that has
// proven it may call this.
func WithActor(ctx context.Context, a desk.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// door holds what the handlers need.
type door struct {
	desk *desk.Desk
	log  *slog.Logger
	api  huma.API

	notReady func(ctx context.Context) string
	sessions *session.Sessions
	bulk     *bulk.Service
	trusting bool // in tests: leaves the rights to the desk
}

// New makes the handler of everything under /api/v1. A request without an actor is
// refused, but for the description of the API.
func New(d Deps) http.Handler { return open(d, false) }

func open(d Deps, trusting bool) http.Handler {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	x := &door{desk: d.Desk, log: d.Logger, notReady: d.NotReady, sessions: d.Sessions, bulk: d.Bulk, trusting: trusting}
	x.api = humago.New(mux, config(d.Version))
	x.people()
	x.things()
	x.self()
	x.phones()
	x.passkeys()
	x.events(mux)
	x.rules(mux)
	x.imports(mux)
	x.session()
	x.posts()
	x.certificates()
	x.describe(mux)
	return x.recover(x.gate(mux))
}

var errNoUTF8 = errors.New("the body is not UTF-8")

func clip(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strconv.QuoteToASCII(s)
}

func config(version string) huma.Config {
	c := huma.DefaultConfig("Latchkey", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil // they would put $schema into every body
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	c.RejectUnknownQueryParameters = true
	j := huma.DefaultJSONFormat
	j.Unmarshal = func(b []byte, v any) error {
		// encoding/json would take another text for the one that was sent.
		if !utf8.Valid(b) {
			return errNoUTF8
		}
		return huma.DefaultJSONFormat.Unmarshal(b, v)
	}
	c.Formats = map[string]huma.Format{"application/json": j, "json": j}
	c.Info.Description = "Administration of Latchkey. Ids carry a prefix; wherever an id is asked for in a path, the exact name will do. Times are RFC 3339 in UTC."
	return c
}

// schemaName keeps types of one name apart: those of package rest have their own, others
// that of their package before it.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if pkg := path.Base(t.PkgPath()); t.Name() != "" && pkg == "policy" {
		return "Policy" + name
	}
	return name
}

// recover keeps a mistake in one handler from being more than a 500.
func (x *door) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); {
			case p == nil:
			case p == http.ErrAbortHandler:
				panic(p)
			default:
				x.log.Error("the API panicked", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				writeProblem(w, newProblem(fault.New(fault.Internal, nil), false))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// actor is who asks.
func actor(ctx context.Context) (desk.Actor, error) {
	a, ok := ctx.Value(actorKey{}).(desk.Actor)
	if !ok || a.Name == "" {
		return a, fault.New(fault.Unauthorized, nil)
	}
	return a, nil
}

// op describes one operation in short.
func op(id, method, path, summary string, status int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: rest.Base + path, Summary: summary, DefaultStatus: status, MaxBodyBytes: MaxBody,
		Tags: []string{strings.Split(strings.TrimPrefix(path, "/"), "/")[0]},
	}
}

// add registers an operation. fn gets the actor; its error becomes a problem.
func add[In, Out any](x *door, o huma.Operation, fn func(ctx context.Context, a desk.Actor, in *In) (*Out, error)) {
	addPublic(x, o, func(ctx context.Context, a desk.Actor, in *In) (*Out, error) {
		if _, err := actor(ctx); err != nil {
			return nil, err
		}
		return fn(ctx, a, in)
	})
}

// addPublic is add for what nobody needs to have signed in for: the actor may be nobody.
func addPublic[In, Out any](x *door, o huma.Operation, fn func(ctx context.Context, a desk.Actor, in *In) (*Out, error)) {
	huma.Register(x.api, o, func(ctx context.Context, in *In) (*Out, error) {
		a, _ := actor(ctx)
		out, err := fn(ctx, a, in)
		if err == nil {
			return out, nil
		}
		m, ok := any(in).(interface{ matched() bool })
		return nil, x.problem(ctx, err, ok && m.matched())
	})
}

// Conditional is the header of a conditional change.
type Conditional struct {
	IfMatch string `header:"If-Match" doc:"The ETag that was seen; absent or *: any"`
}

func (i Conditional) matched() bool { return i.IfMatch != "" }

// rev is the revision that was seen, 0 for any.
func (i Conditional) rev() (int64, error) {
	if i.IfMatch == "" || i.IfMatch == "*" {
		return 0, nil
	}
	s, ok := strings.CutPrefix(i.IfMatch, `"`)
	s, ok2 := strings.CutSuffix(s, `"`)
	n, err := strconv.ParseInt(s, 10, 64)
	if !ok || !ok2 || err != nil || n < 1 || strconv.FormatInt(n, 10) != s {
		return 0, fault.New(fault.Invalid, nil).With("If-Match", "it is no ETag of this API; allowed is the one that was seen, such as \"3\", or *")
	}
	return n, nil
}

// tag is the same for what has no revision: what stands between the quotes, empty for any.
func (i Conditional) tag() (string, error) {
	if i.IfMatch == "" || i.IfMatch == "*" {
		return "", nil
	}
	s, ok := strings.CutPrefix(i.IfMatch, `"`)
	s, ok2 := strings.CutSuffix(s, `"`)
	if !ok || !ok2 || len(s) != 24 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fault.New(fault.Invalid, nil).With("If-Match", "it is no ETag of this; allowed is the one that was seen, or *")
	}
	return s, nil
}

// settingsTagged is an answer with the tag of the settings.
func settingsTagged(s rest.Settings, err error) (*tagged[rest.Settings], error) {
	if err != nil {
		return nil, err
	}
	return &tagged[rest.Settings]{ETag: `"` + desk.SettingsTag(s) + `"`, Body: s}, nil
}

func etag(rev int64) string { return `"` + strconv.FormatInt(rev, 10) + `"` }

// tagged is an answer with its ETag.
type tagged[T any] struct {
	ETag string `header:"ETag"`
	Body T
}

// plain is an answer without.
type plain[T any] struct{ Body T }

// Paged is what every list takes.
type Paged struct {
	After string `query:"after" doc:"Cursor: the \"next\" of the page before"`
	Limit int    `query:"limit" minimum:"0" maximum:"500" doc:"How many at most; 0 or absent: 50"`
}

func reply[T any](v T, err error) (*plain[T], error) {
	if err != nil {
		return nil, err
	}
	return &plain[T]{v}, nil
}

func withTag[T any](v T, err error, rev func(T) int64) (*tagged[T], error) {
	if err != nil {
		return nil, err
	}
	return &tagged[T]{ETag: etag(rev(v)), Body: v}, nil
}

// problem turns an error into what leaves the process, and logs what stays.
func (x *door) problem(ctx context.Context, err error, conditional bool) *problem {
	f := fault.Of(err)
	if f.Code == fault.Internal && store.IsUnavailable(err) {
		f = fault.New(fault.Unavailable, err)
		x.log.WarnContext(ctx, "a request could not be answered", "error", err)
	}
	if f.Code == fault.Unavailable && x.notReady != nil && f.Detail == "" {
		if why := x.notReady(context.WithoutCancel(ctx)); why != "" {
			f.Detail = f.Public() + " The cause: " + why + "."
		}
	}
	if f.Code == fault.Internal && !errors.Is(err, context.Canceled) {
		x.log.ErrorContext(ctx, "a request failed", "error", err)
	}
	return newProblem(f, conditional)
}
