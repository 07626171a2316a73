// Command pam measures what signing in costs the person who waits: Latchkey's PAM module beside the modules that an
// administrator would else choose, all through pamtester, in one run, each sign-in in turn with the others, so that
// whatever else this machine does meets all of them alike.
//
// `make bench` builds the programs, sees to it that the peers are installed and runs it, as root: it makes a machine of
// its own out of namespaces (own /etc, users, loopback, sssd and slapd) and leaves nothing behind. Its standard output is
// Markdown; what it is doing stands on standard error. README.md in the folder above says what each figure means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	o := options{}
	flag.StringVar(&o.root, "root", ".", "folder of the repository, with bin/ and .cache/bin-test/ built")
	flag.StringVar(&o.dir, "dir", "", "folder on a real disk for what is written; default a new one below TMPDIR")
	flag.IntVar(&o.n, "n", 200, "sign-ins of each kind")
	flag.IntVar(&o.outages, "outages", 5, "times that the directory and the server are taken away")
	flag.BoolVar(&o.noSSS, "no-sss", false, "leave sssd and slapd out")
	flag.BoolVar(&o.inside, "inside", false, "set by the program itself when it has entered its namespace")
	flag.Parse()
	if err := start(o); err != nil {
		fmt.Fprintf(os.Stderr, "bench/pam: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	root, dir     string
	n, outages    int
	noSSS, inside bool
}

func start(o options) error {
	var err error
	if o.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.inside {
		w := &world{ctx: ctx, options: o}
		defer w.close()
		return w.run()
	}
	if os.Geteuid() != 0 {
		return errors.New("the machine that is measured is made of namespaces: run this as root")
	}
	for _, p := range []string{"bin/latchkeyd", "bin/latchkey-agent", "bin/latchkey", "bin/pam_latchkey.so", ".cache/bin-test/latchkey-agent"} {
		if _, err := os.Stat(filepath.Join(o.root, p)); err != nil {
			return fmt.Errorf("%s is not built: run scripts/build and scripts/build --test", p)
		}
	}
	need := []string{"unshare", "pamtester", "nft", "ip", "chpasswd", "swtpm", "openssl"}
	if !o.noSSS {
		need = append(need, "slapd", "slapadd", "sssd")
	}
	for _, p := range need {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed: run scripts/deps bench", p)
		}
	}
	if o.dir, err = os.MkdirTemp(o.dir, "latchkey-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		self, "-inside", "-root", o.root, "-dir", o.dir, "-n", fmt.Sprint(o.n), "-outages", fmt.Sprint(o.outages), fmt.Sprintf("-no-sss=%v", o.noSSS))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return errors.New("the measurement ended early; see above")
	} else if err != nil {
		return err
	}
	return nil
}

// say tells what is going on.
func say(format string, a ...any) { fmt.Fprintf(os.Stderr, "bench/pam: "+format+"\n", a...) }

func sh(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
