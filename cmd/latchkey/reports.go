package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/rest"
	"latchkey/internal/text"
)

func (a *app) reportCommand() *cobra.Command {
	return noun("report", "Reports: what people say was not theirs, and what they have lost",
		a.reportList(), a.reportShow(), a.reportClose())
}

// reported is what a report is about, in a few words.
func reported(r rest.Report) string {
	if r.Kind == rest.ReportSignin {
		return "a sign-in that was not theirs"
	}
	return "a lost machine"
}

func (a *app) reportList() *cobra.Command {
	var all bool
	var user string
	c := &cobra.Command{
		Use: "list", Short: "List what people have reported, the youngest first",
		Long: "Lists the reports that are still open. People report in the portal: a sign-in that was\nnot theirs, or a machine that they have lost.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if !all {
				q.Set("state", rest.ReportOpen)
			}
			if user != "" {
				q.Set("user", user)
			}
			rows, err := list[rest.Report](cmd.Context(), cl, "/reports", q, 0)
			if err != nil {
				return err
			}
			return a.emit(rows, func(p *printer) {
				t := text.NewTable("ID", "REPORTED", "USER", "WHAT", "MACHINE", "STATE")
				for _, r := range rows {
					t.Row(r.ID, when(r.CreatedAt), r.User, reported(r), dash(r.Machine), r.State)
				}
				p.table(t, "Nothing is reported.")
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also those that are closed")
	c.Flags().StringVar(&user, "user", "", "only those of this user")
	return c
}

func (a *app) showReport(r rest.Report) error {
	return a.emit(r, func(p *printer) {
		p.line("%s of %s, reported %s: %s.", r.ID, r.User, when(r.CreatedAt), reported(r))
		if r.Machine != "" {
			p.line("Machine: %s", r.Machine)
		}
		if r.Event != "" {
			p.line("The sign-in: latchkey events show %s", r.Event)
		}
		if r.Told != "" {
			p.line("In their words: %s", strings.ReplaceAll(r.Told, "\n", "\n  "))
		}
		if r.State == rest.ReportHandled {
			p.line("Closed by %s %s: %s", r.HandledBy, when(r.HandledAt), r.Answer)
			return
		}
		if r.Kind == rest.ReportMachine {
			p.line("If it is gone for good, next: latchkey machine lost %s", r.MachineID)
		}
		p.line("When it is looked after: latchkey report close %s --answer TEXT", r.ID)
	})
}

func (a *app) reportShow() *cobra.Command {
	return &cobra.Command{
		Use: "show REPORT", Short: "Show a report", Args: words("REPORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var r rest.Report
			if err := cl.call(cmd.Context(), http.MethodGet, at("reports", args[0]), nil, nil, &r); err != nil {
				return err
			}
			return a.showReport(r)
		},
	}
}

func (a *app) reportClose() *cobra.Command {
	var in rest.HandleReport
	c := &cobra.Command{
		Use: "close REPORT --answer TEXT", Short: "Close a report with what was done", Args: words("REPORT"),
		Long: "Closes a report. The person who has reported reads the answer in the portal.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var r rest.Report
			if err := cl.call(cmd.Context(), http.MethodPost, at("reports", args[0], "handled"), nil, in, &r); err != nil {
				return err
			}
			return a.emit(r, func(p *printer) { p.line("The report of %s is closed.", r.User) })
		},
	}
	c.Flags().StringVar(&in.Answer, "answer", "", "what was done; the person reads it")
	return c
}
