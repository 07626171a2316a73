package housetest

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden lists and the table of dependencies anew")

// TestGoldenPackagesOfTheAgent: what runs as root on every machine is a list that people read. It holds our packages,
// third-party ones and the public packages of the standard library.
func TestGoldenPackagesOfTheAgent(t *testing.T) {
	for _, goos := range []string{"linux", "windows", "darwin"} {
		t.Run(goos, func(t *testing.T) {
			got := linked(t, goos, "", "./cmd/latchkey-agent")
			file := filepath.Join("testdata", "agent-"+goos+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Fields(string(b)), got); d != "" {
				t.Errorf("the agent links other packages than %s says (make golden writes it anew; -listed +linked):\n%s", file, d)
			}
			for _, bad := range []string{"latchkey/internal/server/", "modernc.org/", "database/sql", "testing", "net/http/pprof"} {
				for _, p := range got {
					if p == bad || strings.HasSuffix(bad, "/") && strings.HasPrefix(p, bad) {
						t.Errorf("the agent links %s", p)
					}
				}
			}
		})
	}
}

// linked lists the packages of a program, sorted.
func linked(t *testing.T, goos, tags, cmd string) []string {
	t.Helper()
	out := goCmd(t, []string{"GOOS=" + goos, "GOARCH=amd64"}, "list", "-deps", "-tags", tags, "-f", "{{.ImportPath}}", cmd)
	list := strings.Fields(out)
	list = slices.DeleteFunc(list, func(p string) bool {
		return strings.HasPrefix(p, "internal/") || strings.HasPrefix(p, "vendor/") || strings.HasPrefix(p, "runtime/") ||
			strings.Contains(p+"/", "/internal/") && !strings.HasPrefix(p, module+"/")
	})
	slices.Sort(list)
	return list
}

// TestReleaseProgramsHaveNoTestSwitches: the movable clock and the crash points stand in files behind the tag
// latchkey_test, and no file of a release says their names; built programs are searched for them as bytes too.
func TestReleaseProgramsHaveNoTestSwitches(t *testing.T) {
	switches := []string{"LATCHKEY_TEST_" + "CLOCK", "LATCHKEY_TEST_" + "FAILPOINT"}
	cmds := []string{"./cmd/latchkeyd", "./cmd/latchkey-agent", "./cmd/latchkey"}
	files := func(tags string) []string {
		out := goCmd(t, []string{"GOOS=linux"}, append([]string{
			"list", "-deps", "-tags", tags, "-f",
			`{{if not .Standard}}{{$d := .Dir}}{{if eq .Module.Path "latchkey"}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`,
		}, cmds...)...)
		return strings.Fields(out)
	}
	holds := func(list []string) map[string]string {
		found := map[string]string{}
		for _, f := range list {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range switches {
				if strings.Contains(string(b), s) {
					found[s] = f
				}
			}
		}
		return found
	}
	if got := holds(files("")); len(got) != 0 {
		t.Errorf("release programs hold test switches: %v", got)
	}
	if got := holds(files("latchkey_test")); len(got) != len(switches) {
		t.Errorf("with -tags latchkey_test only %v was found: this test looks for the wrong words", got)
	}
	for _, name := range []string{"latchkeyd", "latchkey-agent", "latchkey"} {
		b, err := os.ReadFile(filepath.Join(root, "bin", name))
		if os.IsNotExist(err) {
			continue // the files above are proof enough; `make build` makes them
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range switches {
			if strings.Contains(string(b), s) {
				t.Errorf("bin/%s holds the test switch %s", name, s)
			}
		}
	}
}
