package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
)

func init() {
	for id, right := range map[string]string{
		"list-machine-certificates": "read", "list-user-certificates": "read", "list-own-certificates": "self",
		"request-own-certificate": "self", "revoke-own-certificate": "self",
		"revoke-user-certificate": "helpdesk", "revoke-machine-certificate": "change",
		"show-certificate-settings": "read", "change-certificate-settings": "own",
		"open-certificate-session": public,
	} {
		rights[id] = right
	}
	secrets["open-certificate-session"] = true
	for _, id := range []string{"revoke-user-certificate", "revoke-machine-certificate", "change-certificate-settings"} {
		fresh[id] = true
	}
}

// pathCertificateSession is where a certificate opens a session: it says by itself why it
// does not.
const pathCertificateSession = "/sessions/certificate"

// certificates registers the certificates of machines and users (M4, E4).
func (x *door) certificates() {
	d := x.desk
	type UserPath struct {
		User string `path:"user" maxLength:"512" doc:"Name or id"`
	}
	type MachinePath struct {
		Machine string `path:"machine" maxLength:"512" doc:"Name, number (#7) or id"`
	}
	type SerialPath struct {
		Serial string `path:"serial" maxLength:"64" doc:"Serial number in hexadecimal"`
	}
	add(x, op("list-machine-certificates", "GET", "/machines/{machine}/certificates", "List a machine's certificates", 0), func(ctx context.Context, a desk.Actor, in *MachinePath) (*plain[rest.Page[rest.Certificate]], error) {
		return reply(d.MachineCertificates(ctx, a, in.Machine))
	})
	add(x, op("revoke-machine-certificate", "POST", "/machines/{machine}/certificates/{serial}/revoke", "Revoke one certificate of a machine, which joins again then", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		MachinePath
		SerialPath
		Body rest.RevokeCertificate
	},
	) (*plain[rest.Certificate], error) {
		return reply(d.RevokeMachineCertificate(ctx, a, in.Machine, in.Serial, in.Body))
	})
	add(x, op("list-user-certificates", "GET", "/users/{user}/certificates", "List a user's certificates", 0), func(ctx context.Context, a desk.Actor, in *UserPath) (*plain[rest.Page[rest.Certificate]], error) {
		return reply(d.UserCertificates(ctx, a, in.User))
	})
	add(x, op("revoke-user-certificate", "POST", "/users/{user}/certificates/{serial}/revoke", "Revoke one certificate of a user", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		SerialPath
		Body rest.RevokeCertificate
	},
	) (*plain[rest.Certificate], error) {
		return reply(d.RevokeUserCertificate(ctx, a, in.User, in.Serial, in.Body))
	})
	add(x, op("list-own-certificates", "GET", "/me/certificates", "List your certificates", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Page[rest.Certificate]], error) {
		return reply(d.ListOwnCertificates(ctx, a))
	})
	add(x, op("request-own-certificate", "POST", "/me/certificates", "Ask for a certificate for a key of your own", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewCertificate }) (*plain[rest.Certificate], error) {
		return reply(d.RequestOwnCertificate(ctx, a, in.Body))
	})
	add(x, op("revoke-own-certificate", "POST", "/me/certificates/{serial}/revoke", "Revoke one of your certificates", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		SerialPath
		Body rest.RevokeCertificate
	},
	) (*plain[rest.Certificate], error) {
		return reply(d.RevokeOwnCertificate(ctx, a, in.Serial, in.Body))
	})
	add(x, op("show-certificate-settings", "GET", "/settings/certificates", "Show what users' certificates may do", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.CertificateSettings], error) {
		return reply(d.CertificateSettings(ctx, a))
	})
	add(x, op("change-certificate-settings", "PATCH", "/settings/certificates", "Change what users' certificates may do", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Body rest.CertificateSettingsChange
	},
	) (*plain[rest.CertificateSettings], error) {
		return reply(d.ChangeCertificateSettings(ctx, a, in.Body))
	})
	addSession(x, "open-certificate-session", "POST", pathCertificateSession, "Sign in with the client certificate of the connection", http.StatusOK, func(ctx context.Context, m *session.Sessions, in *struct{ agent }) (*plain[rest.SignedIn], error) {
		return opened(m.OpenCertificate(ctx, session.CLI, addressOf(ctx), in.Agent))
	})
}
