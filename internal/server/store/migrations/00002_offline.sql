-- What the machines' door and the offline data need beyond the first tables.

-- +goose Up

-- Users whose first factor was once accepted on the machine: the signed policy
-- file of the machine names them (O2).
CREATE TABLE machine_known (
    machine_id TEXT COLLATE "C" NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    since      BIGINT NOT NULL,
    PRIMARY KEY (machine_id, user_id)
);
CREATE INDEX machine_known_user ON machine_known (user_id);

-- The code itself, sealed under the master key: the tags in a machine's bundle
-- can not be made from a hash (O7). Whether a typed code is right is decided by
-- the hash alone (M5).
ALTER TABLE backup_codes ADD COLUMN sealed BYTEA;

-- What a machine says of itself, beside tpm_info.
ALTER TABLE machines ADD COLUMN hostname TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN key_in_tpm BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE machines ADD COLUMN tpm_problem TEXT NOT NULL DEFAULT '';
ALTER TABLE machines ADD COLUMN vault_problem TEXT NOT NULL DEFAULT '';

-- The conversation in which a generation was made; the conversation (or 'admin')
-- for which each counter was last lifted; for which import parent the key was wrapped.
ALTER TABLE vaults ADD COLUMN conversation TEXT NOT NULL DEFAULT '';
ALTER TABLE vaults ADD COLUMN fail_lifted TEXT NOT NULL DEFAULT '';
ALTER TABLE vaults ADD COLUMN pass_lifted TEXT NOT NULL DEFAULT '';
ALTER TABLE vaults ADD COLUMN parent_digest TEXT NOT NULL DEFAULT '';
