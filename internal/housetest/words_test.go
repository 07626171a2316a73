package housetest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What must not be written down here. The expressions are put together so that this file does not match itself.
var unwanted = []struct {
	what string
	expr *regexp.Regexp
}{
	{"a private key", regexp.MustCompile(`-----BEGIN ` + `([A-Z]+ )?PRIVATE KEY-----\s*\n[A-Za-z0-9+/=]{20}`)},
	{"an access token", regexp.MustCompile(`\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|xox[bap]-[0-9A-Za-z-]{20,}|eyJhbGciOi[A-Za-z0-9_-]{40,})`)},
	{"a path of one machine", regexp.MustCompile(`(^|[\s"'(=:])/(wo` + `rk|ro` + `ot/go|Users|tmp/te` + `am)/`)},
	{"a home folder", regexp.MustCompile(`/home/(?:build|ubuntu|runner|dev|user)/`)},
	{"a package registry or mirror", regexp.MustCompile(`(?i)(proxy\.golang|sum\.golang|goproxy\.|deb\.deb` + `ian|registry\.npm|pypi\.|artifac` + `tory|nexus\.|crates\.io)`)},
	{"a merge that was not finished", regexp.MustCompile(`(?m)^(<<<<<<<|>>>>>>>) `)},
}

func TestNothingIsWrittenDownThatShouldNotBe(t *testing.T) {
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	if len(files) < 20 {
		t.Fatalf("git lists only %d files", len(files))
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(root, f))
		if err != nil || bytes.IndexByte(b, 0) >= 0 { // gone, or not a text
			continue
		}
		if len(b) > 1<<20 {
			t.Errorf("%s has %d bytes: what is big is fetched or made, not committed", f, len(b))
		}
		for _, u := range unwanted {
			if loc := u.expr.FindIndex(b); loc != nil {
				t.Errorf("%s:%d holds %s", f, 1+bytes.Count(b[:loc[0]], []byte("\n")), u.what)
			}
		}
	}
}
