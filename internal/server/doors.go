package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"latchkey/internal/server/turnstile"
)

// door is one listener with its server.
type door struct {
	name     string
	listener net.Listener
	server   *http.Server
}

func (d *door) serve(failed chan<- error) {
	err := d.server.Serve(d.listener)
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		failed <- fmt.Errorf("the door for %s: %w", d.name, err)
	}
}

func closeDoors(doors []*door) {
	for _, d := range doors {
		_ = d.server.Close()
		_ = d.listener.Close()
	}
}

// listen opens all doors, or none. Nobody is answered yet.
func (r *running) listen(life context.Context, h handlers) (doors []*door, err error) {
	defer func() {
		if err != nil {
			closeDoors(doors)
			doors = nil
		}
	}()
	machines, err := net.Listen("tcp", r.ListenAgent)
	if err != nil {
		return doors, fmt.Errorf("listen for machines: %w", taken(err, "--listen-agent"))
	}
	doors = append(doors, &door{"machines", r.api.Listen(machines, r.certificate(r.ListenAgent)), r.api.Server()})
	r.addrs.ListenAgent = machines.Addr().String()

	people, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return doors, fmt.Errorf("listen for people: %w", taken(err, "--listen"))
	}
	shown := r.certificate(r.Listen)
	if r.cert != nil {
		shown = r.cert.get
	}
	conf, err := r.certs.tls(shown)
	if err != nil {
		_ = people.Close()
		return doors, err
	}
	// Nobody shows who he is at this door before TLS is done: all are strangers.
	places := turnstile.New(turnstile.Config{PerNetwork: 512, Strangers: 4096, PerGuest: 1})
	doors = append(doors, &door{"people", tls.NewListener(places.Listen(people), conf), &http.Server{
		Handler: h.people, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(r.Log.Handler(), slog.LevelDebug),
		// Whoever follows the event log is let go when the server stops.
		BaseContext: func(net.Listener) context.Context { return life },
	}})
	r.certs.hold(doors[len(doors)-1].server)
	r.addrs.Listen = people.Addr().String()

	admin, err := listenAdmin(r.AdminSocket, r.Log)
	if err != nil {
		return doors, fmt.Errorf("listen for administrators: %w", err)
	}
	doors = append(doors, &door{"administrators", admin, &http.Server{
		// No WriteTimeout: somebody may follow the event log all day.
		Handler: h.admin, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(r.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return life },
	}})
	r.addrs.AdminSocket = r.AdminSocket

	if r.Metrics != "" {
		metrics, err := listenLoopback(r.Metrics)
		if err != nil {
			return doors, fmt.Errorf("listen for metrics: %w", taken(err, "--metrics"))
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", h.metrics)
		doors = append(doors, &door{"metrics", metrics, &http.Server{
			Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		}})
		r.addrs.Metrics = metrics.Addr().String()
	}
	r.addrs.PID = os.Getpid()
	f := r.ca.Fingerprint()
	r.addrs.CA = fmt.Sprintf("%x", f[:])
	return doors, nil
}

// taken says what to do about a port that another program has.
func taken(err error, flag string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w; another program has it (ss -ltnp), or choose another with %s", err, flag)
}

// listenLoopback refuses addresses that somebody else could reach: metrics go in
// the clear.
func listenLoopback(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%s is no loopback address, and metrics are served without TLS; allowed are 127.0.0.1:PORT and [::1]:PORT", addr)
	}
	return net.Listen("tcp", addr)
}

// listenAdmin opens the admin socket. Root and the account that the server runs as
// may connect, and nobody else: the file's mode says so, and the peer is asked.
func listenAdmin(path string, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket", path)
		}
		c, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("another server listens on %s; stop it, or name another place with --admin-socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return &peerListener{Listener: l, log: log}, nil
}

// peerListener lets in only root and the server's own account.
type peerListener struct {
	net.Listener
	log *slog.Logger
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && (uid == 0 || uid == os.Geteuid()) {
			return c, nil
		}
		l.log.Warn("a stranger was turned away from the admin socket", "uid", uid, "error", err)
		_ = c.Close()
	}
}
