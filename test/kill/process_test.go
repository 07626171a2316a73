//go:build e2e

package kill

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// programs copies the programs under test, so that a build in the meantime changes nothing.
var programs = sync.OnceValues(func() (string, error) {
	from, err := filepath.Abs(filepath.Join("..", "..", ".cache", "bin-test"))
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "lk-kill-bin-")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"latchkeyd", "latchkey-agent"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s is not there; run scripts/build --test first", filepath.Join(from, name))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o755)
		}
		if err != nil {
			return "", err
		}
	}
	return dir, nil
})

// worldsAtOnce is how many worlds live at the same time: they mostly wait.
const worldsAtOnce = 8

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(4*worldsAtOnce)); err != nil {
		panic(err)
	}
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// process is one program that is started again whenever it was killed.
type process struct {
	t    testing.TB
	name string
	argv []string
	env  []string
	dir  string // of the log and of what arms it
	log  *os.File

	mu     sync.Mutex
	cmd    *exec.Cmd
	gone   chan struct{} // closed when the present one has ended
	keep   bool          // start it again
	deaths int
	ours   bool // we have killed the present one
}

func newProcess(t testing.TB, dir, name string, env []string, argv ...string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, argv: argv, dir: dir, log: log}
	p.env = append(append(os.Environ(), env...), "LATCHKEY_TEST_FAILPOINT="+p.armFile())
	return p
}

func (p *process) armFile() string { return filepath.Join(p.dir, p.name+".arm") }

// arm has the program killed when it passes the point for the (skip+1)th time.
func (p *process) arm(point string, skip int) {
	p.t.Helper()
	tmp := p.armFile() + ".new"
	if err := os.WriteFile(tmp, fmt.Appendf(nil, "%s %d %d", point, skip, time.Now().UnixNano()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(tmp, p.armFile()); err != nil {
		p.t.Fatal(err)
	}
}

// disarm tells whether the point was still armed.
func (p *process) disarm() bool { return os.Remove(p.armFile()) == nil }

func (p *process) armed() bool {
	_, err := os.Stat(p.armFile())
	return err == nil
}

// start starts the program, and has it started again whenever it is killed.
func (p *process) start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep = true
	p.launch()
}

func (p *process) launch() {
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Errorf("%s does not start: %v", p.name, err)
		return
	}
	p.cmd, p.ours = cmd, false
	p.gone = make(chan struct{})
	go p.watch(cmd, p.gone)
}

// watch waits for the end. One that nobody has killed is a failure of its own.
func (p *process) watch(cmd *exec.Cmd, gone chan struct{}) {
	_ = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed := ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
	if !killed && p.keep {
		p.t.Errorf("%s ended by itself (%s):\n%s", p.name, cmd.ProcessState, p.tail(30))
		p.keep = false
	}
	p.deaths++
	close(gone)
	if p.keep {
		p.launch()
	}
}

// tail is the end of the log.
func (p *process) tail(n int) string {
	b, _ := os.ReadFile(p.log.Name())
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// kill ends the present one.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.ours = true
		_ = p.cmd.Process.Kill()
	}
}

// died is how often it has ended.
func (p *process) died() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaths
}

// stop ends it for good.
func (p *process) stop() {
	p.mu.Lock()
	p.keep = false
	cmd, gone := p.cmd, p.gone
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-gone
}

var houses atomic.Int64

// house is an address of the loopback interface of a world's own. Its servers have fixed ports below those that the
// system gives away, so that nobody takes one while its server is dead.
func house() string {
	n := houses.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()%250, 1+os.Getpid()/250%250, 1+n%250)
}
