package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// journalHead is where the chain ends.
type journalHead struct {
	Seq  uint64 `json:"seq"`
	Hash []byte `json:"hash,omitempty"`
}

// journal is the file of events not yet delivered. Its first record is the base:
// the place behind which it goes on. Each record has a u32 length; a last record
// that was cut by a crash is dropped.
type journal struct {
	fs      FS
	machine string
	base    journalHead
	entries []wire.JournalEntry
	size    int
	file    Appender
	broken  string // why the file could not be read to its end, if so
	// reason says that the file must not be touched: it could not be read, or is of a
	// newer agent.
	reason policy.Reason
	// torn says that the file does not end with the last entry: it is written anew
	// before anything is put behind it.
	torn bool
}

const (
	journalMagic = "LKJN"
	// maxJournal bounds the file; a sign-in that can not be journalled is denied. quota.go
	// says what may use how much of it.
	maxJournal = 32 << 20
	maxEntry   = 64 << 10
	// maxData is what an entry keeps of an event's data; no trace comes near it.
	maxData = 32 << 10
	// maxPart bounds what is delivered at a time in octets, well below what a request
	// may have.
	maxPart = wire.MaxRequest - 128<<10
)

func loadJournal(f FS, machine string) *journal {
	j := &journal{fs: f, machine: machine}
	raw, err := f.ReadFile("journal")
	if errors.Is(err, fs.ErrNotExist) {
		return j
	}
	if err != nil {
		err = unread("journal", err)
		j.broken, j.reason = err.Error(), reasonOf(err)
		return j
	}
	var good int
	j.base, j.entries, good, err = readJournal(machine, raw)
	j.size = good
	if err != nil {
		j.broken = err.Error()
		if r := reasonOf(err); r == policy.ReasonVaultNewer {
			j.broken, j.reason = "journal: "+j.broken, r
			return j
		}
	}
	if good != len(raw) {
		// What is behind the last whole record was never acknowledged to anybody. On a
		// disk that can not be written it goes with the next entry.
		_ = j.rewrite()
	}
	return j
}

// readJournal parses a file: base, entries whose chain holds, and how many
// octets of it are good. A cut last record is no error.
func readJournal(machine string, raw []byte) (base journalHead, entries []wire.JournalEntry, good int, err error) {
	body, rest, err := unframe(journalMagic, raw)
	if err != nil {
		return base, nil, 0, err
	}
	if err := json.Unmarshal(body, &base); err != nil {
		return base, nil, 0, fmt.Errorf("journal: %w", err)
	}
	if len(base.Hash) != 0 && len(base.Hash) != len(event.Hash{}) {
		return base, nil, 0, errors.New("journal: base hash has a wrong length")
	}
	good = len(raw) - len(rest)
	head := base
	for len(rest) >= 4 {
		n := binary.BigEndian.Uint32(rest)
		if n > maxEntry {
			return base, entries, good, fmt.Errorf("journal: record of %d octets", n)
		}
		if int(n) > len(rest)-4 {
			return base, entries, good, nil
		}
		var e wire.JournalEntry
		if err := json.Unmarshal(rest[4:4+n], &e); err != nil {
			return base, entries, good, fmt.Errorf("journal: %w", err)
		}
		if e.Seq != head.Seq+1 {
			return base, entries, good, fmt.Errorf("journal: entry %d behind %d", e.Seq, head.Seq)
		}
		if h := wire.EntryHash(machine, head.hash(), e); !bytes.Equal(h[:], e.Hash) {
			return base, entries, good, fmt.Errorf("journal: entry %d was edited", e.Seq)
		}
		entries = append(entries, e)
		head = journalHead{e.Seq, e.Hash}
		good += 4 + int(n)
		rest = rest[4+n:]
	}
	return base, entries, good, nil
}

func (h journalHead) hash() (out event.Hash) {
	copy(out[:], h.Hash)
	return out
}

func (j *journal) head() journalHead {
	if n := len(j.entries); n > 0 {
		return journalHead{j.entries[n-1].Seq, j.entries[n-1].Hash}
	}
	return j.base
}

// highest is the highest number of the ledger that an entry here tells of.
func (j *journal) highest() (n uint64) {
	for _, e := range j.entries {
		n = max(n, e.Counter)
	}
	return n
}

