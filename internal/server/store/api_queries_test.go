package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runIdempotency) }

func runIdempotency(c *script) {
	c.want("1", "InsertIdempotency", db.InsertIdempotencyParams{Key: "once", Actor: "a", BodyHash: []byte("h"), Reply: []byte("mark"), At: 1 << 50})
	c.want("0", "FinishIdempotency", db.FinishIdempotencyParams{Status: 201, Reply: []byte("r"), Key: "once", Mark: []byte("another")})
	c.want("0", "FinishIdempotency", db.FinishIdempotencyParams{Status: 201, Reply: []byte("r"), Key: "never", Mark: []byte("mark")})
	c.want("1", "FinishIdempotency", db.FinishIdempotencyParams{Status: 201, Reply: []byte("r"), Key: "once", Mark: []byte("mark")})
	c.want("0", "FinishIdempotency", db.FinishIdempotencyParams{Status: 200, Reply: []byte("s"), Key: "once", Mark: []byte("r")})
	c.do("GetIdempotency", "once")
}
