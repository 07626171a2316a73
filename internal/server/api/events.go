package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

type EventQuery struct {
	PairQuery
	Type    []string  `query:"type" doc:"Words of the vocabulary, or beginnings such as signin. ; several with commas"`
	Outcome string    `query:"outcome" maxLength:"64"`
	Reason  string    `query:"reason" maxLength:"64" doc:"The code"`
	Scope   string    `query:"scope" maxLength:"16" doc:"logon, elevation or remote"`
	Service string    `query:"service" maxLength:"64"`
	Link    string    `query:"link" maxLength:"16" doc:"up, down or refused"`
	Factor  string    `query:"factor" maxLength:"64"`
	Actor   string    `query:"actor" maxLength:"256" doc:"Name of who did it"`
	Address string    `query:"address" maxLength:"128" doc:"Exactly"`
	Text    string    `query:"text" maxLength:"128" doc:"Contained in subject, actor, machine, address, service or reason, whatever the case. Exactly the name of one machine, or of one user without a role, it gives the events about that one; in double quotes it is always text"`
	Since   time.Time `query:"since" doc:"At the source, inclusive"`
	Until   time.Time `query:"until" doc:"Exclusive"`
	Actions bool      `query:"actions" doc:"Administrators' actions alone"`
}

func (q EventQuery) filter() desk.EventFilter {
	return desk.EventFilter{
		Types: q.Type, User: q.User, Machine: q.Machine, Outcome: q.Outcome, Reason: q.Reason, Scope: q.Scope, Service: q.Service,
		Link: q.Link, Factor: q.Factor, Actor: q.Actor, Address: q.Address, Text: q.Text, Since: q.Since, Until: q.Until, Actions: q.Actions,
	}
}

// events registers the event log.
func (x *door) events(mux *http.ServeMux) {
	d := x.desk
	add(x, op("list-events", "GET", "/events", "List events, the youngest first", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		EventQuery
	},
	) (*plain[rest.Page[rest.Event]], error) {
		return reply(d.ListEvents(ctx, a, in.filter(), in.After, in.Limit))
	})
	add(x, op("show-event", "GET", "/events/{event}", "Show an event", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Event string `path:"event" maxLength:"64"`
	},
	) (*plain[rest.Event], error) {
		return reply(d.ShowEvent(ctx, a, in.Event))
	})
	add(x, op("verify-events", "POST", "/events/verify", "Prove that no event is missing or edited", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.Verify }) (*plain[rest.Verified], error) {
		return reply(d.VerifyEvents(ctx, a, in.Body))
	})
	x.stream(mux)
}

// streamTime is how long a stream goes on before its reader has to ask again: so that a
// connection is never older than what it was opened with, and servers can be emptied.
var streamTime = 10 * time.Minute

// PlaceHeader names the place in the events where a stream begins, and as a trailer the
// one where it ended.
const PlaceHeader = "Latchkey-Place"

// stream is written by hand, because huma's own ends after five seconds: JSON
// lines, one event each, and an empty line now and then as a sign of life.
func (x *door) stream(mux *http.ServeMux) {
	const path = rest.Base + "/events/stream"
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		a, err := actor(r.Context())
		if err != nil {
			writeProblem(w, x.problem(r.Context(), err, false))
			return
		}
		f, tail, place, err := streamQuery(r)
		if err != nil {
			writeProblem(w, x.problem(r.Context(), err, false))
			return
		}
		c := http.NewResponseController(w)
		begun := false
		send := func(b []byte) error {
			if !begun {
				begun = true
				w.Header().Set("Content-Type", "application/jsonl")
				w.Header().Set("Cache-Control", "no-store")
				w.WriteHeader(http.StatusOK)
			}
			// A reader that takes nothing for a minute is gone. Some writers know no
			// deadline; then the listener's own counts.
			_ = c.SetWriteDeadline(clock.Deadline(time.Minute))
			if _, err := w.Write(append(b, '\n')); err != nil {
				return err
			}
			return c.Flush()
		}
		ctx, cancel := context.WithTimeout(r.Context(), streamTime)
		defer cancel()
		err = x.desk.FollowEventsFrom(ctx, a, f, place, tail, func(place string) {
			if begun { // a trailer
				w.Header().Set(http.TrailerPrefix+PlaceHeader, place)
			} else {
				w.Header().Set(PlaceHeader, place)
			}
		}, func(e rest.Event) error {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return send(b)
		}, func() error { return send(nil) })
		if !begun && err != nil && !errors.Is(err, context.Canceled) {
			w.Header().Del(PlaceHeader)
			writeProblem(w, x.problem(r.Context(), err, false))
		}
	})
	x.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "follow-events", Method: "GET", Path: path, Summary: "Follow events as they are written", Tags: []string{"events"},
		Parameters: append(filterParams(), &huma.Param{
			Name: "tail", In: "query", Description: "How many earlier events come first, 0 to 500", Schema: &huma.Schema{Type: huma.TypeInteger},
		}, &huma.Param{
			Name: "after", In: "query", Description: "Go on behind this place: the trailer or header Latchkey-Place of an earlier stream; without tail", Schema: &huma.Schema{Type: huma.TypeString},
		}),
		Responses: map[string]*huma.Response{
			"200": {
				Description: "One event a line; empty lines are signs of life. It ends after ten minutes: ask again with after and its trailer Latchkey-Place. If it broke off before, ask with the header of that name: what was given since comes again then, and you know it by its ids.",
				Content:     map[string]*huma.MediaType{"application/jsonl": {Schema: x.api.OpenAPI().Components.Schemas.Schema(eventType, true, "Event")}},
			},
		},
	})
}

// streamQuery reads the parameters of the stream, all faults at once.
func streamQuery(r *http.Request) (f desk.EventFilter, tail int, place string, err error) {
	bad := fault.New(fault.Invalid, nil)
	for name, values := range r.URL.Query() {
		v := values[0]
		switch name {
		case "tail":
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > rest.MaxPage {
				bad.With("tail", "%q is not allowed; allowed are 0 to %d", v, rest.MaxPage)
			}
			tail = n
		case "after":
			place = v
		default:
			if !setFilter(&f, bad, name, v) {
				bad.With(name, "there is no such parameter; allowed are tail, after, %s", filterNames)
			}
		}
		if len(values) > 1 {
			bad.With(name, "it stands twice")
		}
	}
	if len(bad.Fields) > 0 {
		return f, 0, "", bad
	}
	return f, tail, place, nil
}

var eventType = reflect.TypeFor[rest.Event]()

func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
