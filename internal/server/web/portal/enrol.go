package portal

import (
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// ── an authenticator: scan and confirm ──

// scan is a pending authenticator as its page shows it. Nothing of it is stored: the
// ticket in the form holds it.
type scan struct {
	rest.PendingTOTP
	svg    string
	action string
	first  bool // the first enrolment: with the steps of the wizard
	name   string
	faults map[string]string
	over   bool // the one before had ended
}

// step numbers what is to be done: in the first enrolment an app is installed before.
func (s scan) step(n int) int {
	if s.first {
		n++
	}
	return n
}

// offer begins an authenticator and makes its page.
func offer(r *ui.Request, action string, first bool) (scan, error) {
	p, err := r.Desk.BeginOwnTOTP(r.Context(), r.Actor(), asked(r))
	if err != nil {
		return scan{}, err
	}
	return picture(p, action, first)
}

// asked are the settings that a strange device needs; apps know the first of each.
func asked(r *ui.Request) rest.BeginTOTP {
	in := rest.BeginTOTP{Algorithm: r.Value("algorithm")}
	if r.Value("digits") == "8" {
		in.Digits = 8
	}
	if r.Value("period") == "60" {
		in.Period = 60
	}
	return in
}

func picture(p rest.PendingTOTP, action string, first bool) (scan, error) {
	svg, err := factor.SVG(p.URI.Show(), words.MyEnrolQR)
	return scan{PendingTOTP: p, svg: svg, action: action, first: first}, err
}

// spaced writes a key in groups of four.
func spaced(key string) string {
	var b strings.Builder
	for i, c := range strings.ReplaceAll(key, " ", "") {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// confirm gives the first code. done is what follows when it was right.
func confirm(r *ui.Request, action string, first bool, page ui.Page, done func() error) error {
	v, err := r.Values()
	if err != nil {
		return err
	}
	in := rest.ConfirmTOTP{Ticket: rest.HideText(v.Get("ticket")), Code: rest.HideText(r.Value("code")), Name: r.Value("name")}
	_, err = r.Desk.ConfirmOwnTOTP(r.Context(), r.Actor(), in)
	switch {
	case err == nil:
		return done()
	case fault.Is(err, fault.Expired):
		// A new one: the picture that was scanned is worth nothing any more.
		s, e := offer(r, action, first)
		if e != nil {
			return e
		}
		s.name, s.over = in.Name, true
		return r.ShowStatus(fault.Of(err).Status(), page, scanPage(s))
	case !ui.Refill(err):
		return err
	}
	p, e := r.Desk.ShowOwnTOTP(r.Context(), r.Actor(), in.Ticket)
	if e != nil {
		return err // what was wrong, and no form for it any more
	}
	s, e := picture(p, action, first)
	if e != nil {
		return e
	}
	s.name, s.faults = in.Name, ui.Faults(err)
	return r.ShowStatus(fault.Of(err).Status(), page, scanPage(s))
}

func addOf() ui.Page {
	return ui.Page{Title: words.MyFactorAddTitle, Lead: words.MyFactorAddLead, Section: "factors", Crumbs: []ui.Crumb{toFactors}}
}

func addFactor(r *ui.Request) error {
	s, err := offer(r, "/me/factors/add", false)
	if err != nil {
		return err
	}
	return r.Show(addOf(), scanPage(s))
}

func confirmFactor(r *ui.Request) error {
	return confirm(r, "/me/factors/add", false, addOf(), func() error { return r.Go("/me/factors", words.MyEnrolDone) })
}

// ── the first enrolment ──

func enrolOf() ui.Page {
	return ui.Page{Title: words.MyEnrolTitle, Lead: words.MyEnrolLead, Section: "factors"}
}

// enrol is the first step. Who has a whole session has no need of it, and adds one
// more.
func enrol(r *ui.Request) error {
	if !enrolling(r) {
		return again(r, addFactor(r))
	}
	s, err := offer(r, "/me/enrol", true)
	if err != nil {
		return err
	}
	return r.Show(enrolOf(), scanPage(s))
}

// confirmEnrol makes the first authenticator, which spends the enrolment code, and
// with it the session a whole one.
func confirmEnrol(r *ui.Request) error {
	if !enrolling(r) {
		return r.Go("/me/factors/add", "")
	}
	return confirm(r, "/me/enrol", true, enrolOf(), func() error {
		secret, err := r.Sessions.Enrolled(r.Context(), r.Session, r.Address())
		if err != nil {
			return err
		}
		session.SetCookie(r.W, secret)
		return r.Go("/me/enrol/codes", words.MyEnrolDone)
	})
}

func codesOf(first bool) ui.Page {
	if first {
		return ui.Page{Title: words.MyCodesTitle, Lead: words.MyCodesLead, Section: "factors"}
	}
	return ui.Page{Title: words.MyCodesTitle, Lead: words.MyCodesLead, Section: "factors", Crumbs: []ui.Crumb{toFactors}}
}

func enrolCodes(r *ui.Request) error { return r.Show(codesOf(true), codesBefore()) }

func makeEnrolCodes(r *ui.Request) error { return showCodes(r, true) }

// showCodes makes ten codes and shows them, in the answer to this request and never
// again.
func showCodes(r *ui.Request, first bool) error {
	had, err := r.Desk.ListOwnFactors(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	c, err := r.Desk.MakeOwnBackup(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	v := fresh{user: c.User, first: first, replaced: codes(had.Items) != nil}
	for _, s := range c.Codes {
		v.codes = append(v.codes, s.Show())
	}
	return r.Show(codesOf(first), codesPage(v))
}

// fresh are codes that were made just now.
type fresh struct {
	user     string
	codes    []string
	first    bool
	replaced bool
}

// file is what is copied, saved and printed.
func (f fresh) file(host string) string {
	var b strings.Builder
	b.WriteString(words.Product + " · " + words.MyCodesTitle + "\n" + f.user + " · https://" + host + "\n\n")
	for _, c := range f.codes {
		b.WriteString(c + "\n")
	}
	b.WriteString("\n" + words.MyCodesFirst + "\n")
	return b.String()
}

// kept asks whether the codes are in safe hands before it goes on.
func kept(r *ui.Request, first bool, to string) error {
	if r.Value("kept") == "" {
		return r.ShowStatus(422, codesOf(first), notKept(first))
	}
	return r.Go(to, "")
}

func keptEnrolCodes(r *ui.Request) error { return kept(r, true, "/me/enrol/done") }

func enrolDone(r *ui.Request) error {
	me, err := r.Desk.Me(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	return r.Show(ui.Page{Title: words.MyNextTitle, Lead: words.MyNextLead, Section: "factors"}, donePage(me))
}

// ── backup codes later ──

func backup(r *ui.Request) error {
	l, err := r.Desk.ListOwnFactors(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	return r.Show(codesOf(false), backupPage(codes(l.Items)))
}

func makeBackup(r *ui.Request) error { return showCodes(r, false) }

func keptBackup(r *ui.Request) error { return kept(r, false, "/me/factors") }

// ── factors ──

func factors(r *ui.Request) error {
	me, err := r.Desk.Me(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	p := ui.Page{
		Title: words.MyFactorsTitle, Lead: words.MyFactorsLead, Section: "factors", Actions: link(words.MyFactorsAdd, "/me/factors/add", "primary", "plus"),
	}
	can, err := r.Desk.CanHaveAddress(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	certificates, err := r.Desk.CertificatesOn(r.Context())
	if err != nil {
		return err
	}
	return r.Show(p, withAddresses(can, factorsPage(me, certificates)))
}

func factorOf(f rest.Factor) ui.Page {
	return ui.Page{Title: factorName(f), Section: "factors", Crumbs: []ui.Crumb{toFactors}, Badge: factorBadge(f)}
}

// showFactor shows one with all that can be done about it.
func showFactor(r *ui.Request, status int, faults map[string]string, name string) error {
	me, err := r.Desk.Me(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	f, err := r.Desk.ShowOwnFactor(r.Context(), r.Actor(), r.PathValue("factor"))
	if err != nil {
		return err
	}
	if f.Kind == "backup" {
		return r.Go("/me/factors/backup", "")
	}
	if faults == nil {
		name = f.Name
	}
	return r.ShowStatus(status, factorOf(f), factorPage(f, last(f, me.Factors), name, faults))
}

// last tells whether it is the only authenticator that can be used.
func last(f rest.Factor, have []rest.Factor) bool {
	n := 0
	for _, o := range authenticators(have) {
		if o.State == "usable" {
			n++
		}
	}
	return f.State == "usable" && n == 1
}

func oneFactor(r *ui.Request) error { return showFactor(r, 200, nil, "") }

func renameFactor(r *ui.Request) error {
	f, err := r.Desk.RenameOwnFactor(r.Context(), r.Actor(), r.PathValue("factor"), rest.FactorChange{Name: r.Value("name")})
	switch {
	case err == nil:
		return r.Go("/me/factors/"+f.ID, words.MyFactorRenamed)
	case !fault.Is(err, fault.Invalid):
		return err
	}
	return showFactor(r, fault.Of(err).Status(), ui.Faults(err), r.Value("name"))
}

func removeFactor(r *ui.Request) error {
	f, err := r.Desk.ShowOwnFactor(r.Context(), r.Actor(), r.PathValue("factor"))
	if err == nil {
		_, err = r.Desk.RemoveOwnFactor(r.Context(), r.Actor(), f.ID)
	}
	if err != nil {
		return err
	}
	return r.Go("/me/factors", words.MyFactorRemovedWhat(f.Kind))
}

func loseFactor(r *ui.Request) error {
	_, err := r.Desk.LoseOwnFactor(r.Context(), r.Actor(), r.PathValue("factor"))
	if err != nil {
		return err
	}
	return r.GoWith("/me/factors", "warn", words.MyFactorLostDone)
}
