package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The certificate databases of browsers on Linux (NSS). Chromium has one for the user,
// Firefox one in each profile. They are written with NSS's own tools: certutil and
// pk12util, and openssl, which makes the PKCS#12 file that pk12util reads.

const nssTime = 20 * time.Second

// nickname is what the certificate is called in the databases. The one of before has the
// same name, and goes when the new one is in.
func nickname(c *x509.Certificate) string { return nicknames + c.Subject.CommonName }

// nicknames is how all of them begin.
const nicknames = "Latchkey "

// database is a browser's. State says what was done to it, or what is in it.
type database struct {
	Path    string `json:"path"`
	Browser string `json:"browser"`           // for people: Firefox, Chromium …
	Profile string `json:"profile,omitempty"` // the folder of a Firefox profile
	State   string `json:"state"`
}

// The states of a database.
const (
	nssWritten = "written" // the certificate was put in
	nssMade    = "made"    // and the database was made for it
	nssRemoved = "removed" // the certificate was taken out
	nssNone    = "none"    // it holds none of ours
	nssThere   = "there"   // it holds the certificate
	nssOther   = "other"   // it holds one of ours, and not this one
	nssFailed  = "failed"  // it was not done; the problems say why
	nssUnknown = "unknown" // it could not be looked into
)

// name is what people call it.
func (d database) name() string {
	if d.Profile != "" {
		return d.Browser + ", profile " + d.Profile
	}
	return d.Browser
}

// Browsers have databases in one of these places, of which the first is Chromium's own
// and of all browsers that are built on it.
const (
	chromium = "Chromium, Chrome and others built on it"
	firefox  = "Firefox"
)

var nssPlaces = []struct{ browser, pattern string }{
	{chromium, ".local/share/pki/nssdb/cert9.db"},
	{"Chromium (snap)", "snap/chromium/current/.pki/nssdb/cert9.db"},
	{"Chromium or Chrome (flatpak)", ".var/app/*/.pki/nssdb/cert9.db"},
	{firefox, ".mozilla/firefox/*/cert9.db"},
	{firefox, ".config/mozilla/firefox/*/cert9.db"},
	{firefox + " (snap)", "snap/firefox/common/.mozilla/firefox/*/cert9.db"},
	{firefox + " (flatpak)", ".var/app/org.mozilla.firefox/.mozilla/firefox/*/cert9.db"},
}

// databases are Chromium's, which may have to be made yet, and those that are there.
func databases(home string) []database {
	out := []database{{Path: filepath.Join(home, ".pki", "nssdb"), Browser: chromium}}
	for _, p := range nssPlaces {
		found, _ := filepath.Glob(filepath.Join(home, p.pattern))
		for _, f := range found {
			d := database{Path: filepath.Dir(f), Browser: p.browser}
			if strings.HasPrefix(p.browser, firefox) {
				d.Profile = filepath.Base(d.Path)
			}
			out = append(out, d)
		}
	}
	return out
}

// exists tells whether the database is there.
func (d database) exists() bool {
	_, err := os.Stat(filepath.Join(d.Path, "cert9.db"))
	return err == nil
}

// missing says which of these tools are not there, and where they are had.
func missing(tools ...string) error {
	var none []string
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			none = append(none, t)
		}
	}
	if none == nil {
		return nil
	}
	be := "is"
	if len(none) > 1 {
		be = "are"
	}
	return fmt.Errorf("%s %s not installed", strings.Join(none, ", "), be)
}

// What to do next, a sentence each.
const (
	getTools = "these packages bring the tools: libnss3-tools and openssl (Debian, Ubuntu), nss-tools and openssl (Fedora, RHEL), mozilla-nss-tools and openssl (openSUSE), nss and openssl (Arch)"
	tryAgain = "then run latchkey certificate %s again"
	freeIt   = "close the browser, take away its database's password if it has one, and run latchkey certificate %s again"
)

// byHand is how a certificate's file gets into a browser without these tools.
func byHand(file string) string {
	return "to put it into a browser by hand: openssl pkcs12 -export -in " + shellWord(file) + " -out latchkey.p12; import latchkey.p12 in the browser's settings, under certificates, as your own; delete latchkey.p12"
}

