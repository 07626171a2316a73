//go:build linux

// Package powertest plays power cuts. It records what a process really does to the
// files below a folder (strace), together with what the process says on its standard
// output, and builds the disk as it may look when the power goes behind any of these
// operations:
//
//   - Landed: everything up to there is on the disk.
//   - Lost: of every file only what was synced is there, and of every folder only the
//     names that it had when it was synced.
//   - Torn: what was not synced is there in part: each write whole, not at all, or in
//     some of its sectors of 512 octets, in any order; names up to any of the changes.
//
// What the process had said before that moment was promised, and must hold. It needs
// the Debian package "strace" and says so. Rows O10, O11, V4.
package powertest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Sector is what a disk writes whole or not at all.
const Sector = 512

// Recording is what a process did, in order.
type Recording struct {
	dir  string
	ops  []op
	said []int // places in ops of what was said
}

type kind int

const (
	write kind = iota
	truncate
	create
	mkdir
	unlink
	rename
	syncFile
	say
)

type op struct {
	kind   kind
	path   string // below the folder
	to     string // of a rename
	offset int64  // of a write; -1: at the end
	size   int64  // of a truncation
	data   []byte
}

func (o op) String() string {
	name := [...]string{"write", "truncate", "create", "mkdir", "unlink", "rename", "sync", "say"}[o.kind]
	switch o.kind {
	case write:
		return fmt.Sprintf("%s %s %d+%d", name, o.path, o.offset, len(o.data))
	case truncate:
		return fmt.Sprintf("%s %s to %d", name, o.path, o.size)
	case rename:
		return fmt.Sprintf("%s %s to %s", name, o.path, o.to)
	case say:
		return fmt.Sprintf("%s %q", name, o.data)
	}
	return name + " " + o.path
}

// calls are those that are recorded; what changes a file in another way is refused.
const calls = "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir," +
	"ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,link,linkat,symlink,symlinkat,mkdir,mkdirat,mmap"

// Record runs a program and records what it does to the files below dir, which must
// exist and be empty. Files for which ignore says true (memory that is shared, locks)
// are left out. The program must end well.
func Record(t testing.TB, dir string, ignore func(path string) bool, env []string, argv ...string) *Recording {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("power cuts are played from recorded file operations: install the Debian package \"strace\" (%v)", err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "strace.log")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := append([]string{"-f", "-qq", "-y", "-xx", "-s", "67108864", "--seccomp-bpf", "-e", "signal=none", "-e", "trace=" + calls, "-o", log, "--"}, argv...)
	cmd := exec.CommandContext(ctx, strace, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("the recorded program failed (if strace may not trace here, CAP_SYS_PTRACE is needed): %v\n%s", err, tail(out.String()))
	}
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &Recording{dir: real}
	if err := r.parse(f, ignore); err != nil {
		t.Fatalf("what strace says can not be read: %v", err)
	}
	if len(r.ops) == 0 {
		t.Fatalf("nothing was recorded below %s:\n%s", real, tail(out.String()))
	}
	return r
}

func tail(s string) string {
	if len(s) > 4000 {
		s = "…" + s[len(s)-4000:]
	}
	return s
}

var (
	lineForm = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumed  = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	result   = regexp.MustCompile(`\) += (-?\d+|0x[0-9a-f]+)`)
	fdForm   = regexp.MustCompile(`^(-?\w+)(?:<((?:\\x[0-9a-f]{2})*)>)?$`)
)

const unfinished = " <unfinished ...>"

// parse reads the log. An operation takes place where its call was begun, a sync and
// the making of names where the call came back.
func (r *Recording) parse(in io.Reader, ignore func(string) bool) error {
	type begun struct {
		call, args string
		at         int // place that was kept in ops
	}
	open := map[string]begun{}
	sc := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := sc.ReadString('\n')
		if line == "" && err != nil {
			break
		}
		line = strings.TrimRight(line, "\n")
		if m := resumed.FindStringSubmatch(line); m != nil {
			b, ok := open[m[1]]
			if !ok || b.call != m[2] {
				return fmt.Errorf("a call came back that was not begun: %.200s", line)
			}
			delete(open, m[1])
			if err := r.call(b.call, b.args+m[3], b.at, ignore); err != nil {
				return err
			}
			continue
		}
		m := lineForm.FindStringSubmatch(line)
		if m == nil {
			if strings.Contains(line, "exited") || strings.Contains(line, "killed") || strings.Contains(line, "---") || line == "" {
				continue
			}
			return fmt.Errorf("%.200s", line)
		}
		if args, cut := strings.CutSuffix(m[3], unfinished); cut {
			b := begun{m[2], args, -1}
			if m[2] == "write" || m[2] == "pwrite64" || m[2] == "ftruncate" {
				b.at = len(r.ops)
				r.ops = append(r.ops, op{kind: -1})
			}
			open[m[1]] = b
			continue
		}
		if err := r.call(m[2], m[3], -1, ignore); err != nil {
			return err
		}
	}
	if len(open) > 0 {
		for _, b := range open {
			// A thread that ended within a call; a write that nobody heard back from was
			// promised to nobody.
			if b.at >= 0 && r.ops[b.at].kind == -1 {
				return fmt.Errorf("a %s did not come back", b.call)
			}
		}
	}
	r.ops = slices.DeleteFunc(r.ops, func(o op) bool { return o.kind == -1 })
	for i, o := range r.ops {
		if o.kind == say {
			r.said = append(r.said, i)
		}
	}
	return nil
}

