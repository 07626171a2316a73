package bulk_test

import (
	"fmt"
	"strings"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// TestAnImportOfMailAddressesWritesNoNotes: what one administrator changes by hand is told to the person; what an import
// changes for many is told to nobody, and never fills the queue in which codes wait (E1).
func TestAnImportOfMailAddressesWritesNoNotes(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := newRig(t, s)
		on, host, from := true, "mail.invalid", "latchkey@example.org"
		_, _, err := r.ChangeMailSettings(t.Context(), desk.Root(), "", rest.MailChange{On: &on, Host: &host, From: &from})
		r.must(err)
		waiting := func() int {
			t.Helper()
			page, err := r.ListMessages(t.Context(), desk.Root(), "", "", "", 100)
			r.must(err)
			return len(page.Items)
		}
		const n = 40
		file := []string{"name,mail,mfa"}
		for i := range n {
			name := fmt.Sprintf("p%d", i)
			r.user(name, func(u *rest.NewUser) { u.Mail = name + "@old.example.org" })
			file = append(file, fmt.Sprintf("%s,%s@new.example.org,on", name, name))
		}
		if got := waiting(); got != 0 {
			t.Fatalf("%d notes of new people", got)
		}
		i := r.apply(desk.Root(), r.check(desk.Root(), rest.NewImport{}, file...).ID)
		says(t, i, fmt.Sprintf("done new=0 changed=%d same=0 faulty=0", n))
		if got := waiting(); got != 0 {
			t.Errorf("the import has written %d notes", got)
		}
		changed := 0
		words, _ := r.events(0)
		for _, word := range words {
			if strings.HasPrefix(word, string(event.UserChanged)+" ") {
				changed++
			}
		}
		if changed != n {
			t.Errorf("%d events of changed people", changed)
		}
		// By hand it is told, to the old address and the new one.
		address := "by-hand@example.org"
		_, err = r.ChangeUser(t.Context(), desk.Root(), "p0", 0, rest.UserChange{Mail: &address})
		r.must(err)
		if got := waiting(); got != 2 {
			t.Errorf("%d notes of a change by hand", got)
		}
	})
}
