package office

import (
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

func dashboard(r *ui.Request) error {
	return r.Show(ui.Page{Title: words.NavDashboard, Section: "dashboard", Wide: true}, ui.Text(""))
}

func search(r *ui.Request) error {
	return r.Show(ui.Page{Title: words.SearchShort}, ui.Text(""))
}
