package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
)

// problem is rest.Problem as huma wants its errors.
type problem struct{ rest.Problem }

func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) Error() string             { return p.Detail }
func (p *problem) ContentType(string) string { return "application/problem+json" }

func newProblem(f *fault.Fault, conditional bool) *problem {
	status := f.Status()
	if f.Code == fault.Conflict && conditional {
		status = http.StatusPreconditionFailed
	}
	return &problem{rest.Problem{
		Type: "urn:latchkey:fault:" + string(f.Code), Title: http.StatusText(status), Status: status, Code: f.Code, Detail: f.Public(), Fields: f.Fields, About: f.About,
	}}
}

func writeProblem(w http.ResponseWriter, p *problem) {
	w.Header().Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="latchkey"`)
	}
	b, err := json.Marshal(p)
	if err != nil {
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}

// huma has one hook for the whole process: what it finds wrong with a request
// before a handler sees it takes the same form as what the desk finds.
func init() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		f := fault.New(codeOf(status), nil)
		if f.Status() != status {
			f.Detail = sentence(msg)
		}
		for _, err := range errs {
			if err == nil {
				continue
			}
			d := &huma.ErrorDetail{Message: err.Error()}
			if e, ok := err.(huma.ErrorDetailer); ok {
				d = e.ErrorDetail()
			}
			name, what := inWords(d.Location, d.Message)
			f.With(name, "%s", what)
		}
		if f.Code == fault.Invalid && len(f.Fields) == 0 {
			f.Detail = sentence(msg)
		}
		p := newProblem(f, false)
		p.Status, p.Title = status, http.StatusText(status)
		return p
	}
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// codeOf finds the code that fits a status of huma's own.
func codeOf(status int) fault.Code {
	switch {
	case status == http.StatusNotFound:
		return fault.NotFound
	case status == http.StatusUnprocessableEntity:
		return fault.Invalid
	case status == http.StatusTooManyRequests:
		return fault.TooMany
	case status >= 400 && status < 500:
		return fault.BadRequest
	}
	return fault.Internal
}

// inWords says what huma found in the words of this house.
func inWords(location, msg string) (field, what string) {
	for _, head := range []string{"body.", "query.", "path.", "header."} {
		location = strings.TrimPrefix(location, head)
	}
	if location == "body" {
		location = ""
	}
	if rest, ok := strings.CutPrefix(msg, "expected required property "); ok {
		name, _, _ := strings.Cut(rest, " ")
		if location != "" {
			name = location + "." + name
		}
		return name, "it is missing"
	}
	if location == "" {
		location = "body"
	}
	for from, to := range map[string]string{
		"unexpected property":                      "there is no such field",
		"expected string":                          "it is not text",
		"expected boolean":                         "it is not true or false",
		"expected integer":                         "it is not a whole number",
		"expected number":                          "it is not a number",
		"expected array":                           "it is not a list",
		"expected object":                          "it is not an object",
		"expected string to be RFC 3339 date-time": "it is no time such as 2026-12-01T08:00:00Z",
		"unknown query parameter":                  "there is no such parameter",
		"invalid integer":                          "it is not a whole number",
		"invalid boolean":                          "it is not true or false",
		"invalid date/time":                        "it is no time such as 2026-12-01T08:00:00Z",
	} {
		if msg == from || strings.HasPrefix(from, "invalid ") && strings.HasPrefix(msg, from) {
			return location, to
		}
	}
	return location, msg
}
