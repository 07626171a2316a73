package rest

import "time"

// Dashboard is how things stand, in numbers: each is that of a list.
type Dashboard struct {
	At    time.Time `json:"at" doc:"When what follows was counted; events and machines are counted anew about once a minute"`
	Hours []Hour    `json:"hours" nullable:"false" doc:"The last seven days, hour by hour, by the time at the source"`
	Day   Activity  `json:"day" doc:"The last 24 hours"`
	Week  Activity  `json:"week" doc:"The last seven days"`

	Users    int64 `json:"users"`
	Locked   int64 `json:"locked" doc:"Who is locked out or must wait"`
	Machines int64 `json:"machines" doc:"Active ones"`
	Silent   int64 `json:"silent" doc:"Active machines that were not heard of for silent_for"`
	Outdated int64 `json:"outdated" doc:"Active machines whose agent is older than the settings ask for"`
	Pending  int64 `json:"pending" doc:"Machines that wait for approval"`
	Reports  int64 `json:"reports" doc:"What people reported and nobody has answered"`

	SilentFor string          `json:"silent_for" doc:"As a duration"`
	MinAgent  string          `json:"min_agent_version,omitempty"`
	Policies  []WeakPolicy    `json:"policies" nullable:"false" doc:"Policies with warnings (P4)"`
	Stuck     StuckCount      `json:"stuck"`
	Log       []VerifiedChain `json:"log" nullable:"false" doc:"How far the event log was verified by this server (V4)"`
}

// Hour is what happened in one hour.
type Hour struct {
	At time.Time `json:"at" doc:"Its beginning"`
	Activity
}

// Activity counts what happened at sign-ins.
type Activity struct {
	Allowed int64 `json:"allowed"`
	Denied  int64 `json:"denied"`
	Left    int64 `json:"left" doc:"Left to the machine's own sign-in"`
	Prompts int64 `json:"prompts" doc:"Second factors that were given, right and wrong ones"`
	Wrong   int64 `json:"wrong" doc:"Second factors that were wrong"`
	Glass   int64 `json:"breakglass" doc:"Break-glass accounts that were used"`
}

// Add adds another's counts.
func (a *Activity) Add(o Activity) {
	a.Allowed += o.Allowed
	a.Denied += o.Denied
	a.Left += o.Left
	a.Prompts += o.Prompts
	a.Wrong += o.Wrong
	a.Glass += o.Glass
}

// WeakPolicy is a policy that says something weak.
type WeakPolicy struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Warnings []string `json:"warnings" nullable:"false"`
}

// StuckCount is how many could not sign in on a machine that they know if the server
// were out of reach (O16).
type StuckCount struct {
	At      time.Time     `json:"at,omitzero" doc:"When it was counted; absent: not yet"`
	Count   int64         `json:"count"`
	More    bool          `json:"more,omitempty" doc:"There are more: counting was cut off"`
	Reasons []StuckReason `json:"reasons" nullable:"false" doc:"The most frequent first"`
}

// StuckReason counts one reason.
type StuckReason struct {
	Reason string `json:"reason"`
	Why    string `json:"why"`
	Count  int64  `json:"count"`
}

// VerifiedChain is how far one chain of events was verified.
type VerifiedChain struct {
	Chain  string    `json:"chain"`
	Seq    int64     `json:"seq" doc:"Up to this event it is whole"`
	At     time.Time `json:"at" doc:"When this was seen"`
	Done   bool      `json:"done" doc:"The end was reached; else it goes on"`
	Broken int64     `json:"broken,omitempty" doc:"The first event that does not fit"`
	Why    string    `json:"why,omitempty"`
}
