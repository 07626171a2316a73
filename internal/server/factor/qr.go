package factor

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the light border around a QR code in modules. The standard asks for 4;
// apps read 2, and a terminal of 24 lines has no room for more.
const quiet = 2

// QR writes s as a QR code in half blocks, two rows of modules a line, light
// modules drawn: right side up on a dark screen, inverted on a light one, which apps
// read too. Nothing in it but blocks, spaces and line feeds.
func QR(s string) (string, error) {
	code, err := qr.Encode(s, qr.L)
	if err != nil {
		return "", fmt.Errorf("make a QR code: %w", err)
	}
	light := func(x, y int) bool {
		return x < 0 || y < 0 || x >= code.Size || y >= code.Size || !code.Black(x, y)
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		if y > -quiet {
			b.WriteByte('\n')
		}
		for x := -quiet; x < code.Size+quiet; x++ {
			below := y+1 < code.Size+quiet && light(x, y+1)
			switch above := light(x, y); {
			case above && below:
				b.WriteRune('█')
			case above:
				b.WriteRune('▀')
			case below:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
	}
	return b.String(), nil
}
