-- Latchkey Authenticator: the phones of people, what they are asked, and whose phones are asked nothing any more.

-- +goose Up

-- parent: the phone on which this authenticator lies too, as the seed of an app does. It goes with the phone.
ALTER TABLE authenticators ADD COLUMN parent TEXT COLLATE "C" REFERENCES authenticators (id) ON DELETE CASCADE;
CREATE INDEX authenticators_parent ON authenticators (parent);

-- A phone, beside its row in authenticators (kind push). public_key: P-256, SubjectPublicKeyInfo in DER. subscription: where
-- it is told to look, sealed; NULL: it looks by itself. credential: of its own authenticator (WebAuthn), as JSON; NULL: none.
CREATE TABLE push_devices (
    authenticator_id TEXT COLLATE "C" PRIMARY KEY REFERENCES authenticators (id) ON DELETE CASCADE,
    user_id          TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    public_key       BYTEA NOT NULL UNIQUE,
    platform         TEXT NOT NULL DEFAULT '',
    standalone       BOOLEAN NOT NULL DEFAULT FALSE,
    subscription     BYTEA,
    subscribed_at    BIGINT NOT NULL DEFAULT 0,
    credential       BYTEA,
    created_at       BIGINT NOT NULL,
    seen_at          BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX push_devices_user ON push_devices (user_id);

-- A code with which one phone enrols. hash: SHA-256. enrol_code: of the help desk, which opened the session and is spent
-- together with it. by_actor: who made it. generation: of the user; any change of factors or password ends it.
CREATE TABLE push_enrolments (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash       BYTEA NOT NULL UNIQUE,
    generation BIGINT NOT NULL,
    enrol_code TEXT NOT NULL DEFAULT '',
    session    TEXT NOT NULL DEFAULT '',
    by_actor   TEXT NOT NULL DEFAULT '',
    self       BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL DEFAULT 0,
    device_id  TEXT NOT NULL DEFAULT ''
);
CREATE INDEX push_enrolments_user ON push_enrolments (user_id);
CREATE INDEX push_enrolments_expires ON push_enrolments (expires_at);

-- What phones are asked. content: the exact text that is served and signed. number_hash: HMAC of the number at the sign-in.
-- state: open, approved, spent (approved, and the sign-in has seen it), denied, reported, expired, withdrawn. reason: why
-- denied. told_at: when phones were told to look; 0: not yet.
CREATE TABLE push_requests (
    id           TEXT COLLATE "C" PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    ticket       TEXT COLLATE "C" NOT NULL,
    door         TEXT COLLATE "C" NOT NULL,
    machine_id   TEXT COLLATE "C" NOT NULL DEFAULT '',
    machine      TEXT NOT NULL DEFAULT '',
    scope        TEXT NOT NULL DEFAULT '',
    service      TEXT NOT NULL DEFAULT '',
    address      TEXT NOT NULL DEFAULT '',
    content      TEXT NOT NULL,
    nonce        TEXT NOT NULL,
    number_hash  BYTEA NOT NULL,
    verification BOOLEAN NOT NULL DEFAULT FALSE,
    state        TEXT COLLATE "C" NOT NULL DEFAULT 'open',
    reason       TEXT NOT NULL DEFAULT '',
    device_id    TEXT COLLATE "C" NOT NULL DEFAULT '',
    verified     BOOLEAN NOT NULL DEFAULT FALSE,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    told_at      BIGINT NOT NULL DEFAULT 0,
    answered_at  BIGINT NOT NULL DEFAULT 0
);
-- One open request for a user and machine, on whatever server it is asked for.
CREATE UNIQUE INDEX push_requests_open ON push_requests (user_id, door, machine_id) WHERE state = 'open';
CREATE INDEX push_requests_ticket ON push_requests (ticket, id);
CREATE INDEX push_requests_user ON push_requests (user_id, created_at);
CREATE INDEX push_requests_untold ON push_requests (created_at) WHERE told_at = 0;

-- Whose phones are asked nothing, because somebody has said "it wasn't me".
CREATE TABLE push_locks (
    user_id    TEXT COLLATE "C" PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    reason     TEXT NOT NULL,
    request_id TEXT NOT NULL DEFAULT '',
    report_id  TEXT NOT NULL DEFAULT '',
    at         BIGINT NOT NULL
);
