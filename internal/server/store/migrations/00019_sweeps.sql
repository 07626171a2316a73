-- For what looks at whole tables by itself: the hourly removal of old requests, and the counts of messages.

-- +goose Up
CREATE INDEX push_requests_created ON push_requests (created_at);
CREATE INDEX outbox_states ON outbox (channel, state);
