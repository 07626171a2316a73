package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/wire"
)

// crowdCommand is the one argument of the process that plays the machines.
const crowdCommand = "crowd"

// gathering is what the crowd is told at its start.
type gathering struct {
	Addr    string   `json:"addr"`
	CA      []byte   `json:"ca"`
	Key     []byte   `json:"key"`
	Members []member `json:"members"`
}

// word is what the crowd says when asked.
type word struct {
	Ready   int     `json:"ready"`             // machines that have their policy and wait
	Told    []int64 `json:"told,omitempty"`    // unix nanoseconds at which a machine got a newer policy, since the last mark
	Refused []int64 `json:"refused,omitempty"` // at which one got its refusal, since the last mark
	Failed  int64   `json:"failed"`            // requests without a good answer
	Why     string  `json:"why,omitempty"`     // the last of these
}

// crowdMain is the other process: it answers each line with a word.
func crowdMain(in io.Reader, out, stderr io.Writer) int {
	var g gathering
	dec := json.NewDecoder(bufio.NewReaderSize(in, 1<<20))
	if err := dec.Decode(&g); err != nil {
		fmt.Fprintln(stderr, "crowd:", err)
		return 1
	}
	c, err := newCrowd(&g)
	if err != nil {
		fmt.Fprintln(stderr, "crowd:", err)
		return 1
	}
	go c.connect()
	enc := json.NewEncoder(out)
	for {
		var ask string
		if err := dec.Decode(&ask); err != nil {
			return 0 // who has started us is gone, or is done
		}
		if err := enc.Encode(c.say(ask == "mark")); err != nil {
			return 1
		}
	}
}

type crowd struct {
	g     *gathering
	roots *x509.CertPool
	key   *ecdsa.PrivateKey
	ready atomic.Int64
	fails atomic.Int64

	mu            sync.Mutex
	told, refused []int64
	why           string
}

func newCrowd(g *gathering) (*crowd, error) {
	roots, err := pool(g.CA)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(g.Key)
	return &crowd{g: g, roots: roots, key: key}, err
}

// connect brings the machines in, some at a time, as after a server's restart.
func (c *crowd) connect() {
	gate := make(chan struct{}, 64)
	for i, m := range c.g.Members {
		gate <- struct{}{}
		go c.live(i, m, func() { <-gate })
	}
}

// live is one machine: hello, its policy, and then the long poll for ever.
func (c *crowd) live(n int, who member, in func()) {
	in = sync.OnceFunc(in)
	defer in()
	ctx := context.Background()
	m := dial(c.g.Addr, who.ID, c.roots, &tls.Certificate{Certificate: [][]byte{who.Cert}, PrivateKey: c.key}, source(n))
	greeted, since := false, int64(0)
	for {
		var err error
		if !greeted {
			_, err = m.call(ctx, http.MethodPost, wire.PathHello, wire.Hello{Facts: machineFacts(n)}, nil)
			greeted = err == nil
		}
		var ch wire.Changes
		if err == nil {
			_, err = m.call(ctx, http.MethodGet, wire.PathChanges+"?since="+strconv.FormatInt(since, 10), nil, &ch)
		}
		var r *refusal
		switch {
		case errors.As(err, &r) && r.problem.Code == "machine-refused" && len(r.problem.Refusal) > 0:
			c.note(&c.refused)
			return
		case err != nil:
			c.fails.Add(1)
			c.mu.Lock()
			c.why = err.Error()
			c.mu.Unlock()
			time.Sleep(500 * time.Millisecond)
		case ch.Serial != since:
			if since == 0 {
				c.ready.Add(1)
				in()
			} else {
				c.note(&c.told)
			}
			since = ch.Serial
		}
	}
}

func (c *crowd) note(list *[]int64) {
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	*list = append(*list, now)
}

func (c *crowd) say(mark bool) word {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := word{Ready: int(c.ready.Load()), Told: c.told, Refused: c.refused, Failed: c.fails.Load(), Why: c.why}
	if mark {
		c.told, c.refused = nil, nil
	}
	return w
}

// crowdProcess is the crowd as the measuring process sees it.
type crowdProcess struct {
	*process
	in  io.WriteCloser
	out *json.Decoder
}

func (w *world) startCrowd(f *filling) (*crowdProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, crowdCommand)
	c := &crowdProcess{}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	r, wr := io.Pipe()
	cmd.Stdout = wr
	c.out = json.NewDecoder(r)
	if c.process, err = start(cmd, filepath.Join(w.dir, "crowd.log")); err != nil {
		return nil, err
	}
	go func() { <-c.done; _ = wr.Close() }()
	key, err := x509.MarshalECPrivateKey(f.key)
	if err != nil {
		return nil, err
	}
	return c, json.NewEncoder(c.in).Encode(gathering{Addr: w.machines, CA: f.ca, Key: key, Members: f.members})
}

// ask gets a word; with mark what was told so far is forgotten behind it.
func (c *crowdProcess) ask(mark bool) (s word, err error) {
	q := `"say"`
	if mark {
		q = `"mark"`
	}
	if _, err := io.WriteString(c.in, q+"\n"); err != nil {
		return s, err
	}
	if err := c.out.Decode(&s); err != nil {
		return s, fmt.Errorf("the machines' process: %w: %s", err, c.tail())
	}
	return s, nil
}

// until asks until enough is true.
func (c *crowdProcess) until(ctx context.Context, limit time.Duration, enough func(word) bool) (word, error) {
	end := time.Now().Add(limit)
	for {
		s, err := c.ask(false)
		if err != nil || enough(s) {
			return s, err
		}
		if time.Now().After(end) {
			return s, fmt.Errorf("after %s: %d machines are ready, %d were told, %d refused, %d requests failed: %s", limit, s.Ready, len(s.Told), len(s.Refused), s.Failed, s.Why)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// close lets the process end: nobody is there to ask.
func (c *crowdProcess) close() error {
	_ = c.in.Close()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	return nil
}
