package softkey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// UHID is where Linux takes HID devices that a program makes.
const UHID = "/dev/uhid"

// The events of /dev/uhid (Linux, Documentation/hid/uhid.rst and include/uapi/linux/uhid.h):
// a 32-bit kind and a packed structure, in the machine's byte order, which is little-endian
// on all that Latchkey is built for. One read or write is one event; what is left out at an
// event's end is zero.
const (
	uhidDestroy   = 1
	uhidStart     = 2
	uhidOutput    = 6
	uhidGetReport = 9
	uhidGetReply  = 10
	uhidCreate2   = 11
	uhidInput2    = 12
	uhidSetReport = 13
	uhidSetReply  = 14

	uhidData       = 4096                          // UHID_DATA_MAX, HID_MAX_DESCRIPTOR_SIZE
	uhidCreateHead = 128 + 64 + 64 + 2 + 2 + 4*4   // what stands before the descriptor
	uhidEvent      = 4 + uhidCreateHead + uhidData // the largest
	uhidOutputTail = 4 + uhidData                  // size and kind stand behind the data
	uhidNumbered   = 1<<0 | 1<<1 | 1<<2            // of a start: reports have numbers
	uhidOutputKind = 1                             // UHID_OUTPUT_REPORT
	busVirtual     = 0x06                          // BUS_VIRTUAL of linux/input.h
	testVendor     = 0x1209                        // pid.codes, which keeps 0001 for tests
	testProduct    = 0x0001
)

// Descriptor is the report descriptor of CTAPHID (CTAP 2.1 §11.2.8.1): usage page 0xF1D0,
// usage 1, and reports of 64 octets without numbers in both directions.
var Descriptor = []byte{
	0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01,
	0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, size, 0x81, 0x02,
	0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, size, 0x91, 0x02,
	0xc0,
}

// createEvent says what the device is. The serial tells it from others (HID_UNIQ in sysfs).
func createEvent(serial string) []byte {
	b := make([]byte, 4+uhidCreateHead)
	binary.LittleEndian.PutUint32(b, uhidCreate2)
	copy(b[4:4+127], "Latchkey software security key (for tests)")
	copy(b[4+128+64:4+128+64+63], serial)
	rest := b[4+128+64+64:]
	binary.LittleEndian.PutUint16(rest[0:], uint16(len(Descriptor)))
	binary.LittleEndian.PutUint16(rest[2:], busVirtual)
	binary.LittleEndian.PutUint32(rest[4:], testVendor)
	binary.LittleEndian.PutUint32(rest[8:], testProduct)
	return append(b, Descriptor...)
}

func inputEvent(frame [size]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uhidInput2)
	b = binary.LittleEndian.AppendUint16(b, size)
	return append(b, frame[:]...)
}

func destroyEvent() []byte { return binary.LittleEndian.AppendUint32(nil, uhidDestroy) }

// replyEvent refuses a request on the control channel, of which CTAPHID has none; without
// an answer the kernel would wait five seconds for it.
func replyEvent(kind, id uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, id)
	return binary.LittleEndian.AppendUint16(b, uint16(syscall.EIO))
}

// fromKernel is what the kernel says.
type fromKernel struct {
	kind  uint32
	id    uint32     // of uhidGetReport and uhidSetReport
	frame [size]byte // of uhidOutput
}

// parseEvent reads one event of the kernel's. Kinds that need no answer (open, close, stop,
// and what later kernels may have) are told by their number alone.
func parseEvent(b []byte) (e fromKernel, err error) {
	if len(b) < 4 || len(b) > uhidEvent {
		return e, fmt.Errorf("an event of %d octets", len(b))
	}
	var whole [uhidEvent]byte
	copy(whole[:], b)
	e.kind = binary.LittleEndian.Uint32(whole[:])
	switch e.kind {
	case uhidStart:
		if f := binary.LittleEndian.Uint64(whole[4:]); f&uhidNumbered != 0 {
			return e, fmt.Errorf("the kernel reads numbered reports out of the descriptor (flags %#x)", f)
		}
	case uhidGetReport, uhidSetReport:
		e.id = binary.LittleEndian.Uint32(whole[4:])
	case uhidOutput:
		n := int(binary.LittleEndian.Uint16(whole[uhidOutputTail:]))
		if kind := whole[uhidOutputTail+2]; kind != uhidOutputKind {
			return e, fmt.Errorf("an output of kind %d", kind)
		}
		// What a program writes to /dev/hidraw comes as it was written: with the number 0 in
		// front that hidraw wants of devices without numbers. Other ways leave it out.
		switch {
		case n == size:
			copy(e.frame[:], whole[4:])
		case n == size+1 && whole[4] == 0:
			copy(e.frame[:], whole[5:])
		default:
			return e, fmt.Errorf("an output of %d octets; a report has %d", n, size)
		}
	}
	return e, nil
}

// Plug is a key that is plugged into a kernel.
type Plug struct {
	dev     io.ReadWriteCloser
	frames  net.Conn // to the key
	started chan struct{}
	busy    sync.WaitGroup

	mu    sync.Mutex
	out   bool // it is being pulled out
	fault error
}

// PlugIn plugs the key into the kernel behind dev, an open UHID. Programs find it under
// /dev/hidraw* then, as they find a key on USB. A read of dev must give one event and a
// write take one. Closing dev is Unplug's.
func (k *Key) PlugIn(dev io.ReadWriteCloser, serial string) (*Plug, error) {
	if _, err := dev.Write(createEvent(serial)); err != nil {
		return nil, fmt.Errorf("the kernel does not take the device: %w", err)
	}
	here, there := net.Pipe()
	p := &Plug{dev: dev, frames: here, started: make(chan struct{})}
	p.busy.Go(func() { k.Serve(there) })
	p.busy.Go(func() { p.fail(p.fromKernel()) })
	p.busy.Go(func() { p.fail(p.toKernel()) })
	return p, nil
}

// Started is closed when the kernel has made the device.
func (p *Plug) Started() <-chan struct{} { return p.started }

// Unplug pulls the key out, waits until nothing of it runs any more, and gives what went
// wrong meanwhile.
func (p *Plug) Unplug() error {
	p.mu.Lock()
	p.out = true
	p.mu.Unlock()
	_, err := p.dev.Write(destroyEvent())
	p.frames.Close()
	if shut := p.dev.Close(); err == nil {
		err = shut
	}
	p.busy.Wait()
	return errors.Join(p.fault, err)
}

// fail keeps the first fault, and ends what the key does for the kernel.
func (p *Plug) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.out && p.fault == nil {
		p.fault = err
	}
	p.frames.Close()
}

func (p *Plug) fromKernel() error {
	b := make([]byte, uhidEvent+1)
	begun := false
	for {
		n, err := p.dev.Read(b)
		if err != nil {
			return err
		}
		e, err := parseEvent(b[:n])
		if err != nil {
			return err
		}
		switch e.kind {
		case uhidStart:
			// It comes again when another driver of the kernel takes the device over.
			if !begun {
				begun = true
				close(p.started)
			}
		case uhidOutput:
			if _, err := p.frames.Write(e.frame[:]); err != nil {
				return err
			}
		case uhidGetReport, uhidSetReport:
			if _, err := p.dev.Write(replyEvent(e.kind+1, e.id)); err != nil {
				return err
			}
		}
	}
}

func (p *Plug) toKernel() error {
	for {
		var frame [size]byte
		if _, err := io.ReadFull(p.frames, frame[:]); err != nil {
			return err
		}
		if _, err := p.dev.Write(inputEvent(frame)); err != nil {
			return err
		}
	}
}
