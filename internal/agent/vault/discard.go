package vault

import (
	"context"
	"errors"
	"os"
)

// Discard removes the offline data of an identity that this machine had before:
// its indices in the TPM, as far as the ledger names them, and its folder.
func Discard(ctx context.Context, cfg Config) error {
	v, err := Open(ctx, cfg)
	if err != nil {
		return errors.Join(err, os.RemoveAll(cfg.Dir))
	}
	v.mu.Lock()
	_, err = v.wipe(ctx, "", "replaced")
	if v.st != nil && v.st.Counter != 0 && cfg.Device != nil {
		err = errors.Join(err, cfg.Device.Reclaim(ctx, v.st.Counter))
	}
	v.mu.Unlock()
	return errors.Join(err, v.Close(), os.RemoveAll(cfg.Dir))
}
