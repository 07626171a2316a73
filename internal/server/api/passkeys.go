package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

func init() {
	for _, id := range []string{"begin-own-passkey", "confirm-own-passkey", "remove-own-passkeys"} {
		rights[id] = "self"
	}
	secrets["begin-own-passkey"] = true
}

// passkeys registers one's own passkeys (M2). They are listed, renamed, marked as lost and
// removed like any factor, and those of others too: the kind is fido2.
func (x *door) passkeys() {
	d := x.desk
	add(x, op("begin-own-passkey", "POST", "/me/passkeys/begin", "Begin to set up a passkey", http.StatusOK), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.PendingPasskey], error) {
		return reply(d.BeginOwnPasskey(ctx, a))
	})
	add(x, op("confirm-own-passkey", "POST", "/me/passkeys", "Give what the browser has made", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.ConfirmPasskey }) (*plain[rest.Factor], error) {
		return reply(d.ConfirmOwnPasskey(ctx, a, in.Body))
	})
	add(x, op("remove-own-passkeys", "DELETE", "/me/passkeys", "Remove all your passkeys", http.StatusOK), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Done], error) {
		return reply(d.RemoveOwnPasskeys(ctx, a))
	})
}
