package signin

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// note writes an event about this conversation. Nothing that was typed as an answer
// is ever in it.
func (x *turn) note(typ event.Type, outcome, reason, kind string, data map[string]any) error {
	e := x.event(typ)
	e.Outcome, e.Reason, e.Factor = outcome, reason, kind
	if typ == event.LockoutBegan {
		e.Actor = "server"
	}
	fields := map[string]any{"conversation": x.id}
	for k, v := range data {
		fields[k] = v
	}
	return x.write(e, fields)
}

// noteEnd writes the one event with which the conversation ends.
func (x *turn) noteEnd(typ event.Type, outcome, reason, kind string) error {
	e := x.event(typ)
	e.Outcome, e.Reason, e.Factor = outcome, reason, kind
	return x.write(e, x.story())
}

// event is who sits where: what every event of the conversation says.
func (x *turn) event(typ event.Type) event.Event {
	o := x.talk.Opening
	e := event.Event{
		ID: store.NewID(), Type: typ, Actor: o.User, Subject: o.User, UserID: x.talk.UserID, MachineID: x.m.ID, Machine: x.m.Name, Address: o.RHost,
		Scope: string(o.Scope), Service: o.Service, Link: string(policy.LinkUp), At: clock.Micros(x.now), ReceivedAt: clock.Micros(x.now),
	}
	if e.Address == "" && o.MachineAddr.IsValid() {
		e.Address = o.MachineAddr.String()
	}
	return e
}

func (x *turn) write(e event.Event, data any) error {
	var err error
	if e.Data, err = json.Marshal(data); err != nil {
		return fmt.Errorf("event %s: %w", e.Type, err)
	}
	x.noted = e.ID
	_, err = x.tx.Event(e)
	return err
}

// report keeps what policies that only report would have decided, with the event that
// was just written (P5).
func (x *turn) report(ctx context.Context) error {
	for _, r := range x.talk.Reports {
		err := x.tx.InsertPolicyReport(ctx, db.InsertPolicyReportParams{
			PolicyID: r.Policy, At: clock.Micros(x.now), EventID: x.noted, Version: r.Version, UserID: x.talk.UserID,
			Outcome: string(r.Outcome), Change: string(r.Change),
		})
		if err != nil {
			return fmt.Errorf("report of a policy: %w", err)
		}
	}
	return nil
}

// story is the data of the event that ends a conversation.
type story struct {
	Conversation string          `json:"conversation"`
	DurationMS   int64           `json:"duration_ms"`
	Policy       string          `json:"policy,omitempty"`
	Trace        []policy.Step   `json:"trace,omitempty"`
	Stage        string          `json:"stage,omitempty"` // at which it ended, where that was not its end
	Purpose      string          `json:"purpose,omitempty"`
	Mode         string          `json:"mode,omitempty"`
	First        policy.First    `json:"first,omitempty"`
	Accepted     bool            `json:"first_accepted"`
	Judged       bool            `json:"password_judged,omitempty"`
	Factors      []policy.Factor `json:"factors,omitempty"`
	MFA          bool            `json:"mfa,omitempty"`
	Changed      bool            `json:"password_changed,omitempty"`
	Target       string          `json:"target,omitempty"`
	FirstOf      string          `json:"first_of,omitempty"` // whose password the machine has judged, if not the subject's
	TTY          string          `json:"tty,omitempty"`
	RHost        string          `json:"rhost,omitempty"`
	RemoteSeat   bool            `json:"remote_seat,omitempty"`
	Unlock       bool            `json:"unlock,omitempty"`
	MachineAddr  string          `json:"machine_address,omitempty"`
	Past         *policy.Past    `json:"past,omitempty"`    // to judge it again with other rules (P5)
	Reports      []policy.Report `json:"reports,omitempty"` // of policies that only report
}

func (x *turn) story() story {
	t := x.talk
	o := t.Opening
	s := story{
		Conversation: x.id, DurationMS: x.now.Sub(clock.FromMicros(x.row.CreatedAt)).Round(time.Millisecond).Milliseconds(),
		Policy: t.Decision.Policy, Trace: t.Decision.Trace, Purpose: o.Purpose, Mode: o.Mode, First: t.First, Accepted: t.Accepted,
		Judged: t.Judged, Factors: t.Given, MFA: t.mfa(), Changed: t.Changed, Target: o.Target, TTY: o.TTY, RHost: o.RHost,
		RemoteSeat: o.RemoteSeat, Unlock: o.Unlock,
	}
	if x.row.Stage != (judging{}).name() {
		s.Stage = x.row.Stage
	}
	if o.Target != "" && t.First == policy.FirstMachine && !t.Judged {
		s.FirstOf = o.Target // su asks for that one
	}
	if o.MachineAddr.IsValid() {
		s.MachineAddr = o.MachineAddr.String()
	}
	if t.Past.Form != 0 {
		s.Past = &t.Past
	}
	s.Reports = t.Reports
	return s
}
