package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
)

// description is the OpenAPI document as the tests read it: by its words, not by the
// types of the library that wrote it.
type description struct {
	OpenAPI    string
	Paths      map[string]map[string]*described
	Components struct {
		Schemas map[string]*schema
	}
}

// described is an operation.
type described struct {
	OperationID string
	Summary     string
	Parameters  []struct {
		Name, In string
		Required bool
		Schema   *schema
	}
	RequestBody *struct {
		Content map[string]struct{ Schema *schema }
	}
	Responses map[string]struct {
		Description string
		Content     map[string]struct{ Schema *schema }
	}
	Security []map[string][]string

	method, path string
}

// schema is the part of JSON Schema that the document uses; what else stands there
// fails the test that reads it.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Format               string
	Properties           map[string]*schema
	Required             []string
	AdditionalProperties any
	Items                *schema
	Enum                 []any
	Minimum, Maximum     *float64
	MaxLength            *int
	MinLength            *int
	ContentEncoding      string
	Description          string
	Pattern              string
	PatternDescription   string
	Default              any
	Examples             []any
	Nullable             bool
	ReadOnly, WriteOnly  bool
	Deprecated           bool
	MaxItems, MinItems   *int
	UniqueItems          bool
}

func describe(t *testing.T, h http.Handler) (*description, []*described) {
	t.Helper()
	res := as(h, nil, "GET", rest.Base+"/openapi.json", "")
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res.Status, err)
	}
	var d description
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	var ops []*described
	for path, methods := range d.Paths {
		for method, o := range methods {
			o.method, o.path = strings.ToUpper(method), path
			ops = append(ops, o)
		}
	}
	slices.SortFunc(ops, func(a, b *described) int { return strings.Compare(a.OperationID, b.OperationID) })
	return &d, ops
}

// follow resolves a reference.
func (d *description) follow(s *schema) *schema {
	for s != nil && s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// kinds are the types that a value may have.
func (s *schema) kinds() []string {
	switch x := s.Type.(type) {
	case string:
		return []string{x}
	case []any:
		var out []string
		for _, v := range x {
			out = append(out, v.(string))
		}
		return out
	}
	return nil
}

// faults lists what of a value the schema does not say.
func (d *description) faults(s *schema, at string, v any) (out []string) {
	s = d.follow(s)
	if s == nil {
		return []string{at + ": no schema"}
	}
	bad := func(format string, a ...any) { out = append(out, at+": "+fmt.Sprintf(format, a...)) }
	kind := map[bool]string{true: "null"}[v == nil]
	switch x := v.(type) {
	case string:
		kind = "string"
		if s.Format == "date-time" {
			if _, err := time.Parse(time.RFC3339, x); err != nil {
				bad("%q is no time", x)
			}
		}
		if s.MaxLength != nil && len([]rune(x)) > *s.MaxLength {
			bad("too long")
		}
	case bool:
		kind = "boolean"
	case float64:
		kind = "number"
		if x == float64(int64(x)) && slices.Contains(s.kinds(), "integer") {
			kind = "integer"
		}
		if s.Minimum != nil && x < *s.Minimum || s.Maximum != nil && x > *s.Maximum {
			bad("%v is out of range", x)
		}
	case []any:
		kind = "array"
		for i, e := range x {
			if s.Items != nil {
				out = append(out, d.faults(s.Items, fmt.Sprintf("%s[%d]", at, i), e)...)
			}
		}
	case map[string]any:
		kind = "object"
		if len(s.kinds()) == 0 {
			break // anything
		}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			switch p := s.Properties[k]; {
			case p != nil:
				out = append(out, d.faults(p, at+"."+k, x[k])...)
			case s.AdditionalProperties == nil || s.AdditionalProperties == false:
				bad("the field %s is not described", k)
			default:
				if more, ok := s.AdditionalProperties.(map[string]any); ok {
					b, _ := json.Marshal(more)
					var sub schema
					_ = json.Unmarshal(b, &sub)
					out = append(out, d.faults(&sub, at+"."+k, x[k])...)
				}
			}
		}
		for _, k := range s.Required {
			if _, ok := x[k]; !ok {
				bad("%s is missing", k)
			}
		}
	}
	if all := s.kinds(); len(all) > 0 && !slices.Contains(all, kind) {
		bad("it is %s, described is %v", kind, all)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		bad("%v is none of %v", v, s.Enum)
	}
	return out
}

// example makes a value that fits; everything of an object, or only what must be there.
func (d *description) example(s *schema, all bool) any {
	s = d.follow(s)
	if s == nil {
		return nil
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	kinds := s.kinds()
	if len(kinds) == 0 {
		return map[string]any{}
	}
	switch kinds[0] {
	case "string":
		if s.Format == "date-time" {
			return "2026-12-01T08:00:00Z"
		}
		return "example"
	case "boolean":
		return false
	case "integer", "number":
		n := 1.0
		if s.Minimum != nil {
			n = max(n, *s.Minimum)
		}
		return n
	case "array":
		if !all {
			return []any{}
		}
		return []any{d.example(s.Items, all)}
	case "object":
		out := map[string]any{}
		for k, p := range s.Properties {
			if all || slices.Contains(s.Required, k) {
				out[k] = d.example(p, all)
			}
		}
		return out
	}
	return nil
}

// body is an example of what the operation takes, as text; empty if it takes none.
func (d *description) body(o *described, all bool) string {
	s := o.takes()
	if s == nil {
		return ""
	}
	b, err := json.Marshal(d.example(s, all))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// takes is the schema of the body; nil if the operation takes no JSON.
func (o *described) takes() *schema {
	if o.RequestBody == nil {
		return nil
	}
	return o.RequestBody.Content["application/json"].Schema
}

var placeholder = regexp.MustCompile(`\{([a-z_]+)\}`)

// fill puts a name for each placeholder into the path.
func (o *described) fill(name func(placeholder string) string) string {
	return placeholder.ReplaceAllStringFunc(o.path, func(s string) string { return name(strings.Trim(s, "{}")) })
}
