package desk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/checkpoint"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// EventFilter chooses events; what is empty means any.
type EventFilter struct {
	Types   []string // words of the vocabulary, or "signin." for all that begin so
	User    string   // name or id
	Machine string   // name, number or id
	Outcome string
	Reason  string
	Scope   string
	Service string
	Link    string
	Factor  string
	Actor   string    // the name of who did it
	Address string    // exactly
	Text    string    // in subject, actor, machine, address, service or reason, whatever the case; see resolveText
	Since   time.Time // at the source, inclusive
	Until   time.Time // exclusive
	// Actions leaves administrators' actions alone: what people did at the console, the
	// API or the admin socket. Types narrow them further.
	Actions bool
}

// actionTypes are the types that administrators' actions have. What people do for
// themselves, and the server by itself, under one of them is told apart by the actor.
var actionTypes = []string{
	string(event.LockoutLifted), string(event.TokenIssued), string(event.TokenWithdrawn), "apitoken.", "setup.", "user.", "group.", "policy.", "settings.",
	string(event.FactorAdded), string(event.FactorRemoved), string(event.FactorLost), string(event.CodeIssued),
	string(event.MachineApproved), string(event.MachineChanged), string(event.MachineRevoked), string(event.MachineLost), string(event.MachineRemoved),
	string(event.WindowEnded), string(event.VaultDisenroled), string(event.VaultLiftWanted), string(event.BackupMade), "approval.", "import.", "report.handled",
}

// action tells whether an event of these types is something that an administrator did: not
// the server, not an agent, and not somebody for themselves. No account has their names (see
// Unnamed), and a machine never stands as the actor: an administrator gives it any name.
func action(e db.Event) bool {
	switch e.Actor {
	case "", actorServer, actorAgent:
		return false
	case e.Subject:
		switch event.Type(e.Type) {
		case event.FactorAdded, event.FactorRemoved, event.FactorLost, event.CodeIssued, event.VaultDisenroled, event.UserChanged, event.WindowEnded:
			return false
		}
	}
	return true
}

// chosenEvents is a filter with names resolved.
type chosenEvents struct {
	f       store.EventFilter
	actions bool
}

func (d *Desk) resolveFilter(ctx context.Context, in EventFilter) (chosenEvents, error) {
	var out chosenEvents
	var v faults
	if v.count("type", len(in.Types)) {
		for _, t := range in.Types {
			v.eventType(t)
		}
	}
	for _, x := range []struct{ field, value string }{
		{"outcome", in.Outcome},
		{"reason", in.Reason},
		{"service", in.Service},
		{"factor", in.Factor},
		{"actor", in.Actor},
		{"address", in.Address},
		{"text", in.Text},
	} {
		if len(x.value) > maxLine || !askable(x.value) && x.value != "" {
			v.add(x.field, "it is too long or no text; allowed are %d octets", maxLine)
		}
	}
	if in.Scope != "" {
		v.scope("scope", in.Scope)
	}
	if in.Link != "" {
		v.word("link", in.Link, []string{string(policy.LinkUp), string(policy.LinkDown), string(policy.LinkRefused)})
	}
	if !in.Since.IsZero() && !in.Until.IsZero() && !in.Since.Before(in.Until) {
		v.add("until", "it does not lie behind since")
	}
	if err := v.err(); err != nil {
		return out, err
	}
	out.f = store.EventFilter{
		Types: in.Types, Outcome: in.Outcome, Reason: in.Reason, Scope: in.Scope, Service: in.Service, Link: in.Link, Factor: in.Factor,
		Actor: in.Actor, Address: in.Address, Text: in.Text,
	}
	out.actions = in.Actions
	if in.Actions && len(in.Types) == 0 {
		out.f.Types = there(actionTypes)
	}
	if !in.Since.IsZero() {
		out.f.Since = micros(in.Since)
	}
	if !in.Until.IsZero() {
		out.f.Until = micros(in.Until)
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		// An id is taken as it is: events outlive what they speak of.
		if id, ok := cut(rest.UserPrefix, in.User); ok {
			out.f.UserID = id
		} else if in.User != "" {
			u, err := user(ctx, q, in.User)
			if err != nil {
				return err
			}
			out.f.UserID = u.ID
		}
		if id, ok := cut(rest.MachinePrefix, in.Machine); ok {
			out.f.MachineID = id
		} else if in.Machine != "" {
			m, err := machine(ctx, q, in.Machine)
			if err != nil {
				return err
			}
			out.f.MachineID = m.ID
		}
		return out.resolveText(ctx, q)
	})
	return out, err
}

