-- Users, groups and who belongs where.

-- name: InsertUser :exec
INSERT INTO users (id, name, name_fold, display_name, mail, role, password_hash, password_changed_at,
    password_generation, must_change, activation, activate_at, activated_at, disabled, mfa, uid, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: GetUser :one
SELECT * FROM users WHERE id = $1;

-- name: GetUserByName :one
-- The exact name (S6).
SELECT * FROM users WHERE name = $1;

-- name: ListUsersByFold :many
-- Every user whose lower-cased name is this one (S5: "a match only that way is denied with a hint").
SELECT * FROM users WHERE name_fold = $1 ORDER BY name;

-- name: ListUsersByUID :many
SELECT * FROM users WHERE uid = CAST(sqlc.arg(uid) AS BIGINT) ORDER BY name;

-- name: ListUsers :many
-- The next page in order of names after "after" (empty = the first); prefix empty = all.
SELECT * FROM users
WHERE name > sqlc.arg(after) AND substr(name_fold, 1, length(CAST(sqlc.arg(prefix) AS TEXT))) = CAST(sqlc.arg(prefix) AS TEXT)
ORDER BY name LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountUsers :one
SELECT COUNT(*) FROM users;

-- name: CountActiveOwners :one
-- Of those, who may sign in at that time: an activation may lie in the future (D1).
SELECT COUNT(*) FROM users WHERE role = 'owner' AND disabled = FALSE
  AND (activation = 'now' OR activation = 'first-login' OR (activation = 'at' AND activate_at <= CAST(sqlc.arg(at) AS BIGINT)))
  AND id <> CAST(sqlc.arg(other_than) AS TEXT);

-- name: UpdateUser :execrows
-- What administrators edit; 0 rows = somebody else was faster (rev) or no such user.
UPDATE users SET display_name = $1, mail = $2, mail_own = (CASE WHEN mail = $2 THEN mail_own ELSE FALSE END), role = $3, must_change = $4, activation = $5, activate_at = $6,
    activated_at = $7, disabled = $8, mfa = $9, uid = $10, updated_at = $11, rev = rev + 1
WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: SetUserPassword :execrows
-- A new password: the generation rises, so that machines refuse older vaults (O5).
UPDATE users SET password_hash = sqlc.arg(password_hash), password_changed_at = sqlc.arg(at),
    password_generation = password_generation + 1, must_change = sqlc.arg(must_change), updated_at = sqlc.arg(at), rev = rev + 1
WHERE id = sqlc.arg(id);

-- name: ActivateUser :execrows
UPDATE users SET activated_at = sqlc.arg(at), updated_at = sqlc.arg(at), rev = rev + 1 WHERE id = sqlc.arg(id) AND activated_at = 0;

-- name: DeleteUser :execrows
-- Fails while vaults of the user stand: they are wiped first.
DELETE FROM users WHERE id = $1;

-- name: InsertGroup :exec
INSERT INTO groups (id, name, mfa, created_at, updated_at) VALUES ($1, $2, $3, $4, $5);

-- name: GetGroup :one
SELECT * FROM groups WHERE id = $1;

-- name: GetGroupByName :one
SELECT * FROM groups WHERE name = $1;

-- name: ListGroups :many
SELECT * FROM groups WHERE name > sqlc.arg(after) ORDER BY name LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: UpdateGroup :execrows
UPDATE groups SET name = $1, mfa = $2, updated_at = $3, rev = rev + 1 WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: DeleteGroup :execrows
DELETE FROM groups WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: AddGroupMember :execrows
INSERT INTO group_members (group_id, user_id) VALUES ($1, $2) ON CONFLICT (group_id, user_id) DO NOTHING;

-- name: RemoveGroupMember :execrows
DELETE FROM group_members WHERE group_id = $1 AND user_id = $2;

-- name: ListGroupsOfUser :many
SELECT g.* FROM groups g JOIN group_members m ON m.group_id = g.id WHERE m.user_id = $1 ORDER BY g.name;

-- name: ListMembersOfGroup :many
SELECT u.* FROM users u JOIN group_members m ON m.user_id = u.id
WHERE m.group_id = sqlc.arg(group_id) AND u.name > sqlc.arg(after) ORDER BY u.name LIMIT CAST(sqlc.arg(n) AS BIGINT);
