package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/rest"
)

// Phones with Latchkey Authenticator.

func phoneDetail(p rest.Phone) string {
	out := []string{or(p.Platform, "phone")}
	if !p.Notified {
		out = append(out, "looks by itself")
	}
	if p.Verifies {
		out = append(out, "proves who holds it")
	}
	return strings.Join(out, ", ")
}

// factorAddPhone makes the code with which a phone enrols.
func (a *app) factorAddPhone() *cobra.Command {
	return &cobra.Command{
		Use: "push USER", Short: "Make a code with which a user's phone enrols; it is shown once", Args: words("USER"),
		Long: "Makes a one-time code with which a phone enrols with Latchkey Authenticator, within ten minutes.\nWhoever opens the link is the user on that phone.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var out rest.PhoneCode
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "factors", "push"), nil, nil, &out); err != nil {
				return err
			}
			if remark := rest.PlaceRemark(out.Link.Show()); remark != "" {
				defer a.say("the link leads to people's address, but %s Set another first: %s", remark, rest.SetPlace)
			}
			return a.emit(out, func(p *printer) {
				p.raw(strings.TrimRight(out.QR.Show(), "\n") + "\n\n")
				p.line("Scan this with the camera of %s's phone, or open the link there, until %s. It works once.", out.User, when(out.ExpiresAt))
				p.raw("\nLink:  " + out.Link.Show() + "\n")
			})
		},
	}
}

// factorUnlockPush lets requests go to a user's phones again.
func (a *app) factorUnlockPush() *cobra.Command {
	return &cobra.Command{
		Use: "unlock USER", Short: "Let requests go to a user's phones again, after one was reported", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var out rest.Done
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "push", "unlock"), nil, nil, &out); err != nil {
				return err
			}
			return a.emit(out, func(p *printer) {
				if out.Count == 0 {
					p.line("Requests to the phones of %s were not locked.", args[0])
					return
				}
				p.line("Requests go to the phones of %s again.", args[0])
			})
		},
	}
}
