package fill

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
)

// scene is what happens when somebody comes to a machine: some events, at once.
type scene struct {
	weight int
	types  []event.Event
	trace  bool // the last one has a trace
}

// scenes are drawn by weight. What is not here is in rarities.
var scenes = []scene{
	{600, []event.Event{
		{Type: event.FactorAccepted, Factor: "totp", Outcome: "accepted"},
		{Type: event.WindowOpened},
		{Type: event.SigninAllowed, Outcome: "allow", Reason: "mfa-required", Factor: "totp", Link: "up"},
	}, true},
	{500, []event.Event{{Type: event.SigninAllowed, Outcome: "allow", Reason: "window-valid", Link: "up"}}, true},
	{60, []event.Event{{Type: event.SigninAllowed, Outcome: "allow", Reason: "offline-mfa", Factor: "totp", Link: "down"}}, true},
	{60, []event.Event{{Type: event.SigninDenied, Outcome: "deny", Reason: "first-factor-rejected", Link: "up"}}, true},
	{50, []event.Event{
		{Type: event.FactorRejected, Factor: "totp", Reason: "wrong-code", Outcome: "rejected"},
		{Type: event.SigninDenied, Outcome: "deny", Reason: "too-many-wrong", Link: "up"},
	}, true},
	{30, []event.Event{{Type: event.SigninDenied, Outcome: "deny", Reason: "user-unknown", Link: "up"}}, true},
	{40, []event.Event{{Type: event.SigninAbandoned, Reason: "timed-out", Outcome: "deny", Link: "up"}}, true},
	{80, []event.Event{{Type: event.VaultSynced, Link: "up"}}, false},
	{30, []event.Event{{Type: event.VaultEnrolled, Link: "up"}}, false},
	{10, []event.Event{{Type: event.VaultLifted, Link: "up"}}, false},
	{10, []event.Event{{Type: event.SigninIgnored, Outcome: "ignore", Reason: "machine-exempt", Link: "up"}}, true},
	{8, []event.Event{{Type: event.LockoutBegan, Reason: "too-many-wrong"}}, false},
	{8, []event.Event{{Type: event.FactorAdded, Factor: "totp", Outcome: "added"}}, false},
	{4, []event.Event{{Type: event.UserChanged}}, false},
	{3, []event.Event{{Type: event.MachineRenewed}}, false},
	{3, []event.Event{{Type: event.CodeIssued}}, false},
	{1, []event.Event{{Type: event.UserAdded}}, false},
	{1, []event.Event{{Type: event.MachineJoined}}, false},
	{1, []event.Event{{Type: event.TokenIssued}}, false},
}

// recent is a sign-in of the last week, on which a policy reports.
type recent struct {
	at                int64
	id, user, outcome string
}

