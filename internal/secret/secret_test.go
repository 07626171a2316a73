package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestContentNeverShows(t *testing.T) {
	const content = "hunter2hunter2"
	s := FromString(content)
	type holder struct{ P Bytes }
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb, s, holder{s})
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "h", holder{s})
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "h", holder{s})
	if _, err := json.Marshal(holder{s}); err == nil {
		t.Error("marshalled as JSON")
	}
	if err := gob.NewEncoder(&out).Encode(holder{s}); err == nil {
		t.Error("marshalled as gob")
	}
	if strings.Contains(out.String(), content) || strings.Contains(out.String(), fmt.Sprintf("%x", content)) {
		t.Errorf("the content shows in %q", out.String())
	}
}

func TestWipeReachesCopies(t *testing.T) {
	raw := []byte("abc")
	a := New(raw)
	b := a
	c := a.Clone()
	a.Wipe()
	if b.Len() != 0 || !bytes.Equal(raw, []byte{0, 0, 0}) {
		t.Errorf("copy still holds %v, memory %v", b.Reveal(), raw)
	}
	if string(c.Reveal()) != "abc" {
		t.Error("a clone was wiped too")
	}
	var zero Bytes
	zero.Wipe()
	if !zero.Equal(Bytes{}) || !zero.Empty() {
		t.Error("the zero value is not empty")
	}
}
