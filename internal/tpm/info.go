package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Info is what the TPM says about itself. Texts are ASCII without control
// characters.
type Info struct {
	Version      string `json:"version"`      // "2.0"
	Manufacturer string `json:"manufacturer"` // four letters, such as "IFX"
	VendorString string `json:"vendor_string"`
	Firmware     string `json:"firmware"` // such as "7.85.4555.0"

	// The dictionary-attack lock of the whole TPM. Verifiers never touch it and
	// are not stopped by it.
	LockoutCounter uint32 `json:"lockout_counter"`
	MaxAuthFail    uint32 `json:"max_auth_fail"`
	InLockout      bool   `json:"in_lockout"`

	OwnerAuthSet   bool `json:"owner_auth_set"`   // the owner hierarchy has a password
	LockoutAuthSet bool `json:"lockout_auth_set"` // the lockout hierarchy has a password

	// ResetCount counts the TPM's starts, RestartCount its resumes since.
	ResetCount   uint32 `json:"reset_count"`
	RestartCount uint32 `json:"restart_count"`

	// NVIndices is how many indices there are. CountersFree is how many more
	// counters the TPM says that there is room for; the PIN indices of verifiers
	// share the room with them on some TPMs and not on others.
	NVIndices    int    `json:"nv_indices"`
	CountersFree uint32 `json:"counters_free"`

	// Counter is the handle of the machine's counter, so that the server can check
	// its certificates. Who has defined it fills it in; [Device.Info] does not.
	Counter uint32 `json:"counter,omitempty"`
}

// Info asks the TPM about itself.
func (d *Device) Info(ctx context.Context) (i Info, err error) {
	err = d.do(ctx, d.limits.setup, func(l *line) error {
		p := map[tpm2.TPMPT]uint32{}
		for _, first := range []tpm2.TPMPT{tpm2.TPMPTFamilyIndicator, tpm2.TPMPTPermanent} {
			if err := properties(l, first, p); err != nil {
				return err
			}
		}
		text := func(of ...tpm2.TPMPT) string {
			var b []byte
			for _, t := range of {
				b = binary.BigEndian.AppendUint32(b, p[t])
			}
			return printable(b)
		}
		i = Info{
			Version:        text(tpm2.TPMPTFamilyIndicator),
			Manufacturer:   text(tpm2.TPMPTManufacturer),
			VendorString:   text(tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4),
			LockoutCounter: p[tpm2.TPMPTLockoutCounter],
			MaxAuthFail:    p[tpm2.TPMPTMaxAuthFail],
			InLockout:      p[tpm2.TPMPTPermanent]&(1<<9) != 0, // TPMA_PERMANENT, TPM 2.0 part 2 §8.6
			OwnerAuthSet:   p[tpm2.TPMPTPermanent]&(1<<0) != 0,
			LockoutAuthSet: p[tpm2.TPMPTPermanent]&(1<<2) != 0,
			CountersFree:   p[tpm2.TPMPTNVCountersAvail],
		}
		f1, f2 := p[tpm2.TPMPTFirmwareVersion1], p[tpm2.TPMPTFirmwareVersion2]
		i.Firmware = fmt.Sprintf("%d.%d.%d.%d", f1>>16, f1&0xFFFF, f2>>16, f2&0xFFFF)
		hs, err := handles(l, nvHandles)
		if err != nil {
			return err
		}
		i.NVIndices = len(hs)
		c, err := readClock(l)
		if err == nil {
			i.ResetCount, i.RestartCount = c.ResetCount, c.RestartCount
		}
		return err
	})
	return i, err
}

// ResetCount counts the TPM's starts: another value is another boot. It costs
// one command.
func (d *Device) ResetCount(ctx context.Context) (n uint32, err error) {
	err = d.do(ctx, d.limits.quick, func(l *line) error {
		c, err := readClock(l)
		n = c.ResetCount
		return err
	})
	return n, err
}

func readClock(t transport.TPM) (tpm2.TPMSClockInfo, error) {
	r, err := tpm2.ReadClock{}.Execute(t)
	if err != nil {
		return tpm2.TPMSClockInfo{}, fmt.Errorf("reading the TPM's clock: %w", err)
	}
	return r.CurrentTime.ClockInfo, nil
}

