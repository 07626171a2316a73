//go:build !linux && !windows

package tpm

import "fmt"

// findTPM finds nothing: there are no TPMs on these systems, only emulators'
// sockets.
func findTPM() (address, error) { return address{}, ErrNone }

func openDevice(path string) (conn, error) {
	return nil, fmt.Errorf("%w: no TPM devices on this system (%s)", ErrNone, path)
}
