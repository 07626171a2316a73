package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runPairs) }

// runPairs asks for pairs of users and machines that runLists has made.
func runPairs(c *script) {
	c.do("InsertVault", db.InsertVaultParams{UserID: "lu2", MachineID: "lm0", Generation: 1, State: "active", Class: "tpm", ExpiresAt: 900, UsesLeft: 5, CreatedAt: 6, UpdatedAt: 7})
	c.do("InsertVault", db.InsertVaultParams{UserID: "lu2", MachineID: "lm1", Generation: 1, State: "active", Class: "tpm", ExpiresAt: 900, UsesLeft: 5, CreatedAt: 6, UpdatedAt: 7})
	pairs := []db.Pair{
		{MachineID: "lm0", UserID: "lu0"},
		{MachineID: "lm0", UserID: "lu1"},
		{MachineID: "lm0", UserID: "lu2"},
		{MachineID: "lm2", UserID: "lu0"},
		{MachineID: "lm2", UserID: "lu1"},
		{MachineID: "lm0", UserID: "nobody"},
	}
	c.want(`[{"MachineID":"lm0","UserID":"lu0","Assigned":false},{"MachineID":"lm0","UserID":"lu1","Assigned":false},`+
		`{"MachineID":"lm0","UserID":"lu2","Assigned":false},{"MachineID":"lm2","UserID":"lu1","Assigned":false}]`, "KnownOf", pairs)
	c.want("[]", "KnownOf", []db.Pair{})
	c.do("ActiveVaultsOf", pairs)
	c.want("[]", "ActiveVaultsOf", pairs[3:])
	c.do("LocksOf", pairs, int64(100))
	c.want("[]", "LocksOf", pairs, int64(1<<52))
	c.want("[]", "LocksOf", pairs[1:], int64(100))
	many := make([]db.Pair, 0, 700)
	for range 699 {
		many = append(many, db.Pair{MachineID: "none", UserID: "none"})
	}
	c.want(`[{"MachineID":"lm0","UserID":"lu0","Assigned":false}]`, "KnownOf", append(many, pairs[0]))
	c.do("DeleteVaultsOfMachine", "lm0")
	c.do("DeleteVaultsOfMachine", "lm1")
}
