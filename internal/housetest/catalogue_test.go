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

// testsAlone are the queries that only tests ask, and why they stay.
var testsAlone = map[string]string{
	"ListSettingKeys":        "tests look whether anything was kept",
	"MarkAuthenticatorsLost": "tests of facts lose every authenticator of a kind",
	"WantLift":               "tests of the agent's door wish for a lift of one generation",
}

// TestEveryQueryIsAsked: a query that nothing asks is still read, prepared for both engines and kept right.
func TestEveryQueryIsAsked(t *testing.T) {
	const folder = module + "/internal/server/store/db"
	declared, used := map[string]string{}, map[string]bool{}
	for _, s := range allSources(t) {
		if strings.HasSuffix(s.file, "_test.go") {
			continue
		}
		generated := s.pkg == folder && strings.HasSuffix(s.file, ".sql.go")
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil && generated {
				declared[f.Name.Name] = s.at(f.Pos())
			}
		}
		if generated {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				used[n.Sel.Name] = true
			case *ast.Ident:
				// Lists that are written by hand take the columns of a generated query.
				if s.pkg == folder && n.Name != "" {
					used[strings.ToUpper(n.Name[:1])+n.Name[1:]] = true
				}
			}
			return true
		})
	}
	if len(declared) < 200 {
		t.Fatalf("only %d queries were found: this test looks in the wrong place", len(declared))
	}
	for name, at := range declared {
		_, listed := testsAlone[name]
		switch {
		case !used[name] && !listed:
			t.Errorf("%s: nothing asks %s", at, name)
		case used[name] && listed:
			t.Errorf("%s: %s is asked: take it from the list of this test", at, name)
		}
	}
	for name := range testsAlone {
		if declared[name] == "" {
			t.Errorf("there is no query %s", name)
		}
	}
}
