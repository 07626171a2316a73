package storetest

import (
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Link is the way to a database of the PostgreSQL that the tests share; a test may cut it.
// To the store the database is gone then, as it is when its host is: open connections
// break, and nobody answers new ones. What was under way goes on over there.
type Link struct {
	t    testing.TB
	to   string // the server's socket
	at   string // ours
	mu   sync.Mutex
	l    net.Listener
	both []net.Conn
}

// Linked is PostgreSQL over a Link.
func Linked(t testing.TB) (database string, l *Link) {
	t.Helper()
	u, err := url.Parse(PostgreSQL(t))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	dir, err := os.MkdirTemp("/tmp", "latchkey-link-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	const name = ".s.PGSQL.5432"
	l = &Link{t: t, to: filepath.Join(q.Get("host"), name), at: filepath.Join(dir, name)}
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	l.Mend()
	t.Cleanup(func() {
		l.Cut()
		_ = os.RemoveAll(dir)
	})
	return u.String(), l
}

// Cut lets the database go away.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.l == nil {
		return
	}
	_ = l.l.Close()
	for _, c := range l.both {
		_ = c.Close()
	}
	l.l, l.both = nil, nil
}

// Mend lets it come back.
func (l *Link) Mend() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.l != nil {
		return
	}
	var err error
	if l.l, err = net.Listen("unix", l.at); err != nil {
		l.t.Fatal(err)
	}
	go l.serve(l.l)
}

func (l *Link) serve(on net.Listener) {
	for {
		c, err := on.Accept()
		if err != nil {
			return
		}
		there, err := net.Dial("unix", l.to)
		l.mu.Lock()
		if err != nil || l.l != on {
			l.mu.Unlock()
			_ = c.Close()
			if err == nil {
				_ = there.Close()
			}
			continue
		}
		l.both = append(l.both, c, there)
		l.mu.Unlock()
		pass := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
		}
		go pass(there, c)
		go pass(c, there)
	}
}
