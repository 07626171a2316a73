//go:build unix

package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/store"
)

// enrolPhone opens the link with a phone in software, at a door for phones.
func enrolPhone(ts *testscript.TestScript, link, name string) (*phonetest.Phone, error) {
	rig := rigOf(ts)
	door := phoneapi.New(phoneapi.Deps{Push: rig.Push, Desk: rig.Desk, Store: rig.Store, Clock: rig.Clock})
	srv := httptest.NewServer(door)
	ts.Defer(func() { door.Stop(); srv.Close() })
	p, err := phonetest.New(http.DefaultClient, rig.Clock)
	if err != nil {
		return nil, err
	}
	p.Base = srv.URL
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return p, p.Enrol(ctx, link, name)
}

// cmdPhone: phone LINK NAME enrols a phone by a link; with ! the link must be refused.
func cmdPhone(ts *testscript.TestScript, neg bool, args []string) {
	if _, err := enrolPhone(ts, args[0], args[1]); (err == nil) == neg {
		ts.Fatalf("the phone %s: %v", args[1], err)
	}
}

// cmdReportedPush: push USER MACHINE LINK: another phone of the user is enrolled by the link, is asked about a sign-in
// on the machine, and its owner says "it wasn't me".
func cmdReportedPush(ts *testscript.TestScript, _ bool, args []string) {
	rig := rigOf(ts)
	p, err := enrolPhone(ts, args[2], "second")
	if err != nil {
		ts.Fatalf("%v", err)
	}
	userID, machineID := ids(ts, args[0], args[1])
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = rig.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUser(ctx, userID)
		if err != nil {
			return err
		}
		_, err = rig.Push.Send(ctx, tx, factor.Ask{User: u, Ticket: store.NewID(), Door: factor.AtMachine, Machine: machineID, Name: args[1], Scope: "logon", Service: "login", Now: rig.Clock.Now()})
		return err
	})
	if err != nil {
		ts.Fatalf("ask: %v", err)
	}
	r, _, err := p.Next(ctx, 5*time.Second)
	if err == nil {
		err = p.Report(ctx, r)
	}
	if err != nil {
		ts.Fatalf("report: %v", err)
	}
}

// TestPhoneDetail: what stands behind a phone in a list.
func TestPhoneDetail(t *testing.T) {
	for want, p := range map[string]rest.Phone{
		"phone, looks by itself":   {},
		"Android":                  {Platform: "Android", Notified: true},
		"iOS, proves who holds it": {Platform: "iOS", Notified: true, Verifies: true},
		"phone, looks by itself, proves who holds it": {Verifies: true},
	} {
		if got := phoneDetail(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
