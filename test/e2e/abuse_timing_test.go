//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"latchkey/internal/agent/identity"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

// What answer times tell (S5). Each kind of failure is tried many times, all kinds in turns and in random order, so that
// whatever else the machine does meets all alike. Two kinds are told apart when the lower quartile of their times
// differs by more than a threshold, when such a difference comes by chance less than once in a hundred, and when three
// batches in a row say so in the same direction. In each batch one kind has a delay planted behind its answers: a batch
// in which that is not found could not have found anything else, and counts for nothing; the next one is larger, and
// looks for less.
//
// Times that are rounded up are looked at twice: how many whole grains they are, and what is left.

// kindOf is one kind of failure. try returns the times that somebody in front of it could take: each is compared with
// the same one of the other kinds.
type kindOf struct {
	name string
	try  func() ([]time.Duration, error)
}

// timing is one comparison.
type timing struct {
	t         testing.TB
	n         int           // tries of each kind and batch
	crowd     int           // tries at the same time
	threshold time.Duration // differences below are nobody's
	phases    []phase       // what the times are
	kinds     []kindOf      // the first is what the others are compared with
}

// phase is one of the times that a try takes.
type phase struct {
	name  string
	grain time.Duration // that it is rounded up to; 0: it is not
}

const (
	planted   = "the first kind with a planted delay"
	batches   = 3
	patience  = 5 // batches that may be too noisy
	shuffles  = 2000
	byChance  = 0.01
	quartile  = 0.25
	plantTime = 4 // thresholds
)

// verdict is what one batch says of a kind and a phase: the sign of the difference, 0 for none.
type verdict struct {
	sign  int
	diff  time.Duration
	p     float64
	first time.Duration
}

// run takes batches until every pair has been cleared, or three have accused the same pair.
func (x timing) run() {
	x.t.Helper()
	accused := map[string]int{} // kind and phase → sign, of those that no batch has cleared
	sighted, noisy := 0, 0
	for sighted < batches {
		times, delays := x.batch()
		blind := false
		for p, ph := range x.phases {
			late := slices.Clone(ph.rest(times[planted][p]))
			for i, d := range delays[p] {
				late[i] += d
			}
			v := x.compare(late, ph.rest(times[x.kinds[0].name][p]))
			x.t.Logf("%s: a planted %v is seen as %v (p=%.4f)", ph.name, plantTime*x.threshold, v.diff.Round(time.Microsecond), v.p)
			blind = blind || v.sign <= 0
		}
		if blind {
			if noisy++; noisy >= patience {
				x.busy(noisy)
			}
			// Of what is left of a grain nothing can be seen that is as large as the grain.
			most := 4 * x.threshold
			for _, ph := range x.phases {
				if ph.grain > 0 {
					most = min(most, max(x.threshold, ph.grain/4))
				}
			}
			x.n, x.threshold = x.n+2, most
			x.t.Logf("this machine is busy: from now on %d tries, and nothing below %v is looked for", x.n, x.threshold)
			continue
		}
		sighted++
		now := map[string]int{}
		for _, k := range x.kinds[1:] {
			for p, ph := range x.phases {
				a, b := times[k.name][p], times[x.kinds[0].name][p]
				look := func(name string, v verdict) {
					x.t.Logf("%s: %v against %v (p=%.4f)", name, v.first.Round(time.Microsecond), (v.first - v.diff).Round(time.Microsecond), v.p)
					if v.sign != 0 && (sighted == 1 || accused[name] == v.sign) {
						now[name] = v.sign
					}
				}
				look(ph.name+", "+k.name, x.compare(ph.rest(a), ph.rest(b)))
				if ph.grain > 0 {
					look("whole grains of "+ph.name+", "+k.name, x.compare(ph.whole(a), ph.whole(b)))
				}
			}
		}
		accused = now
		if len(accused) == 0 {
			return
		}
		x.t.Logf("batch %d suspects %v", sighted, accused)
	}
	for name, sign := range accused {
		x.t.Errorf("%s is told apart from %q by time: in %d batches it took %s by more than %v", name, x.kinds[0].name, batches,
			map[int]string{1: "longer", -1: "less long"}[sign], x.threshold)
	}
}