// fields splits the arguments at commas that stand in no quotes and no brackets.
func fields(s string) (out []string) {
	depth, quoted, from := 0, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.IndexByte("[{(<", c) >= 0:
			depth++
		case strings.IndexByte("]})>", c) >= 0:
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[from:]))
}

func unhex(s string) ([]byte, error) {
	out := make([]byte, 0, len(s)/4)
	for ; len(s) >= 4 && s[:2] == `\x`; s = s[4:] {
		n, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil {
			return nil, err
		}
		out = append(out, byte(n))
	}
	if s != "" {
		return nil, fmt.Errorf("not in hexadecimal: %.40q", s)
	}
	return out, nil
}

func quoted(s string) ([]byte, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return nil, fmt.Errorf("not a whole text: %.60q", s)
	}
	return unhex(s[1 : len(s)-1])
}

// descriptor reads 7<path>.
func descriptor(s string) (fd, path string, err error) {
	m := fdForm.FindStringSubmatch(s)
	if m == nil {
		return "", "", fmt.Errorf("not a descriptor: %.80q", s)
	}
	p, err := unhex(m[2])
	return m[1], strings.TrimSuffix(string(p), " (deleted)"), err
}

// below gives the name relative to the folder.
func (r *Recording) below(path string) (string, bool) {
	rel, err := filepath.Rel(r.dir, path)
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (r *Recording) call(name, rest string, at int, ignore func(string) bool) error {
	ms := result.FindAllStringSubmatchIndex(rest, -1)
	if ms == nil {
		return nil // ended with the process
	}
	last := ms[len(ms)-1]
	res := rest[last[2]:last[3]]
	if strings.HasPrefix(res, "-") {
		return nil
	}
	a := fields(rest[:last[0]])
	put := func(o op) {
		if at >= 0 {
			r.ops[at] = o
		} else {
			r.ops = append(r.ops, o)
		}
	}
	ours := func(path string) (string, bool) {
		rel, ok := r.below(path)
		return rel, ok && !(ignore != nil && ignore(rel))
	}
	named := func(dirfd, text string) (string, bool, error) {
		p, err := quoted(text)
		if err != nil {
			return "", false, err
		}
		path := string(p)
		if !filepath.IsAbs(path) && dirfd != "" {
			_, d, err := descriptor(dirfd)
			if err != nil {
				return "", false, err
			}
			path = filepath.Join(d, path)
		}
		rel, ok := ours(filepath.Clean(path))
		return rel, ok, nil
	}
	switch name {
	case "openat", "open":
		if name == "open" {
			a = append([]string{""}, a...)
		}
		rel, ok, err := named(a[0], a[1])
		if err != nil || !ok {
			return err
		}
		if strings.Contains(a[2], "O_CREAT") {
			put(op{kind: create, path: rel})
		}
		if strings.Contains(a[2], "O_TRUNC") {
			r.ops = append(r.ops, op{kind: truncate, path: rel})
		}
	case "write", "pwrite64":
		fd, path, err := descriptor(a[0])
		if err != nil {
			return err
		}
		rel, ok := ours(path)
		if !ok && fd != "1" {
			return nil
		}
		data, err := quoted(a[1])
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(res)
		if err != nil || n > len(data) {
			return fmt.Errorf("%s of %d octets wrote %s", name, len(data), res)
		}
		data = data[:n]
		switch {
		case !ok:
			put(op{kind: say, data: data})
		case name == "pwrite64":
			off, err := strconv.ParseInt(a[3], 10, 64)
			if err != nil {
				return err
			}
			put(op{kind: write, path: rel, offset: off, data: data})
		default:
			// The programs that are recorded write new files from their start to their
			// end, and old ones at their end.
			put(op{kind: write, path: rel, offset: -1, data: data})
		}
	case "fsync", "fdatasync":
		_, path, err := descriptor(a[0])
		if err != nil {
			return err
		}
		if rel, ok := ours(path); ok {
			put(op{kind: syncFile, path: rel})
		}
	case "ftruncate":
		_, path, err := descriptor(a[0])
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(a[1], 10, 64)
		if rel, ok := ours(path); ok && err == nil {
			put(op{kind: truncate, path: rel, size: n})
		}
		return err
	case "rename", "renameat", "renameat2":
		if name == "rename" {
			a = []string{"", a[0], "", a[1]}
		}
		from, ok1, err1 := named(a[0], a[1])
		to, ok2, err2 := named(a[2], a[3])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if ok1 != ok2 {
			return fmt.Errorf("renamed across the folder's border: %s to %s", from, to)
		}
		if ok1 {
			put(op{kind: rename, path: from, to: to})
		}
	case "unlink", "unlinkat", "rmdir":
		if name != "unlinkat" {
			a = append([]string{""}, a...)
		}
		rel, ok, err := named(a[0], a[1])
		if ok && err == nil {
			put(op{kind: unlink, path: rel})
		}
		return err
	case "mkdir", "mkdirat":
		if name == "mkdir" {
			a = append([]string{""}, a...)
		}
		rel, ok, err := named(a[0], a[1])
		if ok && err == nil {
			put(op{kind: mkdir, path: rel})
		}
		return err
	case "mmap":
		if len(a) < 5 || !strings.Contains(a[3], "MAP_SHARED") || !strings.Contains(a[2], "PROT_WRITE") || !strings.Contains(a[4], "<") {
			return nil
		}
		_, path, err := descriptor(a[4])
		if rel, ok := ours(path); ok && err == nil {
			return fmt.Errorf("%s is written through memory, which can not be recorded", rel)
		}
		return err
	default:
		for _, x := range a {
			if _, path, err := descriptor(x); err == nil && path != "" {
				if rel, ok := ours(path); ok {
					return fmt.Errorf("%s of %s can not be played", name, rel)
				}
			}
			if p, err := quoted(x); err == nil {
				if rel, ok := ours(string(p)); ok {
					return fmt.Errorf("%s of %s can not be played", name, rel)
				}
			}
		}
	}
	return nil
}

// Len is the number of operations; a power cut may come before the first and behind
// each of them.
func (r *Recording) Len() int { return len(r.ops) }

// Said is what the program had said when it had done n operations, line by line.
func (r *Recording) Said(n int) []string {
	var b bytes.Buffer
	for _, i := range r.said {
		if i < n {
			b.Write(r.ops[i].data)
		}
	}
	lines := strings.Split(b.String(), "\n")
	return lines[:len(lines)-1] // a line that was cut is no word
}

// Cuts are n places for a power cut: all of them if there are not more, else spread
// evenly with some chance; half of them lie directly before and behind something that
// was said, where a promise is the youngest.
func (r *Recording) Cuts(n int, dice *rand.Rand) []int {
	if n > len(r.ops) {
		n = len(r.ops) + 1
	}
	chosen := map[int]bool{0: true, len(r.ops): true}
	if n > len(r.ops) {
		for i := range r.ops {
			chosen[i] = true
		}
	} else {
		for i := range n / 2 {
			lo, hi := i*len(r.ops)/(n/2), (i+1)*len(r.ops)/(n/2)
			chosen[lo+dice.IntN(max(1, hi-lo))] = true
		}
		for i := 0; i < n/2 && len(r.said) > 0; i++ {
			chosen[r.said[dice.IntN(len(r.said))]+dice.IntN(2)] = true
		}
	}
	var out []int
	for c := range chosen {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// Last describes the operations before a cut, for messages.
func (r *Recording) Last(n int) string {
	var b strings.Builder
	for _, o := range r.ops[max(0, n-6):n] {
		fmt.Fprintf(&b, "\n  %s", o)
	}
	return b.String()
}

// Fate says what the power cut does to what was not synced.
type Fate struct {
	Name string
	dice *rand.Rand // nil: nothing is torn
	lost bool
}

// The fates.
func Landed() Fate              { return Fate{Name: "landed"} }
func Lost() Fate                { return Fate{Name: "lost", lost: true} }
func Torn(dice *rand.Rand) Fate { return Fate{Name: "torn", dice: dice} }

// file is one on the disk: what is durable, and what came since.
type file struct {
	now     []byte
	safe    []byte
	pending []op
}

// apply changes b, in place where there is room.
func apply(b []byte, o op) []byte {
	grow := func(size int64) {
		if n := size - int64(len(b)); n > 0 {
			b = append(b, make([]byte, n)...)
		}
	}
	switch o.kind {
	case truncate:
		if int64(len(b)) > o.size {
			return b[:o.size]
		}
		grow(o.size)
	case write:
		grow(o.offset + int64(len(o.data)))
		copy(b[o.offset:], o.data)
	}
	return b
}

// tear writes some sectors of a write, which stand at fixed places of the file.
func tear(b []byte, o op, at int64, dice *rand.Rand) []byte {
	for from := int64(0); from < int64(len(o.data)); {
		to := min(int64(len(o.data)), from+Sector-(at+from)%Sector)
		if dice.IntN(2) == 0 {
			b = apply(b, op{kind: write, offset: at + from, data: o.data[from:to]})
		}
		from = to
	}
	return b
}

// names is a folder tree: a nil file is a folder.
type names map[string]*file

// Disk builds the disk after n operations, below dir, which must not exist.
func (r *Recording) Disk(n int, fate Fate, dir string) error {
	now, safe := names{}, names{}
	var changes []op // of names, not synced
	var behind []*file
	for _, o := range r.ops[:n] {
		switch o.kind {
		case create:
			if now[o.path] == nil {
				f := &file{}
				now[o.path] = f
				changes, behind = append(changes, o), append(behind, f)
			}
		case mkdir:
			now[o.path] = nil
			changes, behind = append(changes, o), append(behind, nil)
		case unlink:
			delete(now, o.path)
			changes, behind = append(changes, o), append(behind, nil)
		case rename:
			f, ok := now[o.path]
			if !ok {
				return fmt.Errorf("%s: there is no such file", o)
			}
			if f == nil {
				return fmt.Errorf("%s: folders that are renamed can not be played", o)
			}
			delete(now, o.path)
			now[o.to] = f
			changes, behind = append(changes, o), append(behind, f)
		case write, truncate:
			f := now[o.path]
			if f == nil {
				continue // removed, and still open
			}
			if o.kind == write && o.offset < 0 {
				o.offset = int64(len(f.now))
			}
			f.now = apply(f.now, o)
			f.pending = append(f.pending, o)
		case syncFile:
			f, ok := now[o.path]
			if f != nil {
				for _, o := range f.pending {
					f.safe = apply(f.safe, o)
				}
				f.pending = nil
				continue
			}
			if !ok && o.path != "." {
				continue
			}
			// A folder: the changes of its names are durable.
			var rest []op
			var restBehind []*file
			for i, c := range changes {
				if filepath.Dir(c.path) == o.path || c.kind == rename && filepath.Dir(c.to) == o.path {
					change(safe, c, behind[i])
				} else {
					rest, restBehind = append(rest, c), append(restBehind, behind[i])
				}
			}
			changes, behind = rest, restBehind
		}
	}
	tree := safe
	content := func(f *file) []byte { return f.safe }
	switch {
	case fate.dice != nil:
		// A file system keeps the order of its names (its journal), not that of data.
		for i := range fate.dice.IntN(len(changes) + 1) {
			change(tree, changes[i], behind[i])
		}
		content = func(f *file) []byte {
			b := bytes.Clone(f.safe)
			for _, o := range f.pending {
				switch luck := fate.dice.IntN(3); {
				case luck == 0:
				case luck == 1 || o.kind == truncate:
					b = apply(b, o)
				default:
					b = tear(b, o, o.offset, fate.dice)
				}
			}
			return b
		}
	case !fate.lost:
		tree = now
		content = func(f *file) []byte { return f.now }
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var paths []string
	for p := range tree {
		paths = append(paths, p)
	}
	slices.Sort(paths) // folders before what is in them, and the dice fall alike every time
	for _, p := range paths {
		f := tree[p]
		full := filepath.Join(dir, p)
		if f == nil {
			if p != "." {
				if err := os.MkdirAll(full, 0o700); err != nil {
					return err
				}
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(full, content(f), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func change(tree names, o op, f *file) {
	switch o.kind {
	case create:
		if _, there := tree[o.path]; !there {
			tree[o.path] = f
		}
	case mkdir:
		tree[o.path] = nil
	case unlink:
		delete(tree, o.path)
	case rename:
		delete(tree, o.path)
		tree[o.to] = f
	}
}
