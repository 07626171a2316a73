package rest

import (
	"strings"
	"testing"
)

func TestPlaceRemark(t *testing.T) {
	for address, want := range map[string]string{
		"https://latchkey.example.org":                     "",
		"https://latchkey.example.org:8443/authenticator/": "",
		"https://127.0.0.1:8443":                           "this computer alone",
		"https://[::1]:8443":                               "this computer alone",
		"https://[::ffff:127.0.0.1]":                       "this computer alone",
		"https://localhost:8443":                           "this computer alone",
		"https://192.0.2.7:8443/authenticator/#e=x":        "IP address",
		"https://[2001:db8::1]":                            "IP address",
		"https://0.0.0.0:8443":                             "address of nobody",
		"https://169.254.1.2:8443":                         "one cable",
		"https://[fe80::1]:8443":                           "one cable",
		"https://keys.local:8443":                          "one network alone",
		"https://keys:8443":                                "without a domain",
		"":                                                 "",
		"https://%zz":                                      "",
	} {
		if got := PlaceRemark(address); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("PlaceRemark(%q) = %q, want %q", address, got, want)
		}
	}
}
