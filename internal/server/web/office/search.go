package office

import (
	"net/url"
	"strings"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// found is one thing that a search has found.
type found struct{ kind, text, note, path, icon string }

// most is how many of each kind a search gives.
const most = 6

// search finds users and machines by the beginning of their names, and pages by what is
// in their titles. With part=1 it gives the list alone, for Ctrl+K.
func search(r *ui.Request) error {
	q := r.Value("q")
	if len(q) > 128 {
		q = q[:128]
	}
	list, err := find(r, q)
	if err != nil {
		return err
	}
	if r.Htmx() && r.Value("part") != "" {
		return r.Part(options(list))
	}
	return r.Show(ui.Page{Title: words.SearchTitle}, searchPage(q, list))
}

func find(r *ui.Request, q string) ([]found, error) {
	var out []found
	for _, p := range ui.Pages(r.Session.Role) {
		if q == "" || strings.Contains(strings.ToLower(p.Text), strings.ToLower(q)) {
			out = append(out, found{words.KindPage, p.Text, "", p.Path, p.Icon})
		}
	}
	if q == "" || !r.Actor().Can("read") {
		return out, nil
	}
	out = out[:min(len(out), most)]
	ctx, a := r.Context(), r.Actor()
	users, err := r.Desk.ListUsers(ctx, a, desk.UserFilter{Prefix: q}, "", most)
	if err != nil {
		return nil, err
	}
	var people []found
	for _, u := range users.Items {
		people = append(people, found{words.KindUser, u.Name, u.DisplayName, "/console/users/" + url.PathEscape(u.Name), "user"})
	}
	machines, err := r.Desk.ListMachines(ctx, a, desk.MachineFilter{Prefix: q}, "", most)
	if err != nil {
		return nil, err
	}
	for _, m := range machines.Items {
		note := m.Status
		if m.Status == rest.MachineActive {
			note = ui.System(m.OS)
		}
		people = append(people, found{words.KindMachine, m.Name, note, "/console/machines/" + m.ID, "machine"})
	}
	return append(people, out...), nil
}

// note is what stands beside a thing that was found.
func note(f found) string {
	if f.note == "" {
		return f.kind
	}
	return f.kind + " · " + f.note
}
