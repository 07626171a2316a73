package vault

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

// Every file of the vault's own begins with a magic of four letters, a u16
// version and a u32 length of the body. A version above ours is "update the
// agent", never "damaged".
const version = 1

const headSize = 4 + 2 + 4

func frame(magic string, body []byte) []byte {
	out := append([]byte(nil), magic...)
	out = binary.BigEndian.AppendUint16(out, version)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	return append(out, body...)
}

// unframe gives the body and what stands behind it.
func unframe(magic string, b []byte) (body, rest []byte, err error) {
	if len(b) < headSize || string(b[:4]) != magic {
		return nil, nil, because(policy.ReasonVaultDamaged, "file is not a %s", magic)
	}
	switch v := binary.BigEndian.Uint16(b[4:]); {
	case v > version:
		return nil, nil, because(policy.ReasonVaultNewer, "file is of version %d, this agent reads %d: update the agent", v, version)
	case v < version:
		return nil, nil, because(policy.ReasonVaultDamaged, "file is of version %d, which there never was", v)
	}
	n := binary.BigEndian.Uint32(b[6:])
	if uint64(n) > uint64(len(b)-headSize) {
		return nil, nil, because(policy.ReasonVaultDamaged, "file is cut short")
	}
	return b[headSize : headSize+int(n)], b[headSize+int(n):], nil
}

// signFrame puts an HMAC behind a frame.
func signFrame(key secret.Bytes, magic string, body []byte) []byte {
	out := frame(magic, body)
	h := hmac.New(sha256.New, key.Reveal())
	h.Write(out)
	return h.Sum(out)
}

func openSigned(key secret.Bytes, magic string, b []byte) ([]byte, error) {
	body, rest, err := unframe(magic, b)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key.Reveal())
	h.Write(b[:len(b)-len(rest)])
	if !hmac.Equal(h.Sum(nil), rest) {
		return nil, because(policy.ReasonVaultDamaged, "file is damaged or of another machine")
	}
	return body, nil
}

func parseRefusal(payload []byte) (*wire.RefusalNote, error) {
	var n wire.RefusalNote
	if err := json.Unmarshal(payload, &n); err != nil {
		return nil, fmt.Errorf("refusal: %w", err)
	}
	if n.MachineID == "" {
		return nil, errors.New("refusal names no machine")
	}
	return &n, nil
}

// fileID tells whether an id from outside can be part of a file name.
func fileID(id string) bool {
	if len(id) == 0 || len(id) > 64 {
		return false
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
