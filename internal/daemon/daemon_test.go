//go:build unix

package daemon

import (
	"bytes"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"latchkey/internal/config"
)

func TestExitCodes(t *testing.T) {
	broken := errors.New("the disk is full")
	for _, c := range []struct {
		name string
		args []string
		err  error
		code int
		says string
	}{
		{name: "done", args: []string{"work"}, code: 0},
		{name: "failed", args: []string{"work"}, err: broken, code: 1, says: "thing: the disk is full\n"},
		{name: "a wrong argument", args: []string{"work"}, err: Usage("%w, or so", broken), code: 2, says: "thing: the disk is full, or so\nthing: see: thing work --help\n"},
		{name: "wrong settings", args: []string{"work"}, err: &config.Error{Problems: []config.Problem{{Fault: "odd"}}}, code: 2, says: "thing: settings: odd\n"},
		{name: "an unknown flag", args: []string{"work", "--odd"}, code: 2, says: "thing: unknown flag: --odd\nthing: see: thing work --help\n"},
		{name: "a word too many", args: []string{"work", "hard"}, code: 2, says: "thing: \"hard\" is one word too many\nthing: see: thing work --help\n"},
		{name: "an unknown command", args: []string{"play"}, code: 2, says: "thing: there is no command \"play\"; there are work and version\nthing: see: thing --help\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			work := &cobra.Command{Use: "work", Args: NoArgs, RunE: func(*cobra.Command, []string) error { return c.err }}
			if code := Run(t.Context(), Command("thing", "A thing", work), c.args, &out, &errs); code != c.code || errs.String() != c.says {
				t.Errorf("exit code %d, want %d; it says %q, want %q", code, c.code, errs.String(), c.says)
			}
		})
	}
}

func TestTheServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	Notify("READY=1")
	b := make([]byte, 64)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("the service manager hears %q (%v)", b[:n], err)
	}
}
