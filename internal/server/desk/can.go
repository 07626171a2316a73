package desk

// Can tells whether the actor has the right of that name: "read", "helpdesk",
// "change", "own" and what else stands in the table of rights. A word that is none
// is refused. The desk's functions ask for themselves; this is for doors that want to
// refuse before they read a body, and for pages that leave out what would be refused.
func (a Actor) Can(word string) bool { return a.may(right(word)) == nil }
