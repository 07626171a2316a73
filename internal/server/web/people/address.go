package people

import (
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// addAddress gives a user an address for codes that the administrator answers for (M6).
func addAddress(channel string) func(r *ui.Request, a desk.Actor, ref string) (done, error) {
	return func(r *ui.Request, a desk.Actor, ref string) (done, error) {
		f, err := r.Desk.AddAddress(r.Context(), a, ref, channel, rest.NewAddress{Address: forms.Get(r, channel, "address")})
		return done{notice: words.PostDeskAdded(f.To)}, err
	}
}
