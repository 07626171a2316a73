package factor

import (
	"fmt"
	"html"
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

// svgQuiet is the border of a QR code on a page, as the standard asks.
const svgQuiet = 4

// SVG draws s as a QR code for a page: black on white whatever the page's colours
// are, because apps read it so, and sharp at every size. Nothing in it is inside of
// a style attribute, which the pages' security policy forbids; label is read out
// instead of the picture.
func SVG(s, label string) (string, error) {
	code, err := qr.Encode(s, qr.M)
	if err != nil {
		return "", fmt.Errorf("make a QR code: %w", err)
	}
	size := code.Size + 2*svgQuiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="qr" role="img" aria-label="%s" viewBox="0 0 %d %d" width="%d" height="%d" shape-rendering="crispEdges">`,
		html.EscapeString(label), size, size, 5*size, 5*size)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, size, size)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			if !code.Black(x, y) {
				continue
			}
			n := 1
			for x+n < code.Size && code.Black(x+n, y) {
				n++
			}
			fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+svgQuiet, y+svgQuiet, n, n)
			x += n
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String(), nil
}
