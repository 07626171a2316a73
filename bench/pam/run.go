package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// run is the whole measurement.
func (w *world) run() error {
	begun := time.Now()
	if err := w.enter(); err != nil {
		return err
	}
	say("making accounts")
	if err := w.addUsers(); err != nil {
		return err
	}
	if err := w.addPeers(); err != nil {
		return err
	}
	device, err := w.startTPM()
	if err != nil {
		return err
	}
	w.agents = []*agent{{name: "plain", tpm: "none"}, {name: "chip", tpm: device}}
	if err := w.stacks(); err != nil {
		return err
	}
	if err := w.startServer(w.program("latchkeyd")); err != nil {
		return err
	}
	if err := w.enrolPeople(); err != nil {
		return err
	}
	for _, a := range w.agents {
		if err := w.join(a); err != nil {
			return err
		}
		if err := w.startAgent(a, false); err != nil {
			return err
		}
		if err := w.link(a, "up"); err != nil {
			return err
		}
	}
	w.preamble()
	if err := w.online(); err != nil {
		return err
	}
	if err := w.offline(); err != nil {
		return err
	}
	if err := w.outage(); err != nil {
		return err
	}
	say("done in %s", time.Since(begun).Round(time.Second))
	return nil
}

func (w *world) preamble() {
	read := func(argv ...string) string {
		out, _ := exec.Command(argv[0], argv[1:]...).Output()
		return strings.TrimSpace(string(out))
	}
	fs := strings.Fields(read("stat", "-f", "-c", "%T", w.dir))
	model := read("sh", "-c", "grep -m1 '^model name' /proc/cpuinfo | cut -d: -f2")
	load, _ := os.ReadFile("/proc/loadavg")
	commit := read("git", "-C", w.root, "-c", "safe.directory=*", "rev-parse", "--short", "HEAD")
	fmt.Printf("Measured on %s at commit %s: %d cores of %s, %s, state on %s, load %.4s when it began.\n\n",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), commit, runtime.NumCPU(), model, read("sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"), strings.Join(fs, ""), load)
}

// kind is one kind of sign-in of a round-robin.
type kind struct {
	series
	try func(i int) (time.Duration, error)
}

// pace is the least that a round takes: a machine with more sign-ins than that is slowed down by its server.
const pace = 450 * time.Millisecond

// turns lets every kind sign in once, then again, n times.
func (w *world) turns(n int, kinds []*kind) error {
	var next time.Time
	for i := range n {
		time.Sleep(time.Until(next))
		next = time.Now().Add(pace)
		for _, k := range kinds {
			d, err := k.try(i)
			if err != nil {
				return fmt.Errorf("sign-in %d: %w", i, err)
			}
			k.took = append(k.took, d)
		}
	}
	return nil
}

// fresh waits until a half minute has begun, if it is about to end: a code must not grow old on its way.
func fresh() {
	if left := 30 - time.Now().Unix()%30; left <= 1 {
		time.Sleep(time.Duration(left) * time.Second)
	}
}

// peerCode is this half minute's code, for modules that have a user's seed for one sign-in.
func (w *world) peerCode(u *user) string { fresh(); return totp(u.seed, stepOf(time.Now())) }

// lkCode is the next code that the server takes: the one before this half minute's, this one's, the next one's.
func (w *world) lkCode(u *user, label string) string {
	fresh()
	now := stepOf(time.Now())
	u.step = max(u.step+1, now-1)
	for u.step > now+1 { // never while there are enough users
		time.Sleep(time.Second)
		now = stepOf(time.Now())
	}
	return totp(u.keys[label], u.step)
}

// warm lets everybody sign in once at both machines: whoever does so for the first time is made known to the machine
// right behind it, which is no part of what is measured.
func (w *world) warm() error {
	say("online: everybody once")
	for _, u := range w.users {
		begun := time.Now()
		for _, a := range w.agents {
			if _, err := w.pamtester("b-"+a.name, u.name, w.lkCode(u, "")); err != nil {
				return fmt.Errorf("%w\n%s", err, w.server.tail())
			}
		}
		time.Sleep(pace/3 - time.Since(begun))
	}
	return nil
}

func (w *world) online() error {
	if err := w.warm(); err != nil {
		return err
	}
	say("online: %d rounds", w.n)
	plain, tpm := w.agents[0], w.agents[1]
	kinds := []*kind{
		{series{name: "pam_permit: the floor, pamtester alone"}, func(i int) (time.Duration, error) { return w.pamtester("b-permit", w.users[i].name) }},
		{series{name: "pam_google_authenticator (DISALLOW_REUSE)"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-ga", w.users[i].name, w.peerCode(w.users[i]))
		}},
		{series{name: "pam_oath"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-oath", w.users[i].name, w.peerCode(w.users[i]))
		}},
		{series{name: "pam_latchkey online, `mode=second`"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-"+plain.name, w.users[i].name, w.lkCode(w.users[i], ""))
		}},
		{series{name: "the same on a machine with a TPM (emulated)"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-"+tpm.name, w.users[i].name, w.lkCode(w.users[i], ""))
		}},
		{series{name: "pam_unix (yescrypt)"}, func(i int) (time.Duration, error) { return w.pamtester("b-unix", w.users[i].name, password) }},
		{series{name: "pam_unix, then pam_google_authenticator"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-unix-ga", w.users[i].name, password, w.peerCode(w.users[i]))
		}},
		{series{name: "pam_unix, then pam_latchkey online"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-unix-"+plain.name, w.users[i].name, password, w.lkCode(w.users[i], ""))
		}},
	}
	if err := w.turns(w.n, kinds); err != nil {
		return fmt.Errorf("%w\n%s", err, w.server.tail())
	}
	fmt.Printf("## Online\n\nMedians of %d sign-ins of each kind, taken in turns.\n\n", w.n)
	head("what", "median", "p95", "of google-authenticator")
	ga := median(kinds[1].took)
	for _, k := range kinds {
		share := fmt.Sprintf("%.2f ×", ratio(median(k.took), ga))
		if k == kinds[3] || k == kinds[4] {
			share = aim(ratio(median(k.took), ga), 2)
		}
		row(k.name, ms(median(k.took)), ms(quantile(k.took, 0.95)), share)
	}
	fmt.Println()
	return nil
}
