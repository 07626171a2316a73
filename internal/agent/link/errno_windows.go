package link

import (
	"syscall"

	"golang.org/x/sys/windows"
)

var (
	connRefused = []syscall.Errno{windows.WSAECONNREFUSED}
	unreachable = []syscall.Errno{windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAENETDOWN, windows.WSAEADDRNOTAVAIL, windows.WSAEACCES}
)
