-- What goes out to people: mails and text messages that wait to be sent, and the codes that were sent (M6).

-- +goose Up

-- Whether the person has typed the mail address: an enrolment code is only mailed to what somebody else has answered for (E1).
ALTER TABLE users ADD COLUMN mail_own BOOLEAN NOT NULL DEFAULT FALSE;

-- body: whom to and what, sealed; NULL once it is sent, or of no use any more. mask: the address as people may see it.
-- leased_until: until then the server named in lease is sending it.
CREATE TABLE outbox (
    id           TEXT COLLATE "C" PRIMARY KEY,
    channel      TEXT NOT NULL,
    purpose      TEXT NOT NULL,
    urgent       BOOLEAN NOT NULL DEFAULT FALSE,
    user_id      TEXT NOT NULL DEFAULT '',
    subject      TEXT NOT NULL DEFAULT '',
    mask         TEXT NOT NULL DEFAULT '',
    body         BYTEA,
    state        TEXT NOT NULL DEFAULT 'waiting',
    tries        BIGINT NOT NULL DEFAULT 0,
    reason       TEXT NOT NULL DEFAULT '',
    detail       TEXT NOT NULL DEFAULT '',
    lease        TEXT NOT NULL DEFAULT '',
    leased_until BIGINT NOT NULL DEFAULT 0,
    due_at       BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    done_at      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX outbox_due ON outbox (channel, due_at) WHERE state = 'waiting';
CREATE INDEX outbox_done ON outbox (state, done_at);

-- Codes that were sent. hash and place are HMACs under the pepper, of the code and of the address.
CREATE TABLE post_codes (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,
    ticket     TEXT COLLATE "C" NOT NULL,
    authenticator_id TEXT NOT NULL DEFAULT '',
    hash       BYTEA NOT NULL,
    place      BYTEA NOT NULL,
    tries      BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX post_codes_ticket ON post_codes (ticket, created_at);
CREATE INDEX post_codes_user ON post_codes (user_id, created_at);
CREATE INDEX post_codes_place ON post_codes (place, created_at);
CREATE INDEX post_codes_created ON post_codes (created_at);
