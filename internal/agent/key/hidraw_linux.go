package key

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// tree is where the kernel shows its HID devices, and how one is opened.
type tree struct {
	class string // with a folder for each, below which device/report_descriptor lies
	dev   string // with a node of the same name
	open  func(node string) (*os.File, error)
}

// Plugged finds the security keys of this machine: the hidraw devices whose report
// descriptor has the usage page of FIDO (CTAP 2.1 §11.2.8.2).
func Plugged() ([]Port, error) { return tree{"/sys/class/hidraw", "/dev", openNode}.find() }

func (t tree) find() ([]Port, error) {
	names, err := filepath.Glob(filepath.Join(t.class, "hidraw*"))
	if err != nil {
		return nil, err
	}
	var ports []Port
	for _, n := range names {
		b, err := readSome(filepath.Join(n, "device", "report_descriptor"), maxDescriptor)
		if err != nil || !isFIDO(b) {
			continue
		}
		f, err := t.open(filepath.Join(t.dev, filepath.Base(n)))
		if err != nil {
			continue
		}
		ports = append(ports, &hidraw{f})
	}
	return ports, nil
}

// openNode opens non-blocking, so that reads have deadlines; no symbolic link of /dev is
// followed.
func openNode(node string) (*os.File, error) {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), node), nil
}

// maxDescriptor is the kernel's HID_MAX_DESCRIPTOR_SIZE.
const maxDescriptor = 4096

func readSome(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

type hidraw struct{ f *os.File }

// WriteReport puts the report's number 0 in front, as hidraw wants it of devices without
// numbers; what is read has none (Linux, Documentation/hid/hidraw.rst).
func (h *hidraw) WriteReport(r [reportSize]byte) error {
	n, err := h.f.Write(append([]byte{0}, r[:]...))
	if err == nil && n != reportSize+1 {
		err = fmt.Errorf("%d of %d octets", n, reportSize+1)
	}
	return err
}

func (h *hidraw) ReadReport(until time.Time) (r [reportSize]byte, err error) {
	if err := h.f.SetReadDeadline(until); err != nil {
		return r, err
	}
	n, err := h.f.Read(r[:])
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return r, ErrTimeout
	case err == nil && n != reportSize:
		err = fmt.Errorf("a report of %d octets", n)
	}
	return r, err
}

func (h *hidraw) Close() error { return h.f.Close() }
