package agent

import (
	"errors"
	"os"
)

// On Windows the credential provider brings break-glass by SID; there is no list
// of uids.
func openList(string) (*os.File, error) { return nil, os.ErrNotExist }

func checkList(os.FileInfo) error { return errors.New("has no meaning here") }
