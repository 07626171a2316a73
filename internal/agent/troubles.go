package agent

import (
	"latchkey/internal/agent/vault"
	"latchkey/internal/event"
	"latchkey/internal/health"
	"latchkey/internal/policy"
)

const online = "Connect this machine to the network and sign in online; the data is made anew."

// troubles are what can be wrong with this machine's offline data, and what is to be
// done about it. The code in the register is the reason that events have.
var troubles = []struct {
	reason policy.Reason
	bad    health.Severity
	next   string
}{
	{policy.ReasonStateWrite, health.Failure, "Make room on the disk or mend it; the agent goes on by itself."},
	{policy.ReasonJournalFull, health.Failure, "Connect this machine to the network, so that the journal is delivered."},
	{policy.ReasonVaultDamaged, health.Failure, online},
	{policy.ReasonVaultRolledBack, health.Failure, online},
	{policy.ReasonVaultNewer, health.Failure, "Put the newer agent back."},
	{policy.ReasonVaultForeign, health.Failure, "Do what the detail and the agent's log say; the agent goes on by itself."},
	{policy.ReasonVaultUnread, health.Failure, "Look after the disk."},
	{policy.ReasonVaultUnfinished, health.Warning, online},
	{policy.ReasonTPMCleared, health.Failure, online + " If the server is not reached any more: latchkey-agent join --again - (it reads the token)."},
	{policy.ReasonTPMReplaced, health.Failure, online},
	{policy.ReasonTPMBoot, health.Failure, online},
	{policy.ReasonTPMLocked, health.Failure, "Wait, or connect this machine to the network."},
	{policy.ReasonTPMGone, health.Failure, "Look after the TPM in the firmware's settings; the agent goes on by itself."},
	{policy.ReasonTPMBusy, health.Warning, "Wait a minute."},
	{policy.ReasonTPMNoRoom, health.Warning, "Remove what fills the TPM."},
	{policy.ReasonPolicyAbsent, health.Warning, "Connect this machine to the network; the server sends it."},
	{policy.ReasonPolicyExpired, health.Failure, "Connect this machine to the network, and look whether its clock is right."},
	{policy.ReasonPolicyForeign, health.Failure, "Connect this machine to the network; the server sends a new one."},
	{policy.ReasonPolicyOlder, health.Failure, "Connect this machine to the network; the server sends a new one."},
	{vault.ClockBehind, health.Warning, "Set the clock, or connect this machine to the network."},
}

// offlineHealth is what of them is there.
type offlineHealth map[policy.Reason]*health.Item

func newOfflineHealth(r *health.Register) offlineHealth {
	items := offlineHealth{}
	for _, t := range troubles {
		items[t.reason] = r.Define(health.Problem{Code: string(t.reason), Severity: t.bad, Text: event.Reasons[string(t.reason)], Next: t.next})
	}
	return items
}

// judge takes over the vault's word. A refused machine has no offline data to look
// after.
func (h offlineHealth) judge(s vault.Status) {
	for reason, item := range h {
		detail := ""
		switch {
		case s.Refused != "":
			item.Clear()
			continue
		case reason == s.Problem:
			detail = s.Detail
		case reason == s.PolicyProblem:
		case reason == vault.ClockBehind && s.ClockBehind:
		default:
			item.Clear()
			continue
		}
		item.Set(detail)
	}
}
