// Command demo plays the main job of Latchkey on this machine: a person opens it with password and code while the server
// is there, and goes on doing so when it is not. `make demo` builds the release programs and runs it.
//
// With root it makes a machine of its own out of namespaces (own /etc, users, loopback) and signs in through the real PAM
// module; nothing of it is left behind. Without root, or where namespaces are forbidden, it plays the same story through
// `latchkey signin` and says so.
//
// At a terminal the person plays: scan the QR code, sign in, sign in again without the server. When standard input is
// not a terminal the demo plays the whole story by itself, prints each step with its result, and exits 0 only if every
// step came out as it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"
)

func main() {
	bin := flag.String("bin", "bin", "folder of the release programs")
	inside := flag.String("inside", "", "the private folder; set by the demo itself when it has entered its namespace")
	noTPM := flag.Bool("no-tpm", false, "play as a machine without a TPM")
	flag.Parse()
	if err := run(*bin, *inside, *noTPM); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// newcomer is a name that nobody has on this machine yet.
func newcomer() string {
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		if _, err := user.Lookup(name); err != nil {
			return name
		}
	}
	return fmt.Sprintf("demo%d", os.Getpid())
}

func run(bin, inside string, noTPM bool) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	for _, p := range []string{"latchkeyd", "latchkey-agent", "latchkey", "pam_latchkey.so"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return fmt.Errorf("%s is not built: run make build", p)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if inside != "" {
		w := &world{ctx: ctx, dir: inside, bin: bin, private: true, user: newcomer(), noTPM: noTPM}
		if err := w.enter(); err != nil {
			return fmt.Errorf("making the namespace: %w", err)
		}
		if err := w.addUser(); err != nil {
			return err
		}
		if err := w.stacks(); err != nil {
			return err
		}
		return play(w)
	}

	dir, err := os.MkdirTemp("", "latchkey-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	why := namespaces()
	if why == nil {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		// The innermost process is the first of its own world: when it ends, everything in it ends.
		cmd := exec.Command("unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
			self, "-bin", bin, "-inside", dir, fmt.Sprintf("-no-tpm=%v", noTPM))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		var exit *exec.ExitError
		if err := cmd.Run(); errors.As(err, &exit) {
			return errors.New("the story did not come out as it should")
		} else if err != nil {
			return err
		}
		return nil
	}
	fmt.Printf("Playing without PAM, through `latchkey signin`: %v.\n", why)
	me, err := user.Current() // the agent runs under this account, and who calls sudo is this account
	if err != nil {
		return err
	}
	return play(&world{ctx: ctx, dir: dir, bin: bin, user: me.Username, noTPM: noTPM})
}

// namespaces tells why a private machine can not be made here, or nil.
func namespaces() error {
	if os.Geteuid() != 0 {
		return errors.New("this is not root, and only root can make a machine of its own with PAM")
	}
	for _, p := range []string{"unshare", "pamtester", "nft", "ip", "useradd"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed", p)
		}
	}
	out, err := exec.Command("unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--propagation", "private", "sh", "-c",
		`mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc &&
		 nft add table inet t && nft add chain inet t c '{ type filter hook input priority 0; }' && nft add rule inet t c tcp dport 1 drop`).CombinedOutput()
	if err != nil {
		return fmt.Errorf("namespaces are not allowed here (%s)", strings.TrimSpace(string(out)))
	}
	return nil
}

// atTerminal tells whether a person plays.
func atTerminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}
