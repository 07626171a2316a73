//go:build linux

package push_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	factorpush "latchkey/internal/server/factor/push"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/test/scale"
)

// The test binary is its own second server: one that a test kills.
const (
	childDatabase = "LATCHKEY_PUSH_DATABASE"
	childKeys     = "LATCHKEY_PUSH_KEYS"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDatabase) == "" {
		os.Exit(m.Run())
	}
	s, err := store.Open(context.Background(), store.Config{Database: os.Getenv(childDatabase), Replica: store.NewID(), Clock: clock.Real})
	var st *station
	if err == nil {
		st, err = newStation(s, clock.Real, os.Getenv(childKeys))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("SERVING", st.serve().URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test is gone
}

// station is a server's phones' door, and what asks phones and looks what came.
type station struct {
	desk  *desk.Desk
	store *store.Store
	clock clock.Clock
	push  *push.Service
	plug  factor.Waiter
	door  *phoneapi.Door
}

func newStation(s *store.Store, c clock.Clock, dir string) (*station, error) {
	ctx := context.Background()
	k, _, err := keys.Open(ctx, keys.Config{Dir: dir, Store: s, Clock: c})
	if err != nil {
		return nil, err
	}
	passwords, err := local.New(local.Config{Clock: c, Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}})
	if err != nil {
		return nil, err
	}
	people := func() string { return "https://latchkey.test" }
	p := push.New(push.Deps{Store: s, Box: k.Box, Pepper: k.Pepper, Random: rand.Reader, Clock: c, PeopleURL: people})
	d := desk.New(desk.Config{
		Store: s, Keys: k, Clock: c, Random: rand.Reader, Passwords: passwords, Factors: &factor.Keeper{Box: k.Box, Pepper: k.Pepper, Random: rand.Reader},
		Push: p, PeopleURL: people, Version: "test",
	})
	all := rate.Rate{PerSecond: 1e6, Burst: 1e6}
	return &station{
		desk: d, store: s, clock: c, push: p, plug: factorpush.New(p),
		door: phoneapi.New(phoneapi.Deps{Push: p, Desk: d, Store: s, Clock: c, PerPhone: all, Rate: all}),
	}, nil
}

// serve opens the door, and beside it the place where a sign-in looks.
func (st *station) serve() *httptest.Server {
	mux := http.NewServeMux()
	mux.Handle("/", st.door)
	mux.HandleFunc("/judge", func(w http.ResponseWriter, r *http.Request) {
		v, err := st.judge(r.FormValue("user"), r.FormValue("ticket"))
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(v.OK())
	})
	return httptest.NewTLSServer(mux)
}

func (st *station) judge(userID, ticket string) (v factor.Verdict, err error) {
	err = st.store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUser(ctx, userID)
		if err != nil {
			return err
		}
		v, err = st.plug.Judge(ctx, tx, factor.Try{User: u, Machine: "m-1", Typed: secret.FromString(""), Now: st.clock.Now(), Ticket: ticket, Door: factor.AtMachine})
		return err
	})
	return v, err
}

func (st *station) send(a factor.Ask) (sent factor.Sent, err error) {
	err = st.store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) (err error) {
		sent, err = st.plug.Send(ctx, tx, a)
		return err
	})
	return sent, err
}

// flat is a station in this process, with a user who has a phone.
type flat struct {
	*station
	testing.TB
	dir   string
	srv   *httptest.Server
	anna  db.User
	phone *phonetest.Phone
}

func newFlat(t testing.TB, database string, c clock.Clock) *flat {
	t.Helper()
	f := &flat{TB: t, dir: t.TempDir()}
	s := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "here"})
	var err error
	f.station, err = newStation(s, c, f.dir)
	f.must(err)
	f.must(s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertPolicy(ctx, db.InsertPolicyParams{ID: store.NewID(), Name: "default", IsDefault: true, Body: "{}", CreatedAt: 1, UpdatedAt: 1})
	}))
	f.open()
	t.Cleanup(f.close)
	_, err = f.desk.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "anna"})
	f.must(err)
	f.must(s.Read(t.Context(), func(q *store.Queries) (err error) {
		f.anna, err = q.GetUserByName(t.Context(), "anna")
		return err
	}))
	f.phone = f.blank()
	f.must(f.phone.Enrol(t.Context(), f.link(), "one"))
	return f
}

