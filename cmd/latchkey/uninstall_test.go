//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// profile makes the database of another Firefox profile; a password locks it.
func (r *certRig) profile(name, password string) string {
	r.Helper()
	dir := filepath.Join(r.home, ".mozilla", "firefox", name)
	r.must(os.MkdirAll(dir, 0o700))
	if password == "" {
		r.nss("certutil", "-N", "-d", "sql:"+dir, "--empty-password")
		return dir
	}
	pass := filepath.Join(r.home, "pass-"+name)
	r.must(os.WriteFile(pass, []byte(password+"\n"), 0o600))
	r.nss("certutil", "-N", "-d", "sql:"+dir, "-f", pass)
	return dir
}

// says checks what a command said against lines that must and must not be there.
func says(t *testing.T, what, said string, want ...string) {
	t.Helper()
	for _, w := range want {
		not := strings.HasPrefix(w, "!")
		if regexp.MustCompile(`(?m)`+strings.TrimPrefix(w, "!")).MatchString(said) == not {
			t.Errorf("%s: %q is%s there:\n%s", what, w, map[bool]string{true: "", false: " not"}[not], said)
		}
	}
}

// pathWith is a PATH with these programs alone.
func pathWith(t *testing.T, tools ...string) string {
	t.Helper()
	bin := t.TempDir()
	for _, n := range tools {
		p, err := exec.LookPath(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(p, filepath.Join(bin, n)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// TestM4InstallSaysWhereTheCertificateIs: the file, each database and what was done to it,
// what was not done and why, what to do next, and how all of it is undone.
func TestM4InstallSaysWhereTheCertificateIs(t *testing.T) {
	install := func(r *certRig, more ...string) (string, string) {
		t.Helper()
		code, out, errs := r.run(append([]string{"install", "--socket", r.socket, "--no-timer"}, more...)...)
		if code != 0 {
			t.Fatalf("exit code %d, %s", code, errs)
		}
		says(t, "always", out, `lies with its key in `+regexp.QuoteMeta(r.file)+`, which only you may read`, `To undo this: latchkey certificate uninstall$`)
		return out, errs
	}

	t.Run("all is well", func(t *testing.T) {
		r := newCertRig(t)
		out, errs := install(r)
		says(t, "out", out, `^  Chromium, .*: has it now; the database was made \(`+r.home+`/.pki/nssdb\)$`, `^  Firefox, profile abc.default: has it now \(`+r.firefox()+`\)$`, `^Close browsers that are open`, `!no profile`)
		if errs != "" {
			t.Errorf("it complains: %s", errs)
		}
		if out, _ = install(r); strings.Contains(out, "was made") {
			t.Errorf("the second time: %s", out)
		}
		_, out, errs = r.run("show")
		says(t, "show", out+errs, `^Browsers:$`, `^  Chromium, .*: has it \(`, `^  Firefox, profile abc.default: has it \(`)
		b, err := os.ReadFile(r.file)
		r.must(err)
		install(r)
		r.must(os.WriteFile(r.file, b, 0o600)) // an older one: the browsers have another
		_, out, _ = r.run("show")
		says(t, "show", out, `Firefox, profile abc.default: has an older one`)
	})

	t.Run("no profile of Firefox", func(t *testing.T) {
		r := newCertRig(t)
		r.must(os.RemoveAll(filepath.Join(r.home, ".mozilla")))
		out, _ := install(r)
		says(t, "out", out, `^  Firefox: no profile was found\. If you use it, start it once and run latchkey certificate install again\.$`, `Chromium, .*: has it now`)
	})

	t.Run("databases that can not be written", func(t *testing.T) {
		r := newCertRig(t)
		locked := r.profile("locked", "correct horse")
		damaged := filepath.Join(r.home, "snap/firefox/common/.mozilla/firefox/damaged")
		r.must(os.MkdirAll(damaged, 0o700))
		r.must(os.WriteFile(filepath.Join(damaged, "cert9.db"), []byte("no database"), 0o600))
		out, errs := install(r)
		says(t, "out", out, `profile abc.default: has it now`, `^  Firefox, profile locked: NOT DONE \(`+locked, `^  Firefox \(snap\), profile damaged: NOT DONE`)
		says(
			t, "errors", errs, `^latchkey: the certificate was not put into Firefox, profile locked \(`+locked+`\): it has a password`, `^latchkey: the certificate was not put into Firefox \(snap\), profile damaged .*SEC_ERROR`,
			`^latchkey: close the browser, take away its database's password if it has one, and run latchkey certificate install again$`, `^latchkey: to put it into a browser by hand: openssl pkcs12 -export -in `+regexp.QuoteMeta(r.file)+` -out`,
		)
		_, out, errs = r.run("show", "--output", "json")
		var shown struct{ Databases []database }
		if err := json.Unmarshal([]byte(out), &shown); err != nil || errs != "" {
			t.Fatalf("%v, %s", err, errs)
		}
		var states []string
		for _, d := range shown.Databases {
			states = append(states, d.Profile+" "+d.State)
		}
		if want := []string{" there", "abc.default there", "locked unknown", "damaged unknown"}; !slices.Equal(states, want) {
			t.Errorf("%q; want %q", states, want)
		}
	})

	for name, c := range map[string]struct {
		tools []string
		want  string
	}{
		"without any tool":  {[]string{"systemctl"}, `^latchkey: the certificate was put into no browser: certutil, pk12util, openssl are not installed$`},
		"without a package": {[]string{"openssl"}, `^latchkey: the certificate was put into no browser: certutil, pk12util are not installed$`},
		"without openssl":   {[]string{"certutil", "pk12util"}, `^latchkey: the certificate was put into no browser: openssl is not installed$`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newCertRig(t)
			t.Setenv("PATH", pathWith(t, c.tools...))
			out, errs := install(r)
			says(t, "out", out, `^No browser has it yet\.$`)
			says(t, "errors", errs, c.want, `^latchkey: these packages bring the tools: libnss3-tools and openssl \(Debian, Ubuntu\), .*; then run latchkey certificate install again$`, `^latchkey: to put it into a browser by hand: openssl`)
		})
	}

	t.Run("left alone", func(t *testing.T) {
		r := newCertRig(t)
		out, errs := install(r, "--no-browser")
		says(t, "out", out, `^The browsers were left alone \(--no-browser\)\.$`, `!Chromium`)
		_, shown, _ := r.run("show")
		says(t, "show", shown+errs, `abc.default: has none`, `!nssdb`)
	})
}

// TestM4TheFileByHandIsWhatBrowsersTake follows the advice for browsers without the tools.
func TestM4TheFileByHandIsWhatBrowsersTake(t *testing.T) {
	r := newCertRig(t)
	if code, _, errs := r.run("install", "--socket", r.socket, "--no-timer", "--no-browser"); code != 0 {
		t.Fatal(errs)
	}
	words := regexp.MustCompile(`by hand: (openssl [^;]+);`).FindStringSubmatch(byHand(r.file))
	if words == nil {
		t.Fatal(byHand(r.file))
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", words[1]+" -passout pass:typed")
	cmd.Dir = r.home
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", words[1], err, out)
	}
	r.nss("pk12util", "-i", filepath.Join(r.home, "latchkey.p12"), "-d", "sql:"+r.firefox(), "-W", "typed", "-K", "")
	if keys := r.nss("certutil", "-K", "-d", "sql:"+r.firefox()); strings.Count(keys, "< 0>") != 1 {
		t.Error(keys)
	}
}

// TestM4UninstallUndoesInstall: databases, timer and file; what is not ours stays.
func TestM4UninstallUndoesInstall(t *testing.T) {
	r := newCertRig(t)
	own := filepath.Join(r.home, ".config", "systemd", "user")
	bin, told := filepath.Join(r.home, "bin"), filepath.Join(r.home, "told")
	r.must(os.Mkdir(bin, 0o700))
	// A systemd that writes down what it is told.
	r.must(os.WriteFile(filepath.Join(bin, "systemctl"), fmt.Appendf(nil, `#!/bin/sh
echo "$*" >>%[1]s
case "$2" in
is-system-running) echo running;;
is-enabled) [ -e %[2]s/latchkey-certificate.timer ] && echo enabled;;
esac
`, told, own), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	// Somebody else's certificate, and one of another account's.
	for _, name := range []string{"bank", "Latchkey bob"} {
		key, cert, p12 := filepath.Join(r.home, "k.pem"), filepath.Join(r.home, "c.pem"), filepath.Join(r.home, "c.p12")
		r.nss("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN="+name)
		r.nss("openssl", "pkcs12", "-export", "-in", cert, "-inkey", key, "-name", name, "-out", p12, "-passout", "pass:x")
		r.nss("pk12util", "-i", p12, "-d", "sql:"+r.firefox(), "-W", "x", "-K", "")
	}
	keys := func() string { return r.nss("certutil", "-K", "-d", "sql:"+r.firefox()) }

	if code, _, errs := r.run("install", "--socket", r.socket); code != 0 || errs != "" {
		t.Fatalf("%d, %s", code, errs)
	}
	says(t, "after install", keys(), "bank", "Latchkey bob", "Latchkey alice")

	// Another file's: the timer is not of it.
	other := filepath.Join(r.home, "other.pem")
	if code, _, errs := r.run("install", "--socket", r.socket, "--file", other, "--no-timer", "--no-browser"); code != 0 {
		t.Fatal(errs)
	}
	if off, problem := stopTimer(t.Context(), other); off || problem != "" {
		t.Errorf("the timer of one file ended with another: %s", problem)
	}
	if _, err := os.Stat(filepath.Join(own, timerUnit)); err != nil {
		t.Error(err)
	}

	if got, _ := ownSerial(nil, nil, ""); len(got) != 1 || !strings.HasPrefix(got[0], "01\t") {
		t.Errorf("revoke is completed with %q", got)
	}
	code, out, errs := r.run("uninstall", "--yes")
	if code != 0 || errs != "" {
		t.Fatalf("%d, %s", code, errs)
	}
	says(
		t, "uninstall", out, `^Certificate and key were deleted: `+regexp.QuoteMeta(r.file)+`$`, `^  Chromium, .*: taken out \(`, `^  Firefox, profile abc.default: taken out \(`,
		`^Nothing renews it any more: latchkey-certificate\.timer was switched off\.$`, `^The server takes it until .* To end that: latchkey certificate revoke 01 `,
	)
	says(t, "after uninstall", keys(), "bank", "Latchkey bob", "!Latchkey alice")
	for _, gone := range []string{r.file, filepath.Join(own, timerUnit), filepath.Join(own, serviceUnit)} {
		if _, err := os.Stat(gone); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	b, err := os.ReadFile(told)
	r.must(err)
	says(t, "systemd was told", string(b), `^--user disable --now latchkey-certificate\.timer$`)

	// Nothing is there any more: it says so. The file is gone, so whatever has our name goes.
	code, out, errs = r.run("uninstall")
	if code != 0 || errs != "" {
		t.Fatalf("%d, %s", code, errs)
	}
	says(t, "again", out, `^There is no certificate in `, `Chromium, .*: has none`, `abc.default: taken out`, `!The server takes it`)
	says(t, "at the end", keys(), "bank", "!Latchkey")

	// What can not be undone is told, and fails.
	if code, _, errs := r.run("install", "--socket", r.socket, "--no-timer"); code != 0 {
		t.Fatal(errs)
	}
	r.profile("locked", "correct horse")
	code, out, errs = r.run("uninstall", "--output", "json")
	var un uninstalled
	if err := json.Unmarshal([]byte(out), &un); err != nil {
		t.Fatal(err)
	}
	if code != 1 || errs != "" || !un.Deleted || un.Serial != "03" || un.Timer || len(un.Databases) != 3 || un.Databases[2].State != nssFailed {
		t.Errorf("%d, %s, %+v", code, errs, un)
	}
	says(t, "problems", strings.Join(un.Problems, "\n"), `^the certificate may still be in Firefox, profile locked .*: it has a password`, `^close the browser, .* run latchkey certificate uninstall again$`, `^to take it out by hand: `)

	t.Setenv("PATH", pathWith(t, "openssl"))
	code, _, errs = r.run("uninstall")
	says(t, "without certutil", errs, `^latchkey: the browsers' databases were not looked into: certutil is not installed$`, `^latchkey: these packages bring the tools: .*; then try again$`)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}

	// A file that is none of ours is left.
	r.must(os.MkdirAll(filepath.Dir(r.file), 0o700))
	r.must(os.WriteFile(r.file, []byte("my notes"), 0o600))
	if code, _, errs = r.run("uninstall"); code != 1 || !strings.Contains(errs, "nothing was changed") {
		t.Errorf("%d, %s", code, errs)
	}
	if b, err := os.ReadFile(r.file); err != nil || string(b) != "my notes" {
		t.Errorf("%q, %v", b, err)
	}
}
