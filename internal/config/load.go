package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"

	"latchkey/internal/text"
)

// maxFile is the size of a file of settings in bytes; a bigger one is something else.
const maxFile = 256 << 10

// Load reads file into dst, the struct that Bind was given, and puts the flags that were set above it. With file ""
// only the flags and defaults are judged. A file that must not be missing is named by the caller; LoadIfThere is for
// the default place. The error is an *Error, or one that wraps what the operating system said; dst is then as it was.
func Load(fset *pflag.FlagSet, dst any, file string) error {
	if file == "" {
		return load(fset, dst, "", nil)
	}
	b, err := read(file)
	if err != nil {
		return err
	}
	return load(fset, dst, file, b)
}

// LoadIfThere is Load for a file that may be missing.
func LoadIfThere(fset *pflag.FlagSet, dst any, file string) error {
	err := Load(fset, dst, file)
	if errors.Is(err, fs.ErrNotExist) {
		return Load(fset, dst, "")
	}
	return err
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, &Error{File: file, Problems: []Problem{{Fault: "it is no plain file", Allowed: "give the name of a TOML file"}}}
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o002 != 0 {
		return nil, &Error{File: file, Problems: []Problem{{
			Fault:   "everybody may write to it, so anybody could decide how people sign in",
			Allowed: "run: chmod o-w " + file,
		}}}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return b, nil
}

// load is Load for settings that are in memory; file stands for the file in errors.
func load(fset *pflag.FlagSet, dst any, file string, b []byte) error {
	list := fields(dst)
	byName := make(map[string]*field, len(list))
	for _, f := range list {
		f.flag = fset.Lookup(f.name)
		byName[f.name] = f
	}
	before := make([]any, len(list))
	for i, f := range list {
		before[i] = f.v.Interface()
	}

	e := &Error{File: file}
	table, lines := parse(e, b)
	names := make([]string, 0, len(table))
	for k := range table {
		names = append(names, k)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := lines[a] - lines[b]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		f, known := byName[name]
		if !known {
			e.Problems = append(e.Problems, unknown(name, lines[name], byName))
			continue
		}
		// The file is judged even where a flag wins, so that a mistake in it does not sleep until the flag is gone.
		kept := f.v.Interface()
		fault, allowed := f.setTOML(table[name])
		if fault == "" {
			fault, allowed = f.check()
		}
		if fault != "" {
			e.Problems = append(e.Problems, Problem{Line: lines[name], Field: name, Fault: fault, Allowed: allowed})
		}
		if fault != "" || f.flag != nil && f.flag.Changed {
			set(f, kept)
		}
	}
	if len(e.Problems) == 0 {
		for _, f := range list {
			if _, inFile := table[f.name]; inFile {
				continue
			}
			if fault, allowed := f.check(); fault != "" {
				e.Problems = append(e.Problems, Problem{Field: f.name, Fault: fault, Allowed: allowed})
			}
		}
	}
	if c, ok := dst.(Checker); ok && len(e.Problems) == 0 {
		for _, p := range c.Check() {
			if p.Line == 0 {
				p.Line = lines[p.Field]
			}
			e.Problems = append(e.Problems, p)
		}
	}
	if len(e.Problems) > 0 {
		for i, f := range list {
			set(f, before[i])
		}
		return e
	}
	return nil
}

// parse turns the file into a table of its top level. Faults of the syntax are put into e; TOML readers stop at the
// first one, so that one is alone.
func parse(e *Error, b []byte) (map[string]any, map[string]int) {
	if len(b) > maxFile {
		e.Problems = append(e.Problems, Problem{
			Fault:   fmt.Sprintf("the file has more than %d bytes", maxFile),
			Allowed: "give the name of a TOML file with settings",
		})
		return nil, nil
	}
	table := map[string]any{}
	if _, err := toml.NewDecoder(bytes.NewReader(b)).Decode(&table); err != nil {
		p := Problem{Fault: text.CleanN(err.Error(), 300), Allowed: `allowed are lines such as: name = "value"`}
		if pe, ok := errors.AsType[toml.ParseError](err); ok {
			p.Line, p.Fault = pe.Position.Line, text.CleanN(pe.Message, 300)
		}
		e.Problems = append(e.Problems, p)
		return nil, nil
	}
	return table, places(b)
}

// places finds the line of each key of the top level. The TOML library does not tell; a key that is written in a way
// that this does not see has no line.
func places(b []byte) map[string]int {
	at := map[string]int{}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxFile+1)
	for n := 1; sc.Scan(); n++ {
		l := strings.TrimSpace(sc.Text())
		key, _, ok := strings.Cut(l, "=")
		if strings.HasPrefix(l, "[") {
			key, ok = strings.Trim(l, "[] "), true
			key, _, _ = strings.Cut(key, ".")
		}
		key = strings.Trim(strings.TrimSpace(key), `"'`)
		if _, seen := at[key]; ok && !seen {
			at[key] = n
		}
	}
	return at
}

// unknown is the problem for a key that no setting has.
func unknown(name string, line int, known map[string]*field) Problem {
	p := Problem{Line: line, Field: text.CleanN(name, 60), Fault: "there is no such setting"}
	all := slices.Sorted(maps.Keys(known))
	if best := text.Nearest(name, all); best != "" {
		p.Allowed = fmt.Sprintf("did you mean %q?", best)
	} else {
		p.Allowed = "allowed are " + strings.Join(all, ", ")
	}
	return p
}

// File returns the file of settings for a program: what --config said, else the default place of the operating
// system ("/etc/latchkey/agent.toml"). explicit tells which of the two it is: the first must exist.
func File(flag, program string) (file string, explicit bool) {
	if flag != "" {
		return flag, true
	}
	if runtime.GOOS == "windows" {
		return filepath.Join(`C:\ProgramData\Latchkey`, program+".toml"), false
	}
	return filepath.Join("/etc/latchkey", program+".toml"), false
}

// set gives a field back a value that it has held before.
func set(f *field, x any) { f.v.Set(reflect.ValueOf(x)) }
