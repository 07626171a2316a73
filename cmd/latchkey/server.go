package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"latchkey/internal/rest"
)

func (a *app) serverCommand() *cobra.Command {
	status := &cobra.Command{
		Use: "status", Short: "How the server is",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var s rest.Status
			if err := cl.call(cmd.Context(), http.MethodGet, "/status", nil, nil, &s); err != nil {
				return err
			}
			return a.emit(s, func(p *printer) {
				ready := "yes"
				if s.NotReady != "" {
					ready = "no — " + s.NotReady
				}
				p.card("Version", s.Version, "Ready", ready, "Database", s.Engine, "Replica", s.Replica, "Users", fmt.Sprint(s.Users),
					"Machines", fmt.Sprintf("%d active, %d waiting for approval, %d revoked, %d lost", s.Machines[rest.MachineActive], s.Machines[rest.MachinePending], s.Machines[rest.MachineRevoked], s.Machines[rest.MachineLost]),
					"Locked out", plural(int(s.Locked), "user"), "CA (SHA-256)", s.CAPrint, "You are", s.Actor+", "+s.ActorRole)
			})
		},
	}
	ca := &cobra.Command{
		Use: "ca", Short: "Print the certificate of the server's own CA, for browsers and programs",
		Long: "Prints the certificate in PEM, for a file: latchkey server ca > latchkey-ca.pem. Programs are\ngiven it (curl --cacert latchkey-ca.pem), browsers import it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var c rest.CertificateAuthority
			if err := cl.call(cmd.Context(), http.MethodGet, "/ca", nil, nil, &c); err != nil {
				return err
			}
			return a.emit(c, func(p *printer) { p.raw(c.PEM) })
		},
	}
	card := func(s rest.Settings) func(p *printer) {
		return func(p *printer) {
			attestation := s.Attestation
			if attestation == "none" {
				attestation = "any model (none must say which it is)"
			}
			p.card("Contact", dash(s.Contact), "Server URL", dash(s.ServerURL), "Oldest agent", dash(s.MinAgent), "People's URL", dash(s.PeopleURL), "New passkeys", attestation, "Their models", dash(s.Models), "Proxy", dash(s.OutwardProxy), "Push networks", dash(s.PushNetworks))
		}
	}
	show := &cobra.Command{
		Use: "show", Short: "Show the settings of the server",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var s rest.Settings
			if err := cl.call(cmd.Context(), http.MethodGet, "/settings", nil, nil, &s); err != nil {
				return err
			}
			return a.emit(s, card(s))
		},
	}
	var contact, serverURL, minAgent, peopleURL, attestation, models, proxy, networks string
	set := &cobra.Command{
		Use: "set", Short: "Change the settings of the server",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in := rest.SettingsChange{
				Contact: given(cmd.Flags(), "contact", contact), ServerURL: given(cmd.Flags(), "server-url", serverURL), MinAgent: given(cmd.Flags(), "min-agent-version", minAgent), PeopleURL: given(cmd.Flags(), "people-url", peopleURL),
				Attestation: given(cmd.Flags(), "passkey-attestation", attestation), Models: given(cmd.Flags(), "passkey-models", models),
				OutwardProxy: given(cmd.Flags(), "outward-proxy", proxy), PushNetworks: given(cmd.Flags(), "push-networks", networks),
			}
			if in == (rest.SettingsChange{}) {
				return usageError{errors.New("say what to change"), cmd}
			}
			var s rest.Settings
			if err := cl.call(cmd.Context(), http.MethodPatch, "/settings", nil, in, &s); err != nil {
				return err
			}
			return a.emit(s, card(s))
		},
	}
	set.Flags().StringVar(&contact, "contact", "", "whom people call; machines show it with refusals, also offline")
	set.Flags().StringVar(&serverURL, "server-url", "", "https://HOST:PORT of the machines' listener; goes into join tokens")
	set.Flags().StringVar(&minAgent, "min-agent-version", "", "machines with an older agent are called outdated")
	set.Flags().StringVar(&peopleURL, "people-url", "", "https://HOST[:PORT] as browsers and phones reach it; passkeys are bound to its host")
	set.Flags().StringVar(&attestation, "passkey-attestation", "", "none, or direct: new passkeys must say which model they are")
	set.Flags().StringVar(&models, "passkey-models", "", "with direct: AAGUIDs of the models that may be registered, between commas")
	set.Flags().StringVar(&proxy, "outward-proxy", "", "http://HOST:PORT or https://HOST:PORT through which notices to phones and text messages go; empty: what the server was started with")
	set.Flags().StringVar(&networks, "push-networks", "", "networks between commas in which a push service of one's own may stand; empty: what the server was started with")
	return noun("server", "The server as a whole", status, show, set, ca)
}
