package portal

import (
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

func machines(r *ui.Request) error {
	l, err := r.Desk.ListOwnMachines(r.Context(), r.Actor(), r.Value("after"), 0)
	if err != nil {
		return err
	}
	p := ui.Page{Title: words.MyMachinesTitle, Lead: words.MyMachinesLead, Section: "machines", Wide: true}
	return r.Show(p, machinesPage(l.Items, next("/me/machines", l.Next), start(r, "/me/machines")))
}

// showMachine shows one with what can be done about it; told and faults are those of
// the report that was sent.
func showMachine(r *ui.Request, status int, told string, faults map[string]string) error {
	m, err := r.Desk.ShowOwnMachine(r.Context(), r.Actor(), r.PathValue("machine"))
	if err != nil {
		return err
	}
	p := ui.Page{Title: m.Name, Section: "machines", Crumbs: []ui.Crumb{toMachines}, Badge: statusBadge(m)}
	return r.ShowStatus(status, p, machinePage(m, told, faults))
}

func machine(r *ui.Request) error { return showMachine(r, 200, "", nil) }

func disenrol(r *ui.Request) error {
	d, err := r.Desk.DisenrolOwn(r.Context(), r.Actor(), r.PathValue("machine"))
	if err != nil {
		return err
	}
	said := words.MyMachineDisenrolled
	if d.Count == 0 {
		said = words.MyMachineNoneThere
	}
	return r.Go("/me/machines/"+r.PathValue("machine"), said)
}

func loseMachine(r *ui.Request) error {
	told := r.Value("told")
	got, err := r.Desk.LoseOwnMachine(r.Context(), r.Actor(), r.PathValue("machine"), rest.NewReport{Told: told})
	switch {
	case err == nil:
	case ui.Refill(err):
		return showMachine(r, fault.Of(err).Status(), told, ui.Faults(err))
	default:
		return err
	}
	p := ui.Page{Title: words.MyMachineLost, Lead: words.MyLostDone(got.Revoked), Section: "machines", Crumbs: []ui.Crumb{toMachines}}
	return r.Show(p, lostPage(got))
}

// ── sign-ins ──

func signins(r *ui.Request) error {
	l, err := r.Desk.ListOwnSignins(r.Context(), r.Actor(), r.Value("after"), 0)
	if err != nil {
		return err
	}
	p := ui.Page{Title: words.MySigninsTitle, Lead: words.MySigninsLead, Section: "signins", Wide: true}
	return r.Show(p, signinsPage(l.Items, next("/me/signins", l.Next), start(r, "/me/signins")))
}

func showSignin(r *ui.Request, status int, told string, faults map[string]string) error {
	s, err := r.Desk.ShowOwnSignin(r.Context(), r.Actor(), r.PathValue("signin"))
	if err != nil {
		return err
	}
	p := ui.Page{Title: words.MySigninTitle, Section: "signins", Crumbs: []ui.Crumb{toSignins}, Badge: resultBadge(s)}
	return r.ShowStatus(status, p, signinPage(s, told, faults))
}

func signin(r *ui.Request) error { return showSignin(r, 200, "", nil) }

func reportSignin(r *ui.Request) error {
	told := r.Value("told")
	_, err := r.Desk.ReportOwnSignin(r.Context(), r.Actor(), r.PathValue("signin"), rest.NewReport{Told: told})
	switch {
	case err == nil:
	case ui.Refill(err):
		return showSignin(r, fault.Of(err).Status(), told, ui.Faults(err))
	default:
		return err
	}
	me, err := r.Desk.Me(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	p := ui.Page{Title: words.NotMeDone, Lead: words.NotMeDoneText, Section: "signins", Crumbs: []ui.Crumb{toSignins}}
	return r.Show(p, reportedPage(me))
}

func reports(r *ui.Request) error {
	l, err := r.Desk.ListOwnReports(r.Context(), r.Actor(), r.Value("after"), 0)
	if err != nil {
		return err
	}
	p := ui.Page{Title: words.MyReportsTitle, Lead: words.MyReportsLead, Section: "signins", Crumbs: []ui.Crumb{toMe}, Wide: true}
	return r.Show(p, reportsPage(l.Items, next("/me/reports", l.Next), start(r, "/me/reports")))
}

// ── in the console ──

func deskReports(r *ui.Request) error {
	state := rest.ReportOpen
	if r.Value("state") == "all" {
		state = ""
	}
	l, err := r.Desk.ListReports(r.Context(), r.Actor(), state, r.Value("user"), r.Value("after"), 0)
	if err != nil {
		return err
	}
	here := "/console/reports?state=" + map[bool]string{true: "all", false: "open"}[state == ""]
	more := ""
	if l.Next != "" {
		more = here + "&after=" + l.Next
	}
	back := ""
	if r.Value("after") != "" {
		back = here
	}
	p := ui.Page{Title: words.DeskReports, Lead: words.DeskReportsLead, Section: "reports", Wide: true, Curl: curl("GET", "/reports?state=open", nil)}
	if state == "" {
		p.Curl = curl("GET", "/reports", nil)
	}
	return r.Show(p, deskReportsPage(l.Items, state == "", more, back))
}

func showReport(r *ui.Request, status int, answer string, faults map[string]string) error {
	v, err := r.Desk.ShowReport(r.Context(), r.Actor(), r.PathValue("report"))
	if err != nil {
		return err
	}
	p := ui.Page{
		Title: words.DeskReportTitle, Section: "reports", Crumbs: []ui.Crumb{{Text: words.DeskReports, Path: "/console/reports"}}, Badge: reportBadge(v.State),
		Curl: curl("POST", "/reports/"+v.ID+"/handled", rest.HandleReport{Answer: "…"}),
	}
	return r.ShowStatus(status, p, deskReportPage(v, r.Actor().Can("helpdesk"), answer, faults))
}

func deskReport(r *ui.Request) error { return showReport(r, 200, "", nil) }

func handleReport(r *ui.Request) error {
	_, err := r.Desk.HandleReport(r.Context(), r.Actor(), r.PathValue("report"), rest.HandleReport{Answer: r.Value("answer")})
	switch {
	case err == nil:
		return r.Go("/console/reports", words.DeskReportClosed)
	case ui.Refill(err):
		return showReport(r, fault.Of(err).Status(), r.Value("answer"), ui.Faults(err))
	}
	return err
}
