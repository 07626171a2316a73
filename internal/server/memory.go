package server

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A server's memory is mostly what its machines' connections hold, which lives as
// long as they do. The collector's usual rule, to let garbage grow to the size of
// what lives, would double it; for a small server the same rule means to collect
// many times a second. So garbage gets a fixed room, and a part of what lives where
// that is more.
const (
	garbageRoom  = 48 << 20
	leastPercent = 25
	mostPercent  = 200
	roomEvery    = 5 * time.Second
)

// makeRoom sets the collector's rule by what lives now.
func (r *running) makeRoom() {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	var lives uint64
	for _, x := range s {
		if x.Value.Kind() == metrics.KindUint64 {
			lives += x.Value.Uint64()
		}
	}
	percent := mostPercent
	if lives > 0 {
		percent = min(mostPercent, max(leastPercent, int(100*uint64(garbageRoom)/lives)))
	}
	if d := percent - r.percent; d < -4 || d > 4 {
		r.percent = percent
		debug.SetGCPercent(percent)
	}
}
