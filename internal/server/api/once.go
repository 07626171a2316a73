package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// KeyHeader lets a program send a POST again without its being done twice: within 24
// hours the same key of the same actor with the same request gets the same answer.
//
// The claim of the key is written in the transaction that does what was asked for
// (desk.Once), so that neither a crash nor two requests at once do it twice. The answer
// is kept sealed. One that holds a secret is not kept at all: who repeats such a
// request learns that it was done, and not the secret. A request that was refused has
// done nothing, keeps no key, and may be sent again.
const KeyHeader = "Idempotency-Key"

// ReplayedHeader stands on an answer that was given before.
const ReplayedHeader = "Idempotency-Replayed"

// validKey judges a key: 1 to 128 printable characters of ASCII without blanks.
func validKey(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// kept is an answer as it lies in the table, sealed.
type kept struct {
	Type string `json:"type,omitempty"`
	ETag string `json:"etag,omitempty"`
	Body []byte `json:"body,omitempty"`
}

// onceKey is what is stored of a key and of a request: neither can be tried out with
// the database alone, because a body may hold a password.
func (x *door) onceKey(a desk.Actor, key string, r *http.Request, body []byte) *desk.Once {
	mac := func(parts ...string) []byte {
		h := hmac.New(sha256.New, x.desk.Keys.Pepper.Reveal())
		for _, p := range append([]string{"latchkey/api/once"}, parts...) {
			n := sha256.Sum256([]byte(p))
			h.Write(n[:])
		}
		return h.Sum(nil)
	}
	mark := make([]byte, 16)
	_, _ = rand.Read(mark) // never fails since Go 1.24: it ends the process instead
	return &desk.Once{
		Key: hex.EncodeToString(mac("key", a.Name, a.UserID, key)), Actor: a.Name, Mark: mark, At: clock.Micros(x.desk.Clock.Now()),
		BodyHash: mac("request", r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("If-Match"), string(body)),
	}
}

// once carries out a request with a key, or answers as the first one was.
func (x *door) once(w http.ResponseWriter, r *http.Request, o operation, mux *http.ServeMux) {
	ctx := r.Context()
	w.Header().Set("Cache-Control", "no-store")
	refuse := func(err error) { writeProblem(w, x.problem(ctx, err, false)) }
	bad := func(what string, a ...any) { refuse(fault.New(fault.Invalid, nil).With(KeyHeader, what, a...)) }
	values := r.Header.Values(KeyHeader)
	a, err := actor(ctx)
	switch {
	case err != nil:
		bad("nobody has signed in yet, so there is nobody whose key it is")
		return
	case r.Method != http.MethodPost:
		bad("%s is the same however often it is sent and takes no key", r.Method)
		return
	case len(values) != 1 || !validKey(values[0]):
		bad("it is not one key of 1 to 128 printable characters of ASCII without blanks")
		return
	case o.MaxBodyBytes > maxKept:
		bad("this operation takes no key: sent twice it does the same")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, o.MaxBodyBytes+1))
	if tooLarge := (*http.MaxBytesError)(nil); err != nil && !errors.As(err, &tooLarge) {
		refuse(fault.New(fault.BadRequest, err))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	claim := x.onceKey(a, values[0], r, body)
	if x.replay(ctx, w, claim) {
		return
	}
	rec := &recorder{w: w}
	mux.ServeHTTP(rec, r.WithContext(desk.WithOnce(ctx, claim)))
	if rec.status == http.StatusConflict && !rec.through && x.replay(ctx, w, claim) {
		return // somebody was faster with the same key
	}
	if err := x.keep(context.WithoutCancel(ctx), claim, rec, secrets[o.OperationID]); err != nil {
		// It was done, and the claim says so. Only a repetition has no answer.
		x.log.WarnContext(ctx, "the answer to a request with a key was not kept", "error", err)
	}
	rec.pass()
}

// replay answers if the key was used before.
func (x *door) replay(ctx context.Context, w http.ResponseWriter, c *desk.Once) bool {
	var row db.Idempotency
	err := x.desk.Store.Read(ctx, func(q *store.Queries) (err error) {
		row, err = q.GetIdempotency(ctx, c.Key)
		return err
	})
	fail := func(err error) bool {
		writeProblem(w, x.problem(ctx, err, false))
		return true
	}
	switch {
	case store.IsNotFound(err):
		return false
	case err != nil:
		return fail(err)
	case !hmac.Equal(row.BodyHash, c.BodyHash):
		return fail(fault.New(fault.Invalid, nil).With(KeyHeader, "it was used for another request within the last 24 hours; take a new key for each request"))
	case row.Status == 0 && c.At-row.At < answerTime.Microseconds():
		return fail(desk.ErrClaimed)
	case row.Status == 0 || len(row.Reply) == 0:
		return fail(fault.Newf(fault.Conflict, "The request with this %s was carried out before. Its answer is not kept, because it holds a secret that is shown once or because the server stopped behind it: look at what it made, remove that if you need it anew, and ask with another key.", KeyHeader))
	}
	plain, err := x.desk.Keys.Box.Open(row.Reply, "idempotency", "reply", row.Key)
	if err != nil {
		return fail(err)
	}
	defer plain.Wipe()
	var k kept
	if err := json.Unmarshal(plain.Reveal(), &k); err != nil {
		return fail(err)
	}
	h := w.Header()
	for name, v := range map[string]string{"Content-Type": k.Type, "ETag": k.ETag} {
		if v != "" {
			h.Set(name, v)
		}
	}
	h.Set(ReplayedHeader, "true")
	w.WriteHeader(int(row.Status))
	_, _ = w.Write(k.Body)
	return true
}

// keep keeps the answer.
func (x *door) keep(ctx context.Context, c *desk.Once, rec *recorder, secret bool) error {
	var reply []byte
	if !secret && !rec.through {
		b, err := json.Marshal(kept{rec.Header().Get("Content-Type"), rec.Header().Get("ETag"), rec.body.Bytes()})
		if err != nil {
			return err
		}
		reply = x.desk.Keys.Box.Seal(b, "idempotency", "reply", c.Key)
		clear(b)
	}
	return x.desk.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.FinishIdempotency(ctx, db.FinishIdempotencyParams{Status: int64(rec.status), Reply: reply, Key: c.Key, Mark: c.Mark})
		if err != nil || n == 1 || rec.status >= 300 {
			return err
		}
		// What writes nothing claims nothing.
		_, err = tx.InsertIdempotency(ctx, db.InsertIdempotencyParams{Key: c.Key, Actor: c.Actor, BodyHash: c.BodyHash, Status: int64(rec.status), Reply: reply, At: c.At})
		return err
	})
}
