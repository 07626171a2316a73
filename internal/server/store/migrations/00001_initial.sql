-- The conventions of these tables, the same on SQLite and PostgreSQL:
--   ids       TEXT, UUIDv7, without the prefixes of the API
--   times     BIGINT, unix microseconds; 0 means "not yet" or "never"
--   optional  references TEXT, '' means none (no foreign key then)
--   NULL      only in users.uid and in BYTEA columns (nil = nothing)
--   rev       the ETag: raised by every change an administrator makes
--   COLLATE "C" is byte order; SQLite orders so by itself and never sees the clause

-- +goose Up

CREATE TABLE users (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    name                TEXT COLLATE "C" NOT NULL UNIQUE,
    name_fold           TEXT COLLATE "C" NOT NULL,
    display_name        TEXT NOT NULL DEFAULT '',
    mail                TEXT NOT NULL DEFAULT '',
    role                TEXT NOT NULL DEFAULT 'none',
    password_hash       TEXT NOT NULL DEFAULT '',
    password_changed_at BIGINT NOT NULL DEFAULT 0,
    password_generation BIGINT NOT NULL DEFAULT 0,
    must_change         BOOLEAN NOT NULL DEFAULT FALSE,
    activation          TEXT NOT NULL DEFAULT 'now',
    activate_at         BIGINT NOT NULL DEFAULT 0,
    activated_at        BIGINT NOT NULL DEFAULT 0,
    disabled            BOOLEAN NOT NULL DEFAULT FALSE,
    mfa                 TEXT NOT NULL DEFAULT 'inherit',
    uid                 BIGINT,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    rev                 BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX users_name_fold ON users (name_fold);
CREATE INDEX users_uid ON users (uid);

CREATE TABLE groups (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    mfa        TEXT NOT NULL DEFAULT 'inherit',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    rev        BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE group_members (
    group_id TEXT COLLATE "C" NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_id  TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX group_members_user ON group_members (user_id);

CREATE TABLE policies (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    priority   BIGINT NOT NULL DEFAULT 0,
    is_default BOOLEAN NOT NULL DEFAULT FALSE,
    body       TEXT NOT NULL,
    version    BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    rev        BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE policy_groups (
    policy_id TEXT COLLATE "C" NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    group_id  TEXT COLLATE "C" NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    PRIMARY KEY (policy_id, group_id)
);
CREATE INDEX policy_groups_group ON policy_groups (group_id);

-- No foreign key: the history outlives the policy.
CREATE TABLE policy_versions (
    policy_id TEXT COLLATE "C" NOT NULL,
    version   BIGINT NOT NULL,
    name      TEXT NOT NULL,
    priority  BIGINT NOT NULL,
    body      TEXT NOT NULL,
    groups    TEXT NOT NULL DEFAULT '[]',
    actor     TEXT NOT NULL,
    at        BIGINT NOT NULL,
    comment   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (policy_id, version)
);

CREATE TABLE machines (
    id            TEXT COLLATE "C" PRIMARY KEY,
    number        BIGINT NOT NULL UNIQUE,
    name          TEXT COLLATE "C" NOT NULL,
    status        TEXT NOT NULL DEFAULT 'pending',
    mode          TEXT NOT NULL DEFAULT 'normal',
    unknown_users TEXT NOT NULL DEFAULT 'deny',
    owner_user    TEXT NOT NULL DEFAULT '',
    all_users     BOOLEAN NOT NULL DEFAULT TRUE,
    os            TEXT NOT NULL DEFAULT '',
    agent_version TEXT NOT NULL DEFAULT '',
    wire_version  BIGINT NOT NULL DEFAULT 0,
    tpm_class     TEXT NOT NULL DEFAULT 'none',
    tpm_info      TEXT NOT NULL DEFAULT '{}',
    attest_key    BYTEA,
    parent_public BYTEA,
    boot          TEXT NOT NULL DEFAULT '',
    address       TEXT NOT NULL DEFAULT '',
    last_seen_at  BIGINT NOT NULL DEFAULT 0,
    joined_at     BIGINT NOT NULL DEFAULT 0,
    serial        BIGINT NOT NULL DEFAULT 1,
    refusal       BYTEA,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    rev           BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX machines_name ON machines (name);

CREATE TABLE machine_users (
    machine_id TEXT COLLATE "C" NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (machine_id, user_id)
);
CREATE INDEX machine_users_user ON machine_users (user_id);

CREATE TABLE machine_certificates (
    serial      TEXT COLLATE "C" PRIMARY KEY,
    machine_id  TEXT COLLATE "C" NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    not_before  BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    revoked_at  BIGINT NOT NULL DEFAULT 0,
    fingerprint TEXT NOT NULL
);
CREATE INDEX machine_certificates_machine ON machine_certificates (machine_id);

CREATE TABLE join_tokens (
    id           TEXT COLLATE "C" PRIMARY KEY,
    secret_hash  BYTEA NOT NULL UNIQUE,
    kind         TEXT NOT NULL,
    machine_name TEXT NOT NULL DEFAULT '',
    created_by   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT NOT NULL DEFAULT 0,
    machine_id   TEXT NOT NULL DEFAULT ''
);

CREATE TABLE authenticators (
    id           TEXT COLLATE "C" PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind         TEXT NOT NULL,
    name         TEXT NOT NULL DEFAULT '',
    secret       BYTEA,
    params       TEXT NOT NULL DEFAULT '{}',
    step         BIGINT NOT NULL DEFAULT 0,
    drift        BIGINT NOT NULL DEFAULT 0,
    confirmed_at BIGINT NOT NULL DEFAULT 0,
    last_used_at BIGINT NOT NULL DEFAULT 0,
    lost         BOOLEAN NOT NULL DEFAULT FALSE,
    created_at   BIGINT NOT NULL
);
CREATE INDEX authenticators_user ON authenticators (user_id);

CREATE TABLE backup_codes (
    id           TEXT COLLATE "C" PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    set_id       TEXT COLLATE "C" NOT NULL,
    hash         BYTEA NOT NULL,
    created_at   BIGINT NOT NULL,
    used_at      BIGINT NOT NULL DEFAULT 0,
    used_machine TEXT NOT NULL DEFAULT ''
);
CREATE INDEX backup_codes_user ON backup_codes (user_id);

CREATE TABLE bypass_codes (
    id          TEXT COLLATE "C" PRIMARY KEY,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash        BYTEA NOT NULL,
    scope       TEXT NOT NULL DEFAULT '',
    reason      TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_at     BIGINT NOT NULL DEFAULT 0,
    created_by  TEXT NOT NULL,
    approved_by TEXT NOT NULL DEFAULT ''
);
CREATE INDEX bypass_codes_user ON bypass_codes (user_id);

CREATE TABLE enrol_codes (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash       BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL DEFAULT 0,
    created_by TEXT NOT NULL
);
CREATE INDEX enrol_codes_user ON enrol_codes (user_id);

CREATE TABLE windows (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    machine_id TEXT COLLATE "C" NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    boot       TEXT NOT NULL DEFAULT '',
    opened_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    scopes     TEXT NOT NULL DEFAULT '[]',
    factors    TEXT NOT NULL DEFAULT '[]',
    ended_at   BIGINT NOT NULL DEFAULT 0,
    end_reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX windows_pair ON windows (user_id, machine_id, expires_at);
CREATE INDEX windows_machine ON windows (machine_id, expires_at);

CREATE TABLE conversations (
    id         TEXT COLLATE "C" PRIMARY KEY,
    machine_id TEXT COLLATE "C" NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
    user_id    TEXT NOT NULL DEFAULT '',
    user_name  TEXT NOT NULL DEFAULT '',
    scope      TEXT NOT NULL DEFAULT '',
    service    TEXT NOT NULL DEFAULT '',
    tty        TEXT NOT NULL DEFAULT '',
    rhost      TEXT NOT NULL DEFAULT '',
    stage      TEXT NOT NULL,
    data       BYTEA,
    rev        BIGINT NOT NULL DEFAULT 1,
    seq        BIGINT NOT NULL DEFAULT 0,
    body_hash  BYTEA,
    reply      BYTEA,
    outcome    TEXT NOT NULL DEFAULT '',
    mfa_at     BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX conversations_expires ON conversations (expires_at);
CREATE INDEX conversations_machine ON conversations (machine_id, created_at);

-- machine_id '' is the count across machines. No foreign keys: a name that no
-- user has is counted too.
CREATE TABLE attempts (
    user_id       TEXT COLLATE "C" NOT NULL,
    machine_id    TEXT COLLATE "C" NOT NULL DEFAULT '',
    failures      BIGINT NOT NULL DEFAULT 0,
    first_at      BIGINT NOT NULL DEFAULT 0,
    last_at       BIGINT NOT NULL DEFAULT 0,
    blocked_until BIGINT NOT NULL DEFAULT 0,
    locked_until  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, machine_id)
);

CREATE TABLE vaults (
    user_id             TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    machine_id          TEXT COLLATE "C" NOT NULL REFERENCES machines (id),
    generation          BIGINT NOT NULL,
    state               TEXT NOT NULL DEFAULT 'allocated',
    class               TEXT NOT NULL,
    key                 BYTEA,
    fail_handle         BIGINT NOT NULL DEFAULT 0,
    pass_handle         BIGINT NOT NULL DEFAULT 0,
    fail_signed         BIGINT NOT NULL DEFAULT 0,
    pass_signed         BIGINT NOT NULL DEFAULT 0,
    fail_limit          BIGINT NOT NULL DEFAULT 0,
    use_limit           BIGINT NOT NULL DEFAULT 0,
    first_step          BIGINT NOT NULL DEFAULT 0,
    last_step           BIGINT NOT NULL DEFAULT 0,
    period              BIGINT NOT NULL DEFAULT 30,
    enrolled_at         BIGINT NOT NULL DEFAULT 0,
    synced_at           BIGINT NOT NULL DEFAULT 0,
    last_mfa_at         BIGINT NOT NULL DEFAULT 0,
    expires_at          BIGINT NOT NULL DEFAULT 0,
    uses_left           BIGINT NOT NULL DEFAULT 0,
    password_generation BIGINT NOT NULL DEFAULT 0,
    factors_digest      TEXT NOT NULL DEFAULT '',
    lift_wanted         BOOLEAN NOT NULL DEFAULT FALSE,
    disenrol_wanted     BOOLEAN NOT NULL DEFAULT FALSE,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    PRIMARY KEY (user_id, machine_id, generation)
);
CREATE INDEX vaults_machine ON vaults (machine_id);

CREATE TABLE journal_heads (
    machine_id TEXT COLLATE "C" PRIMARY KEY REFERENCES machines (id) ON DELETE CASCADE,
    seq        BIGINT NOT NULL DEFAULT 0,
    hash       BYTEA,
    counter    BIGINT NOT NULL DEFAULT 0,
    entries_at BIGINT NOT NULL DEFAULT 0
);

-- No foreign keys: what happened stays written when the rows it speaks of go.
CREATE TABLE events (
    chain       TEXT COLLATE "C" NOT NULL,
    seq         BIGINT NOT NULL,
    id          TEXT COLLATE "C" NOT NULL UNIQUE,
    type        TEXT COLLATE "C" NOT NULL,
    actor       TEXT NOT NULL DEFAULT '',
    subject     TEXT NOT NULL DEFAULT '',
    user_id     TEXT COLLATE "C" NOT NULL DEFAULT '',
    machine_id  TEXT COLLATE "C" NOT NULL DEFAULT '',
    machine     TEXT NOT NULL DEFAULT '',
    address     TEXT NOT NULL DEFAULT '',
    scope       TEXT NOT NULL DEFAULT '',
    service     TEXT NOT NULL DEFAULT '',
    link        TEXT NOT NULL DEFAULT '',
    outcome     TEXT NOT NULL DEFAULT '',
    reason      TEXT NOT NULL DEFAULT '',
    factor      TEXT NOT NULL DEFAULT '',
    at          BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    data        TEXT NOT NULL DEFAULT '',
    prev_hash   BYTEA NOT NULL,
    hash        BYTEA NOT NULL,
    PRIMARY KEY (chain, seq)
);
CREATE INDEX events_at ON events (at, id);
CREATE INDEX events_user ON events (user_id, at, id);
CREATE INDEX events_machine ON events (machine_id, at, id);
CREATE INDEX events_type ON events (type, at, id);

CREATE TABLE chains (
    chain TEXT COLLATE "C" PRIMARY KEY,
    seq   BIGINT NOT NULL,
    hash  BYTEA NOT NULL
);

CREATE TABLE checkpoints (
    chain     TEXT COLLATE "C" NOT NULL,
    seq       BIGINT NOT NULL,
    hash      BYTEA NOT NULL,
    at        BIGINT NOT NULL,
    signature BYTEA NOT NULL,
    PRIMARY KEY (chain, seq)
);

CREATE TABLE settings (
    key        TEXT COLLATE "C" PRIMARY KEY,
    value      BYTEA NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE idempotency (
    key       TEXT COLLATE "C" PRIMARY KEY,
    actor     TEXT NOT NULL,
    body_hash BYTEA NOT NULL,
    status    BIGINT NOT NULL,
    reply     BYTEA,
    at        BIGINT NOT NULL
);
CREATE INDEX idempotency_at ON idempotency (at);

-- Dense numbers that every replica draws from (machines.number).
CREATE TABLE counters (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL
);
