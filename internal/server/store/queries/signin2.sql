-- What judging adds to signin.sql: a count taken back, overdue conversations.

-- name: UncountAttempt :execrows
-- The attempt that was counted before judging was right: it is taken back, with the block and lock that it would have
-- meant. Those of others stay.
UPDATE attempts SET
    failures = CASE WHEN failures > 0 THEN failures - 1 ELSE 0 END,
    blocked_until = CASE WHEN blocked_until = sqlc.arg(set_blocked) THEN CAST(sqlc.arg(was_blocked) AS BIGINT) ELSE blocked_until END,
    locked_until = CASE WHEN locked_until = sqlc.arg(set_locked) THEN CAST(sqlc.arg(was_locked) AS BIGINT) ELSE locked_until END
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id);

-- name: ListOverdueConversations :many
-- Those that ended without an answer (S11), the oldest first.
SELECT * FROM conversations WHERE outcome = '' AND expires_at < sqlc.arg(before) ORDER BY expires_at LIMIT CAST(sqlc.arg(n) AS BIGINT);
