// Package ending ends what is open in a person's name: the windows of a second factor,
// sessions, sign-ins under way, codes for phones, API tokens and certificates. Whoever
// finds that an account may have been in other hands calls it, in the transaction of that
// finding; each thing that ends has its event.
//
// It promises: all that ends for one reason ends in one function, so that the doors at
// which it happens can not differ. A new password in particular ends the same wherever it
// was chosen: at a machine, at the sign-in in a browser, in the portal, at the help desk.
//
// Rows: W6, W7, S9, E3.
package ending

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
)

// Cause is who ends something, from where, why and when.
type Cause struct {
	By      string // a name; "server" where nobody has asked for it
	Address string // may be empty
	Reason  string // as in the events
	At      time.Time
}

// note writes an event of the cause.
func (c Cause) note(tx *store.Tx, e event.Event, data map[string]any) error {
	e.Actor, e.Address, e.Reason, e.At, e.ReceivedAt = c.By, c.Address, c.Reason, clock.Micros(c.At), clock.Micros(c.At)
	var err error
	if e.Data, err = json.Marshal(data); err != nil {
		return fmt.Errorf("data of the event %s: %w", e.Type, err)
	}
	_, err = tx.Event(e)
	return err
}

// Ended counts what has ended.
type Ended struct{ Windows, Sessions, Tokens, Certificates int }

// Windows ends the open windows of a user, of a machine, or of both (empty: any), tells
// the machines, and gives the windows.
func Windows(ctx context.Context, tx *store.Tx, c Cause, userID, machineID string) ([]db.EndWindowsRow, error) {
	ended, err := tx.EndWindows(ctx, db.EndWindowsParams{At: clock.Micros(c.At), Reason: c.Reason, UserID: userID, MachineID: machineID})
	if err != nil || len(ended) == 0 {
		return nil, err
	}
	names := map[string]string{} // one person may have thousands
	var machines []string
	for _, w := range ended {
		name, ok := names[w.UserID]
		if !ok {
			u, err := tx.GetUser(ctx, w.UserID)
			if err != nil && !store.IsNotFound(err) {
				return nil, err
			}
			name = u.Name
			names[w.UserID] = name
		}
		m, err := tx.GetMachine(ctx, w.MachineID)
		if err != nil && !store.IsNotFound(err) {
			return nil, err
		}
		err = c.note(tx, event.Event{Type: event.WindowEnded, Subject: name, UserID: w.UserID, MachineID: w.MachineID, Machine: m.Name},
			map[string]any{"window": rest.WindowPrefix + w.ID})
		if err != nil {
			return nil, err
		}
		machines = append(machines, w.MachineID)
	}
	slices.Sort(machines)
	return ended, touch.Machine(ctx, tx, slices.Compact(machines)...)
}

// Sessions ends the sessions of a user, the sign-ins under way and the codes for phones.
// except is a session that goes on, also behind a change of the password; it may be empty.
// It tells how many sessions there were.
func Sessions(ctx context.Context, tx *store.Tx, c Cause, userID, except string) (int, error) {
	n, err := tx.DeleteSessionsOfUser(ctx, db.DeleteSessionsOfUserParams{UserID: userID, But: except})
	if err != nil {
		return 0, fmt.Errorf("end sessions: %w", err)
	}
	u, err := tx.GetUser(ctx, userID)
	if err != nil {
		return 0, fmt.Errorf("user: %w", err)
	}
	if except != "" {
		if _, err := tx.KeepSession(ctx, db.KeepSessionParams{ID: except, UserID: userID, PasswordAt: u.PasswordChangedAt}); err != nil {
			return 0, fmt.Errorf("keep a session: %w", err)
		}
	}
	if _, err := tx.DeleteSigninsOfUser(ctx, userID); err != nil {
		return 0, fmt.Errorf("end sign-ins: %w", err)
	}
	// A code for a phone that lies about would outlive what it was made with.
	if _, err := tx.EndPushEnrolments(ctx, db.EndPushEnrolmentsParams{UserID: userID, At: clock.Micros(c.At)}); err != nil {
		return 0, fmt.Errorf("end codes for phones: %w", err)
	}
	if n == 0 {
		return 0, nil
	}
	return int(n), c.note(tx, event.Event{Type: event.SessionEnded, Subject: u.Name, UserID: u.ID}, map[string]any{"sessions": n})
}

