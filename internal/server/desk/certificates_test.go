package desk_test

import (
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
)

// TestCertificateSettingsCanBeSentBack: the console's form is filled with what is shown, and sent
// in again with one thing changed.
func TestCertificateSettingsCanBeSentBack(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, portal := t.Context(), "portal"
		for _, life := range []string{"720h", "30 days", "90m", "7d"} {
			s := ok(r.ChangeCertificateSettings(ctx, desk.Root(), rest.CertificateSettingsChange{Life: &life}))(t)
			if got := ok(r.ChangeCertificateSettings(ctx, desk.Root(), rest.CertificateSettingsChange{Use: &portal, Life: &s.Life}))(t); got.Life != s.Life || got.Use != portal {
				t.Errorf("life %q: shown as %q, sent back and shown as %+v", life, s.Life, got)
			}
		}
	})
}
