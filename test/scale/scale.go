// Package scale says how long a test's long form is. The tests of attacks and faults have a short
// form, which every `make test` runs, and a long one for `make test-abuse`, which sets
// LATCHKEY_TEST_LONG=1. The long form tries more often, and some things are tried only there.
package scale

import "os"

// Long says whether the long form was asked for.
func Long() bool { return os.Getenv("LATCHKEY_TEST_LONG") == "1" }

// N is the number of tries: short, or long where the long form was asked for.
func N(short, long int) int {
	if Long() {
		return long
	}
	return short
}
