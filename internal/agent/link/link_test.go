package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"latchkey/internal/agent/identity"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/wire"
)

func TestNextStateHoldsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(1_800_000_000, 0)
		s := Start(at)
		refused := false
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			at = at.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			before := s
			var e Event
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0, 1, 2, 3:
				e = Answer{At: at}
			case 9:
				e = Refusal{At: at}
			default:
				e = Failure{At: at, Reason: rapid.SampledFrom([]Reason{Silence, ConnectionRefused, Foreign, ServerError}).Draw(t, "reason")}
			}
			s = Next(s, e)
			_, isRefusal := e.(Refusal)
			refused = refused || isRefusal
			switch e := e.(type) {
			case Answer:
				if !refused && (s.Link != policy.LinkUp || s.Failures != 0 || s.Reason != "" || !s.LastAnswer.Equal(at)) {
					t.Fatalf("behind an answer: %+v", s)
				}
			case Failure:
				if !refused && (s.Link != policy.LinkDown || s.Reason != e.Reason || s.Failures < 1 || s.Failures > maxFailures) {
					t.Fatalf("behind a failure: %+v", s)
				}
			}
			if refused && (s.Link != policy.LinkRefused || s.Choose(at) != BeRefused) {
				t.Fatalf("refused does not last: %+v", s)
			}
			if before.Link == s.Link && !s.Since.Equal(before.Since) && s.Link != policy.LinkRefused {
				t.Fatalf("since changed without the state: %+v → %+v", before, s)
			}
			if s.Link == policy.LinkUp && s.Choose(at.Add(time.Hour)) != TryFirst {
				t.Fatalf("a link that is up is not tried: %+v", s)
			}
			if s.Link == policy.LinkDown && s.Choose(at.Add(silenceSpeaks)) != TryFirst {
				t.Fatalf("a failure speaks for too long: %+v", s)
			}
			p := Pause(s.Failures, rapid.Byte().Draw(t, "dice"))
			if p < 0 || p > lastPause {
				t.Fatalf("pause %s", p)
			}
		}
	})
}

