//go:build unix

package daemon

import (
	"net"
	"os"
)

// Notify says a word to the service manager that started us, if one listens
// (sd_notify(3)): READY=1, STOPPING=1. systemd names its socket in the environment
// and nowhere else.
func Notify(word string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(word))
}
