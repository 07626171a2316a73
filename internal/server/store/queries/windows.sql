-- Windows, where "any or equal" would go through those of the whole fleet.

-- name: ListWindowsOfMachine :many
-- The open windows of one machine, by id behind "after".
SELECT * FROM windows
WHERE machine_id = sqlc.arg(machine_id) AND ended_at = 0 AND expires_at > sqlc.arg(at) AND id > sqlc.arg(after)
ORDER BY id LIMIT CAST(sqlc.arg(n) AS BIGINT);
