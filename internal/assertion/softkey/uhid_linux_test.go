package softkey

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair gives both ends of a connection that keeps the borders of messages, as /dev/uhid
// does. The far end is the test's, which plays the kernel: what is shown so holds as far
// as the kernel's documentation was read rightly.
func pair(t *testing.T) (dev, kernel *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dev, kernel = os.NewFile(uintptr(fds[0]), "uhid"), os.NewFile(uintptr(fds[1]), "fake kernel")
	t.Cleanup(func() { _, _ = dev.Close(), kernel.Close() })
	return dev, kernel
}

// octets reads hexadecimal digits; z(n) are n octets of zero.
func octets(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func z(n int) string { return strings.Repeat("00", n) }

func next(t *testing.T, kernel *os.File) []byte {
	t.Helper()
	if err := kernel.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*uhidEvent)
	n, err := kernel.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func says(t *testing.T, kernel *os.File, b []byte) {
	t.Helper()
	if _, err := kernel.Write(b); err != nil {
		t.Fatal(err)
	}
}

// kernelOutput is UHID_OUTPUT as the kernel gives it: the whole structure.
func kernelOutput(data []byte) []byte {
	b := make([]byte, uhidEvent)
	b[0] = uhidOutput
	copy(b[4:], data)
	binary.LittleEndian.PutUint16(b[4+4096:], uint16(len(data)))
	b[4+4096+2] = 1
	return b
}

// TestM2WhatIsSaidToTheKernelOctetByOctet plays the kernel's side of /dev/uhid, with the
// octets that its header (include/uapi/linux/uhid.h) says.
func TestM2WhatIsSaidToTheKernelOctetByOctet(t *testing.T) {
	dev, kernel := pair(t)
	k := &Key{}
	p, err := k.PlugIn(dev, "serial-1")
	if err != nil {
		t.Fatal(err)
	}
	name := "Latchkey software security key (for tests)"
	create := octets(
		t, "0b000000",
		hex.EncodeToString([]byte(name)), z(128-len(name)), z(64), hex.EncodeToString([]byte("serial-1")), z(64-8),
		"2200 0600 09120000 01000000 00000000 00000000",
		"06d0f1 0901 a101 0920 1500 26ff00 7508 9540 8102 0921 1500 26ff00 7508 9540 9102 c0",
	)
	if got := next(t, kernel); !bytes.Equal(got, create) {
		t.Fatalf("UHID_CREATE2 is\n%x; want\n%x", got, create)
	}
	select {
	case <-p.Started():
		t.Error("it has started before the kernel said so")
	default:
	}
	says(t, kernel, octets(t, "02000000", z(8), z(4364))) // UHID_START
	select {
	case <-p.Started():
	case <-time.After(10 * time.Second):
		t.Fatal("the start was not seen")
	}
	says(t, kernel, octets(t, "04000000")) // UHID_OPEN, short: the rest is zero

	// CTAPHID_INIT, as hidraw hands it on (with the number 0 in front) and as others do.
	report := octets(t, "ffffffff 86 0008 1122334455667788", z(49))
	for i, data := range [][]byte{append([]byte{0}, report...), report} {
		says(t, kernel, kernelOutput(data))
		want := octets(t, "0c000000 4000 ffffffff 86 0011 1122334455667788 0100000"+string(rune('1'+i))+" 02 050001 0c", z(40))
		if got := next(t, kernel); !bytes.Equal(got, want) {
			t.Fatalf("UHID_INPUT2 is\n%x; want\n%x", got, want)
		}
	}

	// What CTAPHID has no use for is refused under its number, and the key goes on. (The
	// answers show too that all was read: an end that is closed with something unread would
	// take what it has written with it.)
	says(t, kernel, octets(t, "05000000", z(4372)))                // UHID_CLOSE
	says(t, kernel, octets(t, "63000000", z(4372)))                // of a kernel to come
	says(t, kernel, octets(t, "09000000 78563412 00 00", z(4366))) // UHID_GET_REPORT
	if got, want := next(t, kernel), octets(t, "0a000000 78563412 0500"); !bytes.Equal(got, want) {
		t.Errorf("UHID_GET_REPORT_REPLY is %x; want %x", got, want)
	}
	says(t, kernel, octets(t, "0d000000 79563412 00 00 0000", z(4364))) // UHID_SET_REPORT
	if got, want := next(t, kernel), octets(t, "0e000000 79563412 0500"); !bytes.Equal(got, want) {
		t.Errorf("UHID_SET_REPORT_REPLY is %x; want %x", got, want)
	}

	if err := p.Unplug(); err != nil {
		t.Errorf("pulled out: %v", err)
	}
	if got, want := next(t, kernel), octets(t, "01000000"); !bytes.Equal(got, want) {
		t.Errorf("UHID_DESTROY is %x; want %x", got, want)
	}
}

// TestM2AKernelThatSpeaksOtherwiseIsTold: nothing is guessed, and nothing hangs.
func TestM2AKernelThatSpeaksOtherwiseIsTold(t *testing.T) {
	wrong := kernelOutput(make([]byte, 64))
	wrong[4+4096+2] = 2
	for name, c := range map[string]struct {
		said []byte
		want string
	}{
		"three octets":                       {octets(t, "060000"), "an event of 3 octets"},
		"more than an event":                 {make([]byte, uhidEvent+7), "an event of 4377 octets"},
		"numbered reports":                   {octets(t, "02000000 0200000000000000"), "numbered reports"},
		"an output that is too short":        {kernelOutput(make([]byte, 63)), "an output of 63 octets"},
		"an output of another number":        {kernelOutput(bytes.Repeat([]byte{7}, 65)), "an output of 65 octets"},
		"an output longer than its own data": {append(octets(t, "06000000", z(4096)), 0xff, 0xff, 1), "an output of 65535 octets"},
		"a feature report as output":         {wrong, "an output of kind 2"},
		"an output cut off before its size":  {octets(t, "06000000", z(64)), "an output of kind 0"},
	} {
		t.Run(name, func(t *testing.T) {
			dev, kernel := pair(t)
			p, err := (&Key{}).PlugIn(dev, "")
			if err != nil {
				t.Fatal(err)
			}
			next(t, kernel)
			says(t, kernel, c.said)
			for range 1000 { // until it was read
				p.mu.Lock()
				told := p.fault
				p.mu.Unlock()
				if told != nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := p.Unplug(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestM2AKernelThatTakesNoDeviceIsTold(t *testing.T) {
	dev, kernel := pair(t)
	kernel.Close()
	if _, err := (&Key{}).PlugIn(dev, ""); err == nil || !strings.Contains(err.Error(), "does not take the device") {
		t.Fatal(err)
	}
}

func FuzzEventsOfTheKernel(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0})
	f.Add([]byte{9, 0, 0, 0, 1, 2, 3, 4})
	f.Add(kernelOutput(make([]byte, 65)))
	f.Add(kernelOutput(bytes.Repeat([]byte{1}, 64)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEvent(b)
		if err != nil || e.kind != uhidOutput {
			return
		}
		for _, data := range [][]byte{e.frame[:], append([]byte{0}, e.frame[:]...)} {
			if again, err := parseEvent(kernelOutput(data)); err != nil || again != e {
				t.Errorf("%v %v; want %v", again, err, e)
			}
		}
	})
}
