package link

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/wire"
)

// Joining is what a machine needs to join.
type Joining struct {
	Token   wire.Token
	Name    string // wish; empty: the token's or the host's
	Proxy   string
	Key     identity.Key
	Signer  crypto.Signer // of Key
	Facts   wire.MachineFacts
	Clock   clock.Clock
	Built   time.Time
	Timeout time.Duration // of the whole; zero: 30 s
}

// Join spends the token and returns the new identity, not yet written. Its errors
// are whole sentences for the person who typed the command.
func Join(ctx context.Context, j Joining) (*identity.Identity, wire.JoinReply, error) {
	if j.Timeout == 0 {
		j.Timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	if j.Name != "" {
		j.Facts.Hostname = j.Name
	}
	csr, err := identity.Request(j.Signer, j.Facts.Hostname)
	if err != nil {
		return nil, wire.JoinReply{}, fmt.Errorf("the machine key does not sign: %w", err)
	}
	var ca *x509.Certificate
	c := newClient(clientConfig{
		server: j.Token.URL, proxy: j.Proxy, timing: Timing{}.withDefaults(),
		trust: trust{
			pin: j.Token.CA, seen: func(c *x509.Certificate) { ca = c },
			now: func() time.Time { return latest(j.Clock.Now(), j.Built) },
		},
	})
	defer c.close()
	m := &letter{v: wire.Join{Token: wire.Hide(j.Token.Secret), CSR: csr, Facts: j.Facts}}
	defer m.wipe()
	var r wire.JoinReply
	if err := c.call(ctx, "POST", wire.PathJoin, m, &r); err != nil {
		return nil, r, joinError(j, err)
	}
	if sha256.Sum256(r.CA) != j.Token.CA || ca == nil {
		return nil, r, errors.New("the server names another CA than the token; nothing was written. Ask for a new token")
	}
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, r, errors.New("the server's answer holds no certificate; nothing was written. Update the server or the agent")
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(j.Signer.Public()) {
		return nil, r, errors.New("the server certified another key than this machine's; nothing was written. Ask for a new token")
	}
	return &identity.Identity{
		MachineID: r.MachineID, Name: r.Name, Number: r.Number, Server: j.Token.URL, Proxy: j.Proxy,
		CA: r.CA, Certificate: r.Certificate, GrantKey: r.GrantKey, PermitKey: r.PermitKey,
		JoinedAt: clock.Micros(j.Clock.Now()),
	}, r, nil
}

func joinError(j Joining, err error) error {
	var (
		p    *wire.Problem
		down *Down
	)
	switch {
	case errors.As(err, &p):
		if p.Code == string(fault.TokenSpent) && p.Detail == "" {
			return fault.New(fault.TokenSpent, nil)
		}
		return fmt.Errorf("the server refuses: %s", p.Detail)
	case errors.As(err, &down):
		next := "Check the address, the network and any firewall between."
		switch down.Reason {
		case Foreign:
			next = "The token was made for another server, or somebody stands between. Do not go on before you know which; then ask for a new token."
		case NotLatchkey, ServerExpired, ServerError, CertificateDenied:
			next = "Check that the token's address is the server's listener for machines."
		case ProxyRefused, ProxyUnreachable, ProxySilent, ProxyCredentials:
			next = "Check --proxy, and that the proxy allows CONNECT to the server."
		}
		return fmt.Errorf("the server at %s can not be used (%s): %s %s", j.Token.URL, down.Reason, down.Reason.Text(), next)
	}
	return err
}