// busy gives up. The short form says so among the skipped tests; the long one has failed.
func (x timing) busy(noisy int) {
	x.t.Helper()
	words := fmt.Sprintf("this machine is too busy to tell times apart: in %d batches a planted difference was not found; run make test-abuse on a quiet one", noisy)
	if scale.Long() {
		x.t.Fatal(words)
	}
	x.t.Skip(words)
}

// whole are the grains that the times are made of, rest is what is left of them.
func (p phase) whole(ds []time.Duration) (out []time.Duration) {
	for _, d := range ds {
		out = append(out, d.Round(p.grain))
	}
	return out
}

func (p phase) rest(ds []time.Duration) (out []time.Duration) {
	if p.grain == 0 {
		return ds
	}
	for i, w := range p.whole(ds) {
		out = append(out, ds[i]-w)
	}
	return out
}

// batch tries every kind n times, in random order, a few at once. delays are, phase by phase, what was waited behind the
// answers of the planted kind.
func (x timing) batch() (out map[string][][]time.Duration, delays [][]time.Duration) {
	x.t.Helper()
	kinds := append(slices.Clone(x.kinds), kindOf{planted, x.kinds[0].try})
	delays = make([][]time.Duration, len(x.phases))
	var order []kindOf
	for range x.n {
		order = append(order, kinds...)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	out = map[string][][]time.Duration{}
	for _, k := range kinds {
		out[k.name] = make([][]time.Duration, len(x.phases))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan kindOf)
	for range x.crowd {
		wg.Go(func() {
			for k := range work {
				var ds []time.Duration
				var err error
				for range 30 { // who is too busy says so; that is no answer
					if ds, err = k.try(); !errors.Is(err, errBusy) {
						break
					}
					time.Sleep(300 * time.Millisecond)
				}
				if err == nil && len(ds) != len(x.phases) {
					err = fmt.Errorf("%d times, want %d", len(ds), len(x.phases))
				}
				var late []time.Duration
				for range ds {
					begun := time.Now()
					if k.name == planted {
						time.Sleep(plantTime * x.threshold)
					}
					late = append(late, time.Since(begun))
				}
				mu.Lock()
				if err != nil {
					x.t.Errorf("%s: %v", k.name, err)
				} else {
					if k.name == planted {
						for i, d := range late {
							delays[i] = append(delays[i], d)
						}
					}
					for i, d := range ds {
						out[k.name][i] = append(out[k.name][i], d)
					}
				}
				mu.Unlock()
			}
		})
	}
	for _, k := range order {
		work <- k
	}
	close(work)
	wg.Wait()
	if x.t.Failed() {
		x.t.FailNow()
	}
	return out, delays
}

var errBusy = errors.New("busy")

func lower(ds []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	return s[int(quartile*float64(len(s)))]
}

// compare asks by how much the lower quartiles differ, and how often chance alone would put the times so far apart: the
// rank sum of Mann and Whitney, against random permutations. The quartile is what an undisturbed answer takes; ranks do
// not mind that some had to wait for somebody else.
func (x timing) compare(a, b []time.Duration) verdict {
	v := verdict{first: lower(a), diff: lower(a) - lower(b)}
	all := slices.Concat(a, b)
	order := rand.Perm(len(all)) // equal times have no order
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(all[i], all[j]) })
	ranks := make([]int, len(all))
	for rank, i := range order {
		ranks[i] = rank
	}
	far := func() int { // twice the distance of the rank sum from the middle
		sum := 0
		for _, r := range ranks[:len(a)] {
			sum += r
		}
		d := 2*sum - len(a)*(len(all)-1)
		return max(d, -d)
	}
	seen, more := far(), 0
	for range shuffles {
		rand.Shuffle(len(ranks), func(i, j int) { ranks[i], ranks[j] = ranks[j], ranks[i] })
		if far() >= seen {
			more++
		}
	}
	v.p = float64(more+1) / (shuffles + 1)
	if v.p < byChance && v.diff.Abs() > x.threshold {
		v.sign = 1
		if v.diff < 0 {
			v.sign = -1
		}
	}
	return v
}

