package tpm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
)

const (
	// CommandTime bounds one TPM command.
	CommandTime = 2 * time.Second
	// OperationTime bounds an operation of a sign-in, all its commands together. A
	// slow discrete TPM needs about half of it for a check.
	OperationTime = 3 * time.Second
	// SetupTime bounds an operation that makes, certifies or removes something.
	SetupTime = 10 * time.Second
	// WaitTime bounds how long an operation waits for those before it.
	WaitTime = 5 * time.Second
	// PermitTime bounds one question to the server for a permit.
	PermitTime = 5 * time.Second
)

// The NV handles that Latchkey uses unless it is told otherwise.
const (
	FirstHandle = 0x01804C00
	LastHandle  = 0x01804FFF
)

// Config is what a [Device] is opened with.
type Config struct {
	// Spec names the TPM: "auto", "none", "device:PATH" or "socket:PATH". Paths
	// are absolute. "auto" is the kernel's resource manager /dev/tpmrm0 on Linux,
	// TBS on Windows, and nothing elsewhere.
	Spec string
	// OwnerAuth authorises the owner hierarchy; it is mostly empty. It crosses
	// the bus in the clear where no secret is defined with it.
	OwnerAuth secret.Bytes
	// FirstHandle and LastHandle bound the NV handles of [Device.FreeHandles] and
	// [Device.Owned]. Both zero: the constants of these names.
	FirstHandle, LastHandle uint32
}

// Device is a machine's TPM. It holds nothing open between operations; its
// methods may be called from any goroutine, and run one after the other for all
// devices of the process that name the same TPM.
type Device struct {
	cfg    Config
	addr   address
	gate   *gate
	pins   pins
	dial   func(ctx context.Context) (conn, error)
	limits times
	waited atomic.Int64 // nanoseconds
}

// Waited is how long this program has waited for answers of the TPM so far, all
// commands together. What it computes in between is not in it.
func (d *Device) Waited() time.Duration { return time.Duration(d.waited.Load()) }

// times are the bounds; tests on loaded machines have longer ones.
type times struct{ command, quick, setup time.Duration }

// pins are the Names that the machine's two storage keys must have.
type pins struct {
	mu    sync.Mutex
	names Names
}

// OpenDevice is [Open] with nothing but a spec.
func OpenDevice(spec string) (*Device, error) { return Open(Config{Spec: spec}) }

// Open reads the spec and finds the TPM, but does not talk to it: a TPM that is
// named and not there is told by the first operation, as [ErrGone]. The error is
// [ErrNone] if the spec says "none", or says "auto" and there is no TPM.
func Open(cfg Config) (*Device, error) {
	if cfg.FirstHandle == 0 && cfg.LastHandle == 0 {
		cfg.FirstHandle, cfg.LastHandle = FirstHandle, LastHandle
	}
	if err := errors.Join(checkHandle("first", cfg.FirstHandle), checkHandle("last", cfg.LastHandle)); err != nil {
		return nil, err
	}
	if cfg.LastHandle < cfg.FirstHandle {
		return nil, fmt.Errorf("last handle %#08x comes before the first, %#08x", cfg.LastHandle, cfg.FirstHandle)
	}
	a, err := parseSpec(cfg.Spec)
	if err != nil {
		return nil, err
	}
	return &Device{cfg: cfg, addr: a, gate: gateOf(a), dial: a.dial, limits: times{CommandTime, OperationTime, SetupTime}}, nil
}

// String names the TPM as a spec does.
func (d *Device) String() string { return d.addr.String() }

// address is where a TPM is found.
type address struct {
	how  string // "socket", "device" or "tbs"
	path string
}

func (a address) String() string {
	if a.path == "" {
		return a.how
	}
	return a.how + ":" + a.path
}

// maxSocketPath is what sun_path holds on the system that allows least.
const maxSocketPath = 103

