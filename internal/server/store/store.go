// Package store is the server's database: its tables, one set of queries for
// SQLite and PostgreSQL, the migrations, the hash-chained event log, the dump for
// backups, and the word between replicas that something has changed.
//
// It promises:
//
//   - A change is a closure given to Update. Closures that wait at the same time
//     share one database transaction and one fsync, each behind its own savepoint;
//     nobody is answered before that commit is on the disk (group commit).
//   - An event is written in the transaction of what it speaks of, with its place in
//     the chain of this replica (rows V1, V4).
//   - The store never sees a key: what is secret comes sealed and goes sealed.
//   - A schema newer than the program is refused; an older one is migrated forward
//     after a backup (K3).
//
// To add a query write it into queries/, run ./gen, and call it in the test that
// runs every query on both engines. The conventions of the tables stand at the head
// of the first migration. Queries use neither casts with two colons nor row values,
// arrays or sqlc.slice, because SQLite or the generator gets them wrong.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store/db"
)

// Config says which database to open. Database and Clock are required.
type Config struct {
	// Database is "sqlite:PATH", or a PostgreSQL URL ("postgres://…").
	Database string
	// Replica names this server's event chain; two servers that share a database
	// must have different names. Empty means "main".
	Replica string
	// Backups is the folder for the copy that a migration of SQLite makes first;
	// empty means "backup" beside the database file.
	Backups string
	// NoMigration refuses a database whose schema is older instead of migrating it:
	// for commands that run beside a server.
	NoMigration bool
	// Claim makes the store the only one of its replica's name that runs on the
	// database: for servers. Another one that claims it is refused.
	Claim bool
	// Rewound does what must be done when the database has lost changes that it had
	// committed: a standby took over that did not have them yet. It runs in the
	// transaction that writes chain.rewound, before any other change. May be nil.
	Rewound func(ctx context.Context, tx *Tx) error
	Clock   clock.Clock
	// Logger may be nil.
	Logger *slog.Logger
}

func (c Config) complete() (Config, error) {
	if c.Clock == nil {
		return c, errors.New("store: no clock given")
	}
	if c.Replica == "" {
		c.Replica = "main"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Queries are the generated queries. They are given to the closures of Read and Update.
type Queries = db.Queries

// Errors of this package. A missing row is sql.ErrNoRows, as the generated code returns it.
var (
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the database is closed")
	// ErrNewer: the database was written by a newer program.
	ErrNewer = errors.New("the database has a newer schema than this program knows: update latchkeyd")
	// ErrOlder: the schema is older, and Config.NoMigration is set.
	ErrOlder = errors.New("the database has an older schema than this program: start latchkeyd serve of this version first, it migrates")
	// ErrNameTaken: another server with this replica name runs on the database.
	ErrNameTaken = errors.New("another server with this replica name runs on this database: give each server a name of its own (--replica)")
	// ErrNested: Update was called inside the closure of an Update.
	ErrNested = errors.New("a transaction was begun inside a transaction")
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	conf   Config
	log    *slog.Logger
	engine engine
	write  *sql.DB
	read   *sql.DB
	hub    hub
	pulse  pulse
	wrote  writing // whether the last change could be
	// onEvent is told of every event in its transaction; nil for nobody.
	onEvent atomic.Pointer[func(context.Context, *Tx, event.Event) error]
	// The writer's: this replica's chain as it was last committed, and as it was
	// found when it had gone back; rewinding while that is written down.
	last, found head
	rewinding   bool
	// What is prepared on the two pools; nil on PostgreSQL.
	onWrite, onRead *prepared

	mu     sync.RWMutex // closed, and sending on jobs
	closed bool
	jobs   chan *job

	life context.Context // ends when the store is closed and the writer is done
	stop context.CancelFunc
	work sync.WaitGroup
}

// Open opens the database, migrates it, and starts the writer. The context bounds
// opening only.
func Open(ctx context.Context, conf Config) (*Store, error) {
	conf, err := conf.complete()
	if err != nil {
		return nil, err
	}
	s, err := connect(ctx, conf)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Store, error) {
		return nil, errors.Join(fmt.Errorf("database %s: %w", s.engine.describe(), opening(err)), s.disconnect())
	}
	if err := s.migrate(ctx, shipped(), latest); err != nil {
		return fail(err)
	}
	if err := s.startChain(ctx); err != nil {
		return fail(fmt.Errorf("start the event chain %q: %w", conf.Replica, err))
	}
	if conf.Claim {
		if err := s.engine.claim(ctx, s); err != nil {
			return fail(fmt.Errorf("replica %q: %w", conf.Replica, err))
		}
	}
	s.life, s.stop = context.WithCancel(context.Background())
	s.pulse.start(s.life)
	s.work.Go(s.writeLoop)
	s.engine.listen(s)
	return s, nil
}

// connect opens the database without touching what is in it.
func connect(ctx context.Context, conf Config) (*Store, error) {
	e, err := engineOf(conf)
	if err != nil {
		return nil, err
	}
	s := &Store{conf: conf, log: conf.Logger, engine: e, jobs: make(chan *job, queueLength)}
	if s.write, s.read, err = e.open(ctx); err != nil {
		return nil, fmt.Errorf("open the database %s: %w", e.describe(), opening(err))
	}
	if e.wantsPrepared() {
		s.onWrite, s.onRead = newPrepared(s.write), newPrepared(s.read)
	}
	return s, nil
}

func (s *Store) disconnect() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Close waits for the changes that are under way, refuses later ones, and closes
// the database.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.jobs)
	s.mu.Unlock()
	<-s.life.Done()
	s.work.Wait()
	s.hub.close()
	return s.disconnect()
}

