package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/secret"
	"latchkey/internal/server/store"
	"latchkey/internal/wire"
)

// sittersCommand is the one argument of the process that plays machines at which somebody waits for a phone.
const sittersCommand = "sitters"

// sitting is what the sitters are told at their start. Behind it each line lets all of them begin.
type sitting struct {
	gathering
	Users []string `json:"users"` // who sits at the machine of the same number
	// Bell: the server is the peer, which knows no conversations.
	Bell bool `json:"bell"`
}

// tale is what the sitters tell, one in a line. Times are unix nanoseconds.
type tale struct {
	Kind   string `json:"kind"`
	Seat   int    `json:"seat"`
	Number string `json:"number,omitempty"` // to be typed on the phone
	Heard  int64  `json:"heard,omitempty"`  // the wait was answered
	At     int64  `json:"at,omitempty"`
	Why    string `json:"why,omitempty"`
}

// The kinds of tales.
const (
	taleReady = "ready" // the machine is connected and hangs in its poll
	taleWaits = "waits" // somebody was told a number, and the machine waits
	taleIn    = "in"    // somebody was let in
	taleOut   = "out"   // a sign-in ended otherwise: mostly because no answer came
	taleLook  = "look"  // a wait was answered and nothing was there
	taleBusy  = "busy"  // a request without a good answer, which is made again
	taleFail  = "fail"  // the same of a sign-in, which is over by that
)

type sitters struct {
	s     *sitting
	crowd *crowd
	begin chan struct{}
	gate  chan struct{} // sign-ins that begin at once

	mu  sync.Mutex
	out *json.Encoder
}

func sittersMain(in io.Reader, out, stderr io.Writer) int {
	var s sitting
	dec := json.NewDecoder(bufio.NewReaderSize(in, 1<<20))
	if err := dec.Decode(&s); err != nil {
		fmt.Fprintln(stderr, "sitters:", err)
		return 1
	}
	c, err := newCrowd(&s.gathering)
	if err != nil {
		fmt.Fprintln(stderr, "sitters:", err)
		return 1
	}
	x := &sitters{s: &s, crowd: c, begin: make(chan struct{}), gate: make(chan struct{}, 64), out: json.NewEncoder(out)}
	go func() {
		gate := make(chan struct{}, 64)
		for i, m := range s.Members {
			gate <- struct{}{}
			go x.live(i, m, func() { <-gate })
		}
	}()
	var word string
	if err := dec.Decode(&word); err != nil {
		return 0
	}
	close(x.begin)
	_ = dec.Decode(&word) // until whoever has started us is done
	return 0
}

func (x *sitters) tell(t tale) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.out.Encode(t) != nil {
		os.Exit(0) // nobody listens any more
	}
}

// live is one machine: it hangs in its poll, and in front of it sits somebody who signs in over and over.
func (x *sitters) live(seat int, who member, connected func()) {
	ctx := context.Background()
	m := dial(x.s.Addr, who.ID, x.crowd.roots, &tls.Certificate{Certificate: [][]byte{who.Cert}, PrivateKey: x.crowd.key}, source(seat))
	again := func(do func() error) {
		for {
			err := do()
			if err == nil {
				return
			}
			x.tell(tale{Kind: taleFail, Seat: seat, Why: err.Error()})
			time.Sleep(500 * time.Millisecond)
		}
	}
	var ch wire.Changes
	again(func() error {
		if x.s.Bell {
			_, err := m.call(ctx, http.MethodGet, "/", nil, nil)
			return err
		}
		if _, err := m.call(ctx, http.MethodPost, wire.PathHello, wire.Hello{Facts: machineFacts(seat)}, nil); err != nil {
			return err
		}
		_, err := m.call(ctx, http.MethodGet, wire.PathChanges+"?since=0", nil, &ch)
		return err
	})
	connected()
	x.tell(tale{Kind: taleReady, Seat: seat})
	if !x.s.Bell {
		go func() {
			for {
				again(func() error {
					_, err := m.call(ctx, http.MethodGet, wire.PathChanges+"?since="+strconv.FormatInt(ch.Serial, 10), nil, &ch)
					return err
				})
			}
		}()
	}
	<-x.begin
	for {
		again(func() error {
			if x.s.Bell {
				return x.hear(ctx, m, seat)
			}
			return x.signin(ctx, m, seat)
		})
	}
}

