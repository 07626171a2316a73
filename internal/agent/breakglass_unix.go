//go:build unix

package agent

import (
	"errors"
	"os"
	"syscall"
)

// openList follows no symbolic link, and does not wait for a FIFO in its place.
func openList(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC|syscall.O_NOCTTY, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.New("it is a symbolic link: nobody is on it")
	}
	return f, err
}

// checkList wants a file that only root, or whom the agent runs as, can write.
func checkList(st os.FileInfo) error {
	if err := regular(st); err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return errors.New("is not owned by root")
	}
	return nil
}

func regular(st os.FileInfo) error {
	if !st.Mode().IsRegular() {
		return errors.New("is not a regular file")
	}
	if st.Mode().Perm()&0o022 != 0 {
		return errors.New("is writable for others than its owner")
	}
	return nil
}
