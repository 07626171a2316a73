// Package settings holds what administrators set for the server as a whole while
// it runs: the text that tells people whom to call, and the address under which
// machines reach the server, and the one under which people do. Values lie in the table settings, one row each, so
// that all replicas see the same; what was never set is empty and the program's
// own configuration counts.
package settings

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The names of the rows.
const (
	contact   = "desk.contact"
	serverURL = "desk.server_url"
	minAgent  = "desk.min_agent_version"
	peopleURL = "desk.people_url"
)

// Settings are the values; an empty one was not set.
type Settings struct {
	Contact   string // whom people call; goes into every machine's policy file
	ServerURL string // https://HOST:PORT of the machines' listener; goes into join tokens
	MinAgent  string // the oldest version of the agent that is not called outdated (P3)
	PeopleURL string // https://HOST[:PORT] of the people's listener, as browsers and phones reach it
}

// Read gives the present values.
func Read(ctx context.Context, q *db.Queries) (Settings, error) {
	var s Settings
	for name, to := range map[string]*string{contact: &s.Contact, serverURL: &s.ServerURL, minAgent: &s.MinAgent, peopleURL: &s.PeopleURL} {
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

// People is the address under which people reach the server: https://HOST[:PORT]. It is
// what was set, or else what the program knows of itself; own may be nil. Passkeys are
// bound to its host, and what is sent to people (a mail, a QR code, a request to a
// phone) leads there.
func People(ctx context.Context, q *db.Queries, own func() string) (string, error) {
	v, err := q.GetSetting(ctx, peopleURL)
	switch {
	case err == nil && len(v) > 0:
		return string(v), nil
	case err != nil && !store.IsNotFound(err):
		return "", fmt.Errorf("read the setting %s: %w", peopleURL, err)
	case own == nil:
		return "", nil
	}
	return own(), nil
}

// CheckPeopleURL says what is wrong with an address for people.
func CheckPeopleURL(s string) error {
	const allowed = "allowed is https://HOST or https://HOST:PORT, for example https://latchkey.example.org"
	if len(s) > 256 {
		return fmt.Errorf("it has %d octets; %s", len(s), allowed)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("it holds the character U+%04X; %s", r, allowed)
		}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("it is no URL; %s", allowed)
	case u.Scheme != "https":
		return fmt.Errorf("it does not begin with https://; %s", allowed)
	case u.Hostname() == "":
		return fmt.Errorf("it names no host; %s", allowed)
	case s != "https://"+u.Host:
		return fmt.Errorf("it says more than host and port; %s", allowed)
	case u.Host != strings.ToLower(u.Host):
		return fmt.Errorf("it has capital letters, which browsers do not send; %s", allowed)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("its port is none; %s", allowed)
		}
		if port == "443" {
			return fmt.Errorf("browsers leave the port 443 out; %s", allowed)
		}
	}
	return nil
}

// Write replaces the values. The caller judges them and writes the event.
func Write(ctx context.Context, tx *store.Tx, s Settings, at int64) error {
	for name, v := range map[string]string{contact: s.Contact, serverURL: s.ServerURL, minAgent: s.MinAgent, peopleURL: s.PeopleURL} {
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