func parseSpec(spec string) (address, error) {
	how, path, named := strings.Cut(spec, ":")
	switch {
	case spec == "none":
		return address{}, ErrNone
	case spec == "auto":
		return findTPM()
	case named && (how == "device" || how == "socket"):
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			return address{}, fmt.Errorf("TPM setting %.100q: the path must be absolute", spec)
		}
		if how == "socket" && len(path) > maxSocketPath {
			return address{}, fmt.Errorf("TPM setting %.100q: a socket's path has at most %d octets, this one has %d", spec, maxSocketPath, len(path))
		}
		return address{how, filepath.Clean(path)}, nil
	}
	return address{}, fmt.Errorf("TPM setting %.100q: want auto, none, device:PATH or socket:PATH", spec)
}

// alone tells whether this process has the TPM to itself while it is open, so
// that nobody else cleans up what a killed process left. A resource manager does
// that itself and would not like to be helped.
func (a address) alone() bool {
	if a.how == "socket" {
		return true
	}
	base := filepath.Base(a.path)
	n, ok := strings.CutPrefix(base, "tpm")
	return a.how == "device" && ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// gate is what all devices of the process that name one TPM share.
type gate struct {
	turn chan struct{} // holds one token; whoever has it may use stuck and saved

	stuck <-chan struct{}               // closed when an abandoned command has ended
	saved map[primaryKind]*savedPrimary // so that a primary key need not be made each time

	mu    sync.Mutex
	dirty bool                        // something may be left loaded in the TPM
	held  map[tpm2.TPMHandle]struct{} // sessions that outlive their turn, see aside
}

// newGate is dirty: an earlier process may have left something.
func newGate() *gate {
	return &gate{turn: make(chan struct{}, 1), dirty: true, held: map[tpm2.TPMHandle]struct{}{}, saved: map[primaryKind]*savedPrimary{}}
}

func (g *gate) soil() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dirty = true
}

// cleaning tells whether to clean up, and beside what. What fails at it soils
// the gate again.
func (g *gate) cleaning() (dirty bool, but map[tpm2.TPMHandle]struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	dirty, g.dirty = g.dirty, false
	return dirty, maps.Clone(g.held)
}

func (g *gate) hold(h tpm2.TPMHandle) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held[h] = struct{}{}
}

func (g *gate) unhold(h tpm2.TPMHandle) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.held, h)
}

// gates is the one global of this package: a TPM is one for the whole process,
// and an emulator's socket serves one connection at a time.
var gates struct {
	sync.Mutex
	m map[address]*gate
}

func gateOf(a address) *gate {
	gates.Lock()
	defer gates.Unlock()
	g := gates.m[a]
	if g == nil {
		g = newGate()
		if gates.m == nil {
			gates.m = map[address]*gate{}
		}
		gates.m[a] = g
	}
	return g
}

// Do opens the TPM, runs f and closes it. f must use t only while it runs, and
// must flush what it loads. Everything together takes at most [WaitTime] and
// [OperationTime]; after that t answers every command with [ErrUnavailable].
func (d *Device) Do(ctx context.Context, f func(t transport.TPM) error) error {
	return d.do(ctx, d.limits.quick, func(l *line) error { return f(l) })
}

func (d *Device) do(ctx context.Context, limit time.Duration, f func(l *line) error) error {
	l, err := d.enter(ctx, limit)
	if err != nil {
		return err
	}
	defer l.leave()
	err = classify(f(l))
	if err != nil {
		// An answer that could not be read may have been about something loaded.
		d.gate.soil()
	}
	return err
}

// line is one opening of the TPM. It implements transport.TPM. After the first
// failure of the connection it answers everything with that, so that what is
// deferred does not wait too.
type line struct {
	d       *Device
	ctx     context.Context
	cancel  context.CancelFunc
	conn    conn
	err     error
	started bool
	lost    bool // the turn is not ours any more
}

// conn carries commands. exchange ends soon after ctx does.
type conn interface {
	exchange(ctx context.Context, command []byte) ([]byte, error)
	// close gives the connection back. If a command could not be ended, the
	// channel is closed when it has; else it is nil.
	close() (stuck <-chan struct{})
}

