package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
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

// The times of a connection.
const (
	// connectTime bounds connecting to one host, unless the address says
	// connect_timeout: a host that is gone must not keep us from the next one.
	connectTime = 3 * time.Second
	// beatEvery and beatTime: the connection that listens is the pulse. Of a database
	// that does not answer it within beatTime everybody is told, instead of waiting.
	beatEvery = 2 * time.Second
	beatTime  = 3 * time.Second
	// claimTime is how long a starting server waits for its name. It is longer than
	// PostgreSQL needs to notice that the host of the former holder is gone.
	claimTime = 25 * time.Second
)

// settings are made on every connection, and not asked for when connecting, which a
// pooler would refuse. A server whose host lost its power, or that was frozen in the
// middle of a transaction, must keep neither rows nor its name from the others.
var settings = []string{
	"SET idle_in_transaction_session_timeout = '10s'",
	"SET tcp_keepalives_idle = 5", "SET tcp_keepalives_interval = 5", "SET tcp_keepalives_count = 2",
}

// nameSpace is the first half of the advisory lock on a replica's name: "latk".
const nameSpace = 0x6c61746b

// elephant is PostgreSQL: one connection writes, a pool reads, one listens.
type elephant struct {
	conf  *pgx.ConnConfig
	dirty atomic.Bool // events were added since the last word to the others
	wake  chan struct{}
	// The connection that listens; only hear uses it, and claim before it.
	ear   *pgx.Conn
	named bool // the ear holds the lock on the replica's name
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
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = connectTime
	}
	// A peer that is gone without a word is noticed within half a minute.
	dialer := net.Dialer{Timeout: conf.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}}
	conf.DialFunc = dialer.DialContext
	if conf.ValidateConnect == nil {
		// Whatever the address says: a standby is of no use, and of several hosts the
		// one that takes changes is meant.
		conf.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return &elephant{conf: conf, wake: make(chan struct{}, 1)}, nil
}

func (e *elephant) name() string { return "postgresql" }

func (e *elephant) describe() string {
	hosts := []string{e.conf.Host}
	for _, f := range e.conf.Fallbacks {
		if !slices.Contains(hosts, f.Host) {
			hosts = append(hosts, f.Host)
		}
	}
	return fmt.Sprintf("postgresql %s on %s", e.conf.Database, strings.Join(hosts, ", "))
}

func (e *elephant) open(ctx context.Context) (write, read *sql.DB, err error) {
	after := stdlib.OptionAfterConnect(prepareSession)
	write = stdlib.OpenDB(*e.conf, after)
	// The writer has one connection; the second serves a migration's lock.
	write.SetMaxOpenConns(2)
	if err := write.PingContext(ctx); err != nil {
		_ = write.Close()
		return nil, nil, err
	}
	read = stdlib.OpenDB(*e.conf, after)
	read.SetMaxOpenConns(mostReaders)
	read.SetMaxIdleConns(mostReaders)
	return write, read, nil
}

const mostReaders = 16

// patience: a batch has at most 256 short changes.
func (e *elephant) patience() time.Duration { return 10 * time.Second }

// forget closes the connections that nobody uses now; the others end by themselves.
func (e *elephant) forget(s *Store) {
	s.read.SetMaxIdleConns(-1)
	s.write.SetMaxIdleConns(-1)
	s.read.SetMaxIdleConns(mostReaders)
	s.write.SetMaxIdleConns(2)
}

// prepareSession makes the settings. Wire-compatible engines that do not know one
// of them go without.
func prepareSession(ctx context.Context, c *pgx.Conn) error {
	for _, set := range settings {
		_, err := c.PgConn().Exec(ctx, set).ReadAll() // each by itself: one that is refused takes none with it
		var refused *pgconn.PgError
		if errors.As(err, &refused) && !strings.HasPrefix(refused.Code, "57") {
			slog.Warn("the database refuses a setting of our connections", "setting", set, "error", err)
		} else if err != nil {
			return err
		}
	}
	return nil
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
				// Followers there look by themselves, a little later.
				s.log.Debug("could not tell the other servers of new events", "error", err)
			}
		}
		if pause(s.life, 250*time.Millisecond) != nil {
			return
		}
	}
}

