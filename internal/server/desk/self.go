package desk

import (
	"context"
	"slices"
	"strconv"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// What people do for themselves. The subject is always the actor's own account, so
// that no name or id of somebody else can be given; an id of somebody else's factor,
// machine or sign-in is answered like one that does not exist.
//
// It takes a session of a person, never a token; to change a factor or the password
// takes a second factor given a moment ago
// (Actor.Fresh). A session that an enrolment code opened enrols, and does nothing
// else (E1).

// Sessions is what the desk needs of the sessions of people: see session.Sessions.
type Sessions interface {
	// Password judges the user's own password anew, counted like a sign-in (S10): nil
	// means right; a *fault.Fault Invalid with the field "old" that it is wrong, TooMany
	// that somebody must wait.
	Password(ctx context.Context, userID, address string, password secret.Bytes) error
	// Still refuses an actor whose session or API token has ended, or whose role or
	// scopes have changed, since the request began.
	Still(ctx context.Context, a Actor) error
}

// mine refuses whoever is no person: root at the admin socket has no account.
func (a Actor) mine() error {
	switch {
	case a.Name == "":
		return fault.New(fault.Unauthorized, nil)
	case a.UserID == "":
		return fault.Newf(fault.Forbidden, "%s is no account of this server, so there is nothing of its own. Sign in as yourself.", a.Name)
	}
	return nil
}

// look is for reading. A program is nobody: it has no right to what is a person's
// own.
func (a Actor) look() error {
	if err := a.mine(); err != nil {
		return err
	}
	if a.Enrol != "" {
		return fault.Newf(fault.Forbidden, "Set up your second factor first: this session was opened with an enrolment code, and can do nothing else.")
	}
	if a.Token {
		return fault.Newf(fault.Forbidden, "An API token can not do this for you: sign in yourself.")
	}
	return a.may(self)
}

// act is for doing something.
func (a Actor) act() error {
	if err := a.look(); err != nil {
		return err
	}
	if a.Session == "" {
		return fault.New(fault.Unauthorized, nil)
	}
	return nil
}

// fresh is for what somebody at an unlocked screen must not do.
func (a Actor) fresh() error {
	if err := a.act(); err != nil {
		return err
	}
	if !a.Fresh {
		return fault.New(fault.StepUp, nil)
	}
	return nil
}

// me is the actor's own account.
func (a Actor) me(ctx context.Context, q *db.Queries) (db.User, error) {
	u, err := q.GetUser(ctx, a.UserID)
	if store.IsNotFound(err) || err == nil && u.Disabled {
		return u, fault.New(fault.Unauthorized, nil)
	}
	return u, err
}

// Me gives what a person sees of himself, and what to do next.
func (d *Desk) Me(ctx context.Context, a Actor) (rest.Me, error) {
	var out rest.Me
	if err := a.look(); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		out, err = d.meOf(ctx, q, u)
		return err
	})
	return out, err
}

