package api

import (
	"net/http"
	"time"
)

// NewTrusting is New without the gate's own look at rights, so that a test sees
// what the desk refuses by itself.
func NewTrusting(d Deps) http.Handler { return open(d, true) }

// Rights is the table of rights.
var Rights = rights

// The words of it that are no rights of the desk.
const (
	Public = public
	Person = person
)

// StreamTime sets how long streams go on, and gives what undoes it.
func StreamTime(d time.Duration) (undo func()) {
	before := streamTime
	streamTime = d
	return func() { streamTime = before }
}
