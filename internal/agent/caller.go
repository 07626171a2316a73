package agent

import (
	"errors"
	"os"
)

// caller is who speaks at the other end of the socket, as the kernel says.
type caller struct {
	uid  uint32
	peer process // zero where the system does not tell
}

// privileged callers may begin for anybody: root, and whom the agent itself runs
// as, so that a demonstration needs no root.
func (c caller) privileged() bool { return c.uid == 0 || int64(c.uid) == int64(os.Geteuid()) }

// errNoPeer is why nobody is served on this system.
var errNoPeer = errors.New("this system does not say who is at the other end of a socket")
