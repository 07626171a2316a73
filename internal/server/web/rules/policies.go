package rules

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// settings reads the settings of a policy; what does not parse shows as the defaults.
func settings(raw json.RawMessage) policy.Policy {
	p, _ := policy.Parse(raw)
	return p
}

func list(r *ui.Request) error {
	page, err := r.Desk.ListPolicies(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	p := ui.Page{Title: words.NavPolicies, Section: "policies", Lead: words.PolicyLead, Wide: true, Curl: &ui.Curl{Method: "GET", Path: api("/policies")}}
	may := r.Actor().Can("change")
	if may {
		p.Actions = ui.Button(ui.ButtonProps{Label: words.PolicyNew, Kind: "primary", Path: "/console/policies/new", Icon: "plus"})
	}
	return r.Show(p, listPage(page.Items, may))
}

// shown is everything that stands on a policy's page.
type shown struct {
	p       rest.Policy
	history []rest.PolicyVersion
	reports rest.PolicyReports
	may     bool
}

func (s shown) reportOnly() bool { return settings(s.p.Settings).ReportOnly && !s.p.Default }

func show(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	s := shown{p: p, may: r.Actor().Can("change")}
	h, err := r.Desk.PolicyHistory(r.Context(), r.Actor(), p.ID, "", 5)
	if err != nil {
		return err
	}
	s.history = h.Items
	if s.reportOnly() {
		if s.reports, err = r.Desk.PolicyReports(r.Context(), r.Actor(), p.ID, "", "", 1); err != nil {
			return err
		}
	}
	page := ui.Page{
		Title: p.Name, Section: "policies", Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}}, Wide: true,
		Curl: &ui.Curl{Method: "GET", Path: api("/policies/" + p.ID)},
	}
	switch {
	case p.Default:
		page.Badge = ui.Badge(ui.Neutral, words.PolicyDefault)
	case s.reportOnly():
		page.Badge = ui.Badge(ui.Info, words.PolicyReportOnly)
	}
	page.Actions = policyTry(s)
	if s.may {
		page.Actions = policyActions(s)
	}
	return r.Show(page, policyPage(s))
}

// part is one part of the settings for people.
type part struct {
	title string
	pairs []ui.Pair
}

func partsOf(raw json.RawMessage) []part {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(raw, &all)
	out := make([]part, parts)
	for i := range out {
		out[i].title = words.SettingParts[i][0]
	}
	for _, f := range fields {
		if f.part < parts {
			out[f.part].pairs = append(out[f.part].pairs, ui.Pair{Term: f.label(), Body: ui.Text(settingText(f.name, all[f.name]))})
		}
	}
	return out
}

// form is the editor.
type form struct {
	title   string
	action  string
	back    string
	d       draft
	faults  map[string]string
	groups  []string // all there are, if they are few
	many    bool     // there are more groups than fit as boxes
	rev     int64
	version int64
	clash   *rest.PolicyComparison
	isNew   bool
	ticked  bool // that people may be shut out
}

// fewGroups is how many groups are shown as boxes.
const fewGroups = 60

func (f *form) fault(name string) string { return f.faults[name] }

// load brings the groups.
func (f *form) load(r *ui.Request) error {
	page, err := r.Desk.ListGroups(r.Context(), r.Actor(), "", "", fewGroups+1)
	if err != nil {
		return err
	}
	if f.many = len(page.Items) > fewGroups; f.many {
		return nil
	}
	for _, g := range page.Items {
		f.groups = append(f.groups, g.Name)
	}
	return nil
}

func (f *form) page() ui.Page {
	p := ui.Page{Title: f.title, Section: "policies", Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}}}
	if !f.isNew {
		p.Crumbs = append(p.Crumbs, ui.Crumb{Text: f.d.Name, Path: f.back})
	}
	return p
}

// again shows the form with what was sent and what is wrong with it.
func (f *form) again(r *ui.Request, err error) error {
	if err != nil && !ui.Refill(err) {
		return err
	}
	if err := f.load(r); err != nil {
		return err
	}
	status := 200
	if err != nil {
		status = fault.Of(err).Status()
		for name, what := range ui.Faults(err) {
			name = strings.TrimPrefix(name, "settings.")
			name, _, _ = strings.Cut(name, "[") // entries of a list belong to its field
			if f.faults[name] != "" {
				what = f.faults[name] + "; " + what
			}
			f.faults[name] = what
		}
	} else if len(f.faults) > 0 {
		status = 422
	}
	return r.ShowStatus(status, f.page(), formPage(f))
}

func newForm() *form {
	return &form{title: words.PolicyNew, action: "/console/policies/new", back: "/console/policies", faults: map[string]string{}, isNew: true}
}

