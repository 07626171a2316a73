// Package softkey is a FIDO2 security key in software, for tests: it speaks the HID frames
// of CTAP 2.1 over a connection that carries reports of 64 octets. It is written from the
// standard's words and shares no code with the package that it tests.
//
// It is no security key: its private keys lie in memory.
package softkey

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"latchkey/internal/clock"
)

// Key is one security key.
type Key struct {
	PIN       string // empty: none is set
	Finger    bool   // it has a fingerprint reader, and the finger is the right one
	Protocols []uint // of PINs; nil: 2 and 1
	U2F       bool   // it speaks CTAP 1 only
	NoCounter bool
	// Touch tells whether somebody touches it; nil: at once. It may block; gone is closed
	// when nobody waits any more.
	Touch func(gone <-chan struct{}) bool

	mu      sync.Mutex
	creds   []*credential
	retries int
	wrong   int // in a row since it was plugged in
	count   uint32

	Asked  atomic.Int64 // assertions that were wanted with a touch
	PINs   atomic.Int64 // that were tried
	Cancel atomic.Int64 // that were called off
}

type credential struct {
	id   []byte
	rp   string
	key  *ecdsa.PrivateKey
	cose []byte
}

// Register makes a credential and gives its id and public key (COSE).
func (k *Key) Register(rp string) (id, cose []byte) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	point, err := priv.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	id = make([]byte, 48)
	if _, err := rand.Read(id); err != nil {
		panic(err)
	}
	cose, err = cbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		panic(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.creds = append(k.creds, &credential{id, rp, priv, cose})
	return id, cose
}

// Turn sets the counter, as a copy of the key would have another one.
func (k *Key) Turn(count uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count = count
}

// Create answers a browser's options for a new credential (PublicKeyCredentialCreationOptionsJSON)
// as a browser at the origin would with this key: RegistrationResponseJSON, without attestation.
func (k *Key) Create(options []byte, origin string) ([]byte, error) {
	var o struct {
		RP        struct{ ID string } `json:"rp"`
		Challenge string              `json:"challenge"`
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	id, cose := k.Register(o.RP.ID)
	client, err := json.Marshal(map[string]any{"type": "webauthn.create", "challenge": o.Challenge, "origin": origin, "crossOrigin": false})
	if err != nil {
		return nil, err
	}
	rp := sha256.Sum256([]byte(o.RP.ID))
	data := append(rp[:], 1|1<<6, 0, 0, 0, 0)
	data = append(data, make([]byte, 16)...)
	data = binary.BigEndian.AppendUint16(data, uint16(len(id)))
	data = append(append(data, id...), cose...)
	text := base64.RawURLEncoding.EncodeToString
	return json.Marshal(map[string]any{
		"id": text(id), "rawId": text(id), "type": "public-key", "authenticatorAttachment": "cross-platform", "clientExtensionResults": map[string]any{},
		"response": map[string]any{
			"clientDataJSON": text(client), "transports": []string{"usb"},
			"attestationObject": text(marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})),
		},
	})
}

const size = 64

// Serve speaks with one machine until the connection ends: the key is plugged in.
func (k *Key) Serve(c net.Conn) {
	defer c.Close()
	k.mu.Lock()
	k.wrong = 0
	k.mu.Unlock()
	s := &session{key: k, conn: c, gone: make(chan struct{})}
	defer func() { s.call(); s.busy.Wait() }()
	var in message
	for {
		var r [size]byte
		if _, err := io.ReadFull(c, r[:]); err != nil {
			return
		}
		done, ok := in.take(r)
		if !ok {
			s.write(binary.BigEndian.Uint32(r[:]), 0x3f, []byte{0x04}) // ERR_INVALID_SEQ
			continue
		}
		if done {
			s.answer(in)
		}
	}
}

// message is put together of reports.
type message struct {
	cid  uint32
	cmd  byte
	want int
	seq  byte
	body []byte
}

func (m *message) take(r [size]byte) (done, ok bool) {
	if r[4]&0x80 != 0 {
		*m = message{cid: binary.BigEndian.Uint32(r[:]), cmd: r[4] &^ 0x80, want: int(binary.BigEndian.Uint16(r[5:]))}
		m.body = append(m.body, r[7:7+min(m.want, size-7)]...)
	} else {
		if m.cid != binary.BigEndian.Uint32(r[:]) || r[4] != m.seq {
			return false, false
		}
		m.seq++
		m.body = append(m.body, r[5:5+min(m.want-len(m.body), size-5)]...)
	}
	return len(m.body) == m.want, true
}

type session struct {
	key  *Key
	conn net.Conn
	wmu  sync.Mutex
	cids uint32

	mu   sync.Mutex
	gone chan struct{}
	busy sync.WaitGroup

	agree *ecdh.PrivateKey
	token []byte
}

