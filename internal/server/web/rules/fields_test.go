package rules

import (
	"encoding/json"
	"testing"

	"latchkey/internal/policy"
	"latchkey/internal/server/web/words"
)

// TestEverySettingIsInTheEditor: a setting that is added to a policy needs a field with
// its words here, and what the form reads is what it was filled with.
func TestEverySettingIsInTheEditor(t *testing.T) {
	b, err := json.Marshal(policy.NewPolicy())
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(fields) {
		t.Errorf("%d settings, %d fields", len(all), len(fields))
	}
	for name, v := range all {
		f, ok := fieldOf(name)
		if !ok || f.label() == "" {
			t.Errorf("the setting %s has no field or no label", name)
			continue
		}
		for _, o := range f.options {
			if o.Label == "" {
				t.Errorf("the choice %s=%s has no label", name, o.Value)
			}
		}
		back, fault := f.value(f.raw(v))
		p, q := policy.NewPolicy(), policy.NewPolicy()
		one, _ := json.Marshal(map[string]json.RawMessage{name: back})
		if fault != "" || json.Unmarshal(one, &p) != nil {
			t.Errorf("%s: %s is read as %s, %s", name, v, back, fault)
			continue
		}
		x, _ := json.Marshal(p)
		y, _ := json.Marshal(q)
		if len(x) != len(y) && string(v) != "null" {
			t.Errorf("%s: %s is read as %s", name, v, back)
		}
	}
	for name := range words.Settings {
		if _, ok := all[name]; !ok {
			t.Errorf("there are words for %s, and no such setting", name)
		}
	}
	d := draftOf("n", 1, nil, b, false)
	faults := map[string]string{}
	if p, err := policy.Parse(d.settings(faults)); err != nil || len(faults) > 0 {
		t.Errorf("the form of the defaults reads as %+v, %v, %v", p, err, faults)
	}
}