func newPolicy(r *ui.Request) error {
	if !r.Actor().Can("change") {
		return fault.New(fault.Forbidden, nil)
	}
	f := newForm()
	base, err := json.Marshal(policy.NewPolicy())
	if err != nil {
		return err
	}
	f.d = draftOf("", 100, nil, base, false)
	if ref := r.Value("copy"); ref != "" {
		p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), ref)
		if err != nil {
			return err
		}
		// Just before the one that is copied, so that it would win.
		f.d = draftOf(p.Name+" copy", max(1, p.Priority-1), p.Groups, p.Settings, false)
		if p.Default {
			f.d.Priority = "100"
		}
		if r.Value("report") != "" {
			f.d.Name, f.d.Values["report_only"] = p.Name+" trial", []string{"on"}
		}
	}
	return f.again(r, nil)
}

func sendNew(r *ui.Request) error { return send(r, newForm(), nil) }

func editForm(r *ui.Request) (*form, rest.Policy, error) {
	f := newForm()
	if !r.Actor().Can("change") {
		return nil, rest.Policy{}, fault.New(fault.Forbidden, nil)
	}
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return nil, p, err
	}
	f.title, f.isNew, f.back, f.action = words.EditTitle(p.Name), false, policyPath(p.ID), policyPath(p.ID, "edit")
	f.rev, f.version = p.Rev, p.Version
	f.d = draftOf(p.Name, p.Priority, p.Groups, p.Settings, p.Default)
	return f, p, nil
}

func edit(r *ui.Request) error {
	f, _, err := editForm(r)
	if err != nil {
		return err
	}
	return f.again(r, nil)
}

func sendEdit(r *ui.Request) error {
	f, p, err := editForm(r)
	if err != nil {
		return err
	}
	return send(r, f, &p)
}

// send takes the form: it is reviewed, tried or saved. p is the policy that is edited,
// nil for a new one.
func send(r *ui.Request, f *form, p *rest.Policy) error {
	if !r.Actor().Can("change") {
		return fault.New(fault.Forbidden, nil)
	}
	v, err := r.Values()
	if err != nil {
		return err
	}
	f.d = draftFrom(v, p != nil && p.Default)
	f.ticked = v.Get("shut_out") != ""
	f.rev, f.version = 0, 0
	if p != nil {
		f.rev, f.version = atLeast(v.Get("rev")), atLeast(v.Get("version"))
	}
	body := f.d.settings(f.faults)
	priority, err := strconv.ParseInt(f.d.Priority, 10, 64)
	if err != nil && !f.d.Default {
		f.faults["priority"] = words.FaultNumber
	}
	if len(f.faults) > 0 || v.Get("do") == "back" {
		return f.again(r, nil)
	}
	change := rest.PolicyChange{Name: &f.d.Name, Groups: &f.d.Groups, Settings: body, Comment: f.d.Comment}
	if f.d.Groups == nil {
		change.Groups = &[]string{}
	}
	ref := ""
	if !f.d.Default {
		change.Priority = &priority
	}
	if p != nil {
		ref = p.ID
	}
	preview, err := r.Desk.PreviewPolicy(r.Context(), r.Actor(), ref, change)
	if err != nil {
		return f.again(r, err)
	}
	if p != nil && f.rev != p.Rev {
		return f.clashed(r, *p)
	}
	curl := &ui.Curl{Method: "POST", Path: api("/policies"), Body: rest.NewPolicy{Name: f.d.Name, Priority: change.Priority, Groups: f.d.Groups, Settings: body, Comment: f.d.Comment}}
	if p != nil {
		curl = &ui.Curl{Method: "PATCH", Path: api("/policies/" + p.ID), Body: change}
	}
	page := f.page()
	page.Curl = curl
	switch v.Get("do") {
	case "save":
		if !r.Session.IsFresh(r.Clock.Now()) {
			page.Title = words.EditReviewTitle
			return r.ShowStatus(http.StatusForbidden, page, forms.Confirm(reviewPage(f, preview)))
		}
		change.ShutOut = accepted(v.Get)
		return f.save(r, p, change, priority, func(s *rest.ShutOut) error {
			preview.ShutOut, f.faults["shut_out"], page.Title = s, words.ShutFault, words.EditReviewTitle
			return r.ShowStatus(http.StatusConflict, page, reviewPage(f, preview))
		})
	case "shut-out":
		in := rest.ShutOutDraft{Policy: ref, Groups: change.Groups, Priority: change.Priority, Settings: body, After: v.Get("after")}
		if f.d.Default {
			in.Groups = nil
		}
		out, err := r.Desk.ListShutOut(r.Context(), r.Actor(), in)
		if err != nil {
			return f.again(r, err)
		}
		page.Title, page.Wide, page.Curl = words.ShutListTitle, true, &ui.Curl{Method: "POST", Path: api("/policies/shut-out"), Body: in}
		return r.Show(page, shutListPage(shutList{s: out, f: f}))
	case "try":
		in := rest.TryPolicy{Policy: ref, Groups: change.Groups, Priority: change.Priority, Settings: body}
		if f.d.Default {
			in.Groups = nil
		}
		out, err := r.Desk.TryPolicy(r.Context(), r.Actor(), in)
		if err != nil {
			return f.again(r, err)
		}
		page.Title, page.Wide, page.Curl = words.TryTitle, true, &ui.Curl{Method: "POST", Path: api("/policies/try"), Body: in}
		return r.Show(page, triedPage(tried{t: out, f: f, name: f.d.Name}))
	}
	page.Title = words.EditReviewTitle
	if p == nil {
		page.Title = words.EditReviewNew
	}
	return r.Show(page, reviewPage(f, preview))
}

