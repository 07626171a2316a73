-- Certificates of users, revocations and the list of them (M4, E4).

-- name: InsertUserCertificate :exec
INSERT INTO user_certificates (serial, user_id, machine_id, name, key_class, not_before, not_after, created_at, fingerprint)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: GetUserCertificate :one
-- With whose it is: what may be done with it is judged anew each time.
SELECT sqlc.embed(c), sqlc.embed(u) FROM user_certificates c JOIN users u ON u.id = c.user_id WHERE c.serial = $1;

-- name: ListUserCertificates :many
-- The youngest first.
SELECT sqlc.embed(c), CAST(COALESCE(m.name, '') AS TEXT) AS machine_name FROM user_certificates c LEFT JOIN machines m ON m.id = c.machine_id
WHERE c.user_id = sqlc.arg(user_id) ORDER BY c.created_at DESC, c.serial LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: ListLiveUserCertificates :many
-- Those of the user on the machine (empty: made by request) that are good now, the youngest first.
SELECT * FROM user_certificates
WHERE user_id = sqlc.arg(user_id) AND machine_id = sqlc.arg(machine_id) AND revoked_at = 0 AND not_after > sqlc.arg(at) ORDER BY created_at DESC, serial;

-- name: CountLiveUserCertificates :one
SELECT COUNT(*) FROM user_certificates WHERE user_id = sqlc.arg(user_id) AND revoked_at = 0 AND not_after > sqlc.arg(at);

-- name: SeeUserCertificate :execrows
UPDATE user_certificates SET last_used_at = sqlc.arg(at), last_address = sqlc.arg(address) WHERE serial = sqlc.arg(serial) AND last_used_at < sqlc.arg(at);

-- name: RevokeUserCertificate :execrows
UPDATE user_certificates SET revoked_at = sqlc.arg(at), reason = sqlc.arg(reason) WHERE serial = sqlc.arg(serial) AND revoked_at = 0;

-- name: ListUnrevokedCertificates :many
-- Serial numbers of a user, of a machine, or of both together; empty = any. Not both empty. Those that have expired are among
-- them: a clock that is ahead would spare them, and they are good again when it is right.
SELECT serial, not_after FROM user_certificates
WHERE revoked_at = 0
    AND (CAST(sqlc.arg(user_id) AS TEXT) = '' OR user_id = CAST(sqlc.arg(user_id) AS TEXT))
    AND (CAST(sqlc.arg(machine_id) AS TEXT) = '' OR machine_id = CAST(sqlc.arg(machine_id) AS TEXT))
ORDER BY serial;

-- name: RevokeMachineCertificate :execrows
UPDATE machine_certificates SET revoked_at = sqlc.arg(at), reason = sqlc.arg(reason) WHERE serial = sqlc.arg(serial) AND revoked_at = 0;

-- name: InsertRevocation :execrows
INSERT INTO revocations (serial, number, revoked_at, not_after, reason) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (serial) DO NOTHING;

-- name: LastRevocation :one
-- The number of the last revocation; 0: there was none.
SELECT CAST(COALESCE(MAX(value), 0) AS BIGINT) FROM counters WHERE name = 'revocations';

-- name: ListRevocations :many
-- What belongs in the list at that time, after the serial number.
SELECT * FROM revocations WHERE not_after > sqlc.arg(at) AND serial > sqlc.arg(after) ORDER BY serial LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: RevokedSince :many
-- What was revoked behind the number.
SELECT serial, number FROM revocations WHERE number > sqlc.arg(number) ORDER BY number, serial LIMIT CAST(sqlc.arg(n) AS BIGINT);

-- name: DeleteOldRevocations :execrows
-- Of certificates that expired before.
DELETE FROM revocations WHERE not_after < sqlc.arg(before);

-- name: DeleteOldUserCertificates :execrows
-- That expired before.
DELETE FROM user_certificates WHERE not_after < sqlc.arg(before);

-- name: GetRevocationList :one
SELECT * FROM revocation_list WHERE id = 'main';

-- name: PutRevocationList :exec
INSERT INTO revocation_list (id, number, upto, der, this_update, next_update) VALUES ('main', $1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET number = excluded.number, upto = excluded.upto, der = excluded.der, this_update = excluded.this_update, next_update = excluded.next_update;

-- name: InsertCertificateSession :exec
INSERT INTO certificate_sessions (session_id, serial) VALUES ($1, $2);

-- name: GetCertificateSession :one
-- The certificate that has opened the session.
SELECT sqlc.embed(c) FROM certificate_sessions s JOIN user_certificates c ON c.serial = s.serial WHERE s.session_id = $1;

-- name: DeleteSessionsOfCertificate :execrows
DELETE FROM sessions WHERE id IN (SELECT session_id FROM certificate_sessions WHERE serial = sqlc.arg(serial));

-- name: DeleteCertificateSessions :execrows
-- All that certificates have opened.
DELETE FROM sessions WHERE id IN (SELECT session_id FROM certificate_sessions);

-- name: LastWindowOpened :one
-- When the user last completed an MFA on the machine with a factor that opens the
-- console; 0: it is not known of one. Of windows that were ended because somebody may have
-- been who should not, neither they count nor what was before: the words are those that
-- end a window without such a reason.
SELECT CAST(COALESCE(MAX(w.opened_at), 0) AS BIGINT) FROM windows w WHERE w.user_id = sqlc.arg(user_id) AND w.machine_id = sqlc.arg(machine_id)
  AND (w.factors <> REPLACE(w.factors, '"fido2"', '') OR w.factors <> REPLACE(w.factors, '"push"', '') OR w.factors <> REPLACE(w.factors, '"totp"', ''))
  AND NOT EXISTS (
    SELECT 1 FROM windows d WHERE d.user_id = w.user_id AND d.machine_id = w.machine_id AND d.ended_at >= w.opened_at
      AND d.end_reason NOT IN ('', 'superseded', 'logoff', 'reboot', 'network', 'offline-signin'));
