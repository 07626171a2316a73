package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/policy"
)

func TestParseWhen(t *testing.T) {
	zone := time.FixedZone("somewhere", 2*3600)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"2026-12-01":           time.Date(2026, 12, 1, 0, 0, 0, 0, zone),
		"2026-12-01 08:30":     time.Date(2026, 12, 1, 8, 30, 0, 0, zone),
		"2026-12-01 08:30:15":  time.Date(2026, 12, 1, 8, 30, 15, 0, zone),
		"2026-12-01T08:30:00Z": time.Date(2026, 12, 1, 8, 30, 0, 0, time.UTC),
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.Add(-7 * 24 * time.Hour),
		"0s":                   now,
	} {
		got, err := parseWhen(in, now, false)
		if err != nil || !got.Equal(want) {
			t.Errorf("parseWhen(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	if got, err := parseWhen("2h", now, true); err != nil || !got.Equal(now.Add(2*time.Hour)) {
		t.Errorf("ahead: %v, %v", got, err)
	}
	for _, bad := range []string{"", "yesterday", "-1h", "7dd", "d", "99999999d", "2026-13-01", "2026-02-30", "12:00", strings.Repeat("1", 100), "1d\x00"} {
		if got, err := parseWhen(bad, now, false); err == nil {
			t.Errorf("parseWhen(%q) = %v", bad, got)
		}
	}
}

func TestParseSettings(t *testing.T) {
	for name, c := range map[string]struct {
		in   []string
		want string
	}{
		"text, number, truth":           {[]string{"window=4h", "offline_days=3", "software_vault=false"}, `{"offline_days":3,"software_vault":false,"window":"4h"}`},
		"lists of words and of numbers": {[]string{"scopes=logon, remote", "exempt_uids=0,1000"}, `{"exempt_uids":[0,1000],"scopes":["logon","remote"]}`},
		"empty lists":                   {[]string{"scopes=", "exempt_uids=none"}, `{"exempt_uids":[],"scopes":[]}`},
		"hyphens":                       {[]string{"offline-tries=5"}, `{"offline_tries":5}`},
		"what does not fit goes on":     {[]string{"offline_days=many", "exempt_uids=root", "nonsense=1"}, `{"exempt_uids":["root"],"nonsense":"1","offline_days":"many"}`},
		"no JSON is smuggled in":        {[]string{`exempt_uids={"a":1},[2],null`, `offline_days=[1]`}, `{"exempt_uids":["{\"a\":1}","[2]","null"],"offline_days":"[1]"}`},
		"an equals sign in a value":     {[]string{"offline=a=b"}, `{"offline":"a=b"}`},
	} {
		got, err := parseSettings(c.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(c.want, string(got)); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	_, err := parseSettings([]string{"window", "scopes=logon", "scopes=remote", "=4"})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("all mistakes at once: %v", err)
	}
}

// FuzzParseSettings: whatever is typed, the result is one JSON object, or a mistake is told.
func FuzzParseSettings(f *testing.F) {
	for _, s := range []string{"window=4h", "scopes=a,b,,", "exempt_uids=1,\"", "offline_days=1e9", "x=\xff", "=", "software_vault=null", "a=\u2028"} {
		f.Add(s, "offline=mfa")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		raw, err := parseSettings([]string{a, b})
		if err != nil {
			return
		}
		var v map[string]json.RawMessage
		if err := json.Unmarshal(raw, &v); err != nil || len(v) != 2 {
			t.Fatalf("%q %q gave %s: %v", a, b, raw, err)
		}
		p := policy.NewPolicy()
		_ = json.Unmarshal(raw, &p) // must not panic
	})
}

// FuzzParseWhen: whatever is typed, the result is a time that is written and read
// again, or a mistake that names the text.
func FuzzParseWhen(f *testing.F) {
	for _, s := range []string{"2026-12-01", "7d", "90m", "2026-12-01T08:00:00+14:00", "-0s", "65535d", "1h1m"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		w := whenFlag{now: func() time.Time { return now }}
		if err := w.Set(s); err != nil {
			if !strings.Contains(err.Error(), "is no time; allowed are") {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if _, err := time.Parse(time.RFC3339, w.t.UTC().Format(time.RFC3339)); err != nil && w.t.Year() >= 0 && w.t.Year() <= 9999 {
			t.Fatalf("%q gave %v: %v", s, w.t, err)
		}
	})
}

// TestEverySettingCanBeSet: every setting of a policy has a form that `policy set`
// knows, and what show prints is what set takes.
func TestEverySettingCanBeSet(t *testing.T) {
	p := policy.NewPolicy()
	p.ExemptUIDs, p.ExemptSIDs, p.WindowEndsOn = []uint32{1, 2}, []string{"S-1-5-21"}, []policy.WindowEnd{policy.EndLogoff, policy.EndReboot}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	kinds := settingKinds()
	var words []string
	for name, v := range all {
		if _, ok := kinds[name]; !ok {
			t.Errorf("the setting %s is not known", name)
		}
		words = append(words, name+"="+settingWords(v))
	}
	if len(words) != len(kinds) {
		t.Errorf("%d settings, %d known", len(words), len(kinds))
	}
	raw, err := parseSettings(words)
	if err != nil {
		t.Fatal(err)
	}
	got, err := policy.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(got)
	if d := cmp.Diff(strings.ReplaceAll(string(b), "null", "[]"), strings.ReplaceAll(string(again), "null", "[]")); d != "" {
		t.Error(d)
	}
}
