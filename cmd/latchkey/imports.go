package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"latchkey/internal/buildinfo"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// readTime bounds how long the server may read a file or ask a database.
const readTime = 35 * time.Minute

func (a *app) importCommand() *cobra.Command {
	return noun("import", "Users in bulk, from a file or a database",
		a.importUsers(), a.importTemplate(), a.importList(), a.importShow(), a.importCodes(), a.importDrop(),
		noun("source", "Databases that users are imported from", a.sourceAdd(), a.sourceList(), a.sourceRemove()))
}

// importFlags are those of `import users`.
type importFlags struct {
	source, addressFile, ca, query, queryFile string
	dry, skip, groups, ignore                 bool
	faults, codes, expire                     string
}

func (a *app) importUsers() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use: "users [FILE]", Short: "Add and change many users at once",
		Long: `Adds and changes users as the lines of a CSV file say; - is standard input. The first
line names the columns; latchkey import template writes a file with all of them. What a
line leaves out stays as it is. In place of a file a database can be asked: one that is
kept on the server (--source), or one whose address a file holds (--address-file).

Everything is judged before anything is changed. With a faulty line nothing is done at
all, unless --skip-bad-rows leaves such lines out. Repeating an import changes nothing.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runImport(cmd.Context(), f, args) },
	}
	fl := c.Flags()
	fl.BoolVar(&f.dry, "dry-run", false, "say what would change, and change nothing")
	fl.BoolVar(&f.skip, "skip-bad-rows", false, "leave faulty lines out instead of doing nothing at all")
	fl.StringVar(&f.faults, "errors", "", "write every fault as a line of this CSV file")
	fl.StringVar(&f.codes, "codes", "", "make an enrolment code for every new user, and write them to this file")
	fl.StringVar(&f.expire, "codes-expire", "", "how long the codes are good, 1m to 168h (default 168h)")
	fl.BoolVar(&f.groups, "make-groups", false, "make groups that are named and are not there")
	fl.BoolVar(&f.ignore, "ignore-unknown-columns", false, "leave out columns that are not known")
	fl.StringVar(&f.source, "source", "", "ask this database, which the server keeps")
	fl.StringVar(&f.addressFile, "address-file", "", "ask the database whose address is the first line of this file; - is standard input")
	fl.StringVar(&f.ca, "ca-file", "", "certificates that the database's certificate must come from")
	fl.StringVar(&f.query, "query", "", "SELECT with the columns of a file")
	fl.StringVar(&f.queryFile, "query-file", "", "file with the query")
	c.MarkFlagsMutuallyExclusive("source", "address-file")
	c.MarkFlagsMutuallyExclusive("query", "query-file")
	return c
}

func (a *app) runImport(ctx context.Context, f importFlags, args []string) error {
	fromDatabase := f.source != "" || f.addressFile != ""
	switch {
	case fromDatabase && len(args) > 0:
		return usagef("a file and a database do not go together: give one of them")
	case !fromDatabase && len(args) == 0:
		return usagef("say where users come from: a FILE, --source, or --address-file")
	case !fromDatabase && (f.query != "" || f.queryFile != "" || f.ca != ""):
		return usagef("--query, --query-file and --ca-file go with --source or --address-file")
	}
	query, err := f.ask(a)
	if err != nil {
		return err
	}
	defer query.Address.Wipe()
	for flag, path := range map[string]string{"errors": f.faults, "codes": f.codes} {
		if _, err := os.Lstat(path); path != "" && err == nil {
			return fmt.Errorf("--%s: %s is there already, and is not written over; name another file", flag, path)
		}
	}
	var file *os.File
	var size int64
	label := "standard input"
	if !fromDatabase {
		if file = a.in; args[0] != "-" {
			if file, err = os.Open(args[0]); err != nil {
				return err
			}
			defer file.Close()
			label = filepath.Base(args[0])
			if info, err := file.Stat(); err == nil {
				size = info.Size()
			}
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	in := rest.NewImport{OnFaults: rest.FaultsStop, Codes: f.codes != "", CodesValidFor: f.expire, MakeGroups: f.groups, IgnoreUnknown: f.ignore}
	if f.skip {
		in.OnFaults = rest.FaultsSkip
	}
	var i rest.Import
	if err := cl.call(ctx, http.MethodPost, "/imports", nil, in, &i); err != nil {
		return err
	}
	dropped := false
	drop := func() {
		if !dropped {
			dropped = true
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
			defer cancel()
			_ = cl.call(ctx, http.MethodDelete, at("imports", i.ID), nil, nil, nil)
		}
	}
	stop := a.progress(ctx, cl, i.ID, size)
	if fromDatabase {
		err = cl.patient().call(ctx, http.MethodPost, at("imports", i.ID, "query"), nil, query, &i)
	} else {
		err = cl.upload(ctx, at("imports", i.ID, "file"), url.Values{"label": {label}}, file, &i)
	}
	stop()
	if err != nil {
		drop()
		return err
	}
	if i.Faulty > 0 && f.faults != "" {
		if err := cl.download(ctx, http.MethodGet, at("imports", i.ID, "faults.csv"), f.faults); err != nil {
			return err
		}
	}
	rows, err := list[rest.ImportRow](ctx, cl, at("imports", i.ID, "rows"), nil, 200)
	if err != nil {
		return err
	}
	if err := a.sayFaults(ctx, cl, i, f.faults); err != nil {
		return err
	}
	todo := i.New + i.Changed
	switch {
	case f.dry:
		defer drop()
		if err := a.emit(i, func(p *printer) { importPlan(p, i, rows) }); err != nil {
			return err
		}
		if i.Faulty > 0 && !f.skip {
			return codeError(exitFailed)
		}
		return nil
	case i.Faulty > 0 && !f.skip:
		drop()
		return fmt.Errorf("%d of %d rows are faulty, and nothing was changed; correct them, or leave them out with --skip-bad-rows", i.Faulty, i.Rows)
	case todo > 0:
		if a.output == outputTable && a.terminal() && !a.yes {
			if err := a.emit(i, func(p *printer) { importPlan(p, i, rows) }); err != nil {
				return err
			}
		}
		if err := a.confirm("Add %d users and change %d?", i.New, i.Changed); err != nil {
			drop()
			return err
		}
	}
	if err := cl.call(ctx, http.MethodPost, at("imports", i.ID, "apply"), nil, nil, &i); err != nil {
		return err
	}
	if i, err = a.await(ctx, cl, i); err != nil {
		return err
	}
	if i.State != rest.ImportDone {
		return fmt.Errorf("%s See: latchkey import show %s", i.Problem, i.ID)
	}
	if f.codes != "" && i.CodesLeft > 0 {
		if err := cl.download(ctx, http.MethodPost, at("imports", i.ID, "codes"), f.codes); err != nil {
			return fmt.Errorf("users were imported, and their codes could not be written: %w", err)
		}
	}
	return a.emit(i, func(p *printer) {
		p.line("%d users were added, %d changed; %d were so already, %d rows were left out.", i.New, i.Changed, i.Same, i.Faulty)
		switch {
		case f.codes != "" && i.CodesLeft > 0:
			p.line("%d enrolment codes are in %s. They are shown nowhere else.", i.CodesLeft, f.codes)
		case i.CodesLeft > 0:
			p.line("%d enrolment codes wait to be fetched within a day: latchkey import codes %s FILE", i.CodesLeft, i.ID)
		}
	})
}

// ask is the question to a database.
func (f importFlags) ask(a *app) (rest.ImportQuery, error) {
	q := rest.ImportQuery{Source: f.source, Query: f.query}
	if f.queryFile != "" {
		b, err := readBounded(f.queryFile, 64<<10)
		if err != nil {
			return q, err
		}
		q.Query = string(b)
	}
	if f.ca != "" {
		b, err := readBounded(f.ca, 256<<10)
		if err != nil {
			return q, err
		}
		q.CA = string(b)
	}
	if f.addressFile != "" {
		s, err := a.readAddress(f.addressFile)
		q.Address = s
		return q, err
	}
	return q, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d octets", path, most)
	}
	return b, err
}

// readAddress reads an address with its password: never from the command line.
func (a *app) readAddress(path string) (rest.Secret, error) {
	if path == "-" {
		s, err := a.readSecret("Address of the database: ")
		return rest.Hide(s), err
	}
	b, err := readBounded(path, maxTyped)
	defer clear(b)
	first, _, _ := strings.Cut(string(b), "\n")
	return rest.HideText(strings.TrimSpace(first)), err
}

// importPlan shows what would change.
func importPlan(p *printer, i rest.Import, rows []rest.ImportRow) {
	t := text.NewTable("ROW", "USER", "WHAT", "CHANGES")
	for _, r := range rows {
		if r.State != rest.RowNew && r.State != rest.RowChanged {
			continue
		}
		var what []string
		for _, c := range r.Changes {
			if r.State == rest.RowNew {
				what = append(what, c.Field+"="+c.New)
			} else {
				what = append(what, fmt.Sprintf("%s: %s → %s", c.Field, dash(c.Old), dash(c.New)))
			}
		}
		if r.Code {
			what = append(what, "enrolment code")
		}
		if r.Note != "" {
			what = append(what, "("+r.Note+")")
		}
		t.Row(fmt.Sprint(r.Line), r.User, r.State, strings.Join(what, "; "))
	}
	p.table(t, "Nothing would change.")
	if i.Rows > int64(len(rows)) {
		p.line("… of the first %d rows.", len(rows))
	}
	if len(i.NewGroups) > 0 {
		p.line("New groups: %s", strings.Join(i.NewGroups, ", "))
	}
	p.line("%d new, %d changed, %d the same, %d faulty.", i.New, i.Changed, i.Same, i.Faulty)
}

// sayFaults tells the first faults.
func (a *app) sayFaults(ctx context.Context, cl *client, i rest.Import, file string) error {
	if i.Faulty == 0 {
		return nil
	}
	bad, err := list[rest.ImportRow](ctx, cl, at("imports", i.ID, "rows"), url.Values{"state": {rest.RowFaulty}}, 20)
	if err != nil {
		return err
	}
	for _, r := range bad {
		for _, f := range r.Faults {
			where := fmt.Sprintf("line %d", f.Line)
			if f.Column > 0 {
				where += fmt.Sprintf(", column %d", f.Column)
			}
			if f.Field != "" {
				where += " (" + f.Field + ")"
			}
			a.say("%s: %s", where, f.Fault)
		}
	}
	switch {
	case file != "":
		a.say("%d rows are faulty; %s has every fault", i.Faulty, file)
	case i.Faulty > int64(len(bad)):
		a.say("%d rows are faulty; --errors FILE writes all faults", i.Faulty)
	}
	return nil
}

// progress tells at a terminal how far reading is; the returned function ends it.
func (a *app) progress(ctx context.Context, cl *client, id string, size int64) (stop func()) {
	if !term.IsTerminal(int(a.err.Fd())) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for a.clock.Sleep(ctx, 500*time.Millisecond) == nil {
			var i rest.Import
			if cl.call(ctx, http.MethodGet, at("imports", id), nil, nil, &i) != nil {
				continue
			}
			part := ""
			if size > 0 {
				part = fmt.Sprintf(" (%d %%)", min(100, 100*i.Bytes/size))
			}
			fmt.Fprintf(a.err, "\r\x1b[Kchecked %d rows%s", i.Rows, part)
		}
		fmt.Fprint(a.err, "\r\x1b[K")
	}()
	return func() { cancel(); <-done }
}

// await waits until an import has been applied.
func (a *app) await(ctx context.Context, cl *client, i rest.Import) (rest.Import, error) {
	show := term.IsTerminal(int(a.err.Fd()))
	wait := 50 * time.Millisecond
	for i.State == rest.ImportApplying || i.State == rest.ImportTelling {
		if show {
			fmt.Fprintf(a.err, "\r\x1b[Kchanged %d of %d users, recorded %d", i.Done, i.New+i.Changed, i.Told)
		}
		if err := a.clock.Sleep(ctx, wait); err != nil {
			a.say("the import goes on by itself; see: latchkey import show %s", i.ID)
			return i, errors.New("interrupted")
		}
		wait = min(2*wait, time.Second)
		if err := cl.call(ctx, http.MethodGet, at("imports", i.ID), nil, nil, &i); err != nil {
			return i, err
		}
	}
	if show {
		fmt.Fprint(a.err, "\r\x1b[K")
	}
	return i, nil
}

// patient is the client without the bound of an ordinary answer.
func (c *client) patient() *client {
	out, h := *c, *c.http
	h.Timeout = readTime
	out.http = &h
	return &out
}

// raw makes a request with a body that is not kept in memory.
func (c *client) raw(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := c.base + rest.Base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "text/csv")
	}
	req.Header.Set("User-Agent", "latchkey/"+buildinfo.Version())
	if !c.bearer.Empty() {
		req.Header.Set("Authorization", "Bearer "+string(c.bearer.Reveal()))
	}
	res, err := c.patient().http.Do(req)
	if err != nil {
		return nil, c.explainDial(err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, c.hint(problemOf(res))
	}
	return res, nil
}

// upload sends a file and reads the answer.
func (c *client) upload(ctx context.Context, path string, query url.Values, file io.Reader, out *rest.Import) error {
	res, err := c.raw(ctx, http.MethodPut, path, query, struct{ io.Reader }{file})
	if err != nil {
		return err
	}
	return readJSON(res, out)
}

func readJSON(res *http.Response, out any) error {
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the server's answer breaks off: %w", err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer is not understood; is it of another version than this command? %w", err)
	}
	return nil
}

// download writes an answer to a new file that only its owner may read.
func (c *client) download(ctx context.Context, method, path, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	res, err := c.patient().request(ctx, method, path, nil, nil, nil)
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(to))
	}
	defer res.Body.Close()
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Sync(), f.Close())
}

func (a *app) importTemplate() *cobra.Command {
	return &cobra.Command{
		Use: "template", Short: "Print a CSV file with all columns and two users as an example",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			res, err := cl.request(cmd.Context(), http.MethodGet, "/import-template.csv", nil, nil, nil)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(a.out, res.Body)
			return err
		},
	}
}

func (a *app) importList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List imports of the last week", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			all, err := list[rest.Import](cmd.Context(), cl, "/imports", nil, 0)
			if err != nil {
				return err
			}
			return a.emit(all, func(p *printer) {
				t := text.NewTable("IMPORT", "FROM", "BY", "STATE", "NEW", "CHANGED", "SAME", "FAULTY", "WHEN")
				for _, i := range all {
					t.Row(i.ID, i.Label, i.Actor, i.State, fmt.Sprint(i.New), fmt.Sprint(i.Changed), fmt.Sprint(i.Same), fmt.Sprint(i.Faulty), when(i.CreatedAt))
				}
				p.table(t, "There were no imports. Write a file: latchkey import template > users.csv")
			})
		},
	}
}

func (a *app) importShow() *cobra.Command {
	return &cobra.Command{
		Use: "show IMPORT", Short: "Show an import and its first rows", Args: words("IMPORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var i rest.Import
			if err := cl.call(cmd.Context(), http.MethodGet, at("imports", args[0]), nil, nil, &i); err != nil {
				return err
			}
			rows, err := list[rest.ImportRow](cmd.Context(), cl, at("imports", args[0], "rows"), nil, 200)
			if err != nil {
				return err
			}
			return a.emit(i, func(p *printer) {
				p.card("Import", i.ID, "From", i.Label, "By", i.Actor, "State", i.State, "Problem", i.Problem, "Begun", when(i.CreatedAt), "Ended", when(i.EndedAt))
				importPlan(p, i, rows)
			})
		},
	}
}

func (a *app) importCodes() *cobra.Command {
	return &cobra.Command{
		Use: "codes IMPORT FILE", Short: "Write the enrolment codes of an import to a file, once", Args: words("IMPORT", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.download(cmd.Context(), http.MethodPost, at("imports", args[0], "codes"), args[1])
		},
	}
}

func (a *app) importDrop() *cobra.Command {
	return &cobra.Command{
		Use: "drop IMPORT", Short: "Forget an import; users stay as they are", Args: words("IMPORT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			return cl.patient().call(cmd.Context(), http.MethodDelete, at("imports", args[0]), nil, nil, nil)
		},
	}
}

func (a *app) sourceAdd() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use: "add SOURCE", Short: "Keep a database on the server, its address sealed", Args: words("SOURCE"),
		Long: `Keeps the address of a database and the query that gives users. The address is
