package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"latchkey/internal/rest"
)

func (a *app) setupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "setup-code", Short: "Show the code that makes the first owner in the browser",
		Long: `Shows the code for the page /setup of a server that has no owner yet, on the server
itself. It is the same until somebody has used it; the server has written it into the file
setup-code of its data folder, too.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var s rest.SetupCode
			if err := cl.call(cmd.Context(), http.MethodGet, "/setup-code", nil, nil, &s); err != nil {
				return err
			}
			where := "https://SERVER/setup (SERVER: the address of --listen)"
			var set rest.Settings
			if err := cl.call(cmd.Context(), http.MethodGet, "/settings", nil, nil, &set); err == nil && set.PeopleURL != "" {
				where = set.PeopleURL + "/setup"
			}
			return a.emit(s, func(p *printer) {
				if !s.Wanted {
					p.line("There is an owner already: nobody needs the code.")
					return
				}
				p.card("Setup code", s.Code.Show(), "Use it at", where)
			})
		},
	}
}
