package people_test

import (
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web/webtest"
)

// rig is the people's door over SQLite.
func rig(t *testing.T) *webtest.Rig {
	t.Helper()
	c := clock.NewManual(webtest.Start)
	return webtest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
}
