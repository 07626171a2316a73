package ending_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var now = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// open gives the user one of everything that can be open, and two sessions.
func open(ctx context.Context, tx *store.Tx, id string) error {
	at, later := clock.Micros(now), clock.Micros(now.Add(time.Hour))
	if err := tx.InsertUser(ctx, db.InsertUserParams{ID: id, Name: id, NameFold: id}); err != nil {
		return err
	}
	for _, s := range []string{"-one", "-two"} {
		err := tx.InsertSession(ctx, db.InsertSessionParams{ID: id + s, SecretHash: []byte(id + s), UserID: id, Kind: "browser", Factor: "totp", BeganAt: at, SeenAt: at, EndsAt: later})
		if err != nil {
			return err
		}
	}
	if err := tx.InsertSignin(ctx, db.InsertSigninParams{ID: id, SecretHash: []byte(id), UserID: id, ExpiresAt: later}); err != nil {
		return err
	}
	if err := tx.InsertAPIToken(ctx, db.InsertAPITokenParams{ID: id, SecretHash: []byte(id), UserID: id, Name: "backup job", Scopes: "[]", ExpiresAt: later}); err != nil {
		return err
	}
	if err := tx.InsertUserCertificate(ctx, db.InsertUserCertificateParams{Serial: id, UserID: id, NotAfter: later, Fingerprint: id}); err != nil {
		return err
	}
	if err := tx.InsertPushEnrolment(ctx, db.InsertPushEnrolmentParams{ID: id, UserID: id, Hash: []byte(id), ExpiresAt: later}); err != nil {
		return err
	}
	return tx.InsertWindow(ctx, db.InsertWindowParams{ID: id, UserID: id, MachineID: "m1", OpenedAt: at, ExpiresAt: later, Scopes: "[]", Factors: "[]"})
}

// left counts what the user still has, with the sessions by name.
type left struct {
	Sessions                                    []string
	Signins, Tokens, Certificates, Codes, Opens int
}

func look(t *testing.T, s *store.Store, id string) (out left) {
	t.Helper()
	ctx, at := t.Context(), clock.Micros(now)
	err := s.Read(ctx, func(q *store.Queries) error {
		sessions, err := q.ListSessionsOfUser(ctx, db.ListSessionsOfUserParams{UserID: id, At: at, N: 10})
		if err != nil {
			return err
		}
		for _, r := range sessions {
			out.Sessions = append(out.Sessions, r.ID)
			slices.Sort(out.Sessions)
		}
		n, err := q.CountSigninsOfUser(ctx, db.CountSigninsOfUserParams{UserID: id, At: at})
		if err != nil {
			return err
		}
		out.Signins = int(n)
		if n, err = q.CountAPITokensOfUser(ctx, id); err != nil {
			return err
		}
		out.Tokens = int(n)
		c, err := q.GetUserCertificate(ctx, id)
		if err != nil {
			return err
		}
		if c.UserCertificate.RevokedAt == 0 {
			out.Certificates = 1
		}
		e, err := q.GetPushEnrolment(ctx, id)
		if err != nil {
			return err
		}
		if e.ExpiresAt > at && e.UsedAt == 0 {
			out.Codes = 1
		}
		w, err := q.ListValidWindows(ctx, db.ListValidWindowsParams{UserID: id, MachineID: "m1", At: at})
		out.Opens = len(w)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatEndsAndWhatStays(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		update := func(fn func(ctx context.Context, tx *store.Tx) error) {
			t.Helper()
			if err := s.Update(t.Context(), fn); err != nil {
				t.Fatal(err)
			}
		}
		c := ending.Cause{By: "root@local", Address: "192.0.2.1", Reason: "reported", At: now}
		ways := []struct {
			user string
			do   func(ctx context.Context, tx *store.Tx) error
			want left
			say  map[event.Type]int
		}{
			{"untouched", func(context.Context, *store.Tx) error { return nil }, left{[]string{"untouched-one", "untouched-two"}, 1, 1, 1, 1, 1}, nil},
			{"windows", func(ctx context.Context, tx *store.Tx) error {
				_, err := ending.Windows(ctx, tx, c, "windows", "")
				return err
			}, left{[]string{"windows-one", "windows-two"}, 1, 1, 1, 1, 0}, map[event.Type]int{event.WindowEnded: 1}},
			{"sessions", func(ctx context.Context, tx *store.Tx) error {
				n, err := ending.Sessions(ctx, tx, c, "sessions", "sessions-two")
				if n != 1 {
					t.Errorf("%d sessions ended", n)
				}
				return err
			}, left{[]string{"sessions-two"}, 0, 1, 1, 0, 1}, map[event.Type]int{event.SessionEnded: 1}},
			{"all", func(ctx context.Context, tx *store.Tx) error {
				e, err := ending.All(ctx, tx, c, "all", "")
				if diff := cmp.Diff(ending.Ended{Windows: 1, Sessions: 2, Tokens: 1, Certificates: 1}, e); diff != "" {
					t.Error(diff)
				}
				return err
			}, left{}, map[event.Type]int{event.WindowEnded: 1, event.SessionEnded: 1, event.APITokenRevoked: 1, event.CertificateRevoked: 1}},
			{"password", func(ctx context.Context, tx *store.Tx) error {
				return ending.Password(ctx, tx, event.Event{Actor: "password", Subject: "password", UserID: "password", Reason: "expired"}, map[string]any{"self": true}, "password-one", now)
			}, left{Sessions: []string{"password-one"}}, map[event.Type]int{
				event.WindowEnded: 1, event.SessionEnded: 1, event.APITokenRevoked: 1, event.CertificateRevoked: 1, event.PasswordChanged: 1,
			}},
		}
		update(func(ctx context.Context, tx *store.Tx) error {
			if err := tx.InsertMachine(ctx, db.InsertMachineParams{ID: "m1", Number: 1, Name: "desk", Status: "active", TPMInfo: "{}"}); err != nil {
				return err
			}
			for _, w := range ways {
				if err := open(ctx, tx, w.user); err != nil {
					return err
				}
			}
			return nil
		})
		for _, w := range ways {
			update(w.do)
		}
		rows, err := s.EventsAfter(t.Context(), store.Position{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		said := map[string]map[event.Type]int{}
		for _, r := range rows {
			e := store.EventOf(r)
			if said[e.UserID] == nil {
				said[e.UserID] = map[event.Type]int{}
			}
			said[e.UserID][e.Type]++
			if e.Type == event.PasswordChanged {
				var got map[string]any
				if err := json.Unmarshal(e.Data, &got); err != nil {
					t.Error(err)
				}
				want := map[string]any{"self": true, "windows_ended": 1.0, "sessions_ended": 1.0, "tokens_ended": 1.0, "certificates_ended": 1.0}
				if diff := cmp.Diff(want, got); diff != "" || e.Reason != "expired" {
					t.Errorf("reason %s: %s", e.Reason, diff)
				}
			} else if e.UserID != "password" && (e.Actor != c.By || e.Address != c.Address || e.Reason != c.Reason) {
				t.Errorf("%+v", e)
			}
		}
		for _, w := range ways {
			if diff := cmp.Diff(w.want, look(t, s, w.user)); diff != "" {
				t.Errorf("%s: %s", w.user, diff)
			}
			if diff := cmp.Diff(w.say, said[w.user]); diff != "" {
				t.Errorf("%s: events: %s", w.user, diff)
			}
		}
	})
}
