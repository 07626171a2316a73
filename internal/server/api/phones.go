package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

func init() {
	for id, right := range map[string]string{
		"add-phone": "change", "unlock-push": "helpdesk", "begin-own-phone": "self", "show-own-phone-code": "self",
	} {
		rights[id] = right
	}
	secrets["add-phone"], secrets["begin-own-phone"] = true, true
	fresh["add-phone"], fresh["unlock-push"] = true, true
}

// phones registers phones with Latchkey Authenticator (M3). What phones say themselves
// goes through a door of their own: see phoneapi.
func (x *door) phones() {
	d := x.desk
	type UserPath struct {
		User string `path:"user" maxLength:"512" doc:"Name or id"`
	}
	add(x, op("add-phone", "POST", "/users/{user}/factors/push", "Make a one-time code with which a user's phone enrols", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *UserPath) (*plain[rest.PhoneCode], error) {
		return reply(d.AddPhone(ctx, a, in.User))
	})
	add(x, op("unlock-push", "POST", "/users/{user}/push/unlock", "Let requests go to a user's phones again, after one was reported", http.StatusOK), func(ctx context.Context, a desk.Actor, in *UserPath) (*plain[rest.Done], error) {
		return reply(d.UnlockPush(ctx, a, in.User))
	})
	add(x, op("begin-own-phone", "POST", "/me/factors/push", "Make a one-time code with which your phone enrols", http.StatusCreated), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.PhoneCode], error) {
		return reply(d.BeginOwnPhone(ctx, a))
	})
	add(x, op("show-own-phone-code", "GET", "/me/factors/push/{code}", "See what has become of such a code", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Code string `path:"code" maxLength:"64" doc:"Id"`
	},
	) (*plain[rest.PhoneProgress], error) {
		return reply(d.ShowOwnPhoneCode(ctx, a, in.Code))
	})
}
