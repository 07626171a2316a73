-- What people report of themselves: "this wasn't me", "I lost this machine". The help desk handles them.

-- +goose Up

-- kind: signin or machine. event_id and machine_id name what is meant; no foreign keys: the report outlives both. state: open or
-- handled; answer: what was done.
CREATE TABLE reports (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,
    event_id   TEXT NOT NULL DEFAULT '',
    machine_id TEXT NOT NULL DEFAULT '',
    machine    TEXT NOT NULL DEFAULT '',
    told       TEXT NOT NULL DEFAULT '',
    address    TEXT NOT NULL DEFAULT '',
    state      TEXT COLLATE "C" NOT NULL DEFAULT 'open',
    created_at BIGINT NOT NULL,
    handled_at BIGINT NOT NULL DEFAULT 0,
    handled_by TEXT NOT NULL DEFAULT '',
    answer     TEXT NOT NULL DEFAULT '',
    rev        BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX reports_state ON reports (state, id);
CREATE INDEX reports_user ON reports (user_id, id);

-- "My machines" asks for those of an owner.
CREATE INDEX machines_owner ON machines (owner_user);
