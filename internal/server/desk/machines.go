package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
)

// Door is what the desk needs of the machines' enrolment: see enroll.Door.
type Door interface {
	Issue(ctx context.Context, tx *store.Tx, o enroll.Order) (enroll.Issued, error)
	Approve(ctx context.Context, tx *store.Tx, machineID string) error
	Dismiss(ctx context.Context, tx *store.Tx, machineID, status string) (holders []string, err error)
}

var (
	machineStates = []string{rest.MachinePending, rest.MachineActive, rest.MachineRevoked, rest.MachineLost}
	machineModes  = []string{string(policy.Normal), string(policy.Enforced), string(policy.Exempt)}
	tpmClasses    = []string{"tpm", "software", "none"}
	unknownUsers  = []string{facts.UnknownDeny, facts.UnknownSkip}
)

func (d *Desk) machineOf(r db.MachineRow, s settings.Settings) rest.Machine {
	m := r.Machine
	out := rest.Machine{
		ID: rest.MachinePrefix + m.ID, Number: m.Number, Name: m.Name, Status: m.Status, Mode: m.Mode, UnknownUsers: m.UnknownUsers,
		Owner: r.OwnerName, OnlyAssigned: !m.AllUsers, Users: []string{}, Hostname: m.Hostname, OS: m.OS, AgentVersion: m.AgentVersion,
		TPM: m.TPMClass, KeyInTPM: m.KeyInTPM, TPMProblem: m.TPMProblem, VaultProblem: m.VaultProblem, Address: m.Address,
		LastSeenAt: rest.Time(m.LastSeenAt), JoinedAt: rest.Time(m.JoinedAt), CertUntil: rest.Time(r.CertificateUntil), Vaults: r.Vaults,
		Serial: m.Serial, Rev: m.Rev, Outdated: buildinfo.Older(m.AgentVersion, s.MinAgent),
		Link: rest.LinkDown,
	}
	switch {
	case m.LastSeenAt == 0:
		out.Link = rest.LinkNever
	case m.Status == rest.MachineActive && d.Clock.Now().Sub(out.LastSeenAt) < linkUp:
		out.Link = rest.LinkUp
	}
	if json.Valid([]byte(m.TPMInfo)) && m.TPMInfo != "{}" {
		out.TPMInfo = json.RawMessage(m.TPMInfo)
	}
	return out
}

// linkUp is how long after its last word a machine counts as connected: a poll hangs
// for at most 55 seconds, and one may get lost.
const linkUp = 2 * time.Minute

// MachineFilter chooses machines; what is empty means any.
type MachineFilter struct {
	Prefix   string // of the name, exactly
	Status   string
	Mode     string
	OS       string // it begins so, whatever the case
	TPM      string // tpm, software or none
	Outdated bool   // the agent is older than the settings ask for
	Silent   string // duration: not heard of for so long
	Owner    string // this user's own
	User     string // this user's own, assigned to them, or they have signed in there
	Sort     string // joined, name or seen, with "-" the other way round
}

