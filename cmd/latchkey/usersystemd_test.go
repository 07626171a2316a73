//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// userSystemd runs a script with a user's systemd of its own, in namespaces, where it
// finds what it looks for in /run. The script gets $AGENT.
const userSystemd = `
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user && chmod 700 /run/user || exit 9
export XDG_RUNTIME_DIR=/run/user
/lib/systemd/systemd --user >"$HOME/systemd.log" 2>&1 &
for i in $(seq 100); do
	case $(systemctl --user is-system-running 2>/dev/null) in running|degraded) break;; esac
	sleep 0.1
done
set -e
latchkey certificate install --socket "$AGENT"
latchkey certificate show
systemctl --user show latchkey-certificate.timer -p ActiveState -p UnitFileState -p NextElapseUSecRealtime
touch "$HOME/installed"
for i in $(seq 100); do [ -e "$HOME/go" ] && break; sleep 0.1; done
systemctl --user start latchkey-certificate.service
systemctl --user show latchkey-certificate.service -p Result -p ExecMainStatus
`

// TestM4ARunningSystemdRenews: the timer of a real systemd of a user's is there after
// install, and what it starts renews a certificate whose time has come, browsers included.
func TestM4ARunningSystemdRenews(t *testing.T) {
	r := newCertRig(t)
	if _, err := os.Stat("/lib/systemd/systemd"); err != nil {
		t.Fatal("systemd is not installed: it is what starts the renewal (apt-get install systemd)")
	}
	// The first one was issued 25 of 30 days ago: its time has come.
	r.clock.Advance(-25 * 24 * time.Hour)
	namespaces := []string{"--mount", "--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Geteuid() != 0 {
		namespaces = append(namespaces, "--user", "--map-root-user")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append(namespaces, "bash", "-c", userSystemd)...)
	cmd.Env = append(os.Environ(), "AGENT="+r.socket)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	r.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(r.home, "installed")); err == nil {
			break
		}
		if time.Now().After(until) {
			_ = cmd.Process.Kill()
			<-ended
			log, _ := os.ReadFile(filepath.Join(r.home, "systemd.log"))
			t.Fatalf("nothing is installed:\n%s\n%s", &said, log)
		}
	}
	r.inBrowsers(1)
	r.clock.Advance(25 * 24 * time.Hour)
	r.must(os.WriteFile(filepath.Join(r.home, "go"), nil, 0o600))
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	out := said.String()
	for _, want := range []string{"It is renewed by itself from ", "latchkey-certificate.timer, daily", "ActiveState=active", "UnitFileState=enabled", "Result=success", "ExecMainStatus=0"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "NextElapseUSecRealtime=\n") || !strings.Contains(out, "NextElapseUSecRealtime=") {
		t.Errorf("the timer does not come again:\n%s", out)
	}
	r.inBrowsers(2)
}
