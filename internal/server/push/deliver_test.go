package push_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var b64 = base64.RawURLEncoding

func unhide(t testing.TB, s string) []byte {
	t.Helper()
	b, err := b64.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open decrypts a message as a browser does (RFC 8291 §3.4, RFC 8188 §2): written from
// the standards, for tests alone.
func open(ua *ecdh.PrivateKey, auth, body []byte) ([]byte, error) {
	if len(body) < 21 {
		return nil, errors.New("too short")
	}
	salt, rs, idlen := body[:16], binary.BigEndian.Uint32(body[16:20]), int(body[20])
	if len(body) < 21+idlen {
		return nil, errors.New("too short")
	}
	id, sealed := body[21:21+idlen], body[21+idlen:]
	if len(sealed) > int(rs) {
		return nil, errors.New("more than one record")
	}
	as, err := ecdh.P256().NewPublicKey(id)
	if err != nil {
		return nil, err
	}
	shared, err := ua.ECDH(as)
	if err != nil {
		return nil, err
	}
	info := "WebPush: info\x00" + string(ua.PublicKey().Bytes()) + string(id)
	ikm, err := hkdf.Key(sha256.New, shared, auth, info, 32)
	if err != nil {
		return nil, err
	}
	cek, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(cek)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, nonce, sealed, nil)
	if err != nil {
		return nil, err
	}
	i := len(plain) - 1
	for i >= 0 && plain[i] == 0 {
		i--
	}
	if i < 0 || plain[i] != 2 {
		return nil, errors.New("no delimiter of a last record")
	}
	return plain[:i], nil
}

// The message of RFC 8291 §5, with the keys of its appendix A, opens with what the test
// below opens ours with.
func TestTheReceiverOfTheseTestsIsThatOfRFC8291(t *testing.T) {
	ua, err := ecdh.P256().NewPrivateKey(unhide(t, "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
	if err != nil {
		t.Fatal(err)
	}
	if got := b64.EncodeToString(ua.PublicKey().Bytes()); got != "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4" {
		t.Errorf("public key %s", got)
	}
	body := unhide(t, "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	plain, err := open(ua, unhide(t, "BTBZMqHH6r4Tts7J_aSIgg"), body)
	if err != nil || string(plain) != "When I grow up, I want to be a watermelon" {
		t.Errorf("%q %v", plain, err)
	}
	body[len(body)-1] ^= 1
	if _, err := open(ua, unhide(t, "BTBZMqHH6r4Tts7J_aSIgg"), body); err == nil {
		t.Error("an altered message opens")
	}
}

// browser is a subscription as a browser makes it.
type browser struct {
	key  *ecdh.PrivateKey
	auth []byte
}

func newBrowser(t testing.TB) browser {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	auth := make([]byte, 16)
	_, _ = rand.Read(auth)
	return browser{k, auth}
}

func (b browser) at(endpoint string) push.Subscription {
	return push.Subscription{Endpoint: endpoint, P256DH: b64.EncodeToString(b.key.PublicKey().Bytes()), Auth: b64.EncodeToString(b.auth)}
}

// endpoint is a push service on this host.
type endpoint struct {
	*httptest.Server
	mu     sync.Mutex
	got    []*http.Request
	bodies [][]byte
	answer func(n int) int
}

func newEndpoint(t testing.TB, answer func(n int) int) (*endpoint, *x509.CertPool) {
	t.Helper()
	e := &endpoint{answer: answer}
	e.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.got, e.bodies = append(e.got, r), append(e.bodies, b)
		n := len(e.got)
		e.mu.Unlock()
		status := e.answer(n)
		if status == http.StatusFound {
			w.Header().Set("Location", e.URL+"/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(e.Close)
	pool := x509.NewCertPool()
	pool.AddCert(e.Certificate())
	return e, pool
}

func (e *endpoint) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.got)
}

func (e *endpoint) wait(t testing.TB, n int) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); e.count() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d notices came, want %d", e.count(), n)
		}
	}
}