func (f *flat) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// open opens the door, anew if it was closed: so few phones in a while may be enrolled at one.
func (f *flat) open() {
	f.Helper()
	var err error
	f.station, err = newStation(f.store, f.clock, f.dir)
	f.must(err)
	f.srv = f.serve()
	if f.phone != nil {
		f.phone.Base, f.phone.HTTP = f.srv.URL, f.srv.Client()
	}
}

func (f *flat) close() {
	f.door.Stop()
	f.srv.Close()
}

func (f *flat) link() string {
	f.Helper()
	code, err := f.desk.AddPhone(context.Background(), desk.Root(), "anna")
	f.must(err)
	return code.Link.Show()
}

// blank is a phone that belongs to nobody.
func (f *flat) blank() *phonetest.Phone {
	f.Helper()
	p, err := phonetest.New(f.srv.Client(), f.clock)
	f.must(err)
	p.Base = f.srv.URL
	return p
}

func (f *flat) ask(ticket string) factor.Ask { return ask(f.anna, ticket, "m-1", f.clock.Now()) }

// asked sends a request and gives it as the phone sees it.
func (f *flat) asked(ticket string) (sent factor.Sent, r push.Request) {
	f.Helper()
	sent, err := f.send(f.ask(ticket))
	f.must(err)
	r, _, err = f.phone.Next(f.Context(), 0)
	f.must(err)
	return sent, r
}

func (f *flat) opens(ticket string) bool {
	f.Helper()
	v, err := f.judge(f.anna.ID, ticket)
	f.must(err)
	return v.OK()
}

func (f *flat) events(types ...event.Type) int {
	f.Helper()
	filter := store.EventFilter{Limit: 1000}
	for _, x := range types {
		filter.Types = append(filter.Types, string(x))
	}
	rows, err := f.store.Events(context.Background(), filter)
	f.must(err)
	return len(rows)
}

func (f *flat) devices() (n int) {
	f.Helper()
	f.must(f.store.Read(context.Background(), func(q *store.Queries) error {
		all, err := q.ListPushDevices(context.Background(), f.anna.ID)
		n = len(all)
		return err
	}))
	return n
}

func (f *flat) locked() bool {
	f.Helper()
	err := f.store.Read(context.Background(), func(q *store.Queries) error {
		_, err := q.GetPushLock(context.Background(), f.anna.ID)
		return err
	})
	if !store.IsNotFound(err) {
		f.must(err)
	}
	return err == nil
}

