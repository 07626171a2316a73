package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
	_ "latchkey/internal/server/factor/totp"
)

// ask makes a request of the API and reads its answer.
func ask(t *testing.T, c *http.Client, method, url, bearer string, in, out any) int {
	t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatalf("%s %s: %q: %v", method, url, b, err)
		}
	}
	return res.StatusCode
}

// person is somebody with a password and an authenticator app, who has signed in as the
// command line does.
type person struct {
	id, name, bearer string
}

const password = "Quartz-lamp-7-hinge"

func (s *served) person(name, role string) *person {
	s.t.Helper()
	api := "http://x" + rest.Base
	var u rest.User
	if got := ask(s.t, s.admin(), "POST", api+"/users", "", map[string]any{"name": name, "role": role, "password": password}, &u); got != 201 {
		s.t.Fatalf("the user was not made: %d", got)
	}
	var f struct {
		Key string `json:"key"`
	}
	if got := ask(s.t, s.admin(), "POST", api+"/users/"+name+"/factors/totp", "", map[string]any{}, &f); got != 201 {
		s.t.Fatalf("the factor was not made: %d", got)
	}
	code, err := exec.Command("oathtool", "--totp", "-b", f.Key).Output()
	if err != nil {
		s.t.Fatalf("oathtool: %v", err)
	}
	web := "https://" + s.addrs.Listen + rest.Base
	var in struct {
		Signin  string        `json:"signin"`
		Secret  string        `json:"secret"`
		Session *rest.Session `json:"session"`
	}
	if got := ask(s.t, s.web(), "POST", web+"/sessions", "", map[string]any{"name": name, "password": password}, &in); got != 200 {
		s.t.Fatalf("the password was refused: %d", got)
	}
	if got := ask(s.t, s.web(), "POST", web+"/sessions/answer", "", map[string]any{"signin": in.Signin, "kind": "totp", "code": strings.TrimSpace(string(code))}, &in); got != 200 || in.Session == nil {
		s.t.Fatalf("the code was refused: %d", got)
	}
	return &person{u.ID, name, in.Secret}
}

// held is a certificate with its key, in files.
type held struct {
	rest.Certificate
	certFile, keyFile string
	tls               tls.Certificate
}

