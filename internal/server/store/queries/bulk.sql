-- Import of users in bulk (internal/server/bulk).

-- name: InsertImport :exec
INSERT INTO imports (id, source, label, actor, actor_user, actor_role, actor_local, address, state, skip_bad, codes, codes_for, make_groups, ignore_unknown, created_at, updated_at, lease_until, lease_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: GetImport :one
SELECT * FROM imports WHERE id = $1;

-- name: ListImports :many
-- The youngest first, behind "before" (empty: from the youngest on).
SELECT * FROM imports WHERE CAST(sqlc.arg(before) AS TEXT) = '' OR id < CAST(sqlc.arg(before) AS TEXT)
ORDER BY id DESC LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: CountOpenImports :one
SELECT COUNT(*) FROM imports WHERE actor = sqlc.arg(actor) AND ended_at = 0;

-- name: MoveImport :execrows
-- The next state, if it is still in the one that was seen; 0 rows: somebody else was faster.
UPDATE imports SET state = sqlc.arg(state), problem = sqlc.arg(problem), updated_at = sqlc.arg(at), applied_at = sqlc.arg(applied_at), ended_at = sqlc.arg(ended_at),
    lease_until = sqlc.arg(lease_until), lease_by = sqlc.arg(lease_by)
WHERE id = sqlc.arg(id) AND state = sqlc.arg(old_state);

-- name: BeginReading :execrows
-- A file or query is about to be read into an import that has none yet.
UPDATE imports SET source = sqlc.arg(source), label = sqlc.arg(label), updated_at = sqlc.arg(at), lease_until = sqlc.arg(lease_until), lease_by = sqlc.arg(lease_by)
WHERE id = sqlc.arg(id) AND state = 'reading' AND source = '';

-- name: SetImportColumns :execrows
UPDATE imports SET columns = sqlc.arg(columns) WHERE id = sqlc.arg(id);

-- name: SetImportGroups :execrows
UPDATE imports SET made_groups = sqlc.arg(made_groups) WHERE id = sqlc.arg(id);

-- name: SetImportProblem :execrows
UPDATE imports SET problem = sqlc.arg(problem) WHERE id = sqlc.arg(id);

-- name: CountReading :execrows
-- Rows were read; the lease is lengthened. 0 rows: it was dropped, or another server has it.
UPDATE imports SET bytes_read = sqlc.arg(bytes_read), rows_read = sqlc.arg(rows_read), rows_new = sqlc.arg(rows_new), rows_changed = sqlc.arg(rows_changed),
    rows_same = sqlc.arg(rows_same), rows_faulty = sqlc.arg(rows_faulty), updated_at = sqlc.arg(at), lease_until = sqlc.arg(lease_until)
WHERE id = sqlc.arg(id) AND lease_by = sqlc.arg(lease_by);

-- name: HoldImport :execrows
UPDATE imports SET lease_until = sqlc.arg(lease_until), updated_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND lease_by = sqlc.arg(lease_by);

-- name: CountDone :execrows
UPDATE imports SET rows_done = rows_done + sqlc.arg(n), updated_at = sqlc.arg(at), lease_until = sqlc.arg(lease_until)
WHERE id = sqlc.arg(id) AND lease_by = sqlc.arg(lease_by);

-- name: CountTold :execrows
UPDATE imports SET rows_told = rows_told + sqlc.arg(n), codes_left = codes_left + sqlc.arg(codes), updated_at = sqlc.arg(at), lease_until = sqlc.arg(lease_until)
WHERE id = sqlc.arg(id) AND lease_by = sqlc.arg(lease_by);

-- name: TakeImport :execrows
-- One server at a time works on it.
UPDATE imports SET lease_by = sqlc.arg(lease_by), lease_until = sqlc.arg(lease_until), updated_at = sqlc.arg(at)
WHERE id = sqlc.arg(id) AND state = sqlc.arg(state) AND (lease_until < sqlc.arg(at) OR lease_by = sqlc.arg(lease_by));

-- name: OtherImportApplies :one
SELECT COUNT(*) FROM imports WHERE id <> sqlc.arg(id) AND (state = 'applying' OR state = 'telling');

-- name: ListAbandonedImports :many
-- What a server that is gone has left.
SELECT * FROM imports WHERE ended_at = 0 AND lease_until < sqlc.arg(at) AND (state = 'reading' OR state = 'applying' OR state = 'telling') ORDER BY id;

-- name: DeleteImport :execrows
DELETE FROM imports WHERE id = sqlc.arg(id) AND state <> 'applying' AND state <> 'telling';

-- name: InsertImportRow :exec
INSERT INTO import_rows (import_id, n, line, state, name, name_fold, input, user_id, seen_rev, fields, display_name, mail, role, password_hash, must_change,
    activation, activate_at, disabled, mfa, uid, disables, changes, faults, note, want_code)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25);

-- name: InsertImportMember :exec
INSERT INTO import_members (import_id, user_id, group_id, n, added) VALUES ($1, $2, $3, $4, $5);

-- name: DeleteImportRow :execrows
DELETE FROM import_rows WHERE import_id = $1 AND n = $2;

