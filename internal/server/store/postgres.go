package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// channel is the name that replicas notify each other on.
const channel = "latchkey"

// What stands before the machines in a notification.
const (
	noteMachines = "m:"
	noteEvents   = "e:"
)

// elephant is PostgreSQL: one connection writes, a pool reads, one listens.
type elephant struct {
	conf  *pgx.ConnConfig
	dirty atomic.Bool // events were added since the last word to the others
	wake  chan struct{}
}

func newPostgres(dsn string) (engine, error) {
	conf, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The message of the parser masks the password.
		return nil, fmt.Errorf("the database's address: %w", err)
	}
	if conf.RuntimeParams["application_name"] == "" {
		conf.RuntimeParams["application_name"] = "latchkeyd"
	}
	return &elephant{conf: conf, wake: make(chan struct{}, 1)}, nil
}

func (e *elephant) name() string { return "postgresql" }

func (e *elephant) describe() string {
	return fmt.Sprintf("postgresql %s on %s", e.conf.Database, e.conf.Host)
}

func (e *elephant) open(ctx context.Context) (write, read *sql.DB, err error) {
	write = stdlib.OpenDB(*e.conf)
	// The writer has one connection; the second serves a migration's lock.
	write.SetMaxOpenConns(2)
	if err := write.PingContext(ctx); err != nil {
		_ = write.Close()
		return nil, nil, err
	}
	read = stdlib.OpenDB(*e.conf)
	read.SetMaxOpenConns(16)
	read.SetMaxIdleConns(16)
	return write, read, nil
}

func (e *elephant) snapshot() sql.IsolationLevel { return sql.LevelRepeatableRead }
func (e *elephant) wantsPrepared() bool          { return false }
func (e *elephant) ddl(text string) string       { return text }
func (e *elephant) gooseDialect() goose.Dialect  { return goose.DialectPostgres }

// gooseOptions: replicas that start at once migrate one after the other.
func (e *elephant) gooseOptions() []goose.ProviderOption {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120))
	if err != nil {
		panic(err) // only for options out of range
	}
	return []goose.ProviderOption{goose.WithSessionLocker(locker)}
}

func (e *elephant) tables(ctx context.Context, tx *sql.Tx) ([]table, error) {
	return readTables(tx.QueryContext(ctx, `SELECT CAST(c.relname AS TEXT),
		(SELECT string_agg(a.attname, ', ' ORDER BY k.place) FROM pg_constraint p
			CROSS JOIN LATERAL unnest(p.conkey) WITH ORDINALITY AS k (attnum, place)
			JOIN pg_attribute a ON a.attrelid = p.conrelid AND a.attnum = k.attnum
			WHERE p.conrelid = c.oid AND p.contype = 'p'),
		COALESCE((SELECT string_agg(DISTINCT CAST(r.relname AS TEXT), ',') FROM pg_constraint f
			JOIN pg_class r ON r.oid = f.confrelid WHERE f.conrelid = c.oid AND f.contype = 'f'), '')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND c.relname <> 'goose_db_version'`))
}

func (e *elephant) columns(ctx context.Context, tx *sql.Tx, table string) (names, types []string, err error) {
	return readColumns(tx.QueryContext(ctx, `SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position`, table))
}

func (e *elephant) copyBefore(_ context.Context, s *Store, version int64) error {
	s.log.Info("PostgreSQL: the migration runs in a transaction; the backup is pg_dump's", "version", version)
	return nil
}

// tellReplicas sends with the transaction: the others hear it if and when it is
// committed.
func (e *elephant) tellReplicas(ctx context.Context, tx *sql.Tx, machineIDs []string) error {
	const most = 7000 // PostgreSQL takes less than 8000 octets
	var part []string
	size := 0
	send := func() error {
		if len(part) == 0 {
			return nil
		}
		_, err := tx.ExecContext(ctx, "SELECT pg_notify($1, $2)", channel, noteMachines+strings.Join(part, ","))
		part, size = part[:0], 0
		return err
	}
	seen := map[string]bool{}
	for _, id := range machineIDs {
		if seen[id] {
			continue
		}
		seen[id] = true
		if id == everyone {
			part = append(part[:0], everyone)
			return send()
		}
		if size += len(id) + 1; size > most {
			if err := send(); err != nil {
				return err
			}
			size = len(id) + 1
		}
		part = append(part, id)
	}
	return send()
}

// noteEvents is a word to followers on other replicas. It is not part of the
// transaction, and sent at most four times a second, because almost every
// transaction adds events and a notification takes a lock of the whole server.
func (e *elephant) noteEvents() {
	e.dirty.Store(true)
	poke(e.wake)
}

func (e *elephant) listen(s *Store) {
	s.work.Go(func() { e.hear(s) })
	s.work.Go(func() { e.speak(s) })
}

func (e *elephant) speak(s *Store) {
	for {
		select {
		case <-s.life.Done():
			return
		case <-e.wake:
		}
		if e.dirty.Swap(false) {
			if _, err := s.read.ExecContext(s.life, "SELECT pg_notify($1, $2)", channel, noteEvents); err != nil && s.life.Err() == nil {
				s.log.Warn("could not tell the other servers of new events", "error", err)
			}
		}
		if pause(s.life, 250*time.Millisecond) != nil {
			return
		}
	}
}

func (e *elephant) hear(s *Store) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := e.hearOnce(s, func() { wait = 50 * time.Millisecond })
		if s.life.Err() != nil {
			return
		}
		s.log.Warn("the connection that hears other servers was lost", "error", err)
		if pause(s.life, wait) != nil {
			return
		}
	}
}

// hearOnce listens until the connection is lost.
func (e *elephant) hearOnce(s *Store, connected func()) error {
	conn, err := pgx.ConnectConfig(s.life, e.conf)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(s.life, "LISTEN "+channel); err != nil {
		return err
	}
	connected()
	// What was said while nobody listened is lost: everybody looks.
	s.hub.wake([]string{everyone})
	s.hub.noteEvents()
	for {
		n, err := conn.WaitForNotification(s.life)
		if err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(n.Payload, noteMachines):
			s.hub.wake(strings.Split(strings.TrimPrefix(n.Payload, noteMachines), ","))
		case n.Payload == noteEvents:
			s.hub.noteEvents()
		default:
			s.log.Warn("a notification that this server does not know", slog.String("payload", n.Payload))
		}
	}
}

// pause waits by the machine's own time, not by the store's clock: it concerns the
// connection, not anything that is stored.
func pause(ctx context.Context, d time.Duration) error {
	ctx2, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx2.Done()
	return ctx.Err()
}

func classifyPostgres(err error) class {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return other
	}
	switch e.Code {
	case "23505":
		return duplicate
	case "23503", "23001":
		return referenced
	case "40001", "40P01":
		return conflict
	}
	return other
}