// hashAt is the hash of the entry seq, if this journal has it.
func (j *journal) hashAt(seq uint64) ([]byte, bool) {
	if seq == j.base.Seq {
		return j.base.Hash, true
	}
	if i := int(seq) - int(j.base.Seq) - 1; seq > j.base.Seq && i < len(j.entries) {
		return j.entries[i].Hash, true
	}
	return nil, false
}

// errNever says that an entry can not be written whatever becomes of the disk.
var errNever = errors.New("the entry can not be journalled")

func record(e wire.JournalEntry) ([]byte, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNever, err)
	}
	if len(raw) > maxEntry {
		return nil, fmt.Errorf("%w: it has %d octets; at most %d", errNever, len(raw), maxEntry)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...), nil
}

func (j *journal) rewrite() error {
	j.torn = true
	j.close()
	body, err := json.Marshal(j.base)
	if err != nil {
		return err
	}
	out := frame(journalMagic, body)
	for _, e := range j.entries {
		r, err := record(e)
		if err != nil {
			return err
		}
		out = append(out, r...)
	}
	if err := j.fs.WriteFile("journal", out); err != nil {
		return err
	}
	j.size, j.torn = len(out), false
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}

// errFull says that an entry has no room.
var errFull = errors.New("the journal of offline events is full: connect, so that it can be delivered")

// append puts an event behind the others, if the file stays below room by it.
func (j *journal) append(e event.Event, counter uint64, spent *wire.Spent, room int) error {
	if j.reason != "" {
		return because(j.reason, "%s", j.broken)
	}
	if n := len(e.Data); n > maxData {
		// What is too much to be kept must not keep the rest from being told.
		e.Data = fmt.Appendf(nil, `{"dropped_octets":%d}`, n)
	}
	head := j.head()
	entry := wire.JournalEntry{Seq: head.Seq + 1, Counter: counter, Event: e, Spent: spent}
	h := wire.EntryHash(j.machine, head.hash(), entry)
	entry.Hash = h[:]
	r, err := record(entry)
	if err != nil {
		return err
	}
	if j.size+len(r) > room {
		return fmt.Errorf("%w (%d octets)", errFull, j.size)
	}
	if j.file == nil {
		if j.size == 0 || j.torn {
			if err := j.rewrite(); err != nil {
				return err
			}
		}
		if j.file, err = j.fs.Append("journal"); err != nil {
			return err
		}
	}
	if err := j.file.Append(r); err != nil {
		// What was written of it must not stand before the next entry, also where it can
		// not be taken back now.
		return errors.Join(err, j.rewrite())
	}
	j.size += len(r)
	j.entries = append(j.entries, entry)
	return nil
}

// restart lets the chain go on behind what the server has: entries that still
// fit are kept, all others are lost, and the loss is told.
func (j *journal) restart(seq uint64, hash []byte) error {
	if j.reason != "" {
		return because(j.reason, "%s", j.broken)
	}
	if have, ok := j.hashAt(seq); ok && bytes.Equal(have, hash) && j.broken == "" {
		return j.drop(seq)
	}
	j.base, j.entries, j.broken = journalHead{seq, bytes.Clone(hash)}, nil, ""
	return j.rewrite()
}

// drop forgets what the server has.
func (j *journal) drop(seq uint64) error {
	h, ok := j.hashAt(seq)
	if !ok || seq == j.base.Seq {
		return nil
	}
	n := int(seq - j.base.Seq)
	j.entries = append([]wire.JournalEntry(nil), j.entries[n:]...)
	j.base = journalHead{seq, h}
	return j.rewrite()
}

// quieter bounds how many denials of people nobody knows are journalled, so that
// a stranger on the network can not fill the disk.
type quieter struct {
	tokens     int
	at         time.Time
	suppressed int       // refusals that were not written
	said       time.Time // when their number was written last
}

const (
	quietBurst = 60
	quietEvery = time.Second
)

func (q *quieter) take(now time.Time) bool {
	if q.at.IsZero() || now.Before(q.at) {
		q.tokens, q.at = quietBurst, now
	}
	if n := int(now.Sub(q.at) / quietEvery); n > 0 {
		q.tokens, q.at = min(quietBurst, q.tokens+n), now
	}
	if q.tokens == 0 {
		q.suppressed++
		return false
	}
	q.tokens--
	return true
}

