package facts

import "latchkey/internal/server/store/db"

// Pluggable tells whether a passkey can be asked for at a machine: a key that is plugged
// in, and not one that a phone or a computer keeps for itself (WebAuthn §5.4.5), and no
// copy.
func Pluggable(p db.Passkey) bool { return p.Attachment != "platform" && p.ClonedAt == 0 }