// ListMachines gives a page of machines, by themselves in order of joining.
func (d *Desk) ListMachines(ctx context.Context, a Actor, f MachineFilter, after string, limit int) (rest.Page[rest.Machine], error) {
	out := rest.Page[rest.Machine]{Items: []rest.Machine{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	var v faults
	if f.Status != "" {
		v.word("status", f.Status, machineStates)
	}
	if f.Mode != "" {
		v.word("mode", f.Mode, machineModes)
	}
	if f.TPM != "" {
		v.word("tpm", f.TPM, tpmClasses)
	}
	order, kind := v.order("machines", f.Sort, "joined", "name", "seen")
	silent := v.span("silent", f.Silent, 0, time.Minute, 10*365*24*time.Hour)
	if err := v.err(); err != nil {
		return out, err
	}
	from, err := resume(kind, after, 3)
	if err != nil {
		return out, err
	}
	seen, err := cursorNumber(from[2])
	if err != nil {
		return out, err
	}
	if f.Prefix != "" && !askable(f.Prefix) || f.OS != "" && !askable(f.OS) {
		return out, nil
	}
	ask, show := page(limit)
	w := db.MachineFilter{Name: f.Prefix, Status: f.Status, Mode: f.Mode, OS: f.OS, TPM: f.TPM, Order: order, AfterID: from[0], AfterName: from[1], AfterSeen: seen, N: ask}
	if silent > 0 {
		w.SeenBefore = clock.Micros(d.Clock.Now().Add(-silent))
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		set, err := settings.Read(ctx, q)
		if err != nil {
			return err
		}
		if w.OwnerID, _, err = pair(ctx, q, f.Owner, ""); err != nil {
			return err
		}
		if w.KnowsID, _, err = pair(ctx, q, f.User, ""); err != nil {
			return err
		}
		if f.Outdated {
			if w.Agents, err = outdated(ctx, q, set.MinAgent); err != nil {
				return err
			}
		}
		rows, err := q.FindMachines(ctx, w)
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			last := rows[show-1].Machine
			out.Next = cursor(kind, last.ID, last.Name, strconv.FormatInt(last.LastSeenAt, 10))
		}
		out.Items, err = d.machinesOf(ctx, q, rows, set)
		return err
	})
	return out, err
}

// outdated are the versions in use that are older than the settings ask for.
func outdated(ctx context.Context, q *db.Queries, least string) ([]string, error) {
	out := []string{}
	all, err := q.AgentVersions(ctx)
	for _, v := range all {
		if buildinfo.Older(v, least) {
			out = append(out, v)
		}
	}
	return out, err
}

// machinesOf is these machines as they are shown.
func (d *Desk) machinesOf(ctx context.Context, q *db.Queries, rows []db.MachineRow, set settings.Settings) ([]rest.Machine, error) {
	ids := make([]string, len(rows))
	for i, r := range rows {
		ids[i] = r.Machine.ID
	}
	pairs, err := q.UsersOfMachines(ctx, ids)
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, p := range pairs {
		users[p.MachineID] = append(users[p.MachineID], p.Name)
	}
	out := make([]rest.Machine, len(rows))
	for i, r := range rows {
		out[i] = d.machineOf(r, set)
		out[i].Users = append(out[i].Users, users[r.Machine.ID]...)
	}
	return out, nil
}

func (d *Desk) showMachine(ctx context.Context, q *db.Queries, id string) (rest.Machine, error) {
	rows, err := q.FindMachines(ctx, db.MachineFilter{OnlyID: id, N: 1})
	if err != nil {
		return rest.Machine{}, err
	}
	if len(rows) == 0 {
		return rest.Machine{}, missing("machine", rest.MachinePrefix+id)
	}
	set, err := settings.Read(ctx, q)
	if err != nil {
		return rest.Machine{}, err
	}
	list, err := d.machinesOf(ctx, q, rows, set)
	if err != nil {
		return rest.Machine{}, err
	}
	return list[0], nil
}

// ShowMachine gives one machine by name, number (#7) or id.
func (d *Desk) ShowMachine(ctx context.Context, a Actor, ref string) (rest.Machine, error) {
	var out rest.Machine
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		m, err := machine(ctx, q, ref)
		if err != nil {
			return err
		}
		out, err = d.showMachine(ctx, q, m.ID)
		return err
	})
	return out, err
}

// userIDs resolves names of users; each that does not exist is a fault.
func (v *faults) userIDs(ctx context.Context, q *db.Queries, field string, refs []string) (map[string]db.User, error) {
	out := map[string]db.User{}
	for i, ref := range refs {
		u, err := user(ctx, q, ref)
		switch {
		case fault.Is(err, fault.NotFound):
			v.add(fmt.Sprintf("%s[%d]", field, i), "there is no user %q", text.CleanN(ref, 128))
		case err != nil:
			return nil, err
		default:
			out[u.ID] = u
		}
	}
	return out, nil
}

