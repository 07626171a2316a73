-- What replicas and machines that could not meet ask for, and what is done when the database has lost changes (S10, O8).

-- name: ListTOTPParams :many
SELECT DISTINCT params FROM authenticators WHERE kind = 'totp' ORDER BY params;

-- name: SpendAllSteps :execrows
-- No code is accepted that may have been before, up to the latest one that could be: what an authenticator's clock is
-- ahead of ours comes on top.
UPDATE authenticators SET step = sqlc.arg(step) + drift WHERE kind = 'totp' AND params = sqlc.arg(params) AND step < sqlc.arg(step) + drift;

-- name: RetireAllActivating :execrows
-- What was signed for a generation that is being made may be forgotten: it ends.
UPDATE vaults SET state = 'retired', updated_at = sqlc.arg(at) WHERE state = 'activating';

-- name: ListAccepted :many
-- Events of a time that can say which code of the user was accepted.
SELECT * FROM events WHERE user_id = sqlc.arg(user_id) AND at >= sqlc.arg(since) AND at < sqlc.arg(until) AND type IN ('factor.accepted', 'signin.allowed')
ORDER BY at, id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: LockUser :execrows
-- Keeps the user's row until the transaction ends: changes of the user on other replicas come before or after it.
UPDATE users SET rev = rev WHERE id = sqlc.arg(id);
