package keys_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

func TestKeysAreMadeOnceAndReadAgain(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		c := keys.Config{Dir: t.TempDir(), Store: s, Clock: clock.Real}
		a, made, err := keys.Open(t.Context(), c)
		if err != nil || !made {
			t.Fatal(made, err)
		}
		b, made, err := keys.Open(t.Context(), c)
		if err != nil || made {
			t.Fatal(made, err)
		}
		same(t, a, b)
		info, err := os.Stat(keys.MasterPath(c.Dir))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("the master key has mode %v, %v", info.Mode(), err)
		}
		// Neither the folder nor the database shows a key in clear.
		for _, v := range stored(t, s) {
			if bytes.Contains(v, a.Grant.Seed()) || bytes.Contains(v, a.Pepper.Reveal()) {
				t.Error("a key lies in the database in clear")
			}
		}
	})
}

func same(t *testing.T, a, b *keys.Keys) {
	t.Helper()
	if !a.Grant.Equal(b.Grant) || !a.Pepper.Equal(b.Pepper) || !bytes.Equal(a.PermitPublic(), b.PermitPublic()) {
		t.Error("the keys differ")
	}
	if got, err := b.Box.Open(a.Box.Seal([]byte("x"), "t", "c", "r"), "t", "c", "r"); err != nil || string(got.Reveal()) != "x" {
		t.Error("the boxes differ")
	}
}

func stored(t *testing.T, s *store.Store) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := s.Read(t.Context(), func(q *store.Queries) error {
		names, err := q.ListSettingKeys(t.Context())
		for _, n := range names {
			if out[n], err = q.GetSetting(t.Context(), n); err != nil {
				return err
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReplicasThatStartAtOnceAgree(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		// The folder is shared or copied: the master key is there for both.
		dir := t.TempDir()
		if _, err := keys.CreateMaster(dir); err != nil {
			t.Fatal(err)
		}
		var all [4]*keys.Keys
		makers := 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		stores := []*store.Store{storetest.Open(t, store.Config{Database: database, Replica: "a"})}
		if !strings.HasPrefix(database, "sqlite") {
			stores = append(stores, storetest.Open(t, store.Config{Database: database, Replica: "b"}))
		}
		for i := range all {
			wg.Go(func() {
				k, made, err := keys.Open(context.Background(), keys.Config{Dir: dir, Store: stores[i%len(stores)], Clock: clock.Real})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				all[i] = k
				if made {
					makers++
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		if makers != 1 {
			t.Errorf("%d replicas made the keys", makers)
		}
		for _, k := range all[1:] {
			same(t, all[0], k)
		}
	})
}

func TestADatabaseIsNeverGivenOtherKeys(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	c := keys.Config{Dir: t.TempDir(), Store: s, Clock: clock.Real}
	if _, _, err := keys.Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	before := stored(t, s)

	missing := c
	missing.Dir = t.TempDir()
	if _, _, err := keys.Open(t.Context(), missing); !errors.Is(err, keys.ErrMissing) {
		t.Errorf("without the file: %v", err)
	}
	if _, err := os.Stat(keys.MasterPath(missing.Dir)); err == nil {
		t.Error("a new master key was made beside a database that has keys")
	}
	if _, err := keys.CreateMaster(missing.Dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.Open(t.Context(), missing); !errors.Is(err, keys.ErrForeign) {
		t.Errorf("with another file: %v", err)
	}
	if _, err := keys.CreateMaster(c.Dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second master key over the first: %v", err)
	}
	for name, v := range stored(t, s) {
		if !bytes.Equal(v, before[name]) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestAMasterKeyThatOthersMayReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := keys.CreateMaster(dir); err != nil {
		t.Fatal(err)
	}
	path := keys.MasterPath(dir)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o602, 0o660, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.ReadMaster(dir); !errors.Is(err, keys.ErrExposed) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.ReadMaster(dir); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
	other := t.TempDir()
	if err := os.Symlink(path, keys.MasterPath(other)); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.ReadMaster(other); err == nil {
		t.Error("a symbolic link was followed")
	}
}

func TestKeysCanNotBePrinted(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	k, _, err := keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "keys", k, "permit", k.Permit)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		fmt.Fprintf(&log, verb+verb, k, k.Permit)
	}
	for _, v := range []any{k, k.Permit} {
		if _, err := json.Marshal(v); err == nil {
			t.Errorf("%T was marshalled", v)
		}
	}
	if got := strings.NewReplacer("[keys]", "", "[key]", "").Replace(log.String()); strings.Contains(got, fmt.Sprintf("%x", k.Grant.Seed()[:4])) || len(got) > 200 {
		t.Errorf("printed: %s", log.String())
	}
}

func FuzzDecodeMaster(f *testing.F) {
	f.Add(keys.EncodeMaster(secret.New(make([]byte, 32))))
	f.Add([]byte("LKMK"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := keys.DecodeMaster(raw)
		if err == nil && !bytes.Equal(keys.EncodeMaster(k), raw) {
			t.Errorf("%x is read as another file", raw)
		}
	})
}
