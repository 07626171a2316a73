// Package settings holds what administrators set for the server as a whole while
// it runs: the text that tells people whom to call, and the address under which
// machines reach the server, and the one under which people do. Values lie in the table settings, one row each, so
// that all replicas see the same; what was never set is empty and the program's
// own configuration counts.
package settings

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"latchkey/internal/server/outward"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The names of the rows.
const (
	contact   = "desk.contact"
	serverURL = "desk.server_url"
	minAgent  = "desk.min_agent_version"
	peopleURL = "desk.people_url"

	attestation = "passkey.attestation"
	aaguids     = "passkey.models"

	outwardProxy = "outward.proxy"
	pushNetworks = "push.networks"
)

// Settings are the values; an empty one was not set.
type Settings struct {
	Contact   string // whom people call; goes into every machine's policy file
	ServerURL string // https://HOST:PORT of the machines' listener; goes into join tokens
	MinAgent  string // the oldest version of the agent that is not called outdated (P3)
	PeopleURL string // https://HOST[:PORT] of the people's listener, as browsers and phones reach it

	Attestation string // of passkeys: none (or empty) or direct; see ParseRule
	Models      string // AAGUIDs between commas

	OutwardProxy string // http://HOST:PORT through which notices and text messages go
	PushNetworks string // networks between commas in which a push service may stand
}

// rows are the values by the names of their rows.
func (s *Settings) rows() map[string]*string {
	return map[string]*string{
		contact: &s.Contact, serverURL: &s.ServerURL, minAgent: &s.MinAgent, peopleURL: &s.PeopleURL, attestation: &s.Attestation, aaguids: &s.Models,
		outwardProxy: &s.OutwardProxy, pushNetworks: &s.PushNetworks,
	}
}

// Read gives the present values.
func Read(ctx context.Context, q *db.Queries) (Settings, error) {
	var s Settings
	for name, to := range s.rows() {
		v, err := q.GetSetting(ctx, name)
		switch {
		case err == nil:
			*to = string(v)
		case !store.IsNotFound(err):
			return s, fmt.Errorf("read the setting %s: %w", name, err)
		}
	}
	return s, nil
}

// People is the address under which people reach the server: https://HOST[:PORT]. It is
// what was set, or else what the program knows of itself; own may be nil. Passkeys are
// bound to its host, and what is sent to people (a mail, a QR code, a request to a
// phone) leads there.
func People(ctx context.Context, q *db.Queries, own func() string) (string, error) {
	v, err := q.GetSetting(ctx, peopleURL)
	switch {
	case err == nil && len(v) > 0:
		return string(v), nil
	case err != nil && !store.IsNotFound(err):
		return "", fmt.Errorf("read the setting %s: %w", peopleURL, err)
	case own == nil:
		return "", nil
	}
	return own(), nil
}

// CheckPeopleURL says what is wrong with an address for people.
func CheckPeopleURL(s string) error {
	const allowed = "allowed is https://HOST or https://HOST:PORT, for example https://latchkey.example.org"
	if len(s) > 256 {
		return fmt.Errorf("it has %d octets; %s", len(s), allowed)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("it holds the character U+%04X; %s", r, allowed)
		}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("it is no URL; %s", allowed)
	case u.Scheme != "https":
		return fmt.Errorf("it does not begin with https://; %s", allowed)
	case u.Hostname() == "":
		return fmt.Errorf("it names no host; %s", allowed)
	case s != "https://"+u.Host:
		return fmt.Errorf("it says more than host and port; %s", allowed)
	case u.Host != strings.ToLower(u.Host):
		return fmt.Errorf("it has capital letters, which browsers do not send; %s", allowed)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("its port is none; %s", allowed)
		}
		if port == "443" {
			return fmt.Errorf("browsers leave the port 443 out; %s", allowed)
		}
	}
	return nil
}

// Rule says which passkeys may be registered.
type Rule struct {
	Direct bool     // they must say which model they are (attestation)
	Models []string // AAGUIDs of the models that may; none: any
}

// The words of the setting.
const (
	AttestationNone   = "none"
	attestationDirect = "direct"
)

// maxModels bounds the list of models.
const maxModels = 200

// Passkeys gives the rule. A row that can not be read is an error, never a weaker rule.
func Passkeys(ctx context.Context, q *db.Queries) (Rule, error) {
	var words [2]string
	for i, name := range []string{attestation, aaguids} {
		v, err := q.GetSetting(ctx, name)
		if err != nil && !store.IsNotFound(err) {
			return Rule{}, fmt.Errorf("read the setting %s: %w", name, err)
		}
		words[i] = string(v)
	}
	return ParseRule(words[0], words[1])
}

