//go:build unix

package identity

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

func checkOwner(dir string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("state folder %s: its owner can not be read", dir)
	case int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("state folder %s: it belongs to uid %d, not to uid %d that runs the agent; run: chown %d %s", dir, sys.Uid, os.Geteuid(), os.Geteuid(), dir)
	case st.Mode().Perm() != 0o700:
		return fmt.Errorf("state folder %s: its mode is %04o and must be 0700, nobody else may look in; run: chmod 0700 %s", dir, st.Mode().Perm(), dir)
	}
	return nil
}
