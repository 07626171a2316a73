-- Of the conversations that are kept for a day only those that are still open are
-- asked for: how many one machine has, and which are overdue.

-- +goose Up

DROP INDEX conversations_machine;
CREATE INDEX conversations_open ON conversations (machine_id, created_at) WHERE outcome = '';
CREATE INDEX conversations_overdue ON conversations (expires_at) WHERE outcome = '';

-- So are windows: they are kept for a month.
CREATE INDEX windows_open ON windows (expires_at) WHERE ended_at = 0;
