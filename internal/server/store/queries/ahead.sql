-- What a clock that was ahead, and is right again, has left in the future: it would wait there, or be counted, until then.

-- name: BringOutboxBack :execrows
-- What is due, or leased, later than anything is put off.
UPDATE outbox SET due_at = sqlc.arg(at), lease = '', leased_until = 0
WHERE state = 'waiting' AND (due_at > sqlc.arg(later) OR leased_until > sqlc.arg(later));

-- name: DeletePostCodesAhead :execrows
DELETE FROM post_codes WHERE created_at > sqlc.arg(later);

-- name: DeletePushRequestsAhead :execrows
DELETE FROM push_requests WHERE created_at > sqlc.arg(later);
