package housetest

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// rule says what the packages that fit from must not import. Patterns: exact, "x/..." or "x/*".
type rule struct {
	from    []string
	except  []string // packages that fit from but are free
	mustNot []string
	tests   bool // the rule holds for tests too
	because string
}

var (
	rulesPackages = []string{
		"latchkey/internal/policy", "latchkey/internal/otp", "latchkey/internal/window",
		"latchkey/internal/card", "latchkey/internal/event", "latchkey/internal/fault",
	}
	webAreas = []string{
		"latchkey/internal/server/web/entry", "latchkey/internal/server/web/people", "latchkey/internal/server/web/fleet", "latchkey/internal/server/web/rules",
		"latchkey/internal/server/web/log", "latchkey/internal/server/web/office", "latchkey/internal/server/web/portal", "latchkey/internal/server/web/bulk",
		"latchkey/internal/server/web/authenticator", "latchkey/internal/server/web/certs",
	}
	sides = []string{"latchkey/internal/server/...", "latchkey/internal/agent/...", "latchkey/internal/gateway/..."}
)

// importRules is the table "package → must not import, because …".
var importRules = []rule{
	{
		from: []string{"latchkey/internal/server/..."}, mustNot: []string{"latchkey/internal/agent/...", "latchkey/internal/gateway/..."}, tests: true,
		because: "server and endpoint never import each other; they meet in wire",
	},
	{
		from: []string{"latchkey/internal/agent/..."}, mustNot: []string{"latchkey/internal/server/...", "latchkey/internal/gateway/..."}, tests: true,
		because: "server and endpoint never import each other; they meet in wire",
	},
	{
		from: []string{"latchkey/internal/..."}, except: []string{"latchkey/internal/server/...", "latchkey/internal/agent/...", "latchkey/internal/gateway/..."},
		mustNot: sides,
		because: "shared ground knows neither side",
	},
	{
		from: []string{"latchkey/internal/..."}, mustNot: []string{"latchkey/cmd/...", "latchkey/scripts/...", "latchkey/test/e2e/...", "latchkey/test/demo/...", "latchkey/test/kill/...", "latchkey/bench/..."}, tests: true,
		because: "programs stand on the packages, not the other way round",
	},
	{
		from: []string{"latchkey/internal/server/..."}, except: []string{"latchkey/internal/server/factor/*", "latchkey/internal/server/directory/*", "latchkey/internal/server/siem/*", "latchkey/internal/server/source/*"},
		mustNot: []string{"latchkey/internal/server/factor/*", "latchkey/internal/server/directory/*", "latchkey/internal/server/siem/*", "latchkey/internal/server/source/*"},
		because: "plug-ins register with their parent and the parent never imports them; cmd/latchkeyd chooses",
	},
	{
		from: webAreas, mustNot: append([]string{"latchkey/internal/server/api/...", "latchkey/internal/server/agentapi/...", "latchkey/internal/server/web"}, webAreas...),
		because: "an area of pages can be read alone: what areas share stands in ui, words, forms or why",
	},
	{
		from: []string{"latchkey/internal/server/web/*"}, except: append([]string{"latchkey/internal/server/web/webtest"}, webAreas...),
		mustNot: append([]string{"latchkey/internal/server/web"}, webAreas...),
		because: "what areas are made from knows no area",
	},
	{
		from: []string{
			"latchkey/internal/server/store/...", "latchkey/internal/server/facts", "latchkey/internal/server/attempts", "latchkey/internal/server/rate", "latchkey/internal/server/source/...",
			"latchkey/internal/server/signin", "latchkey/internal/server/desk", "latchkey/internal/server/session", "latchkey/internal/server/bulk",
		},
		mustNot: []string{"latchkey/internal/server/api/...", "latchkey/internal/server/agentapi/...", "latchkey/internal/server/web/..."},
		because: "doors stand on what is done behind them, not the other way round",
	},
	{
		from: []string{
			"latchkey/internal/server/store/...", "latchkey/internal/server/facts", "latchkey/internal/server/attempts", "latchkey/internal/server/rate", "latchkey/internal/server/source/...",
		},
		mustNot: []string{"latchkey/internal/server/desk", "latchkey/internal/server/session", "latchkey/internal/server/signin", "latchkey/internal/server/bulk"},
		because: "what says who somebody is and how often they may try knows nobody who asks",
	},
	{
		from: []string{"latchkey/cmd/latchkey-agent/..."}, mustNot: []string{"latchkey/internal/server/...", "database/sql", "modernc.org/sqlite"},
		because: "the agent runs as root on every machine and holds nothing of the server",
	},
	{
		from: []string{"latchkey/cmd/latchkeyd/..."}, mustNot: []string{"latchkey/internal/agent/..."},
		because: "the server holds nothing of the agent",
	},
	{
		from: []string{"latchkey/cmd/latchkey/..."}, mustNot: []string{"latchkey/internal/server/...", "latchkey/internal/agent/...", "database/sql", "modernc.org/sqlite"},
		because: "the command speaks to the API and the local socket like anybody else; it opens no database and no vault",
	},
	{
		from: []string{"latchkey/internal/agent/vault/..."}, mustNot: []string{"net", "net/http", "crypto/tls", "latchkey/internal/agent/link"},
		because: "the vault must not touch the network (architecture §3)",
	},
	{
		from: []string{"latchkey/internal/agent/..."}, mustNot: []string{"database/sql", "database/sql/driver", "modernc.org/..."}, tests: true,
		because: "the agent keeps its state in files whose order of writing it knows",
	},
	{
		from: []string{"latchkey/internal/...", "latchkey/cmd/..."}, mustNot: []string{"testing", "net/http/pprof", "expvar", "math/rand", "math/rand/v2", "io/ioutil"},
		because: "no test code, open debug page or guessable randomness goes into a release",
	},
	{
		from: []string{"latchkey/..."}, mustNot: []string{"C"}, tests: true,
		because: "no cgo outside native: it breaks cross-building and makes the agent depend on the machine's libraries",
	},
}

