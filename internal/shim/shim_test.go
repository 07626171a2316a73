package shim

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/secret"
)

// sameSecrets compares what cmp may not look into.
var sameSecrets = cmp.Comparer(func(a, b secret.Bytes) bool { return a.Equal(b) })

// vectors reads a file of testdata: blank-separated columns, '#' begins a
// comment, "-" is the empty octet string. The C tests read the same files.
func vectors(t testing.TB, file string, columns int, each func(line string, col []string)) {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if s.Text() == "" || s.Text()[0] == '#' {
			continue
		}
		col := strings.Fields(s.Text())
		for len(col) < columns {
			col = append(col, "")
		}
		each(s.Text(), col)
		n++
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatalf("%s holds no vector", file)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	if s == "-" || s == "" {
		return []byte{}
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCleanVectors(t *testing.T) {
	vectors(t, "clean.txt", 3, func(line string, col []string) {
		f := Clean
		if col[0] == "lines" {
			f = CleanLines
		}
		in, want := string(unhex(t, col[1])), string(unhex(t, col[2]))
		if got := f(in); got != want {
			t.Errorf("%s: got %x", line, got)
		}
		if got := f(want); got != want {
			t.Errorf("%s: not idempotent: %x", line, got)
		}
	})
}

func TestJunkVectors(t *testing.T) {
	vectors(t, "junk.txt", 2, func(line string, col []string) {
		if got := IsJunk(unhex(t, col[1])); got != (col[0] == "junk") {
			t.Errorf("%s: got %v", line, got)
		}
	})
}

func TestFromAgentVectors(t *testing.T) {
	vectors(t, "from_agent.txt", 3, func(line string, col []string) {
		m, err := DecodeFromAgent(unhex(t, col[1]))
		if (err == nil) != (col[0] == "ok") {
			t.Errorf("%s: got %v, %v", line, m, err)
			return
		}
		if err != nil {
			return
		}
		again, err := EncodeFromAgent(m)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			return
		}
		if want := unhex(t, col[2]); !bytes.Equal(again[4:], want) {
			t.Errorf("%s: cleaned to %q", line, again[4:])
		}
	})
}

func TestFromShimVectors(t *testing.T) {
	vectors(t, "from_shim.txt", 3, func(line string, col []string) {
		body := unhex(t, col[2])
		m, err := DecodeFromShim(body)
		if (err == nil) != (col[0] == "ok") {
			t.Errorf("%s: got %v, %v", line, m, err)
			return
		}
		if err != nil {
			return
		}
		again, err := EncodeFromShim(m)
		if err != nil || !bytes.Equal(again[4:], body) {
			t.Errorf("%s: encoded again as %q, %v", line, again[4:], err)
		}
	})
}

func TestFrameLimits(t *testing.T) {
	for name, c := range map[string]struct {
		send []byte
		want error
	}{
		"a frame of no octets is refused before anything is read": {[]byte{0, 0, 0, 0}, ErrLength},
		"a frame above the limit is refused by its announcement":  {[]byte{0, 0, 0x40, 1}, ErrLength},
		"a frame of 4 GiB is refused by its announcement":         {[]byte{255, 255, 255, 255}, ErrLength},
		"a frame cut short is not a message":                      {[]byte{0, 0, 0, 6, 'c', 'a'}, io.ErrUnexpectedEOF},
		"a close between frames is the end":                       {nil, io.EOF},
		"a length cut short is not the end":                       {[]byte{0, 0}, io.ErrUnexpectedEOF},
		"sixty-five fields are refused":                           {append([]byte{0, 0, 0, 70}, append([]byte("cancel"), make([]byte, 64)...)...), ErrFields},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			go func() { _, _ = a.Write(c.send); a.Close() }()
			if m, err := NewAgentConn(b).Receive(time.Second); !errors.Is(err, c.want) {
				t.Errorf("got %v, %v", m, err)
			}
		})
	}
}

func TestAFrameHasOneDeadlineHoweverItTrickles(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		for _, c := range []byte("\x00\x00\x00\x06cancel") {
			if _, err := a.Write([]byte{c}); err != nil {
				return
			}
			time.Sleep(300 * time.Millisecond)
		}
	}()
	begun := time.Now()
	_, err := NewAgentConn(b).Receive(120 * time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(begun); d > 2500*time.Millisecond { // all of it takes three seconds
		t.Errorf("took %v", d)
	}
}

