// Package forms is what pages with several forms share: which form was sent, what
// was wrong with it, and what somebody else has changed in the meantime.
//
// It promises: fields of different forms on one page have different names, so that
// each label and fault belongs to one field; a form that is shown again holds what was
// typed; and where two people change the same thing, neither writes over the other
// without having seen it (the ETag of the API, carried in the form).
package forms

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/fault"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Sent is the form of a page that was sent and could not be carried out; nil for a
// page that is opened.
type Sent struct {
	Form   string
	Values url.Values
	Faults map[string]string // by the name of the field in the form
	Clash  *Clash            // what somebody else has changed; nil: nothing
}

// Name is that of a field in the form.
func Name(form, field string) string { return form + "-" + field }

// Get is a field of the form that was sent, without blanks around it.
func Get(r *ui.Request, form, field string) string { return r.Value(Name(form, field)) }

// Has tells whether the form that was sent holds the field: a box that is not ticked
// does not.
func Has(r *ui.Request, form, field string) bool {
	v, err := r.Values()
	return err == nil && v.Has(Name(form, field))
}

// Rev is the revision that the form was filled in with; -1, which is that of nothing, if
// it says none.
func Rev(r *ui.Request, form string) int64 {
	n, err := strconv.ParseInt(Get(r, form, "rev"), 10, 64)
	if err != nil || n < 1 {
		return -1
	}
	return n
}

// Was says that the form could not be carried out because of err.
func Was(r *ui.Request, form string, err error) *Sent {
	s := &Sent{Form: form, Faults: map[string]string{}}
	s.Values, _ = r.Values()
	for field, what := range ui.Faults(err) {
		if field != "" {
			field, _, _ = strings.Cut(field, "[") // entries of a list belong to its field
			field = Name(form, field)
		}
		if s.Faults[field] != "" {
			what = s.Faults[field] + "; " + what
		}
		s.Faults[field] = what
	}
	return s
}

// Again tells whether the page is to be shown again with the form, rather than an
// error page.
func Again(err error) bool { return ui.Refill(err) || fault.Is(err, fault.Forbidden) }

// Of are the faults of the form, for the summary at its head.
func (s *Sent) Of(form string) map[string]string {
	if s == nil || s.Form != form {
		return nil
	}
	return s.Faults
}

// Fault is what is wrong with a field.
func (s *Sent) Fault(form, field string) string { return s.Of(form)[Name(form, field)] }

// Value is what stands in a field: what was sent, or else what is.
func (s *Sent) Value(form, field, otherwise string) string {
	if s == nil || s.Form != form {
		return otherwise
	}
	for _, c := range s.Clash.fields() {
		if c.Name == field {
			return c.keep()
		}
	}
	if !s.Values.Has(Name(form, field)) {
		return otherwise
	}
	return s.Values.Get(Name(form, field))
}

// Ticked is whether a box is ticked.
func (s *Sent) Ticked(form, field string, otherwise bool) bool {
	if s == nil || s.Form != form {
		return otherwise
	}
	return s.Value(form, field, "") != ""
}

// Labels names the fields of the form in the summary.
func Labels(form string, pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[Name(form, pairs[i])] = pairs[i+1]
	}
	return m
}

// Changed is a field as three people see it: whoever opened the page, whoever was
// faster, and whoever has sent the form.
type Changed struct {
	Name, Label    string
	Was, Is, Yours string
}

// keep is what stands in the field of the form that is shown again: one's own word
// where one had changed the field, and else the newer one.
func (c Changed) keep() string {
	if c.Yours != c.Was {
		return c.Yours
	}
	return c.Is
}

// Both tells whether both have changed the field, to different values.
func (c Changed) Both() bool { return c.Was != c.Is && c.Yours != c.Was && c.Yours != c.Is }

// Clash is what somebody else has changed since the page was opened.
type Clash struct {
	By     string // empty: not known
	At     time.Time
	Path   string // of the page, to drop what was typed
	Fields []Changed
}

func (c *Clash) fields() []Changed {
	if c == nil {
		return nil
	}
	return c.Fields
}

// Theirs are the fields that somebody else has changed.
func (c *Clash) Theirs() []Changed {
	var out []Changed
	for _, f := range c.fields() {
		if f.Was != f.Is {
			out = append(out, f)
		}
	}
	return out
}

// Compare makes the clash of a form that was refused as stale: is holds what each
// field is now, with its label, in the order in which they are shown. What the page
// was opened with stands beside each field in the form (Seen).
func (s *Sent) Compare(c Clash, is []Changed) {
	for _, f := range is {
		f.Was = s.Values.Get(Name(s.Form, "seen-"+f.Name))
		f.Yours = s.Values.Get(Name(s.Form, f.Name))
		c.Fields = append(c.Fields, f)
	}
	s.Clash = &c
}

// Confirm is the form again, whose sender must first give a second factor: in another
// tab, so that nothing of what was typed is lost.
func Confirm(form templ.Component) templ.Component {
	link := templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		_, err := fmt.Fprintf(w, `<p>%s <a href="/stepup" target="_blank" rel="noopener">%s</a></p>`, templ.EscapeString(words.FormConfirmHow), templ.EscapeString(words.FormConfirmLink))
		return err
	})
	return templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		if err := ui.NoticeWith(ui.Warn, words.FormConfirm).Render(templ.WithChildren(ctx, link), w); err != nil {
			return err
		}
		return form.Render(ctx, w)
	})
}