// resolveText turns a text that is exactly the name of one user or one machine into that
// one's id, for which there is an index: the events come at once, however long the log is,
// and also those from before a change of the name. Of people with a role it would leave out
// what they did to others, and so their names stay text. Quotes keep any text as it is.
func (c *chosenEvents) resolveText(ctx context.Context, q *store.Queries) error {
	s := c.f.Text
	if n := len(s); n > 2 && s[0] == '"' && s[n-1] == '"' {
		c.f.Text = s[1 : n-1]
		return nil
	}
	if s == "" || c.f.UserID != "" || c.f.MachineID != "" {
		return nil
	}
	u, err := q.GetUserByName(ctx, s)
	if err != nil && !store.IsNotFound(err) {
		return err
	}
	machines, err := q.ListMachinesByName(ctx, s)
	switch {
	case err != nil:
		return err
	case u.ID != "" && u.Role == rest.RoleNone && len(machines) == 0:
		c.f.UserID, c.f.Text = u.ID, ""
	case u.ID == "" && len(machines) == 1:
		c.f.MachineID, c.f.Text = machines[0].ID, ""
	}
	return nil
}

// micros keeps times that no event can have from overflowing.
func micros(t time.Time) int64 {
	switch {
	case t.Year() < 1970:
		return 1
	case t.Year() > 9999:
		return math.MaxInt64
	}
	return clock.Micros(t)
}

// eventType judges a word of the vocabulary, or the beginning of some.
func (v *faults) eventType(t string) {
	if _, ok := event.Meaning[event.Type(t)]; ok {
		return
	}
	var heads []string
	for w := range event.Meaning {
		head, _, _ := strings.Cut(string(w), ".")
		heads = append(heads, head+".")
	}
	slices.Sort(heads)
	heads = slices.Compact(heads)
	if !slices.Contains(heads, t) {
		v.add("type", "there is no event type %q; allowed are the types in docs/events.md and their beginnings: %s", text.CleanN(t, 64), strings.Join(heads, " "))
	}
}

// matches tells whether an event that was followed is one of those wanted.
func (c chosenEvents) matches(e db.Event) bool {
	f := c.f
	for _, x := range [][2]string{
		{f.UserID, e.UserID},
		{f.MachineID, e.MachineID},
		{f.Outcome, e.Outcome},
		{f.Reason, e.Reason},
		{f.Scope, e.Scope},
		{f.Service, e.Service},
		{f.Link, e.Link},
		{f.Factor, e.Factor},
		{f.Actor, e.Actor},
		{f.Address, e.Address},
	} {
		if x[0] != "" && x[0] != x[1] {
			return false
		}
	}
	if c.actions && !action(e) {
		return false
	}
	if f.Text != "" {
		all := strings.Join([]string{e.Subject, e.Actor, e.Machine, e.Address, e.Service, e.Reason}, " ")
		if !strings.Contains(lowerASCII(all), lowerASCII(f.Text)) {
			return false
		}
	}
	if f.Since != 0 && e.At < f.Since || f.Until != 0 && e.At >= f.Until {
		return false
	}
	return len(f.Types) == 0 || slices.ContainsFunc(f.Types, func(t string) bool {
		return e.Type == t || strings.HasSuffix(t, ".") && strings.HasPrefix(e.Type, t)
	})
}