func TestAShimOfAnotherVersionIsToldSo(t *testing.T) {
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- NewAgentConn(b).Greet(time.Second, "restart the\nprogram") }()
	s := NewShimConn(a)
	if err := s.Send(Hello{2}, time.Second); err != nil {
		t.Fatal(err)
	}
	m, err := s.Receive(time.Second)
	if err != nil || m != (TooOld{"restart the program"}) {
		t.Errorf("got %v, %v", m, err)
	}
	if err := <-done; !errors.Is(err, ErrVersion) {
		t.Errorf("agent got %v", err)
	}
}

// typist answers from a list and records what it was shown.
type typist struct {
	answers []string
	shown   []string
	before  func() // is waited for before an answer; nil does not wait
}

func (p *typist) next(kind, text string) (secret.Bytes, error) {
	p.shown = append(p.shown, kind+text)
	if p.before != nil {
		p.before()
	}
	if len(p.answers) == 0 {
		return secret.Bytes{}, ErrGaveUp
	}
	a := p.answers[0]
	p.answers = p.answers[1:]
	return secret.FromString(a), nil
}
func (p *typist) Secret(text string) (secret.Bytes, error) { return p.next("secret ", text) }
func (p *typist) Ask(text string) (secret.Bytes, error)    { return p.next("ask ", text) }
func (p *typist) Tell(text string)                         { p.shown = append(p.shown, "tell "+text) }

func (p *typist) Warn(text string) { p.shown = append(p.shown, "warn "+text) }

func aStart(p Phase) Start {
	return Start{Phase: p, Request: Request{Service: "x", User: "alice", Mode: ModeFull, First: FirstNone}}
}

// converse runs the shim's side against a scripted agent and returns what the
// agent heard after the start message.
func converse(t *testing.T, p Phase, who *typist, say ...FromAgent) (Result, []FromShim, error) {
	t.Helper()
	a, b := net.Pipe()
	heard := make(chan []FromShim, 1)
	go func() {
		c := NewAgentConn(b)
		var got []FromShim
		defer func() { c.Close(); heard <- got }()
		if err := c.Greet(time.Second, "too old"); err != nil {
			return
		}
		if _, err := c.Receive(time.Second); err != nil {
			return
		}
		for _, m := range say {
			if err := c.Send(m, time.Second); err != nil {
				return
			}
			switch m.(type) {
			case Secret, Ask, Choose, Wait:
				r, err := c.Receive(time.Second)
				if err != nil {
					return
				}
				got = append(got, r)
				if _, ok := r.(Cancel); ok {
					return
				}
			}
		}
	}()
	r, err := NewShimConn(a).Converse(aStart(p), who)
	a.Close()
	return r, <-heard, err
}

