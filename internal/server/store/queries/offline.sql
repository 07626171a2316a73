-- What the machines' door needs beside machines.sql and vaults.sql (O2, O4-O8, O11, O14).

-- name: KnowUser :execrows
-- The user's first factor was accepted on the machine; 1 row = for the first time.
INSERT INTO machine_known (machine_id, user_id, since) VALUES ($1, $2, $3) ON CONFLICT (machine_id, user_id) DO NOTHING;

-- name: ListUsersForMachine :many
-- Whom the signed policy file of the machine names.
SELECT u.* FROM users u
WHERE u.id IN (SELECT a.user_id FROM machine_users a WHERE a.machine_id = sqlc.arg(machine_id))
   OR u.id IN (SELECT k.user_id FROM machine_known k WHERE k.machine_id = sqlc.arg(machine_id))
ORDER BY u.id;

-- name: BumpMachinesKnowing :many
-- The machines that have, or had, anything to do with the user.
UPDATE machines SET serial = serial + 1
WHERE id IN (SELECT a.machine_id FROM machine_users a WHERE a.user_id = sqlc.arg(user_id))
   OR id IN (SELECT k.machine_id FROM machine_known k WHERE k.user_id = sqlc.arg(user_id))
   OR id IN (SELECT v.machine_id FROM vaults v WHERE v.user_id = sqlc.arg(user_id) AND v.state <> 'wiped')
   OR id IN (SELECT w.machine_id FROM windows w WHERE w.user_id = sqlc.arg(user_id) AND w.ended_at = 0)
RETURNING id;

-- name: SealBackupCode :execrows
UPDATE backup_codes SET sealed = sqlc.arg(sealed) WHERE id = sqlc.arg(id);

-- name: SetMachineFacts :execrows
-- What the agent says of itself; no rev: an administrator's edit is not disturbed.
UPDATE machines SET hostname = sqlc.arg(hostname), os = sqlc.arg(os), agent_version = sqlc.arg(agent_version), wire_version = sqlc.arg(wire_version),
    tpm_class = sqlc.arg(tpm_class), tpm_info = sqlc.arg(tpm_info), attest_key = sqlc.arg(attest_key), parent_public = sqlc.arg(parent_public),
    key_in_tpm = sqlc.arg(key_in_tpm), tpm_problem = sqlc.arg(tpm_problem), vault_problem = sqlc.arg(vault_problem),
    boot = sqlc.arg(boot), address = sqlc.arg(address), last_seen_at = sqlc.arg(at)
WHERE id = sqlc.arg(id);

-- name: CountSeenMachines :one
-- Active machines that were heard of since.
SELECT COUNT(*) FROM machines WHERE status = 'active' AND last_seen_at >= sqlc.arg(since);

-- name: MachineNameTaken :one
SELECT COUNT(*) FROM machines WHERE name = $1;

-- name: AllocateVault :exec
INSERT INTO vaults (user_id, machine_id, generation, state, class, key, fail_handle, pass_handle, fail_limit, use_limit,
    last_mfa_at, expires_at, uses_left, password_generation, factors_digest, parent_digest, conversation, created_at, updated_at)
VALUES ($1, $2, $3, 'activating', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: LiftVaultFail :execrows
-- One permit per wish of an administrator (cause 'admin') and per MFA (cause: its time, in digits of one length, so
-- that no earlier MFA can be used after a later one): 0 rows = it was given before.
UPDATE vaults SET fail_lifted = CAST(sqlc.arg(cause) AS TEXT), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active'
  AND ((CAST(sqlc.arg(cause) AS TEXT) = 'admin' AND lift_wanted = TRUE AND fail_lifted <> 'admin')
    OR (CAST(sqlc.arg(cause) AS TEXT) <> 'admin' AND (fail_lifted = 'admin' OR fail_lifted < CAST(sqlc.arg(cause) AS TEXT))));

-- name: LiftVaultPass :execrows
UPDATE vaults SET pass_lifted = CAST(sqlc.arg(cause) AS TEXT), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active'
  AND ((CAST(sqlc.arg(cause) AS TEXT) = 'admin' AND lift_wanted = TRUE AND pass_lifted <> 'admin')
    OR (CAST(sqlc.arg(cause) AS TEXT) <> 'admin' AND (pass_lifted = 'admin' OR pass_lifted < CAST(sqlc.arg(cause) AS TEXT))));

-- name: EndLift :execrows
-- Both counters were lifted for the administrator: the wish is fulfilled.
UPDATE vaults SET lift_wanted = FALSE, fail_lifted = '', pass_lifted = '', updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation)
  AND lift_wanted = TRUE AND fail_lifted = 'admin' AND pass_lifted = 'admin';

-- name: SetVaultSteps :execrows
-- Which steps the machine's bundles cover, for the report (O14).
UPDATE vaults SET first_step = sqlc.arg(first_step), last_step = sqlc.arg(last_step), period = sqlc.arg(period), synced_at = sqlc.arg(at), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active';

-- name: CountVault :execrows
-- What a journal has told of the generation; 0 rows: its counters became fresh in the meantime.
UPDATE vaults SET used = sqlc.arg(used), tries = sqlc.arg(tries), shut = sqlc.arg(shut),
    uses_left = CASE WHEN uses_left > sqlc.arg(signins) THEN uses_left - sqlc.arg(signins) ELSE 0 END, updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active'
  AND counted_from = sqlc.arg(counted_from);

-- name: DeleteOldJoinTokens :execrows
DELETE FROM join_tokens WHERE expires_at < sqlc.arg(before);

-- name: DeleteOldWindows :execrows
DELETE FROM windows WHERE expires_at < sqlc.arg(before);

-- name: SetVaultLimits :execrows
UPDATE vaults SET fail_limit = sqlc.arg(fail_limit), use_limit = sqlc.arg(use_limit)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active';

-- name: RetireActivating :execrows
-- A generation that was begun and not finished ends when the next is begun: no permit is signed for it any more.
UPDATE vaults SET state = 'retired', updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND state = 'activating';

-- name: MachineKnowsUser :one
-- Whether the machine may speak of the user: assigned, known, or with offline data there.
SELECT COUNT(*) FROM users u WHERE u.id = sqlc.arg(user_id) AND (
    EXISTS (SELECT 1 FROM machine_users a WHERE a.machine_id = sqlc.arg(machine_id) AND a.user_id = sqlc.arg(user_id))
    OR EXISTS (SELECT 1 FROM machine_known k WHERE k.machine_id = sqlc.arg(machine_id) AND k.user_id = sqlc.arg(user_id))
    OR EXISTS (SELECT 1 FROM vaults v WHERE v.machine_id = sqlc.arg(machine_id) AND v.user_id = sqlc.arg(user_id)));

-- name: RaiseMachineSerial :execrows
-- The machine has seen a later policy than a restored database knows of.
UPDATE machines SET serial = sqlc.arg(serial) WHERE id = sqlc.arg(id) AND serial < sqlc.arg(serial);

-- name: RaiseAllSerials :execrows
-- The database was restored: machines may have seen later policies than it knows of.
UPDATE machines SET serial = serial + 1000000;

-- name: GetPasskeyUse :one
SELECT * FROM passkey_uses WHERE machine_id = $1 AND authenticator_id = $2;

-- name: RaisePasskeyUse :execrows
-- 0 rows: the machine has told this touch, or a later one, before.
INSERT INTO passkey_uses (machine_id, authenticator_id, at) VALUES ($1, $2, $3)
ON CONFLICT (machine_id, authenticator_id) DO UPDATE SET at = EXCLUDED.at WHERE passkey_uses.at < EXCLUDED.at;
