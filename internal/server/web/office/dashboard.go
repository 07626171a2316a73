package office

import (
	"net/url"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// dash is what the dashboard shows.
type dash struct {
	rest.Dashboard
	status rest.Status
	ready  string // why the server is not; empty if it is
	may    func(string) bool
	// factorless tells whether somebody has no authenticator yet; asked for while the
	// first steps are shown.
	factorless bool
	approvals  int64 // that wait for this owner's word (E3)
}

func dashboard(r *ui.Request) error {
	d, err := r.Desk.Dashboard(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	s, err := r.Desk.Status(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	v := dash{Dashboard: d, status: s, may: r.Actor().Can}
	if v.isNew() && v.may("change") {
		page, err := r.Desk.ListUsers(r.Context(), r.Actor(), desk.UserFilter{State: rest.UserUnenrolled}, "", 1)
		if err != nil {
			return err
		}
		v.factorless = len(page.Items) > 0
	}
	if a := r.Actor(); a.Role == rest.RoleOwner {
		list, err := r.Sessions.ListApprovals(r.Context(), a)
		if err != nil {
			return err
		}
		for _, x := range list {
			if x.State == session.StateAsked && x.RequesterID != a.UserID && x.SubjectID != a.UserID {
				v.approvals++
			}
		}
	}
	if r.NotReady != nil {
		v.ready = r.NotReady(r.Context())
	}
	return r.Show(ui.Page{
		Title: words.NavDashboard, Section: "dashboard", Wide: true, Lead: words.DashLead,
		Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/dashboard"},
	}, dashboardPage(v))
}

// isNew tells whether the first steps are still to be done.
func (d dash) isNew() bool {
	return d.Users <= 1 || d.Machines == 0 || d.Week.Allowed == 0 && d.Week.Denied == 0
}

// waits tells whether something waits for somebody.
func (d dash) waits() bool {
	return d.Locked+d.Pending+d.Reports+d.approvals > 0
}

// events is the list of events of these types, back so far.
func events(back string, types ...string) string {
	return "/console/events?" + url.Values{"type": types, "since": {back}}.Encode()
}

const (
	day  = "24h"
	week = "168h"
)

// tone is a kind that speaks up when there is something.
func tone(n int64, kind string) string {
	if n > 0 {
		return kind
	}
	return ui.Neutral
}

// chart is the hours as bars. The labels are UTC; so are the ticks.
func chart(d dash, hours int) ui.BarsProps {
	list := d.Hours
	if len(list) > hours {
		list = list[len(list)-hours:]
	}
	p := ui.BarsProps{Title: words.DashChart, Height: 120}
	if hours <= 24 {
		p.Title = words.DashChart24
	}
	step := 1
	if hours > 72 { // bars of a week hold three hours each, so that they can be told apart
		step = 3
	}
	allowed := ui.Series{Label: words.DashSignins, Kind: ui.Info}
	left := ui.Series{Label: words.DashLeft, Kind: ui.Neutral}
	denied := ui.Series{Label: words.DashDenied, Kind: ui.Bad}
	for i := 0; i < len(list); i += step {
		var sum rest.Activity
		for _, h := range list[i:min(i+step, len(list))] {
			sum.Add(h.Activity)
		}
		at := list[i].At
		p.Labels = append(p.Labels, at.Format("Mon 2006-01-02 15:04")+" UTC")
		switch {
		case hours > 24 && at.Hour() < step:
			p.Ticks = append(p.Ticks, at.Format("Mon 2"))
		case hours <= 24 && at.Hour()%4 == 0:
			p.Ticks = append(p.Ticks, at.Format("15:04"))
		}
		allowed.Values = append(allowed.Values, sum.Allowed)
		left.Values = append(left.Values, sum.Left)
		denied.Values = append(denied.Values, sum.Denied)
	}
	p.Series = []ui.Series{allowed, left, denied}
	return p
}

// span writes a duration of the API for people.
func span(s string) string {
	d, err := time.ParseDuration(s)
	if err != nil {
		return s
	}
	return ui.Span(d)
}

// stuckNumber is how many would be stuck, "more than" where counting was cut off.
func stuckNumber(d dash) string {
	n := ui.Count(d.Stuck.Count)
	if d.Stuck.More {
		return "> " + n
	}
	return n
}
