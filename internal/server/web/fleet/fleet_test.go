package fleet_test

import (
	"context"
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web/webtest"
	"latchkey/internal/server/web/words"
)

type scene struct {
	*webtest.Rig
	otto, adam, hilda, aud, anna webtest.Person
	laptop, fresh                db.Machine
	page                         string // of the laptop
}

func newScene(r *webtest.Rig) *scene {
	s := &scene{
		Rig: r, otto: r.Person("otto", rest.RoleOwner), adam: r.Person("adam", rest.RoleAdministrator), hilda: r.Person("hilda", rest.RoleHelpDesk),
		aud: r.Person("aud", rest.RoleAuditor), anna: r.Person("anna", rest.RoleNone),
	}
	s.laptop, s.fresh = r.Machine(r.T, "laptop", rest.MachineActive), r.Machine(r.T, "unboxed", rest.MachinePending)
	s.page = "/console/machines/" + rest.MachinePrefix + s.laptop.ID
	r.Vault(r.T, s.anna.ID, s.laptop.ID, "software", r.Manual.Now().Add(60*time.Hour).UnixMicro(), 5)
	r.Vault(r.T, s.hilda.ID, s.laptop.ID, "tpm", r.Manual.Now().Add(-time.Hour).UnixMicro(), 5)
	s.window(s.anna)
	return s
}

func (s *scene) window(p webtest.Person) {
	s.Helper()
	now := clock.Micros(s.Manual.Now())
	s.Must(s.Store.Update(s.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertWindow(ctx, db.InsertWindowParams{
			ID: store.NewID(), UserID: p.ID, MachineID: s.laptop.ID, OpenedAt: now, ExpiresAt: now + 8*3600*1e6, Scopes: "[]", Factors: `["totp"]`,
		})
	}))
}

func (s *scene) machine() rest.Machine {
	s.Helper()
	m, err := s.ShowMachine(s.Context(), desk.Root(), rest.MachinePrefix+s.laptop.ID)
	s.Must(err)
	return m
}

func rig(t *testing.T) *webtest.Rig {
	t.Helper()
	c := clock.NewManual(webtest.Start)
	return webtest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
}

func TestEveryRoleSeesThePagesAndNobodyElseDoes(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		least := "2.0"
		_, err := r.ChangeSettings(r.Context(), desk.Root(), rest.SettingsChange{MinAgent: &least})
		r.Must(err)
		pages := map[string]string{
			"/console/machines": "laptop", "/console/machines?outdated=true": "Outdated", "/console/machines?status=pending": "unboxed",
			"/console/machines?silent=24h": "No machine fits", "/console/machines?os=LINUX": "laptop", "/console/machines?tpm=tpm": "No machine fits",
			"/console/machines?user=anna": "laptop", "/console/machines/pending": "unboxed", s.page: "The agent is outdated", "/console/join": "No tokens",
			"/console/offline": "anna", "/console/offline?user=hilda": "Days used up", "/console/offline?user=nobody": "Nothing fits",
			"/console/offline/plane": "hilda", "/console/windows": "anna", "/console/windows?machine=laptop": "anna",
		}
		for _, p := range []webtest.Person{s.otto, s.adam, s.hilda, s.aud} {
			b := p.SignedIn()
			for path, has := range pages {
				b.Get(path).Is(http.StatusOK).Has(has)
			}
			b.Get("/console/machines/nothing").Is(http.StatusNotFound)
			b.Get("/console/machines?silent=often").Is(http.StatusUnprocessableEntity)
		}
		b := s.anna.SignedIn()
		for path := range pages {
			b.Get(path).Is(http.StatusForbidden).Lacks("laptop")
			r.Nobody().Get(path).Is(http.StatusSeeOther)
		}
		if a, n := b.Get(s.page), b.Get("/console/machines/nothing"); a.Status != n.Status || a.Text() != n.Text() {
			t.Errorf("whether a machine exists can be told: %q, %q", a.Text(), n.Text())
		}
	})
}

