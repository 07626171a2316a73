package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// The bell is the peer of the phones: the least that lets thousands wait and wakes one of them, with the same TLS and
// HTTP/2. A wait is a channel, an answer closes it: there is no database, no signature, no event and no conversation.
const bellCommand = "bell"

// bellSetting is what the peer's process is told at its start.
type bellSetting struct {
	Cert []byte `json:"cert"`
	CA   []byte `json:"ca"`
	Key  []byte `json:"key"`
}

func bellMain(in io.Reader, out, stderr io.Writer) int {
	var s bellSetting
	err := json.NewDecoder(in).Decode(&s)
	if err == nil {
		err = serveBell(s, out)
	}
	fmt.Fprintln(stderr, "bell:", err)
	return 1
}

func serveBell(s bellSetting, out io.Writer) error {
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
	var mu sync.Mutex
	waits := map[string]chan struct{}{}
	wait := func(seat string) chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		if waits[seat] == nil {
			waits[seat] = make(chan struct{})
		}
		return waits[seat]
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "no certificate", http.StatusForbidden)
			return
		}
		select {
		case <-wait(r.URL.Query().Get("seat")):
			w.WriteHeader(http.StatusNoContent)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /answer", func(w http.ResponseWriter, r *http.Request) {
		seat := r.URL.Query().Get("seat")
		c := wait(seat)
		mu.Lock()
		delete(waits, seat)
		mu.Unlock()
		close(c)
		w.WriteHeader(http.StatusNoContent)
	})
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, Handler: mux,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
			Certificates: []tls.Certificate{{Certificate: [][]byte{s.Cert, s.CA}, PrivateKey: key}},
		},
	}
	return srv.ServeTLS(l, "", "")
}

// bell measures the peer with the same machines and as many phones.
func bell(ctx context.Context, o *options, r *report) (err error) {
	r.begin(fmt.Sprintf("peer: %d wait on a bare server, woken through channels", o.waiting))
	dir, err := os.MkdirTemp("/tmp", "latchkey-bell-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var s peerSetting
	mine, err := s.certificates()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	told, err := json.Marshal(bellSetting{Cert: s.Cert, CA: s.CA, Key: s.Key})
	if err != nil {
		return err
	}
	cmd := exec.Command(self, bellCommand)
	cmd.Stdin = bytes.NewReader(told)
	pr, pw := io.Pipe()
	cmd.Stdout = pw
	p, err := start(cmd, filepath.Join(dir, "bell.log"))
	if err != nil {
		return err
	}
	defer func() { _ = p.cmd.Process.Kill(); <-p.done }()
	go func() { <-p.done; _ = pw.Close() }()
	var addr string
	if err := json.NewDecoder(pr).Decode(&addr); err != nil {
		return fmt.Errorf("%w: %s", err, p.tail())
	}
	key, err := x509.MarshalECPrivateKey(mine.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return err
	}
	st := sitting{gathering: gathering{Addr: addr, CA: s.CA, Key: key}, Bell: true}
	for i := range o.waiting {
		st.Members = append(st.Members, member{ID: strconv.Itoa(i), Cert: mine.Certificate[0]})
	}
	w := waited{sitting: st, dir: dir, pid: p.cmd.Process.Pid, answer: func(ctx context.Context, c *http.Client, i int, _ string) (time.Time, error) {
		// As the phone of the other: a call before, which opens the connection.
		call := func(method, path string) error {
			req, err := http.NewRequestWithContext(ctx, method, "https://"+addr+path, nil)
			if err != nil {
				return err
			}
			res, err := c.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusNoContent {
				return fmt.Errorf("the peer: %s", res.Status)
			}
			return nil
		}
		if err := call(http.MethodGet, "/"); err != nil {
			return time.Time{}, err
		}
		begun := time.Now()
		return begun, call(http.MethodPost, "/answer?seat="+strconv.Itoa(i))
	}}
	_, _, err = w.measure(ctx, o, r)
	return err
}
