package post

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// A template is text with the placeholders {to}, {from}, {text} and {secret}. What they
// stand for is escaped for the place where it stands, so that no number, name or text can
// change the form of a request.
type template struct {
	parts []part
}

// part is literal text, or a placeholder.
type part struct {
	literal, name string
}

// The placeholders.
const (
	holdTo     = "to"
	holdFrom   = "from"
	holdText   = "text"
	holdSecret = "secret"
)

// maxTemplate bounds a template in bytes.
const maxTemplate = 4096

// parseTemplate reads one. A word of small letters in braces that is no placeholder is a
// mistake; other braces stand for themselves, as JSON has them.
func parseTemplate(s string, allowed ...string) (template, error) {
	var t template
	if len(s) > maxTemplate {
		return t, fmt.Errorf("it is longer than %d bytes", maxTemplate)
	}
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return t, errors.New("it is not UTF-8, or holds a NUL")
	}
	literal := func(s string) {
		if s == "" {
			return
		}
		if n := len(t.parts); n > 0 && t.parts[n-1].name == "" {
			t.parts[n-1].literal += s
			return
		}
		t.parts = append(t.parts, part{literal: s})
	}
	for {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			literal(s)
			return t, nil
		}
		end := open + 1
		for end < len(s) && s[end] >= 'a' && s[end] <= 'z' {
			end++
		}
		if end == open+1 || end == len(s) || s[end] != '}' {
			literal(s[:open+1])
			s = s[open+1:]
			continue
		}
		name, known := s[open+1:end], false
		for _, a := range allowed {
			known = known || a == name
		}
		if !known {
			return template{}, fmt.Errorf("{%.20s} is no placeholder that is allowed here; allowed are {%s}", name, strings.Join(allowed, "}, {"))
		}
		literal(s[:open])
		t.parts = append(t.parts, part{name: name})
		s = s[end+1:]
	}
}

// holds tells whether a placeholder stands in it.
func (t template) holds(name string) bool {
	for _, p := range t.parts {
		if p.name == name {
			return true
		}
	}
	return false
}

// fill makes the text.
func (t template) fill(values map[string]string, escape func(string) string) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.name == "" {
			b.WriteString(p.literal)
		} else {
			b.WriteString(escape(values[p.name]))
		}
	}
	return b.String()
}

// The forms of a body.
const (
	FormBody = "form" // application/x-www-form-urlencoded
	JSONBody = "json" // application/json
	XMLBody  = "xml"  // application/xml
	TextBody = "text" // text/plain: {text} alone, whatever it holds
	NoBody   = "none" // of GET
)

// escapes are how values are written in each form.
var escapes = map[string]func(string) string{
	FormBody: url.QueryEscape,
	JSONBody: escapeJSON,
	XMLBody:  escapeXML,
	TextBody: func(s string) string { return s },
}

var contentTypes = map[string]string{
	FormBody: "application/x-www-form-urlencoded", JSONBody: "application/json", XMLBody: "application/xml; charset=utf-8", TextBody: "text/plain; charset=utf-8",
}

// escapeJSON is the text between the quotation marks.
func escapeJSON(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return "" // text is always JSON
	}
	out := bytes.TrimRight(b.Bytes(), "\n")
	return string(out[1 : len(out)-1])
}

func escapeXML(s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}

// hostile is a value that shows whether a placeholder stands where its escaping holds.
const hostile = "\"'\\{}[]<>&=,;:#%\r\n +/é"

// parseBody reads a body and shows that no value can change its form.
func parseBody(form, s string) (template, error) {
	if form == NoBody {
		if s != "" {
			return template{}, errors.New("a request without a body has none; leave it empty, or choose another form")
		}
		return template{}, nil
	}
	if escapes[form] == nil {
		return template{}, fmt.Errorf("%.20q is no form of a body; allowed are %s", form, strings.Join([]string{FormBody, JSONBody, XMLBody, TextBody, NoBody}, ", "))
	}
	t, err := parseTemplate(s, holdTo, holdFrom, holdText, holdSecret)
	if err != nil {
		return t, err
	}
	plain, odd := t.fill(same("x"), escapes[form]), t.fill(same(hostile), escapes[form])
	switch form {
	case FormBody:
		// A placeholder may stand anywhere: what is escaped holds no & and no =.
		if _, err := url.ParseQuery(odd); err != nil {
			return t, errors.New("it is not of the form NAME=VALUE&NAME=VALUE")
		}
	case JSONBody:
		var a, b any
		if json.Unmarshal([]byte(plain), &a) != nil || json.Unmarshal([]byte(odd), &b) != nil || !sameShape(a, b) {
			return t, errors.New("it is not JSON with the placeholders inside quotation marks, such as {\"to\":\"{to}\"}")
		}
	case XMLBody:
		a, err := shapeXML(plain)
		b, err2 := shapeXML(odd)
		if err != nil || err2 != nil || a != b {
			return t, errors.New("it is not XML with the placeholders in texts or in attributes' values")
		}
	}
	return t, nil
}

func same(v string) map[string]string {
	return map[string]string{holdTo: v, holdFrom: v, holdText: v, holdSecret: v}
}

