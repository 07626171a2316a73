package agentapi_test

import (
	"crypto/x509"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/store"
	"latchkey/internal/wire"
)

func TestAMachineJoinsWithATokenOnce(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		token := r.token(enroll.Order{Name: "front desk"})
		m := r.newMachine()
		reply := m.join(token.Clone())
		if reply.Name != "front desk" || reply.Status != enroll.Active || reply.Number != 1 || len(reply.GrantKey) != 32 {
			t.Errorf("%+v", reply)
		}
		var hello wire.HelloReply
		m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, &hello)
		if hello.ServerVersion != "1.2.3" || hello.JournalSeq != 0 || hello.RenewAfter == 0 || hello.Time == 0 {
			t.Errorf("%+v", hello)
		}
		row := r.machineRow(m.id)
		if row.Hostname != "pc1.example.org" || row.Boot != "boot-1" || row.TPMClass != "software" || row.WireVersion != wire.Version || row.Address != "127.0.0.1" {
			t.Errorf("%+v", row)
		}

		// The same token again, by the same machine and by another.
		for _, again := range []*machine{m, r.newMachine()} {
			again.fails("POST", wire.PathJoin, wire.Join{Token: wire.Hide(token.Clone()), CSR: again.csr(), Facts: again.facts}, "token-refused")
		}
		if got := r.reasons(event.MachineJoined, event.TokenRefused); got != "machine.joined/active token.refused/used token.refused/used" {
			t.Error(got)
		}
	})
}

func TestTwoMachinesWithOneTokenAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		token := r.token(enroll.Order{})
		var wg sync.WaitGroup
		codes := make([]string, 6)
		for i := range codes {
			m := r.newMachine()
			in := wire.Join{Token: wire.Hide(token.Clone()), CSR: m.csr(), Facts: m.facts}
			wg.Go(func() {
				status, p, err := m.call("POST", wire.PathJoin, in, nil)
				if err != nil {
					t.Error(err)
				}
				codes[i] = p.Code
				if status == 200 {
					codes[i] = "joined"
				}
			})
		}
		wg.Wait()
		if got := strings.Join(codes, " "); strings.Count(got, "joined") != 1 || strings.Count(got, "token-refused") != len(codes)-1 {
			t.Error(got)
		}
	})
}

func TestTokensThatAreRefused(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		expired := r.token(enroll.Order{Life: time.Hour})
		m := r.newMachine()
		join := wire.Join{CSR: m.csr(), Facts: m.facts}
		m.fails("POST", wire.PathJoin, join, "token-refused")
		join.Token = wire.Hide(expired)
		r.clock.off = 2 * time.Hour
		m.connect()
		m.fails("POST", wire.PathJoin, join, "token-refused")
		if got := r.reasons(event.TokenRefused); got != "token.refused/unknown token.refused/expired" {
			t.Error(got)
		}
	})
}

func TestBadInputAtJoiningNamesTheField(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	token := r.token(enroll.Order{})
	m := r.newMachine()
	for name, c := range map[string]struct {
		alter func(*wire.Join)
		code  fault.Code
		says  string
	}{
		"no request":                    {func(j *wire.Join) { j.CSR = nil }, fault.Invalid, "PKCS#10"},
		"a request that is not its own": {func(j *wire.Join) { j.CSR[len(j.CSR)-1] ^= 1 }, fault.Invalid, "signature"},
		"an unknown class":              {func(j *wire.Join) { j.Facts.Class = "magic" }, fault.Invalid, "facts.class"},
		"a parent that is none":         {func(j *wire.Join) { j.Facts.Parent = []byte("x") }, fault.Invalid, "facts.parent"},
		"an attest key that is none":    {func(j *wire.Join) { j.Facts.AttestKey = []byte("x") }, fault.Invalid, "facts.attest_key"},
		"no boot":                       {func(j *wire.Join) { j.Facts.Boot = "" }, fault.Invalid, "facts.boot"},
		"a problem that is no code":     {func(j *wire.Join) { j.Facts.TPMProblem = "<b>" }, fault.Invalid, "facts.tpm_problem"},
		"a TPM that is no object":       {func(j *wire.Join) { j.Facts.TPM = []byte("[1]") }, fault.Invalid, "facts.tpm"},
		"a TPM that never ends":         {func(j *wire.Join) { j.Facts.TPM = []byte(`{"x":"` + strings.Repeat("y", 9000) + `"}`) }, fault.Invalid, "facts.tpm"},
	} {
		in := wire.Join{Token: wire.Hide(token.Clone()), CSR: m.csr(), Facts: m.facts}
		c.alter(&in)
		if p := m.fails("POST", wire.PathJoin, in, string(c.code)); !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: %q", name, p.Detail)
		}
	}
	// None of these used the token up.
	m.join(token)
}

