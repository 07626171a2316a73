-- Latchkey Authenticator (internal/server/push): phones, what they are asked, and locks.

-- name: SetAuthenticatorParent :execrows
UPDATE authenticators SET parent = CAST(sqlc.arg(parent) AS TEXT) WHERE id = sqlc.arg(id);

-- name: InsertPushDevice :exec
INSERT INTO push_devices (authenticator_id, user_id, public_key, platform, standalone, created_at, seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: GetPushDevice :one
SELECT sqlc.embed(d), sqlc.embed(a), u.name AS user_name, u.display_name, u.disabled
FROM push_devices d JOIN authenticators a ON a.id = d.authenticator_id JOIN users u ON u.id = d.user_id
WHERE d.authenticator_id = $1;

-- name: ListPushDevices :many
SELECT sqlc.embed(d), sqlc.embed(a) FROM push_devices d JOIN authenticators a ON a.id = d.authenticator_id WHERE d.user_id = $1 ORDER BY a.id;

-- name: SeePushDevice :execrows
UPDATE push_devices SET seen_at = sqlc.arg(at) WHERE authenticator_id = sqlc.arg(id) AND seen_at < sqlc.arg(at);

-- name: SetPushSubscription :execrows
UPDATE push_devices SET subscription = sqlc.arg(subscription), subscribed_at = sqlc.arg(at) WHERE authenticator_id = sqlc.arg(id);

-- name: DropPushSubscription :execrows
-- Only the one that was found gone: a new one may have come meanwhile.
UPDATE push_devices SET subscription = NULL, subscribed_at = 0 WHERE authenticator_id = sqlc.arg(id) AND subscribed_at = sqlc.arg(at);

-- name: SetPushCredential :execrows
-- Only a first one: another takes a new enrolment.
UPDATE push_devices SET credential = sqlc.arg(credential) WHERE authenticator_id = sqlc.arg(id) AND credential IS NULL;

-- name: MovePushCredential :execrows
-- The counter of the credential was used.
UPDATE push_devices SET credential = sqlc.arg(credential) WHERE authenticator_id = sqlc.arg(id) AND credential = sqlc.arg(was);

-- name: InsertPushEnrolment :exec
INSERT INTO push_enrolments (id, user_id, hash, generation, enrol_code, session, by_actor, by_user, by_token, role, self, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: GetPushEnrolment :one
SELECT * FROM push_enrolments WHERE id = $1;

-- name: FindPushEnrolment :one
SELECT * FROM push_enrolments WHERE hash = $1;

-- name: SpendPushEnrolment :execrows
UPDATE push_enrolments SET used_at = sqlc.arg(at), device_id = sqlc.arg(device_id) WHERE id = sqlc.arg(id) AND used_at = 0 AND expires_at > sqlc.arg(at);

-- name: EndPushEnrolments :execrows
-- A new code ends the older ones of the user.
UPDATE push_enrolments SET expires_at = sqlc.arg(at) WHERE user_id = sqlc.arg(user_id) AND used_at = 0 AND expires_at > sqlc.arg(at);

-- name: DeleteOldPushEnrolments :execrows
DELETE FROM push_enrolments WHERE expires_at < $1;

-- name: InsertPushRequest :exec
INSERT INTO push_requests (id, user_id, ticket, door, machine_id, machine, scope, service, address, content, nonce, number_hash, verification, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: GetPushRequest :one
SELECT * FROM push_requests WHERE id = $1;

-- name: FindPushRequest :one
-- The youngest of a ticket.
SELECT * FROM push_requests WHERE ticket = $1 ORDER BY id DESC LIMIT 1;

-- name: GetPushState :one
-- What whoever waits looks at.
SELECT state, expires_at FROM push_requests WHERE ticket = $1 ORDER BY id DESC LIMIT 1;

-- name: ListOpenPushRequests :many
SELECT * FROM push_requests WHERE user_id = sqlc.arg(user_id) AND state = 'open' AND expires_at > sqlc.arg(at) ORDER BY id LIMIT 20;

-- name: OpenPushRequestAt :one
SELECT * FROM push_requests WHERE user_id = sqlc.arg(user_id) AND door = sqlc.arg(door) AND machine_id = sqlc.arg(machine_id) AND state = 'open' ORDER BY id LIMIT 1;

-- name: AnswerPushRequest :execrows
-- 0 rows: somebody was faster, or it is too late.
UPDATE push_requests SET state = sqlc.arg(state), reason = sqlc.arg(reason), device_id = sqlc.arg(device_id), verified = sqlc.arg(verified), answered_at = sqlc.arg(at)
WHERE id = sqlc.arg(id) AND state = 'open' AND expires_at > sqlc.arg(at);

-- name: ReportPushRequest :execrows
-- Also one that is over, or was withdrawn. 0 rows: it was answered, or is too old.
UPDATE push_requests SET state = 'reported', reason = sqlc.arg(reason), device_id = sqlc.arg(device_id), answered_at = sqlc.arg(at)
WHERE id = sqlc.arg(id) AND state IN ('open', 'expired', 'withdrawn') AND created_at > sqlc.arg(since);

-- name: SpendPushRequest :execrows
UPDATE push_requests SET state = 'spent' WHERE id = $1 AND state = 'approved';

-- name: ClosePushRequest :execrows
UPDATE push_requests SET state = sqlc.arg(state), answered_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND state = 'open';

-- name: ExpirePushRequests :execrows
UPDATE push_requests SET state = 'expired' WHERE user_id = sqlc.arg(user_id) AND state = 'open' AND expires_at <= sqlc.arg(at);

-- name: ListPushTickets :many
-- Those that are to be withdrawn with another one.
SELECT id, ticket FROM push_requests WHERE user_id = sqlc.arg(user_id) AND state = 'open' ORDER BY id LIMIT 20;

-- name: WithdrawPushRequests :execrows
UPDATE push_requests SET state = 'withdrawn', answered_at = sqlc.arg(at) WHERE user_id = sqlc.arg(user_id) AND state IN ('open', 'approved');

-- name: CountPushRequests :one
-- Requests that came to nothing since a time: against fatigue.
SELECT COUNT(*) FROM push_requests
WHERE user_id = sqlc.arg(user_id) AND created_at > sqlc.arg(since) AND state NOT IN ('approved', 'spent');

-- name: CountPushRequestsAt :one
-- The same at one machine or door.
SELECT COUNT(*) FROM push_requests
WHERE user_id = sqlc.arg(user_id) AND created_at > sqlc.arg(since) AND door = sqlc.arg(door) AND machine_id = sqlc.arg(machine_id) AND state NOT IN ('approved', 'spent');

-- name: CountPushRequestsOfMachine :one
-- The same of everybody at one machine.
SELECT COUNT(*) FROM push_requests WHERE machine_id = sqlc.arg(machine_id) AND created_at > sqlc.arg(since) AND state NOT IN ('approved', 'spent');

-- name: CountPushApprovedAt :one
-- What the user has approved at one machine.
SELECT COUNT(*) FROM push_requests
WHERE user_id = sqlc.arg(user_id) AND created_at > sqlc.arg(since) AND door = sqlc.arg(door) AND machine_id = sqlc.arg(machine_id) AND state = 'spent';

-- name: ListPushWithdrawals :many
-- When the last two at one door were withdrawn, the youngest first.
SELECT answered_at FROM push_requests
WHERE user_id = sqlc.arg(user_id) AND created_at > sqlc.arg(since) AND answered_at > sqlc.arg(since) AND door = sqlc.arg(door) AND machine_id = sqlc.arg(machine_id) AND state = 'withdrawn'
ORDER BY answered_at DESC LIMIT 2;

-- name: ListUntoldPushRequests :many
SELECT id, user_id, expires_at FROM push_requests WHERE told_at = 0 AND state = 'open' AND created_at > sqlc.arg(since) ORDER BY created_at LIMIT 200;

-- name: TellPushRequest :execrows
-- Whoever changes the row tells the phones.
UPDATE push_requests SET told_at = sqlc.arg(at) WHERE id = sqlc.arg(id) AND told_at = 0;

-- name: DeleteOldPushRequests :execrows
DELETE FROM push_requests WHERE created_at < $1;

-- name: GetPushLock :one
SELECT * FROM push_locks WHERE user_id = $1;

-- name: LockPush :execrows
INSERT INTO push_locks (user_id, reason, request_id, report_id, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id) DO NOTHING;

-- name: UnlockPush :execrows
DELETE FROM push_locks WHERE user_id = $1;

-- name: WithdrawAllPushRequests :execrows
-- The database has lost its last changes: an approval may have been spent in them.
UPDATE push_requests SET state = 'withdrawn' WHERE state IN ('open', 'approved');

-- name: EndAllPushEnrolments :execrows
-- And a code may have been used.
UPDATE push_enrolments SET expires_at = sqlc.arg(at) WHERE used_at = 0 AND expires_at > sqlc.arg(at);