func (s *session) call() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.gone:
	default:
		close(s.gone)
	}
}

func (s *session) write(cid uint32, cmd byte, body []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	var r [size]byte
	binary.BigEndian.PutUint32(r[:], cid)
	r[4] = cmd | 0x80
	binary.BigEndian.PutUint16(r[5:], uint16(len(body)))
	n := copy(r[7:], body)
	for seq := byte(0); ; seq++ {
		if _, err := s.conn.Write(r[:]); err != nil {
			return
		}
		body = body[n:]
		if len(body) == 0 {
			return
		}
		r = [size]byte{}
		binary.BigEndian.PutUint32(r[:], cid)
		r[4] = seq
		n = copy(r[5:], body)
	}
}

func (s *session) answer(m message) {
	switch m.cmd {
	case 0x06: // INIT
		s.cids++
		out := append([]byte{}, m.body...)
		out = binary.BigEndian.AppendUint32(out, 0x01000000+s.cids)
		caps := byte(0x04 | 0x08)
		if s.key.U2F {
			caps = 0
		}
		s.write(m.cid, 0x06, append(out, 2, 5, 0, 1, caps))
	case 0x10: // CBOR
		s.busy.Wait()
		s.mu.Lock()
		s.gone = make(chan struct{})
		gone := s.gone
		s.mu.Unlock()
		s.busy.Go(func() {
			st, body := s.cbor(m, gone)
			s.write(m.cid, 0x10, append([]byte{st}, body...))
		})
	case 0x11: // CANCEL
		s.key.Cancel.Add(1)
		s.call()
	default:
		s.write(m.cid, 0x3f, []byte{0x01})
	}
}

