-- Who sits at a browser or holds a token, who has begun to sign in, and what a second
-- owner was asked for.

-- +goose Up

-- A session. secret_hash is SHA-256 of what the browser holds; a step-up replaces it.
-- kind: "browser" or "cli". factor: "totp", "backup", "enrol". password_at is when the
-- password with which it was opened was set: a session does not outlive its password.
CREATE TABLE sessions (
    id          TEXT COLLATE "C" PRIMARY KEY,
    secret_hash BYTEA NOT NULL UNIQUE,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL,
    factor      TEXT NOT NULL,
    enrol_code  TEXT NOT NULL DEFAULT '',
    password_at BIGINT NOT NULL DEFAULT 0,
    began_at    BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL,
    fresh_at    BIGINT NOT NULL DEFAULT 0,
    ends_at     BIGINT NOT NULL,
    address     TEXT NOT NULL DEFAULT '',
    agent       TEXT NOT NULL DEFAULT ''
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_ends ON sessions (ends_at);

-- A sign-in, or the making of the first owner, between two of its pages. data is
-- sealed. user_id is empty for a setup.
CREATE TABLE signins (
    id          TEXT COLLATE "C" PRIMARY KEY,
    secret_hash BYTEA NOT NULL UNIQUE,
    user_id     TEXT COLLATE "C" NOT NULL DEFAULT '',
    stage       TEXT NOT NULL,
    data        BYTEA,
    wrong       BIGINT NOT NULL DEFAULT 0,
    rev         BIGINT NOT NULL DEFAULT 1,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);
CREATE INDEX signins_expires ON signins (expires_at);
CREATE INDEX signins_user ON signins (user_id);

-- API tokens. role is the highest that the token ever has; scopes is JSON.
CREATE TABLE api_tokens (
    id           TEXT COLLATE "C" PRIMARY KEY,
    secret_hash  BYTEA NOT NULL UNIQUE,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    scopes       TEXT NOT NULL,
    role         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL DEFAULT 0,
    last_address TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX api_tokens_name ON api_tokens (user_id, name);

-- What a second owner was asked for (E3). No foreign keys: the row is read for a
-- quarter of an hour and speaks of what was.
CREATE TABLE approvals (
    id           TEXT COLLATE "C" PRIMARY KEY,
    action       TEXT NOT NULL,
    subject_id   TEXT COLLATE "C" NOT NULL,
    subject      TEXT NOT NULL,
    reason       TEXT NOT NULL DEFAULT '',
    requester_id TEXT COLLATE "C" NOT NULL,
    requester    TEXT NOT NULL,
    approver_id  TEXT COLLATE "C" NOT NULL DEFAULT '',
    approver     TEXT NOT NULL DEFAULT '',
    state        TEXT NOT NULL DEFAULT 'asked',
    asked_at     BIGINT NOT NULL,
    decided_at   BIGINT NOT NULL DEFAULT 0,
    used_at      BIGINT NOT NULL DEFAULT 0,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX approvals_expires ON approvals (expires_at);
