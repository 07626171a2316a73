package fleet

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/lists"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

type offlineList struct {
	page  rest.Page[rest.OfflineEntry]
	f     desk.OfflineFilter
	after string
	may   bool
	s     *forms.Sent
}

func (l offlineList) filtered() bool {
	l.f.Sort = ""
	return l.f != desk.OfflineFilter{}
}

// by is the address of the list in another order.
func (l offlineList) by(sort string) string {
	l.f.Sort = sort
	return l.path("")
}

func (l offlineList) path(after string) string {
	return lists.Path("/console/offline", "user", l.f.User, "machine", l.f.Machine, "class", l.f.Class, "sort", l.f.Sort, "after", after)
}

// what is the choice that a button for all of them sends.
func (l offlineList) choice() string {
	if l.f.User == "" && l.f.Machine == "" {
		return "everything"
	}
	return "filter"
}

// what says whose data that is.
func (l offlineList) what() string {
	switch {
	case l.f.User != "" && l.f.Machine != "":
		return words.FleetAllOfBoth(l.f.User, l.f.Machine)
	case l.f.User != "":
		return words.FleetAllOfUser(l.f.User)
	case l.f.Machine != "":
		return words.FleetAllOfMachine(l.f.Machine)
	}
	return words.FleetAllOfAll
}

func offlineFilter(r *ui.Request) desk.OfflineFilter {
	return desk.OfflineFilter{User: r.Value("user"), Machine: r.Value("machine"), Class: r.Value("class"), Sort: r.Value("sort")}
}

func loadOffline(r *ui.Request, f desk.OfflineFilter, after string) (offlineList, error) {
	l := offlineList{f: f, after: after, may: r.Actor().Can("change")}
	var err error
	l.page, err = r.Desk.ListOffline(r.Context(), r.Actor(), f, after, 50)
	if fault.Is(err, fault.NotFound) { // the filter names nobody
		l.page, err = rest.Page[rest.OfflineEntry]{}, nil
	}
	// People read names: an id in the address becomes one as soon as a row tells it.
	for _, e := range l.page.Items {
		if f.User == e.UserID {
			l.f.User = e.User
		}
		if f.Machine == e.MachineID {
			l.f.Machine = e.Machine
		}
	}
	return l, err
}

func (l offlineList) frame() ui.Page {
	return ui.Page{
		Title: words.FleetOfflineTitle, Section: "offline", Lead: words.FleetOfflineLead, Wide: true, Actions: offlineActions(l),
		Curl: &ui.Curl{Method: "GET", Path: lists.Path(rest.Base+"/offline", "user", l.f.User, "machine", l.f.Machine, "class", l.f.Class, "sort", l.f.Sort)},
	}
}

func report(r *ui.Request) error {
	l, err := loadOffline(r, offlineFilter(r), r.Value("after"))
	if err != nil {
		return err
	}
	return r.Show(l.frame(), offlinePage(l))
}

// changeOffline wipes or lifts what was chosen: ticked rows, all of the user or machine
// of the filter, or everything (O14).
func changeOffline(r *ui.Request) error {
	v, err := r.Values()
	if err != nil {
		return err
	}
	f := desk.OfflineFilter{User: r.Value("user"), Machine: r.Value("machine")}
	var in rest.Pairs
	switch r.Value("what") {
	case "filter":
		in.User, in.Machine = f.User, f.Machine
	case "everything":
		in.All = true
	default:
		for _, p := range v["pair"] {
			user, machine, _ := strings.Cut(p, " ")
			in.Pairs = append(in.Pairs, rest.Pair{User: user, Machine: machine})
		}
		if len(in.Pairs) == 0 && r.Actor().Can("change") {
			err = fault.New(fault.Invalid, nil).With("pair", "nothing is chosen; tick rows first")
		}
	}
	var n rest.Done
	notice := ""
	if err == nil {
		switch r.Value("do") {
		case "disenrol":
			n, err = r.Desk.Disenrol(r.Context(), r.Actor(), in)
			notice = words.DeskDisenrolled(n.Count)
		case "lift":
			n, err = r.Desk.Lift(r.Context(), r.Actor(), in)
			notice = words.FleetLifted(n.Count)
		default:
			err = fault.New(fault.Invalid, nil).With("do", "it is missing; choose to wipe or to lift")
		}
	}
	if err == nil {
		return r.Go(lists.Path("/console/offline", "user", f.User, "machine", f.Machine), notice)
	}
	if !forms.Again(err) {
		return err
	}
	l, lost := loadOffline(r, f, "")
	if lost != nil {
		return err
	}
	l.s = forms.Was(r, "offline", err)
	return r.ShowStatus(fault.Of(err).Status(), l.frame(), offlinePage(l))
}

