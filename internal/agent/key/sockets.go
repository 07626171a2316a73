//go:build latchkey_test

package key

import (
	"net"
	"os"
	"path/filepath"
)

// Find finds what is plugged in, and software keys of a test: sockets in the folder that
// LATCHKEY_TEST_KEYS names.
func Find() ([]Port, error) {
	ports, err := Plugged()
	dir := os.Getenv("LATCHKEY_TEST_KEYS")
	if err != nil || dir == "" {
		return ports, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, n := range names {
		if c, err := net.Dial("unix", n); err == nil {
			ports = append(ports, Over(c))
		}
	}
	return ports, err
}
