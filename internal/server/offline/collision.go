package offline

import (
	"context"
	"encoding/json"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// Of a TOTP authenticator the server keeps the highest accepted step alone. Whether a
// lower one that a machine reports was accepted elsewhere too stands in the events:
// online in the data of factor.accepted, offline in what spentData has added to those
// of the journal.

// accepts are the data of such an event that matter here.
type accepts struct {
	Authenticator string      `json:"authenticator"`
	Step          int64       `json:"step"`
	Spent         *wire.Spent `json:"spent"`
}

// around is how far the time of such an event may be from its step: phones and the
// clocks of machines differ by minutes.
const around = 30 * time.Minute

// mostAccepted bounds the events that are looked at.
const mostAccepted = 500

// acceptedElsewhere tells whether the step was accepted before (S10).
func (r *reader) acceptedElsewhere(ctx context.Context, u *db.User, id string, p otp.Params, step int64) (bool, error) {
	at := time.Unix(step*int64(p.Period), 0)
	events, err := r.tx.ListAccepted(ctx, db.ListAcceptedParams{
		UserID: u.ID, Since: at.Add(-around).UnixMicro(), Until: at.Add(around).UnixMicro(), N: mostAccepted,
	})
	if err != nil {
		return false, err
	}
	for _, e := range events {
		var a accepts
		if json.Unmarshal([]byte(e.Data), &a) != nil {
			continue
		}
		if a.Spent != nil && a.Spent.Authenticator == id && a.Spent.Step == step ||
			e.Type == string(event.FactorAccepted) && a.Authenticator == id && a.Step == step {
			return true, nil
		}
	}
	return false, nil
}

// spentData adds to an event's data what was spent.
func spentData(data json.RawMessage, s wire.Spent) json.RawMessage {
	all := map[string]json.RawMessage{}
	if len(data) > 0 && json.Unmarshal(data, &all) != nil {
		return data // it is no object: it stays as it is
	}
	what := map[string]any{"authenticator": s.Authenticator, "step": s.Step}
	switch {
	case s.Key != "":
		what = map[string]any{"authenticator": s.Key, "count": s.Step}
	case s.Authenticator == "":
		return data
	}
	b, err := json.Marshal(what)
	if err != nil {
		return data
	}
	all["spent"] = b
	out, err := json.Marshal(all)
	if err != nil {
		return data
	}
	return out
}
