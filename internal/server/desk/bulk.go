package desk

import (
	"context"
	"slices"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/push"
	"latchkey/internal/server/store"
)

// What an import (internal/server/bulk) shares with single changes: the rights, the
// checks of fields, the events.

// MayImport refuses whoever may not change users.
func (a Actor) MayImport() error { return a.may(change) }

// MayKeepSources refuses whoever may not say to which databases the server connects:
// it does so with its own address, from inside.
func (a Actor) MayKeepSources() error { return a.may(own) }

// Above tells whether the role is lower than the actor's own. It is stricter than E3
// for single changes: an import has no second approver.
func (a Actor) Above(role string) bool {
	return slices.Contains(rest.Roles, role) && rank(role) < rank(a.Role) && a.bounded("", role) == nil
}

// UserFaults is what is wrong with the fields of a user, as AddUser and ChangeUser
// find it.
func UserFaults(in rest.NewUser, isNew bool) []fault.Field {
	var v faults
	if isNew {
		v.userName("name", in.Name)
	} else if !askable(in.Name) {
		v.add("name", "it is no name of a user")
	}
	v.line("display_name", in.DisplayName, maxLine)
	v.mail("mail", in.Mail)
	if in.Role != "" {
		v.word("role", in.Role, rest.Roles)
	}
	if in.MFA != "" {
		v.word("mfa", in.MFA, rest.MFASettings)
	}
	if in.Activation != "" || !in.ActivateAt.IsZero() {
		v.activation(or(in.Activation, rest.ActivateAt), in.ActivateAt)
	}
	v.uid(in.UID)
	v.count("groups", len(in.Groups))
	if v.f == nil {
		return nil
	}
	return v.f.Fields
}

// GroupFault is what is wrong with the name of a group that is to be made; empty if
// nothing is.
func GroupFault(name string) string {
	var v faults
	if v.name("group", name); v.f == nil {
		return ""
	}
	return v.f.Fields[0].Fault
}

// NameFault is the same for the name of anything else that an administrator keeps.
func NameFault(field, name string) error {
	var v faults
	v.name(field, name)
	return v.err()
}

// Note writes an audit event of the actor with its data; what is empty is left out.
func Note(tx *store.Tx, a Actor, e event.Event, data map[string]any) error {
	return note(tx, a, e, data)
}

// EndDisabled ends what a user who is disabled has: windows, sessions and API tokens,
// with their events. Whoever is enabled again begins anew.
func (d *Desk) EndDisabled(ctx context.Context, tx *store.Tx, a Actor, userID string) error {
	tx.Wake(push.UserKey(userID)) // the phones are told at once
	_, err := ending.All(ctx, tx, d.cause(a, "user-disabled"), userID, "")
	return err
}
