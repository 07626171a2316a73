package store

import "io/fs"

// protected: who may read a file the folder's access list says.
const protected = false

func ownerOf(fs.FileInfo) (uid int, known bool) { return 0, false }
