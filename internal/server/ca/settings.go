package ca

import (
	"context"
	"fmt"
	"time"

	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// What users' certificates may open.
const (
	Off     = "off"     // nothing, and none is issued: the default
	Portal  = "portal"  // the portal, and the API for oneself
	Console = "console" // and the console, for who has a role
)

// Uses lists them.
var Uses = []string{Off, Portal, Console}

const settingUse, settingLife = "certificates.use", "certificates.life"

// UserSettings say what users' certificates may do, and how long new ones last.
type UserSettings struct {
	Use  string
	Life time.Duration
}

// On tells whether there are users' certificates at all.
func (s UserSettings) On() bool { return s.Use == Portal || s.Use == Console }

// ReadUserSettings gives the present ones. What is not understood is off.
func ReadUserSettings(ctx context.Context, q *db.Queries) (UserSettings, error) {
	s := UserSettings{Use: Off, Life: UserLife}
	for name, take := range map[string]func(v string){
		settingUse: func(v string) {
			if v == Portal || v == Console {
				s.Use = v
			}
		},
		settingLife: func(v string) {
			if d, err := time.ParseDuration(v); err == nil && d >= MinUserLife && d <= MaxUserLife {
				s.Life = d
			}
		},
	} {
		v, err := q.GetSetting(ctx, name)
		switch {
		case err == nil:
			take(string(v))
		case !store.IsNotFound(err):
			return UserSettings{Use: Off, Life: UserLife}, fmt.Errorf("read the setting %s: %w", name, err)
		}
	}
	return s, nil
}

// WriteUserSettings replaces them; the caller judges them and writes the event. What a
// certificate has opened ends when the use changes.
func WriteUserSettings(ctx context.Context, tx *store.Tx, s UserSettings, at int64) error {
	was, err := ReadUserSettings(ctx, tx.Queries)
	if err != nil {
		return err
	}
	for name, v := range map[string]string{settingUse: s.Use, settingLife: s.Life.String()} {
		if err := tx.PutSetting(ctx, db.PutSettingParams{Key: name, Value: []byte(v), UpdatedAt: at}); err != nil {
			return fmt.Errorf("write the setting %s: %w", name, err)
		}
	}
	if was.Use == s.Use {
		return nil
	}
	_, err = tx.DeleteCertificateSessions(ctx)
	return err
}