func atLeast(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return -1 // the revision of nothing
	}
	return n
}

// save writes the form. What shuts out more people than were accepted is reviewed again.
func (f *form) save(r *ui.Request, p *rest.Policy, change rest.PolicyChange, priority int64, again func(s *rest.ShutOut) error) error {
	if p == nil {
		in := rest.NewPolicy{Name: f.d.Name, Priority: &priority, Groups: f.d.Groups, Settings: change.Settings, Comment: f.d.Comment, ShutOut: change.ShutOut}
		out, err := r.Desk.AddPolicy(r.Context(), r.Actor(), in)
		if s := aboutShutOut(err); s != nil {
			return again(s)
		}
		if err != nil {
			return f.again(r, err)
		}
		return r.Go(policyPath(out.ID), words.PolicyAddNote)
	}
	out, err := r.Desk.ChangePolicy(r.Context(), r.Actor(), p.ID, f.rev, change)
	if fault.Is(err, fault.Conflict) {
		now, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), p.ID)
		if err != nil {
			return err
		}
		return f.clashed(r, now)
	}
	if s := aboutShutOut(err); s != nil {
		return again(s)
	}
	if err != nil {
		return f.again(r, err)
	}
	return r.Go(policyPath(out.ID), words.PolicySaved(out.Name, out.Version))
}

// clashed shows the form with what somebody else has changed since it was opened: their
// change stands in the fields that this person has left as they were.
func (f *form) clashed(r *ui.Request, now rest.Policy) error {
	if f.version > 0 {
		c, err := r.Desk.ComparePolicies(r.Context(), r.Actor(), now.ID, f.version, 0)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		f.clash = &c
		for _, x := range c.Changes {
			f.d.merge(x)
		}
	}
	f.rev, f.version = now.Rev, now.Version
	if err := f.load(r); err != nil {
		return err
	}
	return r.ShowStatus(409, f.page(), formPage(f))
}

// merge takes over a change of somebody else where the form still has what was before.
func (d *draft) merge(x rest.Difference) {
	switch x.Field {
	case "name":
		if was := text(x.Old); d.Name == was {
			d.Name = text(x.New)
		}
	case "priority":
		if d.Priority == string(x.Old) {
			d.Priority = string(x.New)
		}
	case "groups":
		var was, is []string
		_ = json.Unmarshal(x.Old, &was)
		_ = json.Unmarshal(x.New, &is)
		mine := slices.Clone(d.Groups)
		slices.Sort(mine)
		if slices.Equal(mine, was) {
			d.Groups = is
		}
	default:
		f, ok := fieldOf(x.Field)
		if !ok {
			return
		}
		mine, _ := f.value(d.Values[f.name])
		was, _ := f.value(f.raw(x.Old))
		if string(mine) == string(was) {
			d.Values[f.name] = f.raw(x.New)
		}
	}
}

func text(v json.RawMessage) string {
	var s string
	_ = json.Unmarshal(v, &s)
	return s
}

func remove(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	err = r.Desk.RemovePolicy(r.Context(), r.Actor(), p.ID, atLeast(r.Value("rev")), accepted(r.Value))
	if s := aboutShutOut(err); s != nil {
		return refused{
			s: s, title: words.PolicyRemoveTitle, action: policyPath(p.ID, "remove"), button: words.PolicyRemove,
			fields: [][2]string{{"rev", r.Value("rev")}}, list: map[string]string{"remove": "yes"},
		}.show(r, p)
	}
	if err != nil {
		return err
	}
	return r.Go("/console/policies", words.PolicyRemoved(p.Name))
}

// versions is the page of a policy's history.
type versions struct {
	p      rest.Policy
	page   rest.Page[rest.PolicyVersion]
	after  string
	from   string
	to     string
	diff   *rest.PolicyComparison
	faults map[string]string
	may    bool
}

