package people

import (
	"slices"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// pushLocked tells whether requests to the user's phones are locked.
func pushLocked(b *bench) bool {
	return slices.ContainsFunc(b.factors, func(f rest.Factor) bool { return f.State == "locked" })
}

// canBeLost tells whether a factor is a thing: codes are removed.
func canBeLost(f rest.Factor) bool {
	return f.State != "lost" && !slices.Contains([]string{"backup", "bypass", "enrol"}, f.Kind)
}

func addPhone(r *ui.Request, a desk.Actor, ref string) (done, error) {
	c, err := r.Desk.AddPhone(r.Context(), a, ref)
	if err != nil {
		return done{}, err
	}
	picture, err := factor.SVG(c.Link.Show(), words.PhoneQR)
	if err != nil {
		return done{}, err
	}
	return done{page: shown(words.PhoneTitle, rest.Code{User: c.User}), body: phonePage(c, picture, userPath(ref))}, nil
}

func unlockPush(r *ui.Request, a desk.Actor, ref string) (done, error) {
	_, err := r.Desk.UnlockPush(r.Context(), a, ref)
	return done{notice: words.PhoneUnlocked}, err
}