// ChangeMachine changes a machine; rev is the revision that was seen, 0 for any.
// Status active approves a pending machine (E4).
func (d *Desk) ChangeMachine(ctx context.Context, a Actor, ref string, rev int64, in rest.MachineChange) (rest.Machine, error) {
	var out rest.Machine
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	if in.Name != nil {
		v.name("name", *in.Name)
		if _, ok := number(*in.Name); ok {
			v.add("name", "it looks like a number; allowed are names that are none")
		}
	}
	if in.Status != nil {
		switch *in.Status {
		case rest.MachineActive:
		case rest.MachineRevoked, rest.MachineLost:
			v.add("status", "%q is not set here; use latchkey machine revoke or latchkey machine lost", *in.Status)
		default:
			v.word("status", *in.Status, []string{rest.MachineActive})
		}
	}
	if in.Mode != nil {
		v.word("mode", *in.Mode, machineModes)
	}
	if in.UnknownUsers != nil {
		v.word("unknown_users", *in.UnknownUsers, unknownUsers)
	}
	if in.Users != nil {
		v.count("users", len(*in.Users))
		if len(in.AddUsers)+len(in.RemoveUsers) > 0 {
			v.add("users", "it stands beside add_users or remove_users; allowed is one or the other")
		}
	}
	v.count("add_users", len(in.AddUsers))
	v.count("remove_users", len(in.RemoveUsers))
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		v := v.clone()
		m, err := machine(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, m.Rev); err != nil {
			return err
		}
		if m.Status == rest.MachineRevoked || m.Status == rest.MachineLost {
			return fault.Newf(fault.Conflict, "%s is %s: nothing about it can be changed. To use it again, join it with a new token (latchkey machine token).", m.Name, m.Status)
		}
		was := m
		var list []changed
		set(&list, "name", &m.Name, in.Name)
		set(&list, "mode", &m.Mode, in.Mode)
		set(&list, "unknown_users", &m.UnknownUsers, in.UnknownUsers)
		if in.OnlyAssigned != nil {
			all := !*in.OnlyAssigned
			if m.AllUsers != all {
				list = append(list, changed{"only_assigned", !m.AllUsers, !all})
				m.AllUsers = all
			}
		}
		if in.Owner != nil {
			owner := ""
			if *in.Owner != "" {
				u, err := user(ctx, tx.Queries, *in.Owner)
				switch {
				case fault.Is(err, fault.NotFound):
					v.add("owner", "there is no user %q", text.CleanN(*in.Owner, 128))
				case err != nil:
					return err
				}
				owner = u.ID
			}
			if owner != m.OwnerUser {
				list = append(list, changed{"owner", m.OwnerUser, owner})
				m.OwnerUser = owner
			}
		}
		if m.Name != was.Name {
			taken, err := tx.MachineNameTaken(ctx, m.Name)
			if err != nil {
				return err
			}
			if taken > 0 {
				v.add("name", "there is a machine %q already; choose another name", m.Name)
			}
		}
		plus, minus, err := v.assignment(ctx, tx, m, in)
		if err != nil {
			return err
		}
		if err := v.err(); err != nil {
			return err
		}
		if err := a.overMachine(ctx, tx.Queries, was, m, plus); err != nil {
			return err
		}
		if in.Status != nil && m.Status == rest.MachinePending {
			if err := d.Door.Approve(ctx, tx, m.ID); err != nil {
				return err
			}
			if was, err = tx.GetMachine(ctx, m.ID); err != nil { // its rev has moved
				return err
			}
			if err := note(tx, a, event.Event{Type: event.MachineApproved, Subject: was.Name, MachineID: m.ID, Machine: was.Name}, nil); err != nil {
				return err
			}
		}
		if len(list) > 0 {
			n, err := tx.UpdateMachine(ctx, db.UpdateMachineParams{
				Name: m.Name, Mode: m.Mode, UnknownUsers: m.UnknownUsers, OwnerUser: m.OwnerUser, AllUsers: m.AllUsers,
				UpdatedAt: d.now(), ID: m.ID, Rev: was.Rev,
			})
			if err != nil {
				return err
			}
			if n != 1 {
				return fault.New(fault.Conflict, nil)
			}
		}
		var added, removed []string
		for _, u := range plus {
			if _, err := tx.AddMachineUser(ctx, db.AddMachineUserParams{MachineID: m.ID, UserID: u.ID}); err != nil {
				return err
			}
			added = append(added, u.Name)
		}
		for _, u := range minus {
			if _, err := tx.RemoveMachineUser(ctx, db.RemoveMachineUserParams{MachineID: m.ID, UserID: u.ID}); err != nil {
				return err
			}
			removed = append(removed, u.Name)
		}
		if len(list)+len(added)+len(removed) > 0 {
			data := map[string]any{"changes": list, "users_added": added, "users_removed": removed}
			if err := note(tx, a, event.Event{Type: event.MachineChanged, Subject: was.Name, MachineID: m.ID, Machine: m.Name}, data); err != nil {
				return err
			}
			if err := touch.Machine(ctx, tx, m.ID); err != nil {
				return err
			}
		}
		out, err = d.showMachine(ctx, tx.Queries, m.ID)
		return err
	})
	return out, err
}

