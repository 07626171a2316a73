package entry

import (
	"net/url"
	"strings"
	"testing"
)

func TestSomebodyIsSentBackToAPageOfThisServer(t *testing.T) {
	for in, want := range map[string]string{
		"/console/users?q=a%20b#x": "/console/users?q=a%20b#x",
		"/me":                      "/me",
		"":                         "/",
		"console":                  "/",
		"//evil.example":           "/",
		"/\\evil.example":          "/",
		"/%5cevil.example":         "/",
		"/%2fevil.example":         "/",
		"https://evil.example/":    "/",
		"javascript:alert(1)":      "/",
		"/a\nb":                    "/",
		"/a\x00":                   "/",
		"/signin?next=/":           "/",
		"/signout":                 "/",
		"/stepup":                  "/",
		"/setup/confirm":           "/",
		"/api/v1/users":            "/",
		"/signing":                 "/signing",
		strings.Repeat("/a", 1001): "/",
	} {
		if got := Next(in); got != want {
			t.Errorf("Next(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzNext(f *testing.F) {
	for _, s := range []string{"/console", "//x", "/\\x", "/%2f%2fx", "/a?b=c#d", "http://x/", "/%0d%0aSet-Cookie:x"} {
		f.Add(s)
	}
	base, _ := url.Parse("https://latchkey.test/signin")
	f.Fuzz(func(t *testing.T, s string) {
		got := Next(s)
		u, err := base.Parse(got)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || u.User != nil {
			t.Fatalf("Next(%q) = %q leads to %v, %v", s, got, u, err)
		}
		if strings.ContainsAny(got, "\r\n\\\x00\t") || strings.HasPrefix(got, "//") {
			t.Fatalf("Next(%q) = %q", s, got)
		}
		if Next(got) != got {
			t.Fatalf("Next(%q) = %q is not kept", s, got)
		}
	})
}
