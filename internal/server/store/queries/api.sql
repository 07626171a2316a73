-- What the API keeps of requests that may be sent again (Idempotency-Key).

-- name: FinishIdempotency :execrows
-- mark is what the claim has left as the reply: only the request that claimed finishes.
UPDATE idempotency SET status = sqlc.arg(status), reply = sqlc.arg(reply) WHERE key = sqlc.arg(key) AND status = 0 AND reply = sqlc.arg(mark);
