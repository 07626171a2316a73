//go:build e2e

package kill

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// requestPoints are those that a request of a conversation passes in the server.
var requestPoints = []string{
	"store.begun", "store.committing", "store.committed", "signin.claimed", "signin.worked", "signin.judged", "signin.stored", "signin.settled", "agentapi.answering",
}

// requests of a whole conversation. Behind the password the agent sends two: the beginning, and when the server asks for
// it the password.
var requests = []struct {
	name   string
	prompt int            // behind which it is sent
	passes []string       // which points
	skips  map[string]int // how often the request before it passes them
}{
	{"the beginning", 1, []string{"between", "store.begun", "store.committing", "store.committed", "signin.settled", "agentapi.answering"}, nil},
	{
		"the password", 1,
		[]string{"store.begun", "store.committing", "store.committed", "signin.claimed", "signin.worked", "signin.judged", "signin.stored", "agentapi.answering"},
		map[string]int{"store.begun": 1, "store.committing": 1, "store.committed": 1, "agentapi.answering": 1},
	},
	{"a wrong code", 2, []string{"between", "store.begun", "store.committing", "store.committed", "signin.claimed", "signin.judged", "signin.stored", "agentapi.answering"}, nil},
	{"the right code", 3, []string{"between", "store.begun", "store.committing", "store.committed", "signin.claimed", "signin.judged", "signin.stored", "agentapi.answering"}, nil},
}

// TestTheServerDiesAtEveryStepOfAConversation: at every point of every request, and between each two, the server is killed
// and comes back. The agent sends the very same step again; the sign-in goes on, or is denied as one that lost its
// server. It never goes on without the server, the wrong code is counted and the right one opens once (O1, S10, S11).
func TestTheServerDiesAtEveryStepOfAConversation(t *testing.T) {
	for i, req := range requests {
		t.Run(strings.ReplaceAll(req.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fmt.Sprintf("s%d", i), rand.New(rand.NewPCG(uint64(i), 1)))
			for n, point := range req.passes {
				s := w.stations[n%len(w.stations)]
				s.ready()
				died := w.server.died()
				r := w.signin(s, attempt{who: w.alice, full: true, step: w.fresh(), wrong: []string{w.wrong()}, meet: func(prompt int) {
					switch {
					case prompt != req.prompt:
					case point == "between":
						w.server.kill()
					default:
						w.server.arm(point, req.skips[point])
					}
				}})
				if w.wait(time.Second, func() bool { return w.server.died() > died }); w.server.died() == died {
					t.Errorf("%s: the server was never killed at %s: %s", req.name, point, r)
				}
				switch {
				case r.verdict == allow:
				case r.verdict == deny && slices.Contains([]string{text.DeniedUnreachable, "The sign-in went on without this step. Begin again."}, r.text):
				default:
					t.Errorf("%s, killed at %s: %s", req.name, point, r)
				}
				w.judge(r)
				// The password goes out right behind the beginning: where another transaction came
				// between, the server died over that one.
				if r.offlineSignin() && i > 1 {
					t.Errorf("O1: a conversation that began with the server went on without it: %s", r)
				}
				if again := w.signin(s, attempt{who: w.alice, step: r.step}); r.verdict == allow && again.verdict == allow {
					t.Errorf("S10: the code opens again: %s", again)
				}
				w.mended(s)
			}
			w.reckon()
		})
	}
}

// TestAConversationThatLosesItsServerIsDenied: the server does not come back. The person waits until the conversation's
// time is over and is told that the server was lost, not that a code was wrong, and nobody gets in; the vault, which
// would open with the same code, is not asked (O1).
func TestAConversationThatLosesItsServerIsDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "lost", rand.New(rand.NewPCG(3, 1)))
	for _, s := range w.stations {
		step := w.fresh()
		r := w.signin(s, attempt{who: w.alice, step: step, meet: func(int) {
			s.cable.pull()
			w.pass(45 * time.Second) // of the fifty that a conversation has
		}})
		if r.verdict != deny || r.text != text.DeniedUnreachable || r.offlineSignin() {
			t.Errorf("O1: %s", r)
		}
		// The code was not spent by it: without the server it opens, once.
		w.pass(-45 * time.Second)
		w.offlineAllowed(s)
		s.cable.plug()
		s.up()
		w.mended(s)
	}
	w.reckon()
}

