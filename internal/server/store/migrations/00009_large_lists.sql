-- Lists of a large organisation: 100 000 users and machines, 10 million events.

-- +goose Up

-- Users are listed in order of their folded names, and found by how these begin.
DROP INDEX users_name_fold;
CREATE INDEX users_name_fold ON users (name_fold, name);

-- Few of many: who may do something, and which machines wait or are gone.
CREATE INDEX users_with_role ON users (name_fold, name) WHERE role <> 'none';
CREATE INDEX machines_status ON machines (status, id);

-- Open windows, those that end first at the beginning of the list.
DROP INDEX windows_open;
CREATE INDEX windows_open ON windows (expires_at, id) WHERE ended_at = 0;

-- Who is locked out or must wait, among all who ever mistyped.
CREATE INDEX attempts_locked ON attempts (locked_until);
CREATE INDEX attempts_blocked ON attempts (blocked_until);
