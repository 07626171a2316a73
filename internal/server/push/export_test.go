package push

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"

	"latchkey/internal/server/store/db"
)

// Endpoint and the like are judged without a network in tests.
func (d Delivery) Endpoint(s string) error        { return d.endpoint(s) }
func (d Delivery) Allowed(a netip.AddrPort) bool  { return d.rules().Allowed(a) == nil }
func (d Delivery) HTTP() *http.Client             { return d.rules().Client() }
func (a Answer) Form() error                      { return a.form() }
func (s *Service) NumberHash(id, n string) []byte { return s.numberHash(id, n) }
func TicketKey(ticket string) string              { return ticketKey(ticket) }
func (s *Service) Number() (string, error)        { return s.number() }

// The bounds of what is under way, and of what waits.
const (
	PerService = perService
	Senders    = senders
	MaxQueued  = maxQueued
	Strange    = strange
)

// NewLanes are lanes for notices that are ids alone.
func NewLanes(ctx context.Context, send func(ctx context.Context, id string) bool) (put func(service, id string), wait func()) {
	x := &lanes{ctx: ctx, log: slog.New(slog.DiscardHandler), send: func(ctx context.Context, n notice) outcome {
		if send(ctx, n.request.ID) {
			return wasAnswered
		}
		return wasSilent
	}}
	return func(service, id string) { x.put(service, notice{request: db.ListUntoldPushRequestsRow{ID: id}}) }, x.work.Wait
}
