-- Offline data on machines: what was made for whom, what is left of it (O4-O8, O14).

-- name: InsertVault :exec
INSERT INTO vaults (user_id, machine_id, generation, state, class, key, fail_handle, pass_handle, fail_limit, use_limit,
    first_step, last_step, period, enrolled_at, synced_at, last_mfa_at, expires_at, uses_left, used, password_generation, factors_digest, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23);

-- name: NextVaultGeneration :one
SELECT CAST(COALESCE(MAX(generation), 0) + 1 AS BIGINT) AS generation FROM vaults WHERE user_id = $1 AND machine_id = $2;

-- name: GetVault :one
SELECT * FROM vaults WHERE user_id = $1 AND machine_id = $2 AND generation = $3;

-- name: GetActiveVault :one
SELECT * FROM vaults WHERE user_id = $1 AND machine_id = $2 AND state = 'active' ORDER BY generation DESC LIMIT 1;

-- name: ListVaultsOfPair :many
SELECT * FROM vaults WHERE user_id = $1 AND machine_id = $2 ORDER BY generation;

-- name: ListVaultsOfMachine :many
-- What the machine holds or must still wipe.
SELECT * FROM vaults WHERE machine_id = $1 AND state <> 'wiped' ORDER BY user_id, generation;

-- name: ListVaultsOfUser :many
SELECT * FROM vaults WHERE user_id = $1 AND state <> 'wiped' ORDER BY machine_id, generation;

-- name: ActivateVault :execrows
UPDATE vaults SET state = 'active', counted_from = sqlc.arg(at), enrolled_at = sqlc.arg(at), synced_at = sqlc.arg(at), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'activating';

-- name: RetireOtherVaults :execrows
-- Older generations end when a new one is active; their keys are forgotten when the machine says they are gone.
UPDATE vaults SET state = 'retired', updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation <> sqlc.arg(generation) AND state <> 'wiped' AND state <> 'retired';

-- name: WipeVault :execrows
-- The machine says that it is gone: the key goes too.
UPDATE vaults SET state = 'wiped', key = NULL, lift_wanted = FALSE, disenrol_wanted = FALSE, updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state <> 'wiped';

-- name: WipeVaultsOfMachine :execrows
UPDATE vaults SET state = 'wiped', key = NULL, lift_wanted = FALSE, disenrol_wanted = FALSE, updated_at = sqlc.arg(at)
WHERE machine_id = sqlc.arg(machine_id) AND state <> 'wiped';

-- name: SignVaultFail :execrows
-- The first write of the PIN_FAIL index is signed once, recorded before the reply: 0 rows = it was before.
UPDATE vaults SET fail_signed = 1, updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND fail_signed = 0 AND state = 'activating';

-- name: SignVaultPass :execrows
UPDATE vaults SET pass_signed = 1, updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND pass_signed = 0 AND state = 'activating';

-- name: ExtendVault :execrows
-- After an online MFA: more days, fresh counters (O5).
UPDATE vaults SET first_step = sqlc.arg(first_step), last_step = sqlc.arg(last_step), last_mfa_at = sqlc.arg(last_mfa_at), expires_at = sqlc.arg(expires_at),
    uses_left = sqlc.arg(uses_left), used = 0, tries = 0, shut = '', counted_from = sqlc.arg(at), synced_at = sqlc.arg(at), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active';

-- name: SyncVault :execrows
-- The counters are fresh; never a longer life.
UPDATE vaults SET uses_left = sqlc.arg(uses_left), used = 0, tries = 0, shut = '', counted_from = sqlc.arg(at), synced_at = sqlc.arg(at), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active';

-- name: WantLift :execrows
UPDATE vaults SET lift_wanted = sqlc.arg(wanted), updated_at = sqlc.arg(at)
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND generation = sqlc.arg(generation) AND state = 'active';

-- name: WantDisenrol :many
-- Of a user, a machine or both (empty = any); the machines must be told.
UPDATE vaults SET disenrol_wanted = TRUE, updated_at = sqlc.arg(at)
WHERE state <> 'wiped'
  AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR user_id = CAST(sqlc.arg(user_id) AS TEXT))
  AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR machine_id = CAST(sqlc.arg(machine_id) AS TEXT))
RETURNING user_id, machine_id, generation;

-- name: GetJournalHead :one
SELECT * FROM journal_heads WHERE machine_id = $1;

-- name: StartJournal :execrows
INSERT INTO journal_heads (machine_id, seq, hash, counter, entries_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (machine_id) DO NOTHING;

-- name: MoveJournalHead :execrows
-- 0 rows: the same entries came twice, or another replica took them.
UPDATE journal_heads SET seq = sqlc.arg(seq), hash = sqlc.arg(hash), counter = sqlc.arg(counter), entries_at = sqlc.arg(at),
    day = sqlc.arg(day), taken = sqlc.arg(taken), folded = sqlc.arg(folded), kinds = sqlc.arg(kinds)
WHERE machine_id = sqlc.arg(machine_id) AND seq = sqlc.arg(old_seq) AND day = sqlc.arg(old_day) AND taken = sqlc.arg(old_taken)
  AND folded = sqlc.arg(old_folded);

-- name: ListFoldedJournals :many
-- Days that are over and of which entries were only counted.
SELECT * FROM journal_heads WHERE folded > 0 AND day < sqlc.arg(today) ORDER BY machine_id LIMIT CAST(sqlc.arg(n) AS BIGINT);
