package main

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"latchkey/internal/event"
	"latchkey/internal/health"
	"latchkey/internal/shim"
	"latchkey/internal/text"
)

func (a *app) statusCommand() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use: "status", Short: "How this machine is: link, policy, offline days and sign-ins left",
		Long: "Asks this machine's agent. Root sees every user, others themselves.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := agent(cmd.Context(), socket)
			if err != nil {
				return err
			}
			defer conn.Close()
			raw, err := conn.Status()
			if err != nil {
				return fmt.Errorf("the agent does not tell its state: %w", err)
			}
			var s shim.MachineStatus
			if err := json.Unmarshal([]byte(raw), &s); err != nil {
				return fmt.Errorf("the agent's answer is not understood; is it of another version than this command? %w", err)
			}
			if a.output == outputJSON {
				return a.emit(json.RawMessage(raw), nil)
			}
			return a.emit(nil, func(p *printer) { statusCard(p, s) })
		},
	}
	c.Flags().StringVar(&socket, "socket", defaultAgent, "the agent's socket")
	return c
}

func statusCard(p *printer, s shim.MachineStatus) {
	var link string
	switch {
	case s.Link == "up":
		link = "up, the server answered " + p.ago(s.LastAnswer)
	case s.Text != "":
		why := ""
		if s.Reason != "" {
			why = " (" + s.Reason + ")"
		}
		link = fmt.Sprintf("%s since %s%s: %s", s.Link, p.ago(s.Since), why, s.Text)
	default:
		link = fmt.Sprintf("%s since %s", s.Link, p.ago(s.Since))
	}
	kept := map[string]string{"tpm": "in the TPM", "software": "software protection, no TPM"}[s.Offline.Class]
	pol := "none yet"
	if s.Offline.PolicySerial > 0 {
		pol = fmt.Sprintf("number %d, made %s", s.Offline.PolicySerial, p.ago(s.Offline.PolicyIssued))
	}
	cert := ""
	if !s.Until.IsZero() {
		cert = "until " + when(s.Until)
	}
	waiting := ""
	if s.Offline.Undelivered > 0 {
		waiting = fmt.Sprintf("%d wait for the server", s.Offline.Undelivered)
	}
	refused := s.Link == "refused"
	if refused {
		pol, kept = "wiped", ""
		link = "refused since " + p.ago(s.Since)
	}
	p.card("Machine", s.Machine, "Link", link, "Server", s.Server, "The server says", s.ServerSays, "Policy", pol, "Offline data", kept,
		"Certificate", cert, "Offline events", waiting, "Versions", versions(s))
	shown := map[string]bool{}
	for _, h := range s.Health {
		if refused && h.Severity != health.Failure {
			continue
		}
		shown[h.Code] = true
		p.line("")
		p.line("%s: %s%s", severity(h.Severity), h.Text, behind(" — ", h.Detail))
		p.line("  %s", h.Next)
	}
	if refused {
		return // what is wrong beside that mends itself or is gone with it
	}
	// An agent of before does not count these among its health.
	problems := []string{string(s.Offline.Problem), string(s.Offline.PolicyProblem)}
	if s.Offline.ClockBehind {
		problems = append(problems, "clock-behind")
	}
	for i, code := range problems {
		if code == "" || shown[code] {
			continue
		}
		shown[code] = true
		detail := ""
		if i == 0 {
			detail = s.Offline.Detail
		}
		p.line("")
		p.line("Failure: %s%s", cmp.Or(event.Reasons[code], code), behind(" — ", detail))
		p.line("  See docs/agent.md, or look into the agent's log.")
	}
	p.line("")
	if len(s.Offline.Users) == 0 {
		if s.Offline.Problem != "" {
			p.line("Nobody is enrolled for offline sign-in here, and nobody can be until what is said above is mended.")
			return
		}
		p.line("Nobody is enrolled for offline sign-in here. That happens at the next sign-in with a second factor while the server is there.")
		return
	}
	t := text.NewTable("USER", "OFFLINE", "DAYS LEFT", "SIGN-INS LEFT", "TRIES LEFT", "UNTIL", "NOTE")
	for _, u := range s.Offline.Users {
		if !u.Enrolled {
			t.Row(u.User, "not enrolled", "-", "-", "-", "-", string(u.Problem))
			continue
		}
		note := string(u.Problem)
		if note == "" && u.Left.Warn {
			note = "sign in with the server there before it is used up"
		}
		t.Row(u.User, "enrolled", fmt.Sprint(u.Left.Days), fmt.Sprint(u.Left.Signins), fmt.Sprint(u.Left.Tries), when(u.Until), note)
	}
	p.table(t, "")
	if s.More > 0 {
		p.line("and %s more", plural(s.More, "user"))
	}
}

func versions(s shim.MachineStatus) string {
	v := "agent " + s.Version
	if s.ServerIs != "" {
		v += ", server " + s.ServerIs
	}
	return v
}

func severity(s health.Severity) string {
	switch s {
	case health.Failure:
		return "Failure"
	case health.Warning:
		return "Warning"
	}
	return "Notice"
}