// few are the first n kinds in the short form, all in the long one.
func few(n int, kinds []kindOf) []kindOf { return kinds[:scale.N(min(n, len(kinds)), len(kinds))] }

// The test finds what is there and accuses nobody of chance.
func TestTheStatisticsOfTimes(t *testing.T) {
	x := timing{n: 40, threshold: time.Millisecond}
	draw := func(shift time.Duration) (ds []time.Duration) {
		for range x.n {
			d := 100*time.Millisecond + shift + time.Duration(rand.ExpFloat64()*float64(2*time.Millisecond))
			if rand.IntN(5) == 0 { // somebody else had the processor
				d += time.Duration(rand.IntN(300)) * time.Millisecond
			}
			ds = append(ds, d)
		}
		return ds
	}
	missed, chance := 0, 0
	for range 50 {
		if x.compare(draw(4*time.Millisecond), draw(0)).sign != 1 {
			missed++
		}
		if x.compare(draw(0), draw(0)).sign != 0 {
			chance++
		}
	}
	if missed > 12 || chance > 5 {
		t.Errorf("of 50 each: %d differences of four thresholds were missed, %d found where there was none", missed, chance)
	}
}

// door is somebody who speaks to the server as a machine does, without an agent in between that rounds.
type door struct {
	client *http.Client
	base   string
}

// newDoor takes the machine's certificate. It connects from inside the machine's network.
func newDoor(s *station) *door {
	s.t.Helper()
	id, key, err := identity.Load(s.m.Path(s.state), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := within(s.m.pid, func() (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, network, addr) })
		return c, err
	}
	tr := &http.Transport{
		DialContext: dial, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // the server of this test
			Certificates: []tls.Certificate{{Certificate: [][]byte{id.Certificate}, PrivateKey: key}},
		},
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &door{&http.Client{Transport: tr, Timeout: Patience}, id.Server}
}

// within does something in the network of a process.
func within[T any](pid int, do func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var r result
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if r.err = err; err == nil {
			r.v, r.err = do()
		}
		got <- r
	}()
	r := <-got
	return r.v, r.err
}

// post sends one step and says how long the answer took.
func (d *door) post(id string, seq int, step wire.Step) (r wire.StepReply, took time.Duration, err error) {
	body, err := json.Marshal(step)
	if err != nil {
		return r, 0, err
	}
	path := strings.NewReplacer("{id}", id, "{seq}", strconv.Itoa(seq)).Replace(wire.PathStep)
	req, err := http.NewRequest("POST", d.base+path, bytes.NewReader(body))
	if err != nil {
		return r, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(wire.VersionHeader, strconv.Itoa(wire.Version))
	begun := time.Now()
	res, err := d.client.Do(req)
	if err != nil {
		return r, 0, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	took = time.Since(begun)
	switch {
	case err != nil:
		return r, took, err
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable:
		return r, took, errBusy
	case res.StatusCode != http.StatusOK:
		return r, took, fmt.Errorf("%s: %s", res.Status, raw)
	}
	return r, took, json.Unmarshal(raw, &r)
}

// signin begins as an agent does where Latchkey judges the password, and gives a password that is not to open.
func (d *door) signin(name, password string, uid *uint32) ([]time.Duration, error) {
	id := uuid.Must(uuid.NewV7()).String()
	r, first, err := d.post(id, 1, wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: name, UID: uid, Scope: policy.Remote, Service: "sshd", RHost: "198.51.100.7", Mode: "full", Boot: "b", At: time.Now().UnixMicro(),
	}})
	if err != nil {
		return nil, err
	}
	if r.Prompt == nil || r.Prompt.For != wire.ForPassword {
		return nil, fmt.Errorf("no prompt for a password: %+v", r)
	}
	r, second, err := d.post(id, 2, wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(password))}})
	if err != nil {
		return nil, err
	}
	if r.Done == nil || r.Done.Outcome != policy.Deny || r.Done.Text != text.DeniedFirst || len(r.Messages) != 0 {
		return nil, fmt.Errorf("not the one denial: %+v", r)
	}
	return []time.Duration{first, second}, nil
}

