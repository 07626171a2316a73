-- Lists in other orders than their own, and a table that nobody wrote.

-- +goose Up

-- Names of machines need not be unique: the id makes the order one that a page can be continued in.
DROP INDEX machines_name;
CREATE INDEX machines_name ON machines (name, id);
CREATE INDEX machines_seen ON machines (last_seen_at, id);
CREATE INDEX vaults_until ON vaults (expires_at, user_id, machine_id, generation);

-- Checkpoints are events of the chain. A row here could only have helped whoever can write
-- the database to call the loss of the oldest events a tidying-up.
DROP TABLE checkpoints;
