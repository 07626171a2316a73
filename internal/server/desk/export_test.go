package desk_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
)

func TestV2AnExportIsWholeAndNoSpreadsheetRunsIt(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		const n = 1203
		must(t, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
			for i := range n {
				who := fmt.Sprintf("user%d", i)
				if i == 7 {
					who = `=cmd|' /C calc'!A1`
				}
				if _, err := tx.Event(event.Event{Type: event.SigninDenied, Actor: who, Subject: who, Outcome: "deny", Reason: "user-unknown", Scope: "remote"}); err != nil {
					return err
				}
			}
			return nil
		}))
		var b bytes.Buffer
		flushed := 0
		x := desk.Export{Format: desk.CSV, Filter: desk.EventFilter{Types: []string{"signin."}, Scope: "remote"}}
		got, more, err := r.ExportTo(ctx, root, x, &b, func() error { flushed++; return nil })
		if err != nil || got != n || more || flushed < 3 {
			t.Fatalf("%d events, more %v, %d flushes, %v", got, more, flushed, err)
		}
		rows, err := csv.NewReader(&b).ReadAll()
		if err != nil || len(rows) != n+1 || rows[0][0] != "at" {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		seen := map[string]bool{}
		bad := 0
		for _, row := range rows[1:] {
			seen[row[2]] = true
			for _, cell := range row {
				if strings.ContainsAny(cell[:min(1, len(cell))], "=+-@") {
					t.Errorf("the cell %q is a formula", cell)
				}
			}
			if row[5] == `'=cmd|' /C calc'!A1` {
				bad++
			}
		}
		if len(seen) != n || bad != 1 {
			t.Errorf("%d different events, %d defused", len(seen), bad)
		}

		b.Reset()
		x.Format, x.Most = desk.JSON, 10
		if got, more, err := r.ExportTo(ctx, root, x, &b, func() error { return nil }); err != nil || got != 10 || !more {
			t.Fatalf("%d events, more %v, %v", got, more, err)
		}
		var e rest.Event
		if err := json.Unmarshal(bytes.SplitN(b.Bytes(), []byte("\n"), 2)[0], &e); err != nil || e.Subject != "user1202" {
			t.Errorf("%+v, %v", e, err)
		}
		wantFields(t, r.CheckExport(ctx, root, desk.Export{Format: "xml", Most: -1, Filter: desk.EventFilter{}}), "format", "limit")
		wantFields(t, r.CheckExport(ctx, root, desk.Export{Format: desk.CSV, Filter: desk.EventFilter{Scope: "x", Link: "y", Types: []string{"no"}}}), "type", "scope", "link")
	})
}

func TestV1AdministratorsActionsStandAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		addUser(t, r, "alice", "none")
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		must(t, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
			for i := range 130 {
				for _, e := range []event.Event{
					{Type: event.SigninAllowed, Actor: "alice", Subject: "alice"},
					{Type: event.FactorAdded, Actor: "alice", Subject: "alice"},
					{Type: event.UserChanged, Actor: "server", Subject: fmt.Sprint(i)},
				} {
					if _, err := tx.Event(e); err != nil {
						return err
					}
				}
			}
			return nil
		}))
		// A machine is named like the administrator who has done it.
		mallory := desk.Actor{Name: "mallory", UserID: "m", Role: rest.RoleAdministrator}
		own, name := r.Machine(t, "spare", rest.MachineActive), mallory.Name
		ok(r.ChangeMachine(ctx, mallory, own.Name, 0, rest.MachineChange{Name: &name}))(t)
		for _, name := range []string{"server", "Agent", "SETUP"} {
			_, err := r.AddUser(ctx, root, rest.NewUser{Name: name})
			wantCode(t, err, fault.Invalid)
			if f := desk.UserFaults(rest.NewUser{Name: name}, true); len(f) != 1 || f[0].Name != "name" {
				t.Errorf("an import adds %s: %+v", name, f)
			}
			wantCode(t, desk.ValidUserName(name), fault.Invalid)
			ok(r.AddGroup(ctx, mallory, rest.NewGroup{Name: name}))(t) // a group acts not
		}
		var types []string
		for after, pages := "", 0; ; pages++ {
			p := ok(r.ListEvents(ctx, root, desk.EventFilter{Actions: true}, after, 0))(t)
			for _, e := range p.Items {
				types = append(types, e.Type)
			}
			if after = p.Next; after == "" {
				break
			}
			if pages > 20 {
				t.Fatal("the list does not end")
			}
		}
		if fmt.Sprint(types) != "[group.added group.added group.added machine.changed group.added user.added]" {
			t.Errorf("actions %v", types)
		}
	})
}
