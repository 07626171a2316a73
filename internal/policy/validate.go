package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// MarshalText writes the form of time.Duration.String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as \"8h\" or \"15m\"", b)
	}
	*d = Duration(v)
	return nil
}

// Problem is one fault of one field of a policy.
type Problem struct {
	Field string // as in JSON
	Fault string // what is wrong and what is allowed
}

// Problems are all faults of a policy.
type Problems []Problem

func (ps Problems) Error() string {
	var b bytes.Buffer
	for i, p := range ps {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", p.Field, p.Fault)
	}
	return b.String()
}

// Validate returns all faults of the policy as Problems, or nil.
func (p Policy) Validate() error {
	var ps Problems
	add := func(field, fault string, a ...any) { ps = append(ps, Problem{field, fmt.Sprintf(fault, a...)}) }
	between := func(field string, v, low, high int) {
		if v < low || v > high {
			add(field, "%d is out of range; allowed are %d to %d", v, low, high)
		}
	}
	span := func(field string, v Duration, low, high time.Duration) {
		if d := time.Duration(v); d != 0 && (d < low || d > high) {
			add(field, "%s is out of range; allowed are %s to %s, or 0s", d, low, high)
		}
	}
	words(add, "scopes", p.Scopes, Scopes)
	words(add, "window_silences", p.WindowSilences, Scopes)
	words(add, "trusted_scopes", p.TrustedScopes, Scopes)
	words(add, "online_factors", p.OnlineFactors, Kinds)
	words(add, "offline_factors", p.OfflineFactors, OfflineKinds)
	words(add, "window_ends_on", p.WindowEndsOn, []WindowEnd{EndLogoff, EndReboot, EndNetwork, EndOffline})
	words(add, "offline", []Offline{p.Offline}, []Offline{OfflineMFA, OfflineMFAOrBypass, OfflineBypass, OfflineDeny})
	words(add, "offline_enrol", []Enrol{p.OfflineEnrol}, []Enrol{EnrolAuto, EnrolAsk, EnrolOff})
	between("factors_online", p.FactorsOnline, 0, 3)
	between("factors_offline", p.FactorsOffline, 0, 3)
	if p.FactorsOnline >= 0 && p.FactorsOnline <= 3 && p.FactorsOnline > len(p.OnlineFactors) {
		add("factors_online", "%d factors are asked for, but online_factors names %d", p.FactorsOnline, len(p.OnlineFactors))
	}
	offlineMFA := p.Offline == OfflineMFA || p.Offline == OfflineMFAOrBypass
	if offlineMFA && p.FactorsOffline >= 0 && p.FactorsOffline <= 3 && p.FactorsOffline > len(p.OfflineFactors) {
		add("factors_offline", "%d factors are asked for, but offline_factors names %d", p.FactorsOffline, len(p.OfflineFactors))
	}
	between("offline_days", p.OfflineDays, 1, 60)
	between("offline_signins", p.OfflineSignins, 1, 10000)
	between("offline_tries", p.OfflineTries, 1, 100)
	between("backoff_after", p.BackoffAfter, 1, 100)
	between("lockout_after", p.LockoutAfter, 1, 1000)
	span("window", p.Window, time.Minute, 7*24*time.Hour)
	span("force_disconnect_after", p.ForceDisconnectAfter, time.Hour, 30*24*time.Hour)
	if d := time.Duration(p.LockoutFor); d < time.Second || d > 24*time.Hour {
		add("lockout_for", "%s is out of range; allowed are 1s to 24h0m0s", d)
	}
	if len(p.ExemptUIDs) > 1000 {
		add("exempt_uids", "%d entries; allowed are at most 1000", len(p.ExemptUIDs))
	}
	if len(p.ExemptSIDs) > 1000 {
		add("exempt_sids", "%d entries; allowed are at most 1000", len(p.ExemptSIDs))
	}
	if len(p.TrustedNetworks) > 1000 {
		add("trusted_networks", "%d entries; allowed are at most 1000", len(p.TrustedNetworks))
	}
	for _, n := range p.TrustedNetworks {
		if !n.IsValid() || n.Masked() != n {
			add("trusted_networks", "%s is not a network such as 192.0.2.0/24 (bits beyond the mask must be zero)", n)
		}
	}
	if ps == nil {
		return nil
	}
	return ps
}

func words[T ~string](add func(string, string, ...any), field string, have, allowed []T) {
	for i, h := range have {
		if !slices.Contains(allowed, h) {
			add(field, "%q is not allowed; allowed are %v", string(h), allowed)
		} else if slices.Contains(have[:i], h) {
			add(field, "%q stands twice", string(h))
		}
	}
}