// All ends everything that is open in a user's name but the excepted session: the account
// may have been in other hands, and whoever had it for an hour must not have it for a year.
func All(ctx context.Context, tx *store.Tx, c Cause, userID, except string) (Ended, error) {
	var out Ended
	windows, err := Windows(ctx, tx, c, userID, "")
	if err != nil {
		return out, fmt.Errorf("end windows: %w", err)
	}
	out.Windows = len(windows)
	u, err := tx.GetUser(ctx, userID)
	if err != nil {
		return out, fmt.Errorf("user: %w", err)
	}
	// Before the certificates: the sessions that they have opened end with them, and are
	// counted here.
	if out.Sessions, err = Sessions(ctx, tx, c, userID, except); err != nil {
		return out, err
	}
	if out.Certificates, err = ca.RevokeUser(ctx, tx, userID, ca.Unspecified, clock.Micros(c.At)); err != nil {
		return out, fmt.Errorf("revoke certificates: %w", err)
	}
	if out.Certificates > 0 {
		err := c.note(tx, event.Event{Type: event.CertificateRevoked, Subject: u.Name, UserID: userID}, map[string]any{"certificates": out.Certificates})
		if err != nil {
			return out, err
		}
	}
	out.Tokens, err = tokens(ctx, tx, c, u)
	return out, err
}

// tokens revokes the API tokens of a user.
func tokens(ctx context.Context, tx *store.Tx, c Cause, u db.User) (int, error) {
	rows, err := tx.ListAPITokens(ctx, db.ListAPITokensParams{UserID: u.ID, N: rest.MaxPage}) // nobody has as many
	if err != nil {
		return 0, fmt.Errorf("API tokens: %w", err)
	}
	for _, r := range rows {
		if _, err := tx.DeleteAPIToken(ctx, r.ApiToken.ID); err != nil {
			return 0, fmt.Errorf("revoke an API token: %w", err)
		}
		err := c.note(tx, event.Event{Type: event.APITokenRevoked, Subject: r.ApiToken.Name, UserID: u.ID},
			map[string]any{"token": rest.APITokenPrefix + r.ApiToken.ID, "maker": u.Name})
		if err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

// reasonPassword is what ends with a new password.
const reasonPassword = "password-changed"

// Password ends all that may have been opened with a password that was replaced in this
// transaction, tells the machines that know the user, and writes the one event of it:
// changed says who did it, where, and whose password it is; its type, its time and, in its
// data beside the given ones, what has ended are written here. except is the session that
// goes on, if any.
func Password(ctx context.Context, tx *store.Tx, changed event.Event, data map[string]any, except string, now time.Time) error {
	c := Cause{By: changed.Actor, Address: changed.Address, Reason: reasonPassword, At: now}
	ended, err := All(ctx, tx, c, changed.UserID, except)
	if err != nil {
		return err
	}
	if err := touch.User(ctx, tx, changed.UserID); err != nil {
		return err
	}
	about := map[string]any{}
	for k, v := range data {
		about[k] = v
	}
	for k, n := range map[string]int{
		"windows_ended": ended.Windows, "sessions_ended": ended.Sessions, "tokens_ended": ended.Tokens, "certificates_ended": ended.Certificates,
	} {
		if n > 0 {
			about[k] = n
		}
	}
	changed.Type, changed.At, changed.ReceivedAt = event.PasswordChanged, clock.Micros(now), clock.Micros(now)
	if len(about) > 0 {
		if changed.Data, err = json.Marshal(about); err != nil {
			return fmt.Errorf("data of the event %s: %w", changed.Type, err)
		}
	}
	_, err = tx.Event(changed)
	return err
}
