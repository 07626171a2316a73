package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/secret"
)

// primaryKind names one of the two primary keys of the owner hierarchy. Both are
// the same after every start until the TPM is cleared.
type primaryKind int

const (
	importParent primaryKind = iota // imports verifier keys and does nothing else
	storageKey                      // holds what this machine makes for itself
)

func (k primaryKind) String() string {
	if k == importParent {
		return "import parent"
	}
	return "storage key"
}

func (k primaryKind) template() tpm2.TPMTPublic {
	if k == importParent {
		return parentTemplate()
	}
	return tpm2.ECCSRKTemplate
}

// Names are the TPM's Names of the machine's two primary keys. They tell this
// TPM, as it is since it was last cleared, from all others.
type Names struct {
	Parent  []byte `json:"parent"`
	Storage []byte `json:"storage"`
}

func (n Names) of(k primaryKind) []byte {
	if k == importParent {
		return n.Parent
	}
	return n.Storage
}

// Names makes both primary keys and tells their Names, to be recorded when the
// machine joins.
func (d *Device) Names(ctx context.Context) (n Names, err error) {
	err = d.do(ctx, d.limits.setup, func(l *line) error {
		for _, k := range []primaryKind{importParent, storageKey} {
			p, err := l.primary(k, nil)
			if err != nil {
				return err
			}
			flush(l, p.handle)
			if k == importParent {
				n.Parent = p.name.Buffer
			} else {
				n.Storage = p.name.Buffer
			}
		}
		return nil
	})
	return n, err
}

// Pin makes every later operation that needs one of the primary keys fail with
// [ErrCleared] unless it has the Name given. An empty Name pins nothing.
func (d *Device) Pin(n Names) {
	d.pins.mu.Lock()
	defer d.pins.mu.Unlock()
	d.pins.names = Names{bytes.Clone(n.Parent), bytes.Clone(n.Storage)}
}

// Parent is the public area of the import parent, for the server's
// [ParseParent].
func (d *Device) Parent(ctx context.Context) (public []byte, err error) {
	err = d.withMachine(ctx, d.limits.setup, nil, func(m *machine) error {
		public = tpm2.Marshal(m.parent.public)
		return nil
	})
	return public, err
}

// withMachine runs f with the import parent loaded; want is the Name it must
// have beside the pinned one, if there is one.
func (d *Device) withMachine(ctx context.Context, limit time.Duration, want []byte, f func(m *machine) error) error {
	return d.do(ctx, limit, func(l *line) error {
		p, err := l.primary(importParent, want)
		if err != nil {
			return err
		}
		defer flush(l, p.handle)
		return f(&machine{tpm: l, ownerAuth: d.cfg.OwnerAuth, parent: p})
	})
}

// withStorage runs f with the storage key loaded.
func (d *Device) withStorage(ctx context.Context, limit time.Duration, want []byte, f func(l *line, storage loaded) error) error {
	return d.do(ctx, limit, func(l *line) error {
		p, err := l.primary(storageKey, want)
		if err != nil {
			return err
		}
		defer flush(l, p.handle)
		return f(l, p)
	})
}

// savedPrimary is a primary key as TPM2_ContextSave gave it out. Making the key
// takes a discrete TPM a quarter of a second; loading it hardly any time.
type savedPrimary struct {
	context tpm2.TPMSContext
	key     loaded
}

// primary loads a primary key. It returns ErrCleared unless the key has the Name
// that is pinned and the one wanted.
func (l *line) primary(kind primaryKind, want []byte) (loaded, error) {
	p, err := l.recall(kind)
	if err != nil {
		if p, err = makePrimary(l, l.d.cfg.OwnerAuth, kind); err != nil {
			return p, err
		}
		if c, err := (tpm2.ContextSave{SaveHandle: p.handle}).Execute(l); err == nil {
			l.d.gate.saved[kind] = &savedPrimary{c.Context, p}
		}
	}
	l.d.pins.mu.Lock()
	pinned := l.d.pins.names.of(kind)
	l.d.pins.mu.Unlock()
	for _, n := range [][]byte{pinned, want} {
		if len(n) > 0 && !bytes.Equal(n, p.name.Buffer) {
			flush(l, p.handle)
			return loaded{}, fmt.Errorf("%w: the %s has another Name", ErrCleared, kind)
		}
	}
	return p, nil
}

// recall loads a primary key that was saved before. The TPM refuses it after a
// start or a clear.
func (l *line) recall(kind primaryKind) (loaded, error) {
	s := l.d.gate.saved[kind]
	if s == nil {
		return loaded{}, errors.New("not saved")
	}
	r, err := tpm2.ContextLoad{Context: s.context}.Execute(l)
	if err != nil {
		delete(l.d.gate.saved, kind)
		return loaded{}, err
	}
	p := s.key
	p.handle = tpm2.TPMHandle(r.LoadedHandle)
	return p, nil
}

// makePrimary makes a primary key of the owner hierarchy and leaves it loaded.
func makePrimary(t transport.TPM, ownerAuth secret.Bytes, kind primaryKind) (loaded, error) {
	template := kind.template()
	r, err := tpm2.CreatePrimary{PrimaryHandle: ownerHandle(ownerAuth), InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return loaded{}, owning("making the "+kind.String(), err)
	}
	p := loaded{handle: r.ObjectHandle, name: r.Name}
	pub, err := r.OutPublic.Contents()
	if err == nil {
		p.public = *pub
		// Salted sessions are only as good as this key: it must be the named one
		// and one that keeps secrets.
		err = checkPrimary(template, pub, r.Name)
	}
	if err != nil {
		flush(t, p.handle)
		return loaded{}, fmt.Errorf("%w: %s: %w", ErrUnavailable, kind, err)
	}
	return p, nil
}

func checkPrimary(template tpm2.TPMTPublic, pub *tpm2.TPMTPublic, name tpm2.TPM2BName) error {
	n, err := tpm2.ObjectName(pub)
	if err != nil {
		return err
	}
	if !bytes.Equal(n.Buffer, name.Buffer) || len(n.Buffer) != nameSize {
		return errors.New("public area and Name differ")
	}
	return sameTemplate(&template, pub, tpm2.Marshal(*pub))
}
