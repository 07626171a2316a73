package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite"

	"latchkey/internal/secret"
)

// The peer is the least that a server of second factors does: one request over mutual TLS, one TOTP check, the step
// spent and one line of a log in one durable SQLite transaction, with the same library. It has no conversation, no
// policy, no counting before judging, no hash chain, and no group commit. What Latchkey costs above it is what those
// cost. Public servers of this kind (privacyIDEA, FreeRADIUS with a module) are not in Debian or have no durable log.
const peerCommand = "peer"

// peerSetting is what the peer's process is told at its start.
type peerSetting struct {
	Cert  []byte   `json:"cert"`
	CA    []byte   `json:"ca"`
	Key   []byte   `json:"key"`
	Dir   string   `json:"dir"`
	Seeds [][]byte `json:"seeds"`
}

func peerMain(in io.Reader, out, stderr io.Writer) int {
	var s peerSetting
	if err := json.NewDecoder(in).Decode(&s); err != nil {
		fmt.Fprintln(stderr, "peer:", err)
		return 1
	}
	if err := servePeer(s, out); err != nil {
		fmt.Fprintln(stderr, "peer:", err)
		return 1
	}
	return 0
}

func servePeer(s peerSetting, out io.Writer) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.Dir, "peer.db")+"?_txlock=immediate&_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE users (id INTEGER PRIMARY KEY, seed BLOB, step INTEGER); CREATE TABLE log (id INTEGER PRIMARY KEY, user INTEGER, at INTEGER, text TEXT)"); err != nil {
		return err
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	for i, seed := range s.Seeds {
		if _, err := tx.Exec("INSERT INTO users VALUES (?, ?, 0)", i, seed); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	statements := map[string]*sql.Stmt{}
	for _, q := range []string{"SELECT seed FROM users WHERE id = ?", "UPDATE users SET step = ? WHERE id = ? AND step < ?", "INSERT INTO log (user, at, text) VALUES (?, ?, ?)"} {
		if statements[q[:6]], err = db.Prepare(q); err != nil {
			return err
		}
	}
	judge := func(user int, code string) (err error) {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // does nothing after a commit
		var seed []byte
		if err := tx.Stmt(statements["SELECT"]).QueryRow(user).Scan(&seed); err != nil {
			return err
		}
		step, ok := app.Matches(secret.New(seed), code, time.Now(), 0)
		if !ok {
			return errors.New("wrong code")
		}
		r, err := tx.Stmt(statements["UPDATE"]).Exec(step, user, step)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, errors.New("used code"))
		}
		if _, err := tx.Stmt(statements["INSERT"]).Exec(user, time.Now().UnixMicro(), "allowed"); err != nil {
			return err
		}
		return tx.Commit()
	}
	roots, err := pool(s.CA)
	if err != nil {
		return err
	}
	key, err := x509.ParseECPrivateKey(s.Key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%q\n", l.Addr().String())
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
			Certificates: []tls.Certificate{{Certificate: [][]byte{s.Cert, s.CA}, PrivateKey: key}},
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, err := strconv.Atoi(r.URL.Query().Get("user"))
			body, err2 := io.ReadAll(io.LimitReader(r.Body, 64))
			if err = errors.Join(err, err2); err == nil {
				err = judge(user, string(body))
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}),
	}
	return srv.ServeTLS(l, "", "")
}

