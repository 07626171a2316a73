package office

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// tokenForm is a new token as typed.
type tokenForm struct {
	name, days string
	scopes     []string
	faults     map[string]string
}

var tokenLabels = map[string]string{"name": words.TokensName, "scopes": words.TokensScopes, "days": words.TokensDays}

// tokenList is what the page shows.
type tokenList struct {
	tokens []session.Token
	all    bool
	may    func(right string) bool
	me     string // id of the account
	now    time.Time
	form   tokenForm
}

func tokensFrame() ui.Page {
	return ui.Page{
		Title: words.TokensTitle, Section: "tokens", Lead: words.TokensLead,
		Actions: ui.Button(ui.ButtonProps{Label: words.TokensNew, Kind: "primary", Path: "/console/tokens#new", Icon: "plus"}),
		Curl:    &ui.Curl{Method: "GET", Path: rest.Base + "/tokens"},
	}
}

func (l tokenList) ends(t session.Token) bool { return l.me == t.MakerID || l.may("change") }

// state says why a token can not be used; empty if it can.
func (l tokenList) state(t session.Token) string {
	switch {
	case !l.now.Before(t.Expires):
		return words.TokensExpired
	case t.Now == rest.RoleNone:
		return words.TokensAsleep
	}
	return ""
}

func listTokens(r *ui.Request) error { return tokensWith(r, tokenForm{}, nil) }

func tokensWith(r *ui.Request, form tokenForm, err error) error {
	if err != nil {
		form.faults = ui.Faults(err)
	}
	all := r.URL.Query().Get("of") == "all"
	list, e := r.Sessions.ListTokens(r.Context(), r.Actor(), all)
	if e != nil {
		return e
	}
	slices.SortFunc(list, func(a, b session.Token) int { return b.Created.Compare(a.Created) })
	status := 200
	if err != nil {
		status = fault.Of(err).Status()
	}
	return r.ShowStatus(status, tokensFrame(), tokensPage(tokenList{
		tokens: list, all: all, may: r.Actor().Can, me: r.Session.UserID, now: r.Clock.Now(), form: form,
	}))
}

// mayScopes are the scopes that somebody can give to a token.
func mayScopes(may func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(desk.Scopes), func(s string) bool { return !may(s) })
}

func makeToken(r *ui.Request) error {
	values, err := r.Values()
	if err != nil {
		return err
	}
	form := tokenForm{name: r.Value("name"), days: r.Value("days"), scopes: values["scopes"]}
	if len(form.scopes) > len(desk.Scopes) {
		form.scopes = nil
	}
	span := time.Duration(0)
	if form.days != "" {
		n, err := strconv.Atoi(form.days)
		if err != nil || n < 1 || n > 365 {
			return tokensWith(r, form, fault.New(fault.Invalid, nil).With("days", "it is no number of days; allowed are 1 to 365"))
		}
		span = time.Duration(n) * 24 * time.Hour
	}
	t, secret, err := r.Sessions.MakeToken(r.Context(), r.Session, r.Address(), session.NewToken{Name: form.name, Scopes: form.scopes, For: span})
	if err != nil {
		if ui.Refill(err) {
			return tokensWith(r, form, err)
		}
		return err
	}
	defer secret.Wipe()
	page := tokensFrame()
	page.Title, page.Lead = words.TokensMade, ""
	page.Crumbs = []ui.Crumb{{Text: words.TokensTitle, Path: "/console/tokens"}}
	page.Curl = nil // a token makes no tokens
	return r.Show(page, tokenMade(t, string(secret.Reveal()), ui.CurlText(r.Door(), &ui.Curl{Method: "GET", Path: rest.Base + "/session"})))
}

func revokeToken(r *ui.Request) error {
	id := strings.TrimPrefix(r.PathValue("token"), rest.APITokenPrefix)
	if err := r.Sessions.RevokeToken(r.Context(), r.Actor(), id); err != nil {
		return err
	}
	return r.Go("/console/tokens", words.TokensRevoked)
}

// first gives the fault to the first box of a group alone.
func first(i int, fault string) string {
	if i > 0 {
		return ""
	}
	return fault
}

// tokensTab is the tab that is open.
func tokensTab(all bool) string {
	if all {
		return "all"
	}
	return "mine"
}