// lowerASCII is how a search of the log takes letters.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// there leaves out beginnings of which the vocabulary has no word.
func there(types []string) []string {
	return slices.DeleteFunc(slices.Clone(types), func(t string) bool {
		if _, ok := event.Meaning[event.Type(t)]; ok {
			return false
		}
		for w := range event.Meaning {
			if strings.HasSuffix(t, ".") && strings.HasPrefix(string(w), t) {
				return false
			}
		}
		return true
	})
}

func eventOf(r db.Event) rest.Event {
	e := store.EventOf(r)
	out := rest.Event{
		ID: rest.EventPrefix + e.ID, Type: string(e.Type), Actor: e.Actor, Subject: e.Subject, Machine: e.Machine, Address: e.Address,
		Scope: e.Scope, Service: e.Service, Link: e.Link, Outcome: e.Outcome, Reason: e.Reason, Factor: e.Factor,
		At: rest.Time(e.At), ReceivedAt: rest.Time(e.ReceivedAt), Data: e.Data, Chain: r.Chain, Seq: r.Seq,
	}
	if e.UserID != "" {
		out.UserID = rest.UserPrefix + e.UserID
	}
	if e.MachineID != "" {
		out.MachineID = rest.MachinePrefix + e.MachineID
	}
	return out
}

// ListEvents gives a page of events, the youngest first (V1).
func (d *Desk) ListEvents(ctx context.Context, a Actor, in EventFilter, after string, limit int) (rest.Page[rest.Event], error) {
	out := rest.Page[rest.Event]{Items: []rest.Event{}}
	if err := a.may(events); err != nil {
		return out, err
	}
	from, err := resume("events", after, 2)
	if err != nil {
		return out, err
	}
	c, err := d.resolveFilter(ctx, in)
	if err != nil {
		return out, err
	}
	if from[0] != "" {
		if c.f.BeforeAt, err = strconv.ParseInt(from[0], 10, 64); err != nil {
			return out, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list")
		}
		c.f.BeforeID = from[1]
	}
	_, show := page(limit)
	for range actionLooks {
		c.f.Limit = show
		found, err := d.Store.SearchEvents(ctx, c.f)
		if err != nil {
			return out, err
		}
		rows := found.Events
		for i, r := range rows {
			if in.Actions && !action(r) {
				continue
			}
			if out.Items = append(out.Items, eventOf(r)); len(out.Items) == show && i < len(rows)-1 {
				out.Next = cursor("events", strconv.FormatInt(r.At, 10), r.ID)
				return out, nil
			}
		}
		switch {
		case found.SearchedTo != 0:
			out.Next, out.SearchedTo = cursor("events", strconv.FormatInt(found.SearchedTo, 10), ""), rest.Time(found.SearchedTo)
			return out, nil
		case len(rows) < show:
			out.Next, out.SearchedTo = "", time.Time{}
			return out, nil
		}
		// One more page than needed may be asked for, when the last one is just full: a
		// look ahead would cost every page.
		last := rows[show-1]
		out.Next = cursor("events", strconv.FormatInt(last.At, 10), last.ID)
		if !in.Actions || len(out.Items) == show {
			return out, nil
		}
		out.SearchedTo = rest.Time(last.At)
		c.f.BeforeAt, c.f.BeforeID = last.At, last.ID
	}
	return out, nil
}

// actionLooks is how many pages are gone through for one of administrators' actions.
const actionLooks = 6

// ShowEvent gives one event.
func (d *Desk) ShowEvent(ctx context.Context, a Actor, ref string) (rest.Event, error) {
	var out rest.Event
	if err := a.may(events); err != nil {
		return out, err
	}
	id, ok := cut(rest.EventPrefix, ref)
	if !ok {
		return out, missing("event", ref)
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		e, err := q.GetEvent(ctx, id)
		if store.IsNotFound(err) {
			return missing("event", ref)
		}
		out = eventOf(e)
		return err
	})
	return out, err
}

