package key

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"latchkey/internal/assertion"
	"latchkey/internal/clock"
	"latchkey/internal/wire"
)

// The commands of CTAP 2.1 §6 and its words for what went wrong (§8.2).
const (
	ctapAssert = 0x02
	ctapInfo   = 0x04
	ctapPIN    = 0x06

	statusOK             = 0x00
	statusDenied         = 0x27
	statusCancelled      = 0x2d
	statusNoCredentials  = 0x2e
	statusTouchTimeout   = 0x2f
	statusPINInvalid     = 0x31
	statusPINBlocked     = 0x32
	statusPINAuthInvalid = 0x33
	statusPINAuthBlocked = 0x34
	statusPINNotSet      = 0x35
	statusPUATRequired   = 0x36
	statusActionTimeout  = 0x3a
	statusUVBlocked      = 0x3c
	statusUVInvalid      = 0x3f
)

// status is a key's refusal.
type status byte

func (s status) Error() string { return fmt.Sprintf("the security key says %#02x", byte(s)) }

// refusal gives the error of this package for a key's word.
func refusal(s status) error {
	switch s {
	case statusNoCredentials:
		return ErrNotYours
	case statusPINInvalid, statusPINAuthInvalid:
		return ErrPINWrong
	case statusPINBlocked:
		return ErrPINBlocked
	case statusPINAuthBlocked:
		return ErrPINPower
	case statusPINNotSet, statusPUATRequired:
		return ErrNoPIN
	case statusUVBlocked, statusUVInvalid:
		return ErrFingerUsedUp
	case statusTouchTimeout, statusActionTimeout, statusCancelled:
		return ErrTouch
	}
	return fmt.Errorf("%w: %w", ErrRefused, s)
}

// info is what a key says of itself (§6.4).
type info struct {
	Versions  []string        `cbor:"1,keyasint"`
	AAGUID    []byte          `cbor:"3,keyasint"`
	Options   map[string]bool `cbor:"4,keyasint"`
	MaxSize   uint            `cbor:"5,keyasint"`
	Protocols []uint          `cbor:"6,keyasint"`
}

type credential struct {
	ID   []byte `cbor:"id"`
	Type string `cbor:"type"`
}

// assertRequest is authenticatorGetAssertion (§6.2).
type assertRequest struct {
	RPID     string          `cbor:"1,keyasint"`
	Hash     []byte          `cbor:"2,keyasint"`
	Allow    []credential    `cbor:"3,keyasint"`
	Options  map[string]bool `cbor:"5,keyasint,omitempty"`
	PINAuth  []byte          `cbor:"6,keyasint,omitempty"`
	Protocol uint            `cbor:"7,keyasint,omitempty"`
}

type assertReply struct {
	Credential *credential `cbor:"1,keyasint"`
	AuthData   []byte      `cbor:"2,keyasint"`
	Signature  []byte      `cbor:"3,keyasint"`
}