// MaxBody bounds the JSON form of a policy.
const MaxBody = 64 << 10

// Parse reads a policy strictly: an unknown field, a value of a wrong type or
// trailing text is an error, a missing field keeps its default. It validates.
func Parse(b []byte) (Policy, error) {
	p := NewPolicy()
	if len(b) > MaxBody {
		return p, fmt.Errorf("the policy has %d octets; allowed are at most %d", len(b), MaxBody)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, fmt.Errorf("the policy is not valid JSON of the documented form: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return p, errors.New("the policy has text after its closing brace")
	}
	return p, p.Validate()
}

// weakFactors are sentences about kinds that can be had without what the person holds
// (M6), about two kinds in one hand (M3), and about chains that can not be asked for
// everywhere (M2, P1).
func (p Policy) weakFactors() []string {
	var w []string
	weak, near := 0, 0
	for _, f := range p.OnlineFactors {
		switch f {
		case Mail:
			w = append(w, "Accepts codes by mail: whoever can read the mailbox, or change whose it is, has the code.")
		case SMS:
			w = append(w, "Accepts codes by text message: they can be read on the way, and a number can be taken over.")
		}
		if f.Weak() {
			weak++
		}
		if f != FIDO2 {
			near++
		}
	}
	switch n := p.FactorsOnline; {
	case n == 1 && weak > 0:
		w = append(w, "A weak factor alone is enough beside the password.")
	case n > 1 && weak >= n:
		w = append(w, fmt.Sprintf("All %d factors may be weak ones.", n))
	}
	if p.FactorsOnline > 1 && slices.Contains(p.OnlineFactors, Push) && slices.Contains(p.OnlineFactors, TOTP) {
		// An enrolled phone has both: requests, and the codes that came with it.
		w = append(w, fmt.Sprintf("Push and authenticator codes count as two of %d factors, and one phone can have both: whoever holds it unlocked gives both.", p.FactorsOnline))
	}
	if slices.Contains(p.Scopes, Remote) && p.FactorsOnline > 0 && near < p.FactorsOnline {
		w = append(w, fmt.Sprintf("Nobody can sign in over the network: a security key is at the other end of the line, and without it %d of %d factors are left.", near, p.FactorsOnline))
	}
	return w
}

// apartWords name kinds in a warning about the offline side.
var apartWords = map[Factor]string{TOTP: "Codes of an authenticator app (totp)", Backup: "Backup codes (backup)"}

// weakerApart are sentences about an offline side that asks for less than the online one,
// where it asks for factors. A security key is no weaker than any kind.
func (p Policy) weakerApart() []string {
	var w []string
	if p.FactorsOffline < p.FactorsOnline {
		w = append(w, fmt.Sprintf("Offline sign-in asks for %d factors, online for %d: the offline side is weaker.", p.FactorsOffline, p.FactorsOnline))
	}
	if p.FactorsOffline == 0 {
		return w
	}
	for _, f := range p.OfflineFactors {
		if f != FIDO2 && !slices.Contains(p.OnlineFactors, f) {
			what, ok := apartWords[f]
			if !ok {
				what = fmt.Sprintf("Factors of the kind %q", f)
			}
			w = append(w, what+" are accepted offline but not online: the offline side is weaker.")
		}
	}
	return w
}

// Warnings are sentences about settings that are allowed but weaken something
// (P1, P4).
func (p Policy) Warnings() []string {
	var w []string
	if p.ReportOnly {
		w = append(w, "Report-only: it decides nothing, and only notes with each sign-in what it would have decided.")
	}
	if p.Offline == OfflineBypass {
		w = append(w, "Skips MFA when the server is unreachable: whoever pulls the network cable needs only the password.")
	}
	if p.Offline == OfflineMFAOrBypass {
		w = append(w, "Skips MFA on machines that are not enrolled for the user when the server is unreachable.")
	}
	if p.Offline != OfflineDeny && p.Offline != OfflineBypass {
		w = append(w, p.weakerApart()...)
	}
	w = append(w, p.weakFactors()...)
	if p.ForceDisconnectAfter != 0 {
		w = append(w, "force_disconnect_after has no effect before there is an access connection.")
	}
	if len(p.Scopes) == 0 {
		w = append(w, "Covers no scope: MFA is never asked.")
	}
	if p.FactorsOnline == 0 {
		w = append(w, "Asks for no second factor online.")
	}
	if p.EnrolRemote {
		w = append(w, "Lets people enrol a factor over ssh.")
	}
	if slices.Contains(p.TrustedScopes, Remote) && len(p.TrustedNetworks) > 0 {
		w = append(w, "Trusted networks relax remote sign-ins too.")
	}
	return w
}