func (s *served) certificate(p *person) *held {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		s.t.Fatal(err)
	}
	h := &held{}
	in := rest.NewCertificate{Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), Name: "curl"}
	if got := ask(s.t, s.web(), "POST", "https://"+s.addrs.Listen+rest.Base+"/me/certificates", p.bearer, in, &h.Certificate); got != 201 {
		s.t.Fatalf("the certificate was not issued: %d", got)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	h.certFile, h.keyFile = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	put(s.t, h.certFile, []byte(h.PEM), 0o600)
	put(s.t, h.keyFile, keyPEM, 0o600)
	if h.tls, err = tls.X509KeyPair([]byte(h.PEM), keyPEM); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// curl asks with a certificate; nil: without.
func (s *served) curl(h *held, args ...string) (status, body string) {
	s.t.Helper()
	ca := filepath.Join(s.t.TempDir(), "ca.pem")
	_, raw := get(s.t, s.web(), "https://"+s.addrs.Listen+"/ca.pem")
	put(s.t, ca, []byte(raw), 0o600)
	all := []string{"-sS", "--max-time", "10", "--cacert", ca, "-w", "\n%{http_code}"}
	if h != nil {
		all = append(all, "--cert", h.certFile, "--key", h.keyFile)
	}
	out, err := exec.Command("curl", append(all, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("curl: %v\n%s", err, out)
	}
	i := bytes.LastIndexByte(out, '\n')
	return string(out[i+1:]), string(out[:i])
}

func (s *served) use(use string) {
	s.t.Helper()
	if got := ask(s.t, s.admin(), "PATCH", "http://x"+rest.Base+"/settings/certificates", "", map[string]any{"use": use}, nil); got != 200 {
		s.t.Fatalf("the settings were not changed: %d", got)
	}
	time.Sleep(1200 * time.Millisecond) // handshakes see it within a second
}

// TestM4SignInByCertificate is the real server and curl.
func TestM4SignInByCertificate(t *testing.T) {
	s := start(t, conf(folder(t)))
	p := s.person("alice", rest.RoleAdministrator)
	base := "https://" + s.addrs.Listen
	api := base + rest.Base
	// Off is the default: none is issued, and nobody is asked for one.
	if got := ask(t, s.web(), "POST", api+"/me/certificates", p.bearer, rest.NewCertificate{Request: "x"}, nil); got != 400 && got != 422 && got != 409 {
		t.Errorf("a request that is none: %d", got)
	}
	s.use("portal")
	h := s.certificate(p)
	if status, body := s.curl(h, api+"/me"); status != "200" || !strings.Contains(body, `"alice"`) {
		t.Fatalf("%s %s", status, body)
	}
	// For oneself, and nothing of the role.
	if status, body := s.curl(h, api+"/users"); status != "403" {
		t.Errorf("%s %s", status, body)
	}
	if status, body := s.curl(nil, api+"/me"); status != "401" {
		t.Errorf("without a certificate: %s %s", status, body)
	}
	// What another site has a browser send.
	if status, body := s.curl(h, "-H", "Sec-Fetch-Site: cross-site", api+"/me"); status != "403" {
		t.Errorf("from another site: %s %s", status, body)
	}
	// A session of it: it is good with this certificate alone, and never fresh.
	status, body := s.curl(h, "-X", "POST", api+"/sessions/certificate")
	var in struct {
		Secret  string        `json:"secret"`
		Session *rest.Session `json:"session"`
	}
	if err := json.Unmarshal([]byte(body), &in); err != nil || status != "200" || in.Session == nil || in.Session.Console || in.Session.Factor != "certificate" {
		t.Fatalf("%s %s", status, body)
	}
	auth := "Authorization: Bearer " + in.Secret
	if status, body := s.curl(h, "-H", auth, api+"/session"); status != "200" {
		t.Errorf("%s %s", status, body)
	}
	if status, _ := s.curl(nil, "-H", auth, api+"/me"); status != "401" {
		t.Errorf("its secret without the certificate: %s", status)
	}
	other := s.certificate(p)
	if status, _ := s.curl(other, "-H", auth, api+"/me"); status != "401" {
		t.Errorf("its secret with another certificate: %s", status)
	}
	again, err := os.ReadFile(h.certFile)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := s.curl(h, "-H", auth, "-H", "Content-Type: application/json", "-d", `{"request":"x"}`, api+"/me/certificates"); status != "403" || !strings.Contains(body, "step-up") {
		t.Errorf("another certificate by a certificate alone: %s %s", status, body)
	}
	// The console, where the settings say so; sessions of before end.
	s.use("console")
	if status, _ := s.curl(h, "-H", auth, api+"/me"); status != "401" {
		t.Errorf("a session of before the change: %s", status)
	}
	if status, body := s.curl(h, api+"/users"); status != "200" {
		t.Errorf("%s %s", status, body)
	}
	if status, body := s.curl(h, "-X", "DELETE", api+"/users/alice"); status != "403" || !strings.Contains(body, "step-up") {
		t.Errorf("what is dangerous: %s %s", status, body)
	}

	// Certificates that are none break no handshake, and open nothing.
	strange := foreignCertificate(t, again)
	if status, _ := s.curl(strange, base+"/healthz"); status != "200" {
		t.Errorf("a strange certificate and a public page: %s", status)
	}
	_, said := s.curl(strange, api+"/me")
	if status, _ := s.curl(strange, api+"/me"); status != "401" {
		t.Errorf("a strange certificate: %s", status)
	}

	// Revoked: cut within a second, also a connection that is open, and the same words.
	open, err := tls.Dial("tcp", s.addrs.Listen, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{h.tls}})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, _ = io.WriteString(open, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	buf := make([]byte, 1024)
	if n, err := open.Read(buf); err != nil || !strings.Contains(string(buf[:n]), "200 OK") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if got := ask(t, s.admin(), "POST", "http://x"+rest.Base+"/users/alice/certificates/"+h.Serial+"/revoke", "", map[string]any{"reason": "key-compromise"}, nil); got != 200 {
		t.Fatalf("it was not revoked: %d", got)
	}
	begun := time.Now()
	_ = open.SetReadDeadline(begun.Add(3 * time.Second))
	_, err = io.ReadAll(open)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the connection was cut after %v, %v", took, err)
	}
	status, body = s.curl(h, api+"/me")
	if status != "401" || words(t, body) != words(t, said) {
		t.Errorf("a revoked certificate: %s %q, a strange one: %q", status, words(t, body), words(t, said))
	}
	if status, body := s.curl(other, api+"/me"); status != "200" {
		t.Errorf("the other certificate: %s %s", status, body)
	}
	// A user who is disabled: at once.
	if got := ask(t, s.admin(), "PATCH", "http://x"+rest.Base+"/users/alice", "", map[string]any{"disabled": true}, nil); got != 200 {
		t.Fatalf("the user was not disabled: %d", got)
	}
	if status, _ := s.curl(other, api+"/me"); status != "401" {
		t.Errorf("a disabled user's certificate: %s", status)
	}
	// And enabling brings nothing back.
	if got := ask(t, s.admin(), "PATCH", "http://x"+rest.Base+"/users/alice", "", map[string]any{"disabled": false}, nil); got != 200 {
		t.Fatalf("the user was not enabled: %d", got)
	}
	if status, _ := s.curl(other, api+"/me"); status != "401" {
		t.Errorf("after enabling: %s", status)
	}
	// Both are in the list, which openssl reads; each refusal was an event.
	crl := filepath.Join(t.TempDir(), "crl")
	if out, err := exec.Command("curl", "-sS", "-k", "-o", crl, base+"/ca.crl").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	out, err := exec.Command("openssl", "crl", "-inform", "DER", "-in", crl, "-noout", "-text").CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	for _, c := range []*held{h, other} {
		if !strings.Contains(string(out), strings.ToUpper(c.Serial)) {
			t.Errorf("%s is not in the list:\n%s", c.Serial, out)
		}
	}
	var events rest.Page[rest.Event]
	ask(t, s.admin(), "GET", "http://x"+rest.Base+"/events?type=session.denied", "", nil, &events)
	reasons := map[string]bool{}
	for _, e := range events.Items {
		reasons[e.Reason] = true
	}
	if !reasons["certificate-not-ours"] || !reasons["certificate-revoked"] {
		t.Errorf("%v", reasons)
	}
	// Off again: browsers are not asked.
	s.use("off")
	c, err := tls.Dial("tcp", s.addrs.Listen, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.Error("the door asks for a certificate")
		return &tls.Certificate{}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	_, _ = io.ReadAll(c)
	_ = c.Close()
}

// words is the sentence of a problem.
func words(t *testing.T, body string) string {
	t.Helper()
	var p struct {
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Detail == "" {
		t.Errorf("%q: %v", body, err)
	}
	return p.Detail
}

// foreignCertificate is one that says the same as the given one, by another CA.
func foreignCertificate(t *testing.T, like []byte) *held {
	t.Helper()
	b, _ := pem.Decode(like)
	was, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: was.Issuer, NotBefore: was.NotBefore, NotAfter: was.NotAfter, IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{
		SerialNumber: was.SerialNumber, Subject: pkix.Name{CommonName: was.Subject.CommonName}, URIs: was.URIs, NotBefore: was.NotBefore, NotAfter: was.NotAfter,
		KeyUsage: was.KeyUsage, ExtKeyUsage: was.ExtKeyUsage,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	h := &held{certFile: filepath.Join(dir, "c.pem"), keyFile: filepath.Join(dir, "k.pem")}
	put(t, h.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	put(t, h.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)
	return h
}