// overMachine applies E3 to what a change of a machine does to its people. Who owns it
// before and after must be below whoever changes its mode, its unknown users or its
// owner; and who makes or leaves it exempt must stand over everybody assigned to it by
// name. A machine's name is what a phone shows to whoever is asked there: it changes as
// its owner does, and an administrator must stand over those assigned by name too. Owners,
// who trust each other with machines, need an approval to take MFA off each other's and to
// rename them; root on the server may give machines to anybody.
func (a Actor) overMachine(ctx context.Context, q *db.Queries, was, m db.Machine, plus []db.User) error {
	people := map[string]bool{}
	weaker := was.Mode != m.Mode && (m.Mode == string(policy.Exempt) || was.Mode == string(policy.Enforced)) || was.UnknownUsers != m.UnknownUsers && m.UnknownUsers == facts.UnknownSkip
	exempts := m.Mode == string(policy.Exempt) && (was.Mode != m.Mode || was.OwnerUser != m.OwnerUser)
	switch {
	case weaker && !a.Local || exempts:
		people[was.OwnerUser], people[m.OwnerUser] = true, true
	case was.OwnerUser != m.OwnerUser && a.Role == rest.RoleOwner && !a.Token:
		// Else the machine were given away first and exempted then.
		people[was.OwnerUser] = was.OwnerUser != a.UserID && !a.Local
	case was.OwnerUser != m.OwnerUser || was.Mode != m.Mode || was.UnknownUsers != m.UnknownUsers:
		people[was.OwnerUser], people[m.OwnerUser] = !a.Local, !a.Local
	}
	exempt, renames := m.Mode == string(policy.Exempt), was.Name != m.Name && !a.Local
	mine := func(userID string) bool { return userID == a.UserID && !a.Token }
	if exempt {
		for _, u := range plus {
			people[u.ID] = true
		}
	}
	if renames && !mine(was.OwnerUser) {
		people[was.OwnerUser] = true
	}
	if misleads := renames && (a.Role != rest.RoleOwner || a.Token); exempts || misleads {
		assigned, err := q.ListMachineUsers(ctx, m.ID)
		if err != nil {
			return err
		}
		for _, u := range assigned {
			if exempts || !mine(u.ID) {
				people[u.ID] = true
			}
		}
	}
	for _, userID := range slices.Sorted(maps.Keys(people)) {
		if userID == "" || !people[userID] {
			continue
		}
		u, err := q.GetUser(ctx, userID)
		switch {
		case store.IsNotFound(err):
			continue
		case err != nil:
			return err
		}
		if err := a.over(u.Name, u.ID, u.Role); err != nil {
			return err
		}
	}
	return nil
}

