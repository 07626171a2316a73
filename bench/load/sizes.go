package main

import (
	"context"
	"os"
	"path/filepath"
)

// sizes are those of the programs as they are shipped.
func sizes(_ context.Context, o *options, r *report) error {
	r.begin("sizes")
	for _, p := range []string{"latchkey-agent", "latchkey", "latchkeyd", "pam_latchkey.so"} {
		info, err := os.Stat(filepath.Join(o.bin, p))
		if err != nil {
			return err
		}
		r.add(p, float64(info.Size())/1e6, "MB", "")
	}
	return nil
}
