package main

import (
	"errors"
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
			d, err := w.pamtester("b-"+a.name, w.flyer.name, password, code)
			if err != nil {
				return d, fmt.Errorf("%w\n%s", err, a.proc.tail())
			}
			kdf, tpm, err := a.shares()
			k.kdf, k.tpm = append(k.kdf, kdf), append(k.tpm, tpm)
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
	fmt.Printf("\nKey derivation (Argon2id, 64 MiB, 3 passes) and the time until the TPM has answered are what the agent's log says, sign-in by sign-in.\n\n")
	return nil
}

var shares = regexp.MustCompile(`"kdf":"([^"]+)","tpm":"([^"]+)"`)

// shares is what the agent's log says of the newest sign-in.
func (a *agent) shares() (kdf, tpm time.Duration, err error) {
	for range 100 {
		b, err := os.ReadFile(a.proc.log)
		if err != nil {
			return 0, 0, err
		}
		if all := shares.FindAllSubmatch(b, -1); len(all) > a.told {
			a.told = len(all)
			last := all[len(all)-1]
			kdf, err1 := time.ParseDuration(string(last[1]))
			tpm, err2 := time.ParseDuration(string(last[2]))
			return kdf, tpm, errors.Join(err1, err2)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0, 0, fmt.Errorf("the agent does not say how long the key derivation took: %s", a.proc.tail())
}