// TestAnAgentThatNoLongerWaits: whoever types too late is told why, and nothing that such an
// agent has said lets anybody in.
func TestAnAgentThatNoLongerWaits(t *testing.T) {
	for name, c := range map[string]struct {
		last    []FromAgent
		verdict FromAgent
		shown   []string
	}{
		"it says why":                   {[]FromAgent{Warn{"late"}, Deny{Text: "The sign-in took too long."}}, Deny{Text: "The sign-in took too long."}, []string{"secret Code: ", "warn late"}},
		"it says nothing":               {nil, nil, []string{"secret Code: "}},
		"it lets in without the answer": {[]FromAgent{Allow{"alice", ""}}, nil, []string{"secret Code: "}},
		"it asks on":                    {[]FromAgent{Secret{2, "Code: "}, Deny{Text: "no"}}, nil, []string{"secret Code: "}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				a := NewAgentConn(conn)
				defer a.Close()
				if a.Greet(time.Second, "too old") != nil {
					return
				}
				if _, err := a.Receive(time.Second); err != nil {
					return
				}
				for _, m := range append([]FromAgent{Secret{1, "Code: "}}, c.last...) {
					_ = a.Send(m, time.Second)
				}
			}()
			conn, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			s := NewShimConn(conn)
			defer s.Close()
			who := &typist{answers: []string{"123456"}, before: func() { <-closed }}
			r, err := s.Converse(aStart(PhaseAuth), who)
			if d := cmp.Diff(c.verdict, r.Verdict, sameSecrets); d != "" {
				t.Error(d)
			}
			if (err == nil) != (c.verdict != nil) {
				t.Errorf("the error is %v", err)
			}
			if d := cmp.Diff(c.shown, who.shown); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAConversationWithEveryKindOfPrompt(t *testing.T) {
	who := &typist{answers: []string{"hunter2", "2", "123456", ""}}
	r, heard, err := converse(
		t, PhaseAuth, who,
		Secret{1, "Password: "}, Choose{2, "Second factor", []string{"Code", "Push"}}, Tell{Text: "two\nlines"},
		Ask{3, "Code: "}, Warn{"hurry"}, Wait{4, "Approve on your phone"}, MustChange{},
		Authtok{secret.FromString("next")}, Allow{"alice", ""},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := Result{Verdict: Allow{"alice", ""}, MustChange: true, Authtok: secret.FromString("next"), HasAuthtok: true}
	if d := cmp.Diff(want, r, sameSecrets); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		"secret Password: ",
		"ask Second factor\n  1) Code\n  2) Push\n[1-2]: ",
		"tell two\nlines",
		"ask Code: ",
		"warn hurry",
		"secret Approve on your phone (press Enter to check): ",
	}, who.shown); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]FromShim{
		Answer{1, secret.FromString("hunter2")},
		Answer{2, secret.FromString("2")},
		Answer{3, secret.FromString("123456")},
		Answer{4, secret.Bytes{}},
	}, heard, sameSecrets); d != "" {
		t.Error(d)
	}
}

func TestWhatEndsAConversation(t *testing.T) {
	for name, c := range map[string]struct {
		phase Phase
		say   []FromAgent
		want  FromAgent
		fails bool
	}{
		"a denial is a verdict":                              {PhaseAuth, []FromAgent{Deny{"no", false}}, Deny{"no", false}, false},
		"an expired account is told apart":                   {PhaseAccount, []FromAgent{Deny{"gone", true}}, Deny{"gone", true}, false},
		"ignore is a verdict":                                {PhaseSessionOpen, []FromAgent{Ignore{}}, Ignore{}, false},
		"must-change is a verdict in the account phase":      {PhaseAccount, []FromAgent{MustChange{}}, MustChange{}, false},
		"must-change is no verdict in the auth phase":        {PhaseAuth, []FromAgent{MustChange{}}, nil, true},
		"an agent that leaves without a verdict has said no": {PhaseAuth, []FromAgent{Tell{Text: "hi"}}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, err := converse(t, c.phase, &typist{}, c.say...)
			if (err != nil) != c.fails || !cmp.Equal(r.Verdict, c.want) {
				t.Errorf("got %#v, %v", r, err)
			}
		})
	}
}

func TestNoAnswerIsACancel(t *testing.T) {
	_, heard, err := converse(t, PhaseAuth, &typist{}, Ask{1, "Code: "}, Allow{"alice", ""})
	if !errors.Is(err, ErrGaveUp) {
		t.Errorf("got %v", err)
	}
	if d := cmp.Diff([]FromShim{Cancel{}}, heard); d != "" {
		t.Error(d)
	}
}

