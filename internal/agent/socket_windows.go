package agent

import (
	"errors"
	"net"
)

// listen: on Windows sign-ins come through a named pipe, which comes with the
// credential provider.
func listen(string) (net.Listener, error) {
	return nil, errors.New("the local end of the agent comes to Windows with its credential provider; this build can join and nothing more")
}

func isTemporary(error) bool { return false }
