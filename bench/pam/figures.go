package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// series are the times of one kind of sign-in.
type series struct {
	name string
	took []time.Duration
	// kdf and tpm are the shares of those times that the agent says it spent on the key derivation and waiting for the
	// TPM, sign-in by sign-in.
	kdf, tpm []time.Duration
}

// quantile is the value below which the share q of the times lies.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(ds))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func median(ds []time.Duration) time.Duration { return quantile(ds, 0.5) }

// rest are the times without key derivation and TPM.
func (s *series) rest() []time.Duration {
	out := make([]time.Duration, 0, len(s.took))
	for i, d := range s.took {
		if i < len(s.kdf) {
			d -= s.kdf[i]
		}
		if i < len(s.tpm) {
			d -= s.tpm[i]
		}
		out = append(out, d)
	}
	return out
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

func row(cells ...string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

func head(cells ...string) {
	row(cells...)
	fmt.Println("|" + strings.Repeat("---|", len(cells)))
}

// aim says whether a figure keeps what was aimed at.
func aim(got, limit float64) string {
	if got <= limit {
		return fmt.Sprintf("%.2f × (aim: at most %g ×)", got, limit)
	}
	return fmt.Sprintf("**%.2f ×** (aim: at most %g ×, missed)", got, limit)
}

func ratio(a, b time.Duration) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}
