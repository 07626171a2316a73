//go:build !linux

package key

// Plugged finds none: on this system the machine's own programs hold security keys.
func Plugged() ([]Port, error) { return nil, nil }