// killed has a server of its own do something for a phone, and kills it (SIGKILL) so long
// after it was asked, or if that is negative when it has answered. It gives what the phone
// was told, and behind an answer how long that took.
func (f *flat) killed(database string, after time.Duration, do func(base string) error) (took time.Duration, said error) {
	f.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDatabase+"="+database, childKeys+"="+f.dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	f.must(err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	base, ok := strings.CutPrefix(strings.TrimSpace(line), "SERVING ")
	if !ok {
		_ = cmd.Wait()
		f.Fatalf("the child said %q, %v", line, err)
	}
	// The connection stands: what follows is the request alone.
	if res, err := f.srv.Client().Get(base + "/judge"); err == nil {
		_ = res.Body.Close()
	}
	told := make(chan error, 1)
	began := time.Now()
	go func() { told <- do(base) }()
	if after < 0 {
		said, took = <-told, time.Since(began)
	} else {
		time.Sleep(after)
	}
	f.must(cmd.Process.Kill())
	_ = cmd.Wait()
	if after >= 0 {
		said = <-told
	}
	return took, said
}

// A server is killed at a moment that chance chooses while it takes an approval, a report
// or an enrolment, or spends an approval. What a phone was told stands; what it was not told
// it sends again, and that is taken once or refused as one that was taken; no approval opens
// twice, no code enrols two phones, and a report that was taken keeps everybody out.
func TestAServerIsKilledWhileAPhoneAnswers(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		f := newFlat(t, database, clock.Real)
		lost := map[string]int{}
		takes := map[string]time.Duration{} // of an answer by a server that is not killed
		for round := range scale.N(12, 400) {
			if round%32 == 31 {
				f.close()
				f.open()
			}
			kind := []string{"approve", "spend", "enrol", "report"}[round%4]
			ticket := fmt.Sprint("t", round)
			after := time.Duration(-1)
			if d, ok := takes[kind]; ok {
				after = time.Duration(mathrand.Int64N(int64(2*d) + 1))
			}
			var took time.Duration
			via := func(base string) *phonetest.Phone {
				p := *f.phone
				p.Base = base
				return &p
			}
			var told error
			switch kind {
			case "approve", "report":
				sent, r := f.asked(ticket)
				decision, number := push.Approve, sent.Number
				if kind == "report" {
					decision, number = push.Report, ""
				}
				answer := f.phone.Draft(r, decision, number)
				approved, reported := f.events(event.PushApproved), f.events(event.PushReported)
				took, told = f.killed(database, after, func(base string) error {
					_, err := via(base).Send(t.Context(), r.ID, answer)
					return err
				})
				// The phone knows nothing, and sends it again.
				_, again := f.phone.Send(t.Context(), r.ID, answer)
				if told == nil && phonetest.Code(again) != "answered" || again != nil && phonetest.Code(again) != "answered" {
					t.Errorf("%s: first %v, then %v", kind, told, again)
				}
				if n, m := f.events(event.PushApproved)-approved, f.events(event.PushReported)-reported; n+m != 1 || (kind == "report") != (m == 1) {
					t.Errorf("%s: %d approvals and %d reports were written down", kind, n, m)
				}
				if kind == "report" {
					if f.opens(ticket) || !f.locked() {
						t.Error("a report that was taken keeps nobody out")
					}
					if _, err := f.send(f.ask(ticket + "x")); !fault.Is(err, fault.TooMany) {
						t.Errorf("a phone is asked behind a report: %v", err)
					}
					f.must(f.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
						_, err := tx.UnlockPush(ctx, f.anna.ID)
						return err
					}))
					break
				}
				if !f.opens(ticket) || f.opens(ticket) {
					t.Error("an approval does not open once")
				}
			case "spend":
				sent, r := f.asked(ticket)
				f.must(f.phone.Approve(t.Context(), r, sent.Number))
				opened := 0
				took, told = f.killed(database, after, func(base string) error {
					res, err := f.srv.Client().PostForm(base+"/judge", url.Values{"user": {f.anna.ID}, "ticket": {ticket}})
					if err != nil {
						return err
					}
					defer res.Body.Close()
					ok := false
					if err = json.NewDecoder(res.Body).Decode(&ok); err == nil && ok {
						opened++
					}
					return err
				})
				here := f.opens(ticket)
				if here {
					opened++
				}
				if opened > 1 || told == nil && here || f.opens(ticket) {
					t.Errorf("an approval opened %d times; told %v, here %v", opened, told, here)
				}
			case "enrol":
				link, before := f.link(), f.devices()
				first, second := f.blank(), f.blank()
				took, told = f.killed(database, after, func(base string) error {
					first.Base = base
					return first.Enrol(t.Context(), link, "two")
				})
				again := second.Enrol(t.Context(), link, "two")
				if told == nil && phonetest.Code(again) != "code" || again != nil && phonetest.Code(again) != "code" {
					t.Errorf("enrolled: first %v, then %v", told, again)
				}
				if n := f.devices() - before; n != 1 {
					t.Errorf("one code enrolled %d phones", n)
				}
				if told == nil {
					first.Base = f.srv.URL
					_, err := first.Account(t.Context())
					f.must(err)
					f.must(first.Remove(t.Context()))
				} else if again == nil {
					f.must(second.Remove(t.Context()))
				} else { // it is enrolled, and does not know: the owner takes it away
					f.must(f.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
						all, err := tx.ListPushDevices(ctx, f.anna.ID)
						if err != nil {
							return err
						}
						_, err = tx.DeleteAuthenticator(ctx, all[len(all)-1].Authenticator.ID)
						return err
					}))
				}
			}
			if told != nil {
				lost[kind]++
			}
			if after < 0 {
				f.must(told)
				takes[kind] = took
			}
			// So many in ten minutes would be refused.
			f.must(f.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.DeleteOldPushRequests(ctx, clock.Micros(time.Now()))
				return err
			}))
		}
		if r, err := f.store.VerifyEvents(t.Context()); err != nil || !r.Whole() {
			t.Errorf("%v %+v", err, r)
		}
		if len(lost) == 0 && scale.Long() {
			t.Error("every server was killed behind its answer")
		}
		t.Logf("answers that were lost: %v; they take %v", lost, takes)
	})
}