// hear hangs once on the peer.
func (x *sitters) hear(ctx context.Context, m *machine, seat int) error {
	x.tell(tale{Kind: taleWaits, Seat: seat})
	if _, err := m.call(ctx, http.MethodGet, "/wait?seat="+strconv.Itoa(seat), nil, nil); err != nil {
		return err
	}
	now := time.Now().UnixNano()
	x.tell(tale{Kind: taleIn, Seat: seat, Heard: now, At: now})
	return nil
}

var twoDigits = regexp.MustCompile(`\b[0-9]{2}\b`)

// signin is one sign-in with a phone, as the agent leads it where text is shown as it comes: it hangs on the server, and
// whenever that answers it takes a step with an empty answer, which looks.
func (x *sitters) signin(ctx context.Context, m *machine, seat int) error {
	x.gate <- struct{}{}
	inside := true
	leave := func() {
		if inside {
			inside = false
			<-x.gate
		}
	}
	defer leave()
	id := store.NewID()
	path := func(pattern string, seq int) string {
		return strings.NewReplacer("{id}", id, "{seq}", strconv.Itoa(seq)).Replace(pattern)
	}
	var reply wire.StepReply
	err := x.step(ctx, m, seat, path(wire.PathStep, 1), wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: x.s.Users[seat], Scope: "remote", Service: "login", TTY: "pts/0", RHost: "192.0.2.7", Mode: "second", First: "machine",
		Boot: "boot", At: time.Now().UnixMicro(), Can: []string{wire.PromptWait},
	}}, &reply)
	leave()
	if err != nil {
		return err
	}
	if p := reply.Prompt; p == nil || p.Kind != wire.PromptWait || !twoDigits.MatchString(p.Text) {
		return fmt.Errorf("%s was not asked to take the phone: %+v %+v %+v", x.s.Users[seat], reply.Prompt, reply.Done, reply.Messages)
	}
	x.tell(tale{Kind: taleWaits, Seat: seat, Number: twoDigits.FindString(reply.Prompt.Text)})
	for seq := 2; ; seq++ {
		if _, err := m.call(ctx, http.MethodGet, path(wire.PathWait, 0), nil, nil); err != nil {
			x.tell(tale{Kind: taleBusy, Seat: seat, Why: "a wait: " + err.Error()}) // the next step finds out what is wrong
			time.Sleep(500 * time.Millisecond)
		}
		heard := time.Now().UnixNano()
		if err := x.step(ctx, m, seat, path(wire.PathStep, seq), wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.Bytes{})}}, &reply); err != nil {
			return err
		}
		now := time.Now().UnixNano()
		switch d := reply.Done; {
		case d == nil && reply.Prompt != nil && reply.Prompt.Kind == wire.PromptWait:
			x.tell(tale{Kind: taleLook, Seat: seat, Heard: heard, At: now})
		case d != nil && d.Outcome == "allow" && d.MFA:
			x.tell(tale{Kind: taleIn, Seat: seat, Heard: heard, At: now})
			return nil
		case d != nil:
			x.tell(tale{Kind: taleOut, Seat: seat, Heard: heard, At: now, Why: d.Reason})
			return nil
		default:
			return fmt.Errorf("%s: %+v %+v", x.s.Users[seat], reply.Prompt, reply.Messages)
		}
	}
}

