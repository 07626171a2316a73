-- What administrators see in lists, and what they remove (internal/server/desk).

-- name: CountGroupMembers :one
SELECT COUNT(*) FROM group_members WHERE group_id = $1;

-- name: ListEnrolledOnMachine :many
-- Whose offline data the machine holds, with every authenticator that may be in it (O14, "machine lost"); also what counts
-- as wiped since "since", because the machine may never have heard of it. One that is lost is accepted nowhere any more:
-- there is nothing to renew.
SELECT DISTINCT v.user_id, u.name AS user_name, v.class, a.id AS authenticator_id, a.kind, a.name AS authenticator_name
FROM vaults v JOIN users u ON u.id = v.user_id JOIN authenticators a ON a.user_id = v.user_id
WHERE v.machine_id = sqlc.arg(machine_id) AND (v.state <> 'wiped' OR v.updated_at >= sqlc.arg(since)) AND a.created_at <= v.updated_at AND a.confirmed_at > 0 AND a.lost = FALSE
ORDER BY u.name, a.id, v.class;

-- name: ListBackupSetsOnMachine :many
-- The sets of backup codes that may lie on the machine as tags, as above.
SELECT DISTINCT v.user_id, u.name AS user_name, v.class, b.set_id
FROM vaults v JOIN users u ON u.id = v.user_id JOIN backup_codes b ON b.user_id = v.user_id
WHERE v.machine_id = sqlc.arg(machine_id) AND (v.state <> 'wiped' OR v.updated_at >= sqlc.arg(since)) AND b.used_at = 0 AND b.created_at <= v.updated_at
ORDER BY u.name, b.set_id, v.class;

-- name: WantLifts :many
-- An administrator wants the counters lifted: user and machine empty = any. The machines must be told.
-- Users with a role of the rank "spared" or above it are left out (rank 0 = no role).
UPDATE vaults SET lift_wanted = TRUE, fail_lifted = '', pass_lifted = '', updated_at = sqlc.arg(at)
WHERE state = 'active' AND disenrol_wanted = FALSE
  AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = vaults.user_id AND CASE u.role WHEN 'owner' THEN 4 WHEN 'administrator' THEN 3 WHEN 'helpdesk' THEN 2 WHEN 'auditor' THEN 1 ELSE 0 END >= CAST(sqlc.arg(spared) AS BIGINT))
  AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR user_id = CAST(sqlc.arg(user_id) AS TEXT))
  AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR machine_id = CAST(sqlc.arg(machine_id) AS TEXT))
RETURNING user_id, machine_id, generation;

-- name: CountLiftsSpared :one
-- How many a lift for any user leaves out because of the roles.
SELECT COUNT(*) FROM vaults v JOIN users u ON u.id = v.user_id
WHERE v.state = 'active' AND v.disenrol_wanted = FALSE AND CASE u.role WHEN 'owner' THEN 4 WHEN 'administrator' THEN 3 WHEN 'helpdesk' THEN 2 WHEN 'auditor' THEN 1 ELSE 0 END >= CAST(sqlc.arg(spared) AS BIGINT)
  AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR v.machine_id = CAST(sqlc.arg(machine_id) AS TEXT));

-- name: DeleteVaultsOfUser :execrows
-- The user goes: machines wipe what the policy file does not name.
DELETE FROM vaults WHERE user_id = $1;

-- name: DeleteVaultsOfMachine :execrows
DELETE FROM vaults WHERE machine_id = $1;

-- name: DeleteMachine :execrows
-- Only what is no longer trusted, or never was.
DELETE FROM machines WHERE id = $1 AND status <> 'active';

-- name: SetAuthenticatorLost :execrows
-- With a phone goes what lies on it.
UPDATE authenticators SET lost = TRUE WHERE (id = sqlc.arg(id) OR parent = sqlc.arg(id)) AND lost = FALSE;

-- name: DeleteBypassCode :execrows
DELETE FROM bypass_codes WHERE id = $1;

-- name: DeleteEnrolCode :execrows
DELETE FROM enrol_codes WHERE id = $1;

-- name: ListBackupCodes :many
SELECT * FROM backup_codes WHERE user_id = $1 ORDER BY id;

-- name: RaiseUserGeneration :execrows
-- Password or authenticators changed: machines refuse older vaults (O5).
UPDATE users SET password_generation = password_generation + 1 WHERE id = $1;

-- name: ListLocks :many
-- Who is locked out or must wait now; user empty = any. The machine's name is empty for the count across machines.
SELECT sqlc.embed(a), u.name AS user_name, CAST(COALESCE((SELECT m.name FROM machines m WHERE m.id = a.machine_id), '') AS TEXT) AS machine_name
FROM attempts a JOIN users u ON u.id = a.user_id
WHERE (a.locked_until > sqlc.arg(at) OR a.blocked_until > sqlc.arg(at))
  AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR a.user_id = CAST(sqlc.arg(user_id) AS TEXT))
ORDER BY u.name, a.machine_id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountLocked :one
SELECT COUNT(DISTINCT user_id) FROM attempts WHERE locked_until > sqlc.arg(at) OR blocked_until > sqlc.arg(at);

-- name: CountMachinesKnowing :one
-- Active machines whose signed policy file names the user; machine empty = any.
SELECT COUNT(*) FROM machines m WHERE m.status = 'active'
  AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR m.id = CAST(sqlc.arg(machine_id) AS TEXT))
  AND (EXISTS (SELECT 1 FROM machine_users a WHERE a.machine_id = m.id AND a.user_id = sqlc.arg(user_id))
    OR EXISTS (SELECT 1 FROM machine_known k WHERE k.machine_id = m.id AND k.user_id = sqlc.arg(user_id)));

-- name: CountVaultTrouble :one
-- Offline data in use of which nobody could sign in now: over its days, or shut, as far as machines have told.
SELECT CAST(COALESCE(SUM(CASE WHEN expires_at <= sqlc.arg(at) THEN 1 ELSE 0 END), 0) AS BIGINT) AS expired,
    CAST(COALESCE(SUM(CASE WHEN expires_at > sqlc.arg(at) AND (tries >= fail_limit OR shut = 'offline-checks-used-up') THEN 1 ELSE 0 END), 0) AS BIGINT) AS shut
FROM vaults WHERE state = 'active' AND disenrol_wanted = FALSE;