// assignment works out who is added to and taken off a machine's list.
func (v *faults) assignment(ctx context.Context, tx *store.Tx, m db.Machine, in rest.MachineChange) (plus, minus []db.User, err error) {
	if in.Users == nil && len(in.AddUsers)+len(in.RemoveUsers) == 0 {
		return nil, nil, nil
	}
	have, err := tx.ListMachineUsers(ctx, m.ID)
	if err != nil {
		return nil, nil, err
	}
	has := func(id string) bool { return slices.ContainsFunc(have, func(u db.User) bool { return u.ID == id }) }
	add, err := v.userIDs(ctx, tx.Queries, "add_users", in.AddUsers)
	if err != nil {
		return nil, nil, err
	}
	remove, err := v.userIDs(ctx, tx.Queries, "remove_users", in.RemoveUsers)
	if err != nil {
		return nil, nil, err
	}
	if in.Users != nil {
		if add, err = v.userIDs(ctx, tx.Queries, "users", *in.Users); err != nil {
			return nil, nil, err
		}
		for _, u := range have {
			if _, ok := add[u.ID]; !ok {
				remove[u.ID] = u
			}
		}
	}
	for id, u := range add {
		if !has(id) {
			plus = append(plus, u)
		}
	}
	for id, u := range remove {
		if has(id) {
			minus = append(minus, u)
		}
	}
	byName := func(x, y db.User) int { return strings.Compare(x.Name, y.Name) }
	slices.SortFunc(plus, byName)
	slices.SortFunc(minus, byName)
	return plus, minus, nil
}

// RevokeMachine ends a machine's trust for good (P3): it is refused with a signed
// refusal, which wipes its offline data, and its windows and certificates end.
func (d *Desk) RevokeMachine(ctx context.Context, a Actor, ref string, in rest.Why) (rest.Machine, error) {
	l, err := d.dismiss(ctx, a, change, ref, rest.MachineRevoked, in)
	return l.Machine, err
}

// LoseMachine revokes a machine that was lost or stolen and names the authenticators
// with data on it, which want to be replaced (O14).
func (d *Desk) LoseMachine(ctx context.Context, a Actor, ref string, in rest.Why) (rest.Lost, error) {
	return d.dismiss(ctx, a, helpDesk, ref, rest.MachineLost, in)
}

// RefuseMachine refuses a pending machine (E4): it is told, and may join again with a
// new token only.
func (d *Desk) RefuseMachine(ctx context.Context, a Actor, ref string, in rest.Why) (rest.Machine, error) {
	if err := a.may(change); err != nil {
		return rest.Machine{}, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		m, err := machine(ctx, q, ref)
		if err == nil && m.Status != rest.MachinePending {
			err = fault.Newf(fault.Conflict, "%s is %s, not pending: there is nothing to refuse. A machine that is active is revoked.", m.Name, m.Status)
		}
		return err
	})
	if err != nil {
		return rest.Machine{}, err
	}
	return d.RevokeMachine(ctx, a, ref, in)
}

// ListReseed names the authenticators with data on a machine, which want to be
// replaced if it is lost (O14): what LoseMachine would say, or has said.
func (d *Desk) ListReseed(ctx context.Context, a Actor, ref string) (rest.Page[rest.Reseed], error) {
	out := rest.Page[rest.Reseed]{Items: []rest.Reseed{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		m, err := machine(ctx, q, ref)
		if err != nil {
			return err
		}
		out.Items, err = reseed(ctx, q, m)
		return err
	})
	return out, err
}

func (d *Desk) dismiss(ctx context.Context, a Actor, r right, ref, status string, in rest.Why) (rest.Lost, error) {
	out := rest.Lost{Reseed: []rest.Reseed{}}
	if err := a.may(r); err != nil {
		return out, err
	}
	var v faults
	v.line("reason", in.Reason, maxLine)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, err := machine(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		out, err = d.distrust(ctx, tx, a, m, status, in.Reason)
		return err
	})
	failpoint.Hit("desk.dismissed")
	return out, err
}

