package store

import "testing"

// SessionSetting is a setting of the connections that write.
func SessionSetting(t testing.TB, s *Store, name string) (value string) {
	t.Helper()
	if err := s.write.QueryRow("SHOW " + name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