// intoBrowsers puts certificate and key of the file into the databases of the user's
// browsers. What does not work is told, with what to do next, and is no error: the file
// is there.
func intoBrowsers(ctx context.Context, file string, leaf *x509.Certificate) (done []database, problems []string) {
	const nowhere = "the certificate was put into no browser: "
	if runtime.GOOS != "linux" {
		return nil, []string{nowhere + "this command does that on Linux alone", byHand(file)}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, []string{nowhere + err.Error(), "set HOME; " + fmt.Sprintf(tryAgain, "install"), byHand(file)}
	}
	if err := missing("certutil", "pk12util", "openssl"); err != nil {
		return nil, []string{nowhere + err.Error(), getTools + "; " + fmt.Sprintf(tryAgain, "install"), byHand(file)}
	}
	for _, d := range databases(home) {
		d.State = nssWritten
		if !d.exists() {
			d.State = nssMade
		}
		if err := intoDatabase(ctx, d.Path, file, leaf); err != nil {
			d.State = nssFailed
			problems = append(problems, fmt.Sprintf("the certificate was not put into %s (%s): %v", d.name(), d.Path, err))
		}
		done = append(done, d)
	}
	if problems != nil {
		problems = append(problems, fmt.Sprintf(freeIt, "install"), byHand(file))
	}
	return done, problems
}

// errLocked says that a database has a password, which nobody here knows.
var errLocked = errors.New("it has a password (in Firefox: a primary password)")

// outOfBrowsers takes certificates of ours out of the databases that are there. Others and
// their keys stay.
func outOfBrowsers(ctx context.Context, which func(nssKey) bool) (done []database, problems []string) {
	eachDatabase(func(d database) {
		ctx, cancel := context.WithTimeout(ctx, nssTime)
		defer cancel()
		d.State = nssNone
		keys, err := keysIn(ctx, d.Path)
		for _, k := range keys {
			if !which(k) {
				continue
			}
			if err = removeKey(ctx, d.Path, k.id); err != nil {
				break
			}
			d.State = nssRemoved
		}
		if err != nil {
			d.State = nssFailed
			problems = append(problems, fmt.Sprintf("the certificate may still be in %s (%s): %v", d.name(), d.Path, err))
		}
		done = append(done, d)
	}, &problems)
	if slices.ContainsFunc(done, func(d database) bool { return d.State == nssFailed }) {
		problems = append(problems, fmt.Sprintf(freeIt, "uninstall"), "to take it out by hand: delete it in the browser's settings, under certificates, among your own")
	}
	return done, problems
}

// inBrowsers looks which databases hold the certificate.
func inBrowsers(ctx context.Context, leaf *x509.Certificate) (found []database, problems []string) {
	own, err := keyID(leaf)
	if err != nil {
		return nil, nil // of a key that install does not make
	}
	name := nickname(leaf)
	eachDatabase(func(d database) {
		ctx, cancel := context.WithTimeout(ctx, nssTime)
		defer cancel()
		d.State = nssNone
		keys, err := keysIn(ctx, d.Path)
		if err != nil {
			d.State = nssUnknown
			problems = append(problems, fmt.Sprintf("whether it is in %s (%s) can not be seen: %v", d.name(), d.Path, err))
		}
		for _, k := range keys {
			switch {
			case k.id == own:
				d.State = nssThere
			case k.called(name) && d.State == nssNone:
				d.State = nssOther
			}
		}
		found = append(found, d)
	}, &problems)
	return found, problems
}

// eachDatabase calls do for the databases that are there, where they can be looked into.
func eachDatabase(do func(database), problems *[]string) {
	if runtime.GOOS != "linux" {
		return
	}
	home, err := os.UserHomeDir()
	if err != nil {
		*problems = append(*problems, fmt.Sprintf("the browsers' databases were not looked into: %v", err), "set HOME and try again")
		return
	}
	var there []database
	for _, d := range databases(home) {
		if d.exists() {
			there = append(there, d)
		}
	}
	if there == nil {
		return
	}
	if err := missing("certutil"); err != nil {
		*problems = append(*problems, fmt.Sprintf("the browsers' databases were not looked into: %v", err), getTools+"; then try again")
		return
	}
	for _, d := range there {
		do(d)
	}
}

// keyLine is a line of certutil -K: number, kind, id of the key, name.
var keyLine = regexp.MustCompile(`(?m)^<\s*[0-9]+>\s+\S+\s+([0-9a-f]{2,128})\s+(\S.*?)\s*$`)

// nssKey is a key in a database, and what its certificate is called.
type nssKey struct{ id, name string }

// called tells whether that is the name; the token's may stand in front.
func (k nssKey) called(name string) bool {
	return k.name == name || strings.HasSuffix(k.name, ":"+name)
}

