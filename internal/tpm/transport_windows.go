package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2/transport/windowstpm"
)

// findTPM takes TBS, Windows' resource manager, if it knows a TPM 2.0.
func findTPM() (address, error) {
	t, err := windowstpm.Open()
	if err != nil {
		return address{}, fmt.Errorf("%w: %w", ErrNone, err)
	}
	_ = t.Close()
	return address{how: "tbs"}, nil
}

// openDevice ignores the path: on Windows all TPMs are reached through TBS.
func openDevice(string) (conn, error) {
	t, err := windowstpm.Open()
	if err != nil {
		return nil, err
	}
	return &blockingConn{send: t.Send, closeFn: func() { _ = t.Close() }}, nil
}