func TestNamesAreMadeUniqueAndHarmless(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	want := []struct{ host, name string }{
		{"pc1.example.org", "pc1"},
		{"pc1.example.org", "pc1-2"},
		{"PC1", "PC1"},
		{"pc1", "pc1-3"},
		{"", "machine-5"},
		{"a\x1b[31m\u202eb", "machine-6"},
		{strings.Repeat("x", 300), "machine-7"},
	}
	for _, w := range want {
		m := r.newMachine()
		m.facts.Hostname = w.host
		if got := m.join(r.token(enroll.Order{})).Name; got != w.name {
			t.Errorf("host %.20q is called %q, want %q", w.host, got, w.name)
		}
	}
}

func TestAMassTokenMakesMachinesThatWait(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		token := r.token(enroll.Order{Mass: true})
		a, b := r.newMachine(), r.newMachine()
		for _, m := range []*machine{a, b} {
			if got := m.join(token.Clone()).Status; got != enroll.Pending {
				t.Errorf("status %s", got)
			}
			// It may say hello and poll, and nothing else.
			m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
			m.must("GET", wire.PathProbe, nil, nil)
			if f := m.policy(0); f.Machine.Status != enroll.Pending {
				t.Errorf("the policy says that the machine is %s", f.Machine.Status)
			}
			for path, body := range closedPaths(m) {
				m.fails("POST", path, body, "machine-pending")
			}
		}
		serial := a.policy(0).Serial
		answered := a.poll(serial)
		r.change(func(tx *store.Tx) error { return r.enroll.Approve(t.Context(), tx, a.id) })
		if c := <-answered; c.problem.Code != "" || a.open(c.Changes).Machine.Status != enroll.Active {
			t.Errorf("after its approval: %+v", c.problem)
		}
		a.must("POST", wire.PathJournal, wire.Journal{}, nil)
		b.fails("POST", wire.PathJournal, wire.Journal{}, "machine-pending")
		// Twice is a mistake, and so is a machine that does not exist.
		for _, id := range []string{a.id, "nobody"} {
			err := r.store.Update(t.Context(), func(ctx contextT, tx *store.Tx) error { return r.enroll.Approve(ctx, tx, id) })
			if !fault.Is(err, fault.Conflict) {
				t.Error(err)
			}
		}
	})
}

// closedPaths is every POST of the API that is only for machines in good
// standing, with a body of the right form.
func closedPaths(m *machine) map[string]any {
	return map[string]any{
		strings.NewReplacer("{id}", store.NewID(), "{seq}", "1").Replace(wire.PathStep): wire.Step{Cancel: true},
		wire.PathPrepare:  wire.Prepare{Class: "software", Conversation: store.NewID()},
		wire.PathPermit:   wire.PermitRequest{UserID: "u", Generation: 1, Kind: "use", Nonce: make([]byte, 32)},
		wire.PathReady:    wire.Ready{UserID: "u", Generation: 1},
		wire.PathBundle:   wire.BundleRequest{UserID: "u", Generation: 1},
		wire.PathWiped:    wire.Wiped{UserID: "u", Generation: 1},
		wire.PathJournal:  wire.Journal{},
		wire.PathOccasion: wire.Occasion{Kind: "logoff"},
	}
}

func TestACertificateIsRenewedAlsoAfterItsEnd(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		first := m.cert
		var reply wire.RenewReply
		m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &reply)
		m.cert = reply.Certificate
		m.connect()
		m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)

		// Half a year in a cupboard: the certificate may renew, and nothing else.
		r.clock.off = 180 * 24 * time.Hour
		m.connect()
		m.fails("POST", wire.PathHello, wire.Hello{Facts: m.facts}, "unauthorized")
		m.fails("GET", wire.PathChanges+"?since=0", nil, "unauthorized")
		m.fails("GET", wire.PathProbe, nil, "unauthorized")
		for path, body := range closedPaths(m) {
			m.fails("POST", path, body, "unauthorized")
		}
		m.fails("POST", wire.PathRenew, wire.Renew{CSR: []byte("x")}, "invalid")
		m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &reply)
		c, err := x509.ParseCertificate(reply.Certificate)
		if err != nil || c.Subject.CommonName != m.id || c.NotAfter.Before(r.clock.Now().Add(89*24*time.Hour)) {
			t.Errorf("%v, %v", c, err)
		}
		m.cert = reply.Certificate
		m.connect()
		m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
		// The first one too, which nobody has revoked.
		m.cert = first
		m.connect()
		m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &reply)
		if got := r.reasons(event.MachineRenewed); strings.Count(got, "renewed") != 3 {
			t.Error(got)
		}
	})
}

func TestWithoutACertificateOneMayOnlyJoin(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.newMachine()
	for path, body := range closedPaths(m) {
		m.fails("POST", path, body, "unauthorized")
	}
	m.fails("POST", wire.PathHello, wire.Hello{Facts: m.facts}, "unauthorized")
	m.fails("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, "unauthorized")
	m.fails("GET", wire.PathChanges+"?since=0", nil, "unauthorized")
	m.fails("GET", wire.PathProbe, nil, "unauthorized")
	m.fails("GET", "/", nil, "not-found")
	m.fails("GET", wire.PathHello, nil, "not-found")
}
