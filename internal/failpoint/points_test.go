package failpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"latchkey/internal/failpoint"
)

// TestEveryPointOfTheSourceIsInTheList: who kills at every point of the list has killed at every point there is, and
// each name stands in one place.
func TestEveryPointOfTheSourceIsInTheList(t *testing.T) {
	root := filepath.Join("..", "..")
	called := map[string][]string{}
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "Hit" {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "failpoint" {
					return true
				}
				at := set.Position(call.Pos()).String()
				lit, ok := call.Args[0].(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: the name of a point is written out, so that it can be found", at)
					return true
				}
				name, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Errorf("%s: %v", at, err)
				}
				called[name] = append(called[name], at)
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(called) == 0 {
		t.Fatal("no point was found: this test looks in the wrong place")
	}
	listed := map[string]bool{}
	for _, p := range failpoint.Points {
		if listed[p.Name] {
			t.Errorf("%s is in the list twice", p.Name)
		}
		listed[p.Name] = true
		if len(called[p.Name]) == 0 {
			t.Errorf("%s is in the list, and nothing calls failpoint.Hit with it", p.Name)
		}
		if len(called[p.Name]) > 1 {
			t.Errorf("%s stands in several places: %v", p.Name, called[p.Name])
		}
		if p.After == "" || len(p.In) == 0 {
			t.Errorf("%s says neither where it is nor what it is for", p.Name)
		}
		for _, in := range p.In {
			if !slices.Contains([]string{failpoint.Server, failpoint.Agent}, in) {
				t.Errorf("%s is in %q, which is no program", p.Name, in)
			}
		}
	}
	for name, at := range called {
		if !listed[name] {
			t.Errorf("%v: %s is not in the list internal/failpoint/points.go", at, name)
		}
	}
}
