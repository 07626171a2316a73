package keys

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/statefile"
)

// The form of the master key's file: magic, u16 version, u32 length, key.
const (
	masterMagic   = "LKMK"
	masterVersion = 1
	masterHead    = len(masterMagic) + 2 + 4
	masterSize    = masterHead + seal.KeySize
)

// Errors of the master key's file.
var (
	// ErrNoMaster: there is no such file.
	ErrNoMaster = errors.New("there is no master key")
	// ErrExposed: somebody else may read the file.
	ErrExposed = errors.New("the master key's file can be read by others")
)

// MasterPath is where the master key lies in the server's folder.
func MasterPath(dir string) string { return filepath.Join(dir, "master.key") }

// ReadMaster reads the master key. It refuses a file that is not a plain file,
// that belongs to somebody else, or that others may read, and says what to do.
func ReadMaster(dir string) (secret.Bytes, error) {
	path := MasterPath(dir)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Bytes{}, fmt.Errorf("%w (%s)", ErrNoMaster, path)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open the master key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("look at the master key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return secret.Bytes{}, fmt.Errorf("the master key %s is no plain file", path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != uint32(os.Geteuid()) && st.Uid != 0 {
		return secret.Bytes{}, fmt.Errorf("%w: %s belongs to uid %d; run: chown %d %s, and think about who has had it", ErrExposed, path, st.Uid, os.Geteuid(), path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s, and think about who has read it", ErrExposed, path, perm, path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, int64(masterSize)+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("read the master key: %w", err)
	}
	key, err := DecodeMaster(raw)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("the master key %s %w", path, err)
	}
	return key, nil
}

// CreateMaster makes a new master key. It never replaces one: the file appears
// whole or not at all, and whoever is second gets fs.ErrExist.
func CreateMaster(dir string) (secret.Bytes, error) {
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key) // never fails: it ends the process instead
	if err := WriteMaster(dir, secret.New(key)); err != nil {
		return secret.Bytes{}, fmt.Errorf("make the master key: %w", err)
	}
	return secret.New(key), nil
}

// WriteMaster puts a key that was kept elsewhere into an empty place, for a
// restore. It does not replace a file.
func WriteMaster(dir string, key secret.Bytes) error {
	raw := EncodeMaster(key)
	defer clear(raw)
	f, err := os.CreateTemp(dir, ".master-*") // made with O_EXCL and mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(raw); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, fails when the name is taken.
	if err := os.Link(f.Name(), MasterPath(dir)); err != nil {
		return err
	}
	return statefile.SyncDir(dir)
}

// EncodeMaster is the content of the file.
func EncodeMaster(key secret.Bytes) []byte {
	out := append(make([]byte, 0, masterSize), masterMagic...)
	out = binary.BigEndian.AppendUint16(out, masterVersion)
	out = binary.BigEndian.AppendUint32(out, uint32(key.Len()))
	return append(out, key.Reveal()...)
}

// DecodeMaster reads what EncodeMaster made.
func DecodeMaster(raw []byte) (secret.Bytes, error) {
	if len(raw) < masterHead || string(raw[:len(masterMagic)]) != masterMagic {
		return secret.Bytes{}, errors.New("is damaged, or no master key: put back a copy, or restore from a backup made with --with-key")
	}
	if v := binary.BigEndian.Uint16(raw[len(masterMagic):]); v != masterVersion {
		return secret.Bytes{}, fmt.Errorf("can not be used: %w (the file has version %d, this program reads %d)", seal.ErrNewer, v, masterVersion)
	}
	n := binary.BigEndian.Uint32(raw[len(masterMagic)+2:])
	if n != seal.KeySize || len(raw) != masterSize {
		return secret.Bytes{}, errors.New("is damaged (its length is wrong): put back a copy, or restore from a backup made with --with-key")
	}
	return secret.New(append([]byte(nil), raw[masterHead:]...)), nil
}
