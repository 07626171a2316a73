package housetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLicences: docs/dependencies.md lists every module that is linked into a program, on any system, and every module
// that only tests use, with its licence and why it is there. Linked ones are permissive; MPL-2.0 is for tests only.
func TestLicences(t *testing.T) {
	linked, tests := modules(t)
	table := readTable(t, filepath.Join(root, "docs", "dependencies.md"))
	permissive := []string{"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC"}
	for _, list := range []struct {
		section string
		mods    map[string]string // path → folder
		allowed []string
	}{
		{"Linked into the programs", linked, permissive},
		{"Only in tests", tests, append([]string{"MPL-2.0"}, permissive...)},
	} {
		rows := table[list.section]
		for path, dir := range list.mods {
			lic, err := licence(dir)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if !slices.Contains(list.allowed, lic) {
				t.Errorf("%s has licence %s; allowed are %s", path, lic, strings.Join(list.allowed, ", "))
			}
			row, ok := rows[path]
			switch {
			case !ok:
				t.Errorf("docs/dependencies.md, %q, lacks: | %s | %s | why it is here |", list.section, path, lic)
			case row.licence != lic:
				t.Errorf("docs/dependencies.md says that %s has %s; its licence file says %s", path, row.licence, lic)
			case len(row.why) < 10:
				t.Errorf("docs/dependencies.md does not say why %s is here", path)
			}
		}
		for path := range rows {
			if _, ok := list.mods[path]; !ok {
				t.Errorf("docs/dependencies.md, %q, lists %s, which is not used there", list.section, path)
			}
		}
	}
}

// modules returns the modules of the programs and those that tests add, by path.
func modules(t *testing.T) (linked, tests map[string]string) {
	list := func(goos string, args ...string) map[string]string {
		out := map[string]string{}
		js := goCmd(t, []string{"GOOS=" + goos, "GOARCH=amd64"}, append([]string{"list", "-deps", "-json=Module"}, args...)...)
		dec := json.NewDecoder(strings.NewReader(js))
		for {
			var p struct {
				Module *struct {
					Path, Dir string
					Main      bool
					Replace   *struct{ Dir string }
				}
			}
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				return out
			} else if err != nil {
				t.Fatal(err)
			}
			if m := p.Module; m != nil && !m.Main {
				out[m.Path] = m.Dir
				if m.Replace != nil {
					out[m.Path] = m.Replace.Dir
				}
			}
		}
	}
	linked, tests = map[string]string{}, map[string]string{}
	for _, goos := range []string{"linux", "windows", "darwin"} {
		for p, d := range list(goos, "./cmd/...") {
			linked[p] = d
		}
	}
	for p, d := range list("linux", "-test", "-tags", "latchkey_test,e2e", "./...") {
		if _, ok := linked[p]; !ok {
			tests[p] = d
		}
	}
	return linked, tests
}

// licence reads a module's licence file and names what it finds. What it does not know for certain is an error: a
// person has to look.
func licence(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "[LlCc][IiOo][CcPp][EeYy][NnIi]*"))
	if err != nil {
		return "", err
	}
	var found []string
	for _, n := range names {
		if strings.ContainsAny(filepath.Base(n), "-_") { // notices of what came along, such as LICENSE-3RD-PARTY
			continue
		}
		b, err := os.ReadFile(n)
		if err != nil {
			continue
		}
		s := strings.Join(strings.Fields(strings.ToLower(string(b))), " ")
		switch {
		case strings.Contains(s, "mozilla public license"): // it names the GNU licences, so it comes first
			found = append(found, "MPL-2.0")
		case strings.Contains(s, "gnu general public license"), strings.Contains(s, "gnu lesser general public"), strings.Contains(s, "gnu affero"):
			found = append(found, "copyleft")
		case strings.Contains(s, "apache license") && strings.Contains(s, "version 2.0"):
			found = append(found, "Apache-2.0")
		case strings.Contains(s, "permission is hereby granted, free of charge"):
			found = append(found, "MIT")
		case strings.Contains(s, "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"),
			strings.Contains(s, "permission to use, copy, modify, and distribute this software for any purpose with or without fee"):
			found = append(found, "ISC")
		case strings.Contains(s, "redistribution and use in source and binary forms"):
			if strings.Contains(s, "neither the name") || strings.Contains(s, "may not be used to endorse") || strings.Contains(s, "names of its contributors") {
				found = append(found, "BSD-3-Clause")
			} else {
				found = append(found, "BSD-2-Clause")
			}
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("no licence that this test knows was found among %d files in %s", len(names), filepath.Base(dir))
	case slices.Contains(found, "copyleft"):
		return "copyleft", nil
	default:
		return found[0], nil
	}
}

type dependency struct{ licence, why string }

// readTable reads the tables of a Markdown file: section → first column → the rest.
func readTable(t *testing.T, file string) map[string]map[string]dependency {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]dependency{}
	section := ""
	for _, l := range strings.Split(string(b), "\n") {
		if s, ok := strings.CutPrefix(l, "## "); ok {
			section = strings.TrimSpace(s)
			out[section] = map[string]dependency{}
		}
		cells := strings.Split(strings.Trim(l, "| "), "|")
		if section == "" || !strings.HasPrefix(l, "|") || len(cells) != 3 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if strings.Contains(cells[0], ".") {
			out[section][cells[0]] = dependency{cells[1], cells[2]}
		}
	}
	return out
}
