// Package desk is what administrators may do: one function per action, with its
// right, its audit event and its check that nobody else was faster. The doors
// (internal/server/api, later the console) are thin: they say who asks and hand
// over what was asked.
//
// It promises: an action is one transaction, so that nothing is half-written; its
// event stands in the same transaction; every machine that must learn of it is
// told (internal/server/touch); all faults of an input are said at once, each with
// the field, what is wrong and what is allowed; and whoever may not do something is
// refused before anything is looked at.
//
// Rows: S10 (lock-outs liftable), S13 (explain), W7 (sign out everywhere), O14
// (offline report, disenrolment, machine lost), P1-P5, E1 and E3 (enrolment and
// bypass codes), E4 (tokens, approval), M1, M5, D1, V1, V4.
package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/post"
	"latchkey/internal/server/push"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Config is what a desk stands on. All fields but Push, Sessions, Logger and ServerURL are required.
type Config struct {
	Store     *store.Store
	Keys      *keys.Keys
	Clock     clock.Clock
	Random    io.Reader // of join tokens
	Passwords Passwords
	Factors   Keeper
	Door      Door
	Push      *push.Service    // of phones; nil where there are none
	Passkeys  *passkey.Service // of browsers and machines; nil where there are none
	Post      *post.Post       // of mails and text messages; nil where none are sent
	Sessions  Sessions         // of people; nil where nobody signs in
	CA        func() [32]byte  // SHA-256 of the CA's certificate, which join tokens pin
	CACert    func() []byte    // the CA's certificate in DER, for who asks; nil where there is none
	Issuer    Issuer           // of users' certificates; nil where there are none
	ServerURL string           // of the machines' listener, where the settings name none
	// OutwardProxy and PushNetworks count where the settings name none.
	OutwardProxy, PushNetworks string

	PeopleURL func() string // of the people's listener, where the settings name none; nil where there is none
	Version   string        // of this program
	Logger    *slog.Logger
}

// Passwords judges and hashes passwords of local users: the directory's business.
type Passwords interface {
	// Hash judges a new password for the user of that name and makes the hash to
	// store. The error is a *fault.Fault with the field "password" if it is refused.
	Hash(ctx context.Context, userName string, password secret.Bytes) (string, error)
}

// Desk does what administrators ask. It is safe for concurrent use.
type Desk struct {
	Config
	trials  chan struct{} // of policies: so many at a time
	figures figures       // of the dashboard
	tests   *rate.Keyed   // messages for trying out
}

// New makes a desk.
func New(c Config) *Desk {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desk{Config: c, trials: make(chan struct{}, 1), tests: rate.New(testRate, c.Clock)}
}

func (d *Desk) peopleURL() string {
	if d.PeopleURL == nil {
		return ""
	}
	return d.PeopleURL()
}

func (d *Desk) now() int64 { return clock.Micros(d.Clock.Now()) }

// update runs one action as a transaction. What the database refuses because
// somebody else was faster becomes a fault for people.
func (d *Desk) update(ctx context.Context, fn func(ctx context.Context, tx *store.Tx) error) error {
	err := d.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := Claim(ctx, tx); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
	var f *fault.Fault
	switch {
	case err == nil || errors.As(err, &f):
		return err
	case store.IsDuplicate(err):
		return fault.New(fault.Exists, err)
	case store.IsReferenced(err):
		return fault.New(fault.Conflict, err)
	case store.IsUnavailable(err):
		return fault.New(fault.Unavailable, err)
	}
	return err
}

// note writes an audit event with its data. What is empty is left out.
func note(tx *store.Tx, a Actor, e event.Event, data map[string]any) error {
	e.Actor = a.Name
	if e.Address == "" {
		e.Address = a.Address
	}
	for k, v := range data {
		if r := reflect.ValueOf(v); r.Kind() == reflect.Slice && r.Len() == 0 || v == "" {
			delete(data, k)
		}
	}
	if len(data) > 0 {
		b, err := json.Marshal(data)
		if err != nil {
			return fmt.Errorf("data of the event %s: %w", e.Type, err)
		}
		e.Data = b
	}
	_, err := tx.Event(e)
	return err
}

// stale compares the revision that somebody saw (0 = any) with the present one.
func stale(seen, present int64) error {
	if seen != 0 && seen != present {
		return fault.New(fault.Conflict, nil)
	}
	return nil
}

// faults collects what is wrong with an input.
type faults struct{ f *fault.Fault }

func (v *faults) add(field, what string, a ...any) {
	if v.f == nil {
		v.f = fault.New(fault.Invalid, nil)
	}
	v.f.With(field, what, a...)
}

func (v *faults) err() error {
	if v.f == nil {
		return nil
	}
	return v.f
}

// because adds the fault that a check of package text or policy found.
func (v *faults) because(field string, err error) {
	var ne *text.NameError
	switch {
	case err == nil:
	case errors.As(err, &ne):
		v.add(field, "%s; %s", ne.Fault, ne.Allowed)
	default:
		v.add(field, "%s", err)
	}
}

// merge takes over the fields of another fault; false if err is something else.
func (v *faults) merge(err error) bool {
	var f *fault.Fault
	if !errors.As(err, &f) || f.Code != fault.Invalid || len(f.Fields) == 0 {
		return false
	}
	for _, x := range f.Fields {
		v.add(x.Name, "%s", x.Fault)
	}
	return true
}

// name judges the name of something new.
func (v *faults) name(field, value string) {
	if err := text.ValidName(field, value); err != nil {
		v.because(field, err)
	} else if looksLikeID(value) {
		v.add(field, "it looks like an id; allowed are names that are none")
	} else if strings.EqualFold(value, Root().Name) {
		v.add(field, "it is the name of root on the server in events; allowed are other names")
	}
}