func (d *Desk) meOf(ctx context.Context, q *db.Queries, u db.User) (rest.Me, error) {
	out := rest.Me{
		ID: rest.UserPrefix + u.ID, Name: u.Name, DisplayName: u.DisplayName, Mail: u.Mail, Role: u.Role, HasPassword: u.PasswordHash != "",
		MustChange: u.MustChange, PasswordChangedAt: rest.Time(u.PasswordChangedAt), Steps: []string{}, Rev: u.Rev,
	}
	var err error
	if out.Factors, err = d.ownFactors(ctx, q, u); err != nil {
		return out, err
	}
	backup, unconfirmed := false, false
	for _, f := range out.Factors {
		switch {
		case f.Kind == kindBackup:
			backup, out.BackupLeft = true, *f.Left
		case f.State == factorUsable && f.On == "": // a phone and what lies on it are one
			out.Authenticators++
		case f.State == factorUnconfirmed:
			unconfirmed = true
		}
	}
	machines, err := d.ownMachines(ctx, q, u, "", "", rest.MaxPage)
	if err != nil {
		return out, err
	}
	soon := false
	for _, m := range machines {
		if m.Status != rest.MachineActive {
			continue
		}
		out.Machines++
		switch m.Offline.State {
		case offlineActive:
			out.Offline++
			soon = soon || slices.ContainsFunc(m.Offline.Warnings, func(w string) bool { return w != rest.WarnSoftware })
		case offlineExpired, offlineUsedUp, offlineShut, offlineOutdated:
			soon = true
		}
	}
	if out.OpenReports, err = q.CountOpenReportsOfUser(ctx, u.ID); err != nil {
		return out, err
	}
	set, err := settings.Read(ctx, q)
	if err != nil {
		return out, err
	}
	out.Contact = set.Contact
	for _, s := range []struct {
		code string
		due  bool
	}{
		{rest.StepPassword, u.MustChange},
		{rest.StepEnrol, out.Authenticators == 0},
		{rest.StepUnconfirmed, unconfirmed},
		{rest.StepBackup, out.Authenticators > 0 && !backup},
		{rest.StepFewBackup, backup && out.BackupLeft < rest.FewBackupCodes},
		{rest.StepOffline, soon},
		{rest.StepSecond, out.Authenticators == 1},
		{rest.StepReports, out.OpenReports > 0},
	} {
		if s.due {
			out.Steps = append(out.Steps, s.code)
		}
	}
	return out, nil
}

// ChangeMe changes what people may change of themselves. The mail address is where
// messages about factors go: it takes a fresh second factor.
func (d *Desk) ChangeMe(ctx context.Context, a Actor, rev int64, in rest.MeChange) (rest.Me, error) {
	var out rest.Me
	if err := a.act(); err != nil {
		return out, err
	}
	var v faults
	if in.DisplayName != nil {
		v.line("display_name", *in.DisplayName, maxLine)
	}
	if in.Mail != nil {
		v.mail("mail", *in.Mail)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		if err := stale(rev, u.Rev); err != nil {
			return err
		}
		var list []changed
		set(&list, "display_name", &u.DisplayName, in.DisplayName)
		set(&list, "mail", &u.Mail, in.Mail)
		if len(list) > 0 {
			if slices.ContainsFunc(list, func(c changed) bool { return c.Field == "mail" }) {
				if err := a.fresh(); err != nil {
					return err
				}
			}
			n, err := tx.SetUserFace(ctx, db.SetUserFaceParams{DisplayName: u.DisplayName, Mail: u.Mail, At: d.now(), ID: u.ID, Rev: u.Rev})
			if err != nil {
				return err
			}
			if n != 1 {
				return fault.New(fault.Conflict, nil)
			}
			if err := note(tx, a, event.Event{Type: event.UserChanged, Subject: u.Name, UserID: u.ID}, map[string]any{"changes": list, "self": true}); err != nil {
				return err
			}
			if u, err = tx.GetUser(ctx, u.ID); err != nil {
				return err
			}
		}
		out, err = d.meOf(ctx, tx.Queries, u)
		return err
	})
	return out, err
}

