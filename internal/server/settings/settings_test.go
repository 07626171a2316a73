package settings_test

import (
	"strings"
	"testing"

	"latchkey/internal/server/settings"
)

func TestCheckPeopleURL(t *testing.T) {
	for _, good := range []string{"https://a", "https://latchkey.example.org", "https://latchkey.example.org:8443", "https://192.0.2.7:8443", "https://[2001:db8::1]:8443"} {
		if err := settings.CheckPeopleURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "latchkey.example.org", "http://latchkey.example.org", "https://", "https://a/", "https://a/x", "https://a?x", "https://u@a", "https://a:", "https://a:0",
		"https://a:70000", "https://a:443", "https://A.example", "https://a b", "https://ä", "https://" + strings.Repeat("a", 300),
	} {
		if err := settings.CheckPeopleURL(bad); err == nil || !strings.Contains(err.Error(), "allowed is https://") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
