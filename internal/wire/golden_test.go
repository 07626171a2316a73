package wire_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

var update = flag.Bool("update", false, "write the bodies of the present version anew: only before its release")

// bodies is everything that passes between agent and server, by the name of its file.
// Those that end in "request" the server reads, and refuses unknown fields; the others
// the agent reads, and reads past what it does not know.
func bodies() map[string]any {
	return map[string]any{
		"join.request": &wire.Join{}, "join.reply": &wire.JoinReply{},
		"renew.request": &wire.Renew{}, "renew.reply": &wire.RenewReply{},
		"hello.request": &wire.Hello{}, "hello.reply": &wire.HelloReply{},
		"changes.reply": &wire.Changes{}, "policy.signed": &wire.PolicyFile{}, "refusal.signed": &wire.RefusalNote{},
		"begin.request": &wire.Step{}, "answer.request": &wire.Step{}, "cancel.request": &wire.Step{},
		"prompt.reply": &wire.StepReply{}, "done.reply": &wire.StepReply{},
		"prepare.request": &wire.Prepare{}, "prepare.reply": &wire.PrepareReply{},
		"permit.request": &wire.PermitRequest{}, "permit.reply": &wire.Permit{},
		"ready.request":  &wire.Ready{},
		"bundle.request": &wire.BundleRequest{}, "bundle.reply": &wire.BundleReply{},
		"wiped.request":   &wire.Wiped{},
		"journal.request": &wire.Journal{}, "journal.reply": &wire.JournalReply{},
		"occasion.request": &wire.Occasion{},
		"problem":          &wire.Problem{}, "empty.reply": &wire.Empty{},
	}
}

// full is a body of which every field is set, but for those of which only one may be.
func full(t *testing.T, name string) any {
	t.Helper()
	v := bodies()[name]
	fill(t, reflect.ValueOf(v).Elem(), name)
	switch s := v.(type) {
	case *wire.Step:
		*s = map[string]wire.Step{"begin.request": {Begin: s.Begin}, "answer.request": {Answer: s.Answer}, "cancel.request": {Cancel: true}}[name]
	case *wire.StepReply:
		if name == "prompt.reply" {
			s.Done = nil
		} else {
			s.Prompt = nil
		}
	}
	return v
}

// fill sets everything to something that is not the zero value and tells its place.
func fill(t *testing.T, v reflect.Value, name string) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *wire.Secret:
		*x = wire.Hide(secret.FromString("secret of " + name))
		return
	case *json.RawMessage:
		*x = json.RawMessage(`{"of":"` + name + `"}`)
		return
	case *[]byte:
		*x = []byte(name)
		return
	case *netip.Prefix:
		*x = netip.MustParsePrefix("192.0.2.0/24")
		return
	case *time.Time:
		*x = time.Date(2026, 11, 21, 20, 0, len(name), 0, time.UTC)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if _, own := v.Addr().Interface().(json.Marshaler); own {
			t.Fatalf("%s: %s writes itself; say here what a value of it is", name, v.Type())
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				fill(t, v.Field(i), f.Name)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), name)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), name)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, name)
		fill(t, value, name)
		v.SetMapIndex(key, value)
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(i + 1))
		}
	case reflect.String:
		v.SetString("the " + name)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(10 + len(name)))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(10 + len(name)))
	case reflect.Float64:
		v.SetFloat(0.5)
	default:
		t.Fatalf("%s: what is a value of a %s?", name, v.Type())
	}
}

func folder(version int) string { return filepath.Join("testdata", fmt.Sprintf("v%d", version)) }

// TestTheBodiesOfThisVersionAreWritten: what passes between agent and server is what
// was written down when the version was made. A field that is added, renamed or
// dropped makes another version.
func TestTheBodiesOfThisVersionAreWritten(t *testing.T) {
	for name := range bodies() {
		file := filepath.Join(folder(wire.Version), name+".json")
		got, err := wire.Encode(full(t, name), wire.Version)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var nice bytes.Buffer
		if err := json.Indent(&nice, got, "", "\t"); err != nil {
			t.Fatal(err)
		}
		nice.WriteByte('\n')
		if *update {
			if err := os.MkdirAll(folder(wire.Version), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nice.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v; a new version's bodies are written with -update", err)
			continue
		}
		if diff := cmp.Diff(string(want), nice.String()); diff != "" {
			t.Errorf("%s is not as version %d was made: raise wire.Version and leave the new field out for older servers in wire.Encode; "+
				"before the release of version %d, -update writes it anew\n%s", name, wire.Version, wire.Version, diff)
		}
	}
}

// TestTheBodiesOfAllVersionsAreRead: an older agent's requests lose nothing when this
// server reads them, strictly; an older server's answers lose nothing when this agent
// does. What is read is written as it was, new fields apart.
func TestTheBodiesOfAllVersionsAreRead(t *testing.T) {
	for version := min(wire.Oldest, wire.OldestServer); version <= wire.Version; version++ {
		files, err := filepath.Glob(filepath.Join(folder(version), "*.json"))
		if err != nil || len(files) < 20 {
			t.Fatalf("version %d has %d bodies written down (%v)", version, len(files), err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".json")
			t.Run(fmt.Sprintf("v%d %s", version, name), func(t *testing.T) {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				into, known := bodies()[name]
				if !known {
					t.Fatalf("nobody reads it any more")
				}
				d := json.NewDecoder(bytes.NewReader(b))
				d.DisallowUnknownFields()
				if err := d.Decode(into); err != nil {
					t.Fatalf("it can not be read: %v", err)
				}
				again, err := json.Marshal(into)
				if err != nil {
					t.Fatal(err)
				}
				if lost := missing(parse(t, b), parse(t, again), name); len(lost) > 0 {
					t.Errorf("reading and writing it again loses %s", strings.Join(lost, ", "))
				}
			})
		}
	}
}

// TestAnOlderAgentReadsPastNewFields: an answer of a newer server is read for what is
// known of it.
func TestAnOlderAgentReadsPastNewFields(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(bodies())) {
		if strings.HasSuffix(name, ".request") {
			continue
		}
		want, err := json.Marshal(full(t, name))
		if err != nil {
			t.Fatal(err)
		}
		newer := parse(t, want).(map[string]any)
		newer["a_field_of_next_year"] = map[string]any{"deep": []any{1, "two", nil}}
		b, err := json.Marshal(newer)
		if err != nil {
			t.Fatal(err)
		}
		into := bodies()[name]
		if err := json.Unmarshal(b, into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := json.Marshal(into)
		if err != nil {
			t.Fatal(err)
		}
		if lost := missing(parse(t, want), parse(t, again), name); len(lost) > 0 {
			t.Errorf("%s loses %s", name, strings.Join(lost, ", "))
		}
	}
}

func parse(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// missing lists what want holds and got does not.
func missing(want, got any, at string) (lost []string) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range w {
			lost = append(lost, missing(v, g[k], at+"."+k)...)
		}
	case []any:
		g, _ := got.([]any)
		if len(g) != len(w) {
			return []string{at}
		}
		for i := range w {
			lost = append(lost, missing(w[i], g[i], fmt.Sprintf("%s[%d]", at, i))...)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			return []string{at}
		}
	}
	return lost
}
