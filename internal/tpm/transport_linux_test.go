package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"latchkey/internal/tpm/tpmtest"
)

// charDevice puts the emulator behind a character device, as the kernel does
// with a real TPM: a pseudo-terminal in raw mode. It answers after each of the
// delays sent to slow.
func charDevice(t *testing.T, sw *tpmtest.Emulator, slow <-chan time.Duration) (path string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	path = fmt.Sprintf("/dev/pts/%d", n)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() }) // kept open, or the master hangs up between operations
	attr, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	attr.Iflag, attr.Oflag, attr.Lflag = 0, 0, 0
	attr.Cflag = attr.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	attr.Cc[unix.VMIN], attr.Cc[unix.VTIME] = headerSize, 1
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, attr); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			command := make([]byte, headerSize)
			if _, err := io.ReadFull(master, command); err != nil {
				return
			}
			command = append(command, make([]byte, binary.BigEndian.Uint32(command[2:])-headerSize)...)
			if _, err := io.ReadFull(master, command[headerSize:]); err != nil {
				return
			}
			select {
			case d := <-slow:
				time.Sleep(d)
			default:
			}
			answer, err := sw.Send(command)
			if err != nil {
				return
			}
			if _, err := master.Write(answer); err != nil {
				return
			}
		}
	}()
	return path
}

func TestATPMBehindADevice(t *testing.T) {
	sw := tpmtest.Start(t)
	slow := make(chan time.Duration, 1)
	k := enrolled(t, sw, "device:"+charDevice(t, sw, slow))
	k.ok(k.try(right))
	k.want(k.try(wrong), ErrWrongPassword)
	k.tallies(1, 1)
	k.ok(k.d.Lift(t.Context(), k.spec, PasswordIndex, k.lift))
	k.clean()

	// A command that takes too long can not be ended. It is waited for, within
	// limits, before the device is used again.
	k.d.limits = times{300 * time.Millisecond, 500 * time.Millisecond, time.Second}
	slow <- 2 * time.Second
	t0 := time.Now()
	k.want(k.try(right), ErrUnavailable)
	k.want(k.try(right), ErrUnavailable)
	if took := time.Since(t0); took > 1900*time.Millisecond {
		t.Errorf("two operations on a stuck device took %v", took)
	}
	k.d.limits = times{20 * time.Second, 20 * time.Second, 20 * time.Second}
	k.ok(k.try(right))
	k.ok(k.try(right))
}

func TestACommandThatNeverComesBackHangsNothing(t *testing.T) {
	d, err := OpenDevice("device:/dev/tpm-that-hangs")
	if err != nil {
		t.Fatal(err)
	}
	back, closed := make(chan struct{}), make(chan struct{})
	d.limits = times{50 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond}
	d.dial = func(context.Context) (conn, error) {
		return &blockingConn{
			send:    func([]byte) ([]byte, error) { <-back; return tpmtest.Answer(0x101), nil },
			closeFn: func() { close(closed) },
		}, nil
	}
	for range 3 {
		if _, err := d.ResetCount(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
	}
	select {
	case <-closed:
		t.Fatal("closed while a command is under way")
	default:
	}
	close(back)
	<-closed
	d.dial = func(context.Context) (conn, error) { return nil, ErrGone }
	if _, err := d.ResetCount(t.Context()); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
}
