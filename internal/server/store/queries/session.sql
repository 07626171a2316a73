-- Sessions, sign-ins under way, API tokens and approvals (E3).

-- name: InsertSession :exec
INSERT INTO sessions (id, secret_hash, user_id, kind, factor, enrol_code, password_at, began_at, seen_at, fresh_at, ends_at, address, agent)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: GetSessionBySecret :one
-- With whose it is: what may be done with it is judged anew at every request.
SELECT sqlc.embed(s), sqlc.embed(u) FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.secret_hash = $1;

-- name: GetSession :one
SELECT sqlc.embed(s), sqlc.embed(u) FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1;

-- name: ListSessionsOfUser :many
SELECT * FROM sessions WHERE user_id = sqlc.arg(user_id) AND ends_at > sqlc.arg(at) AND seen_at > sqlc.arg(seen_after)
ORDER BY seen_at DESC, id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: ListSessions :many
-- Of everybody, the youngest first; before empty = from the start.
SELECT sqlc.embed(s), sqlc.embed(u) FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.ends_at > sqlc.arg(at) AND s.seen_at > sqlc.arg(seen_after) AND (CAST(sqlc.arg(before) AS TEXT) = '' OR s.id < CAST(sqlc.arg(before) AS TEXT))
ORDER BY s.id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: SeeSession :execrows
UPDATE sessions SET seen_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND seen_at < sqlc.arg(at);

-- name: RotateSession :execrows
-- A step-up: the old secret is worth nothing from now on. 0 rows: it was ended or rotated meanwhile.
UPDATE sessions SET secret_hash = sqlc.arg(new_hash), fresh_at = sqlc.arg(at), seen_at = sqlc.arg(at), factor = sqlc.arg(factor), enrol_code = sqlc.arg(enrol_code), ends_at = sqlc.arg(ends_at), proof = NULL
WHERE id = sqlc.arg(id) AND secret_hash = sqlc.arg(old_hash);

-- name: KeepSession :execrows
-- The password was changed by this session itself.
UPDATE sessions SET password_at = sqlc.arg(password_at) WHERE id = sqlc.arg(id) AND user_id = sqlc.arg(user_id);

-- name: DeleteSession :execrows
DELETE FROM sessions WHERE id = $1;

-- name: DeleteSessionsOfUser :execrows
-- But for one; empty = all.
DELETE FROM sessions WHERE user_id = sqlc.arg(user_id) AND id <> CAST(sqlc.arg(but) AS TEXT);

-- name: DeleteDeadSessions :execrows
DELETE FROM sessions WHERE ends_at < sqlc.arg(at) OR seen_at < sqlc.arg(seen_before);

-- name: InsertSignin :exec
INSERT INTO signins (id, secret_hash, user_id, stage, data, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: GetSigninBySecret :one
SELECT * FROM signins WHERE secret_hash = $1;

-- name: AdvanceSignin :execrows
-- 0 rows: somebody else was faster with the same sign-in.
UPDATE signins SET stage = sqlc.arg(stage), data = sqlc.arg(data), wrong = sqlc.arg(wrong), rev = rev + 1 WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: DeleteSignin :execrows
-- 0 rows: it was ended already; whoever ended it has what came of it.
DELETE FROM signins WHERE id = $1;

-- name: DeleteSigninsOfUser :execrows
DELETE FROM signins WHERE user_id = sqlc.arg(user_id);

-- name: CountSigninsOfUser :one
SELECT COUNT(*) FROM signins WHERE user_id = sqlc.arg(user_id) AND expires_at > sqlc.arg(at);

-- name: DeleteDeadSignins :execrows
DELETE FROM signins WHERE expires_at < sqlc.arg(at);

-- name: InsertAPIToken :exec
INSERT INTO api_tokens (id, secret_hash, user_id, name, scopes, role, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: GetAPITokenBySecret :one
SELECT sqlc.embed(t), sqlc.embed(u) FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.secret_hash = $1;

-- name: GetAPIToken :one
SELECT sqlc.embed(t), sqlc.embed(u) FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.id = $1;

-- name: ListAPITokens :many
-- user empty = everybody's.
SELECT sqlc.embed(t), sqlc.embed(u) FROM api_tokens t JOIN users u ON u.id = t.user_id
WHERE t.id > sqlc.arg(after) AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR t.user_id = CAST(sqlc.arg(user_id) AS TEXT))
ORDER BY t.id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountAPITokensOfUser :one
SELECT COUNT(*) FROM api_tokens WHERE user_id = $1;

-- name: UseAPIToken :execrows
UPDATE api_tokens SET last_used_at = sqlc.arg(at), last_address = sqlc.arg(address) WHERE id = sqlc.arg(id) AND last_used_at < sqlc.arg(at);

-- name: DeleteAPIToken :execrows
DELETE FROM api_tokens WHERE id = $1;

-- name: DeleteDeadAPITokens :execrows
DELETE FROM api_tokens WHERE expires_at < sqlc.arg(before);

-- name: InsertApproval :exec
INSERT INTO approvals (id, action, subject_id, subject, reason, requester_id, requester, asked_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: GetApproval :one
SELECT * FROM approvals WHERE id = $1;

-- name: ListApprovals :many
SELECT * FROM approvals WHERE expires_at > sqlc.arg(since) ORDER BY id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountOpenApprovals :one
SELECT COUNT(*) FROM approvals WHERE state = 'asked' AND expires_at > sqlc.arg(at) AND requester_id = sqlc.arg(requester_id);

-- name: DecideApproval :execrows
UPDATE approvals SET state = sqlc.arg(state), approver_id = sqlc.arg(approver_id), approver = sqlc.arg(approver), decided_at = sqlc.arg(at), expires_at = sqlc.arg(expires_at)
WHERE id = sqlc.arg(id) AND state = 'asked' AND expires_at > sqlc.arg(at);

-- name: UseApproval :execrows
-- An approval is used once: 0 rows = it was, or it is over.
UPDATE approvals SET used_at = sqlc.arg(at), state = 'used' WHERE id = sqlc.arg(id) AND state = 'given' AND expires_at > sqlc.arg(at);

-- name: GiveBackApproval :execrows
-- What it was used for did not come to pass.
UPDATE approvals SET used_at = 0, state = 'given' WHERE id = sqlc.arg(id) AND state = 'used';

-- name: DeleteOldApprovals :execrows
DELETE FROM approvals WHERE expires_at < sqlc.arg(before);