// ChangeOwnPassword changes the actor's password: it takes the old one, judged and
// counted like a sign-in, and a fresh second factor. All that was opened before ends but
// the present session (ending.Password); machines refuse offline data made with the old
// password from their next contact on, and renew it at the next sign-in there (O5).
func (d *Desk) ChangeOwnPassword(ctx context.Context, a Actor, in rest.OwnPassword) error {
	if err := a.fresh(); err != nil {
		return err
	}
	var u db.User
	err := d.Store.Read(ctx, func(q *store.Queries) (err error) {
		u, err = a.me(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	if u.PasswordHash == "" {
		return fault.Newf(fault.Conflict, "This server does not hold your password: change it where you got it from.")
	}
	var v faults
	if in.Old.Empty() {
		v.add("old", "it is missing; type the password that you use now")
	}
	if in.New.Empty() {
		v.add("new", "it is missing; type a new password")
	} else if in.New.Equal(in.Old.Bytes) {
		v.add("new", "it is the old one; choose another")
	}
	if err := v.err(); err != nil {
		return err
	}
	if d.Sessions == nil {
		return fault.New(fault.Unavailable, nil)
	}
	// The new one is looked at first: who has to choose again does not spend a try on
	// the old one, and a rule says nothing about the account.
	hash, err := d.Passwords.Hash(ctx, u.Name, in.New.Bytes)
	if err != nil {
		return inField(err, "password", "new")
	}
	if err := d.Sessions.Password(ctx, u.ID, a.Address, in.Old.Bytes); err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		if now.PasswordHash != u.PasswordHash {
			return fault.New(fault.Conflict, nil)
		}
		if _, err := tx.SetUserPassword(ctx, db.SetUserPasswordParams{PasswordHash: hash, At: d.now(), ID: u.ID}); err != nil {
			return err
		}
		return ending.Password(ctx, tx, a.changes(u), map[string]any{"self": true}, a.Session, d.Clock.Now())
	})
}

// inField says a fault of one field under another name.
func inField(err error, from, to string) error {
	f := fault.Of(err)
	if f.Code != fault.Invalid {
		return err
	}
	out := fault.New(fault.Invalid, nil)
	for _, x := range f.Fields {
		if x.Name == from {
			x.Name = to
		}
		out.With(x.Name, "%s", x.Fault)
	}
	return out
}

// changes is the actor's event about the account of a user.
func (a Actor) changes(u db.User) event.Event {
	return event.Event{Actor: a.Name, Address: a.Address, Subject: u.Name, UserID: u.ID}
}

// ── machines ──

// ListOwnMachines gives a page of the machines that have to do with the actor.
func (d *Desk) ListOwnMachines(ctx context.Context, a Actor, after string, limit int) (rest.Page[rest.OwnMachine], error) {
	out := rest.Page[rest.OwnMachine]{Items: []rest.OwnMachine{}}
	if err := a.look(); err != nil {
		return out, err
	}
	from, err := resume("own-machines", after, 1)
	if err != nil {
		return out, err
	}
	_, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		list, err := d.ownMachines(ctx, q, u, from[0], "", show+1)
		if err != nil {
			return err
		}
		if len(list) > show {
			list = list[:show]
			id, _ := cut(rest.MachinePrefix, list[show-1].ID)
			out.Next = cursor("own-machines", id)
		}
		out.Items = append(out.Items, list...)
		return lastSignins(ctx, q, u.ID, out.Items)
	})
	return out, err
}

// lastSignins looks up when the user came in last on these machines.
func lastSignins(ctx context.Context, q *db.Queries, userID string, list []rest.OwnMachine) error {
	ids := make([]string, len(list))
	for i, m := range list {
		ids[i], _ = cut(rest.MachinePrefix, m.ID)
	}
	last, err := q.LastOfUser(ctx, userID, string(event.SigninAllowed), ids)
	for _, l := range last {
		list[slices.Index(ids, l.MachineID)].LastSigninAt = rest.Time(l.At)
	}
	return err
}

