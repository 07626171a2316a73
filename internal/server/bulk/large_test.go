package bulk_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// The whole figure of docs/benchmarks.md is measured with -bulk.rows 100000.
var many = flag.Int("bulk.rows", 10_000, "rows of the large import")

// lines gives a file of n users as it is read, so that the file itself is in no memory.
func lines(n int, display string) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		_, err := b.WriteString("name,display_name,mail,groups,uid,activation\r\n")
		for i := 0; i < n && err == nil; i++ {
			_, err = fmt.Fprintf(b, "user%06d,\"%s, %06d\",user%06d@example.org,Staff|Site %d,%d,first-login\r\n", i, display, i, i, i%20, 10000+i)
		}
		if err == nil {
			err = b.Flush()
		}
		w.CloseWithError(err)
	}()
	return r
}

// peak watches the heap until the returned function is called, which gives the most
// that was in use beside what was there before.
func peak() func() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, uint64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		return most - min(most, before)
	}
}

func TestALargeImportTakesBoundedMemoryAndIsAtomic(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := newRig(t, s)
		n := *many
		for _, step := range []struct {
			name, display, want string
			in                  rest.NewImport
		}{
			{"new", "One", fmt.Sprintf("done new=%d changed=0 same=0 faulty=0", n), rest.NewImport{MakeGroups: true, Codes: true}},
			{"again", "One", fmt.Sprintf("done new=0 changed=0 same=%d faulty=0", n), rest.NewImport{Codes: true}},
			{"changed", "Two", fmt.Sprintf("done new=0 changed=%d same=0 faulty=0", n), rest.NewImport{}},
			{"changed in slices", "Three", fmt.Sprintf("done new=0 changed=%d same=0 faulty=0", n), rest.NewImport{OnFaults: rest.FaultsSkip}},
		} {
			_, begun := r.end()
			used := peak()
			start := time.Now()
			i, err := r.bulk.Make(t.Context(), desk.Root(), step.in)
			r.must(err)
			i, err = r.bulk.Upload(t.Context(), desk.Root(), i.ID, "large.csv", lines(n, step.display))
			r.must(err)
			checked := time.Since(start)
			// What a sign-in would wait for while users are changed.
			longest, stop, done := time.Duration(0), make(chan struct{}), make(chan struct{})
			shown, watched, id := int64(0), make(chan struct{}), i.ID
			go func() {
				defer close(watched)
				for {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
					if now, err := r.bulk.Show(context.Background(), desk.Root(), id); err == nil && now.State == rest.ImportApplying && now.Done < int64(n) {
						shown = max(shown, now.Done)
					}
				}
			}()
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
					}
					at := time.Now()
					_ = s.Update(t.Context(), nothing)
					longest = max(longest, time.Since(at))
					time.Sleep(5 * time.Millisecond)
				}
			}()
			i = r.apply(desk.Root(), i.ID)
			close(stop)
			<-done
			<-watched
			if step.name != "again" && n >= 10_000 && shown == 0 {
				t.Errorf("%s: nobody saw how far it was", step.name)
			}
			says(t, i, step.want)
			took, heap := time.Since(start), used()
			count, _ := r.end()
			t.Logf("%s, %d rows, %s: checked in %.1f s, applied in %.1f s, others waited up to %.2f s, heap +%d MB, %d events",
				s.Engine(), n, step.name, checked.Seconds(), (took - checked).Seconds(), longest.Seconds(), heap>>20, count-begun)
			if heap > 96<<20 {
				t.Errorf("%s: the heap grew by %d MB", step.name, heap>>20)
			}
			switch step.name {
			case "new":
				if i.CodesLeft != int64(n) || count-begun != int64(2*n+1+21) {
					t.Errorf("%d codes, %d events", i.CodesLeft, count-begun)
				}
				var codes lineCounter
				r.must(r.bulk.WriteCodes(t.Context(), desk.Root(), i.ID, &codes))
				if int(codes) != n+1 {
					t.Errorf("%d lines of codes", codes)
				}
			case "again":
				if count != begun || i.CodesLeft != 0 {
					t.Errorf("the second run writes %d events", count-begun)
				}
			}
			r.must(r.bulk.Drop(t.Context(), desk.Root(), i.ID))
		}
		if u := r.show(fmt.Sprintf("user%06d", n-1)); u.DisplayName != fmt.Sprintf("Three, %06d", n-1) || strings.Join(u.Groups, "|") != fmt.Sprintf("Site %d|Staff", (n-1)%20) {
			t.Errorf("%+v", u)
		}
	})
}

type lineCounter int

func (c *lineCounter) Write(b []byte) (int, error) {
	*c += lineCounter(strings.Count(string(b), "\n"))
	return len(b), nil
}
