-- Where codes and requests are asked for, so that one machine can not use up what others may ask; and who has made a phone's code.

-- +goose Up

-- door: machine, portal, step-up, or confirm for the code that shows whose an address is. machine_id: at a machine.
ALTER TABLE post_codes ADD COLUMN door TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE post_codes ADD COLUMN machine_id TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX post_codes_machine ON post_codes (machine_id, created_at);
CREATE INDEX push_requests_machine ON push_requests (machine_id, created_at);

-- by_user: the id of whoever has made the code; empty: root at the server. by_token: of the API token, if a program has.
-- role: that the user had then.
ALTER TABLE push_enrolments ADD COLUMN by_user TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE push_enrolments ADD COLUMN by_token TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE push_enrolments ADD COLUMN role TEXT NOT NULL DEFAULT '';

-- Codes of before can not be judged by that: they are made anew.
DELETE FROM push_enrolments WHERE used_at = 0;
