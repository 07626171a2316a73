package rest

import (
	"encoding/json"
	"time"

	"latchkey/internal/policy"
)

// MaxExport is how many events one export gives at most.
const MaxExport = 1_000_000

// The bounds of a trial.
const (
	TrySignins    = 20000
	MaxTrySignins = 100000
	TryPeople     = 10
	MaxTryPeople  = 100
)

// TryPolicy asks what a draft of a policy would have changed for the sign-ins of the
// last days (P5). What is left out stays as it is, or has its default in a new policy.
type TryPolicy struct {
	Policy   string          `json:"policy,omitempty" doc:"Name or id of the policy that would be changed; absent: a new one is tried"`
	Remove   bool            `json:"remove,omitempty" doc:"Try without the policy"`
	Version  int64           `json:"version,omitempty" doc:"Try an older version of the policy; what else is said lies on top of it"`
	Priority *int64          `json:"priority,omitempty"`
	Groups   *[]string       `json:"groups,omitempty" doc:"Names of all groups that it would belong to"`
	Settings json.RawMessage `json:"settings,omitempty"`
	Since    time.Time       `json:"since,omitzero" doc:"Absent: a week ago; at most 31 days ago"`
	Limit    int             `json:"limit,omitempty" doc:"How many sign-ins are judged at most, the youngest; absent: 20000, at most 100000"`
	People   int             `json:"people,omitempty" doc:"How many people are named for each kind of change; absent: 10, at most 100"`
}

// Tried is what would have been other.
type Tried struct {
	Policy   string    `json:"policy,omitempty" doc:"Name of the policy that was tried; empty: a new one"`
	Since    time.Time `json:"since" doc:"Of the oldest sign-in that was looked at, or from which on all were"`
	Until    time.Time `json:"until"`
	Judged   int       `json:"judged" doc:"Sign-ins that were judged twice: with the rules as they are and with the draft"`
	People   int       `json:"people" doc:"Who signed in, and stands to be asked again"`
	Same     int       `json:"same" doc:"Sign-ins for which nothing changes"`
	Applies  int       `json:"applies" doc:"People of these to whom the draft would apply"`
	Before   int       `json:"prompts_before" doc:"Sign-ins that ask for a second factor with the rules as they are"`
	After    int       `json:"prompts_after" doc:"The same with the draft"`
	Capped   string    `json:"capped,omitempty" doc:"Why older sign-ins were left out, in a sentence"`
	Unjudged []Left    `json:"not_judged" nullable:"false" doc:"Sign-ins that could not be judged, and why"`
	Moved    int       `json:"moved" doc:"Sign-ins that the rules as they are judge otherwise than it was at the time: something else has changed since"`
	Changes  []Trial   `json:"changes" nullable:"false"`
	Pairs    int       `json:"offline_pairs" doc:"People on machines whose side without the server was judged"`
	Offline  []Trial   `json:"offline" nullable:"false" doc:"What changes for the same people on the same machines while the server is not reachable"`
	ShutOut  *ShutOut  `json:"shut_out,omitempty" doc:"Whom the draft would shut out of all to whom it applies, whether they signed in or not"`
	Warnings []string  `json:"warnings,omitempty" doc:"Of the draft"`
	Notes    []string  `json:"notes,omitempty" doc:"What this answer could not know"`
}

// Left counts what was left out.
type Left struct {
	Why string `json:"why"`
	N   int    `json:"n"`
}

// Trial is one kind of change.
type Trial struct {
	Change  policy.Change `json:"change" doc:"denied, asked-to-enrol, asked-more, asked-less, no-longer-denied or other-factors"`
	Signins int           `json:"signins"`
	People  int           `json:"people"`
	Who     []TriedUser   `json:"who" nullable:"false" doc:"The people with most of them"`
}

// TriedUser is somebody for whom something changes, with an example.
type TriedUser struct {
	User      string          `json:"user"`
	UserID    string          `json:"user_id,omitempty"`
	Signins   int             `json:"signins"`
	Event     string          `json:"event,omitempty" doc:"The youngest of them"`
	At        time.Time       `json:"at,omitzero"`
	Machine   string          `json:"machine"`
	MachineID string          `json:"machine_id"`
	Scope     string          `json:"scope"`
	Service   string          `json:"service,omitempty"`
	Before    policy.Decision `json:"before"`
	After     policy.Decision `json:"after"`
}

// Effective is which policy holds for a user, and why (P1, P2).
type Effective struct {
	User       string          `json:"user"`
	UserID     string          `json:"user_id"`
	Machine    string          `json:"machine,omitempty"`
	MachineID  string          `json:"machine_id,omitempty"`
	Policy     string          `json:"policy" doc:"The one that applies"`
	PolicyID   string          `json:"policy_id"`
	Through    string          `json:"through,omitempty" doc:"Name of the group; empty: it is the default"`
	TwoFactor  bool            `json:"two_factor" doc:"Whether 2FA is on"`
	Because    string          `json:"two_factor_because"`
	Settings   json.RawMessage `json:"settings" doc:"As they hold here: an enforced machine raises them"`
	Raised     []Difference    `json:"raised,omitempty" doc:"What the machine changes of the policy"`
	Warnings   []string        `json:"warnings,omitempty"`
	Considered []Considered    `json:"considered" nullable:"false" doc:"All policies in the order in which they are looked at"`
	Notes      []string        `json:"notes,omitempty"`
}

// Considered is one policy that was looked at.
type Considered struct {
	Policy     string `json:"policy"`
	PolicyID   string `json:"policy_id"`
	Priority   int64  `json:"priority"`
	Applies    bool   `json:"applies"`
	ReportOnly bool   `json:"report_only,omitempty"`
	Why        string `json:"why"`
}

