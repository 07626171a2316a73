//go:build e2e

package kill

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/failpoint"
	"latchkey/test/scale"
)

// script says how a point is reached.
type script struct {
	scenes []scene
	skips  int  // up to how often it passes unharmed
	chip   bool // only on the machine with a TPM
	behind bool // reached by work that goes on behind an answer
}

var scripts = map[string]script{
	"store.begun":      {scenes: []scene{online, guesses, landing, longer, rules, twice}, skips: 6},
	"store.committing": {scenes: []scene{online, guesses, landing, longer, rules, anew, twice, needless}, skips: 6},
	"store.committed":  {scenes: []scene{online, guesses, landing, longer, rules, anew, twice, password}, skips: 6},

	"signin.claimed":  {scenes: []scene{online, guesses, password, walkout, walkout}, skips: 1},
	"signin.worked":   {scenes: []scene{password, anew}},
	"signin.judged":   {scenes: []scene{online, guesses, password, walkout, commute}, skips: 1},
	"signin.stored":   {scenes: []scene{online, guesses, password, walkout, commute}, skips: 1},
	"signin.settled":  {scenes: []scene{online, guesses}},
	"signin.replayed": {scenes: []scene{twice}, skips: 2},
	"signin.expired":  {scenes: []scene{forgotten}},

	"offline.policy":       {scenes: []scene{rules, longer, restart, withdraw}, behind: true},
	"offline.prepared":     {scenes: []scene{longer, anew}, behind: true},
	"offline.granted":      {scenes: []scene{longer, anew, lift}, skips: 2, behind: true},
	"offline.signed":       {scenes: []scene{longer, anew, lift}, skips: 2, chip: true, behind: true},
	"offline.bundled":      {scenes: []scene{longer, anew}, behind: true},
	"offline.ready":        {scenes: []scene{longer, anew}, behind: true},
	"offline.wiped":        {scenes: []scene{withdraw}, behind: true},
	"offline.journal.read": {scenes: []scene{landing}, behind: true},
	"offline.journal.kept": {scenes: []scene{landing}, behind: true},

	"enroll.signed":         {scenes: []scene{guestAt("join")}},
	"enroll.joined":         {scenes: []scene{guestAt("join")}},
	"enroll.renewing":       {scenes: []scene{spring}, skips: 2, behind: true},
	"enroll.renewed":        {scenes: []scene{spring}, skips: 2, behind: true},
	"enroll.dismissed":      {scenes: []scene{guestAt("revoke")}},
	"desk.dismissed":        {scenes: []scene{guestAt("revoke")}},
	"agentapi.answering":    {scenes: []scene{online, password, longer, landing, anew, withdraw, rules, guestAt("join")}, skips: 8, behind: true},
	"checkpoint.signed":     {scenes: []scene{hour}, behind: true},
	"checkpoint.written":    {scenes: []scene{hour}, behind: true},
	"keys.master":           {scenes: []scene{first}},
	"keys.made":             {scenes: []scene{first}},
	"ca.made":               {scenes: []scene{first}},
	"server.made":           {scenes: []scene{first}},
	"server.listening":      {scenes: []scene{first, reboot}},
	"statefile.written":     {scenes: []scene{online, plane, landing, anew, withdraw, rules, guestAt("join"), guestAt("first"), guestAt("revoke"), spring}, skips: 5, behind: true},
	"statefile.renamed":     {scenes: []scene{online, plane, landing, anew, withdraw, rules, guestAt("join"), guestAt("first"), guestAt("revoke"), spring}, skips: 5, behind: true},
	"agent.joined":          {scenes: []scene{guestAt("join")}},
	"identity.key":          {scenes: []scene{guestAt("join")}},
	"identity.written":      {scenes: []scene{guestAt("join")}},
	"link.renewed":          {scenes: []scene{spring}, behind: true},
	"link.refused":          {scenes: []scene{guestAt("revoke")}},
	"link.policy":           {scenes: []scene{rules, longer, withdraw}, behind: true},
	"link.acknowledged":     {scenes: []scene{landing}, behind: true},
	"vault.state.ledger":    {scenes: []scene{guestAt("first")}},
	"vault.wipe.indices":    {scenes: []scene{withdraw}, behind: true},
	"vault.wipe.files":      {scenes: []scene{withdraw, anew}, behind: true},
	"vault.policy.written":  {scenes: []scene{rules, withdraw}, behind: true},
	"vault.refusal.written": {scenes: []scene{guestAt("revoke")}},

	"conversation.accepted": {scenes: []scene{online, longer, commute, commute}},
	"conversation.spent":    {scenes: []scene{online, longer, commute, commute}},
	"conversation.judged":   {scenes: []scene{plane, stranger}, skips: 2},
	"conversation.recorded": {scenes: []scene{needless}},

	"vault.attempt.counted": {scenes: []scene{plane, stranger}, skips: 2},
	"vault.attempt.judged":  {scenes: []scene{plane, stranger}, skips: 2},
	"vault.journal.written": {scenes: []scene{plane, stranger, needless}, skips: 2},
	"vault.journal.saved":   {scenes: []scene{landing}, behind: true},
	"vault.ledger.reserved": {scenes: []scene{online, plane, stranger, landing, needless, anew, longer}, skips: 3, chip: true, behind: true},
	"vault.ledger.written":  {scenes: []scene{online, withdraw, withdraw, plane, stranger, landing, needless, anew, longer, commute}, skips: 3, behind: true},
	"vault.ledger.counted":  {scenes: []scene{online, withdraw, withdraw, plane, stranger, landing, needless, anew, longer}, skips: 3, chip: true, behind: true},
	"vault.lifted":          {scenes: []scene{longer, lift}, behind: true},
	"vault.extend.kept":     {scenes: []scene{longer}, behind: true},
	"vault.enrol.wiped":     {scenes: []scene{anew}, behind: true},
	"vault.enrol.defined":   {scenes: []scene{anew}, chip: true, behind: true},
	"vault.enrol.activated": {scenes: []scene{anew}, chip: true, behind: true},
	"vault.enrol.imported":  {scenes: []scene{anew}, behind: true},
	"vault.enrol.saved":     {scenes: []scene{anew}, behind: true},
}