func TestEveryFormOfAMachine(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		b, aud := s.adam.SignedIn(), s.aud.SignedIn()
		nothing := func(what string, before rest.Machine) {
			t.Helper()
			if m := s.machine(); m.Rev != before.Rev || m.Status != before.Status {
				t.Errorf("%s: something was written: %+v", what, m)
			}
		}
		was := s.machine()
		for _, path := range []string{"change", "mode", "approve", "refuse", "revoke", "lost", "remove", "disenrol", "lift", "windows"} {
			aud.StepUp().Post(s.page+"/"+path, "change-name", "x", "mode-mode", "exempt").Is(http.StatusForbidden)
			nothing(path+" by an auditor", was)
		}
		b.StepUp().Submit(s.page, s.page+"/change", "change-owner", "nobody").Is(http.StatusUnprocessableEntity).FaultAt("change-owner", "nobody")
		b.Submit(s.page, s.page+"/change", "change-users", "anna\nnobody", "change-name", "half").Is(http.StatusUnprocessableEntity).FaultAt("change-users", "nobody")
		b.Submit(s.page, s.page+"/change", "change-name", "unboxed").Is(http.StatusUnprocessableEntity).FaultAt("change-name", "already")
		nothing("wrong input", was)
		b.Submit(s.page, s.page+"/change", "change-owner", "anna", "change-users", "anna, hilda", "change-unknown_users", "skip").Goes(s.page)
		if m := s.machine(); m.Owner != "anna" || len(m.Users) != 2 || m.UnknownUsers != "skip" || m.Name != "laptop" {
			t.Errorf("the machine is %+v", m)
		}
		// Two change it.
		old := b.Get(s.page)
		s.otto.SignedIn().Submit(s.page, s.page+"/change", "change-name", "ottos").Goes(s.page)
		a := b.StepUp().Resubmit(old, s.page+"/change", "change-name", "adams").Is(http.StatusConflict).Has("otto changed it").Has("ottos").Has("both changed")
		b.Resubmit(a, s.page+"/change").Goes(s.page)
		b.StepUp().Resubmit(old, s.page+"/mode", "mode-mode", "enforced").Is(http.StatusConflict).Has("in the meantime")
		if m := s.machine(); m.Name != "adams" || m.Mode != "normal" {
			t.Errorf("the machine is %+v", m)
		}
		b.Submit(s.page, s.page+"/mode", "mode-mode", "sometimes").Is(http.StatusUnprocessableEntity).FaultAt("mode-mode", "not allowed")
		b.Submit(s.page, s.page+"/mode", "mode-mode", "enforced").Goes(s.page)
		b.Submit(s.page, s.page+"/windows").Goes(s.page)
		b.Submit(s.page, s.page+"/lift", "lift-user", s.hilda.Ref).Goes(s.page)
		b.Get(s.page).Has("being lifted")
		b.StepUp().Submit(s.page, s.page+"/disenrol").Goes(s.page)
		b.Get(s.page).Has("Being wiped").Has("Nobody has an open window")
		// Lost: the help desk may, and is told whose authenticators to renew.
		hilda := s.hilda.SignedIn()
		hilda.Get(s.page).Lacks("/revoke")
		hilda.Submit(s.page, s.page+"/lost", "lost-reason", "stolen on a train").Is(http.StatusOK).Has("Authenticators with data on this machine").Has("anna").Has("Now: the disk")
		b.Get(s.page).Has("anna").Has("Lost").Lacks("/mode\"").Has(words.FleetOfflineGoneTitle).Lacks(words.FleetOfflineHereEmptyTitle)
		b.StepUp().Submit(s.page, s.page+"/remove").Goes("/console/machines")
		b.Get(s.page).Is(http.StatusNotFound)
	})
}

func TestPendingMachinesAreApprovedOrRefused(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	b := s.adam.SignedIn()
	at := "/console/machines/" + rest.MachinePrefix + s.fresh.ID
	other := r.Machine(t, "stranger", rest.MachinePending)
	b.Get("/console/machines").Has("2 machines wait for approval")
	b.Submit("/console/machines/pending", at+"/approve").Goes("/console/machines/pending")
	b.Submit("/console/machines/pending", "/console/machines/"+rest.MachinePrefix+other.ID+"/refuse").Goes("/console/machines/pending")
	b.Get("/console/machines/pending").Has("No machine waits")
	for name, want := range map[string]string{"unboxed": rest.MachineActive, "stranger": rest.MachineRevoked} {
		if m, err := s.ShowMachine(s.Context(), desk.Root(), name); err != nil || m.Status != want {
			t.Errorf("%s is %s, want %s, %v", name, m.Status, want, err)
		}
	}
	// What is active is not refused by a late click.
	b.Post(at + "/refuse").Is(http.StatusConflict).Has("nothing to refuse")
}

func TestJoinTokens(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	b := s.adam.SignedIn()
	s.aud.SignedIn().Post("/console/join", "token-kind", "single").Is(http.StatusForbidden).Lacks("latchkey-agent join")
	b.Submit("/console/join", "/console/join", "token-server_url", "http://plain.example").Is(http.StatusUnprocessableEntity).FaultAt("token-server_url", "https")
	b.Submit("/console/join", "/console/join", "token-valid_for", "9999h").Is(http.StatusUnprocessableEntity).FaultAt("token-valid_for", "out of range")
	a := b.Submit("/console/join", "/console/join", "token-kind", "mass", "token-valid_for", "168h").Is(http.StatusOK).Has("sudo latchkey-agent join -").Has("Approve the machine")
	_, token, _ := strings.Cut(a.Body, `<output class="secret-text">`)
	token, _, _ = strings.Cut(token, "<")
	list := b.Get("/console/join").Has("Many machines").Lacks(token)
	tokens, err := s.ListTokens(s.Context(), desk.Root(), "", 0)
	if err != nil || len(tokens.Items) != 1 || len(token) < 40 {
		t.Fatalf("%d tokens, %q: %v", len(tokens.Items), token, err)
	}
	withdraw := "/console/join/" + tokens.Items[0].ID + "/withdraw"
	s.hilda.SignedIn().Post(withdraw).Is(http.StatusForbidden)
	b.Resubmit(list, withdraw).Goes("/console/join")
	b.Get("/console/join").Has("No tokens")
}