func marshal(v any) []byte {
	b, err := cbor.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func (k *Key) protocols() []uint {
	if k.Protocols == nil {
		return []uint{2, 1}
	}
	return k.Protocols
}

func (s *session) cbor(m message, gone <-chan struct{}) (byte, []byte) {
	if len(m.body) == 0 {
		return 0x03, nil
	}
	var in map[int]any
	if len(m.body) > 1 {
		if err := cbor.Unmarshal(m.body[1:], &in); err != nil {
			return 0x12, nil
		}
	}
	switch m.body[0] {
	case 0x04:
		options := map[string]any{"rk": true, "up": true, "plat": false, "clientPin": s.key.PIN != ""}
		if s.key.Finger {
			options["uv"] = true
		}
		if len(s.key.protocols()) > 1 {
			options["pinUvAuthToken"] = true
		}
		return 0, marshal(map[int]any{
			1: []string{"FIDO_2_0", "FIDO_2_1"}, 3: make([]byte, 16), 4: options, 5: 1200, 6: s.key.protocols(),
		})
	case 0x02:
		return s.assert(m.cid, in, gone)
	case 0x06:
		return s.pin(in)
	}
	return 0x01, nil
}

func (s *session) assert(cid uint32, in map[int]any, gone <-chan struct{}) (byte, []byte) {
	k := s.key
	rp, _ := in[1].(string)
	hash, _ := in[2].([]byte)
	list, _ := in[3].([]any)
	up, uv := true, false
	if o, ok := in[5].(map[any]any); ok {
		if v, ok := o["up"].(bool); ok {
			up = v
		}
		uv, _ = o["uv"].(bool)
	}
	verified := false
	if param, ok := in[6].([]byte); ok {
		protocol, _ := in[7].(uint64)
		if s.token == nil || subtle.ConstantTimeCompare(param, mac(uint(protocol), s.token, hash)) != 1 {
			return 0x33, nil
		}
		verified = true
	}
	if uv {
		if !k.Finger {
			return 0x2c, nil
		}
		verified = true
	}
	k.mu.Lock()
	var own *credential
	for _, l := range list {
		d, _ := l.(map[any]any)
		id, _ := d["id"].([]byte)
		for _, c := range k.creds {
			if c.rp == rp && string(c.id) == string(id) {
				own = c
			}
		}
	}
	k.mu.Unlock()
	if own == nil {
		return 0x2e, nil
	}
	if up {
		k.Asked.Add(1)
		if k.Touch != nil && !s.touched(cid, gone) {
			select {
			case <-gone:
				return 0x2d, nil
			default:
				return 0x2f, nil
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	data, sig, _ := k.sign(own, hash, up, verified)
	out := map[int]any{2: data, 3: sig}
	if len(list) > 1 {
		out[1] = map[string]any{"id": own.id, "type": "public-key"}
	}
	return 0, marshal(out)
}

// touched sends keep-alives until somebody touches the key.
func (s *session) touched(cid uint32, gone <-chan struct{}) bool {
	yes := make(chan bool, 1)
	go func() { yes <- s.key.Touch(gone) }()
	ctx, stop := context.WithCancel(context.Background())
	var alive sync.WaitGroup
	alive.Go(func() {
		for ok := true; ok; ok = clock.Real.Sleep(ctx, 50*time.Millisecond) == nil {
			s.write(cid, 0x3b, []byte{2})
		}
	})
	defer alive.Wait()
	defer stop()
	select {
	case y := <-yes:
		return y
	case <-gone:
		return false
	}
}

// Sign makes an assertion without frames: what Serve would give for a touch.
func (k *Key) Sign(rp string, hash, credentialID []byte, verified bool) (authData, signature []byte, count uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.creds {
		if c.rp == rp && string(c.id) == string(credentialID) {
			return k.sign(c, hash, true, verified)
		}
	}
	panic("no such credential")
}

// sign is called with the lock held.
func (k *Key) sign(c *credential, hash []byte, present, verified bool) (authData, signature []byte, count uint32) {
	flags := byte(0)
	if present {
		flags |= 1
		k.count++
	}
	if verified {
		flags |= 4
	}
	if !k.NoCounter {
		count = k.count
	}
	rpHash := sha256.Sum256([]byte(c.rp))
	authData = binary.BigEndian.AppendUint32(append(rpHash[:], flags), count)
	digest := sha256.Sum256(append(append([]byte{}, authData...), hash...))
	signature, err := ecdsa.SignASN1(rand.Reader, c.key, digest[:])
	if err != nil {
		panic(err)
	}
	return authData, signature, count
}

func mac(protocol uint, key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	if protocol == 1 {
		return h.Sum(nil)[:16]
	}
	return h.Sum(nil)
}

// allTries is how many wrong PINs block the key; threeInARow how many until it must be
// plugged in anew.
const (
	allTries    = 8
	threeInARow = 3
)

func (s *session) pin(in map[int]any) (byte, []byte) {
	k := s.key
	sub, _ := in[2].(uint64)
	protocol, _ := in[1].(uint64)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.retries == 0 && k.wrong == 0 {
		k.retries = allTries
	}
	switch sub {
	case 1:
		return 0, marshal(map[int]any{3: k.retries})
	case 2:
		own, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return 0x7f, nil
		}
		s.agree = own
		b := own.PublicKey().Bytes()
		return 0, marshal(map[int]any{1: map[int]any{1: 2, 3: -25, -1: 1, -2: b[1:33], -3: b[33:]}})
	case 5, 9:
		if sub == 9 && (len(k.protocols()) < 2 || in[9] != uint64(2) || in[10] == nil) {
			return 0x02, nil
		}
		if k.PIN == "" {
			return 0x35, nil
		}
		if k.wrong >= threeInARow {
			return 0x34, nil
		}
		if k.retries <= 0 {
			return 0x32, nil
		}
		peer, _ := in[3].(map[any]any)
		x, _ := peer[int64(-2)].([]byte)
		y, _ := peer[int64(-3)].([]byte)
		pub, err := ecdh.P256().NewPublicKey(append(append([]byte{4}, x...), y...))
		if err != nil || s.agree == nil {
			return 0x02, nil
		}
		z, err := s.agree.ECDH(pub)
		if err != nil {
			return 0x02, nil
		}
		key := sha256.Sum256(z)
		secret := key[:]
		if protocol == 2 {
			if secret, err = hkdf.Key(sha256.New, z, make([]byte, 32), "CTAP2 AES key", 32); err != nil {
				return 0x7f, nil
			}
		}
		block, err := aes.NewCipher(secret)
		if err != nil {
			return 0x7f, nil
		}
		enc, _ := in[6].([]byte)
		iv := make([]byte, 16)
		if protocol == 2 {
			if len(enc) != 32 {
				return 0x02, nil
			}
			iv, enc = enc[:16], enc[16:]
		}
		if len(enc) != 16 {
			return 0x02, nil
		}
		got := make([]byte, 16)
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(got, enc)
		k.PINs.Add(1)
		k.retries--
		want := sha256.Sum256([]byte(k.PIN))
		if subtle.ConstantTimeCompare(got, want[:16]) != 1 {
			k.wrong++
			switch {
			case k.retries == 0:
				return 0x32, nil
			case k.wrong >= threeInARow:
				return 0x34, nil
			}
			return 0x31, nil
		}
		k.retries, k.wrong = allTries, 0
		s.token = make([]byte, 32)
		if _, err := rand.Read(s.token); err != nil {
			return 0x7f, nil
		}
		out := make([]byte, 32)
		iv = make([]byte, 16)
		if protocol == 2 {
			if _, err := rand.Read(iv); err != nil {
				return 0x7f, nil
			}
		}
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, s.token)
		if protocol == 2 {
			out = append(iv, out...)
		}
		return 0, marshal(map[int]any{2: out})
	}
	return 0x3e, nil
}
