//go:build unix

package store

import (
	"io/fs"
	"syscall"
)

// protected says that the bits of a mode say who may read.
const protected = true

func ownerOf(st fs.FileInfo) (uid int, known bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(sys.Uid), true
}
