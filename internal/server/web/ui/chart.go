package ui

import (
	"fmt"
	"strings"
)

type bar struct {
	kind       string
	x, y, w, h float64
	tip        string
}

type gridLine struct{ y float64 }

func chartHeight(p BarsProps) int {
	if p.Height > 0 {
		return p.Height
	}
	return 140
}

func at(v []int64, i int) int64 {
	if i < len(v) {
		return v[i]
	}
	return 0
}

// top is the highest column.
func top(p BarsProps) int64 {
	var most int64 = 1
	for i := range p.Labels {
		var sum int64
		for _, s := range p.Series {
			sum += at(s.Values, i)
		}
		most = max(most, sum)
	}
	return most
}

func bars(p BarsProps) []bar {
	n := len(p.Labels)
	if n == 0 {
		return nil
	}
	most, high := float64(top(p)), float64(chartHeight(p)-6)
	step := 720 / float64(n)
	gap := min(step*0.25, 6)
	var out []bar
	for i, label := range p.Labels {
		y := float64(chartHeight(p))
		for _, s := range p.Series {
			v := at(s.Values, i)
			if v <= 0 {
				continue
			}
			h := max(float64(v)/most*high, 1.5)
			y -= h
			out = append(out, bar{kindOf(s.Kind), float64(i)*step + gap/2, y, step - gap, h, fmt.Sprintf("%s: %s %s", label, Count(v), s.Label)})
		}
	}
	return out
}

func grid(p BarsProps) []gridLine {
	h := float64(chartHeight(p))
	return []gridLine{{6}, {6 + (h-6)/2}}
}

func points(values []int64) string {
	if len(values) == 0 {
		return ""
	}
	var most int64 = 1
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for i, v := range values {
		x := 50.0
		if len(values) > 1 {
			x = float64(i) / float64(len(values)-1) * 100
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", x, 22-float64(v)/float64(most)*20)
	}
	return strings.TrimSpace(b.String())
}

func share(value, whole int64) int {
	if whole <= 0 || value <= 0 {
		return 0
	}
	return int(min(100, value*100/whole))
}

// meterKind warns when a fifth is left (O6).
func meterKind(value, whole int64) string {
	switch {
	case value <= 0:
		return Bad
	case value*5 <= whole:
		return Warn
	}
	return OK
}
