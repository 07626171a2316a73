package passkey

import (
	"context"
	"time"

	"latchkey/internal/server/party"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Bench gives what judges an answer to the challenge of the ticket, which stays.
func (s *Service) Bench(ctx context.Context, st *store.Store, u db.User, ticket string) (check func([]byte) error, err error) {
	err = st.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		k, _, err := spend(ctx, tx, ticketOf(toSign, ticket), u.ID, time.Time{}, toSign)
		if err != nil {
			return err
		}
		p, err := s.site(ctx, tx.Queries)
		if err != nil {
			return err
		}
		who, _, err := s.owner(ctx, tx, u, p.ID, time.Time{})
		if err != nil {
			return err
		}
		check = func(answer []byte) error {
			parsed, err := party.Parse(answer)
			if err != nil {
				return err
			}
			_, err = p.Judge(who, k.Session, parsed)
			return err
		}
		return nil
	})
	return check, err
}

// BenchFinish gives what judges an answer to the registration of the ticket, which stays.
func (s *Service) BenchFinish(ctx context.Context, st *store.Store, u db.User, ticket string) (check func([]byte) error, err error) {
	err = st.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		k, _, err := spend(ctx, tx, ticketOf(toRegister, ticket), u.ID, time.Time{}, toRegister)
		if err != nil {
			return err
		}
		p, err := s.site(ctx, tx.Queries)
		if err != nil {
			return err
		}
		who, _, err := s.owner(ctx, tx, u, p.ID, time.Time{})
		if err != nil {
			return err
		}
		check = func(answer []byte) error {
			parsed, err := party.ParseRegistration(answer)
			if err != nil {
				return err
			}
			_, err = p.Register(who, k.Session, parsed)
			return err
		}
		return nil
	})
	return check, err
}
