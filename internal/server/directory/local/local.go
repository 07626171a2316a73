// Package local is the server's own directory: passwords of local users (D1) as
// Argon2id hashes (RFC 9106) in the users table.
//
// It promises: never more than one hash is computed per core at a time, and only a
// bounded number wait, because each takes 64 MiB and a tenth of a second; who does
// not exist, is disabled, not yet active or has no password costs the same time; the
// hash is stored with its parameters, so that later ones can be stronger.
//
// The rules for new passwords are few: long enough, not the old one, not around the
// user's name.
package local

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

func init() {
	directory.Register(directory.Local, func(d directory.Deps) (directory.Directory, error) {
		c := Config{Clock: d.Clock}
		switch s := d.Settings[directory.Local].(type) {
		case nil:
		case Config:
			c = s
			c.Clock = d.Clock
		default:
			return nil, fmt.Errorf("settings of a strange kind: %T", s)
		}
		return New(c)
	})
}

// Cost is the price of one hash.
type Cost struct {
	Memory  uint32 // KiB
	Time    uint32 // passes
	Threads uint8
}

// DefaultCost is 64 MiB, 3 passes, one thread.
var DefaultCost = Cost{64 << 10, 3, 1}

// The bounds within which a stored hash is believed: a damaged row must not take
// the server's memory.
const (
	maxMemory = 1 << 20 // KiB
	maxTime   = 64
	saltSize  = 16
	hashSize  = 32
)

// Config sets up the directory. Clock is required; what is 0 is the default.
type Config struct {
	Clock     clock.Clock
	MinLength int           // of new passwords in characters; 12
	MaxAge    time.Duration // after which a password has expired; 0 = never
	Cost      Cost          // DefaultCost; tests lower it
	Slots     int           // hashes at a time; one per core
	Queue     int           // that may wait beside them; 8 per slot, about a second
}

// Directory is the server's own.
type Directory struct {
	conf    Config
	slots   chan struct{}
	waiting atomic.Int64
	dummy   string
}

var _ directory.Directory = (*Directory)(nil)

// New makes the directory.
func New(c Config) (*Directory, error) {
	if c.Clock == nil {
		return nil, errors.New("local directory: no clock given")
	}
	if c.MinLength == 0 {
		c.MinLength = 12
	}
	if c.MinLength < 1 || c.MinLength > 64 {
		return nil, fmt.Errorf("shortest password: %d characters; allowed are 1 to 64", c.MinLength)
	}
	if c.MaxAge < 0 {
		return nil, fmt.Errorf("oldest password: %s; allowed is nothing below 0s", c.MaxAge)
	}
	if c.Cost == (Cost{}) {
		c.Cost = DefaultCost
	}
	if c.Slots == 0 {
		c.Slots = runtime.GOMAXPROCS(0)
	}
	if c.Queue == 0 {
		c.Queue = 8 * c.Slots
	}
	d := &Directory{conf: c, slots: make(chan struct{}, c.Slots)}
	// A hash that no password has: the key is random and forgotten.
	d.dummy = format(c.Cost, random(saltSize), random(hashSize))
	return d, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24: it ends the process instead
	return b
}

// Has tells whether the user has a password here.
func (d *Directory) Has(u db.User) bool { return u.PasswordHash != "" }

// Busy tells whether the queue is full.
func (d *Directory) Busy() bool { return d.waiting.Load() >= int64(d.conf.Slots+d.conf.Queue) }

// enter waits for one of the few places where a hash may be computed.
func (d *Directory) enter(ctx context.Context) (leave func(), err error) {
	if d.waiting.Add(1) > int64(d.conf.Slots+d.conf.Queue) {
		d.waiting.Add(-1)
		return nil, directory.ErrBusy
	}
	select {
	case d.slots <- struct{}{}:
		return func() { <-d.slots; d.waiting.Add(-1) }, nil
	case <-ctx.Done():
		d.waiting.Add(-1)
		return nil, fmt.Errorf("%w: %w", directory.ErrBusy, ctx.Err())
	}
}

// Verify judges a password.
func (d *Directory) Verify(ctx context.Context, u *db.User, password secret.Bytes) directory.Outcome {
	now := d.conf.Clock.Now()
	stored, real := d.dummy, false
	if u != nil && u.PasswordHash != "" && !u.Disabled && !facts.NotYet(*u, now) {
		stored, real = u.PasswordHash, true
	}
	ok, err := d.compare(ctx, stored, password)
	switch {
	case errors.Is(err, directory.ErrBusy):
		return directory.Unavailable
	case err != nil || !ok || !real:
		return directory.Rejected
	}
	return d.Due(*u)
}

// Due tells whether the password of the user is to be changed.
func (d *Directory) Due(u db.User) directory.Outcome {
	switch {
	case u.PasswordHash == "":
		return directory.Accepted // there is none
	case u.MustChange:
		return directory.MustChange
	case d.conf.MaxAge > 0 && d.conf.Clock.Now().Sub(clock.FromMicros(u.PasswordChangedAt)) >= d.conf.MaxAge:
		return directory.Expired
	}
	return directory.Accepted
}