func TestASigninChoosesByWhatWasSeenLast(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	down := func(r Reason, ago time.Duration) State {
		return Next(Start(now), Failure{At: now.Add(-ago), Reason: r})
	}
	for name, c := range map[string]struct {
		s    State
		want Choice
	}{
		"never tried":                      {Start(now), TryFirst},
		"an answer long ago":               {Next(Start(now), Answer{At: now.Add(-time.Hour)}), TryFirst},
		"silence just now":                 {down(Silence, time.Second), BeOffline},
		"silence, and the loop is at it":   {down(Silence, 21*time.Second), BeOffline},
		"silence a while ago":              {down(Silence, 23*time.Second), TryFirst},
		"a proxy that says nothing":        {down(ProxySilent, 21*time.Second), BeOffline},
		"turned away just now":             {down(ConnectionRefused, 100*time.Millisecond), BeOffline},
		"turned away a moment ago":         {down(ConnectionRefused, 2*time.Second), TryFirst},
		"a failure in the future":          {down(Silence, -time.Hour), TryFirst},
		"refused":                          {Next(down(Silence, 0), Refusal{At: now}), BeRefused},
		"refused, and then an answer":      {Next(Next(Start(now), Refusal{At: now}), Answer{At: now}), BeRefused},
		"a state that nobody made":         {State{}, BeRefused},
		"an event that nobody knows (nil)": {Next(Start(now), nil), TryFirst},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.s.Choose(now); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestThePauseGrowsAndEnds(t *testing.T) {
	want := []time.Duration{0, 0, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second}
	for n, w := range want {
		if got := Pause(n, 0); got != w {
			t.Errorf("after %d failures: %s, want %s", n, got, w)
		}
		if got := Pause(n, 255); got > w || got < w*3/4 {
			t.Errorf("after %d failures with dice: %s", n, got)
		}
	}
}

func TestLinkComesUpAndCarriesWhatWaits(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr)
	for i := range 450 {
		r.vault.pending = append(r.vault.pending, wire.JournalEntry{Seq: uint64(i + 1), Event: event.Event{ID: "e"}})
	}
	var got []uint64
	done := make(chan struct{})
	s.on(wire.PathJournal, func(w http.ResponseWriter, body []byte) {
		var j wire.Journal
		if err := json.Unmarshal(body, &j); err != nil {
			t.Error(err)
		}
		for _, e := range j.Entries {
			got = append(got, e.Seq)
		}
		last := got[len(got)-1]
		reply(w, 200, wire.JournalReply{Seq: last})
		if last == 450 {
			close(done)
		}
	})
	asked := make(chan string, 8)
	s.on(wire.PathChanges, func(w http.ResponseWriter, _ []byte) {
		select {
		case asked <- "":
			reply(w, 200, wire.Changes{Serial: 7, Time: time.Now().UnixMicro(), Policy: []byte("signed")})
		default:
			time.Sleep(20 * time.Millisecond)
			reply(w, 200, wire.Changes{Serial: 7, Time: time.Now().UnixMicro()})
		}
	})
	occasions := make(chan wire.Occasion, 1)
	s.on(wire.PathOccasion, func(w http.ResponseWriter, body []byte) {
		var o wire.Occasion
		_ = json.Unmarshal(body, &o)
		occasions <- o
		w.WriteHeader(204)
	})
	r.link.Occasion(wire.Occasion{Kind: policy.EndLogoff, User: "alice"})
	r.run()
	until(t, "the link is up", 20*time.Second, func() bool { return r.link.State().Link == policy.LinkUp })
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the journal was not delivered")
	}
	for i, seq := range got {
		if seq != uint64(i+1) {
			t.Fatalf("entry %d came at place %d", seq, i+1)
		}
	}
	if o := <-occasions; o.User != "alice" || o.Kind != policy.EndLogoff {
		t.Errorf("occasion %+v", o)
	}
	until(t, "the policy is applied", 5*time.Second, func() bool { r.vault.mu.Lock(); defer r.vault.mu.Unlock(); return len(r.vault.applied) > 0 })
	until(t, "the serial is told", 5*time.Second, func() bool { return s.requests("GET "+wire.PathChanges+"?since=7") > 0 })
	if version, trouble := r.link.Server(); version != "9.9" || trouble != nil {
		t.Errorf("server %q, trouble %v", version, trouble)
	}
}

// O1: a black-holed server costs a sign-in its two seconds once, the next one nothing.
func TestABlackHoledServerCostsItsTimeOnce(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	r.run()
	until(t, "the link is up", 20*time.Second, func() bool { return r.link.State().Link == policy.LinkUp })
	if _, err := r.link.Step(t.Context(), "c0", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
	g.freeze()
	var down *Down
	start := time.Now()
	_, err := r.link.Step(t.Context(), "c1", 1, begin("alice"))
	if took := time.Since(start); !errors.As(err, &down) || down.Reason != Silence || took > quick3.First+5*time.Second { // a busy machine; silence without end is what would be wrong
		t.Fatalf("%v after %s", err, took)
	}
	start = time.Now()
	_, err = r.link.Step(t.Context(), "c2", 1, begin("alice"))
	if took := time.Since(start); !errors.As(err, &down) || took >= quick3.First {
		t.Fatalf("the second: %v after %s", err, took)
	}
	g.melt()
	until(t, "the link is up again", 20*time.Second, func() bool { return r.link.State().Link == policy.LinkUp })
	if _, err := r.link.Step(t.Context(), "c3", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
}

// S10: what was accepted here without the server it knows before it judges a code for
// this machine, however quick the next sign-in is.
func TestWhatWasSpentOfflineIsDeliveredBeforeASignin(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr) // and nothing runs in the background
	r.vault.pending = []wire.JournalEntry{{Seq: 1, Event: event.Event{ID: "e"}, Spent: &wire.Spent{Authenticator: "a", Step: 7}}}
	answer := func(seq uint64) {
		s.on(wire.PathJournal, func(w http.ResponseWriter, _ []byte) {
			_ = json.NewEncoder(w).Encode(wire.JournalReply{Seq: seq})
		})
	}
	answer(1)
	for i := range 2 {
		if _, err := r.link.Step(t.Context(), fmt.Sprint("c", i), 1, begin("alice")); err != nil {
			t.Fatal(err)
		}
	}
	steps := func() (out []string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, line := range s.seen {
			out = append(out, path.Base(path.Dir(line)))
		}
		return out
	}
	if d := cmp.Diff([]string{"v1", "c0", "c1"}, steps()); d != "" {
		t.Errorf("journal, sign-in, sign-in: %s", d)
	}
	// One that the server does not take (the quota of a day) costs no sign-in, and is
	// not sent with each of them.
	r.vault.mu.Lock()
	r.vault.pending = []wire.JournalEntry{{Seq: 2, Event: event.Event{ID: "f"}}}
	r.vault.mu.Unlock()
	r.link.Deliver()
	for i := range 3 {
		if _, err := r.link.Step(t.Context(), fmt.Sprint("d", i), 1, begin("alice")); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"v1", "c0", "c1", "v1", "d0", "d1", "d2"}, steps()); d != "" {
		t.Error(d)
	}
}

