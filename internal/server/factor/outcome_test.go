package factor_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/server/factor"
)

// The zero value must never let anybody in.
func TestNothingIsAccepted(t *testing.T) {
	if (factor.Verdict{}).OK() || (factor.Verdict{}).Outcome != factor.Rejected {
		t.Error("a verdict that nobody has filled in is no rejection")
	}
	for o := factor.Outcome(-2); o < 20; o++ {
		if got := (factor.Verdict{Outcome: o, Own: true}).OK(); got != (o == factor.Accepted) {
			t.Errorf("%s is accepted: %v", o, got)
		}
	}
}

// outcomes are the names that the package declares, in their order.
func outcomes(t *testing.T) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "factor.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		if first, ok := g.Specs[0].(*ast.ValueSpec); ok {
			if id, ok := first.Type.(*ast.Ident); ok && id.Name == "Outcome" {
				for _, s := range g.Specs {
					names = append(names, s.(*ast.ValueSpec).Names[0].Name)
				}
			}
		}
	}
	return names
}

func TestEachOutcomeHasAWordOfItsOwn(t *testing.T) {
	names := outcomes(t)
	if len(names) != 5 {
		t.Fatalf("the outcomes are %q", names)
	}
	for i, name := range names {
		if got := factor.Outcome(i).String(); got != strings.ToLower(name) {
			t.Errorf("%s is called %q", name, got)
		}
	}
	if got := factor.Outcome(len(names)).String(); got != "outcome 5" {
		t.Errorf("one that is none is called %q", got)
	}
}

// Whoever tells outcomes apart in a switch has an arm for each, and one for what is none
// of them: a new outcome is not to fall where nobody has thought of it.
func TestEverySwitchOverOutcomesIsExhaustive(t *testing.T) {
	want, found := outcomes(t), 0
	slices.Sort(want)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SwitchStmt)
			if !ok {
				return true
			}
			arms, rest := arms(s)
			if len(arms) == 0 {
				return true
			}
			found++
			slices.Sort(arms)
			if at := set.Position(s.Pos()); !slices.Equal(arms, want) || !rest {
				t.Errorf("%s: the switch knows %q and has a default arm: %v; the outcomes are %q", at, arms, rest, want)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 3 {
		t.Errorf("%d switches were found; the sign-in, the look and the step-up have one", found)
	}
}

// arms are the outcomes that a switch over Verdict.Outcome names, and whether it has a
// default arm.
func arms(s *ast.SwitchStmt) (names []string, rest bool) {
	if tag, ok := s.Tag.(*ast.SelectorExpr); !ok || tag.Sel.Name != "Outcome" {
		return nil, false
	}
	for _, c := range s.Body.List {
		arm := c.(*ast.CaseClause)
		rest = rest || arm.List == nil
		for _, x := range arm.List {
			if v, ok := x.(*ast.SelectorExpr); ok {
				if p, ok := v.X.(*ast.Ident); ok && p.Name == "factor" {
					names = append(names, v.Sel.Name)
				}
			}
		}
	}
	return names, rest
}
