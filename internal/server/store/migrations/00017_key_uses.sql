-- When a security key was last used on a machine that was offline, as the key has signed it.

-- +goose Up

-- at: unix microseconds of the newest touch that the machine has told; an older one, or the same, is told a second time.
CREATE TABLE passkey_uses (
    machine_id       TEXT COLLATE "C" NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    authenticator_id TEXT COLLATE "C" NOT NULL REFERENCES authenticators (id) ON DELETE CASCADE,
    at               BIGINT NOT NULL,
    PRIMARY KEY (machine_id, authenticator_id)
);
CREATE INDEX passkey_uses_authenticator ON passkey_uses (authenticator_id);