// knock signs in at the agent's socket as sshd's module does. It returns the times from the password to what comes next,
// and from the code, if one is asked for, to the end, and the text of the denial.
func (s *station) knock(name, password, code string) (ds []time.Duration, shown []string, err error) {
	c, err := net.Dial("unix", s.m.Path(Socket))
	if err != nil {
		return nil, nil, err
	}
	conn := shim.NewShimConn(c)
	defer conn.Close()
	if err := errors.Join(
		conn.Send(shim.Hello{Version: shim.Version}, Patience),
		conn.Send(shim.Start{Phase: shim.PhaseAuth, Request: shim.Request{
			Service: "sshd", User: name, TTY: "ssh", RHost: fmt.Sprintf("2001:db8:%x::7", rand.IntN(1<<16)), Mode: shim.ModeFull, First: shim.FirstNone,
		}}, Patience),
	); err != nil {
		return nil, nil, err
	}
	answers, begun := []string{password, code}, time.Time{}
	for {
		m, err := conn.Receive(Patience)
		if err != nil {
			return nil, nil, err
		}
		switch m := m.(type) {
		case shim.Tell:
			shown = append(shown, m.Text)
		case shim.Warn:
			shown = append(shown, m.Text)
		case shim.Secret:
			if !begun.IsZero() {
				ds = append(ds, time.Since(begun))
			}
			shown = append(shown, m.Text)
			if len(answers) == 0 {
				return nil, nil, fmt.Errorf("asked too often: %q", shown)
			}
			if err := conn.Send(shim.Answer{N: m.N, Value: secret.FromString(answers[0])}, Patience); err != nil {
				return nil, nil, err
			}
			answers, begun = answers[1:], time.Now()
		case shim.Deny:
			if m.Text == text.DeniedBusy || m.Text == text.DeniedDelivering || m.Text == text.DeniedCrowd {
				return nil, nil, errBusy
			}
			return append(ds, time.Since(begun)), append(shown, m.Text), nil
		default:
			return nil, nil, fmt.Errorf("after %q came %T", shown, m)
		}
	}
}

// sameWords makes a try of a knock that must show the same as all others.
func (s *station) sameWords(words *sync.Map, who func() *person, password string, code func(*person) string) func() ([]time.Duration, error) {
	return func() ([]time.Duration, error) {
		p := who()
		ds, shown, err := s.knock(p.name, password, code(p))
		if err != nil {
			return nil, err
		}
		if was, _ := words.LoadOrStore("", shown); !slices.Equal(was.([]string), shown) {
			return nil, fmt.Errorf("%q is shown, to somebody else %q", shown, was)
		}
		return ds, nil
	}
}