// compare tells whether the password has the stored hash. One that is too long, and
// a hash that can not be read, cost as much as any.
func (d *Directory) compare(ctx context.Context, stored string, password secret.Bytes) (bool, error) {
	cost, salt, want, err := parse(stored)
	if err != nil {
		if cost, salt, want, err = parse(d.dummy); err != nil {
			return false, err
		}
		want = random(len(want))
	}
	p := password.Reveal()
	long := len(p) > directory.MaxPassword
	if long {
		p = p[:directory.MaxPassword]
	}
	leave, err := d.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	got := argon2.IDKey(p, salt, cost.Time, cost.Memory, cost.Threads, uint32(len(want)))
	same := subtle.ConstantTimeCompare(got, want) == 1
	return same && !long && len(p) > 0, nil
}

func (d *Directory) hash(ctx context.Context, password secret.Bytes) (string, error) {
	leave, err := d.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	salt, c := random(saltSize), d.conf.Cost
	return format(c, salt, argon2.IDKey(password.Reveal(), salt, c.Time, c.Memory, c.Threads, hashSize)), nil
}

// Hash judges a new password for the user of that name and makes the hash to store:
// what the desk needs. A refused password is a *fault.Fault with the field
// "password".
func (d *Directory) Hash(ctx context.Context, userName string, password secret.Bytes) (string, error) {
	if why := d.refuse(userName, password); why != "" {
		return "", fault.New(fault.Invalid, nil).With("password", "%s", why)
	}
	h, err := d.hash(ctx, password)
	if err != nil {
		return "", fault.New(fault.Unavailable, err)
	}
	return h, nil
}

// refuse says what is wrong with a new password; "" is nothing.
func (d *Directory) refuse(userName string, password secret.Bytes) string {
	p := password.Reveal()
	switch {
	case len(p) > directory.MaxPassword:
		return fmt.Sprintf("the password has %d octets; allowed are at most %d", len(p), directory.MaxPassword)
	case strings.ContainsAny(string(p), "\x00\r\n"):
		return "the password holds a line end or a NUL; allowed is one line of text"
	case utf8.RuneCount(p) < d.conf.MinLength:
		return fmt.Sprintf("the password has %d characters; allowed are at least %d", utf8.RuneCount(p), d.conf.MinLength)
	// A name of one or two letters is in every other word.
	case utf8.RuneCountInString(userName) >= 3 && strings.Contains(strings.ToLower(string(p)), strings.ToLower(userName)):
		return "the password holds the user name; choose one without it"
	case strings.Count(string(p), string(p[:1])) == len(p):
		return "the password is one character again and again; choose another"
	}
	return ""
}

// Propose judges a new password and hashes it.
func (d *Directory) Propose(ctx context.Context, u db.User, password secret.Bytes) ([]byte, error) {
	if why := d.refuse(u.Name, password); why != "" {
		return nil, &directory.Refusal{Text: strings.ToUpper(why[:1]) + why[1:] + "."}
	}
	if u.PasswordHash != "" {
		old, err := d.compare(ctx, u.PasswordHash, password)
		if err != nil {
			return nil, err
		}
		if old {
			return nil, &directory.Refusal{Text: "The new password is the old one. Choose another."}
		}
	}
	h, err := d.hash(ctx, password)
	return []byte(h), err
}

// Same tells whether the password has the proposed hash.
func (d *Directory) Same(ctx context.Context, proposal []byte, again secret.Bytes) (bool, error) {
	return d.compare(ctx, string(proposal), again)
}

// Apply stores the proposed hash, unless the password was changed meanwhile. The
// user's generation rises with it.
func (d *Directory) Apply(ctx context.Context, tx *store.Tx, u db.User, proposal []byte, now time.Time) error {
	if _, _, _, err := parse(string(proposal)); err != nil {
		return fmt.Errorf("proposed password: %w", err)
	}
	n, err := tx.SetUserPassword(ctx, db.SetUserPasswordParams{ID: u.ID, PasswordHash: string(proposal), At: clock.Micros(now)})
	if err != nil {
		return fmt.Errorf("store the password: %w", err)
	}
	if n != 1 {
		return errors.New("store the password: the user is gone")
	}
	return nil
}

var b64 = base64.RawStdEncoding

// format writes a hash as a PHC string: $argon2id$v=19$m=65536,t=3,p=1$salt$hash.
func format(c Cost, salt, hash []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Time, c.Threads, b64.EncodeToString(salt), b64.EncodeToString(hash))
}

var errHash = errors.New("not a password hash of a known form")

// parse reads what format wrote.
func parse(s string) (c Cost, salt, hash []byte, err error) {
	if len(s) > 512 {
		return c, nil, nil, errHash
	}
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return c, nil, nil, errHash
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &c.Memory, &c.Time, &c.Threads); err != nil || n != 3 ||
		part[3] != fmt.Sprintf("m=%d,t=%d,p=%d", c.Memory, c.Time, c.Threads) {
		return c, nil, nil, errHash
	}
	if c.Memory < 8 || c.Memory > maxMemory || c.Time < 1 || c.Time > maxTime || c.Threads < 1 || c.Threads > 16 {
		return c, nil, nil, errHash
	}
	if salt, err = b64.DecodeString(part[4]); err != nil || len(salt) < 8 || len(salt) > 64 {
		return c, nil, nil, errHash
	}
	if hash, err = b64.DecodeString(part[5]); err != nil || len(hash) < 16 || len(hash) > 64 {
		return c, nil, nil, errHash
	}
	return c, salt, hash, nil
}
