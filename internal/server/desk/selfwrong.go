package desk

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// mostWrong bounds how many rejected factors one page of sign-ins is compared with.
const mostWrong = 500

// typed are the factors that are typed: only they can be a wrong code.
var typed = []string{string(policy.TOTP), string(policy.Backup), string(policy.Bypass), string(policy.Mail), string(policy.SMS)}

// talked is what the data of an event say about the conversation that it belongs to.
type talked struct {
	ID string `json:"conversation"`
	MS int64  `json:"duration_ms"`
}

func talkOf(e db.Event) (t talked) {
	_ = json.Unmarshal([]byte(e.Data), &t) // without it nothing is said about the event
	return t
}

// wrongCodes tells which of the sign-ins that came to no end had a wrong code, by the
// conversation that both events name: whoever reads "given up" for a try with the right
// password overlooks that somebody knows it (P3).
func (d *Desk) wrongCodes(ctx context.Context, userID string, rows []db.Event) (map[string]bool, error) {
	open := map[string]string{} // conversation → event
	f := store.EventFilter{Types: []string{string(event.FactorRejected)}, UserID: userID, Limit: mostWrong}
	for _, r := range rows {
		t := talkOf(r)
		if r.Type != string(event.SigninAbandoned) || t.ID == "" {
			continue
		}
		open[t.ID] = r.ID
		began := r.At - (time.Duration(max(t.MS, 0)) * time.Millisecond).Microseconds() - time.Second.Microseconds()
		if f.Since == 0 || began < f.Since {
			f.Since = began
		}
		f.Until = max(f.Until, r.At+1)
	}
	if len(open) == 0 {
		return nil, nil
	}
	list, err := d.Store.Events(ctx, f)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, e := range list {
		if slices.Contains(typed, e.Factor) && e.Reason != notSent {
			out[open[talkOf(e).ID]] = true
		}
	}
	delete(out, "")
	return out, nil
}

// notSent is the reason of a factor that could not be asked for: nobody gave a wrong code.
const notSent = "factor-not-sent"