func TestAServerThatVanishesWithAJournalWaitingIsDown(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	if _, err := r.link.Step(t.Context(), "c0", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
	g.freeze()
	r.vault.mu.Lock()
	r.vault.pending = []wire.JournalEntry{{Seq: 1, Event: event.Event{ID: "e"}}}
	r.vault.mu.Unlock()
	r.link.Deliver()
	var down *Down
	if _, err := r.link.Step(t.Context(), "c1", 1, begin("alice")); !errors.As(err, &down) || down.Reason != Silence {
		t.Errorf("%v", err)
	}
	g.melt()
}

func TestSilenceIsNoticedWithoutASignin(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	r.run()
	until(t, "the link is up", 20*time.Second, func() bool { return r.link.State().Link == policy.LinkUp })
	g.freeze()
	until(t, "the link is down", 5*time.Second, func() bool { return r.link.State().Link == policy.LinkDown })
}

func TestAServerThatDiesIsNoticedAtOnce(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	r.run()
	until(t, "the link is up", 20*time.Second, func() bool { return r.link.State().Link == policy.LinkUp })
	_ = g.l.Close()
	g.cutAll()
	until(t, "the link is down", 20*time.Second, func() bool {
		st := r.link.State()
		return st.Link == policy.LinkDown && st.Reason == ConnectionRefused
	})
}

// A conversation begun online never turns offline: it is repeated, octet for octet.
func TestALaterStepIsRepeatedUntilTheServerIsBack(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
	g.freeze()
	time.AfterFunc(1500*time.Millisecond, g.melt)
	answer := wire.Step{Cancel: true}
	start := time.Now()
	if _, err := r.link.Step(t.Context(), "c", 2, answer); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second {
		t.Errorf("answered after %s, though nothing went through", took)
	}
	all := s.bodies()[1:]
	for _, b := range all {
		if string(b) != string(all[0]) {
			t.Errorf("a repeat differs: %s", b)
		}
	}
}

func TestALaterStepIsLostAndNeverDown(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
	for name, cut := range map[string]func(){
		"packets vanish": g.freeze,
		"server is gone": func() { g.melt(); _ = g.l.Close(); g.cutAll() },
	} {
		t.Run(name, func(t *testing.T) {
			cut()
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			var down *Down
			_, err := r.link.Step(ctx, "c", 2, wire.Step{Cancel: true})
			if !errors.Is(err, ErrLost) || errors.As(err, &down) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAConnectionThatLayIdleIsReplacedWithinTheFirstStep(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	g := newGate(t, s.addr)
	r := newRig(t, ca, g.addr)
	for range 5 {
		if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
			t.Fatal(err)
		}
		g.cutAll()
	}
}

// Every way in which a server can be no server has its own reason.
func TestDownHasItsReason(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := newServer(t, ca)

	certOf := func(a *authority, usage x509.ExtKeyUsage, from, to time.Duration) tls.Certificate {
		k := newKey(t)
		return tls.Certificate{Certificate: [][]byte{a.issue(k.Public(), usage, from, to), a.cert.Raw}, PrivateKey: k}
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = http.Serve(plain, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a captive portal of the test
			http.Redirect(w, &http.Request{}, "http://portal.example/", http.StatusFound)
		}))
	}()
	defer plain.Close()
	deadAddr := dead(t)
	proxy := func(status int) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })) //nolint:gosec // of the test
		}()
		t.Cleanup(func() { _ = l.Close() })
		return "http://" + l.Addr().String()
	}
	// raw talks to whoever connects, as it likes.
	raw := func(talk func(c net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { _ = c.Close() })
				go talk(c)
			}
		}()
		return l.Addr().String()
	}
	// connect is a proxy that answers each thing that it is told with the next text,
	// and hangs up behind the last.
	connect := func(answers ...string) string {
		return "http://" + raw(func(c net.Conn) {
			b := make([]byte, 4096)
			for _, answer := range answers {
				_, _ = c.Read(b)
				_, _ = c.Write([]byte(answer))
			}
			_ = c.Close()
		})
	}
	oldTLS := raw(func(c net.Conn) {
		k := newKey(t)
		tc := tls.Server(c, &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{other.issue(k.Public(), x509.ExtKeyUsageServerAuth, 0, time.Hour)}, PrivateKey: k}}}) //nolint:gosec // a portal of the test
		_ = tc.Handshake()
		_ = c.Close()
	})
	reset := raw(func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	})
	silent := raw(func(net.Conn) {})
	huge := newServer(t, ca)
	huge.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		for part := make([]byte, 64<<10); ; {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	})
	cutOff := newServer(t, ca)
	cutOff.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"done":`))
		panic(http.ErrAbortHandler)
	})
	drip := newServer(t, ca)
	drip.step(func(w http.ResponseWriter, r *http.Request, _ []byte) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	})
	noHeader := newServer(t, ca)
	noHeader.header = false
	failing := newServer(t, ca)
	failing.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		reply(w, 503, wire.Problem{Code: string(fault.Unavailable), Detail: "not now"})
	})
	redirect := newServer(t, ca)
	redirect.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.Header().Set("Location", "https://elsewhere/")
		w.WriteHeader(302)
	})
	garbage := newServer(t, ca)
	garbage.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = w.Write([]byte("<html>")) })
	odd := newServer(t, ca)
	odd.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(404)
		_, _ = w.Write([]byte("<html>"))
	})

	for name, c := range map[string]struct {
		addr, proxy string
		want        Reason
	}{
		"another CA answers":                        {newServer(t, other).addr, "", Foreign},
		"a machine of the same CA plays the server": {newServer(t, ca, certOf(ca, x509.ExtKeyUsageClientAuth, -time.Hour, time.Hour)).addr, "", Foreign},
		"the server's certificate is old":           {newServer(t, ca, certOf(ca, x509.ExtKeyUsageServerAuth, -2*time.Hour, -time.Hour)).addr, "", ServerExpired},
		"a captive portal answers in the clear":     {plain.Addr().String(), "", NotLatchkey},
		"nobody listens":                            {deadAddr, "", ConnectionRefused},
		"no Latchkey behind the right certificate":  {noHeader.addr, "", NotLatchkey},
		"the server redirects":                      {redirect.addr, "", NotLatchkey},
		"the server has a problem":                  {failing.addr, "", ServerError},
		"the answer can not be read":                {garbage.addr, "", ServerError},
		"a 404 that is no problem":                  {odd.addr, "", NotLatchkey},
		"the proxy refuses":                         {good.addr, proxy(403), ProxyRefused},
		"the proxy has no way":                      {good.addr, proxy(502), ProxyRefused},
		"the proxy is gone":                         {good.addr, "http://" + deadAddr, ProxyUnreachable},
		"the proxy wants credentials":               {good.addr, proxy(407), ProxyCredentials},
		"the proxy takes the call and says nothing": {good.addr, "http://" + silent, ProxySilent},
		"the proxy hangs up":                        {good.addr, connect(""), ProxyRefused},
		"the proxy is none":                         {good.addr, connect("220 mail.example ESMTP\r\n"), ProxyRefused},
		"the proxy hangs up behind its answer":      {good.addr, connect("HTTP/1.1 200 OK\r\n\r\n", ""), Broken},
		"the proxy answers in the server's place":   {good.addr, connect("HTTP/1.1 200 OK\r\n\r\n", "<html>"), NotLatchkey},
		"a portal that speaks an old TLS":           {oldTLS, "", NotLatchkey},
		"a portal that hangs up":                    {reset, "", Broken},
		"somebody who says nothing":                 {silent, "", Silence},
		"an answer without an end":                  {huge.addr, "", ServerError},
		"an answer that is cut off":                 {cutOff.addr, "", Broken},
		"an answer that drips":                      {drip.addr, "", Silence},
		"the name is unknown":                       {"nowhere.invalid:8444", "", NameUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, ca, c.addr, func(_ *rig, i *identity.Identity) { i.Proxy = c.proxy })
			_, err := r.link.Step(t.Context(), "c", 1, begin("alice"))
			var down *Down
			if !errors.As(err, &down) || down.Reason != c.want && (c.want != NameUnknown || down.Reason != Silence) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if st := r.link.State(); st.Link != policy.LinkDown || st.Reason != down.Reason || down.Reason.Text() == "" {
				t.Errorf("state %+v", st)
			}
			for _, b := range good.bodies() {
				if strings.Contains(string(b), "b3Blbi") {
					t.Error("a password went to the good server by this way")
				}
			}
		})
	}
	// What is not the pinned server never sees a request, and so never a password.
	for _, s := range []*scriptedServer{noHeader, failing} {
		if len(s.bodies()) == 0 {
			t.Error("the pinned server saw no request: the test proves nothing")
		}
	}
}

func TestAnAnswerOfTheServerIsNeverDown(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr)
	for _, code := range []fault.Code{fault.MachinePending, fault.MachineUnknown, fault.TooOld, fault.TooMany, fault.Expired, fault.MachineRefused} {
		f := fault.New(code, nil)
		s.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			reply(w, f.Status(), wire.Problem{Code: string(code), Detail: f.Public()})
		})
		for seq := 1; seq <= 2; seq++ {
			_, err := r.link.Step(t.Context(), "c", seq, wire.Step{Cancel: true})
			var p *wire.Problem
			if !errors.As(err, &p) || p.Code != string(code) || r.link.State().Link != policy.LinkUp {
				t.Errorf("%s at step %d: %v, %+v", code, seq, err, r.link.State())
			}
		}
	}
}

func TestARefusalMustBeSignedForThisMachineAndThenLasts(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr)
	note, err := json.Marshal(wire.RefusalNote{MachineID: r.id.MachineID, Status: "revoked", Text: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(object []byte) {
		s.step(func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			reply(w, 403, wire.Problem{Code: string(fault.MachineRefused), Detail: "no", Refusal: object})
		})
	}
	foreign := newRig(t, ca, s.addr)
	for name, object := range map[string][]byte{
		"no object":       nil,
		"garbage":         []byte("refused!"),
		"another machine": seal.Sign(r.grant, seal.Refusal, "0198c0de-0000-7000-8000-00000000ffff", note),
		"another kind":    seal.Sign(r.grant, seal.Policy, r.id.MachineID, note),
		"another key":     seal.Sign(foreign.grant, seal.Refusal, r.id.MachineID, note),
	} {
		refuse(object)
		_, err := r.link.Step(t.Context(), "c", 1, begin("alice"))
		var refused *Refused
		if errors.As(err, &refused) || r.link.State().Link != policy.LinkUp || r.vault.Refusal() != nil {
			t.Errorf("%s: %v, %+v", name, err, r.link.State())
		}
	}
	refuse(seal.Sign(r.grant, seal.Refusal, r.id.MachineID, note))
	var refused *Refused
	if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); !errors.As(err, &refused) {
		t.Fatalf("%v", err)
	}
	// It lasts: the server may say what it likes, also if the disk was full.
	s.step(nil)
	if _, err := r.link.Step(t.Context(), "d", 1, begin("alice")); !errors.As(err, &refused) || refused.Text() == "" {
		t.Fatalf("%v", err)
	}
	again := r.newLink()
	if again.State().Link != policy.LinkRefused {
		t.Errorf("after a restart: %+v", again.State())
	}
}

func TestTheMachineIsNotCutOffByItsClock(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	for name, now := range map[string]time.Time{
		"the battery is dead":       time.Unix(0, 0),
		"the clock is an hour late": time.Now().Add(-90 * time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, ca, s.addr)
			r.clk = clock.NewManual(now)
			r.link = r.newLink()
			if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("a time seen before counts against an old certificate", func(t *testing.T) {
		r := newRig(t, ca, s.addr)
		r.clk = clock.NewManual(time.Unix(0, 0))
		r.vault.highest = time.Now().Add(2 * time.Hour)
		r.link = r.newLink()
		var down *Down
		if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); !errors.As(err, &down) || down.Reason != ServerExpired {
			t.Fatalf("%v", err)
		}
	})
}

func TestTheCertificateIsRenewedAtTwoThirds(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr, func(r *rig, i *identity.Identity) {
		i.Certificate = ca.issue(r.key.Public(), x509.ExtKeyUsageClientAuth, -3*time.Hour, time.Hour)
	})
	s.on(wire.PathRenew, func(w http.ResponseWriter, body []byte) {
		var q wire.Renew
		if err := json.Unmarshal(body, &q); err != nil {
			t.Error(err)
		}
		csr, err := x509.ParseCertificateRequest(q.CSR)
		if err != nil || csr.CheckSignature() != nil {
			t.Errorf("request: %v", err)
		}
		reply(w, 200, wire.RenewReply{Certificate: ca.issue(csr.PublicKey, x509.ExtKeyUsageClientAuth, -time.Minute, 90*24*time.Hour)})
	})
	r.run()
	until(t, "the certificate is new", 20*time.Second, func() bool {
		i, _, err := identity.Load(r.dir, nil)
		return err == nil && time.Until(i.MachineCertificate().NotAfter) > 80*24*time.Hour
	})
	until(t, "the link is up", 20*time.Second, func() bool { return r.link.State().Link == policy.LinkUp })
	until(t, "the chores look after the certificate too", 20*time.Second, func() bool { r.vault.mu.Lock(); defer r.vault.mu.Unlock(); return r.vault.lifts > 0 })
	r.link.renewIfDue(t.Context()) // behind whoever is at it
	if n := s.requests("POST " + wire.PathRenew); n != 1 {
		t.Errorf("%d certificates were asked for", n)
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	for _, v := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"} {
		t.Setenv(v, "http://127.0.0.1:1")
	}
	r := newRig(t, ca, s.addr)
	if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
}

func TestAServerRestoredFromABackupCatchesUp(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr)
	r.vault.serial, r.vault.applyErr = 41, errors.New("older than the ledger's")
	r.link = r.newLink()
	s.on(wire.PathChanges, func(w http.ResponseWriter, _ []byte) {
		reply(w, 200, wire.Changes{Serial: 3, Time: time.Now().UnixMicro(), Policy: []byte("old")})
	})
	r.run()
	until(t, "a whole policy is asked for", 5*time.Second, func() bool { return s.requests("GET "+wire.PathChanges+"?since=0") > 0 })
	until(t, "the policy is refused", 5*time.Second, func() bool { r.vault.mu.Lock(); defer r.vault.mu.Unlock(); return len(r.vault.applied) > 0 })
	r.link.wake(r.link.nudge)
	until(t, "the truth is told", 20*time.Second, func() bool { return s.requests("GET "+wire.PathChanges+"?since=41") > 0 })
}

// A server that greets and then fails is not asked in a tight circle.
func TestAServerThatGreetsAndFailsIsGivenTime(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	s.on(wire.PathChanges, func(w http.ResponseWriter, _ []byte) {
		reply(w, 500, wire.Problem{Code: string(fault.Internal), Detail: "no"})
	})
	r := newRig(t, ca, s.addr)
	r.run()
	time.Sleep(3 * time.Second)
	if n := s.requests("POST " + wire.PathHello); n > 6 || n < 2 {
		t.Errorf("%d greetings in three seconds", n)
	}
}

// The proxy gets CONNECT and nothing else; behind it is the same pinned server.
func TestThroughAProxy(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	methods := make(chan string, 16)
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // of the test
			methods <- r.Method + " " + r.RequestURI
			to, err := net.Dial("tcp", r.RequestURI)
			if err != nil {
				w.WriteHeader(502)
				return
			}
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
			_, _ = io.Copy(c, to)
			_ = c.Close()
		}))
	}()
	r := newRig(t, ca, s.addr, func(_ *rig, i *identity.Identity) { i.Proxy = "http://" + l.Addr().String() })
	if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
		t.Fatal(err)
	}
	if m := <-methods; m != "CONNECT "+s.addr {
		t.Errorf("the proxy was asked %q", m)
	}
}

// A server that is older than the agent is spoken to in its own version, and a later
// one when it was updated; what was sent is repeated with the same octets.
func TestAnOlderServerIsSpokenToInItsVersion(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr)
	if wire.Servers() != (wire.Range{Oldest: 1, Newest: 1}) {
		t.Fatal("there is a second version: let the server of this test speak the one before")
	}
	own := r.link.speaks
	own.Store(2) // as if the agent were a version ahead
	tooNew := func(said string) func(w http.ResponseWriter, r *http.Request, _ []byte) {
		return func(w http.ResponseWriter, r *http.Request, _ []byte) {
			if r.Header.Get(wire.VersionHeader) == "1" {
				reply(w, 200, wire.StepReply{Done: &wire.Done{Outcome: "allow"}})
				return
			}
			w.Header().Set(wire.VersionHeader, said)
			f := fault.New(fault.TooNew, nil)
			reply(w, f.Status(), wire.Problem{Code: string(f.Code), Detail: f.Public()})
		}
	}
	s.step(tooNew("1"))
	if _, err := r.link.Step(t.Context(), "c", 1, begin("alice")); err != nil {
		t.Fatalf("the agent does not fall back: %v", err)
	}
	if n := len(s.bodies()); n != 2 || own.Load() != 1 || r.link.State().Link != policy.LinkUp {
		t.Errorf("%d requests, version %d, %+v", n, own.Load(), r.link.State())
	}
	if _, err := r.link.Step(t.Context(), "c", 2, begin("alice")); err != nil || len(s.bodies()) != 3 {
		t.Errorf("%v; %d requests: what is known is asked again", err, len(s.bodies()))
	}
	for _, said := range []string{"0", "7", "-1", "1 ", "999999999999", "x"} {
		r := newRig(t, ca, s.addr)
		r.link.speaks.Store(2)
		s.step(tooNew(said))
		before := len(s.bodies())
		var p *wire.Problem
		if _, err := r.link.Step(t.Context(), "d", 1, begin("alice")); !errors.As(err, &p) || p.Code != string(fault.TooNew) {
			var down *Down
			if !errors.As(err, &down) { // a header that is none is no Latchkey
				t.Errorf("the server says %q: %v", said, err)
			}
		}
		if n := len(s.bodies()) - before; n != 1 {
			t.Errorf("the server says %q: %d requests", said, n)
		}
	}
}

func TestAWaitHangsOnTheServer(t *testing.T) {
	ca := newAuthority(t)
	s := newServer(t, ca)
	r := newRig(t, ca, s.addr)
	s.mu.Lock()
	s.onStep = func(w http.ResponseWriter, r *http.Request, body []byte) {
		if r.Method != "GET" || r.URL.Path != "/agent/v1/conversations/c/wait" || len(body) != 0 {
			t.Errorf("%s %s with %q", r.Method, r.URL, body)
		}
		select {
		case <-time.After(300 * time.Millisecond):
			reply(w, 200, wire.Empty{})
		case <-r.Context().Done():
		}
	}
	s.mu.Unlock()
	start := time.Now()
	if err := r.link.Wait(t.Context(), "c"); err != nil || time.Since(start) < 300*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.link.Wait(ctx, "c"); err == nil {
		t.Error("a wait that was given up is an answer")
	}
	if st := r.link.State(); st.Reason != "" {
		t.Errorf("the link is down for a wait that was given up: %+v", st)
	}
}
