// Package settings holds what administrators set for the server as a whole while
// it runs: the text that tells people whom to call, and the address under which
// machines reach the server. Values lie in the table settings, one row each, so
// that all replicas see the same; what was never set is empty and the program's
// own configuration counts.
package settings

import (
	"context"
	"fmt"

	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The names of the rows.
const (
	contact   = "desk.contact"
	serverURL = "desk.server_url"
	minAgent  = "desk.min_agent_version"
)

// Settings are the values; an empty one was not set.
type Settings struct {
	Contact   string // whom people call; goes into every machine's policy file
	ServerURL string // https://HOST:PORT of the machines' listener; goes into join tokens
	MinAgent  string // the oldest version of the agent that is not called outdated (P3)
}

// Read gives the present values.
func Read(ctx context.Context, q *db.Queries) (Settings, error) {
	var s Settings
	for name, to := range map[string]*string{contact: &s.Contact, serverURL: &s.ServerURL, minAgent: &s.MinAgent} {
		v, err := q.GetSetting(ctx, name)
		switch {
		case err == nil:
			*to = string(v)
		case !store.IsNotFound(err):
			return s, fmt.Errorf("read the setting %s: %w", name, err)
		}
	}
	return s, nil
}

// Write replaces the values. The caller judges them and writes the event.
func Write(ctx context.Context, tx *store.Tx, s Settings, at int64) error {
	for name, v := range map[string]string{contact: s.Contact, serverURL: s.ServerURL, minAgent: s.MinAgent} {
		var err error
		if v == "" {
			_, err = tx.DeleteSetting(ctx, name)
		} else {
			err = tx.PutSetting(ctx, db.PutSettingParams{Key: name, Value: []byte(v), UpdatedAt: at})
		}
		if err != nil {
			return fmt.Errorf("write the setting %s: %w", name, err)
		}
	}
	return nil
}
