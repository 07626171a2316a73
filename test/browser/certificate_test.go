//go:build e2e

package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"latchkey/internal/server/web/words"
)

// withPolicy starts Chromium in a mount namespace of its own, in which it finds a policy that answers its question for a
// certificate; nothing of this host is changed.
const withPolicy = `mount -t tmpfs tmpfs /etc/chromium && mkdir -p /etc/chromium/policies/managed && cp "$1" /etc/chromium/policies/managed/ && shift && exec "$@"`

// TestM4ACertificateSignsInWithoutAPassword: a certificate in the browser's database (NSS) opens the portal, and nothing
// once it is revoked.
func TestM4ACertificateSignsInWithoutAPassword(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	run := func(input, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(input)
		var complaint strings.Builder
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, &complaint)
		}
		return string(out)
	}
	root := func(input string, args ...string) string {
		t.Helper()
		return run(input, program(t, "latchkey"), append([]string{"--server", "unix:" + s.admin}, args...)...)
	}
	const password = "plum orchard ladder"
	root(password+"\n", "user", "add", "olga", "--role", "owner", "--password-stdin") // else the way in leads to the setup
	root(password+"\n", "user", "add", "alice", "--password-stdin")
	var totp struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(root("", "factor", "add", "totp", "alice", "--output", "json")), &totp); err != nil {
		t.Fatal(err)
	}
	root("", "certificate", "set", "--use", "portal")
	var at struct {
		CA string `json:"ca"`
	}
	raw, err := os.ReadFile(filepath.Join(dir, "serve.json"))
	if err == nil {
		err = json.Unmarshal(raw, &at)
	}
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	own := func(input string, args ...string) string {
		t.Helper()
		return run(input, program(t, "latchkey"), append([]string{"--server", s.base, "--ca-fingerprint", at.CA, "--profile", filepath.Join(home, "profile.json")}, args...)...)
	}
	code := strings.TrimSpace(run("", "oathtool", "--totp", "-b", totp.Key))
	own(password+"\n"+code+"\n", "login", "alice")
	file := filepath.Join(home, "certificate.pem")
	own("", "certificate", "request", "--file", file, "--name", "Chromium")

	nss := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(nss, 0o700); err != nil {
		t.Fatal(err)
	}
	p12, word := filepath.Join(home, "c.p12"), filepath.Join(home, "word")
	if err := os.WriteFile(word, []byte("a word for once\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("", "certutil", "-N", "-d", "sql:"+nss, "--empty-password")
	run("", "openssl", "pkcs12", "-export", "-in", file, "-inkey", file, "-name", "Latchkey alice", "-out", p12, "-passout", "file:"+word)
	run("", "pk12util", "-i", p12, "-d", "sql:"+nss, "-w", word, "-K", "")

	policy := filepath.Join(home, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"AutoSelectCertificateForUrls":["{\"pattern\":\"*\",\"filter\":{}}"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	b := Start(t, chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", withPolicy, "sh", policy, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/usr/bin/unshare"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + home, "XDG_CONFIG_HOME=" + home, "XDG_CACHE_HOME=" + home}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	}))
	p := b.Open(t, s.base)
	p.Visit("/signin", 200)
	p.See(fmt.Sprintf(words.CertSignInAs, "alice"))
	p.Click(words.CertSignIn)
	p.At("/me")
	p.Visit("/me/certificates", 200)
	p.See("Chromium")
	p.Visit("/me/sessions", 200)

	var list []struct{ Serial string }
	if err := json.Unmarshal([]byte(root("", "certificate", "list", "--user", "alice", "--output", "json")), &list); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	root("", "certificate", "revoke", list[0].Serial, "--user", "alice")
	p.Visit("/me", 200)
	p.At("/signin")
}
