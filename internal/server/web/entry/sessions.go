package entry

import (
	"net/http"
	"slices"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

func ownSessions(r *ui.Request) error {
	list, err := r.Sessions.List(r.Context(), r.Actor(), r.Session.UserID)
	if err != nil {
		return err
	}
	return r.Show(ui.Page{
		Title: words.SessionsTitle, Section: "sessions", Lead: words.SessionsLead,
	}, sessionsPage(list, r.Session.ID))
}

func endOwn(r *ui.Request) error {
	id := strings.TrimPrefix(r.PathValue("id"), session.SessionPrefix)
	if id == r.Session.ID {
		return signout(r)
	}
	// This page is about one's own: what is somebody else's is not there.
	mine, err := r.Sessions.List(r.Context(), r.Actor(), r.Session.UserID)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(mine, func(s session.Session) bool { return s.ID == id }) {
		return fault.New(fault.NotFound, nil)
	}
	if err := r.Sessions.Revoke(r.Context(), r.Actor(), id); err != nil {
		return err
	}
	return r.Go("/me/sessions", words.SessionEnded)
}

func endOthers(r *ui.Request) error {
	n, err := r.Sessions.RevokeAll(r.Context(), r.Actor(), r.Session.UserID, r.Session.ID)
	if err != nil {
		return err
	}
	return r.Go("/me/sessions", words.SessionsEnded(n.Sessions))
}

func factorWord(f string) string {
	switch f {
	case session.TOTP:
		return words.WithTOTP
	case session.Backup:
		return words.WithBackup
	case session.FIDO2:
		return words.ProofByPasskey
	case session.Push:
		return words.ProofByPush
	case session.Mail:
		return words.ProofByMail
	case session.SMS:
		return words.ProofBySMS
	}
	return words.WithEnrol
}

func kindWord(k string) string {
	if k == session.CLI {
		return words.SessionCLI
	}
	return words.SessionBrowser
}

// agentWord is what a browser calls itself, short enough for a table.
func agentWord(agent string) string {
	for _, b := range []struct{ mark, name string }{
		{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"latchkey/", "latchkey"},
	} {
		if !strings.Contains(agent, b.mark) {
			continue
		}
		for _, os := range []struct{ mark, name string }{
			{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"},
		} {
			if strings.Contains(agent, os.mark) {
				return b.name + ", " + os.name
			}
		}
		return b.name
	}
	return words.SessionUnknown
}

// approvalsPage is what the page shows.
type approvalsPage struct {
	open, past              []session.Approval
	owner                   bool
	me                      string // id of the account
	action, subject, reason string
	faults                  map[string]string
}

func approvalsOf(r *ui.Request) (approvalsPage, error) {
	p := approvalsPage{owner: r.Session.Role == rest.RoleOwner, me: r.Session.UserID}
	list, err := r.Sessions.ListApprovals(r.Context(), r.Actor())
	for _, a := range list {
		if a.State == session.StateAsked {
			p.open = append(p.open, a)
		} else {
			p.past = append(p.past, a)
		}
	}
	return p, err
}

func (p approvalsPage) show(r *ui.Request, status int) error {
	return r.ShowStatus(status, ui.Page{
		Title: words.ApprovalsTitle, Section: "approvals", Lead: words.ApprovalsLead, Curl: &ui.Curl{Method: http.MethodGet, Path: rest.Base + "/approvals"},
	}, approvalsBody(p))
}

func approvals(r *ui.Request) error {
	p, err := approvalsOf(r)
	if err != nil {
		return err
	}
	p.action, p.subject = r.Value("action"), r.Value("subject")
	return p.show(r, http.StatusOK)
}

func ask(r *ui.Request) error {
	action, subject, reason := r.Value("action"), r.Value("subject"), r.Value("reason")
	_, err := r.Sessions.Ask(r.Context(), r.Session, r.Address(), action, subject, reason)
	if ui.Refill(err) {
		p, e := approvalsOf(r)
		if e != nil {
			return e
		}
		p.action, p.subject, p.reason, p.faults = action, subject, reason, ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	}
	if err != nil {
		return err
	}
	return r.Go("/console/approvals", words.ApprovalAsked)
}

func decide(r *ui.Request) error {
	yes := r.Value("decision") == "give"
	if !yes && r.Value("decision") != "deny" {
		return fault.New(fault.BadRequest, nil)
	}
	id := strings.TrimPrefix(r.PathValue("id"), session.ApprovalPrefix)
	if _, err := r.Sessions.Decide(r.Context(), r.Session, r.Address(), id, yes); err != nil {
		return err
	}
	if yes {
		return r.Go("/console/approvals", words.ApprovalGiven)
	}
	return r.Go("/console/approvals", words.ApprovalDenied)
}

func stateBadge(s string) string {
	switch s {
	case session.StateAsked:
		return "info"
	case session.StateGiven, session.StateUsed:
		return "ok"
	case session.StateDenied:
		return "bad"
	}
	return "neutral"
}