// Engine is "sqlite" or "postgresql".
func (s *Store) Engine() string { return s.engine.name() }

// Replica is the name of this server's event chain.
func (s *Store) Replica() string { return s.conf.Replica }

// Ping asks the database for a sign of life, for health checks.
func (s *Store) Ping(ctx context.Context) error {
	ctx, done, err := s.bound(ctx)
	if err != nil {
		return err
	}
	defer done()
	if s.stuck() {
		return errStuck
	}
	var one int
	if err := s.read.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return explain(ctx, fmt.Errorf("the database %s does not answer: %w", s.engine.describe(), err))
	}
	return nil
}

// Read runs fn over one consistent snapshot. fn must not change anything; it is
// run once.
func (s *Store) Read(ctx context.Context, fn func(q *Queries) error) error {
	inner, done, err := s.bound(ctx)
	if err != nil {
		return err
	}
	defer done()
	tx, err := s.read.BeginTx(inner, &sql.TxOptions{ReadOnly: true, Isolation: s.engine.snapshot()})
	if classify(err) == lost {
		// A connection that was ended meanwhile is none of the caller's business, and
		// the others of that time are most likely gone too.
		s.engine.forget(s)
		tx, err = s.read.BeginTx(inner, &sql.TxOptions{ReadOnly: true, Isolation: s.engine.snapshot()})
	}
	if err != nil {
		return explain(inner, fmt.Errorf("read the database: %w", err))
	}
	defer s.onRead.prepare(ctx)
	defer tx.Rollback() //nolint:errcheck // a read has nothing to lose
	return explain(inner, fn(db.New(session{tx, s.onRead})))
}

// NewID makes an id: UUIDv7, in order of time.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// IsNotFound tells whether err means that a row does not exist.
func IsNotFound(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// IsDuplicate tells whether err is a UNIQUE or PRIMARY KEY that stands already.
func IsDuplicate(err error) bool { return classify(err) == duplicate }

// IsReferenced tells whether err is a foreign key: a row that is named does not
// exist, or one to be deleted is still named.
func IsReferenced(err error) bool { return classify(err) == referenced }
