//go:build e2e

package kill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
	"latchkey/internal/tpm"
)

// scene is something that people, machines and administrators do. It calls arm when the kill may come.
type scene func(w *world, s *station, arm func())

// ── what is right whatever was killed ──

// killed are the texts that a person may read when something was killed in the middle.
var killed = []string{
	text.DeniedUnreachable,
	"The sign-in went on without this step. Begin again.",
	text.Denied(policy.ReasonTPMGone, ""), text.Denied(policy.ReasonTPMBusy, ""),
	text.Denied(policy.ReasonNoVault, ""), text.Denied(policy.ReasonVaultUnfinished, ""), // between two generations
	text.Denied(policy.ReasonVaultDays, ""), // two months have passed
}

// judge says what is wrong with how a code was taken that nobody has used before.
func (w *world) judge(r *result) {
	w.t.Helper()
	switch {
	case r.typed == len(r.codes) && r.count(text.WrongCode) > len(r.wrong) && !r.stale:
		w.t.Errorf("O17: a right code was called wrong: %s", r)
	case r.said(text.CodeUsed):
		w.t.Errorf("O17: a code was called used that nobody has used: %s", r)
	case r.verdict == deny && !slices.Contains(killed, r.text):
		w.t.Errorf("O17: nobody did anything wrong: %s", r)
	}
}

// calm is a sign-in with nothing in its way: it is let in.
func (w *world) calm(s *station, a attempt) *result {
	w.t.Helper()
	var r *result
	// Where the tests share two cores with others the server may take longer than a
	// sign-in waits for it; a person would try again.
	for range 4 {
		a.step = w.fresh()
		if r = w.signin(s, a); r.verdict == allow {
			return r
		}
		if r.said(text.WrongCode) && !r.stale || r.said(text.CodeUsed) {
			break
		}
		time.Sleep(time.Second)
	}
	w.fatal("a legitimate sign-in is not let in: %s", r)
	return nil
}

// mended says that all is as it was: who died is back, the link is up, what was judged is counted, and people get in.
func (w *world) mended(s *station) {
	w.t.Helper()
	s.cable.plug()
	s.up()
	w.counts(s)
	w.calm(s, attempt{who: w.alice})
	// Every other time the vault must open too, if there is one.
	if w.rng.IntN(3) > 0 {
		return
	}
	if u, ok := s.offline(); ok && u.Enrolled && u.Problem == "" && u.Until.After(w.now().Add(time.Hour)) {
		w.settled(s)
		s.cable.pull()
		w.offlineAllowed(s)
		s.cable.plug()
		s.up()
	}
}

// settled waits until the work behind the last sign-in is done: it may replace the offline data.
func (w *world) settled(s *station) {
	var last string
	for same := 0; same < 3; time.Sleep(30 * time.Millisecond) {
		st, _ := s.status()
		b, _ := json.Marshal([]any{st.Offline.Users, st.Offline.PolicySerial})
		if string(b) == last {
			same++
		} else {
			same = 0
		}
		last = string(b)
	}
}

// offlineAllowed: with the cable cut a new code is let in, and the same one once more is not.
func (w *world) offlineAllowed(s *station) {
	w.t.Helper()
	u, ok := s.offline()
	r := w.signin(s, attempt{who: w.alice, step: w.fresh()})
	if ok && u.Enrolled && (r.verdict != allow || !r.offlineSignin()) {
		w.fatal("a legitimate sign-in without the server is not let in: %s (the machine says %+v)", r, u)
	}
	if r.verdict == allow {
		if again := w.signin(s, attempt{who: w.alice, step: r.step}); again.verdict == allow {
			w.t.Errorf("S10: let in again with the same code: %s", again)
		}
	}
}

// ready makes sure that the machine holds offline data.
func (s *station) ready() {
	s.w.t.Helper()
	s.cable.plug()
	s.up()
	u, ok := s.offline()
	if ok && u.Enrolled && u.Problem == "" && u.Until.After(s.w.now().Add(2*time.Hour)) && u.Left.Tries > 20 && u.Left.Signins > 20 {
		return
	}
	s.enrol()
}

