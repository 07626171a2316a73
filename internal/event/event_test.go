package event

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
)

func TestEveryTypeIsExplained(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.ValueSpec)
		if !ok || len(s.Values) != 1 {
			return true
		}
		if id, ok := s.Type.(*ast.Ident); ok && id.Name == "Type" {
			word := strings.Trim(s.Values[0].(*ast.BasicLit).Value, `"`)
			if seen[word] {
				t.Errorf("%s stands twice", word)
			}
			seen[word] = true
			if Meaning[Type(word)] == "" {
				t.Errorf("%s has no meaning", word)
			}
		}
		return true
	})
	if len(seen) < 30 || len(Meaning) != len(seen) {
		t.Errorf("%d types, %d meanings", len(seen), len(Meaning))
	}
}

func TestV4EveryFieldIsInTheHash(t *testing.T) {
	base := Next("c", 1, Hash{}, Event{})
	if Next("d", 1, Hash{}, Event{}) == base || Next("c", 2, Hash{}, Event{}) == base || Next("c", 1, Hash{1}, Event{}) == base {
		t.Error("chain, place or predecessor is not in the hash")
	}
	typ := reflect.TypeFor[Event]()
	for i := range typ.NumField() {
		var e Event
		v := reflect.ValueOf(&e).Elem().Field(i)
		switch v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Int64:
			v.SetInt(7)
		case reflect.Slice:
			v.SetBytes([]byte("{}"))
		default:
			t.Fatalf("field %s of a kind this test does not know", typ.Field(i).Name)
		}
		if Next("c", 1, Hash{}, e) == base {
			t.Errorf("field %s is not in the hash", typ.Field(i).Name)
		}
	}
	if Next("c", 1, Hash{}, Event{Actor: "ab"}) == Next("c", 1, Hash{}, Event{Actor: "a", Subject: "b"}) {
		t.Error("fields run into each other")
	}
}
