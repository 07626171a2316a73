package key

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"latchkey/internal/assertion"
	"latchkey/internal/assertion/softkey"
	"latchkey/internal/clock"
	"latchkey/internal/secret"
)

const rpID = "latchkey.example.org"

// person types PINs and notes what is told.
type person struct {
	mu   sync.Mutex
	told []string
	pins []string
	left []int
}

func (p *person) say(s string) { p.mu.Lock(); p.told = append(p.told, s); p.mu.Unlock() }
func (p *person) Insert()      { p.say("insert") }
func (p *person) Touch()       { p.say("touch") }
func (p *person) PIN(_ context.Context, left int) (secret.Bytes, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told, p.left = append(p.told, "pin"), append(p.left, left)
	if len(p.pins) == 0 {
		return secret.Bytes{}, errors.New("nothing typed")
	}
	s := p.pins[0]
	p.pins = p.pins[1:]
	return secret.FromString(s), nil
}

// plug gives a Finder that opens these keys anew each time.
func plug(t *testing.T, ks ...*softkey.Key) Finder {
	return func() ([]Port, error) {
		var ports []Port
		for _, k := range ks {
			here, there := net.Pipe()
			go k.Serve(there)
			t.Cleanup(func() { here.Close() })
			ports = append(ports, Over(here))
		}
		return ports, nil
	}
}

func ask(ids ...[]byte) Ask {
	return Ask{RPID: rpID, ClientHash: assertion.ClientHash(make([]byte, 32), "m1", "u1"), Credentials: ids}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAKeyThatIsTouchedProvesWhoHoldsIt(t *testing.T) {
	for name, c := range map[string]struct {
		key    *softkey.Key
		verify bool
		pins   []string
		told   []string
		count  int // of assertions before
	}{
		"touched":                        {told: []string{"touch"}},
		"without a counter":              {key: &softkey.Key{NoCounter: true}, told: []string{"touch"}},
		"with a PIN":                     {key: &softkey.Key{PIN: "1234"}, verify: true, pins: []string{"1234"}, told: []string{"pin", "touch"}},
		"with a PIN, of CTAP 2.0":        {key: &softkey.Key{PIN: "1234", Protocols: []uint{1}}, verify: true, pins: []string{"1234"}, told: []string{"pin", "touch"}},
		"with a PIN after a wrong one":   {key: &softkey.Key{PIN: "1234"}, verify: true, pins: []string{"0000", "1234"}, told: []string{"pin", "pin", "touch"}},
		"with a PIN that is not in NFC":  {key: &softkey.Key{PIN: "äbcd"}, verify: true, pins: []string{"a\u0308bcd"}, told: []string{"pin", "touch"}},
		"with a finger":                  {key: &softkey.Key{Finger: true, PIN: "1234"}, verify: true, told: []string{"touch"}},
		"a PIN that nobody wants to see": {key: &softkey.Key{PIN: "1234"}, told: []string{"touch"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := c.key
			if k == nil {
				k = &softkey.Key{}
			}
			k.Touch = func(<-chan struct{}) bool { return true }
			id, cose := k.Register(rpID)
			p := &person{pins: c.pins}
			keys := &Keys{Find: plug(t, k), Clock: clock.Real}
			a := ask([]byte("another credential"), id)
			a.Verification = c.verify
			got, err := keys.Assert(within(t, 10*time.Second), a, p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Credential, id) {
				t.Errorf("credential %x", got.Credential)
			}
			r, err := assertion.Verify(cose, got.AuthData, got.Signature, assertion.Want{RPID: rpID, ClientHash: a.ClientHash, Verification: c.verify})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verified != c.verify {
				t.Errorf("verified: %v", r.Verified)
			}
			if !slices.Equal(p.told, c.told) {
				t.Errorf("told %v; want %v", p.told, c.told)
			}
			if n := k.Asked.Load(); n != 1 {
				t.Errorf("touched %d times", n)
			}
		})
	}
}

func TestAKeyThatCanNotProveSaysWhy(t *testing.T) {
	never := func(<-chan struct{}) bool { return false }
	for name, c := range map[string]struct {
		key    *softkey.Key
		other  bool // the key is registered for somebody else
		verify bool
		pins   []string
		want   error
	}{
		"of somebody else":              {other: true, want: ErrNotYours},
		"that speaks U2F":               {key: &softkey.Key{U2F: true}, want: ErrOld},
		"that nobody touches":           {key: &softkey.Key{Touch: never}, want: ErrTouch},
		"without a PIN where one wants": {verify: true, want: ErrNoPIN},
		"with three wrong PINs":         {key: &softkey.Key{PIN: "1234"}, verify: true, pins: []string{"0000", "0001", "0002"}, want: ErrPINPower},
		"with a PIN that is too short":  {key: &softkey.Key{PIN: "1234"}, verify: true, pins: []string{"1", "2", "3"}, want: ErrPINWrong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := c.key
			if k == nil {
				k = &softkey.Key{}
			}
			id, _ := k.Register(rpID)
			if c.other {
				id = []byte("not of this key")
			}
			a := ask(id)
			a.Verification = c.verify
			_, err := (&Keys{Find: plug(t, k), Clock: clock.Real}).Assert(within(t, 4*time.Second), a, &person{pins: c.pins})
			if !errors.Is(err, c.want) {
				t.Fatalf("%v; want %v", err, c.want)
			}
		})
	}
}