// enrol signs alice in with her password, so that the machine gets offline data.
func (s *station) enrol() {
	s.w.t.Helper()
	w := s.w
	for range 4 {
		w.calm(s, attempt{who: w.alice, full: true})
		if w.wait(8*time.Second, func() bool {
			u, ok := s.offline()
			return ok && u.Enrolled && u.Problem == "" && u.Until.After(w.now().Add(2*time.Hour))
		}) {
			w.settled(s)
			return
		}
	}
	w.fatal("%s is not enrolled for offline sign-in", s.name)
}

// ── scenes ──

// online is a sign-in with the server, and the same code again.
func online(w *world, s *station, arm func()) {
	a := attempt{who: w.alice, full: w.rng.IntN(4) == 0, step: w.fresh()}
	for range w.rng.IntN(3) {
		a.wrong = append(a.wrong, w.wrong())
	}
	arm()
	r := w.signin(s, a)
	w.judge(r)
	if r.verdict != allow || w.rng.IntN(3) == 0 {
		w.signin(s, attempt{who: w.alice, step: a.step})
	}
}

// password is a sign-in in which the server judges the password, perhaps a wrong one.
func password(w *world, s *station, arm func()) {
	a := attempt{who: w.alice, full: true}
	if w.rng.IntN(2) == 0 {
		a.password = "not the password"
		arm()
		if r := w.signin(s, a); r.verdict == allow {
			w.t.Errorf("let in with a wrong password: %s", r)
		}
		return
	}
	a.step = w.fresh()
	arm()
	w.judge(w.signin(s, a))
}

// guesses are wrong codes with the server there.
func guesses(w *world, s *station, arm func()) {
	arm()
	r := w.signin(s, attempt{who: w.alice, wrong: []string{w.wrong(), w.wrong()}})
	if r.verdict == allow {
		w.t.Errorf("let in with wrong codes: %s", r)
	}
}

// plane is a sign-in without the server, with wrong answers before it, and the same code again, here and with the server.
func plane(w *world, s *station, arm func()) {
	s.ready()
	s.cable.pull()
	a := attempt{who: w.alice, step: w.fresh()}
	for range w.rng.IntN(3) {
		a.wrong = append(a.wrong, w.wrong())
	}
	arm()
	r := w.signin(s, a)
	w.judge(r)
	w.signin(s, attempt{who: w.alice, step: a.step})
	s.cable.plug()
	if w.rng.IntN(2) == 0 {
		s.up()
		w.signin(s, attempt{who: w.alice, step: a.step})
	}
}

// stranger guesses without the server.
func stranger(w *world, s *station, arm func()) {
	s.ready()
	s.cable.pull()
	arm()
	a := attempt{who: w.alice, wrong: []string{w.wrong(), w.wrong()}}
	if w.rng.IntN(3) == 0 {
		a.password = "not the password"
	}
	died, before := s.agent.died(), s.wrongOffline
	r := w.signin(s, a)
	if r.verdict == allow {
		w.t.Errorf("let in with wrong codes: %s", r)
	}
	// Killed behind the writing down of an attempt: it is counted, though nobody was told.
	if point, hit := s.killedAt(died); hit && slices.Contains([]string{"vault.attempt.counted", "vault.attempt.judged", "conversation.judged"}, point) {
		s.wrongOffline = max(s.wrongOffline, before+r.count(text.WrongCode)+1)
	}
	s.cable.plug()
}

// landing delivers what happened without the server.
func landing(w *world, s *station, arm func()) {
	s.ready()
	s.cable.pull()
	step := w.fresh()
	r := w.signin(s, attempt{who: w.alice, step: step})
	w.judge(r)
	for range w.rng.IntN(3) {
		w.signin(s, attempt{who: w.alice, wrong: []string{w.wrong()}})
	}
	arm()
	s.cable.plug()
	s.up()
	w.signin(s, attempt{who: w.alice, step: step})
	w.wait(3*time.Second, func() bool { st, err := s.status(); return err == nil && st.Offline.Undelivered == 0 || w.struck() })
}

// nobody's is a sign-in that needs no second factor, without the server.
func needless(w *world, s *station, arm func()) {
	s.cable.pull()
	arm()
	r := w.signin(s, attempt{who: w.plain, full: w.rng.IntN(2) == 0})
	if r.verdict == deny && !slices.Contains(killed, r.text) {
		w.t.Errorf("whoever needs no second factor is not let in without the server: %s", r)
	}
	s.cable.plug()
}