-- name: DeleteImportMembersOfRow :execrows
DELETE FROM import_members WHERE import_id = $1 AND n = $2;

-- name: GetImportRow :one
SELECT * FROM import_rows WHERE import_id = $1 AND n = $2;

-- name: ListImportRows :many
-- A page behind "after"; state empty = any.
SELECT * FROM import_rows WHERE import_id = sqlc.arg(import_id) AND n > sqlc.arg(after)
  AND (CAST(sqlc.arg(state) AS TEXT) = '' OR state = CAST(sqlc.arg(state) AS TEXT))
ORDER BY n LIMIT CAST(sqlc.arg(limit_n) AS BIGINT);

-- name: ListStaleImportRows :many
-- Rows whose user is no longer what the plan was made for: changed, gone, or there by now.
SELECT r.n FROM import_rows r LEFT JOIN users u ON u.name = r.name
WHERE r.import_id = sqlc.arg(import_id) AND r.done = FALSE AND r.state <> 'faulty'
  AND (CAST(COALESCE(u.rev, 0) AS BIGINT) <> r.seen_rev OR (r.seen_rev > 0 AND CAST(COALESCE(u.id, '') AS TEXT) <> r.user_id))
ORDER BY r.n;

-- name: ListImportRowsWithLostGroups :many
-- Rows that put somebody into a group that is no more.
SELECT DISTINCT m.n FROM import_members m JOIN import_rows r ON r.import_id = m.import_id AND r.n = m.n
WHERE m.import_id = sqlc.arg(import_id) AND m.added = TRUE AND r.done = FALSE AND r.state <> 'faulty'
  AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.id = m.group_id)
ORDER BY m.n;

-- name: CountImportRows :many
SELECT state, COUNT(*) AS n FROM import_rows WHERE import_id = $1 GROUP BY state;

-- name: CountImportChanges :one
-- How much of a slice changes users' own rows, and how much there is to do.
SELECT CAST(COALESCE(SUM(CASE WHEN state = 'changed' AND fields THEN 1 ELSE 0 END), 0) AS BIGINT) AS fields,
    CAST(COALESCE(SUM(CASE WHEN state = 'changed' THEN 1 ELSE 0 END), 0) AS BIGINT) AS changed,
    CAST(COALESCE(SUM(CASE WHEN state = 'new' THEN 1 ELSE 0 END), 0) AS BIGINT) AS fresh
FROM import_rows WHERE import_id = sqlc.arg(import_id) AND n > sqlc.arg(after) AND n <= sqlc.arg(last) AND done = FALSE;

-- name: ImportNewUsers :execrows
INSERT INTO users (id, name, name_fold, display_name, mail, role, password_hash, password_changed_at, must_change, activation, activate_at, activated_at,
    disabled, mfa, uid, created_at, updated_at)
SELECT r.user_id, r.name, r.name_fold, r.display_name, r.mail, r.role, r.password_hash, CASE WHEN r.password_hash = '' THEN 0 ELSE CAST(sqlc.arg(at) AS BIGINT) END,
    r.must_change, r.activation, r.activate_at, CASE WHEN r.activation = 'now' THEN CAST(sqlc.arg(at) AS BIGINT) ELSE 0 END,
    r.disabled, r.mfa, r.uid, CAST(sqlc.arg(at) AS BIGINT), CAST(sqlc.arg(at) AS BIGINT)
FROM import_rows r
WHERE r.import_id = sqlc.arg(import_id) AND r.state = 'new' AND r.done = FALSE AND r.n > sqlc.arg(after) AND r.n <= sqlc.arg(last);

-- name: ImportChangedUsers :execrows
-- Only users who are still what the plan was made for.
UPDATE users SET display_name = r.display_name, mail_own = (CASE WHEN users.mail = r.mail THEN users.mail_own ELSE FALSE END), mail = r.mail, role = r.role, activation = r.activation, activate_at = r.activate_at,
    disabled = r.disabled, mfa = r.mfa, uid = r.uid, updated_at = sqlc.arg(at), rev = users.rev + 1
FROM import_rows r
WHERE r.import_id = sqlc.arg(import_id) AND r.state = 'changed' AND r.fields = TRUE AND r.done = FALSE AND r.n > sqlc.arg(after) AND r.n <= sqlc.arg(last)
  AND users.id = r.user_id AND users.rev = r.seen_rev;

-- name: ImportAddedMembers :execrows
INSERT INTO group_members (group_id, user_id)
SELECT m.group_id, m.user_id FROM import_members m
WHERE m.import_id = sqlc.arg(import_id) AND m.added = TRUE AND m.n > sqlc.arg(after) AND m.n <= sqlc.arg(last)
ON CONFLICT (group_id, user_id) DO NOTHING;

-- name: ImportRemovedMembers :execrows
DELETE FROM group_members
WHERE user_id IN (SELECT m.user_id FROM import_members m WHERE m.import_id = sqlc.arg(import_id) AND m.added = FALSE AND m.n > sqlc.arg(after) AND m.n <= sqlc.arg(last))
  AND EXISTS (SELECT 1 FROM import_members x WHERE x.import_id = sqlc.arg(import_id) AND x.user_id = group_members.user_id AND x.group_id = group_members.group_id AND x.added = FALSE);

