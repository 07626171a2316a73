package fill

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Session opens a session for a user past the sign-in, whose password and code cost a measurement half a second, and
// gives the value of its cookie (session.Cookie). Fresh says that a second factor was just given.
func Session(ctx context.Context, database, user string, now time.Time) (cookie string, err error) {
	s, err := store.Open(ctx, store.Config{Database: database, Clock: clock.Real, NoMigration: true})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	cookie = session.CLIPrefix + base64.RawURLEncoding.EncodeToString(b)
	hash := sha256.Sum256([]byte(cookie))
	at := clock.Micros(now)
	return cookie, s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUserByName(ctx, user)
		if err != nil {
			return err
		}
		return tx.InsertSession(ctx, db.InsertSessionParams{
			ID: store.NewID(), SecretHash: hash[:], UserID: u.ID, Kind: session.Browser, Factor: session.TOTP, PasswordAt: u.PasswordChangedAt,
			BeganAt: at, SeenAt: at, FreshAt: at, EndsAt: clock.Micros(now.Add(session.Absolute)), Address: "127.0.0.1", Agent: "a measurement",
		})
	})
}
