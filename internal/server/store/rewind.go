package store

import (
	"context"
	"encoding/json"
	"errors"

	"latchkey/internal/event"
)

// errRewound: the end of this replica's chain lies before what it has committed. A
// standby has taken over that did not have the last changes yet, or a backup was put
// back behind the server's back. Somebody was told of changes that are no more:
// nothing is added to the chain before that is written down and dealt with.
var errRewound = errors.New("the database has lost changes that it had committed")

// noteRewind writes chain.rewound, and has Config.Rewound do what must be done.
func (s *Store) noteRewind() error {
	lost, found := s.last, s.found
	at := func(h head) string { return Mark{Chain: s.conf.Replica, Seq: h.seq, Hash: h.hash}.String() }
	s.log.Error("the database has lost changes that it had committed; was a standby promoted that replicates asynchronously?",
		"committed", at(lost), "found", at(found))
	data, err := json.Marshal(map[string]any{"committed": at(lost), "found": at(found)})
	if err != nil {
		return err
	}
	s.rewinding = true
	defer func() { s.rewinding = false }()
	j := newJob()
	// The writer itself asks: somebody else must play it.
	go func() {
		if tx, ok := <-j.turn; ok {
			j.play(context.WithValue(s.life, inUpdate{}, true), tx, func(ctx context.Context, tx *Tx) error {
				_, err := tx.Event(event.Event{Type: event.ChainRewound, Actor: "server", Subject: s.conf.Replica, Outcome: "noticed", Data: data})
				if err == nil && s.conf.Rewound != nil {
					err = s.conf.Rewound(ctx, tx)
				}
				return err
			})
		}
	}()
	err = s.runBatch([]*job{j}).errs[0]
	close(j.turn)
	if err != nil {
		s.log.Error("that the database has lost changes could not be written down; nothing is until it can", "error", err)
		return err
	}
	s.found = head{}
	return nil
}

// lookBack compares this replica's chain with what it has committed. It is done when
// a connection was made anew, because it may lead to another database server.
func (s *Store) lookBack() {
	s.work.Go(func() {
		err := s.Update(s.life, func(ctx context.Context, tx *Tx) error { return tx.lockChain(ctx) })
		if err != nil && s.life.Err() == nil {
			s.log.Warn("the event chain could not be looked at", "error", err)
		}
	})
}
