//go:build !latchkey_test

// Package failpoint names the steps at which a process may be killed in tests.
// In release builds Hit does nothing and is inlined away.
package failpoint

// Hit marks the named step.
func Hit(string) {}
