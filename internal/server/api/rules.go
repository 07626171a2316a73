package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

// rules registers trials, previews and reports of policies, named lists of events and
// their export.
func (x *door) rules(mux *http.ServeMux) {
	d := x.desk
	add(x, op("try-policy", "POST", "/policies/try", "Try a draft of a policy against the last days' sign-ins", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.TryPolicy }) (*plain[rest.Tried], error) {
		return reply(d.TryPolicy(ctx, a, in.Body))
	})
	add(x, op("list-shut-out", "POST", "/policies/shut-out", "List whom a draft of a policy would shut out, or who is shut out now", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.ShutOutDraft }) (*plain[rest.ShutOut], error) {
		return reply(d.ListShutOut(ctx, a, in.Body))
	})
	add(x, op("preview-new-policy", "POST", "/policies/preview", "What a new policy would be, against the defaults", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.PolicyChange }) (*plain[rest.PolicyPreview], error) {
		return reply(d.PreviewPolicy(ctx, a, "", in.Body))
	})
	add(x, op("preview-policy", "POST", "/policies/{policy}/preview", "What a change of a policy would write", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		Body rest.PolicyChange
	},
	) (*plain[rest.PolicyPreview], error) {
		return reply(d.PreviewPolicy(ctx, a, in.Policy, in.Body))
	})
	add(x, op("compare-policy-versions", "GET", "/policies/{policy}/compare", "Compare two versions of a policy", 0), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		From int64 `query:"from" minimum:"0" doc:"Version; 0 or absent: the present one"`
		To   int64 `query:"to" minimum:"0" doc:"Version; 0 or absent: the present one"`
	},
	) (*plain[rest.PolicyComparison], error) {
		return reply(d.ComparePolicies(ctx, a, in.Policy, in.From, in.To))
	})
	add(x, op("list-policy-reports", "GET", "/policies/{policy}/reports", "What a policy that only reports would have decided", 0), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		Paged
		Change string `query:"change" maxLength:"32" doc:"denied, asked-to-enrol, asked-more, asked-less, no-longer-denied, other-factors or same; absent: the gravest there is"`
	},
	) (*plain[rest.PolicyReports], error) {
		return reply(d.PolicyReports(ctx, a, in.Policy, in.Change, in.After, in.Limit))
	})
	add(x, op("show-effective-policy", "GET", "/users/{user}/policy", "Which policy holds for a user, and why", 0), func(ctx context.Context, a desk.Actor, in *struct {
		User    string `path:"user" maxLength:"512" doc:"Name or id"`
		Machine string `query:"machine" maxLength:"512" doc:"As it holds on this machine: name, number or id"`
	},
	) (*plain[rest.Effective], error) {
		return reply(d.EffectivePolicy(ctx, a, in.User, in.Machine))
	})
	add(x, op("list-views", "GET", "/events/views", "List named lists of events: one's own and the shared ones", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Page[rest.View]], error) {
		return reply(d.ListViews(ctx, a))
	})
	add(x, op("add-view", "POST", "/events/views", "Give a list of events a name", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewView }) (*plain[rest.View], error) {
		return reply(d.AddView(ctx, a, in.Body))
	})
	add(x, op("remove-view", "DELETE", "/events/views/{view}", "Forget a named list of events", 0), func(ctx context.Context, a desk.Actor, in *struct {
		View string `path:"view" maxLength:"64"`
	},
	) (*empty, error) {
		return nil, d.RemoveView(ctx, a, in.View)
	})
	x.export(mux)
}

