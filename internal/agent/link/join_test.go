package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

// door answers join requests as a server does, unless it is spoilt.
func door(t *testing.T, s *scriptedServer, spoil func(*wire.JoinReply)) {
	t.Helper()
	grant, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	permit, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	s.on(wire.PathJoin, func(w http.ResponseWriter, body []byte) {
		var j wire.Join
		if err := json.Unmarshal(body, &j); err != nil {
			t.Error(err)
		}
		csr, err := x509.ParseCertificateRequest(j.CSR)
		if err != nil || csr.CheckSignature() != nil {
			t.Errorf("request: %v", err)
		}
		if j.Token.Len() != wire.TokenSecretSize {
			t.Errorf("a secret of %d octets", j.Token.Len())
		}
		r := wire.JoinReply{
			MachineID: "0198c0de-0000-7000-8000-000000000009", Name: j.Facts.Hostname, Number: 9, Status: "active", CA: s.ca.cert.Raw,
			Certificate: s.ca.issue(csr.PublicKey, x509.ExtKeyUsageClientAuth, -time.Minute, time.Hour), GrantKey: grant, PermitKey: permit,
		}
		if spoil != nil {
			spoil(&r)
		}
		reply(w, 200, r)
	})
}

func joining(t *testing.T, addr string, ca *authority) Joining {
	t.Helper()
	key, err := identity.NewKey(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := key.Signer(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Joining{
		Token: wire.Token{URL: "https://" + addr, CA: sha256.Sum256(ca.cert.Raw), Secret: secret.New(make([]byte, wire.TokenSecretSize))},
		Key:   key, Signer: signer, Facts: wire.MachineFacts{Hostname: "desk"}, Clock: clock.Real, Timeout: 3 * time.Second,
	}
}

func TestJoin(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	door(t, s, nil)
	j := joining(t, s.addr, ca)
	id, r, err := Join(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if id.MachineID != r.MachineID || id.Name != "desk" || id.Server != j.Token.URL || r.Status != "active" {
		t.Errorf("%+v", id)
	}
	j = joining(t, s.addr, ca)
	j.Name = "another name"
	if id, _, err := Join(t.Context(), j); err != nil || id.Name != "another name" {
		t.Errorf("%+v %v", id, err)
	}
}

// What goes wrong at joining is said in whole sentences, and the token goes to
// nobody but the server that it names.
func TestJoinThatFails(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	refusing := func(c fault.Code) *scriptedServer {
		s := newServer(t, ca)
		s.on(wire.PathJoin, func(w http.ResponseWriter, _ []byte) {
			f := fault.New(c, nil)
			reply(w, f.Status(), wire.Problem{Code: string(c), Detail: f.Public()})
		})
		return s
	}
	spoilt := func(f func(*wire.JoinReply)) *scriptedServer {
		s := newServer(t, ca)
		door(t, s, f)
		return s
	}
	foreign := newServer(t, other)
	door(t, foreign, nil)
	nobody := dead(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	for name, c := range map[string]struct {
		addr, proxy string
		want        []string
	}{
		"the token is spent":       {refusing(fault.TokenSpent).addr, "", []string{"used or expired", "latchkey machine token"}},
		"the agent is too old":     {refusing(fault.TooOld).addr, "", []string{"Update the agent"}},
		"the server fails":         {refusing(fault.Internal).addr, "", []string{"server-error", "listener for machines"}},
		"another server":           {foreign.addr, "", []string{"foreign-certificate", "ask for a new token"}},
		"nobody there":             {nobody, "", []string{"connection-refused", nobody, "firewall"}},
		"no answer":                {silent.Addr().String(), "", []string{"silence"}},
		"no proxy":                 {foreign.addr, "http://" + nobody, []string{"proxy-unreachable", "--proxy"}},
		"another CA in the answer": {spoilt(func(r *wire.JoinReply) { r.CA = other.cert.Raw }).addr, "", []string{"another CA", "nothing was written"}},
		"a certificate for another key": {spoilt(func(r *wire.JoinReply) {
			r.Certificate = ca.issue(newKey(t).Public(), x509.ExtKeyUsageClientAuth, 0, time.Hour)
		}).addr, "", []string{"another key", "nothing was written"}},
		"a certificate that is none":      {spoilt(func(r *wire.JoinReply) { r.Certificate = []byte("?") }).addr, "", []string{"no certificate", "nothing was written"}},
		"the machines' door is elsewhere": {func() string { s := newServer(t, ca); s.header = false; return s.addr }(), "", []string{"not-latchkey", "listener for machines"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := joining(t, c.addr, ca)
			j.Proxy = c.proxy
			_, _, err := Join(t.Context(), j)
			if err == nil {
				t.Fatal("it joined")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\nlacks %q", err, w)
				}
			}
		})
	}
	if foreign.requests("POST") != 0 {
		t.Error("a foreign server saw the token")
	}
}

func TestJoinIsGivenUpWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, _, err := Join(ctx, joining(t, l.Addr().String(), newAuthority(t))); err == nil || time.Since(start) > 15*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}