// FollowEvents gives the last few events that match (tail of them, the oldest
// first), and then every further one as it is written, in the order of its chain,
// each once. It returns when the context ends, when the store is closed, or with
// the error of each. idle is called now and then while nothing happens.
func (d *Desk) FollowEvents(ctx context.Context, a Actor, in EventFilter, tail int, each func(rest.Event) error, idle func() error) error {
	return d.FollowEventsFrom(ctx, a, in, "", tail, func(string) {}, each, idle)
}

// FollowEventsFrom is FollowEvents for whoever comes again: at is given the place where
// the new events begin, before the first event, and when the context has ended the place
// behind all that were given. With a place (and no tail) nothing that was written since
// is missed.
func (d *Desk) FollowEventsFrom(ctx context.Context, a Actor, in EventFilter, place string, tail int, at func(place string), each func(rest.Event) error, idle func() error) error {
	if err := a.may(events); err != nil {
		return err
	}
	from, err := parsePlace(place)
	if err != nil {
		return err
	}
	if from != nil && tail > 0 {
		return fault.New(fault.Invalid, nil).With("tail", "it goes with the beginning of a stream, not with after")
	}
	c, err := d.resolveFilter(ctx, in)
	if err != nil {
		return err
	}
	each, still := d.whileStill(ctx, a, each)
	woken, cancel := d.Store.WatchEvents()
	defer cancel()
	pos := from
	if pos == nil {
		if pos, err = d.Store.Position(ctx); err != nil {
			return err
		}
	}
	at(placeOf(pos))
	// What is written between the position and the list comes twice: known by its place.
	given := map[string]bool{}
	if tail > 0 {
		c.f.Limit = min(tail, rest.MaxPage)
		rows, err := d.Store.Events(ctx, c.f)
		if err != nil {
			return err
		}
		for _, r := range slices.Backward(rows) {
			if r.Seq > pos[r.Chain] {
				given[r.ID] = true
			}
			if err := each(eventOf(r)); err != nil {
				return err
			}
		}
	}
	if err := idle(); err != nil { // says that the stream stands
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			at(placeOf(pos))
			return err
		}
		if err := still(); err != nil {
			return err
		}
		rows, err := d.Store.EventsAfter(ctx, pos, rest.MaxPage)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if given[r.ID] {
				delete(given, r.ID)
				continue
			}
			if !c.matches(r) {
				continue
			}
			if err := each(eventOf(r)); err != nil {
				return err
			}
		}
		if len(rows) == rest.MaxPage {
			continue
		}
		select {
		case _, ok := <-woken:
			if !ok {
				return fault.New(fault.Unavailable, store.ErrClosed)
			}
		case <-d.Clock.After(followIdle):
			if err := still(); err != nil {
				return err
			}
			if err := idle(); err != nil {
				return err
			}
		case <-ctx.Done():
		}
	}
}

// maxPlace bounds a place in octets: that of some dozens of servers.
const maxPlace = 4096

// placeOf writes how far every chain of events goes; parsePlace reads it. Of nothing it
// gives nil.
func placeOf(p store.Position) string {
	b, _ := json.Marshal(p) // texts and numbers are always JSON
	return base64.RawURLEncoding.EncodeToString(b)
}

func parsePlace(s string) (store.Position, error) {
	if s == "" {
		return nil, nil
	}
	bad := func(err error) error {
		return fault.New(fault.Invalid, err).With("after", "it is no place in the events; allowed is the header Latchkey-Place of an earlier stream, or nothing")
	}
	if len(s) > maxPlace {
		return nil, bad(nil)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, bad(err)
	}
	var p store.Position
	if err := json.Unmarshal(b, &p); err != nil || p == nil {
		return nil, bad(err)
	}
	for _, seq := range p {
		if seq < 0 {
			return nil, bad(nil)
		}
	}
	return p, nil
}

// followIdle is how long a follower is left without a sign of life, and how long an
// answer goes on before it is asked again whether the actor may still have it.
const followIdle = 15 * time.Second

