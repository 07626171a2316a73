//go:build unix

package main

import (
	"database/sql"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite"

	"latchkey/internal/server/directory"
	"latchkey/internal/server/store/db"
)

type (
	storeUser = db.User
	outcome   = directory.Outcome
)

// tamper edits the subject of the first event in the database file.
func tamper(ts *testscript.TestScript) {
	c, err := sql.Open("sqlite", filepath.Join(ts.Getenv("WORK"), ".server.db"))
	if err != nil {
		ts.Fatalf("%v", err)
	}
	defer c.Close()
	if _, err := c.Exec("UPDATE events SET subject = 'nobody' WHERE seq = 1"); err != nil {
		ts.Fatalf("%v", err)
	}
}