// ParseRule reads the two settings: none (or nothing) or direct, and AAGUIDs between
// commas or blanks.
func ParseRule(word, list string) (Rule, error) {
	var r Rule
	switch word {
	case "", AttestationNone:
	case attestationDirect:
		r.Direct = true
	default:
		return r, fmt.Errorf("%.40q is not allowed; allowed are none and direct", word)
	}
	for _, f := range strings.FieldsFunc(strings.ToLower(list), func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t' }) {
		u, err := uuid.Parse(f)
		if err != nil || len(f) != 36 {
			return Rule{}, fmt.Errorf("%.40q is no AAGUID; allowed are such as cb69481e-8ff7-4039-93ec-0a2729a154a8", f)
		}
		if r.Models = append(r.Models, u.String()); len(r.Models) > maxModels {
			return Rule{}, fmt.Errorf("it names more than %d models", maxModels)
		}
	}
	return r, nil
}

// Outward is how requests leave that go to addresses others have chosen.
type Outward struct {
	Proxy *url.URL       // of notices to phones and text messages; nil: straight
	Push  []netip.Prefix // in which a push service may stand, beside the Internet
}

// Words are both as they stand in settings.
func (o Outward) Words() (proxy, push string) {
	if o.Proxy != nil {
		proxy = o.Proxy.String()
	}
	list := make([]string, len(o.Push))
	for i, n := range o.Push {
		list[i] = n.String()
	}
	return proxy, strings.Join(list, ", ")
}

// ReadOutward gives what was set, and of start what was not. A row that can not be read is
// an error, never a wider rule.
func ReadOutward(ctx context.Context, q *db.Queries, start Outward) (Outward, error) {
	for _, name := range []string{outwardProxy, pushNetworks} {
		v, err := q.GetSetting(ctx, name)
		if store.IsNotFound(err) || err == nil && len(v) == 0 {
			continue
		}
		if err == nil && name == outwardProxy {
			start.Proxy, err = outward.Proxy(string(v))
		} else if err == nil {
			start.Push, err = ParseNetworks(string(v))
		}
		if err != nil {
			return Outward{}, fmt.Errorf("read the setting %s: %w", name, err)
		}
	}
	return start, nil
}

// CheckProxy says what is wrong with the address of a proxy that somebody types: it names
// its port, so that nobody wonders later which one is meant, and no name and password,
// which would stand in the settings for everybody who may read them.
func CheckProxy(s string) error {
	const allowed = "allowed is http://HOST:PORT or https://HOST:PORT, for example http://proxy.example.org:3128"
	if u, err := url.Parse(s); err == nil && u.User != nil {
		return fmt.Errorf("names and passwords are not allowed in it: let the proxy know this server by its address; %s", allowed)
	}
	u, err := outward.Proxy(s)
	if err != nil {
		return err
	}
	if u.Port() == "" {
		return fmt.Errorf("it names no port; %s", allowed)
	}
	return nil
}

// CheckNetworks says what is wrong with networks that somebody types for notices to phones.
func CheckNetworks(list string) error {
	ps, err := ParseNetworks(list)
	if err != nil {
		return err
	}
	for _, p := range ps {
		if p.Bits() < 8 {
			return fmt.Errorf("%s is far more than the network of a push service; allowed are such as 10.1.2.3/32", p)
		}
	}
	for _, s := range strings.FieldsFunc(list, between) {
		if p, err := netip.ParsePrefix(s); err == nil && p != p.Masked() {
			return fmt.Errorf("%s is an address within %s: say which is meant, %s or %s", p.Addr(), p.Masked(), p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		}
	}
	return nil
}

func between(c rune) bool {
	return c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t'
}

// ParseNetworks reads networks between commas or blanks.
func ParseNetworks(list string) ([]netip.Prefix, error) {
	return outward.Networks(strings.FieldsFunc(list, between))
}

// Write replaces the values. The caller judges them and writes the event.
func Write(ctx context.Context, tx *store.Tx, s Settings, at int64) error {
	for name, v := range s.rows() {
		var err error
		if *v == "" {
			_, err = tx.DeleteSetting(ctx, name)
		} else {
			err = tx.PutSetting(ctx, db.PutSettingParams{Key: name, Value: []byte(*v), UpdatedAt: at})
		}
		if err != nil {
			return fmt.Errorf("write the setting %s: %w", name, err)
		}
	}
	return nil
}
