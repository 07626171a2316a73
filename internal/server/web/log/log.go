// Package log holds the console's pages about what happened: the list of events with its
// filters, named views, the stream that follows it live, exports, the page of one event
// with the trace of its decision, and administrators' actions.
//
// It promises: all filters stand in the address, so that a view can be sent to somebody;
// a page comes at once however many events there are, and says where it stopped looking;
// an export streams and never looks whole when it is not; no cell of a CSV file is a
// formula; and what somebody typed as a name is shown, never run.
//
// Rows: V1, V2, S13 (traces).
package log

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

const (
	streamTime = 10 * time.Minute
	exportTime = time.Hour
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	return []ui.Route{
		{Pattern: "GET /console/events", Serve: list},
		{Pattern: "GET /console/events/stream", Serve: stream, Slow: streamTime},
		{Pattern: "GET /console/events/export", Serve: export, Slow: exportTime},
		{Pattern: "POST /console/events/views", Serve: addView},
		{Pattern: "POST /console/events/views/{view}/remove", Serve: removeView},
		{Pattern: "GET /console/events/{event}", Serve: show},
		{Pattern: "GET /console/audit", Serve: audit},
	}
}

// names are the filters as they stand in the address.
var names = []string{"text", "type", "user", "machine", "outcome", "reason", "scope", "factor", "link", "actor", "address", "service", "since", "until"}

// filter is what was asked for, as it was typed.
type filter struct {
	base string
	set  map[string]string
}

func filterOf(r *ui.Request, base string) filter {
	f := filter{base: base, set: map[string]string{}}
	for _, n := range names {
		v := r.Value(n)
		if n == "type" {
			if all, err := r.Values(); err == nil {
				v = strings.Join(all["type"], ",")
			}
		}
		if v != "" {
			f.set[n] = v
		}
	}
	return f
}

func (f filter) get(name string) string { return f.set[name] }

// more is how many of the filters are set that are not seen at first.
func (f filter) more() (n int) {
	for _, name := range []string{"reason", "scope", "factor", "link", "actor", "address", "service"} {
		if f.set[name] != "" {
			n++
		}
	}
	return n
}

