// Package key speaks to FIDO2 security keys that are plugged into the machine: CTAP 2.1
// over USB HID, and of it what a sign-in needs: what a key is, an assertion, and the PIN.
//
// It promises: every message from a key is bounded and read strictly, for a key is a
// stranger's device; a PIN is asked for only where the key says that it has one, is told
// how many tries are left, and leaves this package only encrypted for the key; every wait
// ends with the context; a key that is pulled out is an error and not a wait.
//
// It judges nothing: whether an assertion is good is said by internal/assertion. Keys
// that only speak U2F (CTAP 1) are told apart and not used.
//
// Rows: M2, O3.
package key

import (
	"context"
	"errors"
	"fmt"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

// What can be wrong with a key.
var (
	ErrNone         = errors.New("no security key of yours was found")
	ErrNotYours     = errors.New("the security key is not registered for this user")
	ErrOld          = errors.New("the security key speaks U2F only; a FIDO2 key is needed")
	ErrNoPIN        = errors.New("the security key has neither PIN nor fingerprint, and the policy wants one")
	ErrPINWrong     = errors.New("the PIN of the security key was wrong")
	ErrPINBlocked   = errors.New("the PIN of the security key is blocked; it must be reset")
	ErrPINPower     = errors.New("too many wrong PINs in a row: pull the security key out and plug it in again")
	ErrFingerUsedUp = errors.New("the fingerprint was not recognised too often; use the PIN")
	ErrTouch        = errors.New("the security key was not touched in time")
	ErrRefused      = errors.New("the security key has refused")
	ErrGone         = errors.New("the security key was pulled out, or does not answer")
	ErrForm         = errors.New("the security key gave an answer that is not of CTAP's form")
)

// Port is an open device that carries reports of 64 octets.
type Port interface {
	// WriteReport sends one report.
	WriteReport(report [reportSize]byte) error
	// ReadReport waits for one until the deadline; ErrTimeout when none came.
	ReadReport(until time.Time) ([reportSize]byte, error)
	Close() error
}

// ErrTimeout is what a Port says when nothing came in time.
var ErrTimeout = errors.New("no report in time")

// Finder opens the security keys that are plugged in now. A key that can not be opened
// is left out; err says that none could be looked for.
type Finder func() ([]Port, error)

// Person is who sits at the machine.
type Person interface {
	// Insert, Touch and Busy are told, each at most once.
	Insert()
	Touch()
	// PIN asks for the key's PIN; left is how many tries it has, or 0 if it does not say.
	PIN(ctx context.Context, left int) (secret.Bytes, error)
}

// Ask is what is wanted of a key.
type Ask struct {
	RPID         string
	ClientHash   [32]byte
	Credentials  [][]byte // ids
	Verification bool
}

// The bounds.
const (
	maxCredentials = 64
	maxCredential  = 1023
	maxPINs        = 3 // per sign-in
	// lookEvery is how often is looked whether a key has been plugged in.
	lookEvery = 300 * time.Millisecond
)

// Keys finds and asks security keys.
type Keys struct {
	Find  Finder
	Clock clock.Clock
}

// Assert has a key of the person sign, and waits until one is plugged in and touched or
// the context ends. The errors are those of this package, of the Person, or the
// context's.
func (k *Keys) Assert(ctx context.Context, a Ask, p Person) (wire.KeyAnswer, error) {
	if len(a.Credentials) == 0 || len(a.Credentials) > maxCredentials || a.RPID == "" {
		return wire.KeyAnswer{}, ErrNotYours
	}
	for _, c := range a.Credentials {
		if len(c) == 0 || len(c) > maxCredential {
			return wire.KeyAnswer{}, ErrNotYours
		}
	}
	told := false
	reason := ErrNone
	for {
		ports, err := k.Find()
		if err != nil {
			return wire.KeyAnswer{}, fmt.Errorf("%w: %w", ErrNone, err)
		}
		answer, err := k.first(ctx, ports, a, p)
		switch {
		case err == nil:
			return answer, nil
		case !errors.Is(err, ErrNone) && !errors.Is(err, ErrNotYours) && !errors.Is(err, ErrOld) && !errors.Is(err, ErrGone):
			return wire.KeyAnswer{}, err
		case !errors.Is(err, ErrNone):
			reason = err // the right one may still be plugged in
		}
		if !told {
			told = true
			p.Insert()
		}
		if err := k.Clock.Sleep(ctx, lookEvery); err != nil {
			return wire.KeyAnswer{}, reason
		}
	}
}

// first asks the keys one after the other for a credential that is theirs.
func (k *Keys) first(ctx context.Context, ports []Port, a Ask, p Person) (wire.KeyAnswer, error) {
	defer func() {
		for _, port := range ports {
			_ = port.Close()
		}
	}()
	reason := ErrNone
	for _, port := range ports {
		d, err := open(ctx, port, k.Clock)
		if err == nil {
			var answer wire.KeyAnswer
			if answer, err = d.assert(ctx, a, p); err == nil {
				return answer, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return wire.KeyAnswer{}, ctx.Err()
		case errors.Is(err, ErrNotYours), errors.Is(err, ErrOld), errors.Is(err, ErrGone), errors.Is(err, ErrForm):
			if errors.Is(reason, ErrNone) || errors.Is(err, ErrNotYours) {
				reason = err
			}
		default:
			return wire.KeyAnswer{}, err
		}
	}
	if errors.Is(reason, ErrForm) {
		reason = fmt.Errorf("%w: %w", ErrGone, reason)
	}
	return wire.KeyAnswer{}, reason
}