// anew replaces the offline data.
func anew(w *world, s *station, arm func()) {
	s.ready()
	w.disenrol(s)
	w.wait(10*time.Second, func() bool { u, ok := s.offline(); return ok && !u.Enrolled })
	arm()
	w.judge(w.signin(s, attempt{who: w.alice, full: true, step: w.fresh()}))
	w.wait(4*time.Second, func() bool { u, ok := s.offline(); return ok && u.Enrolled || w.struck() })
	w.settled(s)
}

func (w *world) disenrol(s *station) {
	w.t.Helper()
	s.wrongOffline = 0
	w.must("POST", "/offline/disenroll", rest.Pairs{User: w.alice.name, Machine: s.name}, nil)
}

// withdraw wipes the offline data at the administrator's wish.
func withdraw(w *world, s *station, arm func()) {
	s.ready()
	arm()
	w.disenrol(s)
	w.wait(5*time.Second, func() bool {
		u, ok := s.offline()
		if !ok {
			s.nudge()
		}
		return ok && !u.Enrolled
	})
	s.up()
	w.until(15*time.Second, "withdrawn offline data is gone", func() bool { u, ok := s.offline(); return ok && !u.Enrolled })
}

// longer adds days and lifts counters, as every sign-in with the server does.
func longer(w *world, s *station, arm func()) {
	s.ready()
	arm()
	w.judge(w.signin(s, attempt{who: w.alice, step: w.fresh(), full: w.rng.IntN(4) == 0}))
	w.settled(s)
}

// lift is an administrator's.
func lift(w *world, s *station, arm func()) {
	s.ready()
	s.cable.pull()
	w.signin(s, attempt{who: w.alice, wrong: []string{w.wrong()}})
	s.cable.plug()
	s.up()
	s.wrongOffline = 0
	arm()
	w.must("POST", "/offline/lift", rest.Pairs{User: w.alice.name, Machine: s.name}, nil)
	w.wait(3*time.Second, func() bool { u, ok := s.offline(); return ok && u.Left.Tries == tries || w.struck() })
}

// rules change.
func rules(w *world, s *station, arm func()) {
	before, _ := s.status()
	arm()
	w.must("PATCH", "/policies/default", json.RawMessage(fmt.Sprintf(`{"settings":{"offline_signins":%d}}`, signins-w.rng.IntN(100))), nil)
	w.wait(3*time.Second, func() bool {
		st, err := s.status()
		return err == nil && st.Offline.PolicySerial > before.Offline.PolicySerial || w.struck()
	})
}

// restart of both sides.
func restart(w *world, s *station, arm func()) {
	arm()
	switch w.rng.IntN(3) {
	case 0:
		w.server.kill()
	case 1:
		s.agent.kill()
	case 2:
		w.server.kill()
		s.agent.kill()
	}
	time.Sleep(time.Duration(w.rng.IntN(100)) * time.Millisecond)
	s.up()
}

func reboot(w *world, s *station, arm func()) {
	arm()
	w.server.kill()
	s.up()
}

// spring lets two months go by: certificates are renewed.
func spring(w *world, s *station, arm func()) {
	arm()
	w.pass(61 * 24 * time.Hour)
	for _, x := range w.stations {
		x.wrongOnline = 0 // failures are forgotten
		x.cable.pull()
	}
	time.Sleep(20 * time.Millisecond)
	for _, x := range w.stations {
		x.cable.plug()
	}
	for _, x := range w.stations {
		x.up()
		w.until(20*time.Second, x.name+" has renewed its certificate", func() bool {
			st, err := x.status()
			if err == nil && st.Link != string(policy.LinkUp) {
				x.nudge()
			}
			return err == nil && st.Until.After(w.now().Add(80*24*time.Hour))
		})
	}
}

// forgotten is a sign-in whose machine dies at the prompt: the server ends it when its time is over.
func forgotten(w *world, s *station, arm func()) {
	w.signin(s, attempt{who: w.alice, meet: func(int) { s.agent.kill() }})
	arm()
	w.pass(3 * time.Minute)
	time.Sleep(200 * time.Millisecond)
	s.up()
}