// ownMachines lists them; only limits it to one.
func (d *Desk) ownMachines(ctx context.Context, q *db.Queries, u db.User, after, only string, n int) ([]rest.OwnMachine, error) {
	now := d.Clock.Now()
	rows, err := q.ListOwnMachines(ctx, db.ListOwnMachinesParams{UserID: u.ID, At: clock.Micros(now), After: after, OnlyID: only, N: int64(n)})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	vaults, err := q.ListVaultsOfUser(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	p, err := facts.PolicyOf(ctx, q, u.ID)
	if err != nil {
		return nil, err
	}
	on := map[string]rest.OfflineEntry{}
	for _, v := range vaults {
		e := offlineOf(db.VaultRow{Vault: v, UserGeneration: u.PasswordGeneration}, p, now)
		// In order of generations: what is in use hides what is to be wiped, and the
		// younger the older.
		if have, ok := on[v.MachineID]; !ok || e.State != vaultRetired || have.State == vaultRetired {
			on[v.MachineID] = e
		}
	}
	out := make([]rest.OwnMachine, 0, len(rows))
	for _, r := range rows {
		m := rest.OwnMachine{
			ID: rest.MachinePrefix + r.Machine.ID, Name: r.Machine.Name, Status: r.Machine.Status, OS: r.Machine.OS, Mine: r.Machine.OwnerUser == u.ID,
			KnownSince: rest.Time(r.KnownSince), SeenAt: rest.Time(r.Machine.LastSeenAt), SignedIn: r.Windows > 0, Offline: rest.OwnOffline{State: rest.OfflineNone},
		}
		if e, ok := on[r.Machine.ID]; ok {
			m.Offline = rest.OwnOffline{
				State: e.State, EnrolledAt: e.EnrolledAt, Until: e.Until, DaysLeft: e.DaysLeft, SigninsLeft: e.SigninsLeft, TriesLeft: e.TriesLeft,
			}
			switch e.State {
			case vaultRetired:
				m.Offline.State = offlineDisenrolling
			case offlineActive:
				m.Offline.Warnings = warnings(e, p.OfflineDays, p.OfflineSignins, p.OfflineTries)
			}
		}
		out = append(out, m)
	}
	return out, nil
}

const vaultRetired = "retired"

// warnings is O6: said where a fifth or less is left.
func warnings(e rest.OfflineEntry, days, signins, tries int) []string {
	var out []string
	for _, w := range []struct {
		word       string
		left, most float64
	}{
		{rest.WarnDays, e.DaysLeft, float64(days)},
		{rest.WarnSignins, float64(e.SigninsLeft), float64(signins)},
		{rest.WarnTries, float64(e.TriesLeft), float64(tries)},
	} {
		if w.left*5 <= w.most {
			out = append(out, w.word)
		}
	}
	if e.Class != "tpm" {
		out = append(out, rest.WarnSoftware)
	}
	return out
}

// ownMachine finds one of the actor's machines by its id. One of somebody else is
// missing.
func (d *Desk) ownMachine(ctx context.Context, q *db.Queries, u db.User, ref string) (rest.OwnMachine, string, error) {
	id, ok := cut(rest.MachinePrefix, ref)
	if !ok {
		return rest.OwnMachine{}, "", missing("machine", ref)
	}
	list, err := d.ownMachines(ctx, q, u, "", id, 1)
	if err != nil {
		return rest.OwnMachine{}, "", err
	}
	if len(list) == 0 {
		return rest.OwnMachine{}, "", missing("machine", ref)
	}
	return list[0], id, nil
}

// ShowOwnMachine gives one of the actor's machines.
func (d *Desk) ShowOwnMachine(ctx context.Context, a Actor, ref string) (rest.OwnMachine, error) {
	var out rest.OwnMachine
	if err := a.look(); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		if out, _, err = d.ownMachine(ctx, q, u, ref); err != nil {
			return err
		}
		one := []rest.OwnMachine{out}
		err = lastSignins(ctx, q, u.ID, one)
		out = one[0]
		return err
	})
	return out, err
}

// DisenrolOwn wipes the actor's offline data from one of his machines: at once
// where the machine is connected, else at its next contact (O14). It takes no fresh
// factor, because it gives nobody anything.
func (d *Desk) DisenrolOwn(ctx context.Context, a Actor, ref string) (rest.Done, error) {
	var out rest.Done
	if err := a.act(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		_, id, err := d.ownMachine(ctx, tx.Queries, u, ref)
		if err != nil {
			return err
		}
		out, err = d.disenrolOwn(ctx, tx, a, u.ID, id)
		return err
	})
	return out, err
}

func (d *Desk) disenrolOwn(ctx context.Context, tx *store.Tx, a Actor, userID, machineID string) (rest.Done, error) {
	rows, err := tx.WantDisenrol(ctx, db.WantDisenrolParams{At: d.now(), UserID: userID, MachineID: machineID})
	if err != nil {
		return rest.Done{}, err
	}
	var vs []vault
	for _, r := range rows {
		vs = append(vs, vault{r.UserID, r.MachineID, r.Generation})
	}
	return d.tellVaults(ctx, tx, a, event.VaultDisenroled, vs)
}

// ── sign-ins ──

