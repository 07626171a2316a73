package session

import (
	"net/netip"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/turnstile"
	"latchkey/internal/text"
)

// The rates of what can be guessed at. The counts in the database bound the guesses at
// one account for ever; these bound what one network may cost the server, and how
// quickly one name is tried from many. A name that nobody has is limited like any.
var (
	perNetwork = rate.Rate{PerSecond: 0.5, Burst: 20}
	perLook    = rate.Rate{PerSecond: 4, Burst: 60}
	perName    = rate.Rate{PerSecond: 1.0 / 3, Burst: 10}
)

// limits are the buckets of one process. Those of several replicas add up. A browser in
// which the person has signed in has buckets of their own: strangers who try a name, or
// so many that they all share one bucket, do not keep its owner out.
type limits struct{ network, looks, name, known *rate.Keyed }

func newLimits(c clock.Clock) limits {
	return limits{rate.New(perNetwork, c), rate.New(perLook, c), rate.New(perName, c), rate.New(perName, c)}
}

// take counts an attempt of a network, or refuses it.
func (l limits) take(address string) error {
	if !l.network.Take(network(address)) {
		return fault.Newf(fault.TooMany, "Too many attempts from your network. Wait a minute and try again.")
	}
	return nil
}

// look counts what is no attempt but costs the server something: a factor that was
// chosen, a look whether a phone has answered, a challenge for a passkey.
func (l limits) look(address string) error {
	if !l.looks.Take(network(address)) {
		return fault.Newf(fault.TooMany, "Too many requests from your network. Wait a minute and try again.")
	}
	return nil
}

// takeName counts an attempt at a name, or refuses it: browser is the id of a browser in
// which its owner has signed in, empty for anybody else's.
func (l limits) takeName(name, browser string) error {
	bucket, key := l.name, strings.ToLower(text.CleanN(name, maxName))
	if browser != "" {
		bucket, key = l.known, browser+" "+key
	}
	if !bucket.Take(key) {
		return fault.Newf(fault.TooMany, "Too many attempts for this name. Wait a minute and try again.")
	}
	return nil
}

func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	return turnstile.Network(a.Unmap().WithZone(""))
}
