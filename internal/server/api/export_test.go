package api

import "net/http"

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
