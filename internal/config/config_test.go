package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"latchkey/internal/text"
)

type settings struct {
	Data    string        `flag:"data" check:"path" usage:"folder"`
	Listen  string        `flag:"listen" check:"hostport" usage:"address"`
	Agents  string        `flag:"listen-agent" check:"hostport" usage:"address for machines"`
	Log     string        `flag:"log" oneof:"auto|text|json" usage:"format of the log"`
	Window  time.Duration `flag:"window" min:"0s" max:"24h" usage:"length"`
	Tries   int           `flag:"tries" min:"1" max:"100" usage:"tries"`
	Port    uint16        `flag:"port" usage:"port"`
	Ratio   float64       `flag:"ratio" min:"0" max:"1" usage:"ratio"`
	Verbose bool          `flag:"verbose" short:"v" usage:"more"`
	From    []string      `flag:"from" check:"cidr" usage:"balancers"`
	Addr    netip.Addr    `flag:"addr" allowed:"an IP address" usage:"a type of its own"`
	Machine string        `flag:"machine" check:"name" usage:"name"`
	Private string        // no setting
}

func (s *settings) Check() []Problem {
	if s.Listen != "" && s.Listen == s.Agents {
		return []Problem{{Field: "listen-agent", Fault: "it is the same as listen", Allowed: "allowed is another port"}}
	}
	return nil
}

func defaults() *settings {
	return &settings{Data: "/var/lib/x", Log: "auto", Window: 8 * time.Hour, Tries: 10, Addr: netip.MustParseAddr("::1")}
}

func bound(t testing.TB, args ...string) (*pflag.FlagSet, *settings) {
	s := defaults()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Bind(fs, s)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs, s
}

