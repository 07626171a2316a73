// Package bulk is the console's pages for importing users (E2): a form for a file or
// a database, the check with what would change, and applying it. It is thin: what an
// import is and promises stands in internal/server/bulk.
//
// A file is passed on as it comes; the form's other fields stand before it for that.
package bulk

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	imports "latchkey/internal/server/bulk"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	const base = "/console/import"
	return []ui.Route{
		{Pattern: "GET " + base, Serve: show},
		{Pattern: "GET " + base + "/template.csv", Serve: template},
		{Pattern: "POST " + base + "/file", MaxBody: imports.MaxBytes + 1<<20, Slow: 30 * time.Minute, Serve: upload},
		{Pattern: "POST " + base + "/query", Slow: 16 * time.Minute, Serve: query},
		{Pattern: "GET " + base + "/sources", Serve: sources},
		{Pattern: "POST " + base + "/sources", Fresh: true, MaxBody: 256 << 10, Serve: addSource},
		{Pattern: "POST " + base + "/sources/{source}/remove", Fresh: true, Serve: removeSource},
		{Pattern: "GET " + base + "/{import}", Serve: showImport},
		{Pattern: "GET " + base + "/{import}/faults.csv", Slow: 5 * time.Minute, Serve: faults},
		{Pattern: "POST " + base + "/{import}/apply", Fresh: true, Serve: apply},
		{Pattern: "POST " + base + "/{import}/codes", Fresh: true, Slow: 5 * time.Minute, Serve: codes},
		{Pattern: "POST " + base + "/{import}/drop", Slow: time.Minute, Serve: drop},
	}
}

func pathOf(id string) string { return "/console/import/" + url.PathEscape(id) }

// startPage is what stands on the first page.
type startPage struct {
	in      rest.NewImport
	source  string
	file    map[string]string // faults of the form for a file
	query   map[string]string // and of that for a database
	imports rest.Page[rest.Import]
	after   string
	sources []rest.Source
	mayAdd  bool
}

func frame() ui.Page {
	return ui.Page{
		Title: words.NavImport, Section: "import", Lead: words.ImportLead, Actions: startActions(),
		Curl: &ui.Curl{Method: "POST", Path: rest.Base + "/imports", Body: rest.NewImport{OnFaults: rest.FaultsStop}},
	}
}

func show(r *ui.Request) error { return start(r, http.StatusOK, startPage{}) }

