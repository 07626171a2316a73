package housetest

import (
	"go/ast"
	"testing"
)

// forbidden calls, by package. A context's timeout is no wall clock: it bounds a wait and decides nothing.
var forbidden = map[string][]string{
	"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	"os":   {"Getenv", "LookupEnv", "Environ", "ExpandEnv"},
}

// free names who may use what is forbidden to the others, and why.
var free = []struct{ pkg, call, because string }{
	{"latchkey/internal/clock", "time", "it is the clock"},
	{"latchkey/internal/clock", "os.Getenv", "names the file of the movable clock, only with -tags latchkey_test"},
	{"latchkey/internal/failpoint", "os.Getenv", "names the file of the crash point, only with -tags latchkey_test"},
	{"latchkey/internal/wire", "os.Getenv", "names the versions of the protocol that are pretended, only with -tags latchkey_test"},
	{"latchkey/internal/daemon", "os.Getenv", "systemd names the socket for sd_notify in the environment alone"},
	{"latchkey/internal/agent/key", "os.Getenv", "the software keys of a test, in builds with -tags latchkey_test alone"},
	{"latchkey/bench/...", "time", "a program that measures, not of the product"},
	{"latchkey/scripts/...", "time", "a program of the build, not of the product"},
	{"latchkey/scripts/...", "os", "a program of the build, not of the product"},
}

func TestTimeAndEnvironmentAreParameters(t *testing.T) {
	for _, s := range allSources(t) {
		if s.test {
			continue
		}
		names := map[string]string{} // local name → package
		for _, im := range s.ast.Imports {
			p := im.Path.Value[1 : len(im.Path.Value)-1]
			if _, ok := forbidden[p]; !ok {
				continue
			}
			name := p
			if im.Name != nil {
				name = im.Name.Name
			}
			if name == "." {
				t.Errorf("%s: a dot import of %s hides what is called", s.at(im.Pos()), p)
			}
			names[name] = p
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok || id.Obj != nil { // a variable that is called time or os
				return true
			}
			p := names[id.Name]
			for _, f := range forbidden[p] {
				if f == sel.Sel.Name && !isFree(s.pkg, p, f) {
					t.Errorf("%s: %s.%s: time comes from a clock.Clock and settings from flags and files; both are parameters", s.at(n.Pos()), p, f)
				}
			}
			return true
		})
	}
}

func isFree(pkg, p, f string) bool {
	for _, x := range free {
		if match(x.pkg, pkg) && (x.call == p || x.call == p+"."+f) {
			return true
		}
	}
	return false
}
