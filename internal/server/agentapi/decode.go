package agentapi

import (
	"bytes"
	"encoding/json"
	"io"

	"latchkey/internal/fault"
)

// Decode reads one JSON value of a documented form into a struct of package wire:
// no field that is not known, nothing behind it. The fault does not repeat what
// was sent.
func Decode(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.New(fault.BadRequest, nil)
	}
	if _, err := d.Token(); err != io.EOF {
		return fault.New(fault.BadRequest, nil)
	}
	return nil
}
