package desk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
)

// The priorities of policies: the smallest number wins.
const (
	minPriority     = 1
	maxPriority     = 1_000_000
	defaultPriority = 100
)

// settingsOf is the settings of a policy alone, without what stands in its row.
func settingsOf(p policy.Policy) (json.RawMessage, error) {
	p.ID, p.Name, p.Priority, p.Default, p.Groups, p.Version = "", "", 0, false, nil, 0
	// An empty list is written as one: what is shown can be sent back.
	p.Scopes, p.OnlineFactors, p.OfflineFactors = list(p.Scopes), list(p.OnlineFactors), list(p.OfflineFactors)
	p.WindowSilences, p.WindowEndsOn, p.TrustedScopes = list(p.WindowSilences), list(p.WindowEndsOn), list(p.TrustedScopes)
	p.ExemptUIDs, p.ExemptSIDs, p.TrustedNetworks = list(p.ExemptUIDs), list(p.ExemptSIDs), list(p.TrustedNetworks)
	return json.Marshal(p)
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// settingNames lists the settings in their order.
var settingNames = func() []string {
	b, err := settingsOf(policy.NewPolicy())
	if err != nil {
		panic(err)
	}
	names, err := keysOf(b)
	if err != nil {
		panic(err)
	}
	return names
}()

// keysOf lists the keys of a JSON object in their order.
func keysOf(b []byte) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	var out []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, errors.New("it is not a JSON object")
		}
		out = append(out, key)
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is text after its closing brace")
	}
	return out, nil
}

// settings lays the given settings over p. Every faulty one is said, each by its
// name.
func (v *faults) settings(p policy.Policy, given json.RawMessage) policy.Policy {
	if len(given) == 0 || string(given) == "null" {
		return p
	}
	if len(given) > policy.MaxBody {
		v.add("settings", "it has %d octets; allowed are at most %d", len(given), policy.MaxBody)
		return p
	}
	keys, err := keysOf(given)
	if err != nil {
		v.add("settings", "%s; allowed is an object such as {\"window\": \"4h\"}", jsonFault(err))
		return p
	}
	if len(keys) > 2*len(settingNames) {
		v.add("settings", "it has %d entries; there are %d settings", len(keys), len(settingNames))
		return p
	}
	// Reading into a list would write over the one that p shares with whoever gave it.
	whole, err := json.Marshal(p)
	if err != nil {
		v.add("settings", "%s", jsonFault(err))
		return p
	}
	p = policy.Policy{}
	if err := json.Unmarshal(whole, &p); err != nil {
		v.add("settings", "%s", jsonFault(err))
		return p
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(given, &raw); err != nil {
		v.add("settings", "%s; allowed is an object such as {\"window\": \"4h\"}", jsonFault(err))
		return p
	}
	wrong := map[string]bool{}
	for i, key := range keys {
		field := "settings." + text.CleanN(key, 64)
		switch {
		case !slices.Contains(settingNames, key):
			v.add(field, "there is no such setting%s; allowed are %s", meant(key), strings.Join(settingNames, ", "))
			continue
		case slices.Contains(keys[:i], key):
			v.add(field, "it stands twice")
			continue
		case string(bytes.TrimSpace(raw[key])) == "null":
			v.add(field, "it is null; leave it out to keep it as it is")
			wrong[key] = true
			continue
		}
		one, err := json.Marshal(map[string]json.RawMessage{key: raw[key]})
		if err != nil {
			v.add(field, "%s", jsonFault(err))
			wrong[key] = true
			continue
		}
		next := p
		if err := json.Unmarshal(one, &next); err != nil {
			v.add(field, "%s", settingFault(err))
			wrong[key] = true
			continue
		}
		p = next
	}
	var ps policy.Problems
	if err := p.Validate(); errors.As(err, &ps) {
		for _, x := range ps {
			if !wrong[x.Field] {
				v.add("settings."+x.Field, "%s", x.Fault)
			}
		}
	} else if err != nil {
		v.add("settings", "%s", err)
	}
	return p
}

// settingFault says what is wrong with the value of one setting, for people who
// have never seen Go's types.
func settingFault(err error) string {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		kind := te.Type.Kind().String()
		switch {
		case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint"):
			kind = "a whole number"
		case kind == "bool":
			kind = "true or false"
		case kind == "slice":
			kind = "a list"
		case kind == "string" || kind == "struct":
			kind = "text"
		}
		return fmt.Sprintf("it is %s; allowed is %s", text.CleanN(te.Value, 64), kind)
	}
	return jsonFault(err)
}

