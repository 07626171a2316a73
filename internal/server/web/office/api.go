package office

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"latchkey/internal/fault"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// document is what this page reads of the description of the API (OpenAPI 3.1).
type document struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type schema struct {
	Ref         string            `json:"$ref"`
	Type        any               `json:"type"`
	Format      string            `json:"format"`
	Description string            `json:"description"`
	Properties  map[string]schema `json:"properties"`
	Items       *schema           `json:"items"`
	Required    []string          `json:"required"`
	Additional  any               `json:"additionalProperties"`
}

type operation struct {
	ID          string   `json:"operationId"`
	Summary     string   `json:"summary"`
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	Parameters  []struct {
		Name        string `json:"name"`
		In          string `json:"in"`
		Description string `json:"description"`
		Required    bool   `json:"required"`
		Schema      schema `json:"schema"`
	} `json:"parameters"`
	Body struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Description string `json:"description"`
		Content     map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
}

// line is a parameter or a field as it is shown.
type line struct {
	name, where, kind, text string
	required                bool
}

// shown is an operation as it is shown.
type shown struct {
	id, method, path, summary, text string
	params, body, answer            []line
	curl                            *ui.Curl
}

// chapter holds the operations of a tag.
type chapter struct {
	name string
	ops  []shown
}

var methods = []string{"get", "post", "put", "patch", "delete"}

// apiPages read the description of the API once.
type apiPages struct {
	once sync.Once
	all  []chapter
	err  error
}

func (a *apiPages) read(r *ui.Request) ([]chapter, error) {
	a.once.Do(func() {
		if r.OpenAPI == nil {
			return
		}
		raw, err := r.OpenAPI()
		if err == nil {
			a.all, err = chapters(raw)
		}
		a.err = err
	})
	return a.all, a.err
}

func (a *apiPages) list(r *ui.Request) error {
	q := r.Value("q")
	p := ui.Page{Title: words.APITitle, Section: "api", Lead: words.APILead}
	all, err := a.read(r)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return r.Show(p, ui.Notice(ui.Warn, words.APINone))
	}
	p.Actions = apiLinks()
	return r.Show(p, apiPage(r.Door(), q, choose(all, q)))
}

// choose leaves the operations whose path, name or summary contains q.
func choose(all []chapter, q string) []chapter {
	if q == "" {
		return all
	}
	var out []chapter
	for _, c := range all {
		n := chapter{name: c.name}
		for _, o := range c.ops {
			if strings.Contains(strings.ToLower(o.path+" "+o.id+" "+o.summary), strings.ToLower(q)) {
				n.ops = append(n.ops, o)
			}
		}
		if len(n.ops) > 0 {
			out = append(out, n)
		}
	}
	return out
}

// show is one operation with all its fields.
func (a *apiPages) show(r *ui.Request) error {
	all, err := a.read(r)
	if err != nil {
		return err
	}
	for _, c := range all {
		for _, o := range c.ops {
			if o.id == r.PathValue("operation") {
				return r.Show(ui.Page{Title: o.summary, Section: "api", Crumbs: []ui.Crumb{{Text: words.APITitle, Path: "/console/api"}}}, operationPage(r.Door(), o))
			}
		}
	}
	return fault.Newf(fault.NotFound, "The API has no operation of this name. All of them stand at /console/api.")
}

// chapters reads the description.
func chapters(raw []byte) ([]chapter, error) {
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	by := map[string]*chapter{}
	for path, item := range doc.Paths {
		for _, m := range methods {
			if item[m] == nil {
				continue
			}
			var o operation
			if err := json.Unmarshal(item[m], &o); err != nil {
				return nil, fmt.Errorf("read the description of the API: %s %s: %w", m, path, err)
			}
			tag := "other"
			if len(o.Tags) > 0 {
				tag = o.Tags[0]
			}
			if by[tag] == nil {
				by[tag] = &chapter{name: tag}
			}
			by[tag].ops = append(by[tag].ops, doc.show(m, path, o))
		}
	}
	var out []chapter
	for _, c := range by {
		slices.SortFunc(c.ops, func(a, b shown) int {
			if c := strings.Compare(a.path, b.path); c != 0 {
				return c
			}
			return slices.Index(methods, strings.ToLower(a.method)) - slices.Index(methods, strings.ToLower(b.method))
		})
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b chapter) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

func (d document) show(method, path string, o operation) shown {
	s := shown{id: o.ID, method: strings.ToUpper(method), path: path, summary: o.Summary, text: o.Description}
	for _, p := range o.Parameters {
		s.params = append(s.params, line{p.Name, p.In, d.kind(p.Schema), p.Description, p.Required})
	}
	c := &ui.Curl{Method: s.method, Path: path}
	if b, ok := o.Body.Content["application/json"]; ok {
		s.body = d.fields(b.Schema, "", 2)
		c.Body = d.example(b.Schema, 3)
	}
	for code, a := range o.Responses {
		if b, ok := a.Content["application/json"]; ok && strings.HasPrefix(code, "2") {
			s.answer = d.fields(b.Schema, "", 2)
		}
	}
	s.curl = c
	return s
}

func (d document) resolve(s schema) schema {
	for range 8 {
		name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/")
		if !ok {
			break
		}
		text := s.Description
		s = d.Components.Schemas[name]
		if text != "" {
			s.Description = text
		}
	}
	return s
}

// fields lists the fields of an object, those of its parts behind a dot, so deep.
func (d document) fields(s schema, head string, deep int) []line {
	s = d.resolve(s)
	names := make([]string, 0, len(s.Properties))
	for n := range s.Properties {
		if n != "$schema" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []line
	for _, n := range names {
		p := d.resolve(s.Properties[n])
		out = append(out, line{name: head + n, kind: d.kind(p), text: p.Description, required: slices.Contains(s.Required, n)})
		if deep > 1 {
			if p.Items != nil {
				out = append(out, d.fields(*p.Items, head+n+"[].", deep-1)...)
			} else {
				out = append(out, d.fields(p, head+n+".", deep-1)...)
			}
		}
	}
	return out
}

func (d document) kind(s schema) string {
	s = d.resolve(s)
	var kinds []string
	switch t := s.Type.(type) {
	case string:
		kinds = []string{t}
	case []any:
		for _, x := range t {
			if w, ok := x.(string); ok && w != "null" {
				kinds = append(kinds, w)
			}
		}
	}
	k := strings.Join(kinds, " or ")
	switch {
	case k == "array" && s.Items != nil:
		return "list of " + d.kind(*s.Items)
	case s.Format == "date-time":
		return "time"
	case k == "":
		return "any"
	}
	return k
}

// example makes a body with the fields that must be there.
func (d document) example(s schema, deep int) any {
	s = d.resolve(s)
	switch d.kind(s) {
	case "string":
		return "…"
	case "time":
		return "2026-12-01T08:00:00Z"
	case "boolean":
		return true
	case "integer", "number":
		return 1
	case "object":
		out := map[string]any{}
		if deep > 0 {
			for n, p := range s.Properties {
				if slices.Contains(s.Required, n) && n != "$schema" {
					out[n] = d.example(p, deep-1)
				}
			}
		}
		return out
	}
	if s.Items != nil {
		return []any{d.example(*s.Items, deep-1)}
	}
	return "…"
}