func TestStatus(t *testing.T) {
	for name, c := range map[string]struct {
		reply FromAgent
		want  string
		err   error
	}{
		"the agent's JSON is handed on":        {Tell{Text: `{"link":"up"}`}, `{"link":"up"}`, nil},
		"an agent of another version is named": {TooOld{"update"}, "", ErrVersion},
		"another answer is an error":           {Ignore{}, "", ErrShape},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			go func() {
				agent := NewAgentConn(b)
				defer agent.Close()
				if err := agent.Greet(time.Second, ""); err != nil {
					return
				}
				if m, err := agent.Receive(time.Second); err == nil && m == (Status{}) {
					_ = agent.Send(c.reply, time.Second)
				}
			}()
			if got, err := NewShimConn(a).Status(); got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestWhatCanNotBeSent(t *testing.T) {
	for name, m := range map[string]FromShim{
		"an answer that holds a NUL":          Answer{1, secret.FromString("a\x00b")},
		"an answer to prompt 0":               Answer{0, secret.Bytes{}},
		"a user name that holds a NUL":        Start{PhaseAuth, Request{Service: "x", User: "a\x00b", Mode: ModeFull, First: FirstNone}},
		"a user name larger than a frame":     Start{PhaseAuth, Request{Service: "x", User: strings.Repeat("a", MaxBody), Mode: ModeFull, First: FirstNone}},
		"a request that names no user":        Start{PhaseAuth, Request{Service: "x", Mode: ModeFull, First: FirstNone}},
		"a phase that is none":                Start{"lunch", Request{Service: "x", User: "alice", Mode: ModeFull, First: FirstNone}},
		"a machine's judgement in mode=full":  Start{PhaseAuth, Request{Service: "x", User: "alice", Mode: ModeFull, First: FirstMachine}},
		"nobody's judgement in mode=second":   Start{PhaseAuth, Request{Service: "x", User: "alice", Mode: ModeSecond, First: FirstNone}},
		"a scope that is none":                Start{PhaseAuth, Request{Service: "x", User: "alice", Mode: ModeFull, First: FirstNone, Scope: "moon"}},
		"a known user without canonical name": Start{PhaseAuth, Request{Service: "x", User: "alice", Known: true, Mode: ModeFull, First: FirstNone}},
	} {
		if f, err := EncodeFromShim(m); err == nil {
			t.Errorf("%s: encoded as %q", name, f)
		}
	}
	for name, m := range map[string]FromAgent{
		"a choice without options":    Choose{N: 1, Text: "x"},
		"a choice of 62 options":      Choose{1, "x", make([]string, 62)},
		"an approval of nobody":       Allow{},
		"a text larger than a frame":  Tell{Text: strings.Repeat("x", MaxBody)},
		"a password that holds a NUL": Authtok{secret.FromString("a\x00")},
	} {
		if f, err := EncodeFromAgent(m); err == nil {
			t.Errorf("%s: encoded as %q", name, f)
		}
	}
	if _, err := EncodeFromAgent(Choose{1, "x", make([]string, 61)}); err != nil {
		t.Errorf("a choice of 61 options: %v", err)
	}
}

func TestTextsAreCleanedOnBothSides(t *testing.T) {
	f, err := EncodeFromAgent(Ask{1, "a\x1b[2J\nb\u202e"})
	if err != nil || string(f[4:]) != "ask\x001\x00a?[2J b?" {
		t.Errorf("sent %q, %v", f, err)
	}
	m, err := DecodeFromAgent([]byte("ask\x001\x00a\x1b[2J\nb\xff"))
	if err != nil || m != (Ask{1, "a?[2J b?"}) {
		t.Errorf("read %q, %v", m, err)
	}
}

func FuzzDecodeFromShim(f *testing.F) {
	vectors(f, "from_shim.txt", 3, func(_ string, col []string) { f.Add(unhex(f, col[2])) })
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := DecodeFromShim(body)
		if err != nil {
			return
		}
		b, err := EncodeFromShim(m)
		if err != nil {
			t.Fatalf("%#v was read but can not be sent: %v", m, err)
		}
		again, err := DecodeFromShim(b[4:])
		if err != nil {
			t.Fatalf("%#v was sent but can not be read: %v", m, err)
		}
		if d := cmp.Diff(m, again, sameSecrets); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeFromAgent(f *testing.F) {
	vectors(f, "from_agent.txt", 3, func(_ string, col []string) { f.Add(unhex(f, col[1])) })
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := DecodeFromAgent(body)
		if err != nil {
			return
		}
		b, err := EncodeFromAgent(m)
		if err != nil {
			t.Fatalf("%#v was read but can not be sent: %v", m, err)
		}
		if len(b)-4 > len(body) {
			t.Fatalf("cleaning made %q longer: %q", body, b[4:])
		}
		again, err := DecodeFromAgent(b[4:])
		if err != nil {
			t.Fatalf("%#v was sent but can not be read: %v", m, err)
		}
		if d := cmp.Diff(m, again, sameSecrets); d != "" {
			t.Fatal(d)
		}
	})
}
