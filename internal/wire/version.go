package wire

import "encoding/json"

// Version is the version of the agent API. It only rises.
//
//	1  2026-11-21  first: join, renew, hello, changes, conversations, offline data, journal
//	1  2026-11-22  answers that come another way are waited for (PromptWait, PathWait), security keys (PromptKey); likewise
//	1  2026-11-22  journals prove what they spend (SpentProof); changed in place, before any release
//
// What a version may change: it adds paths, fields and kinds, and it gives up old
// ones with Oldest. It never changes what is there. testdata/v1 holds the bodies of
// each version as they were when it was made; later versions must go on reading them.
//
// How two versions meet: a request says in VersionHeader which version its body is
// of, an answer says which is the newest that the server speaks. The server takes
// requests of every version from Oldest on, and reads them strictly. A newer agent
// is answered too-new; it then speaks the server's version, if that is not before
// OldestServer, until an answer names a newer one. An agent before Oldest is
// answered too-old, and no sign-in goes through it until it is updated. Answers may
// hold fields that an older agent does not know: it reads past them. What restricts
// must therefore come in a kind or a path that an older agent refuses.
const Version = 1

const (
	// Oldest is the oldest version of an agent that the server still speaks.
	Oldest = 1
	// OldestServer is the oldest version of a server that the agent still speaks.
	OldestServer = 1
)

// VersionHeader carries the version in requests and answers.
const VersionHeader = "Latchkey-Wire"

// Range is the versions that a side speaks.
type Range struct{ Oldest, Newest int }

// Agents is the versions of agents with which this server speaks.
func Agents() Range { return pretended(Range{Oldest, Version}) }

// Servers is the versions of servers with which this agent speaks.
func Servers() Range { return pretended(Range{OldestServer, Version}) }

// Has tells whether v is one of them.
func (r Range) Has(v int) bool { return r.Oldest <= v && v <= r.Newest }

// Encode writes a request's body for a server of that version. A field that a later
// version adds is left out here for servers that do not know it, because they would
// refuse the whole.
func Encode(v any, version int) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return later(b, version), nil
}
