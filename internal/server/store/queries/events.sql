-- The hash-chained event log (V1, V4). Rows are only ever added; Tx.Event in Go
-- is the one writer. Lists with filters are built in events.go.

-- name: InsertEvent :exec
INSERT INTO events (chain, seq, id, type, actor, subject, user_id, machine_id, machine, address, scope, service, link, outcome, reason, factor, at, received_at, data, prev_hash, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21);

-- name: GetEvent :one
SELECT * FROM events WHERE id = $1;

-- name: ListChainEvents :many
SELECT * FROM events WHERE chain = sqlc.arg(chain) AND seq > sqlc.arg(after) ORDER BY seq LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: StartChain :execrows
INSERT INTO chains (chain, seq, hash) VALUES ($1, 0, $2) ON CONFLICT (chain) DO NOTHING;

-- name: LockChain :one
-- Reads the head and keeps it until the transaction ends, on both engines.
UPDATE chains SET seq = seq WHERE chain = $1 RETURNING seq, hash;

-- name: MoveChain :execrows
UPDATE chains SET seq = sqlc.arg(seq), hash = sqlc.arg(hash) WHERE chain = sqlc.arg(chain) AND seq = sqlc.arg(old_seq);

-- name: ListChains :many
SELECT * FROM chains ORDER BY chain;

-- name: ListEventChains :many
SELECT DISTINCT chain FROM events ORDER BY chain;