// Record journals an offline outcome that needed no check of the vault: a
// bypass, an exemption, a denial. Whatever opens the machine is also counted in
// the ledger, several together where there are many. An error means that the caller
// must deny.
func (v *Vault) Record(ctx context.Context, e event.Event) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	opens := e.Type != event.SigninDenied && e.Type != event.SigninAbandoned
	if v.led == nil || v.problem != "" {
		// Without a ledger nothing opens; the denial itself is still written down.
		if opens {
			return because(v.problem, "%s", v.detail)
		}
		if !v.quiet.take(v.now()) {
			return nil
		}
		return v.noted(e, v.journalOnly(e))
	}
	if !opens {
		if v.summarise(summaryEvery); !v.quiet.take(v.now()) {
			return nil
		}
		return v.noted(e, v.append(e, nil))
	}
	err := v.append(e, nil)
	if err != nil && e.Type == event.BreakGlass {
		return v.noted(e, err)
	}
	if err == nil {
		err = v.settleLater(ctx)
	}
	if err != nil {
		// Nobody is let in: that is what is told, behind what was written already.
		e.ID, e.Type, e.Outcome, e.Reason = "", event.SigninDenied, string(policy.Deny), string(reasonOf(err))
		if err := v.append(e, nil); err != nil {
			v.postpone(e, err)
		}
	}
	return err
}

// noted keeps an event whose writing failed.
func (v *Vault) noted(e event.Event, err error) error {
	if err != nil {
		v.postpone(e, err)
	}
	return err
}

// maxLater bounds the events that wait in memory for a disk that can be written.
const maxLater = 64

// postpone keeps an event that can not be written now: it is journalled as soon as
// the disk lets it, unless the agent ends before. Nothing that opens waits there.
func (v *Vault) postpone(e event.Event, cause error) {
	v.log.Error("an event can not be journalled now", "type", string(e.Type), "subject", e.Subject, "reason", e.Reason, "err", cause)
	if len(v.later) >= maxLater {
		return // the first ones tell most; all of them are in the log
	}
	if e, err := v.complete(e); err == nil {
		v.later = append(v.later, e)
	}
}

// catchUp journals what had to wait. It says nothing: what fails goes on waiting.
func (v *Vault) catchUp() {
	for len(v.later) > 0 {
		counter := uint64(0)
		if v.led != nil && v.problem == "" {
			counter = v.next()
		}
		switch err := v.enter(v.later[0], counter, nil); {
		case errors.Is(err, errNever):
			// It would keep what waits behind it waiting for ever.
			v.log.Error("an event is left out of the journal", "type", string(v.later[0].Type), "subject", v.later[0].Subject, "err", err)
			v.quiet.suppressed++
		case err != nil:
			return
		}
		v.later = v.later[1:]
	}
}

// append journals an event; the ledger's head follows with its next write.
func (v *Vault) append(e event.Event, spent *wire.Spent) error {
	if v.jour.broken != "" {
		was := v.jour.broken
		if err := v.jour.restart(v.jour.head().Seq, v.jour.head().Hash); err != nil {
			return fmt.Errorf("%w: %w", ErrState, err)
		}
		v.tell(event.JournalGap, policy.ReasonVaultDamaged, "", was)
	}
	return v.put(e, spent)
}

func (v *Vault) put(e event.Event, spent *wire.Spent) error {
	e, err := v.complete(e)
	if err != nil {
		return err
	}
	v.catchUp()
	// The value that the counter has after the ledger's next write.
	if err := v.enter(e, v.next(), spent); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	failpoint.Hit("vault.journal.written")
	return nil
}

func (v *Vault) journalOnly(e event.Event) error {
	e, err := v.complete(e)
	if err != nil {
		return err
	}
	v.catchUp()
	v.stuck = v.enter(e, 0, nil)
	if v.stuck != nil {
		return fmt.Errorf("%w: %w", ErrState, v.stuck)
	}
	return nil
}

func (v *Vault) complete(e event.Event) (event.Event, error) {
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return e, err
		}
		e.ID = id.String()
	}
	if e.At == 0 {
		e.At = clock.Micros(v.now())
	}
	e.MachineID = v.cfg.MachineID
	return e, nil
}

