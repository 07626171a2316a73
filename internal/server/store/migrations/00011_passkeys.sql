-- Passkeys and security keys (M2), and what a step-up has asked for.

-- +goose Up

-- proof: what the session was asked for to prove anew who sits there (kind, ticket, what was sent), sealed; NULL: nothing.
ALTER TABLE sessions ADD COLUMN proof BYTEA;

-- made: the authenticator for which the code was spent; empty: none yet, or one from before this column.
ALTER TABLE enrol_codes ADD COLUMN made TEXT NOT NULL DEFAULT '';

-- The name by which an authenticator knows an account (WebAuthn user handle): random, and says nothing about whose it is.
CREATE TABLE passkey_users (
    user_id    TEXT COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    handle     BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

-- A passkey, beside its row in authenticators (kind fido2). public_key: COSE, as the authenticator gave it. rp_id: the host it
-- is bound to. flags: of the registration. discoverable: it can be found without a name. cloned_at: a counter went backwards; 0: never.
CREATE TABLE passkeys (
    authenticator_id TEXT COLLATE "C" PRIMARY KEY REFERENCES authenticators (id) ON DELETE CASCADE,
    user_id          TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    credential_id    BYTEA NOT NULL UNIQUE,
    public_key       BYTEA NOT NULL,
    rp_id            TEXT NOT NULL,
    aaguid           TEXT NOT NULL DEFAULT '',
    attestation      TEXT NOT NULL DEFAULT 'none',
    transports       TEXT NOT NULL DEFAULT '[]',
    attachment       TEXT NOT NULL DEFAULT '',
    sign_count       BIGINT NOT NULL DEFAULT 0,
    verifies_user    BOOLEAN NOT NULL DEFAULT FALSE,
    backup_eligible  BOOLEAN NOT NULL DEFAULT FALSE,
    backed_up        BOOLEAN NOT NULL DEFAULT FALSE,
    discoverable     BOOLEAN NOT NULL DEFAULT FALSE,
    cloned_at        BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX passkeys_user ON passkeys (user_id);

-- A challenge that waits for its answer; who answers takes it away. ticket: the sign-in, step-up, conversation or registration
-- that it is for. data: JSON; nothing in it is secret, the other end knows it.
CREATE TABLE passkey_challenges (
    ticket     TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL DEFAULT '',
    data       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX passkey_challenges_expires ON passkey_challenges (expires_at);