// step takes one, and the same again where the server is too busy, as the agent does.
func (x *sitters) step(ctx context.Context, m *machine, seat int, path string, in wire.Step, reply *wire.StepReply) (err error) {
	for range 20 {
		*reply = wire.StepReply{}
		if _, err = m.call(ctx, http.MethodPost, path, in, reply); err == nil {
			return nil
		}
		x.tell(tale{Kind: taleBusy, Seat: seat, Why: "a step: " + err.Error()})
		time.Sleep(500 * time.Millisecond)
	}
	return err
}

// hall is the sitters' process as the measuring process sees it.
type hall struct {
	*process
	in io.WriteCloser

	mu      sync.Mutex
	seats   []seat
	ready   int
	waiting int
	looks   []time.Duration // what a look took that found nothing
	ins     int
	outs    map[string]int
	fails   map[string]int
	broken  error
}

type seat struct {
	waits  bool
	number string
	since  time.Time
	answer chan tale // of whoever has had its phone answer
}

func startHall(dir string, s sitting) (*hall, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &hall{seats: make([]seat, len(s.Members)), outs: map[string]int{}, fails: map[string]int{}}
	cmd := exec.Command(self, sittersCommand)
	if h.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	if h.process, err = start(cmd, filepath.Join(dir, "sitters.log")); err != nil {
		return nil, errors.Join(err, r.Close(), w.Close())
	}
	_ = w.Close()
	go h.listen(r)
	return h, json.NewEncoder(h.in).Encode(s)
}

func (h *hall) listen(r io.ReadCloser) {
	defer r.Close()
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	for {
		var t tale
		if err := dec.Decode(&t); err != nil {
			h.mu.Lock()
			h.broken = fmt.Errorf("the machines' process: %w: %s", err, h.tail())
			h.mu.Unlock()
			return
		}
		h.take(t)
	}
}

func (h *hall) take(t tale) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.seats[t.Seat]
	rise := func() {
		if s.waits {
			s.waits = false
			h.waiting--
		}
	}
	switch t.Kind {
	case taleReady:
		h.ready++
	case taleWaits:
		if !s.waits {
			h.waiting++
		}
		s.waits, s.number, s.since = true, t.Number, time.Now()
	case taleLook:
		h.looks = append(h.looks, time.Duration(t.At-t.Heard))
	case taleIn:
		rise()
		h.ins++
	case taleOut:
		rise()
		h.outs[t.Why]++
	case taleBusy:
		h.fails[t.Why]++
	case taleFail:
		h.fails[t.Why]++
		rise()
	}
	if s.answer != nil && (t.Kind == taleIn || t.Kind == taleOut || t.Kind == taleFail) {
		s.answer <- t
		s.answer = nil
	}
}

var errTooLong = errors.New("it takes too long")

// until waits until enough is true.
func (h *hall) until(ctx context.Context, limit time.Duration, enough func() bool) error {
	end := time.Now().Add(limit)
	for {
		h.mu.Lock()
		ok, err := enough(), h.broken
		said := fmt.Sprintf("%d machines are ready, %d wait; ended: %v; failed: %v", h.ready, h.waiting, h.outs, h.fails)
		h.mu.Unlock()
		if ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: after %s %s", errTooLong, limit, said)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sit lets all of them begin.
func (h *hall) sit() error {
	_, err := io.WriteString(h.in, `"begin"`+"\n")
	return err
}

// choose takes somebody who waits, long enough that everything is quiet there and not so long that the request ends now.
func (h *hall) choose(next *atomic.Int64, order []int) (i int, number string, answer chan tale, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range order {
		i = order[int(next.Add(1)-1)%len(order)]
		s := &h.seats[i]
		if age := time.Since(s.since); s.waits && s.answer == nil && age > time.Second && age < 45*time.Second {
			s.answer = make(chan tale, 1)
			return i, s.number, s.answer, true
		}
	}
	return 0, "", nil, false
}

func (h *hall) close() error {
	_ = h.in.Close()
	_ = h.cmd.Process.Kill()
	<-h.done
	return nil
}
