package main

import (
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

func TestParseServer(t *testing.T) {
	for in, want := range map[string]string{
		"https://Login.Example.org":       "https://login.example.org",
		"https://login.example.org/":      "https://login.example.org",
		"https://login.example.org:443":   "https://login.example.org",
		"https://login.example.org:8443/": "https://login.example.org:8443",
		"https://127.0.0.1:8443":          "https://127.0.0.1:8443",
		"https://[::1]:8443":              "https://[::1]:8443",
		"http://login.example.org":        "",
		"https://":                        "",
		"https://user:pw@host":            "",
		"https://host/path":               "",
		"https://host?x=1":                "",
		"https://host#x":                  "",
		"https://host:":                   "",
		"https://host:0":                  "",
		"https://host:070":                "",
		"https://host:99999":              "",
		"https://ho st":                   "",
		"https://höst":                    "",
		"login.example.org":               "",
	} {
		got, err := parseServer(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

func FuzzParseServer(f *testing.F) {
	f.Add("https://host:8443")
	f.Add("https://[::1%25eth0]:1")
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseServer(s)
		if err != nil {
			return
		}
		if again, err := parseServer(at); err != nil || again != at {
			t.Fatalf("%q gives %q gives %q, %v", s, at, again, err)
		}
		if u, err := url.Parse(at); err != nil || u.Scheme != "https" || u.User != nil || u.Path != "" {
			t.Fatalf("%q", at)
		}
	})
}

func FuzzParseFingerprint(f *testing.F) {
	print := strings.Repeat("ab", 32)
	for _, s := range []string{print, strings.ToUpper(print), "SHA256:" + print, "SHA-256 " + print, "ab:" + print, ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseFingerprint(s)
		if err != nil {
			return
		}
		if again, err := parseFingerprint(hex.EncodeToString(b)); err != nil || string(again) != string(b) || len(b) != 32 {
			t.Fatalf("%q", s)
		}
	})
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte(`{"version":1,"current":"https://h","servers":{"https://h":{"ca_sha256":"` + strings.Repeat("ab", 32) + `","name":"anna","session":"ls_x"}}}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"servers":{"https://h":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProfile(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := parseProfile(again); err != nil || len(q.Servers) != len(p.Servers) {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
