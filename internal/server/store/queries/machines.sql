-- Machines, their certificates, who may use them, and the tokens they join with (P3, E4).

-- name: NextNumber :one
-- Draws the next number of a counter, 1 first; safe between replicas.
INSERT INTO counters (name, value) VALUES (sqlc.arg(name), 1)
ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value;

-- name: InsertMachine :exec
INSERT INTO machines (id, number, name, status, mode, unknown_users, owner_user, all_users, os, agent_version, wire_version,
    tpm_class, tpm_info, attest_key, parent_public, boot, address, last_seen_at, joined_at, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21);

-- name: GetMachine :one
SELECT * FROM machines WHERE id = $1;

-- name: GetMachineByNumber :one
SELECT * FROM machines WHERE number = $1;

-- name: ListMachinesByName :many
-- Names need not be unique: the caller asks for the id when there are several.
SELECT * FROM machines WHERE name = $1 ORDER BY id;

-- name: ListMachines :many
-- The next page by id after "after"; status empty = any.
SELECT * FROM machines
WHERE id > sqlc.arg(after) AND (CAST(sqlc.arg(status) AS TEXT) = '' OR status = CAST(sqlc.arg(status) AS TEXT))
ORDER BY id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountMachinesByStatus :many
SELECT status, COUNT(*) AS n FROM machines GROUP BY status ORDER BY status;

-- name: UpdateMachine :execrows
-- What administrators edit. The machine must learn it: the serial rises.
UPDATE machines SET name = $1, mode = $2, unknown_users = $3, owner_user = $4, all_users = $5,
    updated_at = $6, rev = rev + 1, serial = serial + 1
WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: SetMachineStatus :execrows
-- From one of two states only (the same twice for one), so that a revoked machine never becomes active by a race.
UPDATE machines SET status = sqlc.arg(status), refusal = sqlc.arg(refusal), updated_at = sqlc.arg(at), rev = rev + 1, serial = serial + 1
WHERE id = sqlc.arg(id) AND (status = sqlc.arg(from_status) OR status = sqlc.arg(or_status));

-- name: SeeMachine :execrows
UPDATE machines SET last_seen_at = sqlc.arg(at), address = sqlc.arg(address) WHERE id = sqlc.arg(id) AND last_seen_at < sqlc.arg(at);

-- name: BumpMachine :execrows
UPDATE machines SET serial = serial + 1 WHERE id = $1;

-- name: BumpAllMachines :many
UPDATE machines SET serial = serial + 1 WHERE status = 'active' RETURNING id;

-- name: AddMachineUser :execrows
INSERT INTO machine_users (machine_id, user_id) VALUES ($1, $2) ON CONFLICT (machine_id, user_id) DO NOTHING;

-- name: RemoveMachineUser :execrows
DELETE FROM machine_users WHERE machine_id = $1 AND user_id = $2;

-- name: ListMachineUsers :many
SELECT u.* FROM users u JOIN machine_users m ON m.user_id = u.id WHERE m.machine_id = $1 ORDER BY u.name;

-- name: MachineAllowsUser :one
-- Whether the machine may start conversations for the user (E4): 1 or 0. An unknown machine allows nobody.
SELECT COUNT(*) FROM machines m
WHERE m.id = sqlc.arg(machine_id) AND (m.all_users = TRUE OR EXISTS (
    SELECT 1 FROM machine_users x WHERE x.machine_id = sqlc.arg(machine_id) AND x.user_id = sqlc.arg(user_id)));

-- name: InsertMachineCertificate :exec
INSERT INTO machine_certificates (serial, machine_id, not_before, not_after, fingerprint) VALUES ($1, $2, $3, $4, $5);

-- name: GetMachineCertificate :one
SELECT * FROM machine_certificates WHERE serial = $1;

-- name: ListMachineCertificates :many
SELECT * FROM machine_certificates WHERE machine_id = $1 ORDER BY not_after DESC;

-- name: RevokeMachineCertificates :execrows
UPDATE machine_certificates SET revoked_at = sqlc.arg(at) WHERE machine_id = sqlc.arg(machine_id) AND revoked_at = 0;

-- name: InsertJoinToken :exec
INSERT INTO join_tokens (id, secret_hash, kind, machine_name, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: GetJoinToken :one
SELECT * FROM join_tokens WHERE secret_hash = $1;

-- name: SpendJoinToken :execrows
-- A single token works once: 0 rows = used, expired or withdrawn meanwhile.
UPDATE join_tokens SET used_at = sqlc.arg(at), machine_id = sqlc.arg(machine_id)
WHERE id = sqlc.arg(id) AND kind = 'single' AND used_at = 0 AND expires_at > sqlc.arg(at);

-- name: ListJoinTokens :many
SELECT * FROM join_tokens WHERE id > sqlc.arg(after) ORDER BY id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: DeleteJoinToken :execrows
DELETE FROM join_tokens WHERE id = $1;
