package store

import (
	"context"
	"database/sql"
	"sync"
)

// prepared keeps the statements of one pool prepared, because parsing them takes
// half of the time of a short transaction on SQLite. pgx does the same by itself;
// a nil prepared does nothing.
type prepared struct {
	pool   *sql.DB
	mu     sync.RWMutex
	stmts  map[string]*sql.Stmt
	wanted map[string]bool
}

// mostPrepared bounds the number; the queries are constants and far fewer.
const mostPrepared = 1000

func newPrepared(pool *sql.DB) *prepared {
	return &prepared{pool: pool, stmts: map[string]*sql.Stmt{}, wanted: map[string]bool{}}
}

// on is the statement for the query within tx, or nil if it is not prepared yet.
func (p *prepared) on(ctx context.Context, tx *sql.Tx, query string) *sql.Stmt {
	if p == nil {
		return nil
	}
	p.mu.RLock()
	s, ok := p.stmts[query]
	p.mu.RUnlock()
	if !ok {
		p.mu.Lock()
		if len(p.stmts)+len(p.wanted) < mostPrepared {
			p.wanted[query] = true
		}
		p.mu.Unlock()
		return nil
	}
	return tx.StmtContext(ctx, s)
}

// prepare prepares what was asked for, when no transaction holds the connection.
func (p *prepared) prepare(ctx context.Context) {
	if p == nil {
		return
	}
	p.mu.RLock()
	none := len(p.wanted) == 0
	p.mu.RUnlock()
	if none {
		return
	}
	p.mu.Lock()
	wanted := p.wanted
	p.wanted = map[string]bool{}
	p.mu.Unlock()
	for query := range wanted {
		s, err := p.pool.PrepareContext(ctx, query)
		if err != nil {
			continue // whoever runs it next hears why
		}
		p.mu.Lock()
		if p.stmts[query] == nil {
			p.stmts[query] = s
			s = nil
		}
		p.mu.Unlock()
		if s != nil {
			_ = s.Close()
		}
	}
}

// session runs the generated queries in a transaction.
type session struct {
	tx *sql.Tx
	p  *prepared
}

// bound is the context of one statement. On SQLite it can not be cancelled: the
// driver would start a goroutine for each statement to be able to, which costs a
// quarter of the processor time of a short transaction. The statements are short
// themselves; one whose context has ended is not run, and the transaction still ends
// with its own context, so that the next statement fails.
func (c session) bound(ctx context.Context) context.Context {
	if c.p == nil || ctx.Err() != nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

func (c session) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	ctx = c.bound(ctx)
	if s := c.p.on(ctx, c.tx, q); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return c.tx.ExecContext(ctx, q, args...)
}

func (c session) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	ctx = c.bound(ctx)
	if s := c.p.on(ctx, c.tx, q); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return c.tx.QueryContext(ctx, q, args...)
}

func (c session) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	ctx = c.bound(ctx)
	if s := c.p.on(ctx, c.tx, q); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return c.tx.QueryRowContext(ctx, q, args...)
}

func (c session) PrepareContext(ctx context.Context, q string) (*sql.Stmt, error) {
	return c.tx.PrepareContext(ctx, q)
}
