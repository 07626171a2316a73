package vault

import (
	"context"
	"errors"
	"os"
)

// Discard removes the offline data of an identity that this machine had before:
// its indices in the TPM, as far as the ledger names them, and its folder. The
// keys of the server that it belonged to are not needed.
func Discard(ctx context.Context, cfg Config) error {
	v, err := Open(ctx, cfg)
	if err != nil {
		return errors.Join(err, os.RemoveAll(cfg.Dir))
	}
	v.mu.Lock()
	var handles []uint32
	if v.st != nil && v.st.Counter != 0 {
		handles = append(handles, v.st.Counter)
	}
	if v.led != nil {
		handles = append(handles, v.led.Pending...)
		for _, us := range v.led.Users {
			if us.Generation != 0 && us.Class == ClassTPM {
				handles = append(handles, us.FailHandle, us.PassHandle)
			}
		}
	}
	v.mu.Unlock()
	if cfg.Device != nil && len(handles) > 0 {
		err = cfg.Device.Reclaim(ctx, handles...)
	}
	return errors.Join(err, v.Close(), os.RemoveAll(cfg.Dir))
}
