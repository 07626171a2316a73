-- Policies, the groups they belong to, and their history (P1, P5).

-- name: InsertPolicy :exec
INSERT INTO policies (id, name, priority, is_default, body, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: GetPolicy :one
SELECT * FROM policies WHERE id = $1;

-- name: GetPolicyByName :one
SELECT * FROM policies WHERE name = $1;

-- name: GetDefaultPolicy :one
SELECT * FROM policies WHERE is_default = TRUE ORDER BY id LIMIT 1;

-- name: ListPolicies :many
-- The strongest first.
SELECT * FROM policies ORDER BY is_default, priority DESC, name;

-- name: UpdatePolicy :execrows
UPDATE policies SET name = $1, priority = $2, body = $3, version = version + 1, updated_at = $4, rev = rev + 1
WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);

-- name: DeletePolicy :execrows
-- The default policy stays (P1).
DELETE FROM policies WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev) AND is_default = FALSE;

-- name: AddPolicyGroup :execrows
INSERT INTO policy_groups (policy_id, group_id) VALUES ($1, $2) ON CONFLICT (policy_id, group_id) DO NOTHING;

-- name: ClearPolicyGroups :execrows
DELETE FROM policy_groups WHERE policy_id = $1;

-- name: ListGroupsOfPolicy :many
SELECT g.* FROM groups g JOIN policy_groups p ON p.group_id = g.id WHERE p.policy_id = $1 ORDER BY g.name;

-- name: ListPolicyGroups :many
SELECT * FROM policy_groups ORDER BY policy_id, group_id;

-- name: InsertPolicyVersion :exec
INSERT INTO policy_versions (policy_id, version, name, priority, body, groups, actor, at, comment)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: GetPolicyVersion :one
SELECT * FROM policy_versions WHERE policy_id = $1 AND version = $2;

-- name: ListPolicyVersions :many
SELECT * FROM policy_versions WHERE policy_id = sqlc.arg(policy_id) ORDER BY version DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);
