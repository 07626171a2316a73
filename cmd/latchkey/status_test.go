package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/health"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/shim"
)

func TestEveryProblemIsToldOnceAndInASentence(t *testing.T) {
	now := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	gone := string(policy.ReasonTPMGone)
	for name, c := range map[string]struct {
		s         shim.MachineStatus
		want, not []string
	}{
		"a link that is down says its code too": {
			shim.MachineStatus{Link: "down", Reason: "connection-refused", Text: "Nobody listens.", Since: now.Add(-time.Minute)},
			[]string{"down since 1 min ago (connection-refused): Nobody listens."},
			[]string{"()"},
		},
		"what stands among the health is not told again": {
			shim.MachineStatus{
				Link: "up", Health: []health.State{{Code: gone, Severity: health.Failure, Text: event.Reasons[gone], Next: "Look after it.", Detail: "no device"}},
				Offline: shim.Offline{Problem: policy.ReasonTPMGone, PolicyProblem: policy.ReasonTPMGone, Detail: "no device"},
			},
			[]string{event.Reasons[gone] + " — no device", "Look after it.", "nobody can be until"},
			nil,
		},
		"an agent that counts no such health": {
			shim.MachineStatus{Link: "up", Offline: shim.Offline{Problem: policy.ReasonTPMGone, PolicyProblem: policy.ReasonTPMGone, ClockBehind: true}},
			[]string{event.Reasons[gone], event.Reasons["clock-behind"]},
			[]string{gone},
		},
		"a refused machine": {
			shim.MachineStatus{
				Link: "refused", Health: []health.State{{Code: "machine-refused", Severity: health.Failure, Text: "Revoked.", Next: "Join it anew."}},
				Offline: shim.Offline{Refused: "Stolen.", PolicyProblem: policy.ReasonPolicyAbsent, Problem: policy.ReasonVaultDamaged, PolicySerial: 4},
			},
			[]string{"Failure: Revoked.", "Join it anew.", "wiped"},
			[]string{"Refused:", "Problem", "damaged", "Nobody", "number 4"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			statusCard(&printer{w: &b, width: 100, now: now}, c.s)
			for _, w := range c.want {
				if strings.Count(b.String(), w) != 1 {
					t.Errorf("%q stands there %d times in\n%s", w, strings.Count(b.String(), w), b.String())
				}
			}
			for _, w := range c.not {
				if strings.Contains(b.String(), w) {
					t.Errorf("%q stands in\n%s", w, b.String())
				}
			}
		})
	}
}

func TestASecondFactorThatWasGivenDoesNotReadLikeADenial(t *testing.T) {
	for outcome, want := range map[string]string{"allow": "asked for, and given.", "deny": "is asked for."} {
		if got := reasonOf(rest.Event{Outcome: outcome, Reason: "mfa-required"}); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s", outcome, got)
		}
	}
}
