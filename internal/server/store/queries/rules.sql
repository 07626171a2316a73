-- What policies that only report would have decided (P5), and named lists of events.

-- name: InsertPolicyReport :exec
INSERT INTO policy_reports (policy_id, at, event_id, version, user_id, outcome, change) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: CountPolicyReports :many
-- How many there are of each change since the version came, of the youngest N.
SELECT change, COUNT(*) AS n, COUNT(DISTINCT user_id) AS users FROM (
    SELECT r.change, r.user_id FROM policy_reports r
    WHERE r.policy_id = sqlc.arg(policy_id) AND r.version >= CAST(sqlc.arg(version) AS BIGINT)
    ORDER BY r.at DESC, r.event_id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT)
) AS youngest GROUP BY change ORDER BY change;

-- name: ListPolicyReports :many
-- Those of one change, the youngest first, with their events.
SELECT r.at, r.event_id, r.version, r.outcome, r.change, e.subject, e.machine, e.machine_id, e.user_id, e.outcome AS live_outcome, e.reason AS live_reason, e.scope
FROM policy_reports r JOIN events e ON e.id = r.event_id
WHERE r.policy_id = sqlc.arg(policy_id) AND r.change = sqlc.arg(change) AND r.at <= CAST(sqlc.arg(before_at) AS BIGINT)
  AND (r.at < CAST(sqlc.arg(before_at) AS BIGINT) OR r.event_id < CAST(sqlc.arg(before_id) AS TEXT))
ORDER BY r.at DESC, r.event_id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: DeleteOldPolicyReports :execrows
DELETE FROM policy_reports WHERE at < $1;

-- name: InsertEventView :exec
INSERT INTO event_views (id, owner, name, query, made_by, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: ListEventViews :many
-- The reader's own and the shared ones.
SELECT * FROM event_views WHERE owner = sqlc.arg(owner) OR owner = '' ORDER BY name, id LIMIT 500;

-- name: CountEventViews :one
SELECT COUNT(*) FROM event_views WHERE owner = $1;

-- name: GetEventView :one
SELECT * FROM event_views WHERE id = $1;

-- name: DeleteEventView :execrows
DELETE FROM event_views WHERE id = $1;

-- name: CountPeopleOfGroup :one
SELECT COUNT(*) FROM group_members WHERE group_id = $1;
