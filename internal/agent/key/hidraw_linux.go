package key

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Plugged finds the security keys of this machine: the hidraw devices whose report
// descriptor has the usage page of FIDO (CTAP 2.1 §11.2.8.2).
func Plugged() ([]Port, error) {
	names, err := filepath.Glob("/sys/class/hidraw/hidraw*")
	if err != nil {
		return nil, err
	}
	var ports []Port
	for _, n := range names {
		b, err := readSome(filepath.Join(n, "device", "report_descriptor"), maxDescriptor)
		if err != nil || !isFIDO(b) {
			continue
		}
		// Non-blocking, so that reads have deadlines; no symbolic link of /dev is followed.
		fd, err := unix.Open(filepath.Join("/dev", filepath.Base(n)), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		ports = append(ports, &hidraw{os.NewFile(uintptr(fd), n)})
	}
	return ports, nil
}

const maxDescriptor = 4096

func readSome(name string, most int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, most)
	n, err := f.Read(b)
	return b[:n], err
}

type hidraw struct{ f *os.File }

// WriteReport puts the report's number 0 in front, as hidraw wants it.
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
