package lists

import (
	"slices"
	"testing"
)

func TestPath(t *testing.T) {
	for _, c := range []struct {
		pairs []string
		want  string
	}{
		{nil, "/console/users"},
		{[]string{"q", "", "after", ""}, "/console/users"},
		{[]string{"q", "a b&c", "after", "", "role", "owner"}, "/console/users?q=a+b%26c&role=owner"},
		{[]string{"q"}, "/console/users"},
	} {
		if got := Path("/console/users", c.pairs...); got != c.want {
			t.Errorf("%v: %s, not %s", c.pairs, got, c.want)
		}
	}
}

func TestPagersLeadNowhereAtTheEnds(t *testing.T) {
	path := func(after string) string { return "/l?after=" + after }
	if Next("", path) != "" || First("", path) != "" || Next("c", path) != "/l?after=c" || First("c", path) != "/l?after=" {
		t.Error(Next("", path), First("", path), Next("c", path), First("c", path))
	}
}

func TestNames(t *testing.T) {
	if got := Names(" anna,bob\r\n\n, carol c \n"); !slices.Equal(got, []string{"anna", "bob", "carol c"}) {
		t.Errorf("%q", got)
	}
	if got := Names(" \n,"); got == nil || len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestOptionsHaveAChoiceOfNoneWhereItHasAName(t *testing.T) {
	labels := map[string]string{"on": "On"}
	if got := Options("Any", labels, "on"); len(got) != 2 || got[0].Value != "" || got[0].Label != "Any" || got[1].Label != "On" {
		t.Errorf("%+v", got)
	}
	if got := Options("", labels, "on"); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}
