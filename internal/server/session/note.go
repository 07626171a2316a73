package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
)

// update runs fn as a transaction; what the database refuses becomes a fault.
func (m *Sessions) update(ctx context.Context, fn func(ctx context.Context, tx *store.Tx) error) error {
	err := m.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := desk.Claim(ctx, tx); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
	var f *fault.Fault
	switch {
	case err == nil || errors.As(err, &f):
		return err
	case store.IsDuplicate(err):
		return fault.New(fault.Exists, err)
	case store.IsUnavailable(err):
		return fault.New(fault.Unavailable, err)
	}
	return err
}

// note writes an event. Nothing that was typed as an answer is ever in it.
func (m *Sessions) note(tx *store.Tx, e event.Event, data map[string]any) error {
	for k, v := range data {
		if v == "" || v == nil {
			delete(data, k)
		}
	}
	if len(data) > 0 {
		b, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("data of the event %s: %w", e.Type, err)
		}
		e.Data = b
	}
	e.At = clock.Micros(m.Clock.Now())
	e.ReceivedAt = e.At
	_, err := tx.Event(e)
	return err
}

func may(a desk.Actor, right string) error {
	if !a.Can(right) {
		return fault.New(fault.Forbidden, nil)
	}
	return nil
}
