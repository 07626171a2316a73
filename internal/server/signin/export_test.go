package signin

import "time"

// Impatient shortens how long a repeated step waits for whoever judges it.
func (s *Service) Impatient() *Service {
	s.patience = 100 * time.Millisecond
	return s
}