func jsonFault(err error) string {
	return text.CleanN(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "json: "), "netip."), 200)
}

// meant finds the setting that was probably meant.
func meant(key string) string {
	if best := text.Nearest(key, settingNames); best != "" {
		return " (did you mean " + best + "?)"
	}
	return ""
}

// groupNames maps ids of all groups to their names.
func groupNames(ctx context.Context, q *db.Queries) (map[string]string, error) {
	out := map[string]string{}
	for after := ""; ; {
		rows, err := q.ListGroups(ctx, db.ListGroupsParams{After: after, N: rest.MaxPage})
		if err != nil || len(rows) == 0 {
			return out, err
		}
		for _, g := range rows {
			out[g.ID], after = g.Name, g.Name
		}
	}
}

// groupsOf gives the ids of the groups of every policy.
func groupsOf(ctx context.Context, q *db.Queries) (map[string][]string, error) {
	pairs, err := q.ListPolicyGroups(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, p := range pairs {
		out[p.PolicyID] = append(out[p.PolicyID], p.GroupID)
	}
	return out, nil
}

func named(ids []string, names map[string]string) []string {
	out := []string{}
	for _, id := range ids {
		if n, ok := names[id]; ok {
			out = append(out, n)
		} else {
			out = append(out, rest.GroupPrefix+id) // removed since
		}
	}
	slices.Sort(out)
	return out
}

func policyOf(row db.Policy, groups []string) (rest.Policy, error) {
	p, err := facts.Policy(row, nil)
	if err != nil {
		return rest.Policy{}, err
	}
	s, err := settingsOf(p)
	return rest.Policy{
		ID: rest.PolicyPrefix + row.ID, Name: row.Name, Priority: row.Priority, Default: row.IsDefault, Groups: groups, Version: row.Version,
		Settings: s, Warnings: p.Warnings(), CreatedAt: rest.Time(row.CreatedAt), UpdatedAt: rest.Time(row.UpdatedAt), Rev: row.Rev,
	}, err
}

func policyRow(ctx context.Context, q *db.Queries, ref string) (db.Policy, error) {
	var p db.Policy
	err := error(nil)
	if id, ok := cut(rest.PolicyPrefix, ref); ok {
		p, err = q.GetPolicy(ctx, id)
	} else if askable(ref) {
		p, err = q.GetPolicyByName(ctx, ref)
	} else {
		return p, missing("policy", ref)
	}
	if store.IsNotFound(err) {
		return p, missing("policy", ref)
	}
	return p, err
}

// ListPolicies gives all policies in the order in which they are looked at.
func (d *Desk) ListPolicies(ctx context.Context, a Actor) (rest.Page[rest.Policy], error) {
	out := rest.Page[rest.Policy]{Items: []rest.Policy{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.ListPolicies(ctx)
		if err != nil {
			return err
		}
		names, err := groupNames(ctx, q)
		if err != nil {
			return err
		}
		groups, err := groupsOf(ctx, q)
		if err != nil {
			return err
		}
		slices.SortStableFunc(rows, func(x, y db.Policy) int {
			switch {
			case x.IsDefault != y.IsDefault:
				if y.IsDefault {
					return -1
				}
				return 1
			case x.Priority != y.Priority:
				if x.Priority < y.Priority {
					return -1
				}
				return 1
			}
			return strings.Compare(x.Name, y.Name)
		})
		for _, r := range rows {
			p, err := policyOf(r, named(groups[r.ID], names))
			if err != nil {
				return err
			}
			out.Items = append(out.Items, p)
		}
		return nil
	})
	return out, err
}

// ShowPolicy gives one policy by name or id.
func (d *Desk) ShowPolicy(ctx context.Context, a Actor, ref string) (rest.Policy, error) {
	var out rest.Policy
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		row, err := policyRow(ctx, q, ref)
		if err != nil {
			return err
		}
		out, err = showPolicy(ctx, q, row)
		return err
	})
	return out, err
}

