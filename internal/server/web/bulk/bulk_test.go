package bulk_test

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	_ "latchkey/internal/server/source/postgresql"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web/webtest"
)

func rig(t *testing.T) *webtest.Rig {
	t.Helper()
	c := clock.NewManual(webtest.Start)
	return webtest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
}

// file sends the form for a file as a browser does.
func file(t *testing.T, b *webtest.Browser, name, content string, pairs ...string) webtest.Answer {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteField(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile("file", name)
	if err == nil {
		_, err = part.Write([]byte(content))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Raw(http.MethodPost, "/console/import/file", w.FormDataContentType(), &body)
}

// settle waits until nothing goes on with the import.
func settle(t *testing.T, b *webtest.Browser, path string) webtest.Answer {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a := b.Get(path).Is(http.StatusOK)
		if !strings.Contains(a.Body, "import-progress") {
			return a
		}
		if time.Now().After(end) {
			t.Fatalf("it does not end:\n%s", a.Text())
		}
	}
}

func TestAFileIsCheckedAppliedAndItsCodesAreFetched(t *testing.T) {
	r := rig(t)
	b := r.Person("adam", rest.RoleAdministrator).SignedIn()
	b.Get("/console/import").Is(http.StatusOK).Has("Download a template").Has("No imports yet")
	template := b.Get("/console/import/template.csv").Is(http.StatusOK)
	if !strings.HasPrefix(template.Body, "name,display_name,mail,groups") {
		t.Errorf("%q", template.Body)
	}
	a := file(t, b, "staff.csv", "name;mail\nanna;anna@example.org\nben;no mail\n", "on_faults", "stop", "codes", "on").Is(http.StatusSeeOther)
	page := b.Get(a.To).Is(http.StatusOK).Has("Line 3, column 2 (mail)").Has("is no mail address").Has("Correct them")
	if strings.Contains(page.Body, a.To+"/apply") {
		t.Error("a faulty import can be applied")
	}
	csv := b.Get(a.To + "/faults.csv").Is(http.StatusOK)
	if !strings.HasPrefix(csv.Body, "line,column,field,user,fault\r\n3,2,mail,ben,") {
		t.Errorf("%q", csv.Body)
	}
	b.Post(a.To + "/apply").Is(http.StatusSeeOther)
	b.Get(a.To).Has("1 of 2 rows are faulty")
	b.Submit(a.To, a.To+"/drop").Goes("/console/import")

	a = file(t, b, "staff.csv", "name;mail;groups\nanna;anna@example.org;Sales\n", "on_faults", "stop", "codes", "on", "make_groups", "on").Is(http.StatusSeeOther)
	b.Get(a.To).Has("anna").Has("Sales").Has("an enrolment code is made").Has("Add 1 user and change 0 users?")
	b.Submit(a.To, a.To+"/apply").Goes(a.To)
	settle(t, b, a.To).Has("Done").Has("Download the enrolment codes")
	codes := b.Submit(a.To, a.To+"/codes").Is(http.StatusOK)
	if !regexp.MustCompile(`(?m)^anna,,anna@example.org,[0-9A-Za-z-]+,2026-11-`).MatchString(codes.Body) || codes.Header.Get("Content-Disposition") == "" {
		t.Errorf("%q", codes.Body)
	}
	if page := b.Get(a.To).Is(http.StatusOK); strings.Contains(page.Body, "/codes") {
		t.Error("codes can be fetched twice")
	}
	a = file(t, b, "staff.csv", "name;mail;groups\nanna;anna@example.org;Sales\n", "on_faults", "stop", "codes", "on").Is(http.StatusSeeOther)
	b.Get(a.To).Has("Nothing would change")
	b.Get("/console/import").Has("staff.csv").Has("Checked, nothing changed")
}

func TestWhatIsWrongWithAFileIsSaidAtTheForm(t *testing.T) {
	r := rig(t)
	b := r.Person("adam", rest.RoleAdministrator).SignedIn()
	for name, c := range map[string]struct{ content, says string }{
		"an unknown column": {"name,shoe size\nanna,38\n", "shoe size"},
		"no name":           {"mail\nanna@example.org\n", "there is no column"},
		"empty":             {"", "the file is empty"},
		"only a header":     {"name\n", "no users"},
	} {
		t.Run(name, func(t *testing.T) {
			file(t, b, "x.csv", c.content, "on_faults", "skip").Is(http.StatusUnprocessableEntity).Has(c.says)
		})
	}
	file(t, b, "", "", "on_faults", "stop").Is(http.StatusUnprocessableEntity).Has("Choose a file first")
}

func TestOnlyAdministratorsImport(t *testing.T) {
	r := rig(t)
	for role, status := range map[string]int{
		rest.RoleAuditor: http.StatusForbidden, rest.RoleHelpDesk: http.StatusForbidden, rest.RoleAdministrator: http.StatusOK, rest.RoleOwner: http.StatusOK,
	} {
		b := r.Person(role+"1", role).SignedIn()
		for _, path := range []string{"/console/import", "/console/import/template.csv", "/console/import/sources"} {
			b.Get(path).Is(status)
		}
		if status != http.StatusOK {
			file(t, b, "x.csv", "name\nx\n").Is(status)
			b.Post("/console/import/query", "source", "x").Is(status)
			b.Get("/console/import/imp_01930000-0000-7000-8000-00000000a5ce").Is(status)
		}
	}
}

func TestDatabasesAreKeptByOwners(t *testing.T) {
	r := rig(t)
	olga, adam := r.Person("olga", rest.RoleOwner).SignedIn(), r.Person("adam", rest.RoleAdministrator).SignedIn()
	adam.Get("/console/import/sources").Is(http.StatusOK).Has("Only owners")
	adam.StepUp().Post("/console/import/sources", "name", "hr", "address", "postgresql://u:geheim@127.0.0.1:1/hr", "query", "SELECT 1").Is(http.StatusForbidden)
	a := olga.StepUp().Submit("/console/import/sources", "/console/import/sources", "name", "hr", "address", "postgresql://u:geheim@127.0.0.1:1/hr?host=x", "query", "SELECT 1").Is(http.StatusUnprocessableEntity).Has("is not known")
	if strings.Contains(a.Body, "geheim") {
		t.Error("the password is shown")
	}
	olga.Submit("/console/import/sources", "/console/import/sources", "name", "hr", "address", "postgresql://u:geheim@127.0.0.1:1/hr", "query", "SELECT 1").Goes("/console/import/sources")
	page := olga.Get("/console/import/sources").Is(http.StatusOK).Has("postgresql://u@127.0.0.1:1/hr?tls=off").Has("SELECT 1")
	if strings.Contains(page.Body, "geheim") {
		t.Error("the password is shown")
	}
	adam.Submit("/console/import", "/console/import/query", "source", "hr").Is(http.StatusUnprocessableEntity).Has("refused")
	action := regexp.MustCompile(`/console/import/sources/src_[0-9a-f-]+/remove`).FindString(page.Body)
	olga.Submit("/console/import/sources", action).Goes("/console/import/sources")
	olga.Get("/console/import/sources").Has("No databases yet")
}