func deliverRig(t *testing.T, answer func(n int) int) (*rig, *endpoint, browser, *phonetest.Phone, *clock.Manual) {
	e, pool := newEndpoint(t, answer)
	c := clock.NewManual(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	r := newRig(t, c, storetest.SQLite(t), "a", pool)
	r.anna = r.user("anna")
	p := r.phone("anna", "phone")
	b := newBrowser(t)
	r.ok(p.Subscribe(t.Context(), b.at(e.URL+"/push/abc?x=1")))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.service.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return r, e, b, p, c
}

func TestANoticeSaysLookAndNothingElse(t *testing.T) {
	r, e, b, p, c := deliverRig(t, func(int) int { return http.StatusCreated })
	sent := r.send(ask(r.anna, "t1", "m1", c.Now()))
	e.wait(t, 1)
	got, body := e.got[0], e.bodies[0]
	if got.Method != "POST" || got.URL.RequestURI() != "/push/abc?x=1" || got.Header.Get("Content-Encoding") != "aes128gcm" || got.Header.Get("Urgency") != "high" {
		t.Errorf("%s %s %v", got.Method, got.URL, got.Header)
	}
	if ttl, err := strconv.Atoi(got.Header.Get("TTL")); err != nil || ttl < 50 || ttl > 61 {
		t.Errorf("TTL %s", got.Header.Get("TTL"))
	}
	if topic := got.Header.Get("Topic"); len(topic) != 32 {
		t.Errorf("topic %q", topic)
	}
	plain, err := open(b.key, b.auth, body)
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.Requests(t.Context(), 0)
	r.ok(err)
	want := push.Notice{Device: p.Device, Request: all.Requests[0].ID, Expires: c.Now().Add(push.Life).Unix()}
	var n push.Notice
	if err := json.Unmarshal(plain, &n); err != nil || n != want {
		t.Errorf("%s, want %+v", plain, want)
	}
	for _, secret := range []string{"anna", "m1", "login", `"` + sent.Number + `"`} {
		if strings.Contains(string(plain), secret) {
			t.Errorf("the notice holds %q: %s", secret, plain)
		}
	}
	// RFC 8292: the header is a token that this server's key has signed for this service.
	token, key, ok := strings.Cut(strings.TrimPrefix(got.Header.Get("Authorization"), "vapid t="), ", k=")
	parts := strings.Split(token, ".")
	if !ok || key != p.Told.VAPID || len(parts) != 3 {
		t.Fatalf("Authorization %q", got.Header.Get("Authorization"))
	}
	point := unhide(t, key)
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	h, sig := sha256.Sum256([]byte(parts[0]+"."+parts[1])), unhide(t, parts[2])
	if len(sig) != 64 || !ecdsa.Verify(pub, h[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Error("the token is not signed by the key that stands beside it")
	}
	var claims struct {
		Aud, Sub string
		Exp      int64
	}
	if err := json.Unmarshal(unhide(t, parts[1]), &claims); err != nil || claims.Aud != e.URL || claims.Sub != desktest.People || time.Until(time.Unix(claims.Exp, 0)) > 24*time.Hour {
		t.Errorf("claims %+v %v", claims, err)
	}
	// One notice for a request, whatever else wakes the service.
	r.send(ask(r.anna, "t2", "m2", c.Now()))
	e.wait(t, 2)
	time.Sleep(100 * time.Millisecond)
	if n := e.count(); n != 2 {
		t.Errorf("%d notices for two requests", n)
	}
}

func TestWhatAPushServiceAnswers(t *testing.T) {
	for _, x := range []struct {
		name   string
		answer func(n int) int
		tries  int
		kept   bool
	}{
		{"it is busy twice", func(n int) int {
			if n < 3 {
				return http.StatusServiceUnavailable
			}
			return http.StatusCreated
		}, 3, true},
		{"it stays broken", func(int) int { return http.StatusInternalServerError }, 3, true},
		{"it does not like the notice", func(int) int { return http.StatusBadRequest }, 1, true},
		{"it sends elsewhere", func(int) int { return http.StatusFound }, 1, true},
		{"the phone is gone", func(int) int { return http.StatusGone }, 1, false},
		{"it knows no such phone", func(int) int { return http.StatusNotFound }, 1, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			r, e, _, p, c := deliverRig(t, x.answer)
			a := ask(r.anna, "t1", "m1", c.Now())
			r.send(a)
			for until := time.Now().Add(2 * time.Second); time.Now().Before(until) && e.count() < x.tries; time.Sleep(10 * time.Millisecond) {
				c.Advance(250 * time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			if n := e.count(); n != x.tries {
				t.Errorf("%d tries, want %d", n, x.tries)
			}
			var acc push.Account
			for until := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				var err error
				p.Clock = c
				acc, err = p.Account(t.Context())
				r.ok(err)
				if acc.Notify == x.kept || time.Now().After(until) {
					break
				}
			}
			if acc.Notify != x.kept {
				t.Errorf("the subscription is kept: %v, want %v", acc.Notify, x.kept)
			}
			gone, err := r.ListEvents(t.Context(), desk.Root(), desk.EventFilter{Types: []string{string(event.PushUnreachable)}}, "", 10)
			r.ok(err)
			if (len(gone.Items) == 1) == x.kept {
				t.Errorf("events %+v", gone.Items)
			}
		})
	}
}

func TestNoticesGoToPublicNamesAlone(t *testing.T) {
	own := push.Delivery{Private: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	for _, x := range []struct {
		url   string
		plain bool // allowed where nothing is listed
		own   bool // and where 10.1.0.0/16 is
	}{
		{"https://fcm.googleapis.com/fcm/send/abc", true, true},
		{"https://updates.push.services.mozilla.com/wpush/v2/x", true, true},
		{"https://web.push.apple.com/x", true, true},
		{"https://push.example.org:443/x", true, true},
		{"https://push.example.org:8443/x", false, true},
		{"http://fcm.googleapis.com/fcm/send/abc", false, false},
		{"ftp://fcm.googleapis.com/", false, false},
		{"https://127.0.0.1/", false, false},
		{"https://10.1.2.3/", false, true},
		{"https://10.2.2.3/", false, false},
		{"https://8.8.8.8/", false, false},
		{"https://[::1]/", false, false},
		{"https://[::ffff:127.0.0.1]/", false, false},
		{"https://2130706433/", false, false}, // others read these as numbers
		{"https://127.1/", false, false},
		{"https://0177.0.0.1/", false, false},
		{"https://127.0.0.1./", false, false},
		{"https://127.0.0.1../", false, false},
		{"https://0x7f.0.0.1/", false, false},
		{"https://push.0x7f000001/", false, false},
		{"https://push.0x/", false, false},
		{"https://\uff11\uff12\uff17.\uff11/", false, false},
		{"https://push.example\u3002org/", false, false},
		{"https://%31%32%37.1/", false, false},
		{"https://3com.example.org/", true, true},
		{"https://localhost/", false, true},
		{"https://printer/", false, true},
		{"https://db.internal/", false, true},
		{"https://a.localhost/", false, true},
		{"https://user:pw@push.example.org/", false, false},
		{"https://push.example.org/#x", false, false},
		{"https:///x", false, false},
		{"https://push.example.org/\n", false, false},
		{"https://push.example.org/" + strings.Repeat("x", 2000), false, false},
		{"", false, false},
	} {
		if err := (push.Delivery{}).Endpoint(x.url); (err == nil) != x.plain {
			t.Errorf("%.60q: %v, want allowed %v", x.url, err, x.plain)
		}
		if err := own.Endpoint(x.url); (err == nil) != x.own {
			t.Errorf("with a network of one's own, %.60q: %v, want allowed %v", x.url, err, x.own)
		}
	}
	for _, x := range []struct {
		addr string
		want bool
	}{
		{"8.8.8.8", true},
		{"2606:4700::1111", true},
		{"127.0.0.1", false},
		{"::1", false},
		{"0.0.0.0", false},
		{"::", false},
		{"10.0.0.1", false},
		{"172.16.3.4", false},
		{"192.168.1.1", false},
		{"169.254.169.254", false},
		{"100.64.0.1", false},
		{"fe80::1%eth0", false},
		{"fd00::1", false},
		{"ff02::1", false},
		{"224.0.0.1", false},
		{"255.255.255.255", false},
		{"::ffff:10.0.0.1", false},
		{"64:ff9b::a00:1", false},
		{"2002:a00:1::", false},
		{"198.18.0.1", false},
	} {
		if got := (push.Delivery{}).Allowed(netip.AddrPortFrom(netip.MustParseAddr(x.addr), 443)); got != x.want {
			t.Errorf("%s allowed: %v, want %v", x.addr, got, x.want)
		}
	}
	for addr, want := range map[string]bool{
		"[::ffff:10.1.0.9]:8443": true, "10.1.0.9:8443": true, "10.2.0.9:443": false, "8.8.8.8:443": true, "8.8.8.8:22": false, "[2606:4700::1111]:8443": false,
	} {
		if own.Allowed(netip.MustParseAddrPort(addr)) != want {
			t.Errorf("with a network of one's own, %s: want %v", addr, want)
		}
	}
	// What a proxy reaches is not seen: there the port is judged by the name alone.
	proxied := push.Delivery{Private: own.Private, Proxy: &url.URL{Scheme: "http", Host: "proxy.example.org:3128"}}
	for u, want := range map[string]bool{
		"https://push.example.org:8443/x": false, "https://push.example.org/x": true, "https://127.1/": false, "https://0177.0.0.1/": false, "https://printer/": false,
	} {
		if (proxied.Endpoint(u) == nil) != want {
			t.Errorf("through a proxy, %s: want %v", u, want)
		}
	}
}

// A name that leads to this host is found out when it is dialled, whatever it said when
// the subscription came.
func TestTheAddressBehindANameIsJudgedWhenItIsDialled(t *testing.T) {
	e, pool := newEndpoint(t, func(int) int { return http.StatusCreated })
	for _, host := range []string{"127.0.0.1", "localhost"} {
		u := strings.Replace(e.URL, "127.0.0.1", host, 1)
		res, err := push.Delivery{Roots: pool}.HTTP().Post(u, "text/plain", strings.NewReader("x"))
		if err == nil {
			res.Body.Close()
			t.Errorf("%s was reached", host)
		} else if !strings.Contains(err.Error(), "not public") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if e.count() != 0 {
		t.Error("something came")
	}
}

func TestASubscriptionIsJudged(t *testing.T) {
	r, e, b, p, _ := deliverRig(t, func(int) int { return http.StatusCreated })
	good := b.at(e.URL)
	bend := func(fn func(*push.Subscription)) push.Subscription { s := good; fn(&s); return s }
	for name, s := range map[string]push.Subscription{
		"endpoint":       bend(func(s *push.Subscription) { s.Endpoint = "https://192.168.1.1/x" }),
		"invalid":        bend(func(s *push.Subscription) { s.Auth = "AAAA" }),
		"invalid, key":   bend(func(s *push.Subscription) { s.P256DH = "AAAA" }),
		"invalid, point": bend(func(s *push.Subscription) { s.P256DH = b64.EncodeToString(make([]byte, 65)) }),
	} {
		want, _, _ := strings.Cut(name, ",")
		if err := p.Subscribe(t.Context(), s); phonetest.Code(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.ok(p.Subscribe(t.Context(), good))
	r.ok(p.Call(t.Context(), "DELETE", "subscription", nil, nil))
	if acc, err := p.Account(t.Context()); err != nil || acc.Notify {
		t.Error(acc, err)
	}
}

// A push service that takes everything and answers nothing holds up its own notices, and
// nobody else's.
func TestASilentPushServiceHoldsUpNobodyElse(t *testing.T) {
	until := make(chan struct{})
	silent, pool := newEndpoint(t, func(int) int { <-until; return http.StatusCreated })
	t.Cleanup(func() { close(until) }) // before it is closed, which waits
	quick, _ := newEndpoint(t, func(int) int { return http.StatusCreated })
	pool.AddCert(quick.Certificate())
	c := clock.NewManual(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	r := newRig(t, c, storetest.SQLite(t), "a", pool)
	b, bert := newBrowser(t), r.user("bert")
	var others []db.User
	for i := range (push.PerService + 4) / 4 { // a person has five phones at most
		u := r.user("anna-" + strconv.Itoa(i))
		c.Advance(time.Minute) // so many enrolments are too many at once
		for range 4 {
			r.ok(r.phone(u.Name, "phone").Subscribe(t.Context(), b.at(silent.URL+"/x")))
		}
		others = append(others, u)
	}
	r.ok(r.phone("bert", "phone").Subscribe(t.Context(), b.at(quick.URL+"/x")))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.service.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	for _, u := range others {
		r.send(ask(u, u.Name, "m1", c.Now()))
	}
	silent.wait(t, push.PerService)
	r.send(ask(bert, "t2", "m2", c.Now()))
	quick.wait(t, 1)
	if n := silent.count(); n != push.PerService {
		t.Errorf("%d notices are under way to the silent one, want %d", n, push.PerService)
	}
}

// A notice that had to wait is not sent behind the end of its request.
func TestANoticeOfARequestThatHasEndedIsNotSentAgain(t *testing.T) {
	r, e, _, _, c := deliverRig(t, func(int) int { return http.StatusServiceUnavailable })
	a := ask(r.anna, "t1", "m1", c.Now())
	r.send(a)
	e.wait(t, 1)
	again := func() { // a notice waits to be sent once more
		t.Helper()
		for until := time.Now().Add(20 * time.Second); c.Waiting(time.Second) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("nothing waits to be sent again")
			}
		}
	}
	again()
	r.ok(r.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error { return r.plug.Withdraw(ctx, tx, a.Ticket) }))
	c.Advance(time.Second)
	// What is asked behind it comes the same way, and is sent again.
	r.send(ask(r.anna, "t2", "m2", c.Now()))
	topics := func() (first string, of map[string]int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		of = map[string]int{}
		for _, r := range e.got {
			of[r.Header.Get("Topic")]++
		}
		return e.got[0].Header.Get("Topic"), of
	}
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		first, of := topics()
		if of[first] > 1 {
			t.Fatalf("%d notices of a request that was withdrawn behind the first", of[first])
		}
		if len(of) == 2 && e.count() > 2 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("notices came as %v", of)
		}
		if len(of) == 2 && c.Waiting(time.Second) > 0 {
			c.Advance(time.Second)
		}
	}
}

func TestEachPushServiceHasALaneOfItsOwn(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun, goOn := make(chan string, 2*push.Senders), make(chan struct{})
	var mu sync.Mutex
	var sent []string
	put, wait := push.NewLanes(ctx, func(ctx context.Context, id string) bool {
		begun <- id
		if strings.HasPrefix(id, "slow") {
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		mu.Lock()
		sent = append(sent, id)
		mu.Unlock()
		return true
	})
	next := func() string {
		t.Helper()
		select {
		case id := <-begun:
			return id
		case <-time.After(5 * time.Second):
			t.Fatal("nothing begins")
			return ""
		}
	}
	// More than may wait: the oldest of those that wait are dropped.
	const over = 5
	for i := range push.PerService + push.MaxQueued + over {
		put("slow.example", "slow "+strconv.Itoa(i))
	}
	for range push.PerService {
		next()
	}
	// Others go on at once, and as many as like to.
	for i := range 3 {
		put("quick.example", "quick")
		if id := next(); id != "quick" {
			t.Fatalf("%d: %s", i, id)
		}
	}
	select {
	case id := <-begun:
		t.Errorf("%s begins beside %d of its service", id, push.PerService)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	go func() {
		for range begun {
		}
	}()
	wait()
	mu.Lock()
	defer mu.Unlock()
	if len(sent) != 3+push.PerService+push.MaxQueued {
		t.Errorf("%d were sent", len(sent))
	}
	for i := range over {
		if id := "slow " + strconv.Itoa(push.PerService+i); slices.Contains(sent, id) {
			t.Errorf("%s was not dropped", id)
		}
	}
	if id := "slow " + strconv.Itoa(push.PerService+push.MaxQueued+over-1); !slices.Contains(sent, id) {
		t.Errorf("the youngest was dropped")
	}
}

// Phones choose the names of push services: a thousand names of one that is silent take no
// more than a part of what is under way, and nothing from one that answers.
func TestAThousandSilentNamesLeaveRoomForAServiceThatAnswers(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun := make(chan string, 4*push.Senders)
	put, wait := push.NewLanes(ctx, func(ctx context.Context, id string) bool {
		begun <- id
		if id == "silent" {
			<-ctx.Done()
		}
		return id != "silent"
	})
	next := func() string {
		t.Helper()
		select {
		case id := <-begun:
			return id
		case <-time.After(5 * time.Second):
			t.Fatal("nothing begins")
			return ""
		}
	}
	put("good.example", "first")
	next()
	wait() // it has answered
	for i := range 1000 {
		put(strconv.Itoa(i)+".silent.example", "silent")
	}
	for range push.Strange {
		next()
	}
	for range 100 {
		put("good.example", "second")
		if id := next(); id != "second" {
			t.Fatalf("%s begins", id)
		}
	}
	stop()
	wait()
}

// What the settings say counts at once, and in place of what the program was started with.
func TestWhereNoticesGoFollowsTheSettings(t *testing.T) {
	r, e, b, p, c := deliverRig(t, func(int) int { return http.StatusCreated })
	set := func(proxy, networks string) {
		t.Helper()
		_, err := r.ChangeSettings(t.Context(), desk.Root(), rest.SettingsChange{OutwardProxy: &proxy, PushNetworks: &networks})
		r.ok(err)
	}
	set("", "10.1.2.3")
	if err := p.Subscribe(t.Context(), b.at(e.URL+"/y")); phonetest.Code(err) != "endpoint" {
		t.Errorf("a push service that is not listed any more: %v", err)
	}
	r.send(ask(r.anna, "t1", "m1", c.Now())) // to the one that was noted before
	gone := func() int {
		page, err := r.ListEvents(t.Context(), desk.Root(), desk.EventFilter{Types: []string{string(event.PushUnreachable)}}, "", 10)
		r.ok(err)
		return len(page.Items)
	}
	for until := time.Now().Add(5 * time.Second); gone() == 0 && time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
	}
	if e.count() != 0 || gone() != 1 {
		t.Errorf("%d notices went there, %d subscriptions were dropped", e.count(), gone())
	}
	// Straight into a network of one's own, whatever the proxy.
	set("http://127.0.0.1:1", "10.1.2.3, 127.0.0.1")
	r.ok(p.Subscribe(t.Context(), b.at(e.URL+"/y")))
	r.send(ask(r.anna, "t2", "m2", c.Now()))
	e.wait(t, 1)
	for field, in := range map[string]rest.SettingsChange{
		"outward_proxy": {OutwardProxy: ptr("proxy:3128")}, "push_networks": {PushNetworks: ptr("10.0.0.0/8, all")},
	} {
		_, err := r.ChangeSettings(t.Context(), desk.Root(), in)
		if f := fault.Of(err); f.Code != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Name != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func ptr(s string) *string { return &s }
