package ui

import (
	"encoding/json"
	"net/http"

	"latchkey/internal/fault"
)

// PasskeyOptions answers a script that is about to ask the browser for a passkey: with the
// options, and with a ticket that the form sends back (empty: none).
func PasskeyOptions(r *Request, ticket string, options json.RawMessage) error {
	return sayJSON(r, http.StatusOK, map[string]any{"options": options, "ticket": ticket})
}

// PasskeySays answers it with why there are none.
func PasskeySays(r *Request, f *fault.Fault) error {
	return sayJSON(r, f.Status(), map[string]any{"says": f.Detail})
}

func sayJSON(r *Request, status int, body map[string]any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r.W.Header().Set("Content-Type", "application/json")
	r.W.WriteHeader(status)
	if _, err := r.W.Write(b); err != nil {
		r.Log.DebugContext(r.Context(), "an answer was not taken", "error", err)
	}
	return nil
}
