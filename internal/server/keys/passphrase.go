package keys

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"latchkey/internal/seal"
	"latchkey/internal/secret"
)

// The form of a master key under a passphrase: magic, u16 version, u32 memory in
// KiB, u32 passes, 16 octets of salt, sealed key.
const (
	lockedMagic   = "LKMP"
	lockedVersion = 1
	saltSize      = 16
	lockedHead    = len(lockedMagic) + 2 + 4 + 4 + saltSize
	maxLocked     = 1 << 10

	// A backup lies about for years: more than twice the price of a sign-in.
	lockMemory = 128 << 10
	lockPasses = 4
	// What a file may ask for at most: it must not take the machine's memory.
	maxLockMemory = 1 << 20
	maxLockPasses = 32
)

// MinPassphrase is the length of a passphrase in octets.
const MinPassphrase = 12

// ErrPassphrase: the passphrase is another one, or the file is damaged.
var ErrPassphrase = errors.New("the master key can not be opened: the passphrase is another one, or the file is damaged")

// LockMaster encrypts the master key to a passphrase (Argon2id, AES-256-GCM), for
// a backup.
func LockMaster(master, passphrase secret.Bytes) ([]byte, error) {
	if passphrase.Len() < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has %d octets; allowed are at least %d", passphrase.Len(), MinPassphrase)
	}
	head := append(make([]byte, 0, maxLocked), lockedMagic...)
	head = binary.BigEndian.AppendUint16(head, lockedVersion)
	head = binary.BigEndian.AppendUint32(head, lockMemory)
	head = binary.BigEndian.AppendUint32(head, lockPasses)
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt)
	head = append(head, salt...)
	box, err := lockBox(head, passphrase)
	if err != nil {
		return nil, err
	}
	return append(head, box.Seal(master.Reveal(), "backup", "master", string(head))...), nil
}

// UnlockMaster reads what LockMaster made.
func UnlockMaster(raw []byte, passphrase secret.Bytes) (secret.Bytes, error) {
	if len(raw) < lockedHead || len(raw) > maxLocked || string(raw[:len(lockedMagic)]) != lockedMagic {
		return secret.Bytes{}, errors.New("the file holds no master key under a passphrase")
	}
	if v := binary.BigEndian.Uint16(raw[len(lockedMagic):]); v != lockedVersion {
		return secret.Bytes{}, fmt.Errorf("%w: the file has version %d, this program reads %d", seal.ErrNewer, v, lockedVersion)
	}
	head := raw[:lockedHead]
	box, err := lockBox(head, passphrase)
	if err != nil {
		return secret.Bytes{}, err
	}
	master, err := box.Open(raw[lockedHead:], "backup", "master", string(head))
	if err != nil || master.Len() != seal.KeySize {
		return secret.Bytes{}, ErrPassphrase
	}
	return master, nil
}

func lockBox(head []byte, passphrase secret.Bytes) (*seal.Box, error) {
	at := len(lockedMagic) + 2
	memory, passes := binary.BigEndian.Uint32(head[at:]), binary.BigEndian.Uint32(head[at+4:])
	if memory < 8 || memory > maxLockMemory || passes < 1 || passes > maxLockPasses {
		return nil, errors.New("the file asks for an unreasonable amount of work: it is damaged")
	}
	key := secret.New(argon2.IDKey(passphrase.Reveal(), head[at+8:at+8+saltSize], passes, memory, 1, seal.KeySize))
	defer key.Wipe()
	return seal.NewBox(key)
}