func TestAnswerTimesTellNothingBeforeTheFirstFactor(t *testing.T) {
	w := newWorldAlone(t, "") // others beside it would be in the times
	s := w.station("laptop", false)
	// So many wrong ones that nobody is locked out by the test itself; the strict are, by one.
	w.set("backoff_after=100", "lockout_after=1000", "offline_tries=100", "offline_signins=1000", "scopes=logon,elevation,remote", "exempt_uids=4711")
	w.cli("group", "add", "strict")
	w.cli("policy", "add", "strict", "lockout_after=1", "lockout_for=24h", "--group", "strict", "--priority", "1")
	const wrong = "not the plum orchard"
	// Several, so that nobody's tries are used up by the first batches; later on that happens, and must look the same.
	var good []*person
	for _, name := range []string{"alice", "gerda", "henry", "irene"} {
		good = append(good, w.addUser(name))
	}
	anybody := func() *person { return good[rand.IntN(len(good))] }
	named := func(name string) func() *person { return func() *person { return &person{name: name} } }
	w.addAccount("barry") // no second factor
	w.addUser("carol")
	w.addUser("derek", "--activation", "at", "--activate-at", w.now().Add(48*time.Hour).UTC().Format(time.RFC3339))
	w.addUser("erika", "--group", "strict")
	w.addUser("frank", "--uid", "4711")
	w.cli("user", "disable", "carol")
	exempt := uint32(4711)
	right := good[0].pw // of everybody

	d := newDoor(s)
	if _, err := d.signin("erika", wrong, nil); err != nil { // locks her
		t.Fatal(err)
	}
	if w.last("lockout.began", "erika", 0).Subject != "erika" {
		t.Fatal("erika is not locked out")
	}
	door := func(who func() *person, password string, uid *uint32) func() ([]time.Duration, error) {
		return func() ([]time.Duration, error) { return d.signin(who().name, password, uid) }
	}

	t.Run("at the server's door, where nothing is rounded by an agent", func(t *testing.T) {
		timing{
			t: t, n: scale.N(12, 60), crowd: 3, threshold: 2 * time.Millisecond, phases: []phase{{"the beginning", 0}, {"the password", 500 * time.Millisecond}},
			kinds: few(6, []kindOf{
				{"a wrong password", door(anybody, wrong, nil)},
				{"nobody", door(named("zelda"), right, nil)},
				{"another spelling", door(named("ALICE"), right, nil)},
				{"disabled, right password", door(named("carol"), right, nil)},
				{"no second factor, wrong password", door(named("barry"), wrong, nil)},
				{"locked out, right password", door(named("erika"), right, nil)},
				{"disabled, wrong password", door(named("carol"), wrong, nil)},
				{"not active yet, right password", door(named("derek"), right, nil)},
				{"locked out, wrong password", door(named("erika"), wrong, nil)},
				{"a number that is exempt, wrong password", door(named("frank"), wrong, &exempt)},
			}),
		}.run()
	})
	none := func(*person) string { return "" }
	t.Run("online, at the agent's socket", func(t *testing.T) {
		var words sync.Map
		timing{
			t: t, n: scale.N(10, 60), crowd: 5, threshold: 5 * time.Millisecond, phases: []phase{{"the password", time.Second}},
			kinds: []kindOf{
				{"a wrong password", s.sameWords(&words, anybody, wrong, none)},
				{"nobody", s.sameWords(&words, named("zelda"), right, none)},
				{"sshd's junk password for nobody", s.sameWords(&words, named("zelda"), "\b\n\r\177INCORRECT", none)},
				{"disabled, right password", s.sameWords(&words, named("carol"), right, none)},
				{"no second factor, wrong password", s.sameWords(&words, named("barry"), wrong, none)},
				{"locked out, right password", s.sameWords(&words, named("erika"), right, none)},
			},
		}.run()
	})

	for _, p := range good {
		s.enrol(p)
	}
	s.serial()
	s.restartAgent() // whose link has no sign-in to wait for
	s.online()
	s.cut()
	t.Run("offline, at the agent's socket", func(t *testing.T) {
		// The first one finds out that nobody answers, and the others need not wait for that.
		if _, _, err := s.knock("zelda", right, "000000"); err != nil {
			t.Fatal(err)
		}
		s.link("down")
		bad := func(*person) string { return fmt.Sprintf("%06d", rand.IntN(1000000)) }
		fresh := func(p *person) string { return totp(t, p.key, w.now().Unix()/30+1) }
		var words sync.Map
		timing{
			t: t, n: scale.N(10, 12), crowd: 4, threshold: 5 * time.Millisecond, phases: []phase{{"the prompt for a code", 25 * time.Millisecond}, {"the answer", time.Second}},
			kinds: []kindOf{
				{"a wrong password", s.sameWords(&words, anybody, wrong, bad)},
				{"a wrong password and a right code", s.sameWords(&words, anybody, wrong, fresh)},
				{"nobody", s.sameWords(&words, named("zelda"), right, bad)},
				{"another spelling", s.sameWords(&words, named("ALICE"), right, bad)},
				{"sshd's junk password", s.sameWords(&words, anybody, "\b\n\r\177INCORRECT", bad)},
				{"disabled, right password", s.sameWords(&words, named("carol"), right, bad)},
				{"not enrolled, right password", s.sameWords(&words, named("barry"), right, bad)},
				{"locked out, right password", s.sameWords(&words, named("erika"), right, bad)},
			},
		}.run()
	})
}
