package housetest

import (
	"go/ast"
	"strings"
	"testing"
)

// TestEveryWordIsUsed: a text of the catalogue that no page shows is translated for nobody, and is often what a page
// has forgotten to say.
func TestEveryWordIsUsed(t *testing.T) {
	const catalogue = module + "/internal/server/web/words"
	declared, used := map[string]string{}, map[string]bool{}
	for _, s := range allSources(t) {
		if s.test {
			continue
		}
		if s.pkg != catalogue {
			ast.Inspect(s.ast, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "words" {
						used[sel.Sel.Name] = true
					}
				}
				return true
			})
			continue
		}
		names := map[*ast.Ident]bool{}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names[d.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							names[name] = true
						}
					}
				}
			}
		}
		for name := range names {
			declared[name.Name] = s.at(name.Pos())
		}
		// One text may be a part of another.
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && !names[id] {
				used[id.Name] = true
			}
			return true
		})
	}
	if len(declared) < 500 {
		t.Fatalf("only %d words were found: this test looks in the wrong place", len(declared))
	}
	for name, at := range declared {
		if !used[name] && !strings.HasPrefix(name, "_") {
			t.Errorf("%s: nothing says words.%s", at, name)
		}
	}
}
