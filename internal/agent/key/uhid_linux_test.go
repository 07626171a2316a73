package key

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"latchkey/internal/assertion"
	"latchkey/internal/assertion/softkey"
	"latchkey/internal/clock"
)

// fakeKernel plays what the kernel does between /dev/uhid and /dev/hidraw, as
// Documentation/hid/{uhid,hidraw}.rst say: a device that is made appears in a made-up
// sysfs; what is written to its node comes out of uhid as it was written; what is put into
// uhid is read at every node that is open. It is a fake, and shows that both ends keep to
// the documentation, not that the kernel does.
type fakeKernel struct {
	t    *testing.T
	root string // of the made-up sysfs
	end  *os.File

	mu    sync.Mutex
	nodes map[*os.File]bool
	gone  bool
	busy  sync.WaitGroup
}

func pair(t *testing.T) (near, far *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
}

// newFakeKernel gives it and its /dev/uhid.
func newFakeKernel(t *testing.T) (k *fakeKernel, uhid *os.File) {
	uhid, end := pair(t)
	k = &fakeKernel{t: t, root: t.TempDir(), end: end, nodes: map[*os.File]bool{}}
	k.busy.Go(k.run)
	t.Cleanup(func() { uhid.Close(); end.Close(); k.busy.Wait() })
	return k, uhid
}

func (k *fakeKernel) run() {
	defer func() { // the device is gone, and with it what was open of it
		k.mu.Lock()
		defer k.mu.Unlock()
		k.gone = true
		_ = os.RemoveAll(filepath.Join(k.root, "class", "hidraw3"))
		for n := range k.nodes {
			n.Close()
		}
	}()
	b := make([]byte, 8192)
	for {
		n, err := k.end.Read(b)
		if err != nil {
			return
		}
		e := b[:n]
		switch kind := binary.LittleEndian.Uint32(e); kind {
		case 11: // UHID_CREATE2
			size := int(binary.LittleEndian.Uint16(e[260:]))
			if e[278] != 0 || len(e) != 280+size {
				k.t.Errorf("UHID_CREATE2 has %d octets for a descriptor of %d", len(e), size)
				return
			}
			plant(k.t, k.root, "hidraw3", e[280:])
			k.event(2, nil)
		case 12: // UHID_INPUT2
			data := e[6 : 6+int(binary.LittleEndian.Uint16(e[4:]))]
			k.mu.Lock()
			for n := range k.nodes {
				_, _ = n.Write(data)
			}
			k.mu.Unlock()
		case 1: // UHID_DESTROY
			k.event(3, nil)
			return
		default:
			k.t.Errorf("event %d of %d octets", kind, len(e))
			return
		}
	}
}

// event is one of the kernel's, whole.
func (k *fakeKernel) event(kind uint32, output []byte) {
	b := make([]byte, 4376)
	binary.LittleEndian.PutUint32(b, kind)
	if output != nil {
		copy(b[4:], output)
		binary.LittleEndian.PutUint16(b[4100:], uint16(len(output)))
		b[4102] = 1
	}
	_, _ = k.end.Write(b)
}

// open opens a node of the device.
func (k *fakeKernel) open(node string) (*os.File, error) {
	if filepath.Base(node) != "hidraw3" {
		return nil, os.ErrPermission
	}
	near, far := pair(k.t)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		near.Close()
		far.Close()
		return nil, os.ErrNotExist
	}
	k.nodes[far] = true
	k.busy.Go(func() {
		b := make([]byte, 8192)
		for {
			n, err := far.Read(b)
			if err != nil || n == 0 {
				break
			}
			k.event(6, b[:n])
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.nodes, far)
		far.Close()
	})
	return near, nil
}

// plant puts a device into a made-up sysfs as the kernel does: the class has links to the
// devices' folders, and in each of these a link leads back to the HID device.
func plant(t *testing.T, root, name string, descriptor []byte) {
	t.Helper()
	device := filepath.Join(root, "devices", "0003:1209:0001."+name)
	for _, dir := range []string{filepath.Join(device, "hidraw", name), filepath.Join(root, "class")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Error(err)
		}
	}
	if descriptor != nil {
		if err := os.WriteFile(filepath.Join(device, "report_descriptor"), descriptor, 0o444); err != nil {
			t.Error(err)
		}
	}
	if err := os.Symlink("../..", filepath.Join(device, "hidraw", name, "device")); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(filepath.Join("..", "devices", filepath.Base(device), "hidraw", name), filepath.Join(root, "class", name)); err != nil {
		t.Error(err)
	}
}