-- name: ListImportedUsers :many
-- Users of a slice that were there before and changed; only_disabled: those whom it disables.
SELECT user_id FROM import_rows
WHERE import_id = sqlc.arg(import_id) AND n > sqlc.arg(after) AND n <= sqlc.arg(last) AND state = 'changed'
  AND (disables = TRUE OR CAST(sqlc.arg(only_disabled) AS BOOLEAN) = FALSE)
ORDER BY n;

-- name: ListUntoldImportRows :many
-- Rows behind "after" up to "last" whose users were changed, and whose events are still to be written.
SELECT * FROM import_rows
WHERE import_id = sqlc.arg(import_id) AND n > sqlc.arg(after) AND n <= sqlc.arg(last) AND told = FALSE AND (state = 'new' OR state = 'changed')
ORDER BY n LIMIT CAST(sqlc.arg(limit_n) AS BIGINT);

-- name: TellImportRow :execrows
UPDATE import_rows SET done = TRUE, told = TRUE, code = sqlc.arg(code), password_hash = '' WHERE import_id = sqlc.arg(import_id) AND n = sqlc.arg(n) AND told = FALSE;

-- name: ListImportCodes :many
SELECT n, name, user_id, display_name, mail, code FROM import_rows
WHERE import_id = sqlc.arg(import_id) AND n > sqlc.arg(after) AND code IS NOT NULL ORDER BY n LIMIT CAST(sqlc.arg(limit_n) AS BIGINT);

-- name: ForgetImportCodes :execrows
-- Whoever has got them has got them; from "after" up to "last".
UPDATE import_rows SET code = NULL WHERE import_id = sqlc.arg(import_id) AND n > sqlc.arg(after) AND n <= sqlc.arg(last) AND code IS NOT NULL;

-- name: SetImportCodesLeft :execrows
UPDATE imports SET codes_left = codes_left - sqlc.arg(n) WHERE id = sqlc.arg(id);

-- name: CountOldImportCodes :one
-- Imports whose codes are to be forgotten.
SELECT COUNT(*) FROM imports WHERE codes_left > 0 AND ended_at > 0 AND ended_at < sqlc.arg(ended);

-- name: ForgetOldImportCodes :execrows
UPDATE import_rows SET code = NULL
WHERE code IS NOT NULL AND import_id IN (SELECT i.id FROM imports i WHERE i.codes_left > 0 AND i.ended_at > 0 AND i.ended_at < sqlc.arg(ended));

-- name: ForgetOldImportCounts :execrows
UPDATE imports SET codes_left = 0 WHERE codes_left > 0 AND ended_at > 0 AND ended_at < sqlc.arg(ended);

-- name: InsertImportSource :exec
INSERT INTO import_sources (id, name, driver, place, address, query, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: GetImportSource :one
SELECT * FROM import_sources WHERE id = $1;

-- name: GetImportSourceByName :one
SELECT * FROM import_sources WHERE name = $1;

-- name: ListImportSources :many
SELECT * FROM import_sources ORDER BY name;

-- name: UseImportSource :execrows
UPDATE import_sources SET used_at = sqlc.arg(at) WHERE id = sqlc.arg(id);

-- name: DeleteImportSource :execrows
DELETE FROM import_sources WHERE id = $1;

-- name: ListImportMembersOfRow :many
-- With the names of the groups; empty if a group is no more.
SELECT m.group_id, m.added, CAST(COALESCE((SELECT g.name FROM groups g WHERE g.id = m.group_id), '') AS TEXT) AS group_name
FROM import_members m WHERE m.import_id = $1 AND m.n = $2 ORDER BY m.group_id;

-- name: ReplaceImportGroup :execrows
-- A group that was to be made is there by now.
UPDATE import_members SET group_id = sqlc.arg(group_id) WHERE import_id = sqlc.arg(import_id) AND group_id = sqlc.arg(old_id);

-- name: DeleteImportRowsUpTo :execrows
DELETE FROM import_rows WHERE import_id = sqlc.arg(import_id) AND n <= sqlc.arg(last);

-- name: DeleteImportMembersUpTo :execrows
DELETE FROM import_members WHERE import_id = sqlc.arg(import_id) AND n <= sqlc.arg(last);

-- name: FirstImportRow :one
SELECT CAST(COALESCE(MIN(n), 0) AS BIGINT) FROM import_rows WHERE import_id = $1;

-- name: ListOldImports :many
-- What nobody looks at any more, or nobody has applied.
SELECT id FROM imports WHERE (ended_at > 0 AND ended_at < sqlc.arg(ended)) OR (state = 'checked' AND updated_at < sqlc.arg(checked)) ORDER BY id;

-- name: SetImportCounts :execrows
UPDATE imports SET rows_new = sqlc.arg(rows_new), rows_changed = sqlc.arg(rows_changed), rows_same = sqlc.arg(rows_same), rows_faulty = sqlc.arg(rows_faulty)
WHERE id = sqlc.arg(id);