// settleJournal compares the journal with the ledger after a start: entries
// behind the ledger's head were written just before a crash, and what they spent
// is spent; a journal that ends before it has lost entries.
func (v *Vault) settleJournal() {
	want, head := v.led.Journal, v.jour.head()
	if v.st.Class == ClassSoftware {
		// Where no TPM says whether the ledger is the newest, the journal may know better.
		if n := v.jour.highest(); n > v.next() {
			v.fail(because(policy.ReasonVaultRolledBack, "the ledger has number %d, the journal tells of %d: an older ledger was put back", v.led.Counter, n))
			return
		}
		if want.Seq < v.jour.base.Seq {
			v.fail(because(policy.ReasonVaultRolledBack, "the ledger knows the journal up to %d, the journal begins at %d: an older ledger was put back", want.Seq, v.jour.base.Seq))
			return
		}
	}
	if have, ok := v.jour.hashAt(want.Seq); ok && bytes.Equal(have, want.Hash) {
		for _, e := range v.jour.entries {
			if e.Seq > want.Seq && e.Spent != nil && e.Event.UserID != "" {
				v.user(e.Event.UserID).spend(*e.Spent)
			}
		}
		return
	}
	v.log.Error("the journal does not go with the ledger", "journal", head.Seq, "ledger", want.Seq)
	if err := v.jour.restart(want.Seq, want.Hash); err != nil {
		v.log.Error("journal can not be written", "err", err)
		return
	}
	v.tell(event.JournalGap, policy.ReasonVaultDamaged, "", fmt.Sprintf("journal ended at %d, ledger at %d", head.Seq, want.Seq))
}

// Pending gives up to n entries to be delivered, fewer where they are large, oldest
// first, with the TPM's word on the counter over the last one's hash, where there is a TPM.
func (v *Vault) Pending(ctx context.Context, n int) (wire.Journal, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.catchUp()
	v.summarise(0)
	var j wire.Journal
	size := 0
	for _, e := range v.jour.entries[:min(n, len(v.jour.entries))] {
		r, err := record(e)
		if err != nil {
			return j, err
		}
		if size += len(r); size > maxPart && len(j.Entries) > 0 {
			break
		}
		j.Entries = append(j.Entries, e)
	}
	if len(j.Entries) == 0 || v.st == nil || v.st.Class != ClassTPM || v.problem != "" {
		return j, nil
	}
	// Entries whose ledger write is outstanding get it now, so that the counter
	// that is certified is not below theirs.
	if last := j.Entries[len(j.Entries)-1]; last.Counter > v.led.Counter {
		if err := v.save(ctx); err != nil {
			return j, err
		}
	}
	c, err := v.cfg.Device.CertifyCounter(ctx, v.st.Attest, v.st.Counter, j.Entries[len(j.Entries)-1].Hash)
	if err != nil {
		if tpm.Absent(err) || tpm.Transient(err) {
			return wire.Journal{}, err
		}
		v.log.Warn("the TPM does not certify its counter", "err", err)
		return j, nil
	}
	j.Attest, j.Sig = c.Attest, c.Signature
	return j, nil
}

// Delivered forgets entries up to seq, which the server has with this hash.
func (v *Vault) Delivered(ctx context.Context, seq uint64, hash []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	have, ok := v.jour.hashAt(seq)
	if !ok || !bytes.Equal(have, hash) {
		return fmt.Errorf("the server acknowledges entry %d, which this journal does not have", seq)
	}
	return v.drop(ctx, seq)
}

// drop forgets what the server has. The ledger's head must not lie before the base,
// or the next start would take the delivered entries for lost; and what they spent
// must stand in the ledger before they go.
func (v *Vault) drop(ctx context.Context, seq uint64) error {
	if v.led != nil && v.problem == "" && v.led.Journal.Seq < seq {
		if err := v.save(ctx); err != nil {
			return err
		}
	}
	failpoint.Hit("vault.journal.saved")
	return v.jour.drop(seq)
}

// resume lines the journal up with what the server says that it has. A server
// that has more, or something else, has met a later state of this machine: an
// older one was put back. That is how it is noticed without a TPM.
func (v *Vault) resume(ctx context.Context, seq uint64, hash []byte) error {
	if have, ok := v.jour.hashAt(seq); ok && (bytes.Equal(have, hash) || seq == 0) {
		return v.drop(ctx, seq)
	}
	if seq < v.jour.base.Seq {
		// The server has lost what it acknowledged (an old backup). It will see the
		// gap by itself.
		return nil
	}
	return because(policy.ReasonVaultRolledBack, "the server has journal entry %d, this machine ends at %d", seq, v.jour.head().Seq)
}
