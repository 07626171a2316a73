package keys_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"latchkey/internal/secret"
	"latchkey/internal/server/keys"
)

func TestTheMasterKeyUnderAPassphrase(t *testing.T) {
	master := secret.New([]byte("0123456789abcdef0123456789abcdef"))
	pass := secret.FromString("correct horse battery")
	raw, err := keys.LockMaster(master, pass)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.UnlockMaster(raw, pass); err != nil || !got.Equal(master) {
		t.Error(err)
	}
	if _, err := keys.UnlockMaster(raw, secret.FromString("correct horse batterz")); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	raw[len(raw)-1] ^= 1
	if _, err := keys.UnlockMaster(raw, pass); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("a damaged file: %v", err)
	}
	if _, err := keys.LockMaster(master, secret.FromString("short")); err == nil {
		t.Error("a short passphrase was taken")
	}
	binary.BigEndian.PutUint32(raw[6:], 1<<31)
	if _, err := keys.UnlockMaster(raw, pass); err == nil {
		t.Error("a file may ask for any amount of memory")
	}
}

func FuzzUnlockMaster(f *testing.F) {
	cheap := append([]byte("LKMP\x00\x01\x00\x00\x00\x08\x00\x00\x00\x01"), make([]byte, 80)...)
	f.Add(cheap)
	f.Add([]byte("LKMP"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 14 { // the price itself is not what is tried here
			binary.BigEndian.PutUint32(raw[6:], min(binary.BigEndian.Uint32(raw[6:]), 64))
			binary.BigEndian.PutUint32(raw[10:], min(binary.BigEndian.Uint32(raw[10:]), 1))
		}
		if _, err := keys.UnlockMaster(raw, secret.FromString("a passphrase")); err == nil {
			t.Error("something random was opened")
		}
	})
}