// TestM2KeysAreFoundInAMadeUpSysfs: by descriptor alone, and only those that open.
func TestM2KeysAreFoundInAMadeUpSysfs(t *testing.T) {
	root := t.TempDir()
	keyboard := []byte{0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0xc0}
	plant(t, root, "hidraw0", keyboard)
	plant(t, root, "hidraw1", softkey.Descriptor)
	plant(t, root, "hidraw2", nil) // pulled out meanwhile
	plant(t, root, "hidraw3", softkey.Descriptor)
	plant(t, root, "hidraw4", append(bytes.Repeat([]byte{0xb0}, maxDescriptor), softkey.Descriptor...)) // longer than any
	plant(t, root, "hidraw10", softkey.Descriptor)
	plant(t, root, "hidraw11", softkey.Descriptor)
	dev := filepath.Join(root, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"hidraw0", "hidraw1", "hidraw2", "hidraw4", "hidraw10"} {
		if err := unix.Mkfifo(filepath.Join(dev, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// hidraw3 has no node; that of hidraw11 is a link, which is not followed.
	if err := os.Symlink("hidraw1", filepath.Join(dev, "hidraw11")); err != nil {
		t.Fatal(err)
	}
	ports, err := tree{filepath.Join(root, "class"), dev, openNode}.find()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range ports {
		h := p.(*hidraw)
		got = append(got, filepath.Base(h.f.Name()))
		if _, err := h.ReadReport(time.Now().Add(20 * time.Millisecond)); !errors.Is(err, ErrTimeout) {
			t.Errorf("%s: a read without a report ends with %v", h.f.Name(), err)
		}
		h.Close()
	}
	if want := "hidraw1 hidraw10"; strings.Join(got, " ") != want {
		t.Errorf("found %v; want %s", got, want)
	}
	if ports, err := (tree{filepath.Join(root, "nothing"), dev, openNode}).find(); err != nil || len(ports) != 0 {
		t.Errorf("where there is no hidraw: %v, %v", ports, err)
	}
}

// asserts has the client find the key and get an assertion, with its PIN.
func asserts(t *testing.T, find Finder, k *softkey.Key) {
	t.Helper()
	id, cose := k.Register(rpID)
	p := &person{pins: []string{"24680"}}
	a := ask([]byte("another credential"), id)
	a.Verification = true
	got, err := (&Keys{Find: find, Clock: clock.Real}).Assert(within(t, 15*time.Second), a, p)
	if err != nil {
		t.Fatal(err)
	}
	r, err := assertion.Verify(cose, got.AuthData, got.Signature, assertion.Want{RPID: rpID, ClientHash: a.ClientHash, Verification: true})
	if err != nil || !r.Verified {
		t.Fatalf("%+v, %v", r, err)
	}
	if told := strings.Join(p.told, " "); told != "pin touch" && told != "insert pin touch" {
		t.Errorf("told %q", told)
	}
}

// TestM2TheClientAtAFakeKernel has the client's own hidraw code speak through a fake of
// the kernel to a key that is plugged in as into /dev/uhid.
func TestM2TheClientAtAFakeKernel(t *testing.T) {
	kernel, uhid := newFakeKernel(t)
	k := &softkey.Key{PIN: "24680", Touch: func(<-chan struct{}) bool { return true }}
	plug, err := k.PlugIn(uhid, "")
	if err != nil {
		t.Fatal(err)
	}
	<-plug.Started()
	plant(t, kernel.root, "hidraw2", softkey.Descriptor) // another key, which can not be opened
	find := tree{filepath.Join(kernel.root, "class"), "/nowhere", kernel.open}.find
	asserts(t, find, k)
	asserts(t, find, k) // opened anew

	// Pulled out while somebody is to touch it.
	began := make(chan struct{})
	k.Touch = func(gone <-chan struct{}) bool { close(began); <-gone; return false }
	id, _ := k.Register(rpID)
	out := make(chan error, 1)
	go func() { <-began; out <- plug.Unplug() }()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := (&Keys{Find: find, Clock: clock.Real}).Assert(ctx, ask(id), &leaver{after: began, leave: cancel}); !errors.Is(err, ErrGone) {
		t.Errorf("%v; want %v", err, ErrGone)
	}
	select {
	case err := <-out:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Error("the key was not asked, or is not out")
	}
}

// leaver goes away where he is to plug a key in behind something.
type leaver struct {
	person
	after <-chan struct{}
	leave func()
}

func (l *leaver) Insert() {
	select {
	case <-l.after:
		l.leave()
	default: // the key was not found at once
	}
}

// TestM2TheClientAtTheKernel is the same through the kernel itself: /dev/uhid makes the
// device, /dev/hidraw* is where the client finds it.
func TestM2TheClientAtTheKernel(t *testing.T) {
	dev, err := os.OpenFile(softkey.UHID, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("NOT TESTED: a security key at the kernel's own /dev/hidraw; this needs root and the kernel's module uhid (modprobe uhid): %v", err)
	}
	k := &softkey.Key{PIN: "24680", Touch: func(<-chan struct{}) bool { return true }}
	serial := fmt.Sprintf("latchkey-test-%d", os.Getpid())
	plug, err := k.PlugIn(dev, serial)
	if err != nil {
		dev.Close()
		t.Fatal(err)
	}
	out := sync.OnceValue(plug.Unplug)
	defer func() {
		if err := out(); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-plug.Started():
	case <-time.After(10 * time.Second):
		t.Fatal("the kernel does not start the device")
	}
	node := ""
	for end := time.Now().Add(5 * time.Second); node == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found, err := filepath.Glob("/sys/class/hidraw/hidraw*/device/uevent")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "HID_UNIQ="+serial+"\n") {
				node = filepath.Join("/dev", filepath.Base(filepath.Dir(filepath.Dir(f))))
			}
		}
	}
	if node == "" {
		t.Skip("NOT TESTED: a security key at the kernel's own /dev/hidraw; the kernel took the device at /dev/uhid and has no hidraw (CONFIG_HIDRAW), or no /sys here")
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(node); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Skipf("NOT TESTED: a security key at the kernel's own /dev/hidraw; the kernel made the device, and nothing makes its node %s here", node)
		}
	}
	asserts(t, Plugged, k)
	asserts(t, Plugged, k)
	if err := out(); err != nil {
		t.Error(err)
	}
	id, _ := k.Register(rpID)
	if _, err := (&Keys{Find: Plugged, Clock: clock.Real}).Assert(within(t, time.Second), ask(id), &person{}); err == nil {
		t.Error("a key that was pulled out has signed")
	}
}
