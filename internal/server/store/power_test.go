//go:build linux

package store_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/statefile/powertest"
	"latchkey/test/scale"
)

const powerEnv = "LATCHKEY_TEST_POWER_DIR"

// TestPowerCutChild is the program whose file operations are recorded: it makes
// changes, several at once and large enough that the write-ahead log is copied into
// the database meanwhile, and says each one once it was acknowledged.
func TestPowerCutChild(t *testing.T) {
	dir := os.Getenv(powerEnv)
	if dir == "" {
		return // only TestO10… runs it
	}
	open := func() *store.Store {
		s, err := store.Open(t.Context(), store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: clock.Real})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	n := 0
	for range 2 { // closing copies the log into the database and removes it
		s := open()
		for range 16 {
			var wg sync.WaitGroup
			for range 3 {
				k := n
				n++
				wg.Go(func() {
					if err := powerChange(t.Context(), s, k); err != nil {
						t.Error(err)
						return
					}
					fmt.Printf("change %d\n", k)
				})
			}
			wg.Wait()
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// powerChange is a change of three parts: a row that only it writes, one that all
// write, and an event.
func powerChange(ctx context.Context, s *store.Store, k int) error {
	return s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		value := []byte(strings.Repeat(strconv.Itoa(k%10), 24_000))
		if err := tx.PutSetting(ctx, db.PutSettingParams{Key: fmt.Sprintf("power.%d", k), Value: value, UpdatedAt: 1}); err != nil {
			return err
		}
		if _, err := tx.Event(event.Event{Type: event.SigninAllowed, Subject: strconv.Itoa(k), Outcome: "allow"}); err != nil {
			return err
		}
		return tx.PutSetting(ctx, db.PutSettingParams{Key: "power.last", Value: []byte(strconv.Itoa(k)), UpdatedAt: 1})
	})
}

// After a power cut at any file operation of the real SQLite, whatever of the unsynced
// writes has reached the disk and in which order, the server starts, its event chain is
// whole, every change that was acknowledged is there and none is there in half (O10, V4).
func TestO10V4TheServersDatabaseSurvivesAPowerCutAtEveryFileOperation(t *testing.T) {
	dir := t.TempDir()
	shared := func(path string) bool { return strings.HasSuffix(path, "-shm") } // memory; gone with the power
	rec := powertest.Record(t, dir, shared, []string{powerEnv + "=" + dir}, os.Args[0], "-test.run=^TestPowerCutChild$")
	if all := rec.Said(rec.Len()); !strings.Contains(strings.Join(all, "\n"), "change 95") {
		t.Fatalf("the recorded program said only %q", all)
	}
	dice := rand.New(rand.NewPCG(7, 7))
	cuts := rec.Cuts(scale.N(40, rec.Len()+1), dice)
	tried := 0
	for _, cut := range cuts {
		fates := []powertest.Fate{powertest.Landed(), powertest.Lost()}
		for range scale.N(1, 2) {
			fates = append(fates, powertest.Torn(dice))
		}
		for _, fate := range fates {
			disk := filepath.Join(t.TempDir(), fmt.Sprint(tried))
			tried++
			if err := rec.Disk(cut, fate, disk); err != nil {
				t.Fatal(err)
			}
			if err := powerVerify(t.Context(), disk, rec.Said(cut)); err != nil {
				t.Fatalf("power cut behind operation %d of %d, what was not synced %s: %v%s", cut, rec.Len(), fate.Name, err, rec.Last(cut))
			}
			if err := os.RemoveAll(disk); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d disks of %d file operations", tried, rec.Len())
}

func powerVerify(ctx context.Context, dir string, said []string) (err error) {
	s, err := store.Open(ctx, store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: clock.Real, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return fmt.Errorf("the server does not start: %w", err)
	}
	defer s.Close()
	report, err := s.VerifyEvents(ctx)
	if err != nil {
		return err
	}
	if !report.Whole() {
		return fmt.Errorf("the event chain is broken: %+v", report)
	}
	rows := map[string]bool{}
	last := ""
	err = s.Read(ctx, func(q *store.Queries) error {
		keys, err := q.ListSettingKeys(ctx)
		if err != nil {
			return err
		}
		for _, key := range keys {
			v, err := q.GetSetting(ctx, key)
			if err != nil {
				return err
			}
			switch k, mine := strings.CutPrefix(key, "power."); {
			case !mine:
			case k == "last":
				last = string(v)
			case len(v) != 24_000:
				return fmt.Errorf("%s has %d octets", key, len(v))
			default:
				rows[k] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	events, err := s.Events(ctx, store.EventFilter{Limit: 500})
	if err != nil {
		return err
	}
	if len(events) != len(rows) || last == "" && len(rows) > 0 || last != "" && !rows[last] {
		return fmt.Errorf("half a change: %d rows, %d events, the last is %q", len(rows), len(events), last)
	}
	for _, e := range events {
		if !rows[e.Subject] {
			return fmt.Errorf("half a change: the event of %s without its row", e.Subject)
		}
	}
	for _, word := range said {
		if k, ok := strings.CutPrefix(word, "change "); ok && !rows[k] {
			return fmt.Errorf("change %s was acknowledged and is gone", k)
		}
	}
	// And it goes on from there.
	if err := powerChange(ctx, s, 1000); err != nil {
		return fmt.Errorf("nothing can be changed any more: %w", err)
	}
	return nil
}
