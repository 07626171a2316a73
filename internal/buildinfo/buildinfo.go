// Package buildinfo says which build of Latchkey this is: version, commit and the time of that commit.
//
// It promises that two builds of one commit are the same bytes: the time of building is nowhere in them. What it
// knows comes from the linker (`make build` sets version, commit and commitUnix) or, for a plain `go build` inside a
// checkout, from the build information that Go embeds itself. A build that knows neither calls itself "devel".
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Set by the linker: -X latchkey/internal/buildinfo.version=1.2.0 and so on. They are strings because the linker
// can set nothing else.
var (
	version    string
	commit     string
	commitUnix string
)

// Info is what a build knows about itself. Its zero value is a build that knows nothing.
type Info struct {
	Version string    // "1.2.0", "1.2.0-14-gabc1234" between releases, "devel" when unknown
	Commit  string    // full hash, with "-dirty" behind it when the tree had changes; "" when unknown
	Time    time.Time // when the commit was made, UTC, in whole seconds; zero when unknown
}

// Older tells whether version lies before minimum: dotted numbers, compared one by
// one; what follows the third number does not count. A version that is not of this
// form is older than any minimum; an empty minimum is met by all.
func Older(version, minimum string) bool {
	if minimum == "" {
		return false
	}
	v, okV := numbers(version)
	m, okM := numbers(minimum)
	return okM && (!okV || slices.Compare(v[:], m[:]) < 0)
}

// ValidVersion tells whether s is one to three dotted numbers.
func ValidVersion(s string) bool {
	_, ok := numbers(s)
	return ok && strings.Trim(s, "0123456789.") == ""
}

// numbers reads up to three numbers from the front of a version.
func numbers(s string) (n [3]int, ok bool) {
	if i := strings.IndexAny(s, "-+ "); i >= 0 {
		s = s[:i]
	}
	parts := strings.Split(s, ".")
	if len(parts) > 3 {
		return n, false
	}
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 || len(p) > 6 {
			return n, false
		}
		n[i] = v
	}
	return n, true
}

// Get returns the information of the running program.
func Get() Info { return get() }

var get = sync.OnceValue(func() Info {
	bi, _ := debug.ReadBuildInfo()
	return derive(version, commit, commitUnix, bi)
})

// derive prefers what the linker set over what Go embedded.
func derive(version, commit, commitUnix string, bi *debug.BuildInfo) Info {
	in := Info{Version: version, Commit: commit}
	if n, err := strconv.ParseInt(commitUnix, 10, 64); err == nil && n > 0 {
		in.Time = time.Unix(n, 0).UTC()
	}
	if bi != nil {
		var rev, dirty string
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				rev = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					dirty = "-dirty"
				}
			case "vcs.time":
				if t, err := time.Parse(time.RFC3339, s.Value); err == nil && in.Time.IsZero() {
					in.Time = t.UTC()
				}
			}
		}
		if in.Commit == "" && rev != "" {
			in.Commit = rev + dirty
		}
		if in.Version == "" && bi.Main.Version != "(devel)" {
			in.Version = bi.Main.Version
		}
	}
	if in.Version == "" {
		in.Version = "devel"
	}
	return in
}

// Version returns the version alone, as it is shown in lists of machines (P3) and compared with a minimum.
func Version() string { return Get().Version }

// Time returns when the commit of this build was made: a moment that certainly lies in the past, so that a machine
// whose clock battery died can still judge certificates. It is zero when unknown.
func Time() time.Time { return Get().Time }

// String is the line that `--version` prints.
func (in Info) String() string {
	s := in.Version
	if in.Commit != "" {
		hash, dirty, _ := strings.Cut(in.Commit, "-")
		if dirty != "" {
			dirty = "-" + dirty
		}
		s += " (" + hash[:min(12, len(hash))] + dirty + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", s, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
