//go:build e2e

package kill

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/text"
)

// book is the model: what people did and saw, from which follows what must be counted, spent and written down.
type book struct {
	results map[string]*result // by tag, since the last reckoning
	opened  map[opening]int    // how often a step has opened a machine, as the shim saw it
	online  map[int64]int      // the same for sign-ins that the server judged
	last    int64              // seq of the newest event that was looked at
	marks   []string           // ends of the chain at earlier reckonings

	// What the events said, by step of the code.
	allowedOnline  map[int64][]string
	allowedOffline map[opening][]string
	steps          map[string]int64 // tag → step
	collisions     int
	conversations  map[string]*conv
	seen           map[string]string // of events: what they are → id
}

type opening struct {
	machine string
	step    int64
}

// conv is what the events say of one online conversation.
type conv struct {
	tag      string
	ends     []string // types
	rejected int
}

func newBook() *book {
	return &book{
		results: map[string]*result{}, opened: map[opening]int{}, online: map[int64]int{}, allowedOnline: map[int64][]string{},
		allowedOffline: map[opening][]string{}, steps: map[string]int64{}, conversations: map[string]*conv{}, seen: map[string]string{},
	}
}

var tags atomic.Int64

func (b *book) tag(world string) string { return fmt.Sprintf("%s-%d", world, tags.Add(1)) }

// enter writes a sign-in down and judges what can be judged at once.
func (b *book) enter(w *world, r *result) {
	w.t.Helper()
	b.results[r.tag] = r
	s := r.s
	if r.who != w.alice {
		return
	}
	typedRight := r.step != 0 && r.typed == len(r.codes)
	if typedRight {
		b.steps[r.tag] = r.step
	}
	wrong := r.count(text.WrongCode)
	switch off := r.offlineSignin(); {
	case off && r.verdict == allow:
		s.wrongOffline = 0
	case off && (typedRight && r.verdict == none):
		s.wrongOffline = 0 // it may have been accepted
	case off:
		s.wrongOffline += wrong
		if r.attempt.password != "" && r.verdict == deny && r.text == text.DeniedOffline {
			s.wrongOffline++
		}
	case typedRight:
		// Accepted, or nobody knows: then failures are forgiven and counters may be lifted.
		s.wrongOnline, s.wrongOffline = 0, 0
	default:
		s.wrongOnline += wrong
		if r.full && r.attempt.password != "" && r.text == text.DeniedFirst {
			s.wrongOnline++
		}
	}
	if r.verdict != allow {
		return
	}
	if !typedRight {
		w.t.Errorf("a machine opened without a right code: %s", r)
		return
	}
	o := opening{s.name, r.step}
	if b.opened[o]++; b.opened[o] > 1 {
		w.t.Errorf("S10: the code of step %d opened %s twice, now %s", r.step, s.name, r)
	}
	if !r.offlineSignin() {
		if b.online[r.step]++; b.online[r.step] > 1 {
			w.t.Errorf("S10: the server accepted the code of step %d twice, now %s", r.step, r)
		}
	}
}

// counts compares what is counted with what was judged.
func (w *world) counts(s *station) {
	w.t.Helper()
	if n := w.failures(s); n < s.wrongOnline {
		w.fatal("S10: the server has counted %d failures of %s at %s, and has judged %d", n, w.alice.name, s.name, s.wrongOnline)
	}
	u, ok := s.offline()
	if !ok || !u.Enrolled {
		return
	}
	if n := tries - u.Left.Tries; n < s.wrongOffline {
		w.fatal("O10: the vault of %s has counted %d wrong tries, and has judged %d", s.name, n, s.wrongOffline)
	}
}