// enter waits for the turn, opens the TPM and cleans up after the dead.
func (d *Device) enter(ctx context.Context, limit time.Duration) (*line, error) {
	if err := d.takeTurn(ctx); err != nil {
		return nil, err
	}
	l, err := d.open(ctx, limit)
	if err != nil {
		d.giveTurn()
		return nil, err
	}
	return l, nil
}

func (d *Device) takeTurn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, WaitTime)
	defer cancel()
	select {
	case d.gate.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case d.gate.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: waiting for an earlier operation: %w", ErrBusy, ctx.Err())
	}
}

func (d *Device) giveTurn() { <-d.gate.turn }

// open needs the turn.
func (d *Device) open(ctx context.Context, limit time.Duration) (*line, error) {
	l := &line{d: d}
	l.ctx, l.cancel = context.WithTimeout(ctx, limit)
	if d.gate.stuck != nil {
		select {
		case <-d.gate.stuck:
			d.gate.stuck = nil
		case <-l.ctx.Done():
			l.cancel()
			return nil, fmt.Errorf("%w: an earlier command has not come back", ErrUnavailable)
		}
	}
	c, err := d.dial(l.ctx)
	if err != nil {
		l.cancel()
		return nil, err
	}
	l.conn = c
	if dirty, but := d.gate.cleaning(); dirty && d.addr.alone() {
		if err := flushLoaded(l, but); err != nil {
			err = classify(fmt.Errorf("cleaning up: %w", err))
			l.hangUp()
			d.gate.soil()
			return nil, err
		}
	}
	return l, nil
}

// hangUp closes the connection but keeps the turn.
func (l *line) hangUp() {
	if l.conn == nil {
		return
	}
	if stuck := l.conn.close(); stuck != nil {
		l.d.gate.stuck = stuck
	}
	l.conn = nil
	l.cancel()
	if l.err != nil {
		l.d.gate.soil()
	}
}

func (l *line) leave() {
	if l.lost {
		return
	}
	l.hangUp()
	l.d.giveTurn()
}

// aside gives the turn to others while f runs, and takes it again; the session
// lives on. A resource manager ends the sessions of a connection with it, so
// there the connection stays; elsewhere it must not, or nobody else has one.
func (l *line) aside(ctx context.Context, session tpm2.TPMHandle, limit time.Duration, f func() error) error {
	d := l.d
	d.gate.hold(session)
	defer d.gate.unhold(session)
	if d.addr.alone() {
		l.hangUp()
	}
	d.giveTurn()
	asked := f()
	// The session must be ended even if the caller has gone.
	if err := d.takeTurn(context.WithoutCancel(ctx)); err != nil {
		l.lost = true
		d.gate.soil()
		if l.conn != nil {
			_ = l.conn.close()
			l.conn = nil
		}
		return errors.Join(asked, err)
	}
	if l.conn != nil {
		l.cancel()
		l.ctx, l.cancel = context.WithTimeout(context.WithoutCancel(ctx), limit)
		return asked
	}
	n, err := d.open(context.WithoutCancel(ctx), limit)
	if err != nil {
		d.gate.soil()
		d.giveTurn()
		l.lost = true
		return errors.Join(asked, err)
	}
	*l = *n
	return asked
}

// The sizes of a TPM's answer, in octets.
const (
	headerSize = 10
	maxAnswer  = 4096
)

