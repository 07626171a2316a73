package bulk

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// planner judges rows and says what becomes of each.
type planner struct {
	actor  desk.Actor
	imp    db.Import
	groups map[string]string // id by name; "" is one that is not there
	made   map[string]string // groups that come into being
	// first is where a user was first named: of a file with 200 000 rows these are a
	// few MB.
	first     map[[16]byte]int64
	passwords int
}

func newPlanner(a desk.Actor, imp db.Import) (*planner, error) {
	p := &planner{actor: a, imp: imp, groups: map[string]string{}, made: map[string]string{}, first: map[[16]byte]int64{}}
	return p, json.Unmarshal([]byte(imp.MadeGroups), &p.made)
}

// plan is one row's.
type plan struct {
	row      db.InsertImportRowParams
	members  []db.InsertImportMemberParams
	password secret.Bytes
	in       input
	faults   []rest.ImportFault
	changes  []change
}

// change is one setting that is changed, as events hold it.
type change struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

func (pl *plan) fault(field, format string, a ...any) {
	pl.faults = append(pl.faults, rest.ImportFault{Line: pl.row.Line, Column: pl.in.columns[field], Field: field, Fault: fmt.Sprintf(format, a...)})
}

// seal ends the plan: a faulty row changes nothing.
func (pl *plan) seal() {
	if len(pl.faults) > 0 {
		pl.row.State, pl.row.Fields, pl.row.Disables, pl.row.WantCode = rest.RowFaulty, false, false, false
		pl.row.Note = ""
		pl.changes, pl.members = nil, nil
	}
	pl.row.Input, pl.row.Changes, pl.row.Faults = encode(pl.in), encode(nonNil(pl.changes)), encode(nonNil(pl.faults))
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain texts and numbers
	}
	return string(b)
}

// user is the row as a user who would be made.
func (in input) user() rest.NewUser {
	u := rest.NewUser{Name: in.Name}
	take := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	take(&u.DisplayName, in.DisplayName)
	take(&u.Mail, in.Mail)
	take(&u.Role, in.Role)
	take(&u.MFA, in.MFA)
	take(&u.Activation, in.Activation)
	if in.ActivateAt != nil {
		u.ActivateAt = *in.ActivateAt
	}
	if in.UID != nil && *in.UID >= 0 {
		u.UID = in.UID
	}
	return u
}

// plan judges a row against the database. What is wrong with it stands in its
// faults; an error is one of the database.
func (p *planner) plan(ctx context.Context, q *db.Queries, n, line int64, in input, faults []rest.ImportFault) (*plan, error) {
	pl := &plan{in: in, faults: faults, password: in.password}
	pl.row = db.InsertImportRowParams{ImportID: p.imp.ID, N: n, Line: line, Name: in.Name, NameFold: facts.Fold(in.Name)}
	if len(in.Name) > 256 || in.Name == "" {
		if in.Name != "" {
			pl.fault("name", "it has more than 256 octets")
		}
		pl.row.Name, pl.row.NameFold, pl.in.Name = "", "", ""
		return pl, nil
	}
	if p.first != nil {
		sum := sha256.Sum256([]byte(in.Name))
		key := [16]byte(sum[:16])
		if before, ok := p.first[key]; ok {
			pl.fault("name", "the same user stands in line %d already", before)
			return pl, nil
		}
		p.first[key] = line
	}
	near, err := q.ListUsersByFold(ctx, pl.row.NameFold)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(near, func(u db.User) bool { return u.Name == in.Name })
	for _, f := range desk.UserFaults(in.user(), i < 0) {
		pl.fault(f.Name, "%s", f.Fault)
	}
	if in.Role != nil && slices.Contains(rest.Roles, *in.Role) && !p.actor.Above(*in.Role) {
		pl.fault("role", "an import gives only roles below your own (%s)", p.actor.Role)
	}
	want, exact, err := p.wanted(ctx, q, pl)
	if err != nil {
		return nil, err
	}
	if i >= 0 {
		return pl, p.change(ctx, q, pl, near[i], want, exact)
	}
	p.add(pl, want)
	if len(near) > 0 {
		pl.row.Note = fmt.Sprintf("there is a user %s already, who is somebody else: upper and lower case matter", near[0].Name)
	}
	return pl, nil
}