// exportOffline writes the whole report as CSV, page by page, so that it takes the
// memory of one.
func exportOffline(r *ui.Request) error {
	f := offlineFilter(r)
	page, err := r.Desk.ListOffline(r.Context(), r.Actor(), f, "", rest.MaxPage)
	if err != nil {
		return err
	}
	h := r.W.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="latchkey-offline.csv"`)
	w := csv.NewWriter(r.W)
	head := []string{"user", "machine", "state", "class", "enrolled_at", "last_synced_at", "last_mfa_at", "until", "days_left", "signins_left", "tries_left", "machine_seen_at", "user_id", "machine_id"}
	if err := w.Write(head); err != nil {
		return nil //nolint:nilerr // nobody reads any more
	}
	for {
		for _, e := range page.Items {
			line := []string{
				e.User, e.Machine, e.State, e.Class, stamp(e.EnrolledAt), stamp(e.SyncedAt), stamp(e.LastMFAAt), stamp(e.Until),
				strconv.FormatFloat(e.DaysLeft, 'f', -1, 64), fmt.Sprint(e.SigninsLeft), fmt.Sprint(e.TriesLeft), stamp(e.SeenAt), e.UserID, e.MachineID,
			}
			for i := range line {
				line[i] = harmless(line[i])
			}
			if err := w.Write(line); err != nil {
				return nil //nolint:nilerr // as above
			}
		}
		w.Flush()
		if page.Next == "" || w.Error() != nil {
			return nil
		}
		if page, err = r.Desk.ListOffline(r.Context(), r.Actor(), f, page.Next, rest.MaxPage); err != nil {
			// The head is sent: a line that is none says that this is not all.
			r.Log.ErrorContext(r.Context(), "an export ended early", "error", err)
			_, _ = fmt.Fprintln(r.W, words.FleetExportCut)
			return nil
		}
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// harmless keeps a name from being a formula in a spreadsheet.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// ---- Who would be stuck

type planeList struct {
	page          rest.Page[rest.Stuck]
	user, machine string
	after         string
	may           bool
}

func (l planeList) path(after string) string {
	return lists.Path("/console/offline/plane", "user", l.user, "machine", l.machine, "after", after)
}

func plane(r *ui.Request) error {
	l := planeList{user: r.Value("user"), machine: r.Value("machine"), after: r.Value("after"), may: r.Actor().Can("change")}
	var err error
	l.page, err = r.Desk.ListStuck(r.Context(), r.Actor(), l.user, l.machine, l.after, 50)
	if fault.Is(err, fault.NotFound) {
		l.page, err = rest.Page[rest.Stuck]{}, nil
	}
	if err != nil {
		return err
	}
	return r.Show(ui.Page{
		Title: words.FleetPlaneTitle, Section: "offline", Lead: words.FleetPlaneLead, Wide: true,
		Crumbs: []ui.Crumb{{Text: words.NavOffline, Path: "/console/offline"}},
		Curl:   &ui.Curl{Method: "GET", Path: lists.Path(rest.Base+"/offline/stuck", "user", l.user, "machine", l.machine)},
	}, planePage(l))
}

// ---- Windows

type windowList struct {
	page          rest.Page[rest.Window]
	user, machine string
	after         string
	may, all      bool
}

func (l windowList) path(after string) string {
	return lists.Path("/console/windows", "user", l.user, "machine", l.machine, "after", after)
}

func listWindows(r *ui.Request) error {
	a := r.Actor()
	l := windowList{user: r.Value("user"), machine: r.Value("machine"), after: r.Value("after"), may: a.Can("helpdesk"), all: a.Can("change")}
	var err error
	l.page, err = r.Desk.ListWindows(r.Context(), a, l.user, l.machine, l.after, 50)
	if fault.Is(err, fault.NotFound) {
		l.page, err = rest.Page[rest.Window]{}, nil
	}
	if err != nil {
		return err
	}
	return r.Show(ui.Page{
		Title: words.NavWindows, Section: "windows", Lead: words.FleetWindowsLead,
		Curl: &ui.Curl{Method: "GET", Path: lists.Path(rest.Base+"/windows", "user", l.user, "machine", l.machine)},
	}, windowsPage(l))
}

// endWindows ends those of a user, of a machine, of both or all (W7).
func endWindows(r *ui.Request) error {
	in := rest.Pairs{User: r.Value("user"), Machine: r.Value("machine")}
	in.All = r.Value("what") == "everything"
	n, err := r.Desk.RevokeWindows(r.Context(), r.Actor(), in)
	if err != nil {
		return err
	}
	return r.Go("/console/windows", words.FleetWindowsEnded(n.Count))
}

func endWindow(r *ui.Request) error {
	if err := r.Desk.RevokeWindow(r.Context(), r.Actor(), r.PathValue("window")); err != nil {
		return err
	}
	return r.Go("/console/windows", words.FleetWindowsEnded(1))
}
