package housetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "latchkey"

// root is the top of the repository, from the folder in which this package's tests run.
const root = "../.."

// source is one Go file.
type source struct {
	file    string // path from the top of the repository
	pkg     string // import path
	test    bool   // _test.go, below test/, or in a package named …test, which only tests may import
	imports map[string]token.Pos
	ast     *ast.File
	fset    *token.FileSet
}

// at writes a place for an error.
func (s *source) at(p token.Pos) string {
	return s.file + ":" + strconv.Itoa(s.fset.Position(p).Line)
}

// sources parses every Go file of the repository, for all systems and build tags.
var sources = sync.OnceValues(func() ([]*source, error) {
	var out []*source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "artifacts" || name == "bin" || name == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		s := &source{
			file: rel, pkg: path.Join(module, path.Dir(rel)), ast: f, fset: fset,
			test:    strings.HasSuffix(name, "_test.go") || strings.HasPrefix(rel, "test/") || testSupport(path.Join(module, path.Dir(rel))),
			imports: map[string]token.Pos{},
		}
		for _, im := range f.Imports {
			v, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			s.imports[v] = im.Pos()
		}
		out = append(out, s)
		return nil
	})
	return out, err
})

func allSources(t *testing.T) []*source {
	t.Helper()
	s, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(s) == 0 {
		t.Fatal("no Go files were found")
	}
	return s
}

// match tells whether an import path fits a pattern: exact, "x/..." (x and all below), or "x/*" (directly below x).
func match(pattern, pkg string) bool {
	if p, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == p || strings.HasPrefix(pkg, p+"/")
	}
	if p, ok := strings.CutSuffix(pattern, "/*"); ok {
		rest, below := strings.CutPrefix(pkg, p+"/")
		return below && !strings.Contains(rest, "/")
	}
	return pattern == pkg
}

func matchAny(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if match(p, pkg) {
			return true
		}
	}
	return false
}

// goCmd runs the go command at the top of the repository, without cgo, with additions to the environment.
func goCmd(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// testSupport tells packages for tests by their name, as in net/http/httptest.
func testSupport(pkg string) bool {
	return strings.HasPrefix(pkg, module+"/internal/") && strings.HasSuffix(pkg, "test")
}
