// Package checkpoint records the head of this replica's event chain every hour:
// signed, as an event of the chain itself, and in the log, which lies outside of
// the database (V4). Whoever rewrites a chain as a whole would have to sign the
// checkpoints in it anew, and does not have the grant key; and the heads in the log
// can be given to `latchkey events verify`.
package checkpoint

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/seal"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Config is what Write needs; all fields are required.
type Config struct {
	Store *store.Store
	Keys  *keys.Keys
	Clock clock.Clock
	Log   *slog.Logger
}

// head is what is signed.
type head struct {
	Chain string `json:"chain"`
	Seq   int64  `json:"seq"`
	Hash  string `json:"hash"`
	At    int64  `json:"at"`
}

// data is the data of the event.
type data struct {
	Mark   string `json:"mark"` // CHAIN:SEQ:HASH, as `latchkey events verify` takes it
	Signed []byte `json:"signed"`
}

// Write records the head as it is now, unless nothing has happened since the last
// time.
func Write(ctx context.Context, c Config) error {
	heads, err := c.Store.Heads(ctx)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	for _, m := range heads {
		if m.Chain != c.Store.Replica() || m.Seq == 0 {
			continue
		}
		last, err := lastEvent(ctx, c.Store, m)
		if err != nil || last.Type == string(event.ChainCheckpoint) {
			return err
		}
		payload, err := json.Marshal(head{Chain: m.Chain, Seq: m.Seq, Hash: hex.EncodeToString(m.Hash[:]), At: clock.Micros(c.Clock.Now())})
		if err != nil {
			return err
		}
		d, err := json.Marshal(data{Mark: m.String(), Signed: seal.Sign(c.Keys.Grant, seal.Checkpoint, "", payload)})
		if err != nil {
			return err
		}
		failpoint.Hit("checkpoint.signed")
		err = c.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
			_, err := tx.Event(event.Event{Type: event.ChainCheckpoint, Actor: "server", Subject: m.Chain, Data: d})
			return err
		})
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		failpoint.Hit("checkpoint.written")
		c.Log.Info("the head of the event chain", "mark", m.String())
	}
	return nil
}

func lastEvent(ctx context.Context, s *store.Store, m store.Mark) (e db.Event, err error) {
	err = s.Read(ctx, func(q *store.Queries) error {
		list, err := q.ListChainEvents(ctx, db.ListChainEventsParams{Chain: m.Chain, After: m.Seq - 1, N: 1})
		if err == nil && len(list) == 1 {
			e = list[0]
		}
		return err
	})
	return e, err
}

// Fault is a checkpoint that does not fit the chain that it stands in.
type Fault struct {
	Chain string
	Seq   int64 // of the checkpoint's event
	Why   string
}

// Verify checks every checkpoint in the log: its signature by the grant key, and
// that the event that it speaks of has the hash that was signed. Together with
// store.VerifyEvents, which shows that the hashes fit the events, it shows a chain
// that was rewritten behind the server's back.
func Verify(ctx context.Context, s *store.Store, grant ed25519.PublicKey) (checked int, faults []Fault, err error) {
	err = s.Read(ctx, func(q *store.Queries) error {
		chains, err := q.ListChains(ctx)
		if err != nil {
			return err
		}
		for _, c := range chains {
			if err := verifyChain(ctx, q, c.Chain, grant, &checked, &faults); err != nil {
				return err
			}
		}
		return nil
	})
	return checked, faults, err
}

func verifyChain(ctx context.Context, q *store.Queries, chain string, grant ed25519.PublicKey, checked *int, faults *[]Fault) error {
	for after := int64(0); ; {
		page, err := q.ListChainEvents(ctx, db.ListChainEventsParams{Chain: chain, After: after, N: 1000})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			after = e.Seq
			if e.Type != string(event.ChainCheckpoint) {
				continue
			}
			*checked++
			why, err := judge(ctx, q, e, grant)
			if err != nil {
				return err
			}
			if why != "" {
				*faults = append(*faults, Fault{Chain: chain, Seq: e.Seq, Why: why})
			}
		}
	}
}

func judge(ctx context.Context, q *store.Queries, e db.Event, grant ed25519.PublicKey) (why string, err error) {
	var d data
	var h head
	if json.Unmarshal([]byte(e.Data), &d) != nil {
		return "its data can not be read", nil
	}
	payload, err := seal.Verify(grant, seal.Checkpoint, "", d.Signed)
	if err != nil || json.Unmarshal(payload, &h) != nil {
		return "it is not signed by this server", nil
	}
	if h.Chain != e.Chain || h.Seq >= e.Seq {
		return "it was signed for another place", nil
	}
	list, err := q.ListChainEvents(ctx, db.ListChainEventsParams{Chain: h.Chain, After: h.Seq - 1, N: 1})
	if err != nil {
		return "", err
	}
	if len(list) == 0 || list[0].Seq != h.Seq {
		return fmt.Sprintf("event %d, whose hash was signed, is missing", h.Seq), nil
	}
	if hex.EncodeToString(list[0].Hash) != h.Hash {
		return fmt.Sprintf("event %d has another hash than was signed", h.Seq), nil
	}
	return "", nil
}
