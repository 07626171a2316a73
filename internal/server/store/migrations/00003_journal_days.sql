-- What a machine's journal may make of itself in a day.

-- +goose Up

-- The day (since 1970, by the server's clock), how many events the journal has made of
-- itself on it, how many of its entries were only counted, and of what kinds (JSON).
ALTER TABLE journal_heads ADD COLUMN day BIGINT NOT NULL DEFAULT 0;
ALTER TABLE journal_heads ADD COLUMN taken BIGINT NOT NULL DEFAULT 0;
ALTER TABLE journal_heads ADD COLUMN folded BIGINT NOT NULL DEFAULT 0;
ALTER TABLE journal_heads ADD COLUMN kinds TEXT NOT NULL DEFAULT '';

-- A backup code that was used is not kept: no bundle needs it any more.
UPDATE backup_codes SET sealed = NULL WHERE used_at <> 0;