// ours tells whether this program may have put it in, for whomever.
func (k nssKey) ours() bool {
	return strings.HasPrefix(k.name, nicknames) || strings.Contains(k.name, ":"+nicknames)
}

// keysIn are the keys of a database.
func keysIn(ctx context.Context, dir string) (keys []nssKey, err error) {
	empty, err := emptyPassword()
	if err != nil {
		return nil, err
	}
	defer os.Remove(empty)
	return keysWith(ctx, dir, empty)
}

func keysWith(ctx context.Context, dir, pass string) (keys []nssKey, err error) {
	out, err := exec.CommandContext(ctx, "certutil", "-K", "-d", "sql:"+dir, "-f", pass).CombinedOutput()
	for _, m := range keyLine.FindAllStringSubmatch(string(out), -1) {
		keys = append(keys, nssKey{m[1], m[2]})
	}
	if err != nil && keys == nil && !bytes.Contains(out, []byte("no keys found")) {
		return nil, toolError("certutil", err, out)
	}
	return keys, nil
}

// removeKey takes a certificate and its key out. By its key, for all have one name.
func removeKey(ctx context.Context, dir, id string) error {
	empty, err := emptyPassword()
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	return tool(ctx, "certutil", "-F", "-d", "sql:"+dir, "-n", keyURI(id), "-f", empty)
}

// emptyPassword is a file with the password of a database that has none, so that no tool
// asks for it.
func emptyPassword() (string, error) {
	f, err := os.CreateTemp("", "latchkey-") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.WriteString("\n")
	return f.Name(), errors.Join(err, f.Close())
}

// keyID is what NSS calls a key by: the SHA-1 of the public point. It names and protects
// nothing.
func keyID(c *x509.Certificate) (string, error) {
	pub, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return "", errors.New("the key is not one of elliptic curves")
	}
	point, err := pub.Bytes()
	if err != nil {
		return "", err
	}
	id := sha1.Sum(point)
	return hex.EncodeToString(id[:]), nil
}

// intoDatabase replaces the certificate of the name in one database: the new one goes in,
// and when it is there, what was there before goes out. At no moment is there none.
func intoDatabase(ctx context.Context, dir, file string, leaf *x509.Certificate) error {
	name := nickname(leaf)
	own, err := keyID(leaf)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nssTime)
	defer cancel()
	work, err := os.MkdirTemp("", "latchkey-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var b [24]byte
	_, _ = rand.Read(b[:])
	pass, p12, empty := filepath.Join(work, "pass"), filepath.Join(work, "c.p12"), filepath.Join(work, "empty")
	if err := os.WriteFile(pass, []byte(hex.EncodeToString(b[:])+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "cert9.db")); err != nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := tool(ctx, "certutil", "-N", "-d", "sql:"+dir, "--empty-password"); err != nil {
			return err
		}
	}
	if err := tool(ctx, "openssl", "pkcs12", "-export", "-in", file, "-inkey", file, "-name", name, "-out", p12, "-passout", "file:"+pass); err != nil {
		return err
	}
	if err := tool(ctx, "pk12util", "-i", p12, "-d", "sql:"+dir, "-w", pass, "-k", empty); err != nil {
		return err
	}
	have, err := keysWith(ctx, dir, empty)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(have, func(k nssKey) bool { return k.id == own && k.called(name) }) {
		return errors.New("it is not there after it was put in; the one of before was left")
	}
	for _, k := range have {
		if k.id == own || !k.called(name) {
			continue
		}
		if err := removeKey(ctx, dir, k.id); err != nil {
			return fmt.Errorf("the new one is there, and the one of before could not be taken out: %w", err)
		}
	}
	return nil
}

// keyURI names a certificate by the id of its key (RFC 7512).
func keyURI(id string) string {
	var b strings.Builder
	b.WriteString("pkcs11:id=")
	for i := 0; i+1 < len(id); i += 2 {
		b.WriteString("%" + id[i:i+2])
	}
	return b.String()
}

// tool runs a tool that asks nothing.
func tool(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return toolError(name, err, out)
	}
	return nil
}

// toolError is what a tool said, in its last words.
func toolError(name string, err error, out []byte) error {
	if bytes.Contains(out, []byte("SEC_ERROR_BAD_PASSWORD")) {
		return errLocked
	}
	said := strings.TrimSpace(string(out))
	if i := strings.LastIndexByte(said, '\n'); i >= 0 {
		said = said[i+1:]
	}
	return fmt.Errorf("%s: %w: %.200s", name, err, strings.TrimRight(said, "."))
}