// reckon brings everything to rest, reads all events since the last time and compares them with the book.
func (w *world) reckon() {
	w.t.Helper()
	b := w.book
	begun := time.Now()
	defer func() {
		if w.verbose {
			w.t.Logf("reckoned in %s", time.Since(begun).Round(time.Millisecond))
		}
	}()
	for _, s := range w.stations {
		s.cable.plug()
		s.up()
		w.until(20*time.Second, s.name+" has delivered its journal", func() bool {
			st, err := s.status()
			if err == nil && st.Link != string(policy.LinkUp) {
				s.nudge()
			}
			return err == nil && st.Offline.Undelivered == 0
		})
	}
	// Conversations that nobody will end any more end now.
	w.pass(10 * time.Minute)
	w.until(20*time.Second, "every conversation has its end", func() bool { return w.open() == 0 })
	w.until(20*time.Second, "what was withdrawn counts as wiped", func() bool { return w.withdrawn() == 0 })
	es := w.events()
	b.read(w, es)
	for tag, r := range b.results {
		b.compare(w, tag, r)
	}
	b.results = map[string]*result{}
	if len(es) > 0 {
		b.last = es[len(es)-1].Seq
	}
	var v rest.Verified
	w.must("POST", "/events/verify", rest.Verify{Marks: b.marks}, &v)
	if !v.Whole {
		w.fatal("V4: the chain of events is not whole: %+v", v.Chains)
	}
	b.marks = nil
	for _, c := range v.Chains {
		b.marks = append(b.marks, c.Head)
	}
}

// noted is an event as it stands in the server's database.
type noted struct {
	rest.Event
	about
}

type about struct {
	Conversation string `json:"conversation"`
	TTY          string `json:"tty"`
}