func showPolicy(ctx context.Context, q *db.Queries, row db.Policy) (rest.Policy, error) {
	groups, err := q.ListGroupsOfPolicy(ctx, row.ID)
	if err != nil {
		return rest.Policy{}, err
	}
	names := []string{}
	for _, g := range groups {
		names = append(names, g.Name)
	}
	return policyOf(row, names)
}

func (v *faults) priority(p *int64) {
	if p != nil && (*p < minPriority || *p > maxPriority) {
		v.add("priority", "%d is out of range; allowed are %d to %d, the smallest number wins", *p, minPriority, maxPriority)
	}
}

// groupIDs resolves names of groups; each that does not exist is a fault.
func (v *faults) groupIDs(ctx context.Context, q *db.Queries, field string, refs []string) ([]string, error) {
	out := []string{}
	for i, ref := range refs {
		g, err := group(ctx, q, ref)
		switch {
		case fault.Is(err, fault.NotFound):
			v.add(fmt.Sprintf("%s[%d]", field, i), "there is no group %q", text.CleanN(ref, 128))
		case err != nil:
			return nil, err
		case !slices.Contains(out, g.ID):
			out = append(out, g.ID)
		}
	}
	slices.Sort(out)
	return out, nil
}

// AddPolicy makes a policy.
func (d *Desk) AddPolicy(ctx context.Context, a Actor, in rest.NewPolicy) (rest.Policy, error) {
	var out rest.Policy
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	v.name("name", in.Name)
	v.priority(in.Priority)
	v.line("comment", in.Comment, maxLine)
	v.count("groups", len(in.Groups))
	p := v.settings(policy.NewPolicy(), in.Settings)
	priority := int64(defaultPriority)
	if in.Priority != nil {
		priority = *in.Priority
	}
	body, err := settingsOf(p)
	if err != nil {
		return out, err
	}
	now, id := d.now(), store.NewID()
	err = d.updateCounted(ctx, in.ShutOut, func(ctx context.Context, tx *store.Tx, c *count) error {
		v := v.clone()
		groups, err := v.groupIDs(ctx, tx.Queries, "groups", in.Groups)
		if err != nil {
			return err
		}
		if err := v.err(); err != nil {
			return err
		}
		if err := freePolicy(ctx, tx, in.Name); err != nil {
			return err
		}
		weakens, shut, err := d.rewrite(ctx, tx, a, id, c, func() error {
			if err := tx.InsertPolicy(ctx, db.InsertPolicyParams{ID: id, Name: in.Name, Priority: priority, Body: string(body), CreatedAt: now, UpdatedAt: now}); err != nil {
				return err
			}
			for _, g := range groups {
				if _, err := tx.AddPolicyGroup(ctx, db.AddPolicyGroupParams{PolicyID: id, GroupID: g}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		row, err := tx.GetPolicy(ctx, id)
		if err != nil {
			return err
		}
		if err := remember(ctx, tx, a.Name, now, row, groups, in.Comment); err != nil {
			return err
		}
		err = note(tx, a, event.Event{Type: event.PolicyChanged, Subject: in.Name, Outcome: "added"}, saidOut(alarm(map[string]any{
			"policy": rest.PolicyPrefix + id, "version": row.Version, "priority": priority, "settings": body, "groups": in.Groups, "comment": in.Comment,
			"warnings": p.Warnings(),
		}, weakens), shut))
		if err != nil {
			return err
		}
		if err := touch.All(ctx, tx); err != nil {
			return err
		}
		out, err = showPolicy(ctx, tx.Queries, row)
		return err
	})
	return out, err
}

// clone copies the faults so far, because a transaction may run twice.
func (v faults) clone() faults {
	if v.f == nil {
		return v
	}
	f := *v.f
	f.Fields = slices.Clone(f.Fields)
	return faults{&f}
}

func freePolicy(ctx context.Context, tx *store.Tx, name string) error {
	_, err := tx.GetPolicyByName(ctx, name)
	switch {
	case err == nil:
		return fault.Newf(fault.Exists, "There is a policy %q already. Choose another name.", name)
	case store.IsNotFound(err):
		return nil
	}
	return err
}

// remember writes the row as a version of the policy's history (P5).
func remember(ctx context.Context, tx *store.Tx, actor string, at int64, row db.Policy, groups []string, comment string) error {
	if groups == nil {
		groups = []string{}
	}
	list, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	return tx.InsertPolicyVersion(ctx, db.InsertPolicyVersionParams{
		PolicyID: row.ID, Version: row.Version, Name: row.Name, Priority: row.Priority, Body: row.Body, Groups: string(list),
		Actor: actor, At: at, Comment: comment,
	})
}

// ChangePolicy changes a policy; rev is the revision that was seen, 0 for any.
func (d *Desk) ChangePolicy(ctx context.Context, a Actor, ref string, rev int64, in rest.PolicyChange) (rest.Policy, error) {
	var out rest.Policy
	if err := a.may(change); err != nil {
		return out, err
	}
	err := d.updateCounted(ctx, in.ShutOut, func(ctx context.Context, tx *store.Tx, c *count) error {
		row, err := policyRow(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, row.Rev); err != nil {
			return err
		}
		var v faults
		next, list, err := v.changed(ctx, tx.Queries, row, nil, in)
		if err != nil {
			return err
		}
		if err := v.err(); err != nil {
			return err
		}
		var groups *[]string
		if in.Groups != nil {
			groups = &list
		}
		out, err = d.writePolicy(ctx, tx, a, row, next, groups, in.Comment, "changed", c)
		return err
	})
	return out, err
}

// writePolicy writes the next state of a policy with its version, its event and
// the word to all machines. Nothing is written if nothing changes.
func (d *Desk) writePolicy(ctx context.Context, tx *store.Tx, a Actor, row, next db.Policy, groups *[]string, comment, outcome string, c *count) (rest.Policy, error) {
	var none rest.Policy
	have, err := tx.ListGroupsOfPolicy(ctx, row.ID)
	if err != nil {
		return none, err
	}
	old := make([]string, len(have))
	for i, g := range have {
		old[i] = g.ID
	}
	slices.Sort(old)
	now := old
	if groups != nil {
		now = *groups
	}
	names, err := groupNames(ctx, tx.Queries)
	if err != nil {
		return none, err
	}
	diff, err := differences(row, next, named(old, names), named(now, names))
	if err != nil {
		return none, err
	}
	if len(diff) == 0 {
		return showPolicy(ctx, tx.Queries, row)
	}
	if next.Name != row.Name {
		if err := freePolicy(ctx, tx, next.Name); err != nil {
			return none, err
		}
	}
	// A policy that was made with the server has no history yet.
	if _, err := tx.GetPolicyVersion(ctx, db.GetPolicyVersionParams{PolicyID: row.ID, Version: row.Version}); store.IsNotFound(err) {
		if err := remember(ctx, tx, "server", row.UpdatedAt, row, old, ""); err != nil {
			return none, err
		}
	} else if err != nil {
		return none, err
	}
	weakens, shut, err := d.rewrite(ctx, tx, a, row.ID, c, func() error {
		n, err := tx.UpdatePolicy(ctx, db.UpdatePolicyParams{Name: next.Name, Priority: next.Priority, Body: next.Body, UpdatedAt: d.now(), ID: row.ID, Rev: row.Rev})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.New(fault.Conflict, nil)
		}
		if groups == nil {
			return nil
		}
		if _, err := tx.ClearPolicyGroups(ctx, row.ID); err != nil {
			return err
		}
		for _, g := range now {
			if _, err := tx.AddPolicyGroup(ctx, db.AddPolicyGroupParams{PolicyID: row.ID, GroupID: g}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return none, err
	}
	if row, err = tx.GetPolicy(ctx, row.ID); err != nil {
		return none, err
	}
	if err := remember(ctx, tx, a.Name, d.now(), row, now, comment); err != nil {
		return none, err
	}
	out, err := showPolicy(ctx, tx.Queries, row)
	if err != nil {
		return none, err
	}
	err = note(tx, a, event.Event{Type: event.PolicyChanged, Subject: row.Name, Outcome: outcome}, saidOut(alarm(map[string]any{
		"policy": out.ID, "version": row.Version, "changes": diff, "comment": comment, "warnings": out.Warnings,
	}, weakens), shut))
	if err != nil {
		return none, err
	}
	return out, touch.All(ctx, tx)
}

// differences compares two states of a policy, setting by setting, through their
// full forms, so that a default that was not written down counts as what it is.
func differences(a, b db.Policy, groupsA, groupsB []string) ([]rest.Difference, error) {
	flat := func(r db.Policy, groups []string) (map[string]json.RawMessage, error) {
		p, err := policy.Parse([]byte(r.Body))
		if err != nil {
			return nil, fmt.Errorf("policy %q: %w", r.Name, err)
		}
		body, err := settingsOf(p)
		if err != nil {
			return nil, err
		}
		out := map[string]json.RawMessage{}
		if err := json.Unmarshal(body, &out); err != nil {
			return nil, err
		}
		for k, v := range map[string]any{"name": r.Name, "priority": r.Priority, "groups": groups} {
			if out[k], err = json.Marshal(v); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	x, err := flat(a, groupsA)
	if err != nil {
		return nil, err
	}
	y, err := flat(b, groupsB)
	if err != nil {
		return nil, err
	}
	out := []rest.Difference{}
	for _, k := range append([]string{"name", "priority", "groups"}, settingNames...) {
		if !same(x[k], y[k]) {
			out = append(out, rest.Difference{Field: k, Old: x[k], New: y[k]})
		}
	}
	return out, nil
}

// same takes an empty list for the same whether it is written [] or null.
func same(a, b json.RawMessage) bool {
	norm := func(r json.RawMessage) string {
		if s := string(r); s != "[]" {
			return s
		}
		return "null"
	}
	return norm(a) == norm(b)
}

// RemovePolicy removes a policy; the default one stays (P1). Its history stays. shutOut
// is how many people it may shut out, for whom the next policy accepts other factors.
func (d *Desk) RemovePolicy(ctx context.Context, a Actor, ref string, rev, shutOut int64) error {
	if err := a.may(change); err != nil {
		return err
	}
	return d.updateCounted(ctx, shutOut, func(ctx context.Context, tx *store.Tx, c *count) error {
		row, err := policyRow(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, row.Rev); err != nil {
			return err
		}
		if row.IsDefault {
			return fault.Newf(fault.Conflict, "%q is the default policy: one always exists. Change it instead.", row.Name)
		}
		weakens, shut, err := d.rewrite(ctx, tx, a, row.ID, c, func() error {
			n, err := tx.DeletePolicy(ctx, db.DeletePolicyParams{ID: row.ID, Rev: row.Rev})
			if err == nil && n != 1 {
				err = fault.New(fault.Conflict, nil)
			}
			return err
		})
		if err != nil {
			return err
		}
		err = note(tx, a, event.Event{Type: event.PolicyChanged, Subject: row.Name, Outcome: "removed"}, saidOut(alarm(map[string]any{
			"policy": rest.PolicyPrefix + row.ID, "version": row.Version, "settings": json.RawMessage(row.Body),
		}, weakens), shut))
		if err != nil {
			return err
		}
		return touch.All(ctx, tx)
	})
}

// PolicyHistory gives the versions of a policy, the youngest first, each with its
// difference to the one before (P5).
func (d *Desk) PolicyHistory(ctx context.Context, a Actor, ref, after string, limit int) (rest.Page[rest.PolicyVersion], error) {
	out := rest.Page[rest.PolicyVersion]{Items: []rest.PolicyVersion{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("versions", after, 1)
	if err != nil {
		return out, err
	}
	before := int64(math.MaxInt64)
	if from[0] != "" {
		if before, err = strconv.ParseInt(from[0], 10, 64); err != nil {
			return out, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list")
		}
	}
	_, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		row, err := policyRow(ctx, q, ref)
		if err != nil {
			return err
		}
		names, err := groupNames(ctx, q)
		if err != nil {
			return err
		}
		versions, err := q.ListPolicyVersions(ctx, db.ListPolicyVersionsParams{PolicyID: row.ID, N: math.MaxInt32})
		if err != nil {
			return err
		}
		if len(versions) == 0 && before > row.Version {
			// Never changed since the server made it.
			groups, err := groupsOf(ctx, q)
			if err != nil {
				return err
			}
			list, err := json.Marshal(append([]string{}, groups[row.ID]...))
			if err != nil {
				return err
			}
			versions = append(versions, db.PolicyVersion{
				PolicyID: row.ID, Version: row.Version, Name: row.Name, Priority: row.Priority, Body: row.Body,
				Groups: string(list), Actor: "server", At: row.CreatedAt,
			})
		}
		for i, x := range versions {
			if x.Version >= before {
				continue
			}
			if len(out.Items) == show {
				out.Next = cursor("versions", strconv.FormatInt(out.Items[show-1].Version, 10))
				return nil
			}
			groups, err := groupsIn(x)
			if err != nil {
				return err
			}
			p := rest.PolicyVersion{
				Version: x.Version, Name: x.Name, Priority: x.Priority, Groups: named(groups, names), Actor: x.Actor, At: rest.Time(x.At),
				Comment: x.Comment, Settings: json.RawMessage(x.Body), Changes: []rest.Difference{},
			}
			if i+1 < len(versions) {
				earlier, err := groupsIn(versions[i+1])
				if err != nil {
					return err
				}
				p.Changes, err = differences(rowOf(versions[i+1]), rowOf(x), named(earlier, names), p.Groups)
				if err != nil {
					return err
				}
			}
			out.Items = append(out.Items, p)
		}
		return nil
	})
	return out, err
}

func groupsIn(v db.PolicyVersion) ([]string, error) {
	var out []string
	if err := json.Unmarshal([]byte(v.Groups), &out); err != nil {
		return nil, fmt.Errorf("version %d of policy %s: groups: %w", v.Version, v.PolicyID, err)
	}
	return out, nil
}

func rowOf(v db.PolicyVersion) db.Policy {
	return db.Policy{ID: v.PolicyID, Name: v.Name, Priority: v.Priority, Body: v.Body}
}

// RollbackPolicy brings the settings, priority and groups of an older version back
// as a new version (P5). The name stays; groups that were removed since are left out.
func (d *Desk) RollbackPolicy(ctx context.Context, a Actor, ref string, rev int64, in rest.Rollback) (rest.Policy, error) {
	var out rest.Policy
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	v.line("comment", in.Comment, maxLine)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.updateCounted(ctx, in.ShutOut, func(ctx context.Context, tx *store.Tx, c *count) error {
		row, err := policyRow(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, row.Rev); err != nil {
			return err
		}
		old, err := tx.GetPolicyVersion(ctx, db.GetPolicyVersionParams{PolicyID: row.ID, Version: in.Version})
		if store.IsNotFound(err) {
			return fault.Newf(fault.NotFound, "Policy %q has no version %d in its history.", row.Name, in.Version)
		} else if err != nil {
			return err
		}
		if _, err := policy.Parse([]byte(old.Body)); err != nil {
			return fault.Newf(fault.Conflict, "Version %d of policy %q no longer fits this server: %s.", in.Version, row.Name, err)
		}
		names, err := groupNames(ctx, tx.Queries)
		if err != nil {
			return err
		}
		groups, err := groupsIn(old)
		if err != nil {
			return err
		}
		groups = slices.DeleteFunc(groups, func(id string) bool { _, ok := names[id]; return !ok })
		slices.Sort(groups)
		next := row
		next.Body, next.Priority = old.Body, old.Priority
		comment := or(in.Comment, fmt.Sprintf("back to version %d", in.Version))
		out, err = d.writePolicy(ctx, tx, a, row, next, &groups, comment, "rolled-back", c)
		return err
	})
	return out, err
}
