package authenticator

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
)

// drawIcon draws the logo as a picture of size by size pixels, for systems that take no
// drawing: a key whose bit is a latch, on the whole ground, so that a system may round it
// as it likes. The lines are those of icon.svg, somewhat smaller (a mask may cut a fifth
// off at each side).
func drawIcon(size int) []byte {
	ground, line := color.RGBA{0x34, 0x54, 0xd1, 0xff}, color.RGBA{0xff, 0xff, 0xff, 0xff}
	const field, thick = 32.0, 2.6
	strokes := [][4]float64{{15.6, 16.3, 24, 24}, {20.8, 21.1, 23, 18.8}}
	img := image.NewRGBA(image.Rect(0, 0, size, size))
	scale := float64(size) / field
	for y := range size {
		for x := range size {
			// The middle of the pixel on the drawing's field, which is shrunk around its centre.
			px := ((float64(x)+.5)/scale-16)/.86 + 16.6
			py := ((float64(y)+.5)/scale-16)/.86 + 16.4
			d := math.Abs(math.Hypot(px-12, py-13) - 4.8)
			for _, s := range strokes {
				d = math.Min(d, toLine(px, py, s))
			}
			// How much of the pixel the line covers, nearly.
			cover := math.Min(1, math.Max(0, (thick/2-d)*scale*.86+.5))
			mix := func(a, b uint8) uint8 { return uint8(float64(a) + (float64(b)-float64(a))*cover + .5) }
			img.SetRGBA(x, y, color.RGBA{mix(ground.R, line.R), mix(ground.G, line.G), mix(ground.B, line.B), 0xff})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err) // memory takes everything
	}
	return b.Bytes()
}

// toLine is how far a point is from a line with ends.
func toLine(x, y float64, l [4]float64) float64 {
	dx, dy := l[2]-l[0], l[3]-l[1]
	t := math.Min(1, math.Max(0, ((x-l[0])*dx+(y-l[1])*dy)/(dx*dx+dy*dy)))
	return math.Hypot(x-l[0]-t*dx, y-l[1]-t*dy)
}
