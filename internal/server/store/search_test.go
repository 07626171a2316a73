package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// hasty is a clock by which every look takes a while.
type hasty struct {
	clock.Clock
	looks atomic.Int64
}

func (h *hasty) Now() time.Time {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(h.looks.Add(1)) * 25 * time.Millisecond)
}

// TestV2ASearchFindsWhatIsThere: whatever is asked for, however far a look comes and however long the pages are, the pages
// together are what a simple comparison of every event gives, in the same order.
func TestV2ASearchFindsWhatIsThere(t *testing.T) {
	storetest.EnginesAt(t, &hasty{Clock: clock.Real}, func(t *testing.T, s *store.Store) {
		r := rand.New(rand.NewPCG(3, 4))
		pick := func(words ...string) string { return words[r.IntN(len(words))] }
		types := []string{"signin.allowed", "signin.denied", "signin_other", "user.added", "machine.lost"}
		users, machines := []string{"u1", "u2", "u3"}, []string{"m1", "m2", ""}
		scopes, reasons := []string{"logon", "remote"}, []string{"wrong-code", "mfa-required", ""}
		subjects := []string{"alice", "Bob_1", "50% Ärger", `back\slash`, ""}
		day := int64(24 * time.Hour / time.Microsecond)
		var all []event.Event
		for i := range 400 {
			at := int64(1_700_000_000_000_000) + r.Int64N(100*day)
			if i%40 == 0 {
				at = 5 + int64(i) // a machine without a clock
			}
			all = append(all, event.Event{
				ID: fmt.Sprintf("e%04d", i), Type: event.Type(pick(types...)), UserID: pick(users...), MachineID: pick(machines...), Subject: pick(subjects...),
				Scope: pick(scopes...), Reason: pick(reasons...), Outcome: pick("allow", "deny"), Link: pick("up", "down"), Actor: pick("root@local", "alice"),
				Factor: pick("totp", "backup"), Service: pick("sshd", "sudo"), Address: pick("192.0.2.1", ""), Machine: pick("pc-1", "PC-2"), At: at,
			})
		}
		all[7].At = all[8].At // two at the same moment
		add(t, s, all...)
		slices.SortFunc(all, func(a, b event.Event) int { return cmp.Or(cmp.Compare(b.At, a.At), strings.Compare(b.ID, a.ID)) })

		matches := func(f store.EventFilter, e event.Event) bool {
			for _, x := range [][2]string{
				{f.UserID, e.UserID},
				{f.MachineID, e.MachineID},
				{f.Outcome, e.Outcome},
				{f.Reason, e.Reason},
				{f.Scope, e.Scope},
				{f.Service, e.Service},
				{f.Link, e.Link},
				{f.Factor, e.Factor},
				{f.Actor, e.Actor},
				{f.Address, e.Address},
			} {
				if x[0] != "" && x[0] != x[1] {
					return false
				}
			}
			if len(f.Types) > 0 && !slices.ContainsFunc(f.Types, func(t string) bool {
				return t == string(e.Type) || strings.HasSuffix(t, ".") && strings.HasPrefix(string(e.Type), t)
			}) {
				return false
			}
			text := strings.ToLower(strings.Join([]string{e.Subject, e.Actor, e.Machine, e.Address, e.Service, e.Reason}, " "))
			return strings.Contains(text, strings.ToLower(f.Text)) && e.At >= f.Since && (f.Until == 0 || e.At < f.Until)
		}
		cut := 0
		for range 300 {
			f := store.EventFilter{Limit: 1 + r.IntN(60)}
			for _, set := range []func(){
				func() { f.Types = []string{pick("signin.", "machine.", "nothing.", "user.added", "machine.lost")} },
				func() { f.Types = append(f.Types, pick("signin.allowed", "signin.", "user.added")) },
				func() { f.UserID = pick("u1", "u2", "u9") }, func() { f.MachineID = pick("m1", "m2") }, func() { f.Reason = pick("wrong-code", "mfa-required") },
				func() { f.Outcome = pick("allow", "deny", "never") }, func() { f.Scope = pick(scopes...) }, func() { f.Service = "sshd" }, func() { f.Link = "down" },
				func() { f.Factor = "totp" }, func() { f.Actor = "alice" }, func() { f.Address = "192.0.2.1" },
				func() { f.Text = pick("ALI", "ärger", "Ärger", "b_1", "0% ", `k\s`, "pc-2", "no such thing", "e") },
				func() { f.Since = all[r.IntN(len(all))].At }, func() { f.Until = all[r.IntN(len(all))].At },
			} {
				if r.IntN(5) == 0 {
					set()
				}
			}
			if strings.ContainsRune(f.Text, 'ä') {
				continue // other letters than those of ASCII are as they were typed
			}
			var want, got []string
			for _, e := range all {
				if matches(f, e) {
					want = append(want, e.ID)
				}
			}
			looks := 0
			for next := f; ; {
				found, err := s.SearchEvents(t.Context(), next)
				if err != nil {
					t.Fatalf("%+v: %v", next, err)
				}
				for _, e := range found.Events {
					got = append(got, e.ID)
				}
				if looks++; looks > 2000 {
					t.Fatalf("%+v does not end", f)
				}
				if found.SearchedTo != 0 {
					cut++
					next.BeforeAt, next.BeforeID = found.SearchedTo, ""
					continue
				}
				if len(found.Events) < f.Limit {
					break
				}
				last := found.Events[len(found.Events)-1]
				next.BeforeAt, next.BeforeID = last.At, last.ID
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Fatalf("%+v (-there +found):\n%s", f, d)
			}
			whole, err := s.Events(t.Context(), f)
			if err != nil || len(whole) != min(len(want), f.Limit) {
				t.Fatalf("%+v: Events gives %d, there are %d: %v", f, len(whole), len(want), err)
			}
		}
		if cut < 100 {
			t.Errorf("only %d looks ended before the end", cut)
		}
	})
}
