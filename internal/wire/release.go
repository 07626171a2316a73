//go:build !latchkey_test

package wire

func pretended(r Range) Range { return r }

func later(b []byte, _ int) []byte { return b }
