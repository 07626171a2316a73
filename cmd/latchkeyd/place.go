package main

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/server"
)

// ownPort tells whether the system chooses the port, so that two listeners may
// have the same address.
func ownPort(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	return err == nil && port == "0"
}

// hostName tells whether s can stand in a certificate.
func hostName(s string) bool {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Zone() == "" // a certificate can not name one
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// elsewhere tells whether the command line puts the server somewhere else than
// where the host's own lies. Saying the usual folder aloud changes nothing.
func elsewhere(c *cobra.Command, data string) bool {
	return c.Flags().Changed("data") && filepath.Clean(data) != defaultData
}

// adminSocket is where the host's own server listens for administrators, or one
// that was put elsewhere.
func adminSocket(data string) string {
	if filepath.Clean(data) == defaultData {
		return server.DefaultAdminSocket
	}
	return filepath.Join(data, "admin.sock")
}
