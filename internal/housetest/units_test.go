package housetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unit is a unit of systemd: what is set, per key, from all sections.
func unit(t *testing.T, name string) (text string, set map[string][]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "packaging", "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	set = map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			set[key] = append(set[key], value)
		}
	}
	return string(b), set
}

// TestUnitsNameWhatIsThere: the units of systemd start programs of ours with options that these have, and the folders
// that systemd makes are those that the programs use.
func TestUnitsNameWhatIsThere(t *testing.T) {
	for name, want := range map[string]struct {
		program, verb string
		folders       map[string]string // key of the unit, and under what; the path stands in the program's source
	}{
		"latchkeyd.service":      {"latchkeyd", "serve", map[string]string{"StateDirectory": "/var/lib/"}},
		"latchkey-agent.service": {"latchkey-agent", "run", map[string]string{"StateDirectory": "/var/lib/", "RuntimeDirectory": "/run/"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, set := unit(t, name)
			source := ""
			files, err := filepath.Glob(filepath.Join(root, "cmd", want.program, "*.go"))
			if err != nil || len(files) == 0 {
				t.Fatalf("no source of %s (%v)", want.program, err)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				source += string(b)
			}
			if len(set["ExecStart"]) != 1 {
				t.Fatalf("ExecStart %q", set["ExecStart"])
			}
			words := strings.Fields(set["ExecStart"][0])
			if filepath.Base(words[0]) != want.program || words[1] != want.verb || !strings.Contains(source, `Use: "`+want.verb+`"`) {
				t.Errorf("it starts %q, not %s %s", words[:2], want.program, want.verb)
			}
			for _, w := range words[2:] {
				if flag, ok := strings.CutPrefix(w, "--"); ok && !strings.Contains(source, `flag:"`+flag+`"`) {
					t.Errorf("%s has no option %s", want.program, w)
				}
			}
			for key, under := range want.folders {
				if len(set[key]) != 1 || !strings.Contains(source, `"`+under+set[key][0]) {
					t.Errorf("%s=%q, and the program's own is not under %s", key, set[key], under)
				}
			}
			for key, value := range map[string]string{"Type": "notify", "Restart": "always", "UMask": "0077", "LimitNOFILE": "65536", "StateDirectoryMode": "0700"} {
				if !slices.Equal(set[key], []string{value}) {
					t.Errorf("%s=%q, want %s", key, set[key], value)
				}
			}
		})
	}
}

// TestTheAgentsUnitKeepsItsTPMAndWaitsForNoNetwork: people sign in on a plane, too.
func TestTheAgentsUnitKeepsItsTPMAndWaitsForNoNetwork(t *testing.T) {
	_, set := unit(t, "latchkey-agent.service")
	for _, key := range []string{"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "ProtectProc", "PrivateUsers", "PrivateNetwork", "CapabilityBoundingSet", "Requires", "BindsTo"} {
		if v, ok := set[key]; ok {
			t.Errorf("%s=%q", key, v)
		}
	}
	for _, key := range []string{"After", "Wants"} {
		if v := strings.Join(set[key], " "); strings.Contains(v, "network") {
			t.Errorf("%s=%q", key, v)
		}
	}
	id, err := os.ReadFile(filepath.Join(root, "internal", "agent", "identity", "identity.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`FileName = "([^"]+)"`).FindSubmatch(id)
	if m == nil || !slices.Equal(set["ConditionPathExists"], []string{"/var/lib/latchkey/agent/" + string(m[1])}) {
		t.Errorf("ConditionPathExists=%q is not the machine's identity", set["ConditionPathExists"])
	}
}

// TestTheServersSocketIsWhereTheCommandLooks: the unit's link leads from there to where the server listens.
func TestTheServersSocketIsWhereTheCommandLooks(t *testing.T) {
	_, set := unit(t, "latchkeyd.service")
	client, err := os.ReadFile(filepath.Join(root, "cmd", "latchkey", "client.go"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`"unix:(/run/[^"]+)"`).FindSubmatch(client)
	words := strings.Fields(strings.Join(set["ExecStartPost"], " "))
	if m == nil || len(words) != 4 || words[3] != string(m[1]) {
		t.Fatalf("the command looks at %q, the unit links with %q", m, words)
	}
	listens := filepath.Join(filepath.Dir(words[3]), words[2])
	if !strings.HasSuffix(set["ExecStart"][0], " --admin-socket "+listens) || filepath.Dir(listens) != "/run/"+set["RuntimeDirectory"][0] {
		t.Errorf("the link leads to %s; the server: %s in /run/%s", listens, set["ExecStart"][0], set["RuntimeDirectory"][0])
	}
}

// TestSystemdTakesTheUnits where systemd is installed.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("without systemd-analyze the units are not shown to systemd")
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"latchkeyd.service", "latchkey-agent.service"} {
		text, _ := unit(t, name)
		// The programs are not installed here.
		text = regexp.MustCompile(`/usr/local/bin/\S+`).ReplaceAllString(text, "/bin/true")
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), dir) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