// sameShape tells whether two documents differ in nothing but the content of texts.
func sameShape(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			w, ok := b[k]
			if !ok || !sameShape(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameShape(a[i], b[i]) {
				return false
			}
		}
		return true
	case string:
		_, ok := b.(string)
		return ok
	}
	return a == b
}

// shapeXML is the elements and attributes' names of a document.
func shapeXML(s string) (string, error) {
	var b strings.Builder
	d := xml.NewDecoder(strings.NewReader(s))
	depth, roots := 0, 0
	for {
		tok, err := d.Token()
		if tok == nil {
			if depth != 0 || roots != 1 {
				return "", errors.New("no document")
			}
			_ = err
			if end := d.InputOffset(); end != int64(len(s)) {
				return "", errors.New("broken")
			}
			return b.String(), nil
		}
		switch x := tok.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
			fmt.Fprintf(&b, "<%s", x.Name.Local)
			for _, a := range x.Attr {
				fmt.Fprintf(&b, " %s", a.Name.Local)
			}
			b.WriteByte('>')
		case xml.EndElement:
			depth--
			b.WriteString("</>")
		case xml.Comment:
			b.WriteString("<!--" + string(x))
		case xml.ProcInst:
			b.WriteString("<?" + x.Target + string(x.Inst))
		case xml.Directive:
			return "", errors.New("a directive")
		}
	}
}

// parseURL reads the address of a gateway. Placeholders may stand in its path and its
// query, where they are escaped, and nowhere else: whom it is sent to is fixed.
func parseURL(s string, plainHTTP bool) (template, *url.URL, error) {
	t, err := parseTemplate(s, holdTo, holdFrom, holdText, holdSecret)
	if err != nil {
		return t, nil, err
	}
	plain, err := url.Parse(t.fill(same("x"), escapeURL))
	if err != nil || plain.Host == "" || plain.Opaque != "" {
		return t, nil, errors.New("it is no address; allowed is https://HOST/PATH")
	}
	switch {
	case plain.Scheme != "https" && !(plain.Scheme == "http" && plainHTTP):
		return t, nil, errors.New("it does not begin with https://")
	case plain.User != nil:
		return t, nil, errors.New("it holds a user name or password; give them in the fields for them")
	case plain.Fragment != "" || strings.Contains(s, "#"):
		return t, nil, errors.New("it holds a #, which is never sent")
	}
	odd, err := url.Parse(t.fill(same(hostile), escapeURL))
	if err != nil || odd.Host != plain.Host || odd.Scheme != plain.Scheme || odd.Fragment != "" || strings.Count(odd.EscapedPath(), "/") != strings.Count(plain.EscapedPath(), "/") {
		return t, nil, errors.New("a placeholder stands where it would change whom the message is sent to; allowed are path and query")
	}
	return t, plain, nil
}

// escapeURL escapes for the path and the query alike: a plus stands for a blank in one
// and for itself in the other, so that neither is used.
func escapeURL(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Header is one header of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"` // may hold {secret} and {from}
}

// The bounds of headers.
const (
	maxHeaders = 16
	maxHeader  = 1024
)

// forbidden headers say where a message ends or who one is: they are the program's own.
var forbidden = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "connection": true, "te": true, "trailer": true, "upgrade": true,
	"proxy-authorization": true, "proxy-connection": true, "keep-alive": true, "expect": true,
}

func (h Header) check() error {
	if h.Name == "" || len(h.Name) > 64 {
		return errors.New("a header has no name, or one of more than 64 bytes")
	}
	for i := range len(h.Name) {
		if !isToken(h.Name[i]) {
			return fmt.Errorf("%.64q is no name of a header", h.Name)
		}
	}
	if forbidden[strings.ToLower(h.Name)] {
		return fmt.Errorf("the header %s can not be set", h.Name)
	}
	if len(h.Value) > maxHeader {
		return fmt.Errorf("the header %s is longer than %d bytes", h.Name, maxHeader)
	}
	for i := range len(h.Value) {
		if c := h.Value[i]; c < 0x20 || c >= 0x7f {
			return fmt.Errorf("the header %s holds a character that is not printable ASCII", h.Name)
		}
	}
	_, err := parseTemplate(h.Value, holdSecret, holdFrom)
	if err != nil {
		return fmt.Errorf("the header %s: %w", h.Name, err)
	}
	return nil
}

// isToken is RFC 9110 §5.6.2.
func isToken(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c < utf8.RuneSelf && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// fill makes the value; what is no printable ASCII in a secret is left out.
func (h Header) fill(values map[string]string) (string, error) {
	t, err := parseTemplate(h.Value, holdSecret, holdFrom)
	if err != nil {
		return "", err
	}
	return t.fill(values, func(s string) string {
		return strings.Map(func(r rune) rune {
			if r < 0x20 || r >= 0x7f {
				return -1
			}
			return r
		}, s)
	}), nil
}

// HostOf is the host and port of a gateway's address; empty if it is none.
func HostOf(address string) string {
	_, u, err := parseURL(address, true)
	if err != nil {
		return ""
	}
	return u.Host
}
