//go:build !unix

package daemon

// withoutCore has nothing to do: these systems write no core files by themselves.
func withoutCore() {}
