-- What people do for themselves (internal/server/desk, self*.go), and what they report.

-- name: ListOwnMachines :many
-- The machines that have anything to do with the user, by id behind "after": assigned to, known to, owned by the user, or with offline data.
SELECT sqlc.embed(m), CAST(COALESCE(k.since, 0) AS BIGINT) AS known_since,
    CAST((SELECT COUNT(*) FROM windows w WHERE w.user_id = sqlc.arg(user_id) AND w.machine_id = m.id AND w.ended_at = 0 AND w.expires_at > sqlc.arg(at)) AS BIGINT) AS windows
FROM machines m LEFT JOIN machine_known k ON k.machine_id = m.id AND k.user_id = sqlc.arg(user_id)
WHERE m.id > sqlc.arg(after)
  AND (CAST(sqlc.arg(only_id) AS TEXT) = '' OR m.id = CAST(sqlc.arg(only_id) AS TEXT))
  AND m.id IN (SELECT n.machine_id FROM machine_known n WHERE n.user_id = sqlc.arg(user_id)
    UNION SELECT a.machine_id FROM machine_users a WHERE a.user_id = sqlc.arg(user_id)
    UNION SELECT o.id FROM machines o WHERE o.owner_user = sqlc.arg(user_id)
    UNION SELECT v.machine_id FROM vaults v WHERE v.user_id = sqlc.arg(user_id) AND v.state <> 'wiped')
ORDER BY m.id LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: InsertReport :exec
INSERT INTO reports (id, user_id, kind, event_id, machine_id, machine, told, address, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: GetReport :one
SELECT sqlc.embed(r), u.name AS user_name FROM reports r JOIN users u ON u.id = r.user_id WHERE r.id = $1;

-- name: FindOpenReport :many
-- The user's open reports of the same sign-in or machine.
SELECT * FROM reports
WHERE user_id = sqlc.arg(user_id) AND state = 'open' AND kind = sqlc.arg(kind) AND event_id = sqlc.arg(event_id) AND machine_id = sqlc.arg(machine_id)
ORDER BY id LIMIT 1;

-- name: ListReportedEvents :many
-- Which sign-ins the user has reported, for the list of them.
SELECT event_id, state FROM reports WHERE user_id = $1 AND event_id <> '' ORDER BY id DESC LIMIT 200;

-- name: ListReports :many
-- A page, the youngest first, before an id ('' = from the youngest on); state and user empty = any.
SELECT sqlc.embed(r), u.name AS user_name FROM reports r JOIN users u ON u.id = r.user_id
WHERE (CAST(sqlc.arg(before) AS TEXT) = '' OR r.id < CAST(sqlc.arg(before) AS TEXT))
  AND (CAST(sqlc.arg(state) AS TEXT) = '' OR r.state = CAST(sqlc.arg(state) AS TEXT))
  AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR r.user_id = CAST(sqlc.arg(user_id) AS TEXT))
ORDER BY r.id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountOpenReportsOfUser :one
SELECT COUNT(*) FROM reports WHERE state = 'open' AND user_id = $1;

-- name: HandleReport :execrows
-- 0 rows: somebody else was faster.
UPDATE reports SET state = 'handled', handled_at = sqlc.arg(at), handled_by = sqlc.arg(handled_by), answer = sqlc.arg(answer), rev = rev + 1
WHERE id = sqlc.arg(id) AND state = 'open';

-- name: SetUserFace :execrows
-- What people change of themselves.
UPDATE users SET display_name = sqlc.arg(display_name), mail_own = (CASE WHEN mail = sqlc.arg(mail) THEN mail_own ELSE TRUE END), mail = sqlc.arg(mail), updated_at = sqlc.arg(at), rev = rev + 1
WHERE id = sqlc.arg(id) AND rev = sqlc.arg(rev);
