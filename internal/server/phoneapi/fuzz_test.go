package phoneapi_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"latchkey/internal/server/push"
	"latchkey/internal/server/store/storetest"
)

// FuzzBodies sends any body to every call of the door, as a phone that is enrolled.
func FuzzBodies(f *testing.F) {
	for i, body := range []string{
		`{"name":"x"}`, `{"endpoint":"https://push.example.org/x","p256dh":"AAAA","auth":"AAAA"}`, `{"decision":"approve","number":"42","nonce":"n","content_hash":"h","signature":"s"}`,
		`{"ticket":"AAAA","credential":{"id":"x","type":"public-key"}}`, `{"code":"AAAA","public_key":"AAAA","proof":"AAAA"}`, `{`, `[]`, "\x00", `{"name":1e999}`,
	} {
		f.Add(uint8(i), body)
	}
	r := newRig(f, storetest.SQLite(f))
	p := r.phone("anna", "phone")
	r.mustSend(r.ask("t1"))
	req, _ := r.next(p)
	do := func(method, path, body string) int {
		c := httptest.NewRequest(method, "https://latchkey.test"+push.Base+strings.ReplaceAll(path, "{id}", req.ID), strings.NewReader(body))
		p.SignCall(c, []byte(body))
		w := httptest.NewRecorder()
		r.door.ServeHTTP(w, c)
		return w.Code
	}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		calls := []string{
			"PATCH account", "POST subscription", "POST requests/{id}/answer", "POST verification", "POST enrol", "POST verification/begin", "DELETE subscription", "POST requests/x/answer",
		}
		method, path, _ := strings.Cut(calls[int(which)%len(calls)], " ")
		if status := do(method, path, body); status >= 500 {
			t.Errorf("%s %s with %q: %d", method, path, body, status)
		}
	})
}