// hour lets the server record the head of its chain.
func hour(w *world, _ *station, arm func()) {
	arm()
	w.pass(61 * time.Minute)
	time.Sleep(300 * time.Millisecond)
}

// twice sends a step again with another code: it is refused, and not judged.
func twice(w *world, _ *station, arm func()) {
	s := w.stations[0] // whose key lies in a file
	s.up()
	w.calm(s, attempt{who: w.alice})
	was := w.failures(s)
	m := w.speaker(s)
	id := newID()
	reply, err := m.step(id, 1, m.begin(w.alice.name, w.book.tag(w.name)))
	if err != nil || reply.Prompt == nil {
		w.fatal("a conversation does not begin: %+v %v", reply, err)
	}
	if _, err = m.step(id, 2, answer(w.wrong())); err != nil {
		w.fatal("an answer is not taken: %v", err)
	}
	w.until(5*time.Second, "the wrong code is counted", func() bool { return w.failures(s) == was+1 })
	step := w.fresh()
	arm()
	for range 2 {
		_, err = m.step(id, 2, answer(totp(w.alice.key, step)))
		if code := codeOf(err); code != "replayed" {
			w.t.Errorf("S10: the same step with another code: %v, want the fault replayed", err)
		}
	}
	if n := w.failures(s); n != was+1 {
		w.t.Errorf("S10: a replayed step was counted as a try: %d failures, want %d", n, was+1)
	}
	s.wrongOnline = was + 1
	// It was not judged: the code is as good as new.
	if r := w.signin(s, attempt{who: w.alice, step: step}); r.verdict != allow {
		w.judge(r)
	}
}

// walkout is a guess of somebody who never asks what came of it: the server dies over it, and it is counted all the same.
func walkout(w *world, _ *station, arm func()) {
	s := w.stations[0]
	s.up()
	w.calm(s, attempt{who: w.alice})
	m := w.speaker(s)
	id := newID()
	if reply, err := m.step(id, 1, m.begin(w.alice.name, w.book.tag(w.name))); err != nil || reply.Prompt == nil {
		w.fatal("a conversation does not begin: %+v %v", reply, err)
	}
	was := w.failures(s)
	died := w.server.died()
	arm()
	_, err := m.once(id, 2, answer(w.wrong()))
	if !w.struck() && err != nil {
		w.t.Errorf("an answer is not taken: %v", err)
	}
	if err != nil {
		w.until(5*time.Second, "the server is back", func() bool { return w.server.died() > died && w.call("GET", "/status", nil, nil) == nil })
	}
	s.wrongOnline = was + 1 // every point of these scenes lies behind the count
	w.counts(s)
}

// commute is a sign-in with the server, and the same code without it and with it again.
func commute(w *world, s *station, arm func()) {
	s.ready()
	a := attempt{who: w.alice, step: w.fresh()}
	arm()
	w.judge(w.signin(s, a))
	w.settled(s)
	s.cable.pull()
	if again := w.signin(s, attempt{who: w.alice, step: a.step}); again.verdict == allow && w.present.point == "conversation.spent" && w.struck() {
		w.t.Errorf("S10: what the server had accepted was spent here too before the agent died, and opens: %s", again)
	}
	s.cable.plug()
	if w.rng.IntN(2) == 0 {
		s.up()
	}
	w.signin(s, attempt{who: w.alice, step: a.step})
}

