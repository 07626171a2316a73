package desk_test

import (
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
)

// TestWhatAFactorMayBeCalled: at the command line ids are long, and what one word fits must
// be one factor before it is marked or removed.
func TestWhatAFactorMayBeCalled(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		r.Desk.Sessions = &keeping{}
		addUser(t, r, "anna", rest.RoleNone)
		add := func(name string) rest.TOTP { return ok(r.AddTOTP(ctx, root, "anna", rest.NewTOTP{Name: name}))(t) }
		one, two := add("phone"), add("tablet")
		ok(r.AddBackup(ctx, root, "anna"))(t)
		for _, ref := range []string{"", "f", "fac_", "watch", "backu", "push", two.ID + "0"} {
			wantCode(t, refusal(r.LoseFactor(ctx, root, "anna", ref)), fault.NotFound)
			wantCode(t, refusal(r.RemoveFactor(ctx, root, "anna", ref)), fault.NotFound)
		}
		// Both ids begin with the time.
		for _, ref := range []string{"totp", one.ID[:10]} {
			wantCode(t, refusal(r.LoseFactor(ctx, root, "anna", ref)), fault.Conflict)
		}
		wantCode(t, refusal(r.RemoveFactor(ctx, root, "anna", one.ID[:10])), fault.Conflict)
		if f := ok(r.LoseFactor(ctx, root, "anna", "tablet"))(t); f.ID != two.ID {
			t.Errorf("tablet is %+v", f)
		}
		if f := ok(r.LoseFactor(ctx, root, "anna", "totp"))(t); f.ID != one.ID {
			t.Errorf("the only totp that is not lost is %+v", f)
		}
		if d := ok(r.RemoveFactor(ctx, root, "anna", one.ID[:len(one.ID)-1]))(t); d.Count != 1 {
			t.Errorf("%d were removed by the beginning of an id", d.Count)
		}
		if d := ok(r.RemoveFactor(ctx, root, "anna", "backup"))(t); d.Count != 1 {
			t.Errorf("%d sets were removed", d.Count)
		}
	})
}
