package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
)

// The bounds of what is sent to and from an import: whoever says nothing for silence
// is gone, and nobody takes longer than uploadTime.
const (
	uploadTime = 30 * time.Minute
	silence    = time.Minute
)

type ImportPath struct {
	Import string `path:"import" maxLength:"64" doc:"Id"`
}

type SourcePath struct {
	Source string `path:"source" maxLength:"512" doc:"Name or id"`
}

// imports registers imports (E2).
func (x *door) imports(mux *http.ServeMux) {
	b := x.bulk
	add(x, op("list-imports", "GET", "/imports", "List imports, the youngest first", 0), func(ctx context.Context, a desk.Actor, in *Paged) (*plain[rest.Page[rest.Import]], error) {
		return reply(b.List(ctx, a, in.After, in.Limit))
	})
	add(x, op("begin-import", "POST", "/imports", "Begin an import; its rows come behind it", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewImport }) (*plain[rest.Import], error) {
		return reply(b.Make(ctx, a, in.Body))
	})
	add(x, op("show-import", "GET", "/imports/{import}", "Show an import and how far it is", 0), func(ctx context.Context, a desk.Actor, in *ImportPath) (*plain[rest.Import], error) {
		return reply(b.Show(ctx, a, in.Import))
	})
	add(x, op("drop-import", "DELETE", "/imports/{import}", "Drop an import with its rows; users stay as they are", 0), func(ctx context.Context, a desk.Actor, in *ImportPath) (*empty, error) {
		return nil, b.Drop(ctx, a, in.Import)
	})
	add(x, op("list-import-rows", "GET", "/imports/{import}/rows", "List the rows of an import and what becomes of each", 0), func(ctx context.Context, a desk.Actor, in *struct {
		ImportPath
		Paged
		State string `query:"state" maxLength:"16" doc:"new, changed, same or faulty; absent: any"`
	},
	) (*plain[rest.Page[rest.ImportRow]], error) {
		return reply(b.Rows(ctx, a, in.Import, in.State, in.After, in.Limit))
	})
	add(x, op("query-import", "POST", "/imports/{import}/query", "Read the rows of an import from a database", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		ImportPath
		Body rest.ImportQuery
	},
	) (*plain[rest.Import], error) {
		return reply(b.Query(ctx, a, in.Import, in.Body))
	})
	add(x, op("apply-import", "POST", "/imports/{import}/apply", "Change users as the rows say", http.StatusAccepted), func(ctx context.Context, a desk.Actor, in *ImportPath) (*plain[rest.Import], error) {
		return reply(b.Apply(ctx, a, in.Import))
	})
	add(x, op("list-import-sources", "GET", "/import-sources", "List the databases that are kept to import users from", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Page[rest.Source]], error) {
		return reply(b.ListSources(ctx, a))
	})
	add(x, op("add-import-source", "POST", "/import-sources", "Keep a database to import users from", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewSource }) (*plain[rest.Source], error) {
		return reply(b.AddSource(ctx, a, in.Body))
	})
	add(x, op("remove-import-source", "DELETE", "/import-sources/{source}", "Forget a database", 0), func(ctx context.Context, a desk.Actor, in *SourcePath) (*empty, error) {
		return nil, b.RemoveSource(ctx, a, in.Source)
	})

	text := map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}}
	path := &huma.Param{Name: "import", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
	x.byHand(mux, &huma.Operation{
		OperationID: "upload-import", Method: "PUT", Path: "/imports/{import}/file", Summary: "Give an import its rows as a CSV file",
		Description: "Read as it comes, at most 64 MiB and 200000 rows: UTF-8, or UTF-16 with a byte order mark; the first line names the columns; comma, semicolon or tab. Not as a form.",
		Parameters: []*huma.Param{path, {
			Name: "label", In: "query", Description: "Name of the file, for people", Schema: &huma.Schema{Type: huma.TypeString},
		}},
		RequestBody: &huma.RequestBody{Required: true, Content: text},
		Responses: map[string]*huma.Response{
			"200": {Description: "Every row was judged; nothing was changed", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/Import"}}}},
		},
	}, x.upload)
	x.byHand(mux, &huma.Operation{
		OperationID: "export-import-faults", Method: "GET", Path: "/imports/{import}/faults.csv", Summary: "Every fault of an import as a line of a file", Parameters: []*huma.Param{path},
		Responses: map[string]*huma.Response{"200": {Description: "Line, column, field, user and fault. A cell that begins like a formula has an apostrophe before it.", Content: text}},
	}, func(w http.ResponseWriter, r *http.Request, a desk.Actor) error {
		return b.WriteFaults(r.Context(), a, r.PathValue("import"), csvTo(w, "faults.csv"))
	})
	x.byHand(mux, &huma.Operation{
		OperationID: "fetch-import-codes", Method: "POST", Path: "/imports/{import}/codes", Summary: "Fetch the enrolment codes of an import, once", Parameters: []*huma.Param{path},
		Responses: map[string]*huma.Response{"200": {Description: "Name, display name, mail, code and expiry. They are not shown again.", Content: text}},
	}, func(w http.ResponseWriter, r *http.Request, a desk.Actor) error {
		return b.WriteCodes(r.Context(), a, r.PathValue("import"), csvTo(w, "codes.csv"))
	})
	x.byHand(mux, &huma.Operation{
		OperationID: "show-import-template", Method: "GET", Path: "/import-template.csv", Summary: "A file with all columns and two users as an example",
		Responses: map[string]*huma.Response{"200": {Description: "The file", Content: text}},
	}, func(w http.ResponseWriter, _ *http.Request, a desk.Actor) error {
		if err := a.MayImport(); err != nil {
			return err
		}
		return bulk.Template(csvTo(w, "users.csv"))
	})
}

// byHand registers an operation whose body or answer is a file that is not kept in
// memory.
func (x *door) byHand(mux *http.ServeMux, o *huma.Operation, fn func(w http.ResponseWriter, r *http.Request, a desk.Actor) error) {
	o.Path, o.Tags = rest.Base+o.Path, []string{"imports"}
	mux.HandleFunc(o.Method+" "+o.Path, func(w http.ResponseWriter, r *http.Request) {
		a, err := actor(r.Context())
		if err == nil {
			err = fn(w, r, a)
		}
		if begun, ok := w.Header()["Content-Disposition"]; ok && err != nil && begun != nil {
			// Half a file must not look like a whole one.
			x.problem(r.Context(), err, false)
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			writeProblem(w, x.problem(r.Context(), err, false))
		}
	})
	x.api.OpenAPI().AddOperation(o)
}

// file is a file that goes out; its headers go with the first octet.
type file struct {
	w    http.ResponseWriter
	name string
}

func csvTo(w http.ResponseWriter, name string) io.Writer { return &file{w, name} }

func (f *file) Write(b []byte) (int, error) {
	if h := f.w.Header(); h.Get("Content-Disposition") == "" {
		h.Set("Content-Type", "text/csv; charset=utf-8")
		h.Set("Content-Disposition", `attachment; filename="`+f.name+`"`)
	}
	_ = http.NewResponseController(f.w).SetWriteDeadline(clock.Deadline(silence))
	return f.w.Write(b)
}

// patient reads a body that may take long in all, but not say nothing for long.
type patient struct {
	r io.Reader
	c *http.ResponseController
}

func (p patient) Read(b []byte) (int, error) {
	_ = p.c.SetReadDeadline(clock.Deadline(silence))
	return p.r.Read(b)
}

func (x *door) upload(w http.ResponseWriter, r *http.Request, a desk.Actor) error {
	label := ""
	for name, values := range r.URL.Query() {
		if name != "label" {
			return fault.New(fault.Invalid, nil).With(name, "there is no such parameter; allowed is label")
		}
		label = values[0]
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Header.Get("Content-Type") != "" && (err != nil || t != "text/csv" && t != "application/octet-stream") {
		return fault.Newf(fault.BadRequest, "The body must be the file itself, sent with the header Content-Type: text/csv.")
	}
	ctx, cancel := context.WithTimeout(r.Context(), uploadTime)
	defer cancel()
	c := http.NewResponseController(w)
	if err := c.SetWriteDeadline(clock.Deadline(uploadTime + silence)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	i, err := x.bulk.Upload(ctx, a, r.PathValue("import"), label, patient{http.MaxBytesReader(w, r.Body, bulk.MaxBytes+1), c})
	if err != nil {
		return err
	}
	out, err := json.Marshal(i)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(out, '\n'))
	return err
}
