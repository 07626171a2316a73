package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
)

// breakGlass is the list of accounts that may sign in at a local seat in every
// state (S8). The module reads it in the same way when the agent is dead.
type breakGlass struct{ file string }

const maxBreakGlass = 4096

// lists tells whether the uid is on the list. An error says what is wrong with the
// file, and then nobody is.
func (b breakGlass) lists(uid uint32) (bool, error) {
	if b.file == "" {
		return false, nil
	}
	f, err := openList(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("break-glass list: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("break-glass list: %w", err)
	}
	if err := checkList(st); err != nil {
		return false, fmt.Errorf("break-glass list %s %w: nobody is on it", b.file, err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxBreakGlass+1))
	if err != nil {
		return false, fmt.Errorf("break-glass list: %w", err)
	}
	if len(raw) > maxBreakGlass {
		return false, fmt.Errorf("break-glass list %s is larger than %d octets: nobody is on it", b.file, maxBreakGlass)
	}
	return listed(raw, uid), nil
}

// listed looks for a line that is exactly the decimal uid. Lines that are anything
// else list nobody: no blanks, no leading zeros, no comments, no CR.
func listed(raw []byte, uid uint32) bool {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.SplitSeq(string(raw), "\n") {
		if line == want {
			return true
		}
	}
	return false
}
