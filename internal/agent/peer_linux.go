package agent

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who connected (unix(7), SO_PEERCRED).
func peerOf(c *net.UnixConn) (uid uint32, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, 0, cerr
	}
	if err != nil {
		return 0, 0, err
	}
	// A peer in a user or process namespace that we can not see has the overflow
	// uid or pid 0: it is nobody.
	return cred.Uid, int(cred.Pid), nil
}
