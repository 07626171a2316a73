package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/session"
	"latchkey/test/fill"
)

func remember(file string) (fill.Named, error) {
	var in struct {
		fill.Named
		Key []byte
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &in)
	}
	if err != nil {
		return fill.Named{}, fmt.Errorf("the folder is not one of a run that ended well: %w", err)
	}
	in.Named.Key = secret.New(in.Key)
	return in.Named, nil
}

// lists are the lists of the API with filters that are usual, and some that are nasty.
func lists(n fill.Named) []string {
	q := func(kv ...string) string {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Add(kv[i], kv[i+1])
		}
		return "?" + v.Encode()
	}
	month := func(ago int) string { return time.Now().AddDate(0, -ago, 0).UTC().Format(time.RFC3339) }
	return []string{
		"/status", "/settings", "/users", "/users" + q("limit", "500"), "/users" + q("prefix", n.Usual[:3]), "/users" + q("prefix", "zz"), "/users/" + n.Usual,
		"/users/" + n.Usual + "/factors", "/groups", "/groups/" + n.Group, "/groups/" + n.Group + "/members", "/locks", "/policies", "/policies/" + n.Policy,
		"/policies/" + n.Policy + "/versions", "/machines", "/machines" + q("status", "lost"), "/machines" + q("status", "pending"), "/machines/" + n.Machine, "/machine-tokens",
		"/offline", "/offline" + q("limit", "500"), "/offline" + q("user", n.Usual), "/offline" + q("machine", n.Machine), "/offline/stuck",
		"/windows", "/windows" + q("user", n.Usual), "/windows" + q("machine", n.Machine),
		"/users/" + n.Usual + "/certificates", "/machines/" + n.Machine + "/certificates", "/settings/certificates", "/settings/mail", "/settings/sms",
		"/messages", "/messages" + q("limit", "500"), "/messages" + q("channel", "sms", "state", "waiting"), "/messages" + q("channel", "mail", "state", "failed"), "/messages" + q("state", "sent"),
		"/messages" + q("state", "waiting"), "/reports", "/imports", "/dashboard", "/users/" + n.Usual + "/policy",
		"/events", "/events" + q("limit", "500"), "/events" + q("type", "signin."), "/events" + q("type", "signin.denied"), "/events" + q("type", n.Rare), "/events" + q("type", "server.backup"),
		"/events" + q("user", n.Usual), "/events" + q("user", n.Busy), "/events" + q("user", n.Quiet), "/events" + q("user", n.Quiet, "type", "signin."),
		"/events" + q("user", n.Usual, "type", n.Rare), "/events" + q("user", n.Busy, "type", "user.changed"), "/events" + q("machine", n.Machine), "/events" + q("machine", n.QuietMachine),
		"/events" + q("outcome", "deny"), "/events" + q("outcome", "nothing"), "/events" + q("outcome", "added"), "/events" + q("user", n.Busy, "outcome", "added"),
		"/events" + q("until", month(12)), "/events" + q("since", month(13), "until", month(12)), "/events" + q("type", "signin.", "until", month(10)),
		"/events" + q("outcome", "nothing", "since", month(12)), "/events" + q("until", month(24)),
	}
}

// searches are pages of the console with filters that are asked for: usual ones and nasty ones.
func searches(n fill.Named) []string {
	out := []string{"/console/search?q=" + url.QueryEscape(n.Usual[:4]), "/console/users?q=" + url.QueryEscape(n.Usual[:4]), "/console/users?q=zz"}
	for _, p := range lists(n) {
		path, query, ok := strings.Cut(p, "?")
		if ok && (path == "/events" || path == "/users" || path == "/machines" || path == "/offline" || path == "/windows") {
			out = append(out, "/console"+p[:len(path)]+"?"+query)
		}
	}
	return out
}

// pages measures everything.
func (w *world) pages(ctx context.Context, o options, named fill.Named, cookie string, stderr io.Writer) (out []timed, err error) {
	admin := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.admin)
	}}}
	one := func(name string, c *http.Client, address string) error {
		if o.only != nil && !o.only.MatchString(name) {
			return nil
		}
		t, err := repeat(ctx, c, address, cookie, o.rounds)
		if err != nil {
			return err
		}
		t.name = name
		fmt.Fprintf(stderr, "%-70s %s %d\n", t.name, t, t.size)
		out = append(out, t)
		return nil
	}
	for _, path := range lists(named) {
		if err := one("API "+path, admin, "http://latchkey"+rest.Base+path); err != nil {
			return nil, err
		}
	}
	found, missing := fill.Pages(named)
	if len(missing) > 0 {
		return nil, fmt.Errorf("it is not known what stands in the paths of %s", missing)
	}
	var paths []string
	for _, p := range found {
		if !p.Anyone {
			paths = append(paths, p.Path)
		}
	}
	for i, path := range append(paths, searches(named)...) {
		// Each from an address of its own: one browser may not ask for as much.
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%250))}
		c := &http.Client{Timeout: 2 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{
			DialContext: (&net.Dialer{LocalAddr: from}).DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // its own server, on loopback
		}}
		err := one(path, c, "https://"+w.people+path)
		c.CloseIdleConnections()
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// repeat makes the same request many times, but for slow ones, of which a few are enough to know.
func repeat(ctx context.Context, c *http.Client, address, cookie string, rounds int) (t timed, err error) {
	all := time.Duration(0)
	for i := range rounds + 1 {
		begun := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return t, err
		}
		req.AddCookie(&http.Cookie{Name: session.Cookie, Value: cookie})
		res, err := c.Do(req)
		if err != nil {
			return t, err
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		took := time.Since(begun)
		if err != nil {
			return t, err
		}
		if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusSeeOther { // a page may lead to a better one
			return t, fmt.Errorf("%s: %s: %.300s", address, res.Status, b)
		}
		t.size = len(b)
		if i > 0 || took > 5*time.Second { // the first one opens the connection
			t.times = append(t.times, took)
		}
		if all += took; all > 5*time.Second && len(t.times) > 0 {
			break
		}
	}
	return t, nil
}