// properties adds the properties of the group that starts at first.
func properties(t transport.TPM, first tpm2.TPMPT, to map[tpm2.TPMPT]uint32) error {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(first), PropertyCount: 64}.Execute(t)
	if err != nil {
		return fmt.Errorf("asking for properties: %w", err)
	}
	l, err := r.CapabilityData.Data.TPMProperties()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, p := range l.TPMProperty {
		to[p.Property] = p.Value
	}
	return nil
}

func printable(b []byte) string {
	b = bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, b)
	return strings.TrimSpace(string(b))
}

// nvHandles is where the handles of NV indices start.
const nvHandles = 0x01000000

// FreeHandles proposes n NV handles of the configured range that nothing has.
// The error is [ErrNoSpace] if there are not so many.
func (d *Device) FreeHandles(ctx context.Context, n int) (free []uint32, err error) {
	err = d.do(ctx, d.limits.quick, func(l *line) error {
		taken, err := handles(l, d.cfg.FirstHandle)
		if err != nil {
			return err
		}
		for h := d.cfg.FirstHandle; h <= d.cfg.LastHandle && len(free) < n; h++ {
			if !slices.Contains(taken, tpm2.TPMHandle(h)) {
				free = append(free, h)
			}
		}
		if len(free) < n {
			return fmt.Errorf("%w: %d of %d handles free in %#08x to %#08x", ErrNoSpace, len(free), n, d.cfg.FirstHandle, d.cfg.LastHandle)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return free, nil
}

// Owned is an index in the configured range that has the shape of one of ours.
type Owned struct {
	Handle uint32
	// What it is: "password", "use" or "counter".
	What string
	// Active tells whether it was ever written.
	Active bool
}

// Owned lists our indices, so that those which nothing refers to any more can be
// given back with [Device.Reclaim].
func (d *Device) Owned(ctx context.Context) (list []Owned, err error) {
	err = d.do(ctx, d.limits.setup, func(l *line) error {
		hs, err := handles(l, d.cfg.FirstHandle)
		if err != nil {
			return err
		}
		for _, h := range hs {
			if uint32(h) > d.cfg.LastHandle {
				break
			}
			r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(l)
			if err != nil {
				return fmt.Errorf("looking at index %#08x: %w", uint32(h), err)
			}
			p, err := r.NVPublic.Contents()
			if err != nil {
				return fmt.Errorf("%w: index %#08x: %w", ErrUnavailable, uint32(h), err)
			}
			if what := shape(p); what != "" {
				list = append(list, Owned{uint32(h), what, p.Attributes.Written})
			}
		}
		return nil
	})
	return list, err
}

// shape tells which of our indices has such a public area, whoever's it is.
func shape(p *tpm2.TPMSNVPublic) string {
	if p.NameAlg != tpm2.TPMAlgSHA256 || p.DataSize != 8 {
		return ""
	}
	a := p.Attributes
	a.Written = false
	if a == counterIndex(0, false).Attributes && len(p.AuthPolicy.Buffer) == 0 {
		return "counter"
	}
	for _, k := range kinds {
		if a == indexAttributes(k) && len(p.AuthPolicy.Buffer) == nameSize-2 {
			return k.String()
		}
	}
	return ""
}

// Reclaim deletes indices of the configured range that have the shape of ours,
// whosever they are. Those that are gone are no error; one of another shape is
// left and told as [ErrReplaced].
func (d *Device) Reclaim(ctx context.Context, list ...uint32) error {
	for _, h := range list {
		if h < d.cfg.FirstHandle || h > d.cfg.LastHandle {
			return fmt.Errorf("index %#08x is outside %#08x to %#08x", h, d.cfg.FirstHandle, d.cfg.LastHandle)
		}
	}
	return d.do(ctx, d.limits.setup, func(l *line) error {
		var errs []error
		for _, h := range list {
			errs = append(errs, reclaim(l, ownerHandle(d.cfg.OwnerAuth), tpm2.TPMHandle(h)))
		}
		return errors.Join(errs...)
	})
}

func reclaim(t transport.TPM, owner tpm2.AuthHandle, h tpm2.TPMHandle) error {
	r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at index %#08x: %w", uint32(h), err)
	}
	p, err := r.NVPublic.Contents()
	if err != nil {
		return fmt.Errorf("%w: index %#08x: %w", ErrUnavailable, uint32(h), err)
	}
	if shape(p) == "" {
		return fmt.Errorf("%w: index %#08x", ErrReplaced, uint32(h))
	}
	return undefine(t, owner, fmt.Sprintf("index %#08x", uint32(h)), h)
}
