package oracle

import (
	"net/url"
	"testing"

	"latchkey/internal/server/source"
)

// No Oracle is run here: what is proven is what the driver is told.
func TestTheDriversAddress(t *testing.T) {
	for address, want := range map[string]struct{ ssl, verify string }{
		"oracle://u:p%20w%3A%40%2F%3F@db/ORCL":                  {"enable", "true"},
		"oracle://u:p%20w%3A%40%2F%3F@db:2484/ORCL?tls=encrypt": {"enable", "false"},
		"oracle://u:p%20w%3A%40%2F%3F@db/ORCL?tls=off":          {"", ""},
		"oracle://u:p%20w%3A%40%2F%3F@db/ORCL%3FTRACE%20FILE=x": {"enable", "true"},
	} {
		a, err := source.Parse(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		u, err := url.Parse(addressOf(a))
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		p, _ := u.User.Password()
		q := u.Query()
		if u.Hostname() != "db" || u.User.Username() != "u" || p != "p w:@/?" || q.Get("SSL") != want.ssl || q.Get("SSL VERIFY") != want.verify || q.Has("TRACE FILE") {
			t.Errorf("%s: %s", address, u.Redacted())
		}
	}
}