// TestACodeWhoseAnswerIsOnItsWay: the server has accepted a code and dies before it says so; the person signs in without
// it, with the same code. When the server's answer comes at last, the machine does not open a second time, the person is
// told why, and the server has an event of the collision (S10).
func TestACodeWhoseAnswerIsOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "way", rand.New(rand.NewPCG(5, 1)))
	for _, s := range w.stations {
		s.ready()
		step := w.fresh()
		died := w.server.died()
		slow := make(chan *result)
		go func() {
			slow <- w.converse(s, attempt{who: w.alice, step: step, meet: func(int) { w.server.arm("signin.stored", 0) }})
		}()
		w.until(10*time.Second, "the server has died", func() bool { return w.server.died() > died })
		s.cable.pull()
		if r := w.signin(s, attempt{who: w.alice, step: step}); r.verdict != allow || !r.offlineSignin() {
			t.Errorf("without the server: %s", r)
		}
		s.cable.plug()
		r := <-slow
		w.book.enter(w, r)
		if r.verdict != deny || r.text != text.CodeUsed {
			t.Errorf("S10: the answer that came late: %s", r)
		}
		w.mended(s)
	}
	w.reckon()
	if w.book.collisions != len(w.stations) {
		t.Errorf("S10: %d events of a collision, want %d", w.book.collisions, len(w.stations))
	}
}

// TestARetryIsAnsweredTheSameAndIsNoSecondTry: a step is sent, the server dies at every point of it, and the step is sent
// again. The same octets get the same answer, however often; the same number with another code is refused, ends the
// conversation with an event, and that code is not looked at: it is neither counted nor spent (S10).
func TestARetryIsAnsweredTheSameAndIsNoSecondTry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "retry", rand.New(rand.NewPCG(4, 1)))
	s := w.stations[0]
	m := w.speaker(s)
	for _, point := range append([]string{""}, requestPoints...) {
		if point == "signin.worked" || point == "signin.settled" {
			continue // a code is neither hashed nor settled at once
		}
		for _, right := range []bool{false, true} {
			w.calm(s, attempt{who: w.alice})
			sent := w.wrong()
			if right {
				sent = totp(w.alice.key, w.fresh())
			}
			id, tag := newID(), w.book.tag(w.name)
			if reply, err := m.step(id, 1, m.begin(w.alice.name, tag)); err != nil || reply.Prompt == nil {
				w.fatal("a conversation does not begin: %+v %v", reply, err)
			}
			died := w.server.died()
			if point != "" {
				w.server.arm(point, 0)
				// Mostly there is no answer; but it may die over the request of an agent beside this one.
				_, _ = m.once(id, 2, answer(sent))
				w.until(5*time.Second, "the server has died", func() bool { return w.server.died() > died })
			}
			var same []string
			for range 3 {
				reply, err := m.step(id, 2, answer(sent))
				b, _ := json.Marshal(reply)
				if err != nil {
					t.Errorf("%s: the same step is not answered: %v", point, err)
				}
				same = append(same, string(b))
			}
			if same[0] != same[1] || same[1] != same[2] {
				t.Errorf("%s: the same step has several answers: %q", point, same)
			}
			var first wire.StepReply
			if err := json.Unmarshal([]byte(same[0]), &first); err != nil || right != (first.Done != nil) || right && first.Done.Outcome != allow {
				t.Errorf("%s: %s", point, same[0])
			}
			counted := w.failures(s)
			if !right && counted < 1 {
				t.Errorf("S10: %s: a wrong code was judged and %d failures are counted", point, counted)
			}
			// Somebody has seen the traffic and tries the same place with another code.
			other := w.fresh()
			for range 2 {
				if _, err := m.step(id, 2, answer(totp(w.alice.key, other))); codeOf(err) != "replayed" {
					t.Errorf("S10: %s: the same number with another code: %v, want the fault replayed", point, err)
				}
			}
			if n := w.failures(s); n != counted {
				t.Errorf("S10: %s: the code of a retry was counted: %d failures, before %d", point, n, counted)
			}
			if _, err := m.step(id, 3, answer(totp(w.alice.key, other))); err == nil {
				t.Errorf("S10: %s: a conversation goes on behind a replayed step", point)
			}
			s.wrongOnline = counted
			// It was not looked at, so it is as good as new.
			if r := w.signin(s, attempt{who: w.alice, step: other}); r.verdict != allow {
				t.Errorf("S10: %s: the code of a refused retry was spent: %s", point, r)
			}
			w.ended(id, right)
		}
	}
	w.reckon()
}

// ended looks for the events of a conversation whose step was replayed.
func (w *world) ended(id string, allowed bool) {
	w.t.Helper()
	want := []string{"signin.replayed", "signin.denied"}
	if allowed {
		want = []string{"signin.allowed", "signin.replayed"} // it had ended well before
	}
	var got []string
	for _, e := range w.events() {
		if e.Conversation == id && strings.HasPrefix(e.Type, "signin.") && !slices.Contains(got, e.Type) {
			got = append(got, e.Type)
		}
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("S10: the events of a conversation with a replayed step are %v, want %v", got, want)
	}
}
