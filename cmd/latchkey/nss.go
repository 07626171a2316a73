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
func nickname(c *x509.Certificate) string { return "Latchkey " + c.Subject.CommonName }

// databases are those that are there, and Chromium's, which is made.
func databases(home string) []string {
	out := []string{filepath.Join(home, ".pki", "nssdb")}
	for _, pattern := range []string{".mozilla/firefox/*/cert9.db", "snap/firefox/common/.mozilla/firefox/*/cert9.db", "snap/chromium/current/.pki/nssdb/cert9.db"} {
		found, _ := filepath.Glob(filepath.Join(home, pattern))
		for _, f := range found {
			out = append(out, filepath.Dir(f))
		}
	}
	return out
}

// intoBrowsers puts certificate and key of the file into the databases of the user's
// browsers. What does not work is told and is no error: the file is there.
func (a *app) intoBrowsers(ctx context.Context, file string, leaf *x509.Certificate) (done, problems []string) {
	done, problems = []string{}, []string{}
	if runtime.GOOS != "linux" {
		return done, append(problems, "the certificate was not put into a browser's store: that is done on Linux alone; import the file there")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return done, append(problems, "the certificate was not put into a browser's store: "+err.Error())
	}
	for _, tool := range []string{"certutil", "pk12util", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return done, append(problems, "the certificate was not put into the browsers' databases: "+tool+" is not installed (Debian: libnss3-tools and openssl)")
		}
	}
	for _, dir := range databases(home) {
		if err := intoDatabase(ctx, dir, file, leaf); err != nil {
			problems = append(problems, fmt.Sprintf("the certificate was not put into %s: %v", dir, err))
			continue
		}
		done = append(done, dir)
	}
	return done, problems
}

// keyLine is a line of certutil -K: number, kind, id of the key, name.
var keyLine = regexp.MustCompile(`(?m)^<\s*[0-9]+>\s+\S+\s+([0-9a-f]{2,128})\s+(\S.*?)\s*$`)

// keysOf are the ids of the keys in a database whose certificate has the name.
func keysOf(ctx context.Context, dir, name, pass string) (ids []string, err error) {
	out, err := exec.CommandContext(ctx, "certutil", "-K", "-d", "sql:"+dir, "-f", pass).CombinedOutput()
	for _, m := range keyLine.FindAllStringSubmatch(string(out), -1) {
		if called := m[2]; called == name || strings.HasSuffix(called, ":"+name) {
			ids = append(ids, m[1])
		}
	}
	if err != nil && ids == nil {
		return nil, fmt.Errorf("certutil: %w: %.200s", err, out)
	}
	return ids, nil
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
	have, err := keysOf(ctx, dir, name, empty)
	if err != nil {
		return err
	}
	if !slices.Contains(have, own) {
		return errors.New("it is not there after it was put in; the one of before was left")
	}
	for _, id := range have {
		if id == own {
			continue
		}
		// By its key, for all have one name.
		if err := tool(ctx, "certutil", "-F", "-d", "sql:"+dir, "-n", keyURI(id), "-f", empty); err != nil {
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
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		said := strings.TrimSpace(string(bytes.TrimSpace(out)))
		if i := strings.LastIndexByte(said, '\n'); i >= 0 {
			said = said[i+1:]
		}
		return fmt.Errorf("%s: %w: %.200s", name, err, said)
	}
	return nil
}
