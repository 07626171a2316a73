package housetest

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	roomLine = regexp.MustCompile(`^( *)((?:[a-z0-9][a-z0-9._/-]*/ *)+)(.*)$`)
	roomWord = regexp.MustCompile(`[a-z0-9]+`)
)

// room is a folder that the page of the house names, with the words that stand beside it.
type room struct {
	line  int
	words map[string]bool
}

// rooms reads the tree of docs/architecture.md: a name ends with a slash, two blanks in
// front of it put it one floor lower.
func rooms(t *testing.T) map[string]*room {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tree, ok := strings.Cut(string(b), "## 2. The rooms")
	if !ok {
		t.Fatal("docs/architecture.md has no section of the rooms")
	}
	before, tree, _ := strings.Cut(tree, "```\n")
	tree, _, ok = strings.Cut(tree, "```")
	if !ok {
		t.Fatal("the rooms have no tree")
	}
	first := strings.Count(string(b[:strings.Index(string(b), "## 2. The rooms")])+before, "\n") + 2
	out := map[string]*room{}
	var floors []string // the last room of each floor
	var latest []*room  // those of the last line that names any
	top := regexp.MustCompile(`^ *──`)
	for i, l := range strings.Split(tree, "\n") {
		m := roomLine.FindStringSubmatch(l)
		if m == nil || len(m[1]) > 2*len(floors) {
			// A line that goes on.
			if !top.MatchString(l) {
				for _, r := range latest {
					note(r, l)
				}
			}
			continue
		}
		if len(m[1])%2 != 0 {
			t.Errorf("docs/architecture.md:%d: a room stands between two floors", first+i)
			continue
		}
		floors, latest = floors[:len(m[1])/2], nil
		above := path.Join(floors...)
		for _, name := range strings.Fields(m[2]) {
			r := &room{line: first + i, words: map[string]bool{}}
			note(r, m[3])
			at := path.Join(above, name)
			if out[at] != nil {
				t.Errorf("docs/architecture.md:%d names %s twice", first+i, at)
			}
			out[at], latest = r, append(latest, r)
		}
		floors = append(floors, strings.TrimSuffix(strings.Fields(m[2])[0], "/"))
	}
	if len(out) < 30 {
		t.Fatalf("the tree has only %d rooms: the test reads it wrongly", len(out))
	}
	return out
}

func note(r *room, text string) {
	for _, w := range roomWord.FindAllString(text, -1) {
		r.words[w] = true
	}
}

// TestTheRoomsAreThere: every package stands in docs/architecture.md, and every folder that
// stands there exists. A package that has none below it may be a word in its parent's line.
func TestTheRoomsAreThere(t *testing.T) {
	named := rooms(t)
	there := map[string]bool{}
	for _, s := range allSources(t) {
		if in, ok := strings.CutPrefix(s.pkg, module+"/"); ok && !strings.HasSuffix(s.file, "_test.go") || ok && in == "internal/housetest" {
			there[in] = true
		}
	}
	for in := range there {
		if in != "internal" && !strings.HasPrefix(in, "internal/") || testSupport(module+"/"+in) && in != "internal/housetest" || named[in] != nil {
			continue
		}
		parent, leaf := named[path.Dir(in)], true
		for other := range there {
			leaf = leaf && !strings.HasPrefix(other, in+"/")
		}
		if parent == nil || !leaf || !parent.words[path.Base(in)] {
			t.Errorf("docs/architecture.md does not name the package %s among the rooms", in)
		}
	}
	for in, r := range named {
		if f, err := os.Stat(filepath.Join(root, filepath.FromSlash(in))); err != nil || !f.IsDir() {
			t.Errorf("docs/architecture.md:%d names %s, which is not there", r.line, in)
		}
		if strings.HasPrefix(in, "internal/") && !there[in] {
			t.Errorf("docs/architecture.md:%d names %s, which is no package", r.line, in)
		}
	}
}
