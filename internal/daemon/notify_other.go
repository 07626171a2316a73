//go:build !unix

package daemon

// Notify has nobody to speak to.
func Notify(string) {}
