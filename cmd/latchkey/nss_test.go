package main

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ownCert writes a certificate of a key's own into a file as install does.
func ownCert(t *testing.T, path string, serial int64) *x509.Certificate {
	t.Helper()
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "alice"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeCert(path, key, der); err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestM4ACertificateInTheBrowsersDatabases uses NSS's own tools, and reads with them what
// came of it.
func TestM4ACertificateInTheBrowsersDatabases(t *testing.T) {
	if _, err := exec.LookPath("certutil"); err != nil {
		t.Fatal("certutil is not installed: it is what the certificate is put into browsers with (apt-get install libnss3-tools)")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	firefox := filepath.Join(home, ".mozilla", "firefox", "abc.default")
	if err := os.MkdirAll(firefox, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("certutil", "-N", "-d", "sql:"+firefox, "--empty-password").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	file := filepath.Join(home, "keys", "certificate.pem")
	for serial := int64(4711); serial < 4714; serial++ { // renewed twice
		leaf := ownCert(t, file, serial)
		done, problems := intoBrowsers(t.Context(), file, leaf)
		if len(done) != 2 || len(problems) != 0 {
			t.Fatalf("%v %v", done, problems)
		}
		for _, dir := range []string{firefox, filepath.Join(home, ".pki", "nssdb")} {
			out, err := exec.Command("certutil", "-L", "-d", "sql:"+dir, "-n", "Latchkey alice", "-a").CombinedOutput()
			if err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if strings.Count(string(out), "BEGIN CERTIFICATE") != 1 {
				t.Errorf("%s: the one of before is still there:\n%s", dir, out)
			}
			if b, _ := pem.Decode(out); b == nil || !strings.EqualFold(string(b.Bytes), string(leaf.Raw)) && string(b.Bytes) != string(leaf.Raw) {
				t.Errorf("%s holds another certificate", dir)
			}
			keys, err := exec.Command("certutil", "-K", "-d", "sql:"+dir).CombinedOutput()
			if err != nil || strings.Count(string(keys), "Latchkey alice") != 1 {
				t.Errorf("%s: %v\n%s", dir, err, keys)
			}
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c, leaf, err := readCert(file)
	if err != nil || leaf.SerialNumber.Int64() != 4713 || c.PrivateKey == nil {
		t.Errorf("%v, %v", leaf, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readCert(file); err == nil {
		t.Error("a key that others may read is used")
	}
}