// encode is CTAP's canonical form (§8).
var encode = func() cbor.EncMode {
	m, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

var decode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 8, MaxMapPairs: 64, MaxArrayElements: 64,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// parse reads a key's answer: a status and, where it is good, a map.
func parse(answer []byte, into any) error {
	switch {
	case len(answer) == 0:
		return fmt.Errorf("%w: empty", ErrForm)
	case answer[0] != statusOK:
		return status(answer[0])
	case into == nil:
		return nil
	}
	if err := decode.Unmarshal(answer[1:], into); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	return nil
}

// device is a key with an open channel.
type device struct {
	*channel
	info info
}

func open(ctx context.Context, port Port, c clock.Clock) (*device, error) {
	h, err := dial(ctx, port, c)
	if err != nil {
		return nil, err
	}
	d := &device{channel: h}
	if err := d.call(ctx, ctapInfo, nil, &d.info, nil); err != nil {
		var s status
		if errors.As(err, &s) {
			return nil, ErrOld
		}
		return nil, err
	}
	if !slices.ContainsFunc(d.info.Versions, func(v string) bool { return len(v) >= 5 && v[:5] == "FIDO_" }) {
		return nil, ErrOld
	}
	return d, nil
}

// call makes one call of CTAP.
func (d *device) call(ctx context.Context, cmd byte, in, out any, touch func()) error {
	body := []byte{cmd}
	if in != nil {
		b, err := encode.Marshal(in)
		if err != nil {
			return err
		}
		body = append(body, b...)
	}
	defer clear(body)
	answer, err := d.exchange(ctx, body, touch)
	if err != nil {
		return err
	}
	return parse(answer, out)
}

// assert asks for an assertion: first, without a touch, which credential is this key's;
// then with it.
func (d *device) assert(ctx context.Context, a Ask, p Person) (wire.KeyAnswer, error) {
	var token *token
	var err error
	own := -1
	for i := range a.Credentials {
		err := d.try(ctx, a, i, nil, map[string]bool{"up": false}, nil, nil)
		var s status
		switch {
		case err == nil:
			own = i
		case errors.As(err, &s) && (s == statusNoCredentials):
			continue
		case errors.As(err, &s):
			// A credential that is shown only behind the PIN (credProtect), or a key that wants
			// the PIN always: found out below.
			own = i
		default:
			return wire.KeyAnswer{}, err
		}
		break
	}
	if own < 0 {
		return wire.KeyAnswer{}, ErrNotYours
	}
	options := map[string]bool{}
	if a.Verification || d.info.Options["alwaysUv"] {
		switch {
		case d.info.Options["uv"]:
			options["uv"] = true // its own fingerprint reader
		case d.info.Options["clientPin"]:
			if token, err = d.pin(ctx, a.RPID, p); err != nil {
				return wire.KeyAnswer{}, err
			}
			defer token.wipe()
		default:
			return wire.KeyAnswer{}, ErrNoPIN
		}
	}
	once := false
	touch := func() {
		if !once {
			once = true
			p.Touch()
		}
	}
	var r assertReply
	err = d.try(ctx, a, own, token, options, &r, touch)
	var s status
	if errors.As(err, &s) && token == nil && (s == statusUVBlocked || s == statusUVInvalid || s == statusPUATRequired) && d.info.Options["clientPin"] {
		if token, err = d.pin(ctx, a.RPID, p); err != nil {
			return wire.KeyAnswer{}, err
		}
		defer token.wipe()
		err = d.try(ctx, a, own, token, nil, &r, touch)
	}
	switch {
	case errors.As(err, &s):
		return wire.KeyAnswer{}, refusal(s)
	case err != nil:
		return wire.KeyAnswer{}, err
	}
	// A key that was given one id may leave it out (§6.2.2).
	answer := wire.KeyAnswer{Credential: a.Credentials[own], AuthData: r.AuthData, Signature: r.Signature}
	switch {
	case r.Credential != nil && !bytes.Equal(r.Credential.ID, answer.Credential),
		len(r.AuthData) == 0, len(r.AuthData) > assertion.MaxAuthData, len(r.Signature) == 0, len(r.Signature) > assertion.MaxSignature:
		return wire.KeyAnswer{}, ErrForm
	}
	return answer, nil
}

func (d *device) try(ctx context.Context, a Ask, i int, t *token, options map[string]bool, into *assertReply, touch func()) error {
	in := assertRequest{RPID: a.RPID, Hash: a.ClientHash[:], Allow: []credential{{a.Credentials[i], "public-key"}}, Options: options}
	if into == nil {
		// What is signed without a touch must not be of use to anybody.
		in.Hash, into = make([]byte, len(a.ClientHash)), new(assertReply)
	}
	if t != nil {
		in.PINAuth, in.Protocol = t.authenticate(in.Hash), t.protocol
	}
	return d.call(ctx, ctapAssert, in, into, touch)
}

// pin asks for the PIN until it is right.
func (d *device) pin(ctx context.Context, rpID string, p Person) (*token, error) {
	protocol := uint(0)
	for _, v := range d.info.Protocols {
		if v == 2 || v == 1 && protocol == 0 {
			protocol = v
		}
	}
	if protocol == 0 {
		protocol = 1 // keys of CTAP 2.0 do not say
	}
	for n := 1; ; n++ {
		left, err := d.retries(ctx, protocol)
		if err != nil {
			return nil, err
		}
		typed, err := p.PIN(ctx, left)
		if err != nil {
			return nil, err
		}
		t, err := d.token(ctx, protocol, rpID, typed)
		typed.Wipe()
		if err == nil || !errors.Is(err, ErrPINWrong) || n == maxPINs {
			return t, err
		}
	}
}