// start shows the first page, with what was wrong with a form.
func start(r *ui.Request, status int, p startPage) error {
	if r.Method == http.MethodGet {
		p.after = r.Value("after")
	}
	var err error
	if p.imports, err = r.Bulk.List(r.Context(), r.Actor(), p.after, 20); err != nil {
		return err
	}
	list, err := r.Bulk.ListSources(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	p.sources, p.mayAdd = list.Items, r.Actor().MayKeepSources() == nil
	return r.ShowStatus(status, frame(), startBody(p))
}

func template(r *ui.Request) error {
	if err := r.Actor().MayImport(); err != nil {
		return err
	}
	return imports.Template(&download{r: r, name: "users.csv"})
}

// download is a file that goes to the browser; its headers go with the first octet.
type download struct {
	r     *ui.Request
	name  string
	begun bool
}

func (d *download) Write(b []byte) (int, error) {
	if !d.begun {
		d.begun = true
		h := d.r.W.Header()
		h.Set("Content-Type", "text/csv; charset=utf-8")
		h.Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	}
	return d.r.W.Write(b)
}

// send writes a file; half of one must not look like a whole one.
func send(r *ui.Request, name string, write func(w io.Writer) error) error {
	d := &download{r: r, name: name}
	err := write(d)
	if err != nil && d.begun {
		r.Log.ErrorContext(r.Context(), "a file broke off", "file", name, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// options reads the fields that both forms have.
func options(get func(string) string) rest.NewImport {
	return rest.NewImport{
		OnFaults: get("on_faults"), Codes: get("codes") != "", MakeGroups: get("make_groups") != "", IgnoreUnknown: get("ignore_unknown") != "",
	}
}

// patient reads a body that may take long in all, but not say nothing for long.
type patient struct {
	r io.Reader
	c *http.ResponseController
}

func (p patient) Read(b []byte) (int, error) {
	_ = p.c.SetReadDeadline(clock.Deadline(time.Minute))
	return p.r.Read(b)
}

// upload passes a file on as it comes.
func upload(r *ui.Request) error {
	if err := r.Actor().MayImport(); err != nil {
		return err
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{patient{r.Body, http.NewResponseController(r.W)}, r.Body}
	parts, err := r.MultipartReader()
	if err != nil {
		return fault.New(fault.BadRequest, err)
	}
	fields := map[string]string{}
	for range 20 {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fault.New(fault.BadRequest, err)
		}
		if part.FormName() != "file" {
			b, err := io.ReadAll(io.LimitReader(part, 1<<10))
			if err != nil {
				return fault.New(fault.BadRequest, err)
			}
			fields[part.FormName()] = string(b)
			continue
		}
		return uploadPart(r, options(func(s string) string { return fields[s] }), part)
	}
	return start(r, http.StatusUnprocessableEntity, startPage{in: options(func(s string) string { return fields[s] }), file: map[string]string{"file": words.ImportFormNotAFile}})
}

func uploadPart(r *ui.Request, in rest.NewImport, part *multipart.Part) error {
	again := func(err error) error {
		if !ui.Refill(err) && fault.Of(err).Code != fault.BadRequest {
			return err
		}
		m := ui.Faults(err)
		for _, field := range []string{"columns", "rows"} { // they are the file's
			if m[field] != "" {
				m["file"] = strings.TrimPrefix(m["file"]+"; "+m[field], "; ")
				delete(m, field)
			}
		}
		return start(r, fault.Of(err).Status(), startPage{in: in, file: m})
	}
	if part.FileName() == "" {
		return again(fault.New(fault.Invalid, nil).With("file", "%s", words.ImportFormNotAFile))
	}
	i, err := r.Bulk.Make(r.Context(), r.Actor(), in)
	if err != nil {
		return again(err)
	}
	if i, err = r.Bulk.Upload(r.Context(), r.Actor(), i.ID, part.FileName(), part); err != nil {
		return again(err)
	}
	return r.Go(pathOf(i.ID), "")
}

func query(r *ui.Request) error {
	if err := r.Actor().MayImport(); err != nil {
		return err
	}
	in, source := options(func(s string) string { return r.Value("db-" + s) }), r.Value("source")
	again := func(err error) error {
		if !ui.Refill(err) && fault.Of(err).Code != fault.NotFound {
			return err
		}
		m := ui.Faults(err)
		for field, what := range m {
			if field != "source" && field != "" {
				m["source"] = strings.TrimPrefix(m["source"]+"; "+what, "; ")
				delete(m, field)
			}
		}
		return start(r, fault.Of(err).Status(), startPage{in: in, source: source, query: m})
	}
	i, err := r.Bulk.Make(r.Context(), r.Actor(), in)
	if err != nil {
		return again(err)
	}
	if i, err = r.Bulk.Query(r.Context(), r.Actor(), i.ID, rest.ImportQuery{Source: source}); err != nil {
		return again(err)
	}
	return r.Go(pathOf(i.ID), "")
}

// importPage is what stands on the page of an import.
type importPage struct {
	i     rest.Import
	state string
	rows  rest.Page[rest.ImportRow]
	after string
	mine  bool
}

func (p importPage) path(state, after string) string {
	q := url.Values{}
	if state != "" {
		q.Set("state", state)
	}
	if after != "" {
		q.Set("after", after)
	}
	if len(q) == 0 {
		return pathOf(p.i.ID)
	}
	return pathOf(p.i.ID) + "?" + q.Encode()
}

func (p importPage) moves() bool {
	return p.i.State == rest.ImportReading || p.i.State == rest.ImportApplying || p.i.State == rest.ImportTelling
}

func showImport(r *ui.Request) error {
	i, err := r.Bulk.Show(r.Context(), r.Actor(), r.PathValue("import"))
	if err != nil {
		return err
	}
	p := importPage{i: i, state: r.Value("state"), after: r.Value("after"), mine: i.Actor == r.Actor().Name}
	if !p.moves() {
		if p.rows, err = r.Bulk.Rows(r.Context(), r.Actor(), i.ID, p.state, p.after, 0); err != nil {
			return err
		}
	}
	title := i.Label
	if title == "" {
		title = words.NavImport
	}
	return r.Show(ui.Page{
		Title: title, Section: "import", Wide: true, Crumbs: []ui.Crumb{{Text: words.NavImport, Path: "/console/import"}}, Badge: stateBadge(i.State),
		Curl: &ui.Curl{Method: "POST", Path: rest.Base + "/imports/" + i.ID + "/apply"},
	}, importBody(p))
}

func faults(r *ui.Request) error {
	return send(r, "faults.csv", func(w io.Writer) error { return r.Bulk.WriteFaults(r.Context(), r.Actor(), r.PathValue("import"), w) })
}

func codes(r *ui.Request) error {
	return send(r, "codes.csv", func(w io.Writer) error { return r.Bulk.WriteCodes(r.Context(), r.Actor(), r.PathValue("import"), w) })
}

// back shows on the import's page why an action was refused.
func back(r *ui.Request, err error) error {
	if fault.Of(err).Code != fault.Conflict {
		return err
	}
	return r.GoWith(pathOf(r.PathValue("import")), ui.Bad, fault.Of(err).Public())
}

func apply(r *ui.Request) error {
	i, err := r.Bulk.Apply(r.Context(), r.Actor(), r.PathValue("import"))
	if err != nil {
		return back(r, err)
	}
	return r.Go(pathOf(i.ID), words.ImportStarted)
}

func drop(r *ui.Request) error {
	if err := r.Bulk.Drop(r.Context(), r.Actor(), r.PathValue("import")); err != nil {
		return back(r, err)
	}
	return r.Go("/console/import", words.ImportDropped)
}

// sourcesPage is what stands on the page of databases.
type sourcesPage struct {
	list   []rest.Source
	in     rest.NewSource
	faults map[string]string
	may    bool
}

func sources(r *ui.Request) error { return showSources(r, http.StatusOK, sourcesPage{}) }

func showSources(r *ui.Request, status int, p sourcesPage) error {
	list, err := r.Bulk.ListSources(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	p.list, p.may = list.Items, r.Actor().MayKeepSources() == nil
	return r.ShowStatus(status, ui.Page{
		Title: words.SourceTitle, Section: "import", Lead: words.SourcesLead, Crumbs: []ui.Crumb{{Text: words.NavImport, Path: "/console/import"}},
		Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/import-sources"},
	}, sourcesBody(p))
}

func addSource(r *ui.Request) error {
	in := rest.NewSource{Name: r.Value("name"), Address: rest.HideText(r.Value("address")), Query: r.Value("query"), CA: r.Value("ca")}
	if _, err := r.Bulk.AddSource(r.Context(), r.Actor(), in); err != nil {
		if !ui.Refill(err) {
			return err
		}
		// The address is not shown again: it holds a password.
		in.Address = rest.Secret{}
		return showSources(r, fault.Of(err).Status(), sourcesPage{in: in, faults: ui.Faults(err)})
	}
	return r.Go("/console/import/sources", words.SourceAdded)
}

func removeSource(r *ui.Request) error {
	if err := r.Bulk.RemoveSource(r.Context(), r.Actor(), r.PathValue("source")); err != nil {
		return err
	}
	return r.Go("/console/import/sources", words.SourceRemoved)
}

// next and first are the addresses of a pager; empty where there is none.
func (p startPage) next() string {
	if p.imports.Next == "" {
		return ""
	}
	return "/console/import?after=" + url.QueryEscape(p.imports.Next)
}

func (p startPage) first() string {
	if p.after == "" {
		return ""
	}
	return "/console/import"
}

func (p importPage) next() string {
	if p.rows.Next == "" {
		return ""
	}
	return p.path(p.state, p.rows.Next)
}

func (p importPage) first() string {
	if p.after == "" {
		return ""
	}
	return p.path(p.state, "")
}
