package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The certificate databases of browsers on Linux (NSS). Chromium has one for the user,
// Firefox one in each profile. They are written with NSS's own tools: certutil and
// pk12util, and openssl, which makes the PKCS#12 file that pk12util reads.

const nssTime = 20 * time.Second

// nickname is what the certificate is called in the databases. The one of before, of the
// same name, goes.
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
		if err := intoDatabase(ctx, dir, file, nickname(leaf)); err != nil {
			problems = append(problems, fmt.Sprintf("the certificate was not put into %s: %v", dir, err))
			continue
		}
		done = append(done, dir)
	}
	return done, problems
}

// intoDatabase replaces the certificate of the name in one database.
func intoDatabase(ctx context.Context, dir, file, name string) error {
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
	// The one of before, with its key; that there is none is no fault.
	_ = tool(ctx, "certutil", "-F", "-d", "sql:"+dir, "-n", name, "-f", empty)
	return tool(ctx, "pk12util", "-i", p12, "-d", "sql:"+dir, "-w", pass, "-k", empty)
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