// chance kills whenever it likes.
const chance = "by chance"

var atChance = script{scenes: []scene{online, password, commute, guesses, plane, stranger, landing, needless, anew, withdraw, longer, lift, rules, restart, spring}}

// tally counts kills.
type tally struct {
	mu     sync.Mutex
	killed map[string]int
	missed map[string]int
	victim map[string]int
}

func (c *tally) add(point, victim string, hit bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !hit {
		c.missed[point]++
		return
	}
	c.killed[point]++
	c.victim[victim]++
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for p, n := range c.killed {
		out = append(out, fmt.Sprintf("%s %d", p, n))
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

func setting(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// points are those to kill at.
func points(t *testing.T) (out []string) {
	for _, p := range failpoint.Points {
		if _, ok := scripts[p.Name]; !ok {
			t.Errorf("nobody knows how to reach %s", p.Name)
		}
		out = append(out, p.Name)
	}
	for name := range scripts {
		if !slices.Contains(out, name) {
			t.Errorf("there is no point %s", name)
		}
	}
	if only := os.Getenv("LATCHKEY_KILL_POINTS"); only != "" {
		out = strings.Split(only, ",")
	}
	if t.Failed() {
		t.FailNow()
	}
	return out
}

// worldLife is how many kills a world sees: its CA lives for ten years, of which each renewal takes two months.
const worldLife = 400

func TestKilledAtEveryPoint(t *testing.T) {
	goal := int64(setting("LATCHKEY_KILL_RUNS", uint64(scale.N(200, 10000))))
	seed := setting("LATCHKEY_KILL_SEED", uint64(time.Now().UnixNano()))
	worlds := int(setting("LATCHKEY_KILL_WORLDS", worldsAtOnce))
	t.Logf("LATCHKEY_KILL_SEED=%d, %d kills in %d worlds", seed, goal, worlds)
	all := points(t)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	count := &tally{killed: map[string]int{}, missed: map[string]int{}, victim: map[string]int{}}
	var done atomic.Int64
	begun := time.Now()
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-time.After(30 * time.Second):
				fmt.Printf("%d of %d kills after %s: %s\n", done.Load(), goal, time.Since(begun).Round(time.Second), count)
			case <-stop:
				return
			}
		}
	}()
	t.Run("worlds", func(t *testing.T) {
		for i := range worlds {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(seed, uint64(i+1)))
				// Together the first rounds of all worlds meet every point.
				var bag []string
				for k := i; k < len(all); k += worlds {
					bag = append(bag, all[k])
				}
				for age := 0; done.Load() < goal && !t.Failed(); age++ {
					t.Run(fmt.Sprintf("age-%d", age), func(t *testing.T) {
						live(t, fmt.Sprintf("w%d.%d", i, age), rng, &bag, all, count, &done, goal)
					})
				}
			})
		}
	})
	close(stop)
	var never []string
	for _, p := range all {
		if count.killed[p] == 0 {
			never = append(never, p)
		}
	}
	took := time.Since(begun)
	t.Logf("LATCHKEY_KILL_SEED=%d: %d kills in %s: %s", seed, done.Load(), took.Round(time.Second), count)
	t.Logf("who was killed: %v; points that were armed and not reached: %v", count.victim, count.missed)
	if len(never) > 0 {
		t.Logf("never killed at: %s", strings.Join(never, ", "))
		if scale.Long() {
			t.Error("the long form kills at every point")
		}
	}
}

