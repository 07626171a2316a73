package offline

import (
	"context"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// heard is what one delivery tells of the use of somebody's offline data: what the
// machine has counted, so that the report and "who is stuck" know of it (O14, O16).
type heard struct {
	vault           *db.Vault
	signins, tries  int64 // sign-ins and tries, as they are after it
	added           int64 // sign-ins of this delivery
	maxSign, maxTry int64 // what the policy allows
	shut            string
}

// wrongTry tells the reasons for which a machine counts a try.
func wrongTry(reason string) bool {
	switch reason {
	case "wrong-password", "wrong-code", "code-used", "backup-used", "clock-behind":
		return true
	}
	return false
}

// hear takes note of an event of the machine about the user.
func (r *reader) hear(ctx context.Context, userID string, e event.Event) error {
	if e.Link == string(policy.LinkUp) || e.Type != event.SigninAllowed && e.Type != event.SigninDenied {
		return nil
	}
	h, ok := r.heard[userID]
	if !ok {
		h = &heard{}
		v, err := r.tx.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: userID, MachineID: r.m.ID})
		switch {
		case err == nil:
			h.vault, h.signins, h.tries, h.shut = &v, v.Used, v.Tries, v.Shut
			// Of somebody to whom no policy applies any more, what it was.
			h.maxSign, h.maxTry = v.UsesLeft+v.Used, v.FailLimit
			p, err := facts.PolicyOf(ctx, r.tx.Queries, userID)
			if err != nil {
				return err
			}
			if p != nil {
				h.maxSign, h.maxTry = int64(p.OfflineSignins), int64(p.OfflineTries)
			}
		case !store.IsNotFound(err):
			return err
		}
		if r.heard == nil {
			r.heard = map[string]*heard{}
		}
		r.heard[userID] = h
	}
	if h.vault == nil {
		return nil
	}
	if e.Type == event.SigninAllowed {
		h.signins++
		h.added++
		h.tries, h.shut = 0, ""
		return nil
	}
	if e.At < h.vault.CountedFrom {
		return nil // the counters have become fresh since
	}
	switch {
	case e.Reason == string(policy.ReasonVaultSignins):
		h.signins = max(h.signins, h.maxSign)
	case e.Reason == string(policy.ReasonVaultTries):
		h.tries = max(h.tries, h.maxTry)
	case e.Reason == string(policy.ReasonVaultRemote) && h.shut == "", e.Reason == facts.ReasonChecks:
		h.shut = e.Reason
	case wrongTry(e.Reason):
		h.tries++
	}
	return nil
}

// remember writes down what was heard.
func (r *reader) remember(ctx context.Context) error {
	for id, h := range r.heard {
		if h.vault == nil {
			continue
		}
		_, err := r.tx.CountVault(ctx, db.CountVaultParams{
			UserID: id, MachineID: r.m.ID, Generation: h.vault.Generation, CountedFrom: h.vault.CountedFrom,
			Used: h.signins, Signins: h.added, Tries: h.tries, Shut: h.shut, At: clock.Micros(r.now),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
