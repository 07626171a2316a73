-- Certificates of users, and what was revoked (M4, E4).

-- +goose Up

-- Why one certificate was revoked; those of a revoked machine all have its state.
ALTER TABLE machine_certificates ADD COLUMN reason TEXT NOT NULL DEFAULT '';

-- key_class says where the key was made: "tpm", "file" (both by a machine's agent), or
-- "request" for one that came with a request of the user's own.
CREATE TABLE user_certificates (
    serial       TEXT COLLATE "C" PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    machine_id   TEXT NOT NULL DEFAULT '',
    name         TEXT NOT NULL DEFAULT '',
    key_class    TEXT NOT NULL,
    not_before   BIGINT NOT NULL,
    not_after    BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    revoked_at   BIGINT NOT NULL DEFAULT 0,
    reason       TEXT NOT NULL DEFAULT '',
    fingerprint  TEXT NOT NULL,
    last_used_at BIGINT NOT NULL DEFAULT 0,
    last_address TEXT NOT NULL DEFAULT ''
);
CREATE INDEX user_certificates_user ON user_certificates (user_id);
CREATE INDEX user_certificates_machine ON user_certificates (machine_id);

-- What the revocation list is made of. No foreign key: it outlives machines and users,
-- until the certificate would have expired by itself. number rises with each; 0 stands for all that were before this table.
CREATE TABLE revocations (
    serial     TEXT COLLATE "C" PRIMARY KEY,
    number     BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    not_after  BIGINT NOT NULL,
    reason     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX revocations_number ON revocations (number);

-- The revocation list as it was signed last: one row. upto is the last revocation in it.
CREATE TABLE revocation_list (
    id          TEXT COLLATE "C" PRIMARY KEY,
    number      BIGINT NOT NULL,
    upto        BIGINT NOT NULL,
    der         BYTEA NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL
);

-- Sessions that a certificate has opened: they live as long as it does.
CREATE TABLE certificate_sessions (
    session_id TEXT COLLATE "C" PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    serial     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX certificate_sessions_serial ON certificate_sessions (serial);

-- What was revoked before there was a list.
INSERT INTO revocations (serial, number, revoked_at, not_after, reason)
SELECT serial, 0, revoked_at, not_after, '' FROM machine_certificates WHERE revoked_at > 0;