func TestFlagOverFileOverDefault(t *testing.T) {
	fs, s := bound(t, "--log=json", "--from=10.0.0.0/8,::1", "-v")
	file := filepath.Join(t.TempDir(), "server.toml")
	body := `
log = "text"
listen = ":8443"
window = "30m"
tries = 3
ratio = 1
port = 443
from = ["192.168.0.0/16"]
addr = "192.0.2.1"
machine = "Büro 3"
`
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LATCHKEY_TRIES", "77") // the environment has no say
	t.Setenv("TRIES", "77")
	if err := Load(fs, s, file); err != nil {
		t.Fatal(err)
	}
	want := &settings{
		Data: "/var/lib/x", Log: "json", Listen: ":8443", Window: 30 * time.Minute, Tries: 3, Ratio: 1, Port: 443,
		Verbose: true, From: []string{"10.0.0.0/8", "::1"}, Addr: netip.MustParseAddr("192.0.2.1"), Machine: "Büro 3",
	}
	if d := cmp.Diff(want, s, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestEveryMistakeOfAFileIsToldAtOnce(t *testing.T) {
	fs, s := bound(t)
	body := `# settings
data = "relative"
lisen = ":1"
listen = "nowhere"
log = "xml"
window = 8
tries = 0
port = 70000
ratio = 2.5
verbose = "yes"
from = ["10.0.0.1/8", 7]
addr = "x"
machine = "аlice"
colour = "red"
[table]
a = 1
`
	err := load(fs, s, "server.toml", []byte(body))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("err = %v", err)
	}
	want := `server.toml: 14 mistakes
  line 2: data: "relative" does not begin at the root; allowed is an absolute path
  line 3: lisen: there is no such setting; did you mean "listen"?
  line 4: listen: "nowhere" is no address with a port; allowed is an address such as "127.0.0.1:8443" or ":8443"
  line 5: log: "xml" is not known; allowed is "auto", "text" or "json"
  line 6: window: 8 is a whole number, not a duration; allowed is a duration such as "90s", "15m" or "8h" from 0s to 24h
  line 7: tries: 0 is too small; allowed is a whole number from 1 to 100
  line 8: port: 70000 is too big; allowed is a whole number from 0 to 65535
  line 9: ratio: 2.5 is too big; allowed is a number from 0 to 1
  line 10: verbose: "yes" is a text, not true or false; allowed is true or false
  line 11: from: entry 2, 7, is a whole number, not a text; allowed is a list, each a network such as "10.0.0.0/8" or one address
  line 12: addr: ParseAddr("x"): unable to parse IP; allowed is an IP address
  line 13: machine: it mixes Cyrillic and Latin letters ('l' (U+006C) at place 2); allowed is a name
  line 14: colour: there is no such setting; allowed are addr, data, from, listen, listen-agent, log, machine, port, ratio, tries, verbose, window
  line 15: table: there is no such setting; allowed are addr, data, from, listen, listen-agent, log, machine, port, ratio, tries, verbose, window`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(defaults(), s, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("a refused file left something behind (-want +got):\n%s", d)
	}
}

func TestOneMistake(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"syntax names the line", "tries = 3\nlog = \n", "f: line 2: expected value but found '\\n' instead; allowed are lines such as: name = \"value\""},
		{"a key twice", "tries = 3\ntries = 4", "f: line 2: Key 'tries' has already been defined.; allowed are lines such as: name = \"value\""},
		{"a network with host bits", `from = ["10.0.0.1/8"]`, `f: line 1: from: entry 1: "10.0.0.1/8" has bits beyond its length (did you mean 10.0.0.0/8?); allowed is a list, each a network such as "10.0.0.0/8" or one address`},
		{"rules between fields come last", "listen=\":1\"\n\"listen-agent\"=\":1\"", "f: line 2: listen-agent: it is the same as listen; allowed is another port"},
		{"underscores for hyphens", `listen_agent = ":1"`, `f: line 1: listen_agent: there is no such setting; did you mean "listen-agent"?`},
		{"control characters", `machine = "a\u001b[2J"`, `f: line 1: machine: "a[2J" holds control or invisible characters; allowed is a name`},
		{"10 kB", `data = "/` + strings.Repeat("x", 10<<10) + `"`, "f: line 1: data: it has 10241 bytes, more than 4096; allowed is an absolute path"},
		{"a date", "window = 2026-01-01", `f: line 1: window: 2026-01-01 00:00:00 +0000 date-local is a date or time, not a duration; allowed is a duration such as "90s", "15m" or "8h" from 0s to 24h`},
		{"no number", "ratio = nan", "f: line 1: ratio: NaN is no amount; allowed is a number from 0 to 1"},
		{"too big a file", strings.Repeat("#", maxFile+1), "f: the file has more than 262144 bytes; give the name of a TOML file with settings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs, s := bound(t)
			err := load(fs, s, "f", []byte(c.body))
			if got := fmt.Sprint(err); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"--tries=x", `invalid argument "x" for "--tries" flag: "x" is not a whole number; allowed is a whole number from 1 to 100`},
		{"--tries=101", `invalid argument "101" for "--tries" flag: 101 is too big; allowed is a whole number from 1 to 100`},
		{"--window=1", `invalid argument "1" for "--window" flag: "1" is not a duration; allowed is a duration such as "90s", "15m" or "8h" from 0s to 24h`},
		{"--log=", `invalid argument "" for "--log" flag: "" is not known; allowed is "auto", "text" or "json"`},
		{"--verbose=perhaps", `invalid argument "perhaps" for "-v, --verbose" flag: "perhaps" is not true or false; allowed is true or false`},
	} {
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		Bind(fs, defaults())
		if got := fmt.Sprint(fs.Parse([]string{c.arg})); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	fs, _ := bound(t)
	if u := fs.FlagUsages(); !strings.Contains(u, `--log string`) || !strings.Contains(u, `(default "auto")`) || !strings.Contains(u, "(auto, text, json)") {
		t.Errorf("usage:\n%s", u)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	fs, s := bound(t)
	missing := filepath.Join(dir, "none.toml")
	if err := Load(fs, s, missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was asked for and is missing: %v", err)
	}
	if err := LoadIfThere(fs, s, missing); err != nil {
		t.Errorf("a default file may be missing: %v", err)
	}
	if err := Load(fs, s, dir); err == nil {
		t.Error("a folder was read as a file")
	}
	open := filepath.Join(dir, "open.toml")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := LoadIfThere(fs, s, open); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("a file that everybody may write: %v", err)
	}
	if f, explicit := File("", "agent"); f != "/etc/latchkey/agent.toml" || explicit {
		t.Errorf("File = %s, %v", f, explicit)
	}
}

// FuzzConfig: whatever the file holds, the reader returns, tells mistakes that can be printed, and leaves nothing half-written.
func FuzzConfig(f *testing.F) {
	f.Add([]byte("tries = 3\nlog = \"text\""))
	f.Add([]byte("lisen = 1\n[table]\na.b = [1, \"x\"]\n"))
	f.Add([]byte("window = \"8h\"\nfrom = [\"10.0.0.0/8\"]\nratio = 0.5"))
	f.Add([]byte("a = 1979-05-27\nb = '''x'''\n\"q\\u0000\" = 2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs, s := bound(t)
		same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		err := load(fs, s, "f", b)
		if err == nil {
			for _, f := range fields(s) {
				if fault, _ := f.check(); fault != "" {
					t.Fatalf("%s was accepted: %s", f.name, fault)
				}
			}
			return
		}
		if !cmp.Equal(defaults(), s, same) {
			t.Fatalf("a refused file left something behind:\n%s", cmp.Diff(defaults(), s, same))
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			if !utf8.ValidString(line) || strings.ContainsFunc(line, text.Invisible) {
				t.Fatalf("a mistake can not be printed: %q", line)
			}
		}
	})
}
