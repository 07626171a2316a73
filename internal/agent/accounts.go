package agent

import (
	"bytes"
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// accounts is what the agent knows of the machine's users.
type accounts interface {
	// Names lists the names of a uid, the first one first.
	Names(ctx context.Context, uid uint32) []string
	// UID looks a name up.
	UID(ctx context.Context, name string) (uint32, bool)
}

// passwdAccounts reads /etc/passwd, and asks getent for those who are not in it.
type passwdAccounts struct {
	file   string
	getent string // absolute path; empty: not asked
}

func (p passwdAccounts) Names(ctx context.Context, uid uint32) []string {
	names, _ := parsePasswd(readPasswd(p.file), func(_ string, u uint32) bool { return u == uid })
	if len(names) == 0 {
		names, _ = parsePasswd(p.ask(ctx, strconv.FormatUint(uint64(uid), 10)), func(_ string, u uint32) bool { return u == uid })
	}
	return names
}

func (p passwdAccounts) UID(ctx context.Context, name string) (uint32, bool) {
	same := func(n string, _ uint32) bool { return n == name }
	_, uids := parsePasswd(readPasswd(p.file), same)
	if len(uids) == 0 && askable(name) {
		_, uids = parsePasswd(p.ask(ctx, name), same)
	}
	if len(uids) == 0 {
		return 0, false
	}
	return uids[0], true
}

// askable keeps names that another program could take for something else away
// from it.
func askable(name string) bool {
	return name != "" && len(name) <= 256 && name[0] != '-' && !strings.ContainsAny(name, ":\n\x00")
}

func (p passwdAccounts) ask(ctx context.Context, key string) []byte {
	if p.getent == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.getent, "passwd", key)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil || len(out) > 64<<10 {
		return nil
	}
	return out
}

// parsePasswd gives name and uid of the lines that fit.
func parsePasswd(b []byte, fits func(name string, uid uint32) bool) (names []string, uids []uint32) {
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		f := bytes.SplitN(line, []byte(":"), 4)
		if len(f) < 4 || len(f[0]) == 0 || len(f[0]) > 256 || f[0][0] == '#' {
			continue
		}
		uid, err := strconv.ParseUint(string(f[2]), 10, 32)
		if err != nil || !fits(string(f[0]), uint32(uid)) {
			continue
		}
		names, uids = append(names, string(f[0])), append(uids, uint32(uid))
	}
	return names, uids
}