// plugins in the same family may share code of their parent but not of each other.
var pluginFamilies = []string{"latchkey/internal/server/factor", "latchkey/internal/server/directory", "latchkey/internal/server/siem", "latchkey/internal/server/source"}

func TestWhoMayImportWhom(t *testing.T) {
	for _, s := range allSources(t) {
		for _, r := range importRules {
			if s.test && !r.tests || !matchAny(r.from, s.pkg) || matchAny(r.except, s.pkg) {
				continue
			}
			for im, pos := range s.imports {
				if !s.test && testSupport(im) {
					t.Errorf("%s: %s must not import %s, because that is for tests", s.at(pos), s.pkg, im)
				}
				if matchAny(r.mustNot, im) {
					t.Errorf("%s: %s must not import %s, because %s", s.at(pos), s.pkg, im, r.because)
				}
			}
		}
		for _, fam := range pluginFamilies {
			if !match(fam+"/*", s.pkg) {
				continue
			}
			for im, pos := range s.imports {
				if match(fam+"/*", im) && im != s.pkg {
					t.Errorf("%s: plug-in %s must not import plug-in %s, because each can be left out alone", s.at(pos), s.pkg, im)
				}
			}
		}
	}
}

// pureStd is what the rules may use of the standard library: nothing that opens, waits or throws dice. (io is there for
// its interfaces: who passes a reader owns the reading.)
var pureStd = []string{
	"bytes", "cmp", "container/...", "crypto/hmac", "crypto/sha1", "crypto/sha256", "crypto/sha512", "crypto/subtle", "encoding/...", "errors",
	"fmt", "hash/...", "io", "iter", "maps", "math", "math/big", "math/bits", "net/netip", "net/url", "regexp", "slices", "sort", "strconv", "strings",
	"time", "unicode", "unicode/utf8",
}

// Besides each other they may import secret, a type without I/O that keeps what it holds from being printed.
func TestRulesArePure(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range allSources(t) {
		if s.test || !slices.Contains(rulesPackages, s.pkg) {
			continue
		}
		seen[s.pkg] = true
		for im, pos := range s.imports {
			if !matchAny(pureStd, im) && !slices.Contains(rulesPackages, im) && im != "latchkey/internal/secret" {
				t.Errorf("%s: %s must not import %s, because rules are pure: no I/O, clock, goroutines or randomness of their own", s.at(pos), s.pkg, im)
			}
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
				t.Errorf("%s: goroutines and channels have no place in rules", s.at(n.Pos()))
			}
			return true
		})
	}
	for _, p := range []string{"latchkey/internal/policy", "latchkey/internal/otp", "latchkey/internal/window", "latchkey/internal/event", "latchkey/internal/fault"} {
		if !seen[p] {
			t.Errorf("%s was not found: the rule looks in the wrong place", p)
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	type pkg struct {
		doc  string
		file string
	}
	pkgs := map[string]*pkg{}
	for _, s := range allSources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		if ast.IsGenerated(s.ast) {
			continue
		}
		p := pkgs[s.pkg]
		if p == nil {
			p = &pkg{file: s.file}
			pkgs[s.pkg] = p
		}
		if d := s.ast.Doc.Text(); len(d) > len(p.doc) {
			p.doc = d
		}
		for _, bad := range []string{"util", "utils", "helper", "helpers", "common", "manager", "misc", "base", "lib"} {
			if s.ast.Name.Name == bad {
				t.Errorf("%s: a package is named after what it provides, not %q", s.file, bad)
			}
		}
	}
	for path, p := range pkgs {
		name := path[strings.LastIndex(path, "/")+1:]
		if len(p.doc) < 40 || !strings.HasPrefix(p.doc, "Package ") && !strings.HasPrefix(p.doc, "Command ") {
			t.Errorf("package %s (%s) has no comment that says what it is for: begin it with \"Package %s …\"", path, p.file, name)
		}
	}
}
