-- What a sign-in conversation reads and spends (S1-S11, W1-W7, M1, M5, E1, E3).

-- name: InsertConversation :exec
INSERT INTO conversations (id, machine_id, user_id, user_name, scope, service, tty, rhost, stage, data, seq, body_hash, reply, outcome, mfa_at, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);

-- name: GetConversation :one
SELECT * FROM conversations WHERE id = $1;

-- name: AdvanceConversation :execrows
-- 0 rows: another replica or a repeat was faster; that is a denial, never a second try.
UPDATE conversations SET stage = $1, data = $2, seq = $3, body_hash = $4, reply = $5, outcome = $6, mfa_at = $7, user_id = $8, expires_at = $9, rev = rev + 1
WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: ClaimConversation :execrows
-- Judging begins with this: whoever gets the row judges, everybody else is told so.
UPDATE conversations SET seq = sqlc.arg(seq), body_hash = sqlc.arg(body_hash), reply = NULL, rev = rev + 1
WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: CountOpenConversations :one
SELECT COUNT(*) FROM conversations WHERE machine_id = sqlc.arg(machine_id) AND created_at > sqlc.arg(since) AND outcome = '';

-- name: DeleteExpiredConversations :execrows
DELETE FROM conversations WHERE expires_at < sqlc.arg(before);

-- name: InsertAuthenticator :exec
INSERT INTO authenticators (id, user_id, kind, name, secret, params, step, drift, confirmed_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: GetAuthenticator :one
SELECT * FROM authenticators WHERE id = $1;

-- name: ListAuthenticators :many
SELECT * FROM authenticators WHERE user_id = $1 ORDER BY id;

-- name: ListUsableAuthenticators :many
-- Confirmed and not on a lost machine's list.
SELECT * FROM authenticators WHERE user_id = $1 AND confirmed_at > 0 AND lost = FALSE ORDER BY id;

-- name: ConfirmAuthenticator :execrows
UPDATE authenticators SET confirmed_at = sqlc.arg(at), step = sqlc.arg(step) WHERE id = sqlc.arg(id) AND confirmed_at = 0 AND step < sqlc.arg(step);

-- name: SpendStep :execrows
-- A code is accepted once: 0 rows = this step or a later one was accepted before (S10).
UPDATE authenticators SET step = sqlc.arg(step), drift = sqlc.arg(drift), last_used_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND step < sqlc.arg(step);

-- name: UseAuthenticator :execrows
-- 0 rows: it was removed or lost meanwhile.
UPDATE authenticators SET last_used_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND lost = FALSE AND confirmed_at > 0;

-- name: MarkAuthenticatorsLost :execrows
UPDATE authenticators SET lost = TRUE WHERE user_id = $1 AND kind = $2;

-- name: RenameAuthenticator :execrows
UPDATE authenticators SET name = $1 WHERE id = sqlc.arg(id);

-- name: DeleteAuthenticator :execrows
DELETE FROM authenticators WHERE id = $1;

-- name: InsertBackupCode :exec
INSERT INTO backup_codes (id, user_id, set_id, hash, created_at) VALUES ($1, $2, $3, $4, $5);

-- name: ListUnusedBackupCodes :many
SELECT * FROM backup_codes WHERE user_id = $1 AND used_at = 0 ORDER BY id;

-- name: GetBackupCode :one
SELECT * FROM backup_codes WHERE id = $1;

-- name: SpendBackupCode :execrows
-- The code itself goes with it: only bundles of codes that can still be used need it.
UPDATE backup_codes SET used_at = sqlc.arg(at), used_machine = sqlc.arg(machine_id), sealed = NULL WHERE id = sqlc.arg(id) AND user_id = sqlc.arg(user_id) AND used_at = 0;

-- name: DeleteBackupCodes :execrows
DELETE FROM backup_codes WHERE user_id = $1;

-- name: InsertBypassCode :exec
INSERT INTO bypass_codes (id, user_id, hash, scope, reason, created_at, expires_at, created_by, approved_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: ListValidBypassCodes :many
SELECT * FROM bypass_codes WHERE user_id = sqlc.arg(user_id) AND used_at = 0 AND expires_at > sqlc.arg(at) ORDER BY id;

-- name: SpendBypassCode :execrows
UPDATE bypass_codes SET used_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND used_at = 0 AND expires_at > sqlc.arg(at);

-- name: InsertEnrolCode :exec
INSERT INTO enrol_codes (id, user_id, hash, created_at, expires_at, created_by) VALUES ($1, $2, $3, $4, $5, $6);

-- name: ListValidEnrolCodes :many
SELECT * FROM enrol_codes WHERE user_id = sqlc.arg(user_id) AND used_at = 0 AND expires_at > sqlc.arg(at) ORDER BY id;

-- name: SpendEnrolCode :execrows
UPDATE enrol_codes SET used_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND used_at = 0 AND expires_at > sqlc.arg(at);

-- name: InsertWindow :exec
INSERT INTO windows (id, user_id, machine_id, boot, opened_at, expires_at, scopes, factors) VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: GetWindow :one
SELECT * FROM windows WHERE id = $1;

-- name: ListValidWindows :many
-- The pair's windows that stand at "at", the youngest first.
SELECT * FROM windows
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND ended_at = 0 AND expires_at > sqlc.arg(at) AND opened_at <= sqlc.arg(at)
ORDER BY opened_at DESC, id DESC;

-- name: ListWindows :many
-- Open windows; user and machine empty = any.
SELECT sqlc.embed(w), u.name AS user_name, m.name AS machine_name
FROM windows w JOIN users u ON u.id = w.user_id JOIN machines m ON m.id = w.machine_id
WHERE w.id > sqlc.arg(after) AND w.ended_at = 0 AND w.expires_at > sqlc.arg(at)
  AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR w.user_id = CAST(sqlc.arg(user_id) AS TEXT))
  AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR w.machine_id = CAST(sqlc.arg(machine_id) AS TEXT))
