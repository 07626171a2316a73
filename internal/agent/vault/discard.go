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
	handles := v.handles()
	v.mu.Unlock()
	if cfg.Device != nil && len(handles) > 0 {
		err = cfg.Device.Reclaim(ctx, handles...)
	}
	return errors.Join(err, v.Close(), os.RemoveAll(cfg.Dir))
}

// handles are those of all indices in the TPM that this state knows of.
func (v *Vault) handles() (all []uint32) {
	if v.st != nil && v.st.Counter != 0 {
		all = append(all, v.st.Counter)
	}
	if v.led != nil {
		all = append(all, v.led.Pending...)
		for _, us := range v.led.Users {
			if us.Generation != 0 && us.Class == ClassTPM {
				all = append(all, us.FailHandle, us.PassHandle)
			}
		}
	}
	return all
}
