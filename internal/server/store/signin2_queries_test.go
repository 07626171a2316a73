package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runJudging) }

func runJudging(c *script) {
	count := func(at int64) {
		c.do("CountAttempt", db.CountAttemptParams{UserID: "ju1", MachineID: "jm1", At: at})
	}
	count(10)
	count(11)
	c.want("1", "BlockAttempts", db.BlockAttemptsParams{UserID: "ju1", MachineID: "jm1", BlockedUntil: 50, LockedUntil: 60})
	// Somebody else has prolonged the block meanwhile: it stays; the lock was this attempt's own.
	c.want("1", "UncountAttempt", db.UncountAttemptParams{UserID: "ju1", MachineID: "jm1", SetBlocked: 49, WasBlocked: 5, SetLocked: 60, WasLocked: 6})
	c.do("GetAttempt", db.GetAttemptParams{UserID: "ju1", MachineID: "jm1"})
	c.want("1", "UncountAttempt", db.UncountAttemptParams{UserID: "ju1", MachineID: "jm1", SetBlocked: 50, WasBlocked: 5})
	c.want("1", "UncountAttempt", db.UncountAttemptParams{UserID: "ju1", MachineID: "jm1"}) // never below nought
	c.do("GetAttempt", db.GetAttemptParams{UserID: "ju1", MachineID: "jm1"})
	c.want("0", "UncountAttempt", db.UncountAttemptParams{UserID: "ju1", MachineID: "jm2"})

	c.do("InsertMachine", db.InsertMachineParams{ID: "jm1", Number: 911, Name: "jm1", Status: "active", Mode: "normal", UnknownUsers: "deny", TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1})
	for i, id := range []string{"jc1", "jc2", "jc3"} {
		c.do("InsertConversation", db.InsertConversationParams{ID: id, MachineID: "jm1", Stage: "s", Outcome: []string{"", "", "deny"}[i], CreatedAt: 1, ExpiresAt: int64(20 - i)})
	}
	c.do("ListOverdueConversations", db.ListOverdueConversationsParams{Before: 21, N: 10})
	c.do("ListOverdueConversations", db.ListOverdueConversationsParams{Before: 20, N: 10})
	c.do("ListOverdueConversations", db.ListOverdueConversationsParams{Before: 21, N: 1})
	c.want("3", "DeleteExpiredConversations", int64(21))
}