// distrust ends a machine's trust, for one of the reasons that status tells.
func (d *Desk) distrust(ctx context.Context, tx *store.Tx, a Actor, m db.Machine, status, why string) (rest.Lost, error) {
	out := rest.Lost{Reseed: []rest.Reseed{}}
	if status == rest.MachineLost && m.Status == rest.MachineLost {
		name := text.CleanN(m.Name, 128)
		return out, fault.Newf(fault.Conflict, "The machine is lost already. Which authenticators to renew: latchkey machine reseed %s", name)
	}
	reseed, err := reseed(ctx, tx.Queries, m)
	if err != nil {
		return out, err
	}
	if _, err := d.endWindows(ctx, tx, a, "", m.ID, "machine-"+status); err != nil {
		return out, err
	}
	if _, err := d.Door.Dismiss(ctx, tx, m.ID, status); err != nil {
		return out, err
	}
	e := event.Event{Type: event.MachineRevoked, Subject: m.Name, MachineID: m.ID, Machine: m.Name}
	data := map[string]any{"was": m.Status, "why": why}
	if status == rest.MachineLost {
		e.Type, data["reseed"] = event.MachineLost, reseed
		out.Reseed = reseed
	}
	if err := note(tx, a, e, data); err != nil {
		return out, err
	}
	out.Machine, err = d.showMachine(ctx, tx.Queries, m.ID)
	return out, err
}

// reseed lists the authenticators with data on the machine. Of a machine that was
// revoked before, what counts as wiped since then may be there still.
func reseed(ctx context.Context, q *db.Queries, m db.Machine) ([]rest.Reseed, error) {
	since := int64(math.MaxInt64)
	if m.Status == rest.MachineRevoked || m.Status == rest.MachineLost {
		certs, err := q.ListMachineCertificates(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			if c.RevokedAt > 0 {
				since = min(since, c.RevokedAt)
			}
		}
	}
	out := []rest.Reseed{}
	seen := map[string]int{}
	add := func(x rest.Reseed) {
		x.Urgent = x.Class != "tpm"
		if i, ok := seen[x.ID]; ok {
			if x.Urgent {
				out[i] = x
			}
			return
		}
		seen[x.ID] = len(out)
		out = append(out, x)
	}
	auths, err := q.ListEnrolledOnMachine(ctx, db.ListEnrolledOnMachineParams{MachineID: m.ID, Since: since})
	if err != nil {
		return nil, err
	}
	for _, r := range auths {
		add(rest.Reseed{User: r.UserName, UserID: rest.UserPrefix + r.UserID, ID: rest.FactorPrefix + r.AuthenticatorID, Kind: r.Kind, Name: r.AuthenticatorName, Class: r.Class})
	}
	sets, err := q.ListBackupSetsOnMachine(ctx, db.ListBackupSetsOnMachineParams{MachineID: m.ID, Since: since})
	if err != nil {
		return nil, err
	}
	for _, r := range sets {
		add(rest.Reseed{User: r.UserName, UserID: rest.UserPrefix + r.UserID, ID: rest.FactorPrefix + r.SetID, Kind: kindBackup, Class: r.Class})
	}
	return out, nil
}

// RemoveMachine forgets a machine that is no longer trusted. Its events stay.
func (d *Desk) RemoveMachine(ctx context.Context, a Actor, ref string, rev int64) error {
	if err := a.may(change); err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, err := machine(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, m.Rev); err != nil {
			return err
		}
		if m.Status == rest.MachineActive {
			return fault.Newf(fault.Conflict, "%s is active. Revoke it first (latchkey machine revoke), so that it is told and wipes its offline data.", m.Name)
		}
		vaults, err := tx.DeleteVaultsOfMachine(ctx, m.ID)
		if err != nil {
			return err
		}
		// Of one that never got beyond waiting; the others' are revoked already.
		if _, _, err := ca.RevokeMachine(ctx, tx, m.ID, ca.Cessation, d.now()); err != nil {
			return err
		}
		n, err := tx.DeleteMachine(ctx, m.ID)
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.New(fault.Conflict, nil)
		}
		tx.Wake(m.ID)
		return note(tx, a, event.Event{Type: event.MachineRemoved, Subject: m.Name, MachineID: m.ID, Machine: m.Name}, map[string]any{
			"was": m.Status, "offline": vaults,
		})
	})
}

