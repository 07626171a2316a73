package buildinfo

import (
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestDerive(t *testing.T) {
	vcs := &debug.BuildInfo{
		Main: debug.Module{Version: "v0.0.0-20260102030405-abcdef123456"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abcdef"},
			{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
			{Key: "vcs.modified", Value: "true"},
		},
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name                  string
		version, commit, unix string
		bi                    *debug.BuildInfo
		want                  Info
	}{
		{"a build that knows nothing is devel", "", "", "", nil, Info{Version: "devel"}},
		{"a plain go build takes what Go embedded", "", "", "", vcs, Info{"v0.0.0-20260102030405-abcdef123456", "abcdef-dirty", at}},
		{"the linker wins", "1.2.0", "fff", "1767323045", vcs, Info{"1.2.0", "fff", time.Unix(1767323045, 0).UTC()}},
		{"a damaged time is unknown, not 1970", "1.2.0", "fff", "x", nil, Info{Version: "1.2.0", Commit: "fff"}},
		{"(devel) is no version", "", "", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, Info{Version: "devel"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := derive(c.version, c.commit, c.unix, c.bi); got != c.want {
				t.Errorf("derive = %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestStringIsOneLineWithVersionFirst(t *testing.T) {
	s := Info{Version: "1.2.0", Commit: "0123456789abcdef0123"}.String()
	if !strings.HasPrefix(s, "1.2.0 (0123456789ab) go") || strings.Contains(s, "\n") {
		t.Errorf("String = %q", s)
	}
}