// guest lets another machine join, and sends it away again.
func guest(w *world, _ *station, arm func(), at string) {
	w.guests++
	g := w.newStation(fmt.Sprintf("guest-%d", w.guests), w.rng.IntN(3) == 0)
	defer g.agent.stop()
	if g.tpm != nil {
		defer g.tpm.Kill()
	}
	now := func(part string) {
		if part == at {
			w.guest = g
			arm()
		}
	}
	defer func() { w.guest = nil }()
	now("join")
	for try := 0; ; try++ {
		out, err := g.join(g.token())
		if err == nil {
			break
		}
		if _, e := os.Stat(filepath.Join(g.state, "machine.json")); e == nil {
			break // it was killed behind its work
		}
		if try == 5 {
			w.fatal("%s can not join: %v\n%s", g.name, err, out)
		}
	}
	now("first")
	g.agent.start()
	g.up()
	g.enrol()
	g.tidy(3)
	now("revoke")
	for w.call("POST", "/machines/"+g.id()+"/revoke", rest.Why{Reason: "a test"}, nil) != nil {
		var m rest.Machine
		if w.call("GET", "/machines/"+g.id(), nil, &m) == nil && m.Status == rest.MachineRevoked {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	refused := func() bool {
		st, err := g.status()
		if err == nil && st.Link == string(policy.LinkDown) {
			g.nudge()
		}
		return err == nil && st.Link == string(policy.LinkRefused)
	}
	w.until(20*time.Second, g.name+" knows that it is refused", refused)
	// And it lasts, without the server too.
	g.cable.pull()
	g.agent.kill()
	w.until(20*time.Second, g.name+" still knows", refused)
	r := w.signin(g, attempt{who: w.alice, step: w.fresh()})
	if r.verdict != deny || !strings.HasPrefix(r.text, "This machine has been revoked.") {
		w.t.Errorf("O1: at a revoked machine: %s", r)
	}
	for _, dir := range []string{"vaults", "bundles"} {
		left, err := filepath.Glob(filepath.Join(g.state, "vault-*", dir, "*"))
		if err != nil || len(left) > 0 {
			w.t.Errorf("O14: offline data is left on a revoked machine: %v %v", left, err)
		}
	}
	g.tidy(1)
	delete(w.book.results, r.tag) // nobody will hear of it
}

// tidy says that nothing of ours is left behind in the TPM, which has little room.
func (s *station) tidy(most int) {
	s.w.t.Helper()
	if s.tpm == nil {
		return
	}
	s.agent.stop() // who uses the TPM now gets no answer
	d, err := tpm.OpenDevice(s.spec)
	if err != nil {
		s.w.fatal("the TPM of %s: %v", s.name, err)
	}
	owned, err := d.Owned(context.Background())
	if err != nil || len(owned) > most {
		s.w.t.Errorf("O17: %d indices in the TPM of %s, at most %d are of use: %v %v", len(owned), s.name, most, owned, err)
	}
	s.agent.start()
	s.w.until(10*time.Second, s.name+" answers", func() bool { _, err := s.status(); return err == nil })
}

func (s *station) id() string {
	st, err := s.status()
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); st, err = s.status() {
		time.Sleep(20 * time.Millisecond)
	}
	return rest.MachinePrefix + st.MachineID
}

func guestAt(at string) scene {
	return func(w *world, s *station, arm func()) { guest(w, s, arm, at) }
}

// first is the first start of another server.
func first(w *world, _ *station, arm func()) {
	w.guests++
	name := fmt.Sprintf("first-%d", w.guests)
	data := filepath.Join(w.dir, name)
	p := w.newServer(name, data, net.JoinHostPort(w.house, "18445"), net.JoinHostPort(w.house, "18446"))
	defer func() { p.stop(); _ = os.RemoveAll(data) }()
	w.firstServer = p
	defer func() { w.firstServer = nil }()
	arm()
	p.start()
	api := apiOf(filepath.Join(data, "admin.sock"))
	w.until(20*time.Second, "a server serves after its first start", func() bool { return callAPI(api, "GET", "/status", nil, nil) == nil })
	var ps rest.Page[rest.Policy]
	if err := callAPI(api, "GET", "/policies", nil, &ps); err != nil || len(ps.Items) != 1 || !ps.Items[0].Default {
		w.t.Errorf("P1: policies after the first start: %+v %v", ps.Items, err)
	}
	if err := callAPI(api, "POST", "/users", rest.NewUser{Name: "bob", Password: rest.HideText("plum orchard ladder")}, nil); err != nil {
		w.t.Errorf("a user of a new server: %v", err)
	}
	var t rest.Token
	if err := callAPI(api, "POST", "/machine-tokens", rest.NewToken{Name: "m", ServerURL: "https://localhost:1"}, &t); err != nil {
		w.t.Errorf("a token of a new server: %v", err)
	}
}

func codeOf(err error) string {
	var p *problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}