// The database is away: the phone is told that it can not be answered now, nothing is
// approved, and the same answer counts when the database is back.
func TestAnAnswerWithoutADatabaseIsNone(t *testing.T) {
	database, link := storetest.Linked(t)
	f := newFlat(t, database, clock.Real)
	back := func(do func() error) {
		t.Helper()
		var err error
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			var e *phonetest.Error
			if err = do(); err == nil || errors.As(err, &e) && e.Status != http.StatusServiceUnavailable {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sent, r := f.asked("t1")
	answer := f.phone.Draft(r, push.Approve, sent.Number)
	link.Cut()
	var e *phonetest.Error
	if _, err := f.phone.Send(t.Context(), r.ID, answer); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
		t.Errorf("an approval without a database: %v", err)
	}
	if v, err := f.judge(f.anna.ID, "t1"); err == nil || v.OK() {
		t.Errorf("a sign-in without a database: %+v, %v", v, err)
	}
	if _, err := f.send(f.ask("t2")); !store.IsUnavailable(err) {
		t.Errorf("a request without a database: %v", err)
	}
	link.Mend()
	back(func() error {
		_, err := f.phone.Send(t.Context(), r.ID, answer)
		return err
	})
	if !f.opens("t1") || f.opens("t1") {
		t.Error("the approval does not open once")
	}
	// "It wasn't me" is not lost either.
	_, r = f.asked("t3")
	link.Cut()
	if err := f.phone.Report(t.Context(), r); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
		t.Errorf("a report without a database: %v", err)
	}
	link.Mend()
	back(func() error { return f.phone.Report(t.Context(), r) })
	if !f.locked() || f.opens("t3") || f.events(event.PushReported) != 1 {
		t.Error("the report came to nothing")
	}
}

// A disk that is full: an answer is taken as a whole, with its event, or refused as one that
// can not be taken now; the same answer counts when there is room.
func TestAFullDiskTakesAnAnswerWholeOrNotAtAll(t *testing.T) {
	dir := storetest.Small(t, 6<<20)
	if dir == "" {
		return // it went well in there
	}
	f := newFlat(t, "sqlite:"+filepath.Join(dir, "latchkey.db"), clock.Real)
	eat := func() { // what room is left within the database's own files
		for i := range 40 {
			_ = f.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				return tx.PutSetting(ctx, db.PutSettingParams{Key: fmt.Sprint("fill.", i), Value: []byte(strings.Repeat("x", 20_000)), UpdatedAt: 1})
			})
		}
	}
	refused := 0
	for round := range scale.N(4, 20) {
		ticket := fmt.Sprint("t", round)
		sent, r := f.asked(ticket)
		answer := f.phone.Draft(r, push.Approve, sent.Number)
		room := storetest.Fill(t, dir)
		eat()
		was := f.events(event.PushApproved)
		_, err := f.phone.Send(t.Context(), r.ID, answer)
		var e *phonetest.Error
		if err != nil && (!errors.As(err, &e) || e.Status != http.StatusServiceUnavailable) {
			t.Errorf("refused as %v", err)
		}
		if n := f.events(event.PushApproved) - was; (n == 1) != (err == nil) {
			t.Errorf("%d events, %v", n, err)
		}
		opened := 0
		if v, judged := f.judge(f.anna.ID, ticket); judged == nil && v.OK() {
			opened++
		}
		room()
		if err != nil {
			refused++
			if opened > 0 {
				t.Error("an approval that was refused opens")
			}
			if _, err := f.phone.Send(t.Context(), r.ID, answer); err != nil {
				t.Errorf("when there is room: %v", err)
			}
		}
		for range 2 {
			if f.opens(ticket) {
				opened++
			}
		}
		if opened != 1 {
			t.Errorf("the approval opened %d times", opened)
		}
	}
	if refused == 0 {
		t.Error("no answer was ever refused: the disk was not full")
	}
	if r, err := f.store.VerifyEvents(t.Context()); err != nil || !r.Whole() {
		t.Errorf("%v %+v", err, r)
	}
}

