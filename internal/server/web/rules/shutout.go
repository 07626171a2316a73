package rules

import (
	"encoding/json"
	"net/http"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// accepted is how many people somebody has accepted to shut out, who has seen how many
// they are and ticked the box; 0 is nobody.
func accepted(v func(name string) string) int64 {
	if v("shut_out") == "" {
		return 0
	}
	return max(0, atLeast(v("shut_out_people")))
}

// aboutShutOut is whom a refused change would have shut out; nil if it was refused for
// something else.
func aboutShutOut(err error) *rest.ShutOut {
	if !fault.Is(err, fault.ShutsOut) {
		return nil
	}
	var s rest.ShutOut
	if json.Unmarshal(fault.Of(err).About, &s) != nil || s.People < 1 {
		return nil
	}
	return &s
}

// refused is a change without an editor that shuts people out: it is asked for once more,
// with a box to tick.
type refused struct {
	s      *rest.ShutOut
	title  string
	action string
	fields [][2]string
	button string
	list   map[string]string // what the whole list is asked with
	path   string
	back   string
	ticked bool // more are shut out than were when it was ticked
}

func (x refused) faults() map[string]string {
	if x.ticked {
		return map[string]string{"shut_out": words.ShutFault}
	}
	return nil
}

func (x refused) show(r *ui.Request, p rest.Policy) error {
	x.ticked, x.back, x.path = r.Value("shut_out") != "", policyPath(p.ID), policyPath(p.ID, "shut-out")
	return r.ShowStatus(http.StatusConflict, ui.Page{
		Title: x.title, Section: "policies",
		Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}, {Text: p.Name, Path: policyPath(p.ID)}},
	}, shutPage(x))
}

// shutList is the page of everybody whom a change shuts out, or who is shut out now; f is
// the form to go on with, if there is one.
type shutList struct {
	s               rest.ShutOut
	f               *form
	path            string // of the page, where there is no form
	version, remove string // what it is asked with
	now             bool
}

func (x shutList) where(w rest.ShutOutUser) []policy.Place {
	if x.now {
		return w.Where
	}
	return w.New
}

// fields are what the page is asked with, behind after.
func (x shutList) fields(after string) map[string]string {
	m := map[string]string{}
	for name, v := range map[string]string{"version": x.version, "remove": x.remove, "after": after} {
		if v != "" {
			m[name] = v
		}
	}
	return m
}

// shutOut lists who is shut out under a policy now, or would be by an older version
// (version) or without it (remove). It is no link, because it asks about everybody.
func shutOut(r *ui.Request) error {
	p, err := r.Desk.ShowPolicy(r.Context(), r.Actor(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	in := rest.ShutOutDraft{Policy: p.ID, After: r.Value("after"), Remove: r.Value("remove") != ""}
	if v := r.Value("version"); v != "" {
		in.Version = max(0, atLeast(v))
	}
	in.All = !in.Remove && in.Version == 0
	x := shutList{now: in.All, path: policyPath(p.ID, "shut-out"), version: r.Value("version"), remove: r.Value("remove")}
	if x.s, err = r.Desk.ListShutOut(r.Context(), r.Actor(), in); err != nil {
		return err
	}
	title := words.ShutListTitle
	if x.now {
		title = words.ShutNowTitle
	}
	return r.Show(ui.Page{
		Title: title, Section: "policies", Wide: true, Curl: &ui.Curl{Method: "POST", Path: api("/policies/shut-out"), Body: in},
		Crumbs: []ui.Crumb{{Text: words.NavPolicies, Path: "/console/policies"}, {Text: p.Name, Path: policyPath(p.ID)}},
	}, shutListPage(x))
}