// IssueToken makes a join token; its text is shown once (E4).
func (d *Desk) IssueToken(ctx context.Context, a Actor, in rest.NewToken) (rest.Token, error) {
	var out rest.Token
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	life := v.span("valid_for", in.ValidFor, enroll.TokenLife, time.Minute, enroll.MaxTokenLife)
	if in.Name != "" {
		v.name("name", in.Name)
	}
	if in.Mass && in.Name != "" {
		v.add("name", "it does not go with a mass token: every machine is called by its host name")
	}
	url := in.ServerURL
	if url == "" {
		now, err := d.settings(ctx)
		if err != nil {
			return out, err
		}
		url = now.ServerURL
	}
	if url == "" {
		v.add("server_url", "it is not set; say https://HOST:PORT of the machines' listener, here or once for all (latchkey server set --server-url)")
	} else {
		v.serverURL("server_url", url)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		t, err := d.Door.Issue(ctx, tx, enroll.Order{Name: in.Name, Mass: in.Mass, Life: life, ServerURL: url, Actor: a.Name})
		if err != nil {
			return err
		}
		out = rest.Token{
			ID: rest.TokenPrefix + t.ID, Kind: enroll.Single, Name: in.Name, ServerURL: url, Token: rest.HideText(t.Text), CreatedBy: a.Name,
			CreatedAt: d.Clock.Now().UTC(), ExpiresAt: t.ExpiresAt.UTC(),
		}
		if in.Mass {
			out.Kind = enroll.Mass
		}
		return note(tx, a, event.Event{Type: event.TokenIssued, Subject: in.Name}, map[string]any{
			"token": out.ID, "kind": out.Kind, "expires_at": out.ExpiresAt, "server_url": url,
		})
	})
	return out, err
}

// ListTokens gives a page of join tokens, without their texts, which nobody keeps.
func (d *Desk) ListTokens(ctx context.Context, a Actor, after string, limit int) (rest.Page[rest.Token], error) {
	out := rest.Page[rest.Token]{Items: []rest.Token{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("tokens", after, 1)
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.ListJoinTokens(ctx, db.ListJoinTokensParams{After: from[0], N: ask})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			out.Next = cursor("tokens", rows[show-1].ID)
		}
		for _, r := range rows {
			t := rest.Token{
				ID: rest.TokenPrefix + r.ID, Kind: r.Kind, Name: r.MachineName, CreatedBy: r.CreatedBy,
				CreatedAt: rest.Time(r.CreatedAt), ExpiresAt: rest.Time(r.ExpiresAt), UsedAt: rest.Time(r.UsedAt),
			}
			if r.MachineID != "" {
				t.MachineID = rest.MachinePrefix + r.MachineID
			}
			out.Items = append(out.Items, t)
		}
		return nil
	})
	return out, err
}

// WithdrawToken makes a join token worthless.
func (d *Desk) WithdrawToken(ctx context.Context, a Actor, ref string) error {
	if err := a.may(change); err != nil {
		return err
	}
	id, ok := cut(rest.TokenPrefix, ref)
	if !ok {
		return missing("join token", ref)
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.DeleteJoinToken(ctx, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return missing("join token", ref)
		}
		return note(tx, a, event.Event{Type: event.TokenWithdrawn}, map[string]any{"token": ref})
	})
}

// settings gives what was set, and else what the program knows.
func (d *Desk) settings(ctx context.Context) (settings.Settings, error) {
	var s settings.Settings
	err := d.Store.Read(ctx, func(q *store.Queries) (err error) {
		s, err = settings.Read(ctx, q)
		return err
	})
	if s.ServerURL == "" {
		s.ServerURL = d.ServerURL
	}
	if s.PeopleURL == "" {
		s.PeopleURL = d.peopleURL()
	}
	s.OutwardProxy, s.PushNetworks = or(s.OutwardProxy, d.OutwardProxy), or(s.PushNetworks, d.PushNetworks)
	return s, err
}