// signinTypes are the events that a person knows as a sign-in of his.
var signinTypes = []string{
	string(event.SigninAllowed), string(event.SigninDenied), string(event.SigninIgnored), string(event.SigninAbandoned),
	string(event.BreakGlass), string(event.LockoutBegan), string(event.SessionOpened), string(event.SessionDenied),
}

// ListOwnSignins gives a page of the actor's sign-ins, the youngest first.
func (d *Desk) ListOwnSignins(ctx context.Context, a Actor, after string, limit int) (rest.Page[rest.OwnSignin], error) {
	out := rest.Page[rest.OwnSignin]{Items: []rest.OwnSignin{}}
	if err := a.look(); err != nil {
		return out, err
	}
	f := store.EventFilter{Types: signinTypes, UserID: a.UserID}
	from, err := resume("own-signins", after, 2)
	if err != nil {
		return out, err
	}
	if from[0] != "" {
		if f.BeforeAt, err = strconv.ParseInt(from[0], 10, 64); err != nil {
			return out, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list")
		}
		f.BeforeID = from[1]
	}
	_, f.Limit = page(limit)
	rows, err := d.Store.Events(ctx, f)
	if err != nil {
		return out, err
	}
	reported := map[string]string{}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		if _, err := a.me(ctx, q); err != nil {
			return err
		}
		list, err := q.ListReportedEvents(ctx, a.UserID)
		for _, r := range slices.Backward(list) {
			reported[r.EventID] = r.State
		}
		return err
	})
	if err != nil {
		return out, err
	}
	wrong, err := d.wrongCodes(ctx, a.UserID, rows)
	if err != nil {
		return out, err
	}
	for _, r := range rows {
		s := signinOf(r)
		s.Report, s.WrongCode = reported[r.ID], wrong[r.ID]
		out.Items = append(out.Items, s)
	}
	if len(rows) == f.Limit {
		last := rows[len(rows)-1]
		out.Next = cursor("own-signins", strconv.FormatInt(last.At, 10), last.ID)
	}
	return out, nil
}

func signinOf(r db.Event) rest.OwnSignin {
	s := rest.OwnSignin{
		ID: rest.EventPrefix + r.ID, At: rest.Time(r.At), Type: r.Type, Machine: r.Machine, Scope: r.Scope, Service: r.Service, Address: r.Address,
		Offline: r.Link == "down", Reason: r.Reason, Why: event.Reasons[r.Reason], Factor: r.Factor,
	}
	if r.MachineID != "" {
		s.MachineID = rest.MachinePrefix + r.MachineID
	}
	switch r.Type {
	case string(event.SigninAllowed), string(event.SigninIgnored), string(event.BreakGlass), string(event.SessionOpened):
		s.Allowed = true
	}
	return s
}

// ownSignin finds one of the actor's sign-ins. One of somebody else is missing.
func ownSignin(ctx context.Context, q *db.Queries, u db.User, ref string) (db.Event, error) {
	id, ok := cut(rest.EventPrefix, ref)
	if !ok {
		return db.Event{}, missing("sign-in", ref)
	}
	e, err := q.GetEvent(ctx, id)
	if store.IsNotFound(err) || err == nil && (e.UserID != u.ID || !slices.Contains(signinTypes, e.Type)) {
		return db.Event{}, missing("sign-in", ref)
	}
	return e, err
}

// ShowOwnSignin gives one of the actor's sign-ins.
func (d *Desk) ShowOwnSignin(ctx context.Context, a Actor, ref string) (rest.OwnSignin, error) {
	var out rest.OwnSignin
	if err := a.look(); err != nil {
		return out, err
	}
	var found db.Event
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		e, err := ownSignin(ctx, q, u, ref)
		if err != nil {
			return err
		}
		out, found = signinOf(e), e
		list, err := q.ListReportedEvents(ctx, u.ID)
		for _, r := range slices.Backward(list) {
			if r.EventID == e.ID {
				out.Report = r.State
			}
		}
		return err
	})
	if err != nil {
		return out, err
	}
	wrong, err := d.wrongCodes(ctx, a.UserID, []db.Event{found})
	out.WrongCode = wrong[found.ID]
	return out, err
}
