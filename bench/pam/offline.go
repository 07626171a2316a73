package main

import (
	"fmt"
	"os"
	"regexp"
	"time"
)

// offline measures sign-ins while the server is gone and the agent knows it. The agents have a movable clock here (the
// same code, built with `-tags latchkey_test`), because each sign-in wants a new code.
func (w *world) offline() error {
	say("enrolling for offline sign-in")
	for _, a := range w.agents {
		code := w.lkCode(w.flyer, "")
		if _, err := w.pamtester("b-full-"+a.name, w.flyer.name, password, code); err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, w.server.tail(), a.proc.tail())
		}
		if err := w.until("offline data at "+a.name, 30*time.Second, func() error {
			st, err := w.status(a)
			if err != nil {
				return err
			}
			for _, u := range st.Offline.Users {
				if u.User == w.flyer.name && u.Enrolled {
					a.class = u.Class
					return nil
				}
			}
			return fmt.Errorf("%s is not enrolled: %s", w.flyer.name, a.proc.tail())
		}); err != nil {
			return err
		}
	}
	if w.agents[0].class != "software" || w.agents[1].class != "tpm" {
		return fmt.Errorf("classes are %s and %s", w.agents[0].class, w.agents[1].class)
	}
	w.server.stop()
	for _, a := range w.agents {
		a.proc.stop()
		if err := w.startAgent(a, true); err != nil {
			return err
		}
		if err := w.link(a, "down"); err != nil {
			return err
		}
		if err := a.turn(2 * 30 * time.Second); err != nil { // past what was used online
			return err
		}
	}
	say("offline: %d rounds", w.n)
	kinds := []*kind{
		{series{name: "pam_google_authenticator (DISALLOW_REUSE), in the same turns"}, func(i int) (time.Duration, error) {
			return w.pamtester("b-ga-off", w.users[i].name, w.peerCode(w.users[i]))
		}},
		nil, nil,
	}
	var commands int64
	for n, a := range w.agents {
		k := &kind{series: series{name: "pam_latchkey offline, without a TPM"}}
		if a.class == "tpm" {
			k.name = "pam_latchkey offline, with a TPM (emulated)"
		}
		k.try = func(int) (time.Duration, error) {
			if err := a.turn(30 * time.Second); err != nil {
				return 0, err
			}
			code := totp(w.flyer.keys[""], stepOf(time.Now().Add(a.offset)))
			before, asked := w.relay.total()
			d, err := w.pamtester("b-"+a.name, w.flyer.name, password, code)
			if err != nil {
				return d, fmt.Errorf("%w\n%s", err, a.proc.tail())
			}
			after, now := w.relay.total()
			k.tpm = append(k.tpm, after-before)
			commands += now - asked
			kdf, err := a.derivation()
			k.kdf = append(k.kdf, kdf)
			return d, err
		}
		kinds[n+1] = k
	}
	if err := w.turns(w.n, kinds); err != nil {
		return err
	}
	fmt.Printf("## Offline\n\nMedians of %d sign-ins of each kind, taken in turns; the server is gone and the agent knows it. Password and code.\n\n", w.n)
	head("what", "median", "p95", "key derivation", "TPM", "the rest", "the rest, of google-authenticator")
	ga := median(kinds[0].took)
	row(kinds[0].name, ms(ga), ms(quantile(kinds[0].took, 0.95)), "—", "—", ms(ga), "1 ×")
	for _, k := range kinds[1:] {
		rest := median(k.rest())
		row(k.name, ms(median(k.took)), ms(quantile(k.took, 0.95)), ms(median(k.kdf)), ms(median(k.tpm)), ms(rest), aim(ratio(rest, ga), 1.5))
	}
	fmt.Printf("\nKey derivation (Argon2id, 64 MiB, 3 passes) is what the agent says it took, the TPM's share is measured at its socket (%.0f commands a sign-in), both sign-in by sign-in.\n\n",
		float64(commands)/float64(w.n))
	return nil
}

var derived = regexp.MustCompile(`(?:"kdf":"?|kdf=)([0-9.a-zµ]+)`)

// derivation is what the agent's log says of the newest sign-in.
func (a *agent) derivation() (time.Duration, error) {
	var last string
	for range 100 {
		b, err := os.ReadFile(a.proc.log)
		if err != nil {
			return 0, err
		}
		all := derived.FindAllSubmatch(b, -1)
		if len(all) > a.told {
			a.told, last = len(all), string(all[len(all)-1][1])
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if last == "" {
		return 0, fmt.Errorf("the agent does not say how long the key derivation took: %s", a.proc.tail())
	}
	d, err := time.ParseDuration(last)
	if err != nil {
		return 0, fmt.Errorf("key derivation %q: %w", last, err)
	}
	return d, nil
}
