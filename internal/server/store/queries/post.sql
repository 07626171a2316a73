-- What goes out to people (internal/server/post).

-- name: InsertOutbox :exec
INSERT INTO outbox (id, channel, purpose, urgent, user_id, subject, mask, body, due_at, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: GetOutbox :one
SELECT * FROM outbox WHERE id = $1;

-- name: CountOutboxWaiting :one
-- How many wait, but no more than "most" are looked at.
SELECT COUNT(*) FROM (SELECT id FROM outbox WHERE channel = sqlc.arg(channel) AND state = 'waiting' LIMIT CAST(sqlc.arg(most) AS BIGINT)) AS w;

-- name: ListOutboxDue :many
-- What can be taken now, the urgent first; only_urgent leaves the rest out.
SELECT id FROM outbox
WHERE channel = sqlc.arg(channel) AND state = 'waiting' AND due_at <= CAST(sqlc.arg(at) AS BIGINT) AND leased_until <= CAST(sqlc.arg(at) AS BIGINT)
  AND (urgent = TRUE OR CAST(sqlc.arg(only_urgent) AS BOOLEAN) = FALSE)
ORDER BY urgent DESC, due_at, id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: LeaseOutbox :execrows
-- 0 rows: another server has it, or it is gone.
UPDATE outbox SET lease = sqlc.arg(lease), leased_until = sqlc.arg(until), tries = tries + 1
WHERE id = sqlc.arg(id) AND state = 'waiting' AND leased_until <= CAST(sqlc.arg(at) AS BIGINT);

-- name: FinishOutbox :execrows
UPDATE outbox SET state = 'sent', body = NULL, reason = '', detail = '', done_at = sqlc.arg(at), lease = '', leased_until = 0
WHERE id = sqlc.arg(id) AND lease = sqlc.arg(lease) AND state = 'waiting';

-- name: DeferOutbox :execrows
UPDATE outbox SET due_at = sqlc.arg(due_at), reason = sqlc.arg(reason), detail = sqlc.arg(detail), lease = '', leased_until = 0
WHERE id = sqlc.arg(id) AND lease = sqlc.arg(lease) AND state = 'waiting';

-- name: FailOutbox :execrows
UPDATE outbox SET state = 'failed', reason = sqlc.arg(reason), detail = sqlc.arg(detail), done_at = sqlc.arg(at), lease = '', leased_until = 0
WHERE id = sqlc.arg(id) AND lease = sqlc.arg(lease) AND state = 'waiting';

-- name: ForgetOutboxBody :execrows
-- What is of no use any more is not kept.
UPDATE outbox SET body = NULL WHERE id = sqlc.arg(id) AND state = 'failed';

-- name: RetryOutbox :execrows
-- An administrator sends it again at once; 0 rows: it is being sent, was sent, or there is nothing left to send.
UPDATE outbox SET state = 'waiting', tries = 0, due_at = sqlc.arg(at), expires_at = sqlc.arg(expires_at), done_at = 0
WHERE id = sqlc.arg(id) AND state IN ('waiting', 'failed') AND body IS NOT NULL AND leased_until <= CAST(sqlc.arg(at) AS BIGINT);

-- name: DeleteOutbox :execrows
DELETE FROM outbox WHERE id = $1;

-- name: ListOutbox :many
-- A page, the youngest first, before an id ('' = from the youngest on); channel and state empty = any.
SELECT * FROM outbox
WHERE (CAST(sqlc.arg(before) AS TEXT) = '' OR id < CAST(sqlc.arg(before) AS TEXT))
  AND (CAST(sqlc.arg(channel) AS TEXT) = '' OR channel = CAST(sqlc.arg(channel) AS TEXT))
  AND (CAST(sqlc.arg(state) AS TEXT) = '' OR state = CAST(sqlc.arg(state) AS TEXT))
ORDER BY id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountOutbox :many
SELECT state, COUNT(*) AS n FROM outbox WHERE channel = $1 GROUP BY state ORDER BY state;

-- name: PurgeOutbox :execrows
DELETE FROM outbox WHERE state = 'sent' AND done_at < CAST(sqlc.arg(sent_before) AS BIGINT)
   OR state = 'failed' AND done_at < CAST(sqlc.arg(failed_before) AS BIGINT);

-- name: InsertPostCode :exec
INSERT INTO post_codes (id, user_id, kind, ticket, authenticator_id, hash, place, door, machine_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: NewestPostCode :one
-- The one that counts for a ticket.
SELECT * FROM post_codes WHERE ticket = sqlc.arg(ticket) AND user_id = sqlc.arg(user_id) AND kind = sqlc.arg(kind)
ORDER BY created_at DESC, id DESC LIMIT 1;

-- name: CountPostCodeTry :execrows
UPDATE post_codes SET tries = tries + 1 WHERE id = $1;

-- name: SpendPostCode :execrows
-- 0 rows: it was accepted before.
UPDATE post_codes SET used_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND used_at = 0;

-- name: CountPostCodesOfTicket :one
SELECT COUNT(*) FROM post_codes WHERE ticket = sqlc.arg(ticket) AND kind = sqlc.arg(kind);

-- name: CountPostCodesOfUser :one
-- For sign-ins, at all machines and doors.
SELECT COUNT(*) FROM post_codes WHERE user_id = sqlc.arg(user_id) AND created_at > CAST(sqlc.arg(since) AS BIGINT) AND door <> 'confirm';

-- name: CountPostCodesAt :one
-- At one machine or door.
SELECT COUNT(*) FROM post_codes
WHERE user_id = sqlc.arg(user_id) AND created_at > CAST(sqlc.arg(since) AS BIGINT) AND door = sqlc.arg(door) AND machine_id = sqlc.arg(machine_id);

-- name: CountPostCodesUsedAt :one
-- Those that were typed there.
SELECT COUNT(*) FROM post_codes
WHERE user_id = sqlc.arg(user_id) AND created_at > CAST(sqlc.arg(since) AS BIGINT) AND door = sqlc.arg(door) AND machine_id = sqlc.arg(machine_id) AND used_at > 0;

-- name: CountPostCodesOfMachine :one
-- Those of everybody at one machine that came to nothing.
SELECT COUNT(*) FROM post_codes WHERE machine_id = sqlc.arg(machine_id) AND created_at > CAST(sqlc.arg(since) AS BIGINT) AND used_at = 0;

-- name: CountPostCodesOfPlace :one
-- For sign-ins of the user to an address: what others do with it is not counted here.
SELECT COUNT(*) FROM post_codes
WHERE place = sqlc.arg(place) AND created_at > CAST(sqlc.arg(since) AS BIGINT) AND user_id = sqlc.arg(user_id) AND door <> 'confirm';

-- name: CountPostConfirmations :one
-- Codes for the user that show whose an address is.
SELECT COUNT(*) FROM post_codes
WHERE created_at > CAST(sqlc.arg(since) AS BIGINT) AND door = 'confirm' AND user_id = sqlc.arg(user_id);

-- name: CountPostConfirmationsOfPlace :one
-- The same to an address, whoever has asked.
SELECT COUNT(*) FROM post_codes WHERE place = sqlc.arg(place) AND created_at > CAST(sqlc.arg(since) AS BIGINT) AND door = 'confirm';

-- name: CountPostCodesOfKind :one
SELECT COUNT(*) FROM post_codes WHERE kind = sqlc.arg(kind) AND created_at > CAST(sqlc.arg(since) AS BIGINT);

-- name: DeleteOldPostCodes :execrows
DELETE FROM post_codes WHERE created_at < CAST(sqlc.arg(before) AS BIGINT);
