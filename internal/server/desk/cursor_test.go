package desk

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"latchkey/internal/policy"
)

// FuzzCursor: whatever text comes, it is an error or gives back exactly the parts of
// a cursor of this list; and what we make is read.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{"", "x", cursor("users", "anna"), cursor("events", "1795000000000000", "id"), cursor("users"), "WyJ1c2VycyIsbnVsbF0", "bnVsbA"} {
		f.Add("users", s, "anna")
	}
	f.Fuzz(func(t *testing.T, kind, s, part string) {
		if parts, err := parseCursor(kind, s, 1); err == nil {
			if len(parts) != 1 || strings.ContainsRune(parts[0], 0) || !utf8.ValidString(parts[0]) {
				t.Fatalf("%q gave %q", s, parts)
			}
		}
		if !askable(kind) || !askable(part) {
			return
		}
		made := cursor(kind, part)
		parts, err := parseCursor(kind, made, 1)
		if len(made) <= maxCursor && (err != nil || len(parts) != 1 || parts[0] != part) {
			t.Fatalf("cursor(%q, %q) = %q gave %q, %v", kind, part, made, parts, err)
		}
		if _, err := parseCursor(kind+"x", made, 1); err == nil {
			t.Fatalf("a cursor of %q was taken for one of another list", kind)
		}
	})
}

// FuzzSettings: whatever an administrator sends, the result is a policy that
// validates, or a list of faults that each name a setting.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"window":"4h"}`, `{"window":4}`, `{"scopes":["logon","logon"]}`, `{"nonsense":1}`, `{"window":"1h","window":"2h"}`, `[]`, `{"id":"x"}`,
		`{"exempt_uids":[1,4294967295]}`, `{"trusted_networks":["::/0"]}`, `{"offline":null}`, `null`, `{"offline_days":1e2}`, `{"Window":"4h"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, given []byte) {
		var v faults
		base := policy.NewPolicy()
		base.ID, base.Name, base.Default, base.Priority, base.Groups, base.Version = "id", "name", true, 7, []string{"g"}, 3
		p := v.settings(base, given)
		if v.f != nil {
			for _, x := range v.f.Fields {
				if x.Name != "settings" && !strings.HasPrefix(x.Name, "settings.") || x.Fault == "" || !utf8.ValidString(x.Fault) {
					t.Fatalf("%q: fault %+v", given, x)
				}
			}
			return
		}
		if err := p.Validate(); err != nil {
			t.Fatalf("%q was taken and is not valid: %v", given, err)
		}
		if p.ID != "id" || p.Name != "name" || !p.Default || p.Priority != 7 || len(p.Groups) != 1 || p.Version != 3 {
			t.Fatalf("%q changed what is no setting: %+v", given, p)
		}
		body, err := settingsOf(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policy.Parse(body); err != nil {
			t.Fatalf("%q is stored as %s, which is not read: %v", given, body, err)
		}
		if !json.Valid(body) {
			t.Fatalf("%s", body)
		}
	})
}
