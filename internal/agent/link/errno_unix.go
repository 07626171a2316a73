//go:build unix

package link

import "syscall"

var (
	connRefused = []syscall.Errno{syscall.ECONNREFUSED}
	unreachable = []syscall.Errno{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.EACCES}
)