func TestTheOfflineReportIsChosenRowByRow(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		b := s.adam.SignedIn()
		pair := func(p webtest.Person) string { return p.Ref + " " + rest.MachinePrefix + s.laptop.ID }
		states := func() map[string]string {
			out := map[string]string{}
			page, err := s.ListOffline(s.Context(), desk.Root(), desk.OfflineFilter{}, "", 0)
			s.Must(err)
			for _, e := range page.Items {
				out[e.User] = e.State
			}
			return out
		}
		b.Post("/console/offline", "do", "disenrol").Is(http.StatusUnprocessableEntity).Has("tick rows first")
		b.Post("/console/offline", "pair", pair(s.anna)).Is(http.StatusUnprocessableEntity)
		b.Post("/console/offline", "do", "disenrol", "pair", s.anna.Ref).Is(http.StatusUnprocessableEntity)
		// A form that lost its filter does not mean everything.
		b.Post("/console/offline", "do", "disenrol", "what", "filter").Is(http.StatusUnprocessableEntity)
		s.hilda.SignedIn().Post("/console/offline", "do", "disenrol", "what", "everything").Is(http.StatusForbidden)
		if got := states(); got["anna"] != "active" || got["hilda"] != "expired" {
			t.Fatalf("something was wiped: %v", got)
		}
		b.Post("/console/offline", "do", "disenrol", "pair", pair(s.anna)).Goes("/console/offline")
		if got := states(); got["anna"] != "disenrolling" || got["hilda"] != "expired" {
			t.Errorf("after one row: %v", got)
		}
		b.Post("/console/offline", "do", "lift", "what", "filter", "user", s.hilda.Ref).Is(http.StatusSeeOther)
		b.Post("/console/offline", "do", "disenrol", "what", "everything").Goes("/console/offline")
		if got := states(); got["hilda"] != "disenrolling" {
			t.Errorf("after everything: %v", got)
		}
	})
}

func TestTheReportIsExported(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	evil := r.Machine(t, "=cmd", rest.MachineActive) // as nobody may call one, but a restored database might
	r.Vault(t, s.anna.ID, evil.ID, "software", r.Manual.Now().Add(time.Hour).UnixMicro(), 5)
	a := s.aud.SignedIn().Get("/console/offline/export.csv").Is(http.StatusOK)
	rows, err := csv.NewReader(strings.NewReader(a.Body)).ReadAll()
	if err != nil || len(rows) != 4 || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/csv") {
		t.Fatalf("%d rows, %v\n%s", len(rows), err, a.Body)
	}
	names := map[string]bool{}
	for _, row := range rows[1:] {
		names[row[0]], names[row[1]] = true, true
	}
	if !names["anna"] || !names["'=cmd"] || names["=cmd"] {
		t.Errorf("the names are %v", names)
	}
	s.anna.SignedIn().Get("/console/offline/export.csv").Is(http.StatusForbidden).Lacks("laptop")
}

func TestWhoWouldBeStuckHasANextStep(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	b := s.aud.SignedIn()
	b.Get("/console/offline/plane").Has("The offline days are used up.").Has("signs in once with a second factor on laptop").Lacks(">anna<")
	b.Get("/console/offline/plane?user=anna").Has("Nobody would be stuck")
}

func TestWindowsEnd(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	s.window(s.hilda)
	s.window(s.otto)
	hilda, adam := s.hilda.SignedIn(), s.adam.SignedIn()
	open := func() int {
		page, err := s.ListWindows(s.Context(), desk.Root(), "", "", "", 0)
		s.Must(err)
		return len(page.Items)
	}
	s.aud.SignedIn().Post("/console/windows/end", "user", "anna").Is(http.StatusForbidden)
	hilda.Post("/console/windows/end").Is(http.StatusUnprocessableEntity)
	hilda.Post("/console/windows/end", "what", "everything").Is(http.StatusForbidden)
	if n := open(); n != 3 {
		t.Fatalf("%d windows", n)
	}
	hilda.Submit("/console/windows?user=anna", "/console/windows/end").Goes("/console/windows")
	if n := open(); n != 2 {
		t.Errorf("%d windows", n)
	}
	page, err := s.ListWindows(s.Context(), desk.Root(), "hilda", "", "", 0)
	s.Must(err)
	hilda.Submit("/console/windows", "/console/windows/"+page.Items[0].ID+"/end").Goes("/console/windows")
	adam.Submit("/console/windows", "/console/windows/end").Goes("/console/windows")
	adam.Get("/console/windows").Has("No open windows")
}
