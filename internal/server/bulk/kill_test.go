package bulk_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

const killRows = 5000

// at opens what an import stands on in a folder that another process has used.
func at(t testing.TB, dir string, c clock.Clock) (*store.Store, *bulk.Service) {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := keys.Open(context.Background(), keys.Config{Dir: dir, Store: s, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	passwords, err := local.New(local.Config{Clock: c, Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	keeper := &factor.Keeper{Box: k.Box, Pepper: k.Pepper, Random: rand.Reader}
	d := desk.New(desk.Config{Store: s, Keys: k, Clock: c, Random: rand.Reader, Passwords: passwords, Factors: keeper, Version: "test"})
	return s, bulk.New(bulk.Config{Store: s, Desk: d, Box: k.Box, Clock: c, Passwords: passwords, Codes: keeper})
}

// TestKilledChild is the process that is killed.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv("LATCHKEY_TEST_KILLED")
	if dir == "" {
		t.Skip("it is run by TestAServerThatIsKilledLeavesNothingHalfWritten")
	}
	ctx := context.Background()
	_, b := at(t, dir, clock.Real)
	i, err := b.Make(ctx, desk.Root(), rest.NewImport{Codes: true, MakeGroups: true})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("READING", i.ID)
	if _, err := b.Upload(ctx, desk.Root(), i.ID, "killed.csv", lines(killRows, "Killed")); err != nil {
		t.Fatal(err)
	}
	fmt.Println("APPLYING", i.ID)
	if _, err := b.Apply(ctx, desk.Root(), i.ID); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if i, err = b.Show(ctx, desk.Root(), i.ID); err != nil {
			t.Fatal(err)
		}
		if i.Told > 0 {
			fmt.Println("TELLING", i.ID)
			time.Sleep(time.Minute)
		}
	}
}

func TestAServerThatIsKilledLeavesNothingHalfWritten(t *testing.T) {
	for _, c := range []struct {
		word  string
		after time.Duration
	}{{"READING", 60 * time.Millisecond}, {"APPLYING", 0}, {"APPLYING", 60 * time.Millisecond}, {"APPLYING", 200 * time.Millisecond}, {"APPLYING", 500 * time.Millisecond}, {"TELLING", 0}, {"TELLING", 50 * time.Millisecond}} {
		t.Run(fmt.Sprint(c.word, " ", c.after), func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledChild$", "-test.v")
			cmd.Env = append(os.Environ(), "LATCHKEY_TEST_KILLED="+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			id, said := "", []string{}
			for lines := bufio.NewScanner(out); lines.Scan(); {
				said = append(said, lines.Text())
				if word, rest, ok := strings.Cut(lines.Text(), " "); ok && word == c.word {
					id = rest
					break
				}
			}
			time.Sleep(c.after)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if id == "" {
				t.Fatalf("the child said %q", said)
			}
			// Later than every lease.
			s, b := at(t, dir, clock.NewManual(time.Now().Add(10*time.Minute)))
			defer s.Close()
			defer b.Close()
			count := func() (users int64) {
				if err := s.Read(t.Context(), func(q *store.Queries) (err error) { users, err = q.CountUsers(t.Context()); return err }); err != nil {
					t.Fatal(err)
				}
				return users
			}
			found := count()
			if found != 0 && found != killRows || c.word == "TELLING" && found == 0 {
				t.Fatalf("%d of %d users are there", found, killRows)
			}
			if err := b.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			var i rest.Import
			for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
				if i, err = b.Show(t.Context(), desk.Root(), id); err != nil {
					t.Fatal(err)
				}
				if i.State != rest.ImportApplying && i.State != rest.ImportTelling {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("it does not end: %+v", i)
				}
			}
			t.Logf("%d users were there; then %s", found, i.State)
			switch {
			case i.State == rest.ImportFailed && c.word == "READING" && count() == 0:
				return
			case i.State == rest.ImportChecked && count() == 0: // killed before it was to be applied
				return
			case i.State != rest.ImportDone || count() != killRows || i.CodesLeft != killRows:
				t.Fatalf("%+v, %d users", i, count())
			}
			kinds := map[string]int{}
			err = s.Read(t.Context(), func(q *store.Queries) error {
				rows, err := q.ListChainEvents(t.Context(), db.ListChainEventsParams{Chain: s.Replica(), N: 1 << 20})
				for _, e := range rows {
					kinds[e.Type]++
				}
				return err
			})
			if err != nil || kinds[string(event.UserAdded)] != killRows || kinds[string(event.CodeIssued)] != killRows || kinds[string(event.ImportApplied)] != 1 {
				t.Errorf("%v, %v", kinds, err)
			}
			var codes lineCounter
			if err := b.WriteCodes(t.Context(), desk.Root(), id, &codes); err != nil || int(codes) != killRows+1 {
				t.Errorf("%d lines of codes, %v", codes, err)
			}
		})
	}
}
