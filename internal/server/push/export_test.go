package push

import (
	"net/http"
	"net/netip"
)

// Endpoint and the like are judged without a network in tests.
func (d Delivery) Endpoint(s string) error        { return d.endpoint(s) }
func (d Delivery) Allowed(a netip.AddrPort) bool  { return d.allowed(a) }
func (d Delivery) HTTP() *http.Client             { return d.client() }
func (a Answer) Form() error                      { return a.form() }
func (s *Service) NumberHash(id, n string) []byte { return s.numberHash(id, n) }
func TicketKey(ticket string) string              { return ticketKey(ticket) }
func (s *Service) Number() (string, error)        { return s.number() }
