package rules

import (
	"strconv"
	"strings"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// question is the form of the page "explain", and its answer.
type question struct {
	user, machine, scope, service, from, at, link, first, uid, boot string
	remote                                                          bool
	nokey, nophone                                                  bool // the machine can not ask for these
	faults                                                          map[string]string
	answer                                                          *rest.Explained
	path                                                            string   // of this very question
	machines                                                        []string // that the user knows, to choose from
}

func (q question) more() bool {
	return q.remote || q.nokey || q.nophone || q.uid != "" || q.boot != "" || q.first != "" && q.first != string(policy.FirstServer) || q.service != ""
}

func explainTabs(current string) []ui.Link {
	_ = current
	return []ui.Link{
		{Section: "signin", Text: words.ExplainTab, Path: "/console/explain"},
		{Section: "policy", Text: words.EffectiveTab, Path: "/console/explain/policy"},
	}
}

// explain answers "why was this user (not) prompted?" (S13). All of the question stands
// in the address.
func explain(r *ui.Request) error {
	q := question{
		user: r.Value("user"), machine: r.Value("machine"), scope: r.Value("scope"), service: r.Value("service"), from: r.Value("from"), at: r.Value("at"),
		link: r.Value("link"), first: r.Value("first"), uid: r.Value("uid"), boot: r.Value("boot"), remote: r.Value("remote") != "", nokey: r.Value("nokey") != "", nophone: r.Value("nophone") != "", faults: map[string]string{},
	}
	page := ui.Page{Title: words.NavExplain, Section: "explain", Lead: words.ExplainLead}
	if !r.Actor().Can("read") {
		return fault.New(fault.Forbidden, nil)
	}
	if q.scope == "" {
		q.scope = string(policy.Logon)
	}
	q.machines = machinesOf(r, q.user)
	if given := r.URL.Query(); !given.Has("machine") || !given.Has("user") || q.user == "" && q.machine == "" {
		// Opened from a user's or a machine's page: the question is not asked yet.
		return r.Show(page, explainPage(q))
	}
	in := rest.Explain{
		User: q.user, Machine: q.machine, Scope: q.scope, Service: q.service, From: q.from, Remote: q.remote, First: q.first, Boot: q.boot,
		Offline: q.link == string(policy.LinkDown),
	}
	if q.link != "" && q.link != string(policy.LinkUp) && q.link != string(policy.LinkDown) {
		q.faults["link"] = words.FaultChoice
	}
	if q.at != "" {
		t, err := when(q.at)
		if err != nil {
			q.faults["at"] = words.FaultTime
		}
		in.At = t
	}
	if q.uid != "" {
		n, err := strconv.ParseInt(q.uid, 10, 64)
		if err != nil {
			q.faults["uid"] = words.FaultNumber
		}
		in.UID = &n
	}
	if q.nokey {
		in.Cannot = append(in.Cannot, string(policy.FIDO2))
	}
	if q.nophone {
		in.Cannot = append(in.Cannot, string(policy.Push))
	}
	set := func(on bool) string {
		if on {
			return "yes"
		}
		return ""
	}
	q.path = query("/console/explain", "user", q.user, "machine", q.machine, "scope", q.scope, "service", q.service, "from", q.from, "at", q.at, "link", q.link,
		"first", q.first, "uid", q.uid, "boot", q.boot, "remote", set(q.remote), "nokey", set(q.nokey), "nophone", set(q.nophone))
	page.Curl = &ui.Curl{Method: "POST", Path: api("/explain"), Body: in}
	if len(q.faults) > 0 {
		return r.ShowStatus(422, page, explainPage(q))
	}
	x, err := r.Desk.Explain(r.Context(), r.Actor(), in)
	switch {
	case fault.Is(err, fault.Invalid), fault.Is(err, fault.Conflict), fault.Is(err, fault.NotFound):
		for name, what := range ui.Faults(err) {
			q.faults[name] = what
		}
		return r.ShowStatus(422, page, explainPage(q))
	case err != nil:
		return err
	}
	q.answer = &x
	return r.Show(page, explainPage(q))
}

// chooseFrom bounds the machines that are offered.
const chooseFrom = 50

// machinesOf are the machines that the user knows, to choose from. It is an offer: where
// there is none, the name is typed.
func machinesOf(r *ui.Request, user string) []string {
	if user == "" {
		return nil
	}
	page, err := r.Desk.ListMachines(r.Context(), r.Actor(), desk.MachineFilter{User: user}, "", chooseFrom)
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range page.Items {
		out = append(out, m.Name)
	}
	return out
}

// when reads a time of a form or of an event: UTC.
func when(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, nil)
}

// inForm is a time as an input of a form takes it.
func inForm(s string) string {
	t, err := when(s)
	if err != nil {
		return s
	}
	return strings.TrimSuffix(t.Format("2006-01-02T15:04:05"), ":00")
}

// holds is the form of the page of a user's policy, and its answer.
type holds struct {
	user, machine string
	faults        map[string]string
	answer        *rest.Effective
}

func effective(r *ui.Request) error {
	h := holds{user: r.Value("user"), machine: r.Value("machine"), faults: map[string]string{}}
	page := ui.Page{Title: words.EffectiveTitle, Section: "explain"}
	if h.user == "" {
		if !r.Actor().Can("read") {
			return fault.New(fault.Forbidden, nil)
		}
		if h.machine != "" {
			h.faults["user"] = words.FaultMissing
			return r.ShowStatus(422, page, effectivePage(h))
		}
		return r.Show(page, effectivePage(h))
	}
	x, err := r.Desk.EffectivePolicy(r.Context(), r.Actor(), h.user, h.machine)
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict):
		h.faults[""] = fault.Of(err).Public()
		return r.ShowStatus(422, page, effectivePage(h))
	case err != nil:
		return err
	}
	h.answer = &x
	page.Curl = &ui.Curl{Method: "GET", Path: query(api("/users/"+x.UserID+"/policy"), "machine", h.machine)}
	return r.Show(page, effectivePage(h))
}