// whileStill asks every followIdle whether the actor's session, token or role still
// stands: a long answer must not outlive them. still asks by itself; what it gives for
// each asks before an event is given.
func (d *Desk) whileStill(ctx context.Context, a Actor, each func(rest.Event) error) (checked func(rest.Event) error, still func() error) {
	asked := d.Clock.Now()
	still = func() error {
		now := d.Clock.Now()
		if gone := now.Sub(asked); d.Sessions == nil || gone >= 0 && gone < followIdle {
			return nil
		}
		asked = now
		return d.Sessions.Still(ctx, a)
	}
	return func(e rest.Event) error {
		if err := still(); err != nil {
			return err
		}
		return each(e)
	}, still
}

// ExportEvents gives the events that match to each, the youngest first, until there are
// no more, most were given, or each has an error. It tells how many were given and
// whether there are more.
func (d *Desk) ExportEvents(ctx context.Context, a Actor, in EventFilter, most int, each func(rest.Event) error) (n int, more bool, err error) {
	if err := a.may(events); err != nil {
		return 0, false, err
	}
	c, err := d.resolveFilter(ctx, in)
	if err != nil {
		return 0, false, err
	}
	if most <= 0 || most > rest.MaxExport {
		most = rest.MaxExport
	}
	c.f.Limit = rest.MaxPage
	each, _ = d.whileStill(ctx, a, each)
	for {
		found, err := d.Store.SearchEvents(ctx, c.f)
		if err != nil {
			return n, false, err
		}
		for _, r := range found.Events {
			if c.actions && !action(r) {
				continue
			}
			if n == most {
				return n, true, nil
			}
			if err := each(eventOf(r)); err != nil {
				return n, true, err
			}
			n++
		}
		switch k := len(found.Events); {
		case found.SearchedTo != 0:
			c.f.BeforeAt, c.f.BeforeID = found.SearchedTo, ""
		case k < c.f.Limit:
			return n, false, nil
		default:
			c.f.BeforeAt, c.f.BeforeID = found.Events[k-1].At, found.Events[k-1].ID
		}
		if err := ctx.Err(); err != nil {
			return n, true, err
		}
	}
}

// VerifyEvents recomputes all event chains and compares them with marks that were
// kept elsewhere (V4).
func (d *Desk) VerifyEvents(ctx context.Context, a Actor, in rest.Verify) (rest.Verified, error) {
	out := rest.Verified{Chains: []rest.Chain{}}
	if err := a.may(events); err != nil {
		return out, err
	}
	var v faults
	var marks []store.Mark
	if v.count("marks", len(in.Marks)) {
		for i, s := range in.Marks {
			m, err := store.ParseMark(s)
			if err != nil {
				v.add(fmt.Sprintf("marks[%d]", i), "%s; allowed is CHAIN:SEQ:HASH as an earlier check gave it", text.CleanN(err.Error(), 200))
				continue
			}
			marks = append(marks, m)
		}
	}
	if err := v.err(); err != nil {
		return out, err
	}
	r, err := d.Store.VerifyEvents(ctx, marks...)
	if err != nil {
		return out, err
	}
	out.Whole, out.Events = r.Whole(), r.Events
	for _, c := range r.Chains {
		x := rest.Chain{Name: c.Chain, Events: c.Events, Broken: c.Broken, Why: c.Why}
		if c.Broken == 0 {
			x.Head = c.Head.String()
		}
		out.Chains = append(out.Chains, x)
	}
	// A chain that was rewritten as a whole fits itself, but not what the server has
	// signed of it.
	_, wrong, err := checkpoint.Verify(ctx, d.Store, d.Keys.GrantPublic())
	if err != nil {
		return out, err
	}
	for _, f := range wrong {
		out.Whole = false
		for i, x := range out.Chains {
			if x.Name == f.Chain && x.Broken == 0 {
				out.Chains[i].Head, out.Chains[i].Broken, out.Chains[i].Why = "", f.Seq, "a checkpoint of the server: "+f.Why
			}
		}
	}
	return out, nil
}