// Send implements transport.TPM. A command to which the TPM says "not now" is
// sent again while there is time: the TPM has not begun it.
func (l *line) Send(command []byte) ([]byte, error) {
	if len(command) < headerSize {
		return nil, fmt.Errorf("a command of %d octets", len(command))
	}
	pause := 20 * time.Millisecond
	for {
		rsp, err := l.once(command)
		if err != nil {
			return nil, err
		}
		if tpm2.TPMCC(be32(command[6:])) == tpm2.TPMCCFlushContext && responseCode(rsp) != tpm2.TPMRCSuccess {
			l.d.gate.soil()
		}
		switch responseCode(rsp) {
		case tpm2.TPMRCInitialize:
			// A TPM that was powered on and told nothing.
			if !l.d.addr.alone() || l.started {
				return rsp, nil
			}
			l.started = true
			if rsp, err := l.once(startupCommand()); err != nil || responseCode(rsp) != tpm2.TPMRCSuccess {
				return rsp, err
			}
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate:
			// Some time must be left for cleaning up.
			if end, _ := l.ctx.Deadline(); clock.Deadline(4*pause).After(end) || !l.pause(pause) {
				return rsp, nil
			}
			pause = min(2*pause, 400*time.Millisecond)
		default:
			return rsp, nil
		}
	}
}

// pause waits for d and tells whether the operation still has time.
func (l *line) pause(d time.Duration) bool {
	ctx, cancel := context.WithTimeout(l.ctx, d)
	defer cancel()
	<-ctx.Done()
	return l.ctx.Err() == nil
}

func (l *line) once(command []byte) ([]byte, error) {
	if l.err != nil {
		return nil, l.err
	}
	if l.conn == nil {
		return nil, fmt.Errorf("%w: used after it was closed", ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.d.limits.command)
	defer cancel()
	begun := clock.Real.Now()
	rsp, err := l.conn.exchange(ctx, command)
	l.d.waited.Add(int64(max(0, clock.Real.Now().Sub(begun))))
	if err == nil {
		err = checkAnswer(rsp)
	}
	if err != nil {
		l.err = unreachable(ctx, err)
		return nil, l.err
	}
	return rsp, nil
}

// checkAnswer refuses an answer whose header is not one.
func checkAnswer(rsp []byte) error {
	if len(rsp) < headerSize || len(rsp) > maxAnswer {
		return fmt.Errorf("an answer of %d octets", len(rsp))
	}
	if tag := be16(rsp); tag != 0x8001 && tag != 0x8002 {
		return fmt.Errorf("an answer with the tag %#04x", tag)
	}
	if n := be32(rsp[2:]); int64(n) != int64(len(rsp)) {
		return fmt.Errorf("an answer of %d octets that claims %d", len(rsp), n)
	}
	return nil
}

func responseCode(rsp []byte) tpm2.TPMRC { return tpm2.TPMRC(be32(rsp[6:])) }

// startupCommand is TPM2_Startup(CLEAR), TPM 2.0 part 3 §9.3.
func startupCommand() []byte { return []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0} }

func be16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
func be32(b []byte) uint32 { return uint32(be16(b))<<16 | uint32(be16(b[2:])) }

// unreachable types a failure of the connection.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	if isGone(err) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// flushLoaded ends the sessions and unloads the objects that nobody alive has.
func flushLoaded(t transport.TPM, but map[tpm2.TPMHandle]struct{}) error {
	hs, err := handles(t, 0x02000000, 0x03000000, 0x80000000)
	if err != nil {
		return err
	}
	seen := map[tpm2.TPMHandle]bool{}
	for _, h := range hs {
		if _, live := but[h]; live || seen[h] {
			continue
		}
		seen[h] = true
		// One that is gone already is what is wanted; a broken line is told by
		// the next command.
		_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(t)
	}
	return nil
}

// handles lists the TPM's handles of the ranges that start at first.
func handles(t transport.TPM, first ...uint32) (hs []tpm2.TPMHandle, err error) {
	for _, from := range first {
		for more := true; more; {
			r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: from, PropertyCount: 254}.Execute(t)
			if err != nil {
				return nil, err
			}
			l, err := r.CapabilityData.Data.Handles()
			if err != nil {
				return nil, err
			}
			hs = append(hs, l.Handle...)
			if more = bool(r.MoreData) && len(l.Handle) > 0; more {
				next := uint32(l.Handle[len(l.Handle)-1]) + 1
				if next <= from {
					return nil, fmt.Errorf("%w: handles out of order", ErrUnavailable)
				}
				from = next
			}
		}
	}
	return hs, nil
}
