-- The codes of a kind that have gone out are counted before each further one, while others wait to write.

-- +goose Up
CREATE INDEX post_codes_kind ON post_codes (kind, created_at);
