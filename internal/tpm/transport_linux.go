package tpm

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// resourceManager is the kernel's: it keeps processes apart and cleans up.
const resourceManager = "/dev/tpmrm0"

func findTPM() (address, error) {
	if _, err := os.Stat(resourceManager); err != nil {
		return address{}, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return address{"device", resourceManager}, nil
}

// openDevice uses plain blocking calls: with a descriptor that does not block,
// the kernel's TPM driver answers a read with nothing until the TPM is done.
func openDevice(path string) (conn, error) {
	fd, err := again(func() (int, error) { return syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFCHR {
		_ = syscall.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("not a TPM device")}
	}
	return &blockingConn{
		send: func(command []byte) ([]byte, error) {
			n, err := again(func() (int, error) { return syscall.Write(fd, command) })
			if err != nil {
				return nil, os.NewSyscallError("write", err)
			}
			if n != len(command) {
				return nil, fmt.Errorf("%d of %d octets written", n, len(command))
			}
			rsp := make([]byte, maxAnswer)
			if n, err = again(func() (int, error) { return syscall.Read(fd, rsp) }); err != nil {
				return nil, os.NewSyscallError("read", err)
			}
			return rsp[:n], nil
		},
		closeFn: func() { _ = syscall.Close(fd) },
	}, nil
}

func again(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}