// events writes the log from the oldest to the newest. A hundredth is about one busy account. Of the rare type there are
// twenty, all in the first fifth of the time.
func (w *world) events(ctx context.Context) error {
	w.Rare = string(event.MachineLost)
	total := 0
	for _, s := range scenes {
		total += s.weight
	}
	trace, err := json.Marshal([]policy.Step{
		{Rule: "E4 machine", Verdict: policy.Passed, Why: "the machine is active, and the user may use it"},
		{Rule: "S5 unknown user", Verdict: policy.Passed, Why: "the name is known exactly as it was typed"},
		{Rule: "D1 activation", Verdict: policy.Passed, Why: "the account is active and not disabled"},
		{Rule: "S10 lock-out", Verdict: policy.Passed, Why: "no lock-out stands for this user on this machine"},
		{Rule: "S3 first factor", Verdict: policy.Passed, Why: "the password was accepted by the server"},
		{Rule: "P1 policy", Verdict: policy.Passed, Why: "rules-07 has priority 70 and belongs to team-0006"},
		{Rule: "P3 machine exempt", Verdict: policy.Passed, Why: "the machine is not exempt"},
		{Rule: "S4 account exempt", Verdict: policy.Passed, Why: "the account is not on the list of exempt ones"},
		{Rule: "P6 trusted network", Verdict: policy.Passed, Why: "no trusted network is named"},
		{Rule: "W5 window", Verdict: policy.Passed, Why: "no window is open for this user on this machine"},
		{Rule: "S3 second factor", Verdict: policy.Applied, Why: "the policy asks for one factor beside the password, and one of totp, backup will do"},
	})
	if err != nil {
		return err
	}
	const chain = "main"
	r := rand.New(rand.NewPCG(1, 2))
	span := float64(w.now() - w.began())
	var prev event.Hash
	var queue []event.Event
	seq := 0
	next := func() ([]any, error) {
		if seq == w.Events {
			return nil, nil
		}
		if len(queue) == 0 {
			queue = w.scene(queue[:0], r, total, seq, string(trace))
		}
		e := queue[0]
		queue = queue[1:]
		e.At = w.began() + int64(span*float64(seq)/float64(w.Events))
		e.ReceivedAt = e.At + 1500
		if e.Link == "down" {
			e.ReceivedAt += 3600e6
		}
		e.ID = id(e.At, kindEvent, seq)
		if e.Type == event.SigninAllowed {
			w.Event = rest.EventPrefix + e.ID
			if e.Subject == w.Admin {
				w.Own = w.Event
			}
			if e.At > w.now()-7*86400e6 && len(w.recent) < 100_000 {
				w.recent = append(w.recent, recent{e.At, e.ID, e.UserID, e.Outcome})
			}
		}
		seq++
		hash := event.Next(chain, uint64(seq), prev, e)
		row := []any{
			chain, seq, e.ID, string(e.Type), e.Actor, e.Subject, e.UserID, e.MachineID, e.Machine, e.Address, e.Scope, e.Service, e.Link, e.Outcome,
			e.Reason, e.Factor, e.At, e.ReceivedAt, string(e.Data), append([]byte(nil), prev[:]...), hash[:],
		}
		prev = hash
		return row, nil
	}
	err = w.table(ctx, "events", "chain, seq, id, type, actor, subject, user_id, machine_id, machine, address, scope, service, link, outcome, reason, factor, at, received_at, data, prev_hash, hash", next)
	if err != nil {
		return err
	}
	changes := []policy.Change{policy.Same, policy.AskedMore, policy.AskedLess, policy.AskedToEnrol, policy.DeniedNow}
	err = w.table(ctx, "policy_reports", "policy_id, at, event_id, version, user_id, outcome, change", counted(len(w.recent), func(i int) ([]any, error) {
		e := w.recent[i]
		return []any{id(w.began(), kindPolicy, reporting), e.at, e.id, 1, e.user, e.outcome, string(changes[i%len(changes)])}, nil
	}))
	if err != nil {
		return err
	}
	return w.exec(ctx, "UPDATE chains SET seq = $1, hash = $2 WHERE chain = $3", int64(w.Events), prev[:], chain)
}

// scene puts the events of one scene into the queue.
func (w *world) scene(queue []event.Event, r *rand.Rand, total, seq int, trace string) []event.Event {
	u := usual + r.IntN(w.Users-usual)
	switch r.IntN(100) {
	case 0:
		u = busy
	case 1:
		if seq%20 == 0 {
			u = admin
		}
	}
	m := u % w.Machines
	if r.IntN(8) == 0 {
		m = r.IntN(w.Machines)
	}
	if m == quiet {
		m++
	}
	who := event.Event{Subject: userName(u), UserID: w.userID(u), MachineID: w.machineID(m), Machine: machineName(m)}
	if seq >= w.rare*w.Events/100 && w.rare < 20 {
		w.rare++
		who.Type, who.Actor, who.UserID, who.Data = event.MachineLost, w.Admin, "", []byte(`{"reseed":[]}`)
		return append(queue, who)
	}
	n := r.IntN(total)
	s := scenes[0]
	for _, s = range scenes {
		if n -= s.weight; n < 0 {
			break
		}
	}
	where := r.IntN(3)
	if s.types[0].Reason == "user-unknown" {
		who.Subject, who.UserID = []string{"admin", "root", "guest", "test", "oracle"}[r.IntN(5)], ""
	}
	for i, e := range s.types {
		e.Actor, e.Subject, e.UserID, e.MachineID, e.Machine = who.Subject, who.Subject, who.UserID, who.MachineID, who.Machine
		e.Scope, e.Service = []string{"logon", "elevation", "remote"}[where], []string{"gdm-password", "sudo", "sshd"}[where]
		if where == 2 {
			e.Address = fmt.Sprintf("192.0.2.%d", r.IntN(256))
		}
		if s.trace && i == len(s.types)-1 {
			e.Data = fmt.Appendf(nil, `{"conversation":%q,"duration_ms":%d,"policy":"rules-07","trace":%s,"mode":"full","first":"server","first_accepted":true,"factors":["totp"],"mfa":true,"machine_address":"10.0.%d.%d"}`,
				id(w.began()+int64(seq), kindConversation, seq), r.IntN(20000), trace, r.IntN(256), r.IntN(256))
		} else {
			e.Data = fmt.Appendf(nil, `{"conversation":%q}`, id(w.began()+int64(seq), kindConversation, seq))
		}
		queue = append(queue, e)
	}
	return queue
}