KIND://USER:PASSWORD@HOST:PORT/DATABASE, with KIND postgresql, mysql, sqlserver or oracle;
it is asked for at a terminal, or read from a file.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.addressFile == "" {
				f.addressFile = "-"
			}
			q, err := f.ask(a)
			if err != nil {
				return err
			}
			defer q.Address.Wipe()
			cl, err := a.client()
			if err != nil {
				return err
			}
			var s rest.Source
			if err := cl.call(cmd.Context(), http.MethodPost, "/import-sources", nil, rest.NewSource{Name: args[0], Address: q.Address, Query: q.Query, CA: q.CA}, &s); err != nil {
				return err
			}
			return a.emit(s, func(p *printer) {
				p.line("The source %s is kept: %s", s.Name, s.Place)
				if !s.Tested {
					p.line("The driver for %s was not run against a server by those who built it. Look at the dry run closely.", s.Driver)
				}
				p.line("Next: latchkey import users --source %s --dry-run", s.Name)
			})
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.addressFile, "address-file", "", "file whose first line is the address; - is standard input (default)")
	fl.StringVar(&f.ca, "ca-file", "", "certificates that the database's certificate must come from")
	fl.StringVar(&f.query, "query", "", "SELECT with the columns of a file")
	fl.StringVar(&f.queryFile, "query-file", "", "file with the query")
	c.MarkFlagsMutuallyExclusive("query", "query-file")
	c.MarkFlagsOneRequired("query", "query-file")
	return c
}

func (a *app) sourceList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List databases that users are imported from", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var all rest.Page[rest.Source]
			if err := cl.call(cmd.Context(), http.MethodGet, "/import-sources", nil, nil, &all); err != nil {
				return err
			}
			return a.emit(all.Items, func(p *printer) {
				t := text.NewTable("SOURCE", "ADDRESS", "QUERY", "USED", "")
				for _, s := range all.Items {
					note := ""
					if !s.Tested {
						note = "driver not run against a server here"
					}
					t.Row(s.Name, s.Place, text.CleanN(s.Query, 60), p.ago(s.UsedAt), note)
				}
				p.table(t, "There are no sources. Keep one: latchkey import source add NAME --query 'SELECT …'")
			})
		},
	}
}

func (a *app) sourceRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove SOURCE", Short: "Forget a database", Aliases: []string{"rm"}, Args: words("SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Forget the source %s?", args[0]); err != nil {
				return err
			}
			return cl.call(cmd.Context(), http.MethodDelete, at("import-sources", args[0]), nil, nil, nil)
		},
	}
}