// claim takes the replica's name, and waits for it a little: a server that was
// killed on another host holds it until PostgreSQL notices.
func (e *elephant) claim(ctx context.Context, s *Store) error {
	if err := e.openEar(ctx, s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	for told := false; !e.named; told = true {
		if !told {
			s.log.Warn("another server uses this replica's name; waiting for it to be gone", "replica", s.conf.Replica)
		}
		err := pause(ctx, 500*time.Millisecond)
		if err == nil {
			err = e.takeName(ctx, s)
		}
		if err != nil {
			e.closeEar()
			if ctx.Err() != nil {
				return ErrNameTaken
			}
			return err
		}
	}
	return nil
}

// takeName tries to take the lock on the replica's name. It goes with the connection.
func (e *elephant) takeName(ctx context.Context, s *Store) error {
	return e.ear.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, hashtext($2))", nameSpace, s.conf.Replica).Scan(&e.named)
}

func (e *elephant) openEar(ctx context.Context, s *Store) (err error) {
	// Every host has its time; together they are bounded too.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(2+len(e.conf.Fallbacks))*e.conf.ConnectTimeout)
	defer cancel()
	if e.ear, err = pgx.ConnectConfig(ctx, e.conf); err != nil {
		e.ear = nil
		return err
	}
	if err = prepareSession(ctx, e.ear); err == nil && s.conf.Claim {
		err = e.takeName(ctx, s)
	}
	if err == nil {
		_, err = e.ear.Exec(ctx, "LISTEN "+channel)
	}
	if err != nil {
		e.closeEar()
	}
	return err
}

func (e *elephant) closeEar() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = e.ear.Close(ctx)
	e.ear, e.named = nil, false
}

// hear listens until the store is closed, and says when the database is silent.
func (e *elephant) hear(s *Store) {
	first, failed := e.ear == nil, 0
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := error(nil)
		if e.ear == nil {
			err = e.openEar(s.life, s)
		}
		if err == nil && s.conf.Claim && !e.named {
			// The name went with the connection, and another has taken it: two must not
			// write one chain. Nothing is changed until it is ours again.
			e.closeEar()
			err = ErrNameTaken
			if failed == 0 {
				s.log.Error("another server uses this replica's name", "replica", s.conf.Replica)
			}
		}
		if err == nil {
			failed = 0
			s.answers()
			// What was said while nobody listened is lost: everybody looks.
			s.hub.wake([]string{everyone})
			s.hub.noteEvents()
			if !first {
				s.lookBack()
			}
			first = false
			wait = 50 * time.Millisecond
			err = e.listenUntilLost(s)
			e.closeEar()
			if s.life.Err() == nil {
				s.log.Warn("the connection that hears other servers was lost", "error", err)
			}
		} else if failed++; failed > 1 && s.life.Err() == nil {
			s.silent(err) // once may be chance
		}
		if s.life.Err() != nil {
			return
		}
		if pause(s.life, wait) != nil {
			return
		}
	}
}

// listenUntilLost hands on what is heard, and feels the pulse.
func (e *elephant) listenUntilLost(s *Store) error {
	for {
		quiet, cancel := context.WithTimeout(s.life, beatEvery)
		n, err := e.ear.WaitForNotification(quiet)
		over := quiet.Err() != nil
		cancel()
		switch {
		case s.life.Err() != nil:
			return s.life.Err()
		case err != nil && over && !e.ear.IsClosed():
			if err := e.beat(s); err != nil {
				return err
			}
			continue
		case err != nil:
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

// beat asks for a sign of life.
func (e *elephant) beat(s *Store) error {
	ctx, cancel := context.WithTimeout(s.life, beatTime)
	defer cancel()
	err := e.ear.Ping(ctx)
	if err != nil && ctx.Err() != nil && s.life.Err() == nil {
		s.silent(err)
	}
	return err
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
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return other // they look like errors of the network
		}
		var network net.Error
		var connect *pgconn.ConnectError
		switch {
		case errors.As(err, &connect), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
			errors.Is(err, net.ErrClosed), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), pgconn.SafeToRetry(err):
			return lost
		}
		return other
	}
	switch e.Code {
	case "25006", "25P03", "57P01", "57P02", "57P03", "57P05":
		return lost
	case "23505":
		return duplicate
	case "23503", "23001":
		return referenced
	case "40001", "40P01":
		return conflict
	}
	if strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "53") {
		return lost // of the connection; and no room: for another one, for a row
	}
	return other
}