// query is the filters as they stand in an address, with further pairs.
func (f filter) query(pairs ...string) string {
	q := url.Values{}
	for k, v := range f.set {
		q.Set(k, v)
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q.Encode()
}

func (f filter) path(base string, pairs ...string) string {
	if q := f.query(pairs...); q != "" {
		return base + "?" + q
	}
	return base
}

// desk is the filter as the desk takes it; what is wrong with it is by field.
func (f filter) desk(faults map[string]string) desk.EventFilter {
	out := desk.EventFilter{
		User: f.set["user"], Machine: f.set["machine"], Outcome: f.set["outcome"], Reason: f.set["reason"], Scope: f.set["scope"], Service: f.set["service"],
		Link: f.set["link"], Factor: f.set["factor"], Actor: f.set["actor"], Address: f.set["address"], Text: f.set["text"],
	}
	for t := range strings.SplitSeq(f.set["type"], ",") {
		if t = strings.TrimSpace(t); t != "" {
			out.Types = append(out.Types, t)
		}
	}
	for name, to := range map[string]*time.Time{"since": &out.Since, "until": &out.Until} {
		if v := f.set[name]; v != "" {
			t, err := when(v)
			if err != nil {
				faults[name] = words.FaultTime
			}
			*to = t
		}
	}
	return out
}

// api is the filter as the API takes it.
func (f filter) api() string {
	var faults map[string]string = map[string]string{}
	x := f.desk(faults)
	q := url.Values{}
	for k, v := range f.set {
		q.Set(k, v)
	}
	for name, t := range map[string]time.Time{"since": x.Since, "until": x.Until} {
		if !t.IsZero() {
			q.Set(name, t.Format(time.RFC3339))
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// when reads a time of a form: UTC.
func when(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, nil)
}

func inForm(s string) string {
	t, err := when(s)
	if err != nil {
		return s
	}
	return strings.TrimSuffix(t.Format("2006-01-02T15:04:05"), ":00")
}

// listed is the page of the list.
type listed struct {
	f      filter
	page   rest.Page[rest.Event]
	after  string
	views  []rest.View
	faults map[string]string
	may    bool // share views
	view   map[string]string
	open   bool // the form for a new view
}

func list(r *ui.Request) error { return showList(r, nil, http.StatusOK) }

// showList shows the list, with what was wrong with a view that was to be saved.
func showList(r *ui.Request, view map[string]string, status int) error {
	l := listed{f: filterOf(r, "/console/events"), after: r.Value("after"), faults: map[string]string{}, may: r.Actor().Can("change"), view: view, open: view != nil}
	if view != nil {
		// The filters of the page on which the view was named.
		q, err := url.ParseQuery(r.Value("query"))
		if err != nil {
			return fault.New(fault.BadRequest, err)
		}
		l.f.set = map[string]string{}
		for _, n := range names {
			if v := strings.TrimSpace(q.Get(n)); v != "" {
				l.f.set[n] = v
			}
		}
		l.after = ""
	}
	in := l.f.desk(l.faults)
	var err error
	if len(l.faults) == 0 {
		l.page, err = r.Desk.ListEvents(r.Context(), r.Actor(), in, l.after, 0)
		if fault.Is(err, fault.Invalid) || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
			for name, what := range ui.Faults(err) {
				l.faults[name] = what
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	views, err := r.Desk.ListViews(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	l.views = views.Items
	if len(l.faults) > 0 {
		status = http.StatusUnprocessableEntity
	}
	return r.ShowStatus(status, ui.Page{
		Title: words.NavEvents, Section: "events", Wide: true, Actions: listActions(l),
		Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/events" + l.f.api()},
	}, listPage(l))
}

// stream follows the list: new events come as rows.
func stream(r *ui.Request) error {
	faults := map[string]string{}
	in := filterOf(r, "/console/events").desk(faults)
	in.Actions = r.Value("actions") != ""
	in.Since, in.Until = time.Time{}, time.Time{}
	if err := r.Desk.CheckExport(r.Context(), r.Actor(), desk.Export{Format: desk.CSV, Filter: in}); err != nil {
		return err
	}
	return r.Stream(func(ctx context.Context, send func(id string, c templ.Component) error) error {
		return r.Desk.FollowEvents(ctx, r.Actor(), in, 0, func(e rest.Event) error {
			if in.Actions {
				return send(e.ID, auditRow(e))
			}
			return send(e.ID, eventRow(e))
		}, func() error { return ctx.Err() })
	})
}

// export streams a file.
func export(r *ui.Request) error {
	faults := map[string]string{}
	x := desk.Export{Format: r.Value("format"), Filter: filterOf(r, "/console/events").desk(faults)}
	x.Filter.Actions = r.Value("actions") != ""
	if x.Format == "" {
		x.Format = desk.CSV
	}
	bad := fault.New(fault.Invalid, nil)
	for name, what := range faults {
		bad.With(name, "%s", what)
	}
	if len(bad.Fields) > 0 {
		return bad
	}
	if err := r.Desk.CheckExport(r.Context(), r.Actor(), x); err != nil {
		return err
	}
	h := r.W.Header()
	name := "latchkey-events-" + r.Clock.Now().UTC().Format("20060102-150405")
	if x.Format == desk.JSON {
		h.Set("Content-Type", "application/jsonl")
		name += ".jsonl"
	} else {
		h.Set("Content-Type", "text/csv; charset=utf-8; header=present")
		name += ".csv"
	}
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	c := http.NewResponseController(r.W)
	end := r.Clock.Now().Add(exportTime)
	step := func() error {
		if r.Clock.Now().After(end) {
			return fmt.Errorf("the export takes longer than %s", exportTime)
		}
		_ = c.SetWriteDeadline(clock.Deadline(time.Minute)) // who takes nothing for a minute is gone
		return c.Flush()
	}
	if _, _, err := r.Desk.ExportTo(r.Context(), r.Actor(), x, r.W, step); err != nil {
		r.Log.WarnContext(r.Context(), "an export broke off", "error", err)
		panic(http.ErrAbortHandler) // half a file must not look like a whole one
	}
	return nil
}

func addView(r *ui.Request) error {
	in := rest.NewView{Name: r.Value("name"), Query: r.Value("query"), Shared: r.Value("shared") != ""}
	// Only filters are kept: what else stands in an address is not for others.
	q, err := url.ParseQuery(in.Query)
	if err != nil {
		return fault.New(fault.BadRequest, err)
	}
	for k := range q {
		if !slices.Contains(names, k) {
			q.Del(k)
		}
	}
	in.Query = q.Encode()
	v, err := r.Desk.AddView(r.Context(), r.Actor(), in)
	if err != nil {
		if !ui.Refill(err) {
			return err
		}
		return showList(r, ui.Faults(err), fault.Of(err).Status())
	}
	return r.Go(viewPath(v), words.ViewSaved(v.Name))
}

func viewPath(v rest.View) string {
	if v.Query == "" {
		return "/console/events"
	}
	return "/console/events?" + v.Query
}

func removeView(r *ui.Request) error {
	if err := r.Desk.RemoveView(r.Context(), r.Actor(), r.PathValue("view")); err != nil {
		return err
	}
	return r.Go("/console/events", words.ViewRemoved)
}

// one is the page of an event.
type one struct {
	e       rest.Event
	trace   []policy.Step
	reports []policy.Report
	changes []rest.Difference
	took    string
	explain string // address of the explanation of the same sign-in now; empty: none
	data    string
}

func show(r *ui.Request) error {
	e, err := r.Desk.ShowEvent(r.Context(), r.Actor(), r.PathValue("event"))
	if err != nil {
		return err
	}
	x := one{e: e}
	var data struct {
		Trace    []policy.Step     `json:"trace"`
		Reports  []policy.Report   `json:"reports"`
		Changes  []rest.Difference `json:"changes"`
		Duration int64             `json:"duration_ms"`
		First    string            `json:"first"`
		Remote   bool              `json:"remote_seat"`
		RHost    string            `json:"rhost"`
		Past     *policy.Past      `json:"past"`
	}
	_ = json.Unmarshal(e.Data, &data) // what does not fit is shown as it is
	x.trace, x.reports, x.changes = data.Trace, data.Reports, data.Changes
	if data.Duration > 0 {
		x.took = (time.Duration(data.Duration) * time.Millisecond).String()
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if enc.Encode(e) == nil {
		x.data = b.String()
	}
	if strings.HasPrefix(e.Type, "signin.") && e.Subject != "" && e.MachineID != "" && e.Scope != "" && r.Actor().Can("read") {
		q := url.Values{"user": {e.Subject}, "machine": {e.MachineID}, "scope": {e.Scope}}
		set := func(k, v string) {
			if v != "" {
				q.Set(k, v)
			}
		}
		set("service", e.Service)
		set("link", e.Link)
		set("first", data.First)
		if a := data.Past; a != nil {
			if a.Peer.IsValid() {
				set("from", a.Peer.String())
			}
			set("boot", a.Boot)
			if a.UID != nil {
				set("uid", fmt.Sprint(*a.UID))
			}
		}
		if data.Remote {
			set("remote", "yes")
		}
		x.explain = "/console/explain?" + q.Encode()
	}
	return r.Show(ui.Page{
		Title: e.Type, Section: "events", Lead: meaning(e.Type), Crumbs: []ui.Crumb{{Text: words.NavEvents, Path: "/console/events"}},
		Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/events/" + e.ID},
	}, eventPage(x))
}

// meaning is what a type of event says, without what it says to readers of the raw event
// about its fields.
func meaning(t string) string {
	s := event.Meaning[event.Type(t)]
	if head, tail, ok := strings.Cut(s, "; "); ok && (strings.HasPrefix(tail, "data") || strings.HasPrefix(tail, "reason")) {
		return head + "."
	}
	return s
}

// audited is the page of administrators' actions.
type audited struct {
	f      filter
	page   rest.Page[rest.Event]
	after  string
	faults map[string]string
}

func audit(r *ui.Request) error {
	a := audited{f: filterOf(r, "/console/audit"), after: r.Value("after"), faults: map[string]string{}}
	in := a.f.desk(a.faults)
	in.Actions = true
	if len(a.faults) == 0 {
		var err error
		a.page, err = r.Desk.ListEvents(r.Context(), r.Actor(), in, a.after, 0)
		if fault.Is(err, fault.Invalid) || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
			a.faults = ui.Faults(err)
		} else if err != nil {
			return err
		}
	}
	status := http.StatusOK
	if len(a.faults) > 0 {
		status = http.StatusUnprocessableEntity
	}
	path := rest.Base + "/events" + a.f.api()
	if strings.Contains(path, "?") {
		path += "&actions=true"
	} else {
		path += "?actions=true"
	}
	return r.ShowStatus(status, ui.Page{
		Title: words.NavAudit, Section: "audit", Wide: true, Lead: words.AuditLead, Curl: &ui.Curl{Method: "GET", Path: path}, Actions: auditActions(a),
	}, auditPage(a))
}

// details are what an action changed, for people: before and after of each field, or what
// its event says.
func details(e rest.Event) []string {
	var data map[string]json.RawMessage
	if json.Unmarshal(e.Data, &data) != nil {
		return nil
	}
	var out []string
	var list []rest.Difference
	if json.Unmarshal(data["changes"], &list) == nil {
		for _, d := range list {
			out = append(out, fmt.Sprintf("%s: %s → %s", d.Field, plain(d.Old), plain(d.New)))
		}
	}
	keys := make([]string, 0, len(data))
	for k := range data {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		var pair struct {
			Old json.RawMessage `json:"old"`
			New json.RawMessage `json:"new"`
		}
		switch {
		case k == "changes" && list != nil:
		case k == "conversation" || string(data[k]) == "[]" || string(data[k]) == "{}":
			// It says nothing to people; the whole event is on its own page.
		case json.Unmarshal(data[k], &pair) == nil && (pair.Old != nil || pair.New != nil):
			out = append(out, fmt.Sprintf("%s: %s → %s", k, plain(pair.Old), plain(pair.New)))
		default:
			out = append(out, k+": "+plain(data[k]))
		}
	}
	return out
}

// plain is a value without the marks of JSON where it is a single word, cut where it is long.
func plain(v json.RawMessage) string {
	const most = 160
	var s string
	if json.Unmarshal(v, &s) != nil {
		s = string(v)
	}
	if s == "" || s == "null" {
		return "—"
	}
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// typeOptions are the types of the vocabulary and their beginnings.
func typeOptions(any string) []ui.Option {
	out := []ui.Option{{Label: any}}
	heads := map[string]bool{}
	var types []string
	for t := range event.Meaning {
		head, _, _ := strings.Cut(string(t), ".")
		heads[head+"."] = true
		types = append(types, string(t))
	}
	for h := range heads {
		types = append(types, h)
	}
	slices.Sort(types)
	for _, t := range types {
		label := t
		if strings.HasSuffix(t, ".") {
			label = t + " …"
		}
		out = append(out, ui.Option{Value: t, Label: label})
	}
	return out
}

func reasonOptions() []ui.Option {
	out := []ui.Option{{Label: words.EventsAnyReason}}
	var codes []string
	for c := range event.Reasons {
		codes = append(codes, c)
	}
	slices.Sort(codes)
	for _, c := range codes {
		out = append(out, ui.Option{Value: c, Label: c})
	}
	return out
}

func outcomeOptions() []ui.Option {
	return append([]ui.Option{{Label: words.EventsAnyOutcome}}, ui.Options("allow", "deny", "ignore", "abandoned", "added", "changed", "removed", "rolled-back", "noticed")...)
}

func scopeOptions() []ui.Option {
	out := []ui.Option{{Label: words.EventsAnyScope}}
	for _, s := range policy.Scopes {
		out = append(out, ui.Option{Value: string(s), Label: words.ScopeNames[string(s)]})
	}
	return out
}

func linkOptions() []ui.Option {
	return []ui.Option{
		{Label: words.EventsAnyLink},
		{Value: "up", Label: words.EventsUpLink},
		{Value: "down", Label: words.EventsDownLink},
		{Value: "refused", Label: words.EventsRefusedLink},
	}
}

func factorOptions() []ui.Option {
	out := []ui.Option{{Label: words.EventsAnyFactor}}
	for _, k := range append(slices.Clone(policy.Kinds), policy.Bypass) {
		out = append(out, ui.Option{Value: string(k), Label: words.DeskFactorKinds[string(k)]})
	}
	return out
}
