package rules_test

import (
	"context"
	"encoding/json"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/web/webtest"
)

// signins writes two sign-ins of yesterday: one with a second factor, one within its window.
func signins(r *webtest.Rig, p webtest.Person, machineID string) {
	r.Helper()
	r.Must(r.Store.Update(r.Context(), func(_ context.Context, tx *store.Tx) error {
		for i, mfa := range []bool{true, false} {
			data, err := json.Marshal(map[string]any{
				"mfa": mfa, "factors": []policy.Factor{policy.TOTP}[:map[bool]int{true: 1}[mfa]], "trace": []policy.Step{{Rule: "S2 second factor", Verdict: policy.Applied, Why: "1 of totp"}},
				"past": policy.Past{Form: policy.PastForm, First: policy.FirstServer, Result: policy.FirstAccepted, Boot: "boot-1", Assigned: true},
			})
			if err != nil {
				return err
			}
			_, err = tx.Event(event.Event{
				Type: event.SigninAllowed, Actor: p.Name, Subject: p.Name, UserID: p.ID, MachineID: machineID, Machine: "laptop", Scope: "logon", Service: "login",
				Link: "up", Outcome: "allow", Reason: "mfa-required", At: clock.Micros(r.Manual.Now().Add(-24*time.Hour + time.Duration(i)*time.Hour)), Data: data,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
}
