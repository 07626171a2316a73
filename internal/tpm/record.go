package tpm

import (
	"encoding/binary"
	"fmt"
)

// A record is what this package gives out to be kept on disk: four octets that
// name its kind, a u16 version, a u16 of flags, then a fixed number of fields,
// each with its length (u16) before it, and nothing behind the last.
const (
	stateRecord   = "LKts" // sealed state key
	signingRecord = "LKtk" // machine key
	attestRecord  = "LKta" // attestation key
)

const recordVersion = 1

// maxRecord bounds a record, in octets.
const maxRecord = 8192

func encodeRecord(kind string, flags uint16, fields ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte(kind), recordVersion)
	b = binary.BigEndian.AppendUint16(b, flags)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	return b
}

func decodeRecord(kind string, b []byte, fields int) (flags uint16, out [][]byte, err error) {
	if len(b) < 8 || len(b) > maxRecord || string(b[:4]) != kind {
		return 0, nil, fmt.Errorf("%w: no %q record", ErrRecord, kind)
	}
	switch v := binary.BigEndian.Uint16(b[4:]); {
	case v > recordVersion:
		return 0, nil, fmt.Errorf("%w (%q version %d, this agent reads %d)", ErrNewer, kind, v, recordVersion)
	case v != recordVersion:
		return 0, nil, fmt.Errorf("%w: %q version %d", ErrRecord, kind, v)
	}
	flags, b = binary.BigEndian.Uint16(b[6:]), b[8:]
	for range fields {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return 0, nil, fmt.Errorf("%w: %q record is cut off", ErrRecord, kind)
		}
		n := int(binary.BigEndian.Uint16(b))
		out, b = append(out, b[2:2+n]), b[2+n:]
	}
	if len(b) != 0 {
		return 0, nil, fmt.Errorf("%w: %q record with %d octets behind it", ErrRecord, kind, len(b))
	}
	return flags, out, nil
}
