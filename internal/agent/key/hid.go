package key

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"latchkey/internal/clock"
)

// The frames of CTAPHID (CTAP 2.1 §11.2).
const (
	reportSize = 64
	firstSize  = reportSize - 7
	nextSize   = reportSize - 5
	maxMessage = firstSize + 128*nextSize // 7609 octets

	broadcast = 0xffffffff

	cmdInit      = 0x06
	cmdCBOR      = 0x10
	cmdCancel    = 0x11
	cmdKeepAlive = 0x3b
	cmdError     = 0x3f
	cmdBit       = 0x80

	capCBOR = 0x04

	// upNeeded is the keep-alive that says "touch me".
	upNeeded = 2

	// busy is CTAPHID's error of a channel that somebody else uses.
	errChannelBusy = 0x06
)

// quiet is how long a key may say nothing at all: it sends a keep-alive every 100 ms.
const quiet = 3 * time.Second

// channel is a CTAPHID channel of one key.
type channel struct {
	port  Port
	clock clock.Clock
	id    uint32
}

// dial gets a channel of its own.
func dial(ctx context.Context, port Port, c clock.Clock) (*channel, error) {
	h := &channel{port: port, clock: c, id: broadcast}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	if err := h.send(cmdInit, nonce[:]); err != nil {
		return nil, err
	}
	until := c.Now().Add(quiet)
	for {
		// Others may be greeting the key too: their answers come to the same channel.
		cmd, body, err := h.receive(ctx, until)
		switch {
		case err != nil:
			return nil, err
		case cmd != cmdInit || len(body) < 17 || [8]byte(body[:8]) != nonce:
			continue
		case body[16]&capCBOR == 0:
			return nil, ErrOld
		}
		h.id = binary.BigEndian.Uint32(body[8:12])
		if h.id == 0 || h.id == broadcast {
			return nil, fmt.Errorf("%w: a channel that can not be", ErrForm)
		}
		return h, nil
	}
}

// send writes one message.
func (h *channel) send(cmd byte, body []byte) error {
	if len(body) > maxMessage {
		return fmt.Errorf("%w: a message of %d octets", ErrForm, len(body))
	}
	var r [reportSize]byte
	binary.BigEndian.PutUint32(r[:], h.id)
	r[4] = cmd | cmdBit
	binary.BigEndian.PutUint16(r[5:], uint16(len(body)))
	body = body[copy(r[7:], body):]
	for seq := byte(0); ; seq++ {
		if err := h.port.WriteReport(r); err != nil {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		if len(body) == 0 {
			return nil
		}
		clear(r[4:])
		r[4] = seq
		body = body[copy(r[5:], body):]
	}
}

// receive reads one message of this channel. The bound of what a key says is the form
// itself: a length of 16 bits that must be filled in order.
func (h *channel) receive(ctx context.Context, until time.Time) (cmd byte, body []byte, err error) {
	var want int
	var seq byte
	begun := false
	for {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		// The context is looked at between reports; a key sends a keep-alive every 100 ms.
		now := h.clock.Now()
		if !now.Before(until) {
			return 0, nil, ErrGone
		}
		stop := now.Add(200 * time.Millisecond)
		if until.Before(stop) {
			stop = until
		}
		r, err := h.port.ReadReport(stop)
		switch {
		case errors.Is(err, ErrTimeout):
			continue
		case err != nil:
			return 0, nil, fmt.Errorf("%w: %w", ErrGone, err)
		}
		if binary.BigEndian.Uint32(r[:]) != h.id {
			continue
		}
		if r[4]&cmdBit != 0 {
			cmd, want, begun = r[4]&^cmdBit, int(binary.BigEndian.Uint16(r[5:])), true
			if want > maxMessage {
				return 0, nil, fmt.Errorf("%w: a message of %d octets", ErrForm, want)
			}
			body, seq = append(make([]byte, 0, want), r[7:7+min(want, firstSize)]...), 0
		} else {
			if !begun || r[4] != seq {
				return 0, nil, fmt.Errorf("%w: a frame out of order", ErrForm)
			}
			seq++
			body = append(body, r[5:5+min(want-len(body), nextSize)]...)
		}
		if len(body) == want {
			return cmd, body, nil
		}
	}
}

// exchange sends a CBOR message and reads the answer; touch is called when the key
// wants to be touched. When the context ends the key is told to give up.
func (h *channel) exchange(ctx context.Context, body []byte, touch func()) ([]byte, error) {
	if err := h.send(cmdCBOR, body); err != nil {
		return nil, err
	}
	for {
		cmd, answer, err := h.receive(ctx, h.clock.Now().Add(quiet))
		switch {
		case err != nil && ctx.Err() != nil:
			_ = h.send(cmdCancel, nil)
			return nil, ctx.Err()
		case err != nil:
			return nil, err
		}
		switch cmd {
		case cmdKeepAlive:
			if len(answer) == 1 && answer[0] == upNeeded && touch != nil {
				touch()
			}
		case cmdCBOR:
			return answer, nil
		case cmdError:
			if len(answer) == 1 && answer[0] == errChannelBusy {
				return nil, fmt.Errorf("%w: another program is using it", ErrGone)
			}
			return nil, fmt.Errorf("%w: error %x of the transport", ErrGone, answer)
		default:
			return nil, fmt.Errorf("%w: message %#x", ErrForm, cmd)
		}
	}
}