// live is the life of one world.
func live(t *testing.T, name string, rng *rand.Rand, bag *[]string, all []string, count *tally, done *atomic.Int64, goal int64) {
	begun := time.Now()
	w := newWorld(t, name, rng)
	if w.verbose {
		t.Logf("the world was made in %s", time.Since(begun).Round(time.Millisecond))
	}
	since := 0
	for n := 0; n < worldLife && done.Load() < goal && !t.Failed(); n++ {
		if len(*bag) == 0 {
			*bag = append(*bag, all...)
			for range len(all) / 3 {
				*bag = append(*bag, chance)
			}
			rng.Shuffle(len(*bag), func(i, j int) { (*bag)[i], (*bag)[j] = (*bag)[j], (*bag)[i] })
		}
		point := (*bag)[0]
		*bag = (*bag)[1:]
		hit := w.episode(point, count, false)
		// One that was not reached is tried again, and killed at its first passing.
		for try := 0; !hit && try < 3 && !t.Failed(); try++ {
			hit = w.episode(point, count, true)
		}
		if hit {
			done.Add(1)
		}
		if since++; since == 20 {
			w.reckon()
			since = 0
		}
	}
	if !t.Failed() {
		w.reckon()
		w.stations[1].up()
		w.settled(w.stations[1])
		w.stations[1].tidy(5) // the counter, two for alice, and two that wait to be removed
	}
}

// episode plays one scene with one kill in it, and says whether it came to that.
func (w *world) episode(point string, count *tally, firstPassing bool) (hit bool) {
	w.t.Helper()
	sc := atChance
	if point != chance {
		sc = scripts[point]
	}
	s := w.stations[w.rng.IntN(len(w.stations))]
	if sc.chip {
		s = w.stations[1]
	}
	k := &kill{w: w, s: s, point: point, skip: w.rng.IntN(sc.skips + 1), after: time.Duration(w.rng.ExpFloat64() * float64(60*time.Millisecond)), dice: w.rng.IntN(6)}
	if firstPassing {
		k.skip = 0
	}
	w.present = k
	play := sc.scenes[w.rng.IntN(len(sc.scenes))]
	begun := time.Now()
	play(w, s, k.arm)
	played := time.Now()
	hit = k.over(sc.behind)
	w.present = nil
	count.add(point, k.victim, hit)
	for _, x := range w.stations {
		x.cable.plug()
	}
	over := time.Now()
	w.mended(s)
	if w.verbose {
		w.t.Logf("%s at %s, skip %d, %s killed %t: the scene %s, the wait %s, what comes behind it %s",
			point, s.name, k.skip, k.victim, hit, played.Sub(begun).Round(time.Millisecond), over.Sub(played).Round(time.Millisecond), time.Since(over).Round(time.Millisecond))
	}
	return hit
}

// kill is the one of an episode.
type kill struct {
	w     *world
	s     *station
	point string
	skip  int
	after time.Duration
	dice  int

	victim string
	p      *process // with the armed point
	died   int
	fired  chan struct{} // by chance
}

// arm sets it.
func (k *kill) arm() {
	w := k.w
	agent := k.s.agent
	if w.guest != nil {
		agent = w.guest.agent
	}
	server := w.server
	if w.firstServer != nil {
		server = w.firstServer
	}
	if k.point == chance {
		k.fired = make(chan struct{})
		var strike func()
		switch {
		case k.dice < 2:
			k.victim, strike = failpoint.Server, server.kill
		case k.dice == 5 && k.s.tpm != nil:
			k.victim, strike = "swtpm", k.s.tpm.Restart
		default:
			k.victim, strike = failpoint.Agent, agent.kill
		}
		go func() {
			time.Sleep(k.after)
			strike()
			close(k.fired)
		}()
		return
	}
	k.victim, k.p = failpoint.Server, server
	for _, p := range failpoint.Points {
		if p.Name == k.point && !slices.Contains(p.In, failpoint.Server) || p.Name == k.point && len(p.In) == 2 && k.dice > 0 {
			k.victim, k.p = failpoint.Agent, agent
		}
	}
	k.died = k.p.died()
	k.p.arm(k.point, k.skip)
}

// struck tells whether the kill of this episode has come already, so that nobody waits for what it may have undone.
func (w *world) struck() bool {
	k := w.present
	return k != nil && (k.p != nil && !k.p.armed())
}

// over waits for a kill that is still to come, takes back one that will not, and says whether there was one.
func (k *kill) over(behind bool) bool {
	switch {
	case k.fired != nil:
		<-k.fired
		return true
	case k.p == nil:
		k.w.t.Errorf("a scene for %s does not say when", k.point)
		return false
	}
	linger := 50 * time.Millisecond
	if behind {
		linger = 700 * time.Millisecond
	}
	k.w.wait(linger, func() bool { return !k.p.armed() })
	return !k.p.disarm()
}

// killedAt tells whether the machine's agent has died since, and at which point.
func (s *station) killedAt(died int) (string, bool) {
	k := s.w.present
	if k == nil || k.p != s.agent {
		return "", false
	}
	s.w.wait(time.Second, func() bool { return k.p.armed() || s.agent.died() > died })
	return k.point, !k.p.armed() && s.agent.died() > died
}
