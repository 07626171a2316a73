//go:build linux

package powertest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"latchkey/internal/statefile"
	"latchkey/internal/statefile/powertest"
)

const rounds = 5

// TestPowerChild is the program that is recorded; by itself it does nothing.
func TestPowerChild(t *testing.T) {
	dir := os.Getenv("LATCHKEY_POWER_CHILD")
	if dir == "" {
		return
	}
	for i := range rounds {
		content := fmt.Appendf(nil, "%04d%01200d", i, i)
		if err := statefile.Replace(filepath.Join(dir, "careful"), content); err != nil {
			t.Fatal(err)
		}
		// The same without any care, to see that the cut is seen.
		if err := os.WriteFile(filepath.Join(dir, "careless"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("round %d\n", i)
	}
}

// A file that Replace wrote is the old one or the new one at every cut, and the new
// one once Replace has returned; one that was just written is not, and the
// playing shows it (O10).
func TestO10ReplacedFilesAreWholeAtEveryPowerCut(t *testing.T) {
	dir := t.TempDir()
	rec := powertest.Record(t, dir, nil, []string{"LATCHKEY_POWER_CHILD=" + dir}, os.Args[0], "-test.run=^TestPowerChild$", "-test.v=false")
	dice := rand.New(rand.NewPCG(3, 1))
	careless := map[string]int{}
	for cut := range rec.Len() + 1 {
		said := len(rec.Said(cut)) // the test's own last word comes behind
		fates := []powertest.Fate{powertest.Landed(), powertest.Lost()}
		for range 4 {
			fates = append(fates, powertest.Torn(dice))
		}
		for i, fate := range fates {
			disk := filepath.Join(t.TempDir(), fmt.Sprint(cut, i))
			if err := rec.Disk(cut, fate, disk); err != nil {
				t.Fatal(err)
			}
			got := -1
			if b, err := os.ReadFile(filepath.Join(disk, "careful")); err == nil {
				if len(b) != 1204 {
					t.Fatalf("cut at %d, %s: %d octets%s", cut, fate.Name, len(b), rec.Last(cut))
				}
				if _, err := fmt.Sscanf(string(b), "%04d", &got); err != nil {
					t.Fatal(err)
				}
			}
			if got < min(said, rounds)-1 {
				t.Errorf("cut at %d, %s: the file is that of round %d, promised was %d%s", cut, fate.Name, got, said-1, rec.Last(cut))
			}
			if b, _ := os.ReadFile(filepath.Join(disk, "careless")); said > 0 && len(b) != 1204 {
				careless[fate.Name]++
			}
		}
	}
	if careless["lost"] == 0 || careless["torn"] == 0 || careless["landed"] == 0 {
		t.Errorf("a file that nobody synced survives everything: %v", careless)
	}
}
