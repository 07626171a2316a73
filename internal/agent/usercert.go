package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// certTime bounds how long whoever asks for a certificate waits.
const certTime = 8 * time.Second

// maxCSR bounds a request in octets.
const maxCSR = 8 << 10

// Texts of certificates.
const (
	textCertNobody = "Nobody on this machine has your account number."
	textCertDown   = "The server can not be reached, and only it issues certificates. Try again when latchkey status says that the link is up."
)

// certificate asks the server for a certificate of whoever is at the other end of the
// socket (M4): the kernel says who that is, nothing of the request does. The key stays
// with the caller. Whether the user has signed in here with a second factor is for the
// server to judge.
func (a *agent) certificate(ctx context.Context, who caller, raw string) shim.CertificateReply {
	var in shim.CertificateRequest
	if err := json.Unmarshal([]byte(raw), &in); err != nil || len(in.CSR) == 0 || len(in.CSR) > maxCSR {
		return shim.CertificateReply{Problem: textOdd, Code: "bad-request"}
	}
	names := a.names.Names(ctx, who.uid)
	if len(names) == 0 {
		return shim.CertificateReply{Problem: textCertNobody, Code: "forbidden"}
	}
	ctx, cancel := context.WithTimeout(ctx, certTime)
	defer cancel()
	uid := who.uid
	r, err := a.link.UserCertificate(ctx, wire.UserCertificate{
		User: names[0], UID: &uid, Aliases: slices.Clone(names[1:min(len(names), 9)]), CSR: in.CSR, Name: text.CleanN(in.Name, 128),
	})
	var p *wire.Problem
	switch {
	case errors.As(err, &p):
		return shim.CertificateReply{Problem: text.CleanN(p.Detail, 512), Code: text.CleanN(p.Code, 64)}
	case err != nil:
		return shim.CertificateReply{Problem: textCertDown, Code: "down"}
	}
	return shim.CertificateReply{Certificate: r.Certificate, CA: r.CA, User: r.UserName, Server: a.id.Server, RenewAfter: r.RenewAfter}
}

// certificateJSON is the answer as it goes over the socket.
func (a *agent) certificateJSON(ctx context.Context, who caller, raw string) string {
	b, err := json.Marshal(a.certificate(ctx, who, raw))
	if err != nil {
		return "{}"
	}
	return string(b)
}