// events are those since the last reckoning, in the order of the chain.
func (w *world) events() (all []noted) {
	w.t.Helper()
	db := w.database()
	defer db.Close()
	rows, err := db.Query(`SELECT seq, id, type, subject, machine_id, machine, link, outcome, reason, factor, at, data FROM events WHERE seq > ? ORDER BY seq`, w.book.last)
	if err != nil {
		w.fatal("the server's events can not be read: %v", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e noted
		var at int64
		var data string
		if err := rows.Scan(&e.Seq, &e.ID, &e.Type, &e.Subject, &e.MachineID, &e.Machine, &e.Link, &e.Outcome, &e.Reason, &e.Factor, &at, &data); err != nil {
			w.fatal("the server's events can not be read: %v", err)
		}
		e.At, e.Data = time.UnixMicro(at), json.RawMessage(data)
		if data != "" {
			if err := json.Unmarshal(e.Data, &e.about); err != nil {
				w.fatal("event %d holds %q: %v", e.Seq, data, err)
			}
		}
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		w.fatal("the server's events can not be read: %v", err)
	}
	return all
}

// open is how many conversations the server has that have not ended.
func (w *world) open() (n int) {
	w.t.Helper()
	db := w.database()
	defer db.Close()
	if err := db.QueryRow(`SELECT count(*) FROM conversations WHERE outcome = ?`, facts.Open).Scan(&n); err != nil {
		w.fatal("the server's conversations can not be read: %v", err)
	}
	return n
}

// withdrawn is how much offline data the server believes to be on the machines though it was withdrawn.
func (w *world) withdrawn() (n int) {
	w.t.Helper()
	db := w.database()
	defer db.Close()
	err := db.QueryRow(`SELECT count(*) FROM vaults v JOIN machines m ON m.id = v.machine_id
		WHERE v.disenrol_wanted AND v.state = 'active' AND m.name IN ('soft', 'chip')`).Scan(&n)
	if err != nil {
		w.fatal("the server's report of offline data can not be read: %v", err)
	}
	return n
}

// read takes the events in.
func (b *book) read(w *world, es []noted) {
	w.t.Helper()
	next := b.last
	for _, e := range es {
		if next++; e.Seq != next {
			w.t.Errorf("V4: event %d is missing", next)
			next = e.Seq
		}
		d := e.about
		// The same thing twice is a delivery that was taken over twice.
		what := fmt.Sprint(e.Type, e.MachineID, e.Reason, e.Factor, e.At.UnixMicro(), d.TTY, d.Conversation)
		if id, ok := b.seen[what]; ok && e.Link != string(policy.LinkUp) && d.TTY != "" {
			w.t.Errorf("O11: event %s is there twice, as %s too: %s", e.ID, id, what)
		}
		b.seen[what] = e.ID
		switch t := event.Type(e.Type); t {
		case event.JournalForged, event.JournalGap, event.VaultRolledBack, event.VaultDamaged:
			w.t.Errorf("world %s: %s (%s) at %s, though nobody did anything but kill: %s", w.name, t, e.Reason, e.Machine, e.Data)
		case event.CodeCollision:
			b.collisions++
		}
		if e.Link == string(policy.LinkUp) && d.Conversation != "" {
			c := b.conversations[d.Conversation]
			if c == nil {
				c = &conv{}
				b.conversations[d.Conversation] = c
			}
			switch t := event.Type(e.Type); {
			case t == event.SigninReplayed:
			case t == event.FactorRejected:
				c.rejected++
			case strings.HasPrefix(e.Type, "signin."):
				c.ends = append(c.ends, e.Type)
				c.tag = d.TTY
				if len(c.ends) > 1 {
					w.t.Errorf("S11: conversation %s of %s ended %d times: %v", d.Conversation, d.TTY, len(c.ends), c.ends)
				}
			}
		}
		if event.Type(e.Type) != event.SigninAllowed {
			continue
		}
		step, coded := b.steps[d.TTY]
		if !coded {
			continue
		}
		if e.Link == string(policy.LinkUp) {
			b.allowedOnline[step] = append(b.allowedOnline[step], d.TTY)
			if l := b.allowedOnline[step]; len(l) > 1 {
				w.t.Errorf("S10: the server has allowed %v with the one code of step %d", l, step)
			}
			continue
		}
		o := opening{e.Machine, step}
		b.allowedOffline[o] = append(b.allowedOffline[o], d.TTY)
		if l := b.allowedOffline[o]; len(l) > 1 {
			w.t.Errorf("S10: %s has allowed %v with the one code of step %d", e.Machine, l, step)
		}
		if len(b.allowedOnline[step]) > 0 && b.collisions == 0 {
			w.t.Errorf("S10: the code of step %d was accepted by the server for %v and by %s for %v, and there is no event of a collision",
				step, b.allowedOnline[step], e.Machine, b.allowedOffline[o])
		}
	}
	byTag := map[string][]noted{}
	for _, e := range es {
		if e.TTY != "" {
			byTag[e.TTY] = append(byTag[e.TTY], e)
		}
	}
	for tag, r := range b.results {
		r.events = byTag[tag]
	}
}

// compare holds one sign-in against its events.
func (b *book) compare(w *world, tag string, r *result) {
	w.t.Helper()
	allowed, denied, ends := 0, 0, 0
	for _, e := range r.events {
		switch event.Type(e.Type) {
		case event.SigninAllowed:
			allowed++
		case event.SigninDenied:
			denied++
		}
		if strings.HasPrefix(e.Type, "signin.") && e.Type != string(event.SigninReplayed) {
			ends++
		}
	}
	rejected := 0
	for _, c := range b.conversations {
		if c.tag == tag {
			rejected += c.rejected
		}
	}
	switch {
	case r.verdict == allow && allowed != 1:
		w.t.Errorf("O11/S11: %d events that it was allowed, want 1: %s", allowed, r)
	case allowed > 1:
		w.t.Errorf("O11/S11: %d events that it was allowed: %s", allowed, r)
	case r.verdict == ignore && ends != 1:
		w.t.Errorf("S11: %d events of a sign-in that was left to the machine: %s", ends, r)
	}
	wrong := r.count(text.WrongCode) + r.count(text.CodeUsed)
	if r.offlineSignin() {
		if denied < wrong {
			w.t.Errorf("O11: %d wrong answers were judged offline, and there are %d events: %s", wrong, denied, r)
		}
		return
	}
	if rejected < wrong {
		w.t.Errorf("S11: %d wrong codes were judged, and there are %d events: %s", wrong, rejected, r)
	}
	if (wrong > 0 || r.typed > 0 && r.verdict == deny) && ends == 0 {
		w.t.Errorf("S11: a sign-in that the server has judged has no event: %s", r)
	}
}
