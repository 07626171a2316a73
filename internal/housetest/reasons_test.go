package housetest

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"latchkey/internal/event"
)

var reasonCode = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// TestReasonsAreExplained: a code that the source gives as a reason has its sentence in event.Reasons, which the page on
// events shows. Reasons are found as constants whose name or type says so, and as what is put into a field of that name;
// what is put together at run time the end-to-end tests look at.
func TestReasonsAreExplained(t *testing.T) {
	found := map[string]string{}
	see := func(s *source, e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if v, err := strconv.Unquote(l.Value); err == nil && reasonCode.MatchString(v) {
				found[v] = s.at(l.Pos())
			}
		}
	}
	says := func(name string) bool { return strings.HasPrefix(name, "Reason") || strings.HasPrefix(name, "reason") }
	for _, s := range allSources(t) {
		if s.test || strings.HasPrefix(s.file, "bench/") {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				typed := false
				if id, ok := n.Type.(*ast.Ident); ok {
					typed = says(id.Name)
				}
				for i, v := range n.Values {
					if typed || i < len(n.Names) && says(n.Names[i].Name) {
						see(s, v)
					}
				}
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok && id.Name == "Reason" {
					see(s, n.Value)
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if sel, ok := l.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reason" && i < len(n.Rhs) {
						see(s, n.Rhs[i])
					}
				}
			}
			return true
		})
	}
	if len(found) < 60 {
		t.Errorf("only %d reasons were found", len(found))
	}
	for code, at := range found {
		if event.Reasons[code] == "" {
			t.Errorf("%s: the reason %q has no sentence in event.Reasons", at, code)
		}
	}
}
