package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

func token(t *testing.T, url string) string {
	t.Helper()
	s, err := wire.EncodeToken(wire.Token{URL: url, Secret: secret.New(make([]byte, wire.TokenSecretSize))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is typed wrongly is said in one sentence that names what is allowed.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(dir, "agent.toml")
	if err := os.WriteFile(settings, []byte("socket = 7\nsate = \"/x\"\nlog = \"loud\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := token(t, "https://127.0.0.1:1")
	for name, c := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"nothing":                    {nil, 2, []string{"join, run or version"}},
		"status, which is elsewhere": {[]string{"status"}, 2, []string{"latchkey status shows"}},
		"an unknown command":         {[]string{"jion"}, 2, []string{`"jion"`, "join, run and version"}},
		"an unknown flag":            {[]string{"run", "--sockt", "/x"}, 2, []string{"--sockt"}},
		"no token":                   {[]string{"join"}, 2, []string{"give the join token"}},
		"two tokens":                 {[]string{"join", "a", "b"}, 2, []string{"give the join token"}},
		"a cut token":                {[]string{"join", good[:40], "--state", state, "--tpm", "none"}, 1, []string{"not a whole join token"}},
		"a huge token":               {[]string{"join", strings.Repeat("A", 10_000), "--state", state, "--tpm", "none"}, 1, []string{"not a whole join token"}},
		"an odd TPM":                 {[]string{"join", good, "--state", state, "--tpm", "chip"}, 2, []string{`"chip"`, "auto, none, device:PATH or socket:PATH"}},
		"a TPM that is not there":    {[]string{"join", good, "--state", state, "--tpm", "socket:" + dir + "/none"}, 1, []string{"TPM", "--tpm none"}},
		"a relative folder":          {[]string{"join", good, "--state", "state"}, 2, []string{"state", "begin at the root"}},
		"an odd name":                {[]string{"join", good, "--state", state, "--name", "a\x1bb"}, 2, []string{"name"}},
		"an odd proxy":               {[]string{"join", good, "--state", state, "--tpm", "none", "--proxy", "https://proxy"}, 1, []string{"proxy", "http://HOST:PORT"}},
		"an open folder":             {[]string{"join", good, "--state", open, "--tpm", "none"}, 1, []string{"0755", "chmod 0700"}},
		"nobody there":               {[]string{"join", good, "--state", state, "--tpm", "none"}, 1, []string{"connection-refused", "127.0.0.1:1"}},
		"not joined":                 {[]string{"run", "--state", state, "--socket", dir + "/s", "--tpm", "none"}, 1, []string{"has not joined", "latchkey-agent join TOKEN"}},
		"a file of mistakes":         {[]string{"run", "--config", settings}, 2, []string{"socket", "sate", `did you mean "state"?`, "loud"}},
		"a file that is absent":      {[]string{"run", "--config", dir + "/nothing.toml"}, 1, []string{"nothing.toml"}},
		"a word too many":            {[]string{"version", "please"}, 2, []string{"please"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out, complaint bytes.Buffer
			if code := run(t.Context(), c.args, &out, &complaint); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(complaint.String(), w) {
					t.Errorf("%s\nlacks %q", complaint.String(), w)
				}
			}
			if strings.ContainsAny(complaint.String(), "\x1b") {
				t.Errorf("control characters: %q", complaint.String())
			}
		})
	}
	// Nothing half-written: no identity, and no key without one.
	left, err := filepath.Glob(filepath.Join(state, "machine*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"version"}, &out, &out); code != 0 || !strings.HasPrefix(out.String(), "latchkey-agent ") {
		t.Errorf("%d %q", code, out.String())
	}
}
