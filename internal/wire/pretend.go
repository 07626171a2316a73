//go:build latchkey_test

package wire

import (
	"fmt"
	"os"
	"slices"
)

// pretended is the range in LATCHKEY_TEST_WIRE ("1-2"), so that a test can have an
// agent or a server of another version.
func pretended(r Range) Range {
	var p Range
	if _, err := fmt.Sscanf(os.Getenv("LATCHKEY_TEST_WIRE"), "%d-%d", &p.Oldest, &p.Newest); err != nil || p.Oldest < 1 || p.Newest < p.Oldest {
		return r
	}
	return p
}

// later adds what no present server knows to a body of a version that does not exist
// yet.
func later(b []byte, version int) []byte {
	if version <= Version || len(b) < 2 || b[0] != '{' {
		return b
	}
	field := fmt.Sprintf(`"of_version_%d":true`, version)
	if len(b) > 2 {
		field += ","
	}
	out := slices.Concat(b[:1], []byte(field), b[1:])
	clear(b)
	return out
}
