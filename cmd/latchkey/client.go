package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"latchkey/internal/buildinfo"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/text"
)

const (
	defaultServer = "unix:/run/latchkey/admin.sock"
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 20
	// answerTime bounds how long an answer may take, verifyTime how long the proof of
	// a long event chain may.
	answerTime = 30 * time.Second
	verifyTime = 10 * time.Minute
)

// client speaks to the API.
type client struct {
	app  *app
	base string // https://HOST:PORT, or what stands in for it on the socket
	name string // of the server, for people
	path string // of the socket; empty over the network
	http *http.Client

	bearer  secret.Bytes         // proves who asks; empty on the socket
	renewed func(s string) error // keeps another secret of the session; nil without one
}

// client opens what --server names.
func (a *app) client() (*client, error) {
	server := a.server
	if server == "" {
		server = defaultServer
		// Whoever has signed in somewhere means that server. Where that can not be known
		// nothing is done: it could be done at another one. Only a service without a home
		// has never signed in.
		switch p, err := a.readProfile(); {
		case err == nil && p.Current != "":
			server = p.Current
		case err != nil && !errors.Is(err, errNoHome):
			return nil, fmt.Errorf("%w; or say which server is meant with --server (of this machine: --server %s)", err, defaultServer)
		}
	}
	path, ok := strings.CutPrefix(server, "unix:")
	switch {
	case strings.HasPrefix(server, "https://"):
		return a.signedIn(server)
	case strings.HasPrefix(server, "http://"):
		return nil, usagef("--server: plain http is never spoken; allowed are https://HOST:PORT and unix:PATH (default %s)", defaultServer)
	case !ok || path == "":
		return nil, usagef("--server: %q is not allowed; allowed are https://HOST:PORT and unix:PATH (default %s)", text.CleanN(server, 100), defaultServer)
	case a.tokenFile != "":
		return nil, usagef("--token-file goes with --server https://HOST:PORT; whoever opens the admin socket needs no token")
	case len(path) > 100:
		return nil, usagef("--server: the path has %d octets; a socket's path has at most 100", len(path))
	}
	var d net.Dialer
	return &client{app: a, base: "http://latchkey", name: path, path: path, http: &http.Client{
		Timeout: answerTime,
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
			DisableKeepAlives: false,
		},
		CheckRedirect: noRedirect,
	}}, nil
}

// explainDial says why the server can not be reached, and what to do.
func (c *client) explainDial(err error) error {
	if c.path == "" {
		return c.explainDialNetwork(err)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no socket %s: latchkeyd does not run on this machine, or keeps it elsewhere; start it, or name the socket with --server unix:PATH", c.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("you may not open %s: only root may; try again with sudo", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s: latchkeyd does not run; start it", c.path)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the server at %s does not answer in time: is it stopped, or busy? look into its log", c.path)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	return fmt.Errorf("the server at %s does not answer: %w", c.path, err)
}

// request makes one request; path holds escaped parts.
func (c *client) request(ctx context.Context, method, path string, query url.Values, body any, header http.Header) (*http.Response, error) {
	u := c.base + rest.Base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return nil, err
		}
		defer clear(sent)
	}
	for tries := 0; ; tries++ {
		var r io.Reader
		if body != nil {
			r = bytes.NewReader(sent)
		}
		req, err := http.NewRequestWithContext(ctx, method, u, r)
		if err != nil {
			return nil, err
		}
		if header != nil {
			req.Header = header.Clone()
		}
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		req.Header.Set("User-Agent", "latchkey/"+buildinfo.Version())
		if !c.bearer.Empty() {
			req.Header.Set("Authorization", "Bearer "+string(c.bearer.Reveal()))
		}
		if c.app != nil && c.app.approval != "" && method != http.MethodGet {
			req.Header.Set("Latchkey-Approval", c.app.approval)
		}
		res, err := c.http.Do(req)
		if err != nil {
			return nil, c.explainDial(err)
		}
		if res.StatusCode >= 200 && res.StatusCode <= 299 {
			return res, nil
		}
		problem := problemOf(res)
		_ = res.Body.Close()
		if !c.again(ctx, res, problem, tries) {
			return nil, c.hint(problem)
		}
	}
}

// hint adds what to do at this command where the server can not know it.
func (c *client) hint(err error) error {
	var p *rest.Problem
	if c.path != "" || !errors.As(err, &p) {
		return err
	}
	switch p.Code {
	case fault.StepUp:
		p.Detail += " At a terminal this command asks for it; else sign in again (latchkey login)."
	case fault.Unauthorized:
		if c.renewed != nil {
			p.Detail = "Your session at " + c.name + " has ended. Sign in again: latchkey login --server " + c.name
		}
	}
	return err
}

// problemOf reads the problem of an answer that is not 2xx.
func problemOf(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("the server's answer breaks off: %w", err)
	}
	var p rest.Problem
	if err := json.Unmarshal(b, &p); err != nil || p.Detail == "" && len(p.Fields) == 0 {
		return fmt.Errorf("the server answers %s and says no more; look into its log", res.Status)
	}
	return &p
}

// call makes a request and reads the answer into out, unless that is nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	return c.callIf(ctx, method, path, 0, query, body, out)
}

// callIf is call for a change of what was seen with the revision (0 = any).
func (c *client) callIf(ctx context.Context, method, path string, rev int64, query url.Values, body, out any) error {
	h := http.Header{}
	if rev != 0 {
		h.Set("If-Match", `"`+strconv.FormatInt(rev, 10)+`"`)
	}
	res, err := c.request(ctx, method, path, query, body, h)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the server's answer breaks off: %w", err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer is not understood; is it of another version than this command? %w", err)
	}
	return nil
}

// list reads pages until most items are there (0 = all).
func list[T any](ctx context.Context, c *client, path string, query url.Values, most int) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	out := []T{}
	for {
		n := rest.MaxPage
		if most > 0 {
			n = min(n, most-len(out))
		}
		query.Set("limit", strconv.Itoa(n))
		var page rest.Page[T]
		if err := c.call(ctx, http.MethodGet, path, query, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		if page.Next == "" || most > 0 && len(out) >= most {
			return out, nil
		}
		query.Set("after", page.Next)
	}
}

// at joins parts of a path, each escaped.
func at(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}