// export is written by hand, because it streams: the answer is never whole in memory.
func (x *door) export(mux *http.ServeMux) {
	const path = rest.Base + "/events/export"
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		a, err := actor(r.Context())
		if err != nil {
			writeProblem(w, x.problem(r.Context(), err, false))
			return
		}
		e, err := exportQuery(r)
		if err == nil {
			err = x.desk.CheckExport(r.Context(), a, e)
		}
		if err != nil {
			writeProblem(w, x.problem(r.Context(), err, false))
			return
		}
		kind := "text/csv; charset=utf-8; header=present"
		if e.Format == desk.JSON {
			kind = "application/jsonl"
		}
		c := http.NewResponseController(w)
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "no-store")
		h.Set("Trailer", "Latchkey-Events, Latchkey-More")
		_ = c.SetWriteDeadline(clock.Deadline(time.Minute))
		n, more, err := x.desk.ExportTo(r.Context(), a, e, w, func() error {
			_ = c.SetWriteDeadline(clock.Deadline(time.Minute)) // a reader that takes nothing for a minute is gone
			return c.Flush()
		})
		if err != nil {
			x.log.WarnContext(r.Context(), "an export broke off", "events", n, "error", err)
			panic(http.ErrAbortHandler) // half a file must not look like a whole one
		}
		h.Set("Latchkey-Events", strconv.Itoa(n))
		h.Set("Latchkey-More", strconv.FormatBool(more))
	})
	text := func(name, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	x.api.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "export-events", Method: "GET", Path: path, Summary: "Export events, the youngest first", Tags: []string{"events"},
		Parameters: append([]*huma.Param{
			text("format", "csv (default) or json: one object a line"),
			{Name: "limit", In: "query", Description: "How many at most; absent: 1000000, which is the bound", Schema: &huma.Schema{Type: huma.TypeInteger}},
		}, filterParams()...),
		Responses: map[string]*huma.Response{
			"200": {
				Description: "The events. The trailer Latchkey-Events says how many, Latchkey-More whether the bound ended it. In CSV a cell that begins like a formula has an apostrophe before it.",
				Content: map[string]*huma.MediaType{
					"text/csv":          {Schema: &huma.Schema{Type: huma.TypeString}},
					"application/jsonl": {Schema: x.api.OpenAPI().Components.Schemas.Schema(eventType, true, "Event")},
				},
			},
		},
	})
}

// filterParams describes the filters of events, where huma does not.
func filterParams() []*huma.Param {
	text := func(name, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return []*huma.Param{
		text("type", "As in list-events"), text("user", "Only of this user"), text("machine", "Only on this machine"), text("outcome", "Only with this outcome"),
		text("reason", "Only with this reason"), text("scope", "logon, elevation or remote"), text("service", "Only through this service"), text("link", "up, down or refused"),
		text("factor", "Only with this factor"), text("actor", "Only by this one"), text("address", "Only from this address"), text("text", "As in list-events"),
		text("since", "At the source, inclusive: RFC 3339"), text("until", "Exclusive"), text("actions", "true: administrators' actions alone"),
	}
}

// setFilter takes one parameter of a filter; false if it is none.
func setFilter(f *desk.EventFilter, bad *fault.Fault, name, v string) bool {
	when := func(to *time.Time) {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			bad.With(name, "it is no time; allowed is RFC 3339, such as 2026-11-22T10:00:00Z")
		}
		*to = t
	}
	switch name {
	case "type":
		f.Types = splitList(v)
	case "user":
		f.User = v
	case "machine":
		f.Machine = v
	case "outcome":
		f.Outcome = v
	case "reason":
		f.Reason = v
	case "scope":
		f.Scope = v
	case "service":
		f.Service = v
	case "link":
		f.Link = v
	case "factor":
		f.Factor = v
	case "actor":
		f.Actor = v
	case "address":
		f.Address = v
	case "text":
		f.Text = v
	case "since":
		when(&f.Since)
	case "until":
		when(&f.Until)
	case "actions":
		switch v {
		case "true":
			f.Actions = true
		case "", "false":
		default:
			bad.With(name, "allowed are true and false")
		}
	default:
		return false
	}
	return true
}

const filterNames = "type, user, machine, outcome, reason, scope, service, link, factor, actor, address, text, since, until, actions"

// exportQuery reads the parameters of an export, all faults at once.
func exportQuery(r *http.Request) (desk.Export, error) {
	e := desk.Export{Format: desk.CSV}
	bad := fault.New(fault.Invalid, nil)
	for name, values := range r.URL.Query() {
		v := values[0]
		switch name {
		case "format":
			e.Format = v
		case "limit":
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				bad.With("limit", "it is no number of events; allowed are 1 to %d", rest.MaxExport)
			}
			e.Most = n
		default:
			if !setFilter(&e.Filter, bad, name, v) {
				bad.With(name, "there is no such parameter; allowed are format, limit, %s", filterNames)
			}
		}
		if len(values) > 1 {
			bad.With(name, "it stands twice")
		}
	}
	if len(bad.Fields) > 0 {
		return e, bad
	}
	return e, nil
}