// line judges free text of one line; empty is allowed.
func (v *faults) line(field, value string, most int) {
	if value != "" {
		v.because(field, text.ValidLine(field, value, most))
	}
}

func (v *faults) word(field, value string, allowed []string) {
	if !slices.Contains(allowed, value) {
		v.add(field, "%q is not allowed; allowed are %s", text.CleanN(value, 64), strings.Join(allowed, ", "))
	}
}

// span reads a duration within bounds; empty gives the default.
func (v *faults) span(field, value string, otherwise, low, high time.Duration) time.Duration {
	if value == "" {
		return otherwise
	}
	d, err := text.ParseDuration(value)
	if err != nil {
		v.add(field, "%q is no duration; allowed are durations such as 90m, 24h or 7d, from %s to %s", text.CleanN(value, 64), text.Duration(low), text.Duration(high))
		return otherwise
	}
	if d < low || d > high {
		v.add(field, "%s is out of range; allowed are %s to %s", text.Duration(d), text.Duration(low), text.Duration(high))
		return otherwise
	}
	return d
}

const (
	maxLine = 256
	maxMail = 254
	maxList = 1000 // names in one list of an input
)

// mail judges an address roughly: what is delivered is the mail server's business.
func (v *faults) mail(field, value string) {
	if value == "" {
		return
	}
	if err := text.ValidLine(field, value, maxMail); err != nil {
		v.because(field, err)
		return
	}
	at := strings.LastIndexByte(value, '@')
	if at < 1 || at == len(value)-1 || strings.ContainsAny(value, " <>,;\"") {
		v.add(field, "%q is no mail address; allowed is NAME@HOST", text.CleanN(value, 64))
	}
}

// count bounds a list.
func (v *faults) count(field string, n int) bool {
	if n > maxList {
		v.add(field, "%d entries; allowed are at most %d", n, maxList)
		return false
	}
	return true
}

// looksLikeID tells whether s has the form of an id at the edge.
func looksLikeID(s string) bool {
	i := strings.IndexByte(s, '_')
	if i != 3 {
		return false
	}
	_, err := uuid.Parse(s[i+1:])
	return err == nil
}

// cut takes the prefix off an id; ok is false if s is no such id.
func cut(prefix, s string) (id string, ok bool) {
	id, ok = strings.CutPrefix(s, prefix)
	if !ok || !looksLikeID(s) {
		return "", false
	}
	return id, true
}

// missing is the fault for something that does not exist. What was asked for is
// repeated so that a mistake in typing is seen.
func missing(kind, ref string) error {
	return fault.Newf(fault.NotFound, "There is no %s %q. Names are exact: upper and lower case matter.", kind, text.CleanN(ref, 128))
}

// user finds a user by name or id.
func user(ctx context.Context, q *db.Queries, ref string) (db.User, error) {
	var u db.User
	err := error(nil)
	if id, ok := cut(rest.UserPrefix, ref); ok {
		u, err = q.GetUser(ctx, id)
	} else if askable(ref) {
		u, err = q.GetUserByName(ctx, ref)
	} else {
		return u, missing("user", ref)
	}
	if store.IsNotFound(err) {
		return u, missing("user", ref)
	}
	return u, err
}

// group finds a group by name or id.
func group(ctx context.Context, q *db.Queries, ref string) (db.Group, error) {
	var g db.Group
	err := error(nil)
	if id, ok := cut(rest.GroupPrefix, ref); ok {
		g, err = q.GetGroup(ctx, id)
	} else if askable(ref) {
		g, err = q.GetGroupByName(ctx, ref)
	} else {
		return g, missing("group", ref)
	}
	if store.IsNotFound(err) {
		return g, missing("group", ref)
	}
	return g, err
}

// machine finds a machine by name, number (#7) or id.
func machine(ctx context.Context, q *db.Queries, ref string) (db.Machine, error) {
	var m db.Machine
	err := error(nil)
	if id, ok := cut(rest.MachinePrefix, ref); ok {
		m, err = q.GetMachine(ctx, id)
	} else if n, ok := number(ref); ok {
		m, err = q.GetMachineByNumber(ctx, n)
	} else if askable(ref) {
		var all []db.Machine
		all, err = q.ListMachinesByName(ctx, ref)
		switch {
		case err != nil:
		case len(all) == 0:
			return m, missing("machine", ref)
		case len(all) > 1:
			ids := make([]string, len(all))
			for i, x := range all {
				ids[i] = rest.MachinePrefix + x.ID
			}
			return m, fault.Newf(fault.Conflict, "%d machines have the name %q. Say which by its id: %s.", len(all), ref, strings.Join(ids, ", "))
		default:
			m = all[0]
		}
	} else {
		return m, missing("machine", ref)
	}
	if store.IsNotFound(err) {
		return m, missing("machine", ref)
	}
	return m, err
}

func number(ref string) (int64, bool) {
	s, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0
}

// askable tells whether the database can be asked for the name at all.
func askable(ref string) bool {
	return ref != "" && len(ref) <= 256 && !strings.ContainsRune(ref, 0) && strings.ToValidUTF8(ref, "") == ref
}

// page gives the bounds of a list: how many to ask for (one more than shown, so
// that the end is known) and how many to show.
func page(limit int) (ask int64, show int) {
	switch {
	case limit <= 0:
		show = rest.DefaultPage
	default:
		show = min(limit, rest.MaxPage)
	}
	return int64(show + 1), show
}
