package facts

import (
	"latchkey/internal/policy"
	"latchkey/internal/server/store/db"
)

// Held is what Vault gives for the row of somebody's offline data, which is the
// youngest that the machine has for them.
func Held(v db.Vault, u policy.User, ps []policy.Policy) (*policy.Vault, policy.Reason) {
	return vaultOf(v, u, ps)
}

// Reported brings in what a machine has told of its own state, as Gather does for a
// sign-in without the server.
func Reported(m db.Machine, f *policy.Facts) { trouble(m, f) }