// A clock that is put back prolongs nothing that a phone was asked; one that is ahead ends
// it; and what was asked while it was ahead keeps nobody from asking when it is right.
func TestAClockThatIsWrongForPhones(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
		f := newFlat(t, database, c)
		at := func(by time.Duration, do func()) {
			c.Advance(by)
			do()
			c.Advance(-by)
		}
		for _, by := range []time.Duration{-time.Hour, time.Hour, -30 * 24 * time.Hour} {
			open, seen := f.asked("open" + by.String())
			answer := f.phone.Draft(seen, push.Approve, open.Number)
			refusals := f.events(event.PushRefused)
			at(by, func() {
				if all, err := f.phone.Requests(t.Context(), 0); err != nil || len(all.Requests) != 0 {
					t.Errorf("%s: the phone is shown %+v, %v", by, all.Requests, err)
				}
				if _, err := f.phone.Send(t.Context(), seen.ID, answer); phonetest.Code(err) != "expired" {
					t.Errorf("%s: an answer to what is over: %v", by, err)
				}
				v, err := f.judge(f.anna.ID, "open"+by.String())
				if f.must(err); v.Outcome != factor.Over {
					t.Errorf("%s: the sign-in waits: %+v", by, v)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				f.push.Wait(ctx, "open"+by.String())
				if ctx.Err() != nil {
					t.Errorf("%s: somebody waits for what is over", by)
				}
				cancel()
			})
			if n := f.events(event.PushRefused) - refusals; n != 1 {
				t.Errorf("%s: %d refusals were written down", by, n)
			}
			// When the clock is right it counts, for what is left of its minute, once.
			if _, err := f.phone.Send(t.Context(), seen.ID, answer); err != nil {
				t.Errorf("%s: when the clock is right: %v", by, err)
			}
			at(by, func() {
				if f.opens("open" + by.String()) {
					t.Errorf("%s: an approval of another time opens", by)
				}
			})
			if !f.opens("open"+by.String()) || f.opens("open"+by.String()) {
				t.Errorf("%s: the approval does not open once", by)
			}

			link := f.link()
			at(by, func() {
				if err := f.blank().Enrol(t.Context(), link, "late"); phonetest.Code(err) != "code" {
					t.Errorf("%s: a code enrols: %v", by, err)
				}
			})
		}

		// At the people's door nobody knows whether a sign-in is over: one of an hour from now
		// keeps no other out.
		portal := func(ticket string) factor.Ask {
			a := f.ask(ticket)
			a.Door, a.Machine = factor.AtPortal, ""
			return a
		}
		_, err := f.send(portal("p1"))
		f.must(err)
		if _, err := f.send(portal("p2")); !fault.Is(err, fault.TooMany) {
			t.Errorf("two at once: %v", err)
		}
		at(-time.Hour, func() {
			_, err := f.send(portal("p3"))
			f.must(err)
		})

		// Two months ahead somebody asks from a new machine until no more may be asked there.
		const months = 60 * 24 * time.Hour
		there := func(ticket string) error {
			a := f.ask(ticket)
			a.Machine = "m-2"
			_, err := f.send(a)
			return err
		}
		asked := 0
		at(months, func() {
			for ; asked < 50; asked++ {
				if err := there(fmt.Sprint("a", asked)); fault.Is(err, fault.TooMany) {
					break
				} else {
					f.must(err)
				}
			}
		})
		if asked == 0 || asked == 50 {
			t.Fatalf("%d requests were sent", asked)
		}
		if err := there("b1"); !fault.Is(err, fault.TooMany) {
			t.Errorf("what was asked in two months counts no more: %v", err)
		}
		f.must(f.push.Sweep(t.Context()))
		f.must(there("b2"))
	})
}
