-- Import of users in bulk (E2): a file or a query is read into rows, every row is judged and its plan stands here, and
-- only then is anything changed.

-- +goose Up

-- state: reading, checked, applying, telling, done, failed. lease_until: until when the server that works on it has said
-- that it does; behind that another one goes on. made_groups: names and ids of the groups that come into being.
CREATE TABLE imports (
    id             TEXT COLLATE "C" PRIMARY KEY,
    source         TEXT NOT NULL DEFAULT '',
    label          TEXT NOT NULL DEFAULT '',
    actor          TEXT NOT NULL,
    actor_user     TEXT NOT NULL DEFAULT '',
    actor_role     TEXT NOT NULL,
    actor_local    BOOLEAN NOT NULL DEFAULT FALSE,
    address        TEXT NOT NULL DEFAULT '',
    state          TEXT NOT NULL,
    skip_bad       BOOLEAN NOT NULL DEFAULT FALSE,
    codes          BOOLEAN NOT NULL DEFAULT FALSE,
    codes_for      BIGINT NOT NULL DEFAULT 0,
    make_groups    BOOLEAN NOT NULL DEFAULT FALSE,
    ignore_unknown BOOLEAN NOT NULL DEFAULT FALSE,
    columns        TEXT NOT NULL DEFAULT '[]',
    made_groups    TEXT NOT NULL DEFAULT '{}',
    bytes_read     BIGINT NOT NULL DEFAULT 0,
    rows_read      BIGINT NOT NULL DEFAULT 0,
    rows_new       BIGINT NOT NULL DEFAULT 0,
    rows_changed   BIGINT NOT NULL DEFAULT 0,
    rows_same      BIGINT NOT NULL DEFAULT 0,
    rows_faulty    BIGINT NOT NULL DEFAULT 0,
    rows_done      BIGINT NOT NULL DEFAULT 0,
    rows_told      BIGINT NOT NULL DEFAULT 0,
    codes_left     BIGINT NOT NULL DEFAULT 0,
    problem        TEXT NOT NULL DEFAULT '',
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    applied_at     BIGINT NOT NULL DEFAULT 0,
    ended_at       BIGINT NOT NULL DEFAULT 0,
    lease_until    BIGINT NOT NULL DEFAULT 0,
    lease_by       TEXT NOT NULL DEFAULT ''
);

-- state: new, changed, same, faulty. input: what the row says, without the password. user_id: of the user that is there,
-- or who will be. seen_rev: the revision that the plan was made for, 0: nobody was there. fields: the user's own row
-- changes, and not only the groups. done, told: its user was changed, its events stand, and its code is made; between the one
-- transaction of a large import and that the import's own state says so.
CREATE TABLE import_rows (
    import_id     TEXT COLLATE "C" NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
    n             BIGINT NOT NULL,
    line          BIGINT NOT NULL,
    state         TEXT NOT NULL,
    name          TEXT COLLATE "C" NOT NULL DEFAULT '',
    name_fold     TEXT COLLATE "C" NOT NULL DEFAULT '',
    input         TEXT NOT NULL DEFAULT '{}',
    user_id       TEXT COLLATE "C" NOT NULL DEFAULT '',
    seen_rev      BIGINT NOT NULL DEFAULT 0,
    fields        BOOLEAN NOT NULL DEFAULT FALSE,
    display_name  TEXT NOT NULL DEFAULT '',
    mail          TEXT NOT NULL DEFAULT '',
    role          TEXT NOT NULL DEFAULT '',
    password_hash TEXT NOT NULL DEFAULT '',
    must_change   BOOLEAN NOT NULL DEFAULT FALSE,
    activation    TEXT NOT NULL DEFAULT '',
    activate_at   BIGINT NOT NULL DEFAULT 0,
    disabled      BOOLEAN NOT NULL DEFAULT FALSE,
    mfa           TEXT NOT NULL DEFAULT '',
    uid           BIGINT,
    disables      BOOLEAN NOT NULL DEFAULT FALSE,
    changes       TEXT NOT NULL DEFAULT '[]',
    faults        TEXT NOT NULL DEFAULT '[]',
    note          TEXT NOT NULL DEFAULT '',
    want_code     BOOLEAN NOT NULL DEFAULT FALSE,
    code          BYTEA,
    done          BOOLEAN NOT NULL DEFAULT FALSE,
    told          BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (import_id, n)
);
CREATE INDEX import_rows_state ON import_rows (import_id, state, n);

CREATE TABLE import_members (
    import_id TEXT COLLATE "C" NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
    user_id   TEXT COLLATE "C" NOT NULL,
    group_id  TEXT COLLATE "C" NOT NULL,
    n         BIGINT NOT NULL,
    added     BOOLEAN NOT NULL,
    PRIMARY KEY (import_id, user_id, group_id)
);
CREATE INDEX import_members_row ON import_members (import_id, n);

-- Databases that users are imported from. address: the data source with its password, sealed. place: the same for people,
-- without.
CREATE TABLE import_sources (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    driver     TEXT NOT NULL,
    place      TEXT NOT NULL,
    address    BYTEA NOT NULL,
    query      TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL DEFAULT 0
);
