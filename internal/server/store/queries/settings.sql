-- Values of the server itself, sealed by their owners, and remembered replies.

-- name: GetSetting :one
SELECT value FROM settings WHERE key = $1;

-- name: PutSetting :exec
INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at;

-- name: InitSetting :execrows
-- Only if there is none: the first replica wins, the others read what it wrote.
INSERT INTO settings (key, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING;

-- name: DeleteSetting :execrows
DELETE FROM settings WHERE key = $1;

-- name: ListSettingKeys :many
SELECT key FROM settings ORDER BY key;

-- name: GetIdempotency :one
SELECT * FROM idempotency WHERE key = $1;

-- name: InsertIdempotency :execrows
INSERT INTO idempotency (key, actor, body_hash, status, reply, at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key) DO NOTHING;

-- name: DeleteOldIdempotency :execrows
DELETE FROM idempotency WHERE at < sqlc.arg(before);
