// Package fill makes a database that looks like that of a large organisation after a year: users, groups, machines,
// factors, offline data, windows, messages, certificates, and millions of events in a hash chain that verifies. It is for measurements and
// tests only.
//
// It promises: what it writes is what the server itself would have written (the schema is the server's own, seeds are
// sealed under the server's master key, the chain is whole), the same for the same Size and seed but for keys; it writes
// as fast as the engine takes rows, past the transactions of the store, so it is for a database that nobody uses yet.
//
// Some of what it makes is there to be asked for: Named says which.
package fill

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
)

// Size says how much.
type Size struct {
	Users, Groups, Machines, Events int
	Days                            int // over which the events are spread; 0 means 400, the default of retention
}

// Full is the size for which the figures of docs/benchmarks.md are meant.
var Full = Size{Users: 100_000, Groups: 2_000, Machines: 100_000, Events: 10_000_000}

// Part is the n-th part of a size.
func (s Size) Part(n int) Size {
	return Size{Users: s.Users / n, Groups: max(s.Groups/n, 10), Machines: s.Machines / n, Events: s.Events / n, Days: s.Days}
}

// Named is who and what a measurement asks for.
type Named struct {
	Admin        string       // an owner with Password and the authenticator Key
	Password     string       // of everybody
	Key          secret.Bytes // seed of the administrator's authenticator app
	Busy         string       // a user with a hundredth of all events
	Quiet        string       // a user of whom there is no event
	Usual        string       // a user as most are
	Group        string       // a group with a tenth of all users
	Machine      string       // a machine as most are
	QuietMachine string       // of which there is no event
	Rare         string       // a type of which there are few events, all of them long ago
	Policy       string       // a policy with a long history
	Reporting    string       // a policy that only reports, with many reports
	Event        string       // id of a sign-in with its trace
	Own          string       // id of a sign-in of the administrator
	Factor       string       // id of the administrator's authenticator
	Report       string       // id of something that somebody has reported
	Import       string       // id of an import
	OwnMachine   string       // id of a machine of the administrator
}

// Made is what Database has made, and how long the parts took.
type Made struct {
	Named
	Took  map[string]time.Duration
	Began time.Time // of the oldest event
	Now   time.Time // for which it was made
}

// Database fills the database of a server with the data folder dir (which gets the master key). database is "sqlite:PATH",
// "postgres://…" or empty for the SQLite file in the folder.
func Database(ctx context.Context, dir, database string, size Size) (Made, error) {
	out := Made{Took: map[string]time.Duration{}, Now: time.Now()}
	if size.Days == 0 {
		size.Days = 400
	}
	if size.Users < 20 || size.Groups < 10 || size.Machines < 20 || size.Events < 100 {
		return out, fmt.Errorf("fill: %+v is too little to be filled with", size)
	}
	if database == "" {
		database = "sqlite:" + filepath.Join(dir, "latchkey.db")
	}
	s, err := store.Open(ctx, store.Config{Database: database, Clock: clock.Real})
	if err != nil {
		return out, err
	}
	k, _, err := keys.Open(ctx, keys.Config{Dir: dir, Store: s, Clock: clock.Real})
	if err = errors.Join(err, s.Close()); err != nil {
		return out, err
	}
	var b bulk
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		b, err = openSQLite(ctx, path)
	} else {
		b, err = openPostgres(ctx, database)
	}
	if err != nil {
		return out, err
	}
	w := &world{
		Size: size, bulk: b, Made: &out,
		keeper: &factor.Keeper{Box: k.Box, Pepper: k.Pepper, Random: rand.Reader},
		box:    k.Box,
	}
	out.Began = out.Now.AddDate(0, 0, -size.Days)
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"indices dropped", b.bare},
		{"people", w.people},
		{"phones, passkeys, messages, certificates", w.strong},
		{"machines", w.machines},
		{"offline data and windows", w.pairs},
		{"policies", w.policies},
		{"events", w.events},
		{"desk", w.desk},
		{"indices", b.index},
	} {
		begun := time.Now()
		if err := part.do(ctx); err != nil {
			return out, errors.Join(fmt.Errorf("fill: %s: %w", part.name, err), b.close())
		}
		out.Took[part.name] = time.Since(begun)
	}
	return out, b.close()
}

var app = otp.Params{Algorithm: otp.SHA1, Digits: 6, Period: 30}

// bulk takes rows as fast as an engine can.
type bulk interface {
	// bare drops the indices that are no constraints; index makes them again.
	bare(ctx context.Context) error
	index(ctx context.Context) error
	// table takes all rows that each yields, until it yields nil.
	table(ctx context.Context, name string, columns string, next func() ([]any, error)) error
	exec(ctx context.Context, q string, args ...any) error
	close() error
}

// counted yields the rows 0 to n-1.
func counted(n int, row func(i int) ([]any, error)) func() ([]any, error) {
	i := 0
	return func() ([]any, error) {
		if i == n {
			return nil, nil
		}
		i++
		return row(i - 1)
	}
}

// dropped are the statements that make dropped indices again.
type dropped []string

func readAll(rows *sql.Rows, err error, each func(scan func(...any) error) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
