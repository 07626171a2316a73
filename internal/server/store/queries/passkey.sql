-- Passkeys and security keys (M2), and what a step-up has asked for.

-- name: SetSessionProof :execrows
-- 0 rows: the session has ended, or has another secret by now.
UPDATE sessions SET proof = sqlc.arg(proof) WHERE id = sqlc.arg(id) AND secret_hash = sqlc.arg(secret_hash);

-- name: SetEnrolCodeMade :execrows
-- The authenticator for which the code was spent.
UPDATE enrol_codes SET made = sqlc.arg(made) WHERE id = sqlc.arg(id);

-- name: GetEnrolCode :one
SELECT * FROM enrol_codes WHERE id = $1;

-- name: InsertPasskeyUser :execrows
-- 0 rows: the user has a handle already.
INSERT INTO passkey_users (user_id, handle, created_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO NOTHING;

-- name: GetPasskeyUser :one
SELECT * FROM passkey_users WHERE user_id = $1;

-- name: GetPasskeyUserByHandle :one
SELECT * FROM passkey_users WHERE handle = $1;

-- name: InsertPasskey :exec
INSERT INTO passkeys (authenticator_id, user_id, credential_id, public_key, rp_id, aaguid, attestation, transports, attachment, sign_count, verifies_user, backup_eligible, backed_up, discoverable)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: GetPasskey :one
SELECT * FROM passkeys WHERE authenticator_id = $1;

-- name: ListPasskeysOfUser :many
-- With the names and dates that all authenticators have.
SELECT sqlc.embed(p), sqlc.embed(a) FROM passkeys p JOIN authenticators a ON a.id = p.authenticator_id WHERE p.user_id = $1 ORDER BY p.authenticator_id;

-- name: UsePasskey :execrows
-- A signature was accepted: 0 rows = the counter was moved meanwhile, or the passkey was taken away, lost or cloned.
UPDATE passkeys SET sign_count = sqlc.arg(sign_count), backed_up = sqlc.arg(backed_up)
WHERE authenticator_id = sqlc.arg(id) AND sign_count = sqlc.arg(was) AND cloned_at = 0;

-- name: MarkPasskeyCloned :execrows
UPDATE passkeys SET cloned_at = sqlc.arg(at) WHERE authenticator_id = sqlc.arg(id) AND cloned_at = 0;

-- name: PutPasskeyChallenge :exec
-- One for a ticket: a new one takes the place of the old.
INSERT INTO passkey_challenges (ticket, user_id, data, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (ticket) DO UPDATE SET user_id = EXCLUDED.user_id, data = EXCLUDED.data, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at;

-- name: GetPasskeyChallenge :one
SELECT * FROM passkey_challenges WHERE ticket = $1;

-- name: DeletePasskeyChallenge :execrows
-- 0 rows: somebody else has answered it.
DELETE FROM passkey_challenges WHERE ticket = $1;

-- name: DeleteOldPasskeyChallenges :execrows
DELETE FROM passkey_challenges WHERE expires_at < sqlc.arg(at);