func history(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	v := versions{p: p, after: r.Value("after"), from: r.Value("from"), to: r.Value("to"), may: r.Actor().Can("change"), faults: map[string]string{}}
	if v.page, err = r.Desk.PolicyHistory(r.Context(), r.Actor(), p.ID, v.after, 0); err != nil {
		return err
	}
	status := 200
	curl := &ui.Curl{Method: "GET", Path: api("/policies/" + p.ID + "/versions")}
	if v.from != "" || v.to != "" {
		from, to := atLeast(v.from), atLeast(v.to)
		for name, n := range map[string]int64{"from": from, "to": to} {
			if n < 0 {
				v.faults[name] = words.FaultNumber
			}
		}
		if len(v.faults) == 0 {
			c, err := r.Desk.ComparePolicies(r.Context(), r.Actor(), p.ID, from, to)
			switch {
			case fault.Is(err, fault.NotFound):
				v.faults[""] = fault.Of(err).Public()
			case err != nil:
				return err
			default:
				v.diff = &c
				curl.Path = query(api("/policies/"+p.ID+"/compare"), "from", v.from, "to", v.to)
			}
		}
		if len(v.faults) > 0 {
			status = 422
		}
	}
	return r.ShowStatus(status, ui.Page{
		Title: words.PolicyHistory, Section: "policies", Wide: true, Curl: curl,
		Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}, {Text: p.Name, Path: policyPath(p.ID)}},
	}, historyPage(v))
}

func rollback(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	version := atLeast(r.Value("version"))
	out, err := r.Desk.RollbackPolicy(r.Context(), r.Actor(), p.ID, atLeast(r.Value("rev")), rest.Rollback{Version: version, Comment: r.Value("comment"), ShutOut: accepted(r.Value)})
	if s := aboutShutOut(err); s != nil {
		return refused{
			s: s, title: words.RollbackTitle(version), action: policyPath(p.ID, "rollback"), button: words.HistoryRollback,
			fields: [][2]string{{"rev", r.Value("rev")}, {"version", r.Value("version")}, {"comment", r.Value("comment")}},
			list:   map[string]string{"version": r.Value("version")},
		}.show(r, p)
	}
	if err != nil {
		return err
	}
	return r.Go(policyPath(p.ID), words.PolicyRolled(out.Name, version, out.Version))
}

// tryVersion tries an older version, or a policy as it stands: one that only reports is
// tried as if it were in force.
func tryVersion(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	in := rest.TryPolicy{Policy: p.ID}
	if v := r.Value("version"); v != "" {
		in.Version = max(0, atLeast(v))
	}
	out, err := r.Desk.TryPolicy(r.Context(), r.Actor(), in)
	if err != nil {
		return err
	}
	return r.Show(ui.Page{
		Title: words.TryTitle, Section: "policies", Wide: true, Curl: &ui.Curl{Method: "POST", Path: api("/policies/try"), Body: in},
		Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}, {Text: p.Name, Path: policyPath(p.ID)}},
	}, triedPage(tried{t: out, name: p.Name, version: in.Version}))
}

// tried is the page of a trial; f is the form to go on with, if there is one.
type tried struct {
	t       rest.Tried
	f       *form
	name    string
	version int64
}

type reported struct {
	p      rest.Policy
	r      rest.PolicyReports
	change string
	after  string
}

func reports(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	x := reported{p: p, change: r.Value("change"), after: r.Value("after")}
	if x.r, err = r.Desk.PolicyReports(r.Context(), r.Actor(), p.ID, x.change, x.after, 0); err != nil {
		return err
	}
	if x.change == "" && len(x.r.Counts) > 0 {
		x.change = x.r.Counts[0].Change
	}
	return r.Show(ui.Page{
		Title: words.PolicyReports, Section: "policies", Wide: true, Lead: words.PolicyReportsSince,
		Curl:   &ui.Curl{Method: "GET", Path: query(api("/policies/"+p.ID+"/reports"), "change", x.change)},
		Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}, {Text: p.Name, Path: policyPath(p.ID)}},
	}, reportsPage(x))
}

// changeKind is how a change looks.
func changeKind(c string) string {
	switch policy.Change(c) {
	case policy.DeniedNow:
		return ui.Bad
	case policy.AskedToEnrol, policy.AskedMore, policy.AskedLess, policy.AllowedNow:
		return ui.Warn
	case policy.OtherFactors:
		return ui.Info
	}
	return ui.Neutral
}

func warningKind(p policy.Policy) string {
	if p.Offline == policy.OfflineBypass {
		return ui.Bad
	}
	return ui.Warn
}