// wanted gives the groups that the row names, ids by names; exact: and no others.
func (p *planner) wanted(ctx context.Context, q *db.Queries, pl *plan) (want map[string]string, exact bool, err error) {
	want = map[string]string{}
	lists := map[string][]string{"add_groups": pl.in.AddGroups}
	if pl.in.Groups != nil {
		lists["groups"], exact = *pl.in.Groups, true
	}
	for field, names := range lists {
		for _, name := range names {
			id, err := p.group(ctx, q, name)
			if err != nil {
				return nil, false, err
			}
			if id == "" && p.imp.MakeGroups {
				if why := desk.GroupFault(name); why != "" {
					pl.fault(field, "no group can be called %q: %s", name, why)
					continue
				}
				if len(p.made) >= maxMade {
					pl.fault(field, "more than %d groups would come into being; is the right column called %s?", maxMade, field)
					continue
				}
				id = store.NewID()
				p.made[name], p.groups[name] = id, id
			}
			if id == "" {
				pl.fault(field, "there is no group %q", name)
				continue
			}
			want[name] = id
		}
	}
	return want, exact, nil
}

// maxMade bounds the groups that one import makes.
const maxMade = 1000

func (p *planner) group(ctx context.Context, q *db.Queries, name string) (string, error) {
	if id, ok := p.groups[name]; ok {
		return id, nil
	}
	id := p.made[name]
	if len(name) <= 256 {
		switch g, err := q.GetGroupByName(ctx, name); {
		case err == nil:
			id = g.ID
		case !store.IsNotFound(err):
			return "", err
		}
	}
	p.groups[name] = id
	return id, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// add plans a new user.
func (p *planner) add(pl *plan, want map[string]string) {
	in, u, r := pl.in, pl.in.user(), &pl.row
	r.State, r.UserID, r.SeenRev = rest.RowNew, store.NewID(), 0
	r.DisplayName, r.Mail, r.UID = u.DisplayName, u.Mail, u.UID
	r.Role, r.MFA = or(u.Role, rest.RoleNone), or(u.MFA, rest.MFAInherit)
	r.Activation = or(u.Activation, rest.ActivateNow)
	if !u.ActivateAt.IsZero() {
		r.Activation, r.ActivateAt = rest.ActivateAt, clock.Micros(u.ActivateAt)
	}
	r.Disabled = in.Disabled != nil && *in.Disabled
	r.MustChange = in.MustChange != nil && *in.MustChange
	r.WantCode = p.imp.Codes
	if in.Code != nil {
		r.WantCode = *in.Code
	}
	names := make([]string, 0, len(want))
	for name, id := range want {
		names = append(names, name)
		pl.members = append(pl.members, db.InsertImportMemberParams{ImportID: p.imp.ID, UserID: r.UserID, GroupID: id, N: r.N, Added: true})
	}
	slices.Sort(names)
	note := func(field, old, value string) {
		if value != old {
			pl.changes = append(pl.changes, change{field, "", value})
		}
	}
	note("display_name", "", r.DisplayName)
	note("mail", "", r.Mail)
	note("role", rest.RoleNone, r.Role)
	note("mfa", rest.MFAInherit, r.MFA)
	note("activation", rest.ActivateNow, r.Activation)
	if r.ActivateAt != 0 {
		note("activate_at", "", when(r.ActivateAt))
	}
	if r.UID != nil {
		note("uid", "", strconv.FormatInt(*r.UID, 10))
	}
	if r.Disabled {
		note("disabled", "", "yes")
	}
	if r.MustChange {
		note("must_change", "", "yes")
	}
	if !in.password.Empty() {
		note("password", "", "set")
	}
	note("groups", "", strings.Join(names, "|"))
}

func when(us int64) string {
	if us == 0 {
		return ""
	}
	return rest.Time(us).Format(time.RFC3339)
}

// set writes a new value and notes the difference.
func set[T comparable](pl *plan, field string, to *T, value T) {
	if *to != value {
		pl.changes = append(pl.changes, change{field, *to, value})
		*to = value
	}
}

// change plans what becomes of a user who is there.
func (p *planner) change(ctx context.Context, q *db.Queries, pl *plan, u db.User, want map[string]string, exact bool) error {
	in, r := pl.in, &pl.row
	pl.password = secret.Bytes{}
	r.State, r.UserID, r.SeenRev = rest.RowSame, u.ID, u.Rev
	if in.DisplayName != nil {
		set(pl, "display_name", &u.DisplayName, *in.DisplayName)
	}
	if in.Mail != nil {
		set(pl, "mail", &u.Mail, *in.Mail)
	}
	if in.Role != nil {
		set(pl, "role", &u.Role, *in.Role)
	}
	if in.MFA != nil {
		set(pl, "mfa", &u.MFA, *in.MFA)
	}
	was := u.Disabled
	if in.Disabled != nil {
		set(pl, "disabled", &u.Disabled, *in.Disabled)
	}
	if in.UID != nil {
		old := int64(-1)
		if u.UID != nil {
			old = *u.UID
		}
		if set(pl, "uid", &old, *in.UID); old < 0 {
			u.UID = nil
		} else {
			u.UID = &old
		}
	}
	if in.Activation != nil || in.ActivateAt != nil {
		word, at := rest.ActivateAt, int64(0)
		if in.Activation != nil {
			word = *in.Activation
		}
		if in.ActivateAt != nil {
			at = clock.Micros(*in.ActivateAt)
		}
		set(pl, "activation", &u.Activation, word)
		set(pl, "activate_at", &u.ActivateAt, at)
	}
	r.Disables = !was && u.Disabled
	r.DisplayName, r.Mail, r.Role, r.MFA, r.Disabled, r.UID, r.Activation, r.ActivateAt = u.DisplayName, u.Mail, u.Role, u.MFA, u.Disabled, u.UID, u.Activation, u.ActivateAt
	if err := p.members(ctx, q, pl, want, exact); err != nil {
		return err
	}
	if len(pl.changes) == 0 {
		return nil
	}
	// Also where groups alone change: only a row that is written is bound to the revision
	// that was judged, and somebody may have got another role since.
	r.State, r.Fields = rest.RowChanged, true
	if role := roleBefore(pl.changes, u.Role); !p.actor.Above(role) {
		pl.fault("name", "%s has the role %s; an import changes only users whose role is below your own (%s)", u.Name, role, p.actor.Role)
	}
	return nil
}

func roleBefore(list []change, role string) string {
	for _, c := range list {
		if c.Field == "role" {
			return c.Old.(string)
		}
	}
	return role
}

// members plans what becomes of the groups of a user who is there.
func (p *planner) members(ctx context.Context, q *db.Queries, pl *plan, want map[string]string, exact bool) error {
	if len(want) == 0 && !exact {
		return nil
	}
	have, err := q.ListGroupsOfUser(ctx, pl.row.UserID)
	if err != nil {
		return err
	}
	before, after := []string{}, []string{}
	for _, g := range have {
		before = append(before, g.Name)
		if _, ok := want[g.Name]; ok || !exact {
			after = append(after, g.Name)
			delete(want, g.Name)
			continue
		}
		pl.members = append(pl.members, db.InsertImportMemberParams{ImportID: p.imp.ID, UserID: pl.row.UserID, GroupID: g.ID, N: pl.row.N, Added: false})
	}
	for name, id := range want {
		after = append(after, name)
		pl.members = append(pl.members, db.InsertImportMemberParams{ImportID: p.imp.ID, UserID: pl.row.UserID, GroupID: id, N: pl.row.N, Added: true})
	}
	if len(pl.members) > 0 {
		slices.Sort(before)
		slices.Sort(after)
		pl.changes = append(pl.changes, change{"groups", strings.Join(before, "|"), strings.Join(after, "|")})
	}
	return nil
}

// hash judges and hashes the first password of a new user.
func (s *Service) hash(ctx context.Context, p *planner, pl *plan) error {
	defer pl.password.Wipe()
	if pl.password.Empty() || pl.row.State != rest.RowNew || len(pl.faults) > 0 {
		return nil
	}
	if p.passwords++; p.passwords > maxPasswords {
		pl.fault("password", "more than %d rows set a password, which takes long; allowed are %d in one import", maxPasswords, maxPasswords)
		return nil
	}
	hash, err := s.c.Passwords.Hash(ctx, pl.row.Name, pl.password)
	var f *fault.Fault
	if errors.As(err, &f) && f.Code == fault.Invalid {
		for _, x := range f.Fields {
			pl.fault("password", "%s", x.Fault)
		}
		return nil
	}
	pl.row.PasswordHash = hash
	return err
}
