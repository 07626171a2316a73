//go:build unix

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// listen makes the socket. Everybody may connect; who he is says the kernel.
func listen(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) || len(path) > 103 {
		return nil, fmt.Errorf("socket %q: allowed is an absolute path of at most 103 octets", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	// Whoever can write to the folder can put his own socket there, and collect
	// passwords.
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid != 0 && int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("socket: folder %s must belong to root, or to whom the agent runs as, and nobody else may write to it; run: chown root %[1]s && chmod 755 %[1]s", dir)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // peers are judged by SO_PEERCRED
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("socket: %s is there and is no socket; remove it or give another with --socket", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("socket: another program listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("socket: %w", err)
	}
	return os.Remove(path)
}

// isTemporary tells errors of accept that pass.
func isTemporary(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
