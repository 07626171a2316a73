package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/secret"
	"latchkey/internal/statefile"
	"latchkey/internal/text"
)

// profile is what this command remembers between two runs: which servers are trusted
// how, and the sessions there. The file has mode 0600 in a folder of mode 0700, and one
// that others may read is refused.
type profile struct {
	Version int               `json:"version"`
	Current string            `json:"current,omitempty"` // the server that is meant where none is named
	Servers map[string]*known `json:"servers"`

	path string
}

// known is a server as this person knows it.
type known struct {
	CA      string    `json:"ca_sha256,omitempty"` // fingerprint of its CA; empty: the system's certificates judge
	Name    string    `json:"name,omitempty"`      // who has signed in there
	Session string    `json:"session,omitempty"`   // secret of the session
	Ends    time.Time `json:"ends,omitzero"`
	// Certificate is the file of the certificate and key that have opened the session: it
	// is good with them alone.
	Certificate string `json:"certificate,omitempty"`
}

const (
	profileVersion = 1
	maxProfile     = 1 << 20
	maxServers     = 100
)

// parseProfile reads a profile, and refuses what this program has not written.
func parseProfile(b []byte) (*profile, error) {
	p := &profile{}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(p); err != nil {
		return nil, errors.New("it is damaged")
	}
	if p.Version > profileVersion {
		return nil, errors.New("a newer version of this command has written it; update this one")
	}
	if p.Version != profileVersion || dec.More() || len(p.Servers) > maxServers {
		return nil, errors.New("it is damaged")
	}
	for at, k := range p.Servers {
		s, err := parseServer(at)
		if err != nil || s != at || k == nil {
			return nil, errors.New("it is damaged")
		}
		if k.CA != "" {
			if pin, err := parseFingerprint(k.CA); err != nil || hex.EncodeToString(pin) != k.CA {
				return nil, errors.New("it is damaged")
			}
		}
		if len(k.Session) > 256 || strings.ContainsFunc(k.Session, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, errors.New("it is damaged")
		}
	}
	if p.Servers == nil {
		p.Servers = map[string]*known{}
	}
	return p, nil
}

// errNoHome: nobody's folder, as of a service, holds no profile.
var errNoHome = errors.New("there is no place for what this command remembers")

// profilePath is where the profile lies.
func (a *app) profilePath() (string, error) {
	if a.profile != "" {
		return a.profile, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w: %w; name a file with --profile", errNoHome, err)
	}
	return filepath.Join(dir, "latchkey", "profile.json"), nil
}

// readProfile gives the profile; an empty one if there is none yet.
func (a *app) readProfile() (*profile, error) {
	path, err := a.profilePath()
	if err != nil {
		return nil, err
	}
	none := &profile{Version: profileVersion, Servers: map[string]*known{}, path: path}
	b, err := statefile.Read(path, maxProfile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return none, nil
	case err != nil:
		return nil, fmt.Errorf("the profile can not be used: %w", err)
	}
	p, err := parseProfile(b)
	if err != nil {
		return nil, fmt.Errorf("the profile %s can not be used: %w; or remove it and sign in again", path, err)
	}
	p.path = path
	return p, nil
}

func (p *profile) write() error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	defer clear(b)
	if err := os.MkdirAll(filepath.Dir(p.path), 0o700); err != nil {
		return fmt.Errorf("the profile can not be written: %w", err)
	}
	if err := statefile.Replace(p.path, append(b, '\n')); err != nil {
		return fmt.Errorf("the profile can not be written: %w", err)
	}
	return nil
}

// parseServer judges the address of a server and gives its one form.
func parseServer(s string) (string, error) {
	bad := fmt.Errorf("%q is not allowed; allowed is https://HOST:PORT", text.CleanN(s, 100))
	if len(s) > 300 {
		return "", bad
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", bad
	}
	port := u.Port()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0 || strconv.FormatUint(n, 10) != port) || port == "" && strings.HasSuffix(u.Host, ":") {
		return "", bad
	}
	host := strings.ToLower(u.Hostname())
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_:", r) {
			return "", bad
		}
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" && port != "443" {
		host += ":" + port
	}
	return "https://" + host, nil
}

// parseFingerprint reads a SHA-256 as people copy it: hexadecimal, with or without
// colons and blanks, with or without the name of the hash before it.
func parseFingerprint(s string) ([]byte, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	for _, head := range []string{"sha256:", "sha-256:", "sha-256", "sha256"} {
		if rest, ok := strings.CutPrefix(t, head); ok {
			t = rest
			break
		}
	}
	t = strings.NewReplacer(":", "", " ", "").Replace(t)
	b, err := hex.DecodeString(t)
	if err != nil || len(b) != 32 {
		return nil, errors.New("it is no SHA-256; allowed are 64 hexadecimal digits, as the server prints them at its start and `latchkey server status` on it")
	}
	return b, nil
}

// readTokenFile reads an API token from a file that belongs to nobody else.
func readTokenFile(path string) (secret.Bytes, error) {
	b, err := statefile.Read(path, 4096)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("--token-file: %w", err)
	}
	defer clear(b)
	line := strings.TrimSpace(string(b))
	if !validToken(line) {
		return secret.Bytes{}, fmt.Errorf("--token-file: %s holds no API token; allowed is one line, lk_ and 43 letters (latchkey token add)", path)
	}
	return secret.FromString(line), nil
}

func validToken(s string) bool {
	body, ok := strings.CutPrefix(s, "lk_")
	return ok && len(body) == 43 && strings.Trim(body, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}