// PolicyReports is what a policy that only reports would have done (P5).
type PolicyReports struct {
	Policy  string        `json:"policy"`
	Version int64         `json:"version" doc:"Counted are the reports of this version and later ones"`
	Signins int           `json:"signins" doc:"That it would have applied to, of the youngest 100000 of the last 30 days"`
	Counts  []ReportCount `json:"counts" nullable:"false"`
	Items   []ReportItem  `json:"items" nullable:"false" doc:"Those of the change that was asked for, the youngest first"`
	Next    string        `json:"next,omitempty" doc:"Cursor of the next page"`
}

// ReportCount counts one kind of change.
type ReportCount struct {
	Change  string `json:"change" doc:"same, or one of those of a trial"`
	Signins int64  `json:"signins"`
	People  int64  `json:"people"`
}

// ReportItem is one sign-in that a policy reported on.
type ReportItem struct {
	Event     string    `json:"event"`
	At        time.Time `json:"at"`
	User      string    `json:"user"`
	UserID    string    `json:"user_id,omitempty"`
	Machine   string    `json:"machine"`
	MachineID string    `json:"machine_id"`
	Scope     string    `json:"scope"`
	Version   int64     `json:"version"`
	Outcome   string    `json:"outcome" doc:"What came of it"`
	Reason    string    `json:"reason"`
	Would     string    `json:"would" doc:"The decision that the policy would have made"`
	Change    string    `json:"change"`
}

// View is a list of events that somebody has given a name.
type View struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Query  string `json:"query" doc:"The filters, as they stand in the address of the page"`
	Shared bool   `json:"shared" doc:"Everybody who may read events sees it"`
	MadeBy string `json:"made_by"`
}

// NewView gives a list of events a name.
type NewView struct {
	Name   string `json:"name"`
	Query  string `json:"query"`
	Shared bool   `json:"shared,omitempty"`
}

// ViewPrefix begins the id of a view.
const ViewPrefix = "viw_"

// PolicyPreview is what a change of a policy would write, without writing it.
type PolicyPreview struct {
	Policy   string       `json:"policy"`
	Rev      int64        `json:"rev" doc:"The ETag of the policy that was compared with"`
	Changes  []Difference `json:"changes" nullable:"false"`
	Warnings []string     `json:"warnings,omitempty" doc:"Of the policy with the change"`
	People   int64        `json:"people" doc:"Members of the groups that it would belong to; of the default policy: all users"`
	ShutOut  *ShutOut     `json:"shut_out,omitempty" doc:"Whom it would shut out; absent: nobody"`
}

// ShutOut is who could sign in before a change of a policy, and could not after it,
// because they have no factor that it accepts, or too few.
type ShutOut struct {
	Policy  string        `json:"policy,omitempty" doc:"Name of the policy; empty: a new one"`
	People  int64         `json:"people" doc:"Who could sign in before and could not after"`
	Already int64         `json:"already" doc:"Who could not before either"`
	Who     []ShutOutUser `json:"who" nullable:"false" doc:"In order of names; the first of them where it is no list"`
	Next    string        `json:"next,omitempty" doc:"Cursor of the next page"`
}

// ShutOutUser is somebody whom a change shuts out.
type ShutOutUser struct {
	User    string          `json:"user"`
	UserID  string          `json:"user_id"`
	Role    string          `json:"role,omitempty"`
	Has     []string        `json:"has" nullable:"false" doc:"The kinds of factors that they could use"`
	Where   []policy.Place  `json:"where" nullable:"false" doc:"Shut out of: logon, elevation, remote, and offline (without the server, on a machine that has all offline data)"`
	New     []policy.Place  `json:"new" nullable:"false" doc:"Of these, where they could sign in before"`
	Policy  string          `json:"policy" doc:"The one that would apply to them"`
	Needs   int             `json:"needs" doc:"How many kinds it asks for there"`
	Accepts []policy.Factor `json:"accepts" nullable:"false" doc:"Of which kinds"`
}

// ShutOutDraft asks whom a draft of a policy would shut out. Without any change it asks
// who is shut out now.
type ShutOutDraft struct {
	Policy   string          `json:"policy,omitempty" doc:"Name or id of the policy that would be changed; absent: a new one"`
	Remove   bool            `json:"remove,omitempty" doc:"Without the policy"`
	Version  int64           `json:"version,omitempty" doc:"An older version of the policy; what else is said lies on top of it"`
	Priority *int64          `json:"priority,omitempty"`
	Groups   *[]string       `json:"groups,omitempty" doc:"Names of all groups that it would belong to"`
	Settings json.RawMessage `json:"settings,omitempty"`
	All      bool            `json:"all,omitempty" doc:"Also who is shut out as it is"`
	After    string          `json:"after,omitempty" doc:"Cursor: the next of an earlier page"`
	Limit    int             `json:"limit,omitempty" doc:"How many are listed at most; absent: 50, at most 500"`
}

// Try is the same draft for a trial.
func (s ShutOutDraft) Try() TryPolicy {
	return TryPolicy{Policy: s.Policy, Remove: s.Remove, Version: s.Version, Priority: s.Priority, Groups: s.Groups, Settings: s.Settings}
}

// PolicyComparison compares two versions of a policy.
type PolicyComparison struct {
	Policy  string       `json:"policy"`
	From    int64        `json:"from"`
	To      int64        `json:"to"`
	Changes []Difference `json:"changes" nullable:"false"`
}