ORDER BY w.id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: EndWindow :execrows
UPDATE windows SET ended_at = sqlc.arg(at), end_reason = sqlc.arg(reason) WHERE id = sqlc.arg(id) AND ended_at = 0;

-- name: EndWindows :many
-- Ends the open windows of a user, a machine or both (empty = any of them) and names the machines touched.
UPDATE windows SET ended_at = sqlc.arg(at), end_reason = sqlc.arg(reason)
WHERE ended_at = 0 AND expires_at > sqlc.arg(at)
  AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR user_id = CAST(sqlc.arg(user_id) AS TEXT))
  AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR machine_id = CAST(sqlc.arg(machine_id) AS TEXT))
RETURNING id, user_id, machine_id;

-- name: GetAttempt :one
SELECT * FROM attempts WHERE user_id = $1 AND machine_id = $2;

-- name: CountAttempt :one
-- Counts one failure before it is judged. A first one since "forget_before" begins anew; locks stay as they are.
INSERT INTO attempts (user_id, machine_id, failures, first_at, last_at) VALUES (sqlc.arg(user_id), sqlc.arg(machine_id), 1, sqlc.arg(at), sqlc.arg(at))
ON CONFLICT (user_id, machine_id) DO UPDATE SET
    failures = CASE WHEN attempts.last_at < sqlc.arg(forget_before) THEN 1 ELSE attempts.failures + 1 END,
    first_at = CASE WHEN attempts.last_at < sqlc.arg(forget_before) THEN excluded.first_at ELSE attempts.first_at END,
    last_at = excluded.last_at
RETURNING *;

-- name: BlockAttempts :execrows
-- A block and a lock are only ever prolonged here.
UPDATE attempts SET
    blocked_until = CASE WHEN blocked_until > sqlc.arg(blocked_until) THEN blocked_until ELSE sqlc.arg(blocked_until) END,
    locked_until = CASE WHEN locked_until > sqlc.arg(locked_until) THEN locked_until ELSE sqlc.arg(locked_until) END
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id);

-- name: ForgiveAttempts :execrows
-- After a success: the counts of this pair and of the user across machines are gone.
DELETE FROM attempts WHERE user_id = sqlc.arg(user_id) AND (machine_id = sqlc.arg(machine_id) OR machine_id = '');

-- name: ClearAttemptsOfUser :execrows
DELETE FROM attempts WHERE user_id = $1;

-- name: DeleteOldAttempts :execrows
DELETE FROM attempts WHERE last_at < sqlc.arg(before) AND locked_until < sqlc.arg(at) AND blocked_until < sqlc.arg(at);