func TestAPINThatIsTooShortCostsNoTry(t *testing.T) {
	k := &softkey.Key{PIN: "1234"}
	id, _ := k.Register(rpID)
	a := ask(id)
	a.Verification = true
	if _, err := (&Keys{Find: plug(t, k), Clock: clock.Real}).Assert(within(t, 5*time.Second), a, &person{pins: []string{"1", "12", "123"}}); !errors.Is(err, ErrPINWrong) {
		t.Fatal(err)
	}
	if n := k.PINs.Load(); n != 0 {
		t.Errorf("%d tries", n)
	}
}

func TestTheRightKeyIsFoundAmongSeveralAndLater(t *testing.T) {
	wrong, old, right := &softkey.Key{}, &softkey.Key{U2F: true}, &softkey.Key{}
	wrong.Register(rpID)
	id, cose := right.Register(rpID)
	looks := 0
	keys := &Keys{Clock: clock.Real, Find: func() ([]Port, error) {
		looks++
		if looks < 3 {
			return plug(t, old, wrong)()
		}
		return plug(t, old, wrong, right)()
	}}
	p := &person{}
	a := ask(id)
	got, err := keys.Assert(within(t, 10*time.Second), a, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := assertion.Verify(cose, got.AuthData, got.Signature, assertion.Want{RPID: rpID, ClientHash: a.ClientHash}); err != nil {
		t.Error(err)
	}
	if wrong.Asked.Load() != 0 {
		t.Error("the wrong key was to be touched")
	}
	if !slices.Contains(p.told, "insert") {
		t.Errorf("told %v", p.told)
	}
}

func TestWhoeverGivesUpFreesTheKey(t *testing.T) {
	began := make(chan struct{})
	k := &softkey.Key{Touch: func(gone <-chan struct{}) bool { close(began); <-gone; return false }}
	id, _ := k.Register(rpID)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	_, err := (&Keys{Find: plug(t, k), Clock: clock.Real}).Assert(ctx, ask(id), &person{})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for range 100 {
		if k.Cancel.Load() > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the key was not told")
}

func TestAKeyThatIsPulledOutIsNotWaitedFor(t *testing.T) {
	k := &softkey.Key{}
	id, _ := k.Register(rpID)
	keys := &Keys{Clock: clock.Real, Find: func() ([]Port, error) {
		here, there := net.Pipe()
		k.Touch = func(<-chan struct{}) bool { there.Close(); time.Sleep(time.Second); return false }
		go k.Serve(there)
		return []Port{Over(here)}, nil
	}}
	if _, err := keys.Assert(within(t, 2*time.Second), ask(id), &person{}); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
}

// canned is a key that answers every report with the next of some octets.
type canned struct{ left []byte }

func (c *canned) WriteReport([reportSize]byte) error { return nil }
func (c *canned) Close() error                       { return nil }
func (c *canned) ReadReport(time.Time) (r [reportSize]byte, err error) {
	if len(c.left) == 0 {
		return r, net.ErrClosed
	}
	c.left = c.left[copy(r[:], c.left):]
	return r, nil
}

func FuzzFramesOfAKey(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0x90, 0, 3, 0, 0xa0, 0})
	f.Add(bytes.Repeat([]byte{0, 0, 0, 1, 0x90, 0xff, 0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &device{channel: &channel{port: &canned{b}, clock: clock.Real, id: 1}}
		answer, err := d.exchange(context.Background(), []byte{ctapInfo}, nil)
		if err == nil && len(answer) > maxMessage {
			t.Errorf("%d octets", len(answer))
		}
	})
}

func FuzzAnswersOfAKey(f *testing.F) {
	f.Add([]byte{0, 0xa0})
	f.Add([]byte{0x2e})
	f.Fuzz(func(t *testing.T, b []byte) {
		var i info
		_ = parse(b, &i)
		var r assertReply
		_ = parse(b, &r)
		var p pinReply
		if parse(b, &p) == nil && p.Agreement != nil {
			_, _, _ = agree(2, p.Agreement)
		}
	})
}
