package identity

import (
	"context"

	"latchkey/internal/secret"
	"latchkey/internal/tpm"
)

// NewKey makes a machine key: in the TPM if there is one, else for a file.
func NewKey(ctx context.Context, device *tpm.Device) (Key, error) {
	if device == nil {
		return fileKey()
	}
	record, _, err := device.CreateKey(ctx)
	if err != nil {
		return Key{}, err
	}
	return Key{Place: KeyTPM, Record: secret.New(record)}, nil
}
