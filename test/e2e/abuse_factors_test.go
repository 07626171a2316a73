//go:build e2e

package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/text"
)

// Phones on the worst day, on the real programs: the server is killed between the number and
// the approval, behind the approval and behind a report; its disk is full; its clock is put
// back (S2, S12, O17).
func TestPhonesOnTheWorstDay(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.m.SSHD()
	ph := w.phone(alice)
	// begun is a sign-in that shows a number, and the request on the phone.
	begun := func(s *station, ph *phone) (*Terminal, string, push.Request) {
		s.t.Helper()
		s.online()
		term := s.here().SSHTerminal("alice", markerCmd, once...)
		dialogue(s.t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(s.t, term)
		r, _ := ph.asked()
		return term, n, r
	}
	killed := func(s *station) {
		s.t.Helper()
		s.server.Kill("KILL")
		s.startServer()
	}
	// told has the phone send its answer until it is told what came of it.
	told := func(s *station, ph *phone, r push.Request, a push.Answer) (state string, err error) {
		s.t.Helper()
		s.srv.In(s.t).Until(20*time.Second, "the phone is answered", func() bool {
			ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
			defer cancel()
			state, err = ph.Send(ctx, r.ID, a)
			var e *phonetest.Error
			return err == nil || errors.As(err, &e) && e.Status != http.StatusServiceUnavailable
		})
		return state, err
	}

	t.Run("the server is killed while the phone is asked, and behind the approval", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		before := s.mark()
		term, n, r := begun(s, ph)
		killed(s)
		answer := ph.Draft(r, push.Approve, n)
		if state, err := told(s, ph, r, answer); err != nil || state != push.StateApproved {
			t.Fatalf("%q, %v", state, err)
		}
		killed(s)
		dialogue(t, term, "press Enter", "")
		ends(t, term, true)
		if _, err := told(s, ph, r, answer); phonetest.Code(err) != "answered" {
			t.Errorf("an answer is taken twice: %v", err)
		}
		if es := s.since(before, "--type", "push.approved"); len(es) != 1 {
			t.Errorf("approved: %s", short(es))
		}
		if e := s.last("signin.allowed", "alice", before); e.Factor != "push" || e.Link != "up" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("the server is killed behind a report: nobody gets in by it, and no phone is asked", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		before := s.mark()
		term, n, r := begun(s, ph)
		if state, err := told(s, ph, r, ph.Draft(r, push.Report, "")); err != nil || state != push.StateReported {
			t.Fatalf("%q, %v", state, err)
		}
		killed(s)
		if _, err := told(s, ph, r, ph.Draft(r, push.Approve, n)); err == nil {
			t.Error("approved behind a report")
		}
		dialogue(t, term, "press Enter", "")
		ends(t, term, false)
		s.online()
		term = s.here().SSHTerminal("alice", markerCmd, once...)
		dialogue(t, term, "assword: ", alice.pw)
		if !term.Expect("code: ", Patience) && !strings.Contains(term.Output(), text.PushLocked) {
			t.Errorf("a phone is asked behind a report:\n%s", term.Output())
		}
		term.Close()
		if es := s.since(before, "--type", "push.reported"); len(es) != 1 {
			t.Errorf("reported: %s", short(es))
		}
		s.cli("user", "unlock", "alice")
		s.cli("factor", "unlock", "alice")
	})
	t.Run("the server's clock is put back by an hour", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		term, n, r := begun(s, ph)
		s.world.astray = -time.Hour
		s.turn()
		if _, err := told(s, ph, r, ph.Draft(r, push.Approve, n)); err == nil {
			t.Error("what was asked in an hour is approved")
		}
		dialogue(t, term, "press Enter", "")
		if !term.Expect(text.PushExpired, Patience) {
			t.Errorf("it is not said that nobody answered in time:\n%s", term.Output())
		}
		term.Close()
		s.world.astray = 0
		s.turn()
		s.cli("user", "unlock", "alice")
	})
	t.Run("the disk is full when the phone answers", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		s.server.Kill("TERM")
		s.srv.In(t).moved(serverData, "24m")
		s.startServer()
		before := s.mark()
		term, n, r := begun(s, ph)
		answer := ph.Draft(r, push.Approve, n)
		s.srv.In(t).fill(serverData)
		state, err := ph.Send(t.Context(), r.ID, answer)
		var e *phonetest.Error
		if err != nil && (!errors.As(err, &e) || e.Status != http.StatusServiceUnavailable) || err == nil && state != push.StateApproved {
			t.Errorf("on a full disk: %q, %v", state, err)
		}
		s.srv.In(t).empty(serverData)
		if state, again := told(s, ph, r, answer); err != nil && (again != nil || state != push.StateApproved) || err == nil && phonetest.Code(again) != "answered" {
			t.Errorf("with room again: %q, %v; first %v", state, again, err)
		}
		dialogue(t, term, "press Enter", "")
		ends(t, term, true)
		if es := s.since(before, "--type", "push.approved"); len(es) != 1 {
			t.Errorf("approved: %s", short(es))
		}
		var all []rest.Event
		if all = s.since(before, "--type", "signin.allowed"); len(all) != 1 {
			t.Errorf("allowed: %s", short(all))
		}
	})
}
