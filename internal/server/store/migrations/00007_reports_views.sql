-- What policies that only report would have decided, and the lists of events that
-- people have given a name.

-- +goose Up

-- One row for each sign-in and policy that reports; no foreign keys: what was reported
-- stays when the policy goes. change: a word of policy.Change.
CREATE TABLE policy_reports (
    policy_id TEXT COLLATE "C" NOT NULL,
    at        BIGINT NOT NULL,
    event_id  TEXT COLLATE "C" NOT NULL,
    version   BIGINT NOT NULL,
    user_id   TEXT COLLATE "C" NOT NULL DEFAULT '',
    outcome   TEXT NOT NULL,
    change    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (policy_id, at, event_id)
);
CREATE INDEX policy_reports_change ON policy_reports (policy_id, change, at, event_id);
CREATE INDEX policy_reports_at ON policy_reports (at);

-- owner '' is shared with everybody who may read events. query is that of the page's
-- address.
CREATE TABLE event_views (
    id         TEXT COLLATE "C" PRIMARY KEY,
    owner      TEXT COLLATE "C" NOT NULL DEFAULT '',
    name       TEXT COLLATE "C" NOT NULL,
    query      TEXT NOT NULL,
    made_by    TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (owner, name)
);

-- A reason that is rare is found without a look at every event.
CREATE INDEX events_reason ON events (reason, at, id);