// peer measures the peer with the same generator, and the disk.
func peer(ctx context.Context, o *options, r *report) (err error) {
	users, machines, span := 40_000, 400, 6*time.Second
	if o.short {
		users, machines, span = 10_000, 50, time.Second
	}
	r.begin("peer: the least that such a server does")
	dir, err := os.MkdirTemp("/tmp", "latchkey-peer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	syncs, err := disk(dir, span/4)
	if err != nil {
		return err
	}
	r.add("the disk: 4 KB written in place and synced", syncs, "1/s", "")

	s := peerSetting{Dir: dir}
	var people []*person
	for i := range users {
		seed := make([]byte, app.SeedSize())
		_, _ = rand.Read(seed)
		s.Seeds = append(s.Seeds, bytes.Clone(seed))
		people = append(people, &person{name: strconv.Itoa(i), seed: secret.New(seed)})
	}
	var client *tls.Certificate
	if client, err = s.certificates(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, peerCommand)
	in, err := json.Marshal(s)
	if err != nil {
		return err
	}
	cmd.Stdin = bytes.NewReader(in)
	pr, pw := io.Pipe()
	cmd.Stdout = pw
	p, err := start(cmd, filepath.Join(dir, "peer.log"))
	if err != nil {
		return err
	}
	defer func() { _ = p.cmd.Process.Kill(); <-p.done }()
	go func() { <-p.done; _ = pw.Close() }()
	var addr string
	if err := json.NewDecoder(pr).Decode(&addr); err != nil {
		return fmt.Errorf("%w: %s", err, p.tail())
	}
	roots, err := pool(s.CA)
	if err != nil {
		return err
	}
	var machinesOf []*machine
	for i := range machines {
		m := dial(addr, "", roots, client, source(i))
		defer m.close()
		machinesOf = append(machinesOf, m)
	}
	rm := &room{people: people, machines: machinesOf, ask: func(ctx context.Context, m *machine, p *person, code string) (time.Duration, error) {
		begun := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.base+"/?user="+p.name, bytes.NewReader([]byte(code)))
		if err != nil {
			return 0, err
		}
		res, err := m.http.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			b, _ := io.ReadAll(res.Body)
			return 0, fmt.Errorf("the peer: %s: %s", res.Status, b)
		}
		return time.Since(begun), nil
	}}
	if _, _, err := rm.closed(ctx, 32, span/4); err != nil { // connections open
		return err
	}
	for _, callers := range []int{1, 128} {
		before, err := usedBy(p.cmd.Process.Pid)
		if err != nil {
			return err
		}
		mine, begun := own(), time.Now()
		n, times, err := rm.closed(ctx, callers, span/2)
		if err != nil {
			return err
		}
		took := time.Since(begun)
		after, err := usedBy(p.cmd.Process.Pid)
		if err != nil {
			return err
		}
		c := clocks{server: after.cpu - before.cpu, generator: own() - mine}
		r.add(fmt.Sprintf("peer: verifications, %d at a time", callers), float64(n)/took.Seconds(), "1/s", c.share(n))
		r.add("  median and 99 %", ms(quantile(times, .5)), "ms", "99 %: "+short(ms(quantile(times, .99)))+" ms")
	}
	return nil
}

// certificates makes a CA, a server's certificate and a client's.
func (s *peerSetting) certificates() (*tls.Certificate, error) {
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if s.CA, err = x509.CreateCertificate(rand.Reader, root, root, ca.Public(), ca); err != nil {
		return nil, err
	}
	leaf := func(n int64, use x509.ExtKeyUsage) ([]byte, *ecdsa.PrivateKey, error) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		c, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(n), NotBefore: root.NotBefore, NotAfter: root.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
		}, root, k.Public(), ca)
		return c, k, err
	}
	cert, key, err := leaf(2, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	s.Cert = cert
	if s.Key, err = x509.MarshalECPrivateKey(key); err != nil {
		return nil, err
	}
	mine, k, err := leaf(3, x509.ExtKeyUsageClientAuth)
	return &tls.Certificate{Certificate: [][]byte{mine}, PrivateKey: k}, err
}

// disk is how often a second 4 KB can be written and synced, as in a log that has its size.
func disk(dir string, span time.Duration) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const blocks = 1024
	block := make([]byte, 4096)
	for range blocks {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	n, begun := 0, time.Now()
	for time.Since(begun) < span {
		if _, err := f.WriteAt(block, int64(n%blocks)*4096); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}
