package offline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/assertion"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/server/occasion"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

const (
	maxEntries = 200
	// perUpdate is how many entries one transaction takes: whoever signs in waits for
	// no more of them.
	perUpdate = 25
	// journalsAtOnce bounds how many machines' entries are written at a time.
	journalsAtOnce = 2
	// ahead is how far in the future an entry's time may lie: the clocks of machine and
	// server differ a little.
	ahead = 10 * time.Minute
	// drift is how many steps a machine follows a person's phone. No code of a step
	// further ahead of the delivery can have been accepted there. An entry's own time
	// does not bound it: whoever makes entries up chooses that too, and an honest
	// machine's clock may have been dead.
	drift = 10
	// lately is how long after the end of offline data a machine may still report what
	// it was used for.
	lately = 7 * 24 * time.Hour
)

// fromMachines are the events that a machine may report, and nothing else: a
// machine does not speak for administrators or for the server.
var fromMachines = []event.Type{
	event.SigninAllowed, event.SigninDenied, event.SigninIgnored, event.SigninAbandoned, event.FactorAccepted, event.FactorRejected,
	event.LockoutBegan, event.BreakGlass, event.VaultRefused, event.VaultWiped, event.VaultRolledBack, event.VaultDamaged,
	event.TPMProblem, event.JournalGap, event.ClockJump,
}

// Why an entry of a journal is not believed.
const (
	reasonEdited   = "hash-differs"
	reasonRestored = "journal-restored"
	reasonCounter  = "counter-went-back"
	reasonAttest   = "counter-not-certified"
	reasonType     = "not-a-machines-event"
	reasonStranger = "not-a-user-of-this-machine"
	reasonStep     = "step-in-the-future"
	reasonSpent    = "not-this-users-authenticator"
	reasonProof    = "code-was-not-typed-here"
	reasonEnded    = "after-the-offline-data-ended"
	reasonGuesses  = "too-many-wrong-proofs"
)

// Journal takes over a machine's offline events: each once, in order, as events
// of the server's own log (O11). Whatever of it can not be true of this machine
// becomes an event of its own instead.
func (s *Service) Journal(ctx context.Context, m db.Machine, in wire.Journal) (reply wire.JournalReply, err error) {
	if err := checked(in); err != nil {
		return reply, err
	}
	parts := slices.Collect(slices.Chunk(in.Entries, perUpdate))
	if len(parts) == 0 {
		parts = append(parts, nil)
	}
	attested := false
	for i, part := range parts {
		got, moved, err := s.part(ctx, m, in, part, !attested)
		if err != nil && i > 0 {
			// What was taken is said, so that it does not come again.
			s.Log.Warn("a part of a machine's journal was not taken", "machine", m.ID, "from", part[0].Seq, "error", err)
			return reply, nil
		}
		if err != nil {
			return reply, err
		}
		reply, attested = got, attested || moved
	}
	failpoint.Hit("offline.journal.kept")
	return reply, nil
}

// checked looks at the form of a delivery, before anything is judged: nothing that is
// found later may undo a judgement.
func checked(in wire.Journal) error {
	if len(in.Entries) > maxEntries {
		return fault.New(fault.Invalid, nil).With("entries", "%d; allowed are %d", len(in.Entries), maxEntries)
	}
	for i, e := range in.Entries {
		switch {
		case e.Seq == 0 || e.Seq > 1<<53 || i > 0 && e.Seq <= in.Entries[i-1].Seq:
			return fault.New(fault.Invalid, nil).With("entries", "number %d is not in order", e.Seq)
		case len(e.Hash) != len(event.Hash{}):
			return fault.New(fault.Invalid, nil).With("entries", "number %d has no hash", e.Seq)
		case len(e.Event.Data) > 0 && !json.Valid(e.Event.Data):
			return fault.New(fault.Invalid, nil).With("entries", "number %d has data that are no JSON", e.Seq)
		case e.Counter > 1<<62 || e.Spent != nil && (e.Spent.Step < 0 || e.Spent.Step > 1<<40 || len(e.Spent.Proof) > 64):
			return fault.New(fault.Invalid, nil).With("entries", "number %d is out of bounds", e.Seq)
		case e.Spent != nil && !names(*e.Spent):
			return fault.New(fault.Invalid, nil).With("entries", "number %d names not exactly one authenticator, backup code or security key", e.Seq)
		}
	}
	return nil
}

// names tells whether exactly one thing was spent, and what a key has signed is bounded.
func names(s wire.Spent) bool {
	n := 0
	for _, id := range []string{s.Authenticator, s.Backup, s.Key} {
		switch {
		case id == "":
		case !isID(id):
			return false
		default:
			n++
		}
	}
	if s.Key == "" {
		return n == 1 && s.Signed == nil
	}
	k := s.Signed
	return n == 1 && s.Proof == nil && k != nil && len(k.Nonce) == assertion.NonceSize && len(k.AuthData) <= assertion.MaxAuthData && len(k.Signature) <= assertion.MaxSignature
}

// isID tells whether s can be an id: the engines differ in what else they take.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// part takes over some entries of a delivery in one transaction.
func (s *Service) part(ctx context.Context, m db.Machine, in wire.Journal, part []wire.JournalEntry, attest bool) (reply wire.JournalReply, moved bool, err error) {
	select {
	case s.journals <- struct{}{}:
		defer func() { <-s.journals }()
	case <-ctx.Done():
		return reply, false, fault.New(fault.TooMany, ctx.Err())
	}
	err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		reply, moved, err = s.take(ctx, tx, m, in, part, attest)
		failpoint.Hit("offline.journal.read")
		return err
	})
	return reply, moved, err
}

// reader is one delivery being read.
type reader struct {
	*Service
	tx    *store.Tx
	m     db.Machine
	now   time.Time
	head  db.JournalHead
	used  map[string]bool // who has signed in
	heard map[string]*heard
	users map[string]*db.User
	tally tally
	// changed: something of it has to be kept, also where the head did not move.
	changed bool
}

func (s *Service) take(ctx context.Context, tx *store.Tx, m db.Machine, in wire.Journal, part []wire.JournalEntry, attest bool) (reply wire.JournalReply, moved bool, err error) {
	r := &reader{Service: s, tx: tx, m: m, now: s.Clock.Now(), used: map[string]bool{}, users: map[string]*db.User{}}
	zero := make([]byte, len(event.Hash{}))
	if _, err := tx.StartJournal(ctx, db.StartJournalParams{MachineID: m.ID, Hash: zero}); err != nil {
		return reply, false, err
	}
	if r.head, err = tx.GetJournalHead(ctx, m.ID); err != nil {
		return reply, false, err
	}
	was := r.head
	if err := r.begin(); err != nil {
		return reply, false, err
	}
	for _, e := range part {
		if err := r.entry(ctx, e); err != nil {
			return reply, false, fmt.Errorf("journal entry %d of machine %s: %w", e.Seq, m.ID, err)
		}
	}
	if moved = r.head.Seq != was.Seq; moved {
		r.head.EntriesAt = clock.Micros(r.now)
		if attest {
			if err := r.attested(ctx, in); err != nil {
				return reply, false, err
			}
		}
	}
	if moved || r.changed {
		n, err := r.keep(ctx, was)
		if err != nil {
			return reply, false, err
		}
		if n != 1 {
			return reply, false, fault.New(fault.Conflict, nil) // the same entries came twice at once
		}
	}
	if moved {
		if err := r.count(ctx); err != nil {
			return reply, false, err
		}
	}
	return wire.JournalReply{Seq: uint64(r.head.Seq), Hash: r.head.Hash}, moved, nil
}

// entry takes over one entry.
func (r *reader) entry(ctx context.Context, e wire.JournalEntry) error {
	seq := int64(e.Seq)
	if seq <= r.head.Seq {
		// It was delivered before, or it is another one under an old number: an old
		// state of the machine was put back.
		if seq == r.head.Seq && bytes.Equal(e.Hash, r.head.Hash) {
			return nil
		}
		if isID(e.Event.ID) {
			old, err := r.tx.GetEvent(ctx, e.Event.ID)
			if err == nil && old.MachineID == r.m.ID {
				return nil
			}
			if err != nil && !store.IsNotFound(err) {
				return err
			}
		}
		if err := r.note(event.JournalForged, reasonRestored, map[string]any{"seq": seq, "expected": r.head.Seq + 1}); err != nil {
			return err
		}
		return r.believe(ctx, e)
	}
	chained := seq == r.head.Seq+1
	if !chained {
		if err := r.note(event.JournalGap, "entries-missing", map[string]any{"from": r.head.Seq + 1, "to": seq - 1}); err != nil {
			return err
		}
	}
	var prev event.Hash
	copy(prev[:], r.head.Hash)
	good := true
	if want := wire.EntryHash(r.m.ID, prev, e); chained && !bytes.Equal(want[:], e.Hash) {
		good = false
		if err := r.note(event.JournalForged, reasonEdited, map[string]any{"seq": seq, "type": text.CleanN(string(e.Event.Type), 64)}); err != nil {
			return err
		}
	}
	// A state that was made anew counts anew, and says first why.
	anew := slices.Contains([]event.Type{event.VaultRolledBack, event.VaultDamaged, event.TPMProblem}, e.Event.Type)
	if e.Counter != 0 && int64(e.Counter) < r.head.Counter && !anew {
		err := r.note(event.VaultRolledBack, reasonCounter, map[string]any{"seq": seq, "counter": e.Counter, "expected": r.head.Counter})
		if err != nil {
			return err
		}
	}
	r.head.Seq, r.head.Hash = seq, e.Hash
	if e.Counter != 0 {
		r.head.Counter = int64(e.Counter) // told once, not with every entry from here on
	}
	if !good {
		return nil
	}
	return r.believe(ctx, e)
}

// note writes an event about the journal itself.
func (r *reader) note(t event.Type, reason string, data map[string]any) error {
	return r.emit(r.about(t, reason, data), false)
}

func (r *reader) forged(e wire.JournalEntry, reason string) error {
	return r.note(event.JournalForged, reason, map[string]any{
		"seq": e.Seq, "type": text.CleanN(string(e.Event.Type), 64), "user_id": text.CleanN(e.Event.UserID, 64), "subject": text.CleanN(e.Event.Subject, 128),
	})
}

// believe makes an event of an entry, if this machine could know of it.
func (r *reader) believe(ctx context.Context, e wire.JournalEntry) error {
	ev := e.Event
	if !slices.Contains(fromMachines, ev.Type) {
		return r.forged(e, reasonType)
	}
	var u *db.User
	if ev.UserID != "" {
		var err error
		if u, err = r.mayKnow(ctx, ev.UserID); err != nil {
			return err
		}
		if u == nil {
			return r.forged(e, reasonStranger)
		}
		ev.Subject = u.Name
	}
	var spend spending
	if e.Spent != nil {
		var err error
		if spend, err = r.judge(ctx, e, u); err != nil || spend == nil {
			return err
		}
	}
	ev.MachineID, ev.Machine = r.m.ID, r.m.Name
	ev.Link = link(ev)
	ev.ReceivedAt = clock.Micros(r.now)
	ev.At = min(max(ev.At, 1), clock.Micros(r.now.Add(ahead)))
	for _, f := range []struct {
		s *string
		n int
	}{
		{&ev.Actor, 128},
		{&ev.Subject, 256},
		{&ev.Address, 128},
		{&ev.Scope, 32},
		{&ev.Service, 64},
		{&ev.Outcome, 32},
		{&ev.Reason, 64},
		{&ev.Factor, 32},
	} {
		*f.s = text.CleanN(*f.s, f.n)
	}
	if id, err := r.freshID(ctx, ev.ID); err != nil {
		return err
	} else {
		ev.ID = id
	}
	ev.Data = clip(ev.Data)
	if e.Spent != nil {
		ev.Data = spentData(ev.Data, *e.Spent)
	}
	own := false
	if spend != nil {
		var err error
		if own, err = spend(); err != nil {
			return err
		}
	}
	if !own && opening(e) {
		if err := r.open(ev); err != nil {
			return err
		}
	} else if err := r.emit(ev, own); err != nil {
		return err
	}
	if u == nil {
		return nil
	}
	if ev.Type == event.SigninAllowed && ev.Link != string(policy.LinkUp) {
		r.used[u.ID] = true
	}
	return r.hear(ctx, u.ID, ev)
}

// link is the state of the link in which it happened. What a machine reports later
// has happened without the server; only a break-glass sign-in is journalled in
// every state.
func link(e event.Event) string {
	switch {
	case e.Link == string(policy.LinkRefused):
		return e.Link
	case e.Type == event.BreakGlass && e.Link == string(policy.LinkUp):
		return e.Link
	}
	return string(policy.LinkDown)
}

// freshID keeps the machine's id of the event, if it is one as this server writes them
// and nobody else's: by any other it could not be opened or reported, and an id stands in
// addresses of pages.
func (r *reader) freshID(ctx context.Context, id string) (string, error) {
	if u, err := uuid.Parse(id); err != nil || u.String() != id {
		return store.NewID(), nil
	}
	_, err := r.tx.GetEvent(ctx, id)
	if store.IsNotFound(err) {
		return id, nil
	}
	return store.NewID(), err
}

// mayKnow finds a user of whom this machine may speak: assigned to it, known on
// it, or with offline data on it.
func (r *reader) mayKnow(ctx context.Context, id string) (*db.User, error) {
	if u, ok := r.users[id]; ok {
		return u, nil
	}
	var found *db.User
	if isID(id) {
		n, err := r.tx.MachineKnowsUser(ctx, db.MachineKnowsUserParams{MachineID: r.m.ID, UserID: id})
		if err != nil {
			return nil, err
		}
		if n > 0 {
			u, err := r.tx.GetUser(ctx, id)
			if err != nil {
				return nil, err
			}
			found = &u
		}
	}
	r.users[id] = found
	return found, nil
}

// spending spends here what was accepted there (S10), and tells whether it was good
// until now.
type spending func() (fresh bool, err error)

func nothing() (bool, error) { return false, nil }

// judge tells whether the machine can have accepted what the entry says, and how it is
// spent. No spending: it can not, and the entry is not believed. Nothing of the rest of
// the entry, and nothing that the machine hears, depends on whether the proof was right.
func (r *reader) judge(ctx context.Context, e wire.JournalEntry, u *db.User) (spending, error) {
	sp := *e.Spent
	if u == nil {
		return nil, r.forged(e, reasonSpent)
	}
	until, err := r.heldUntil(ctx, u)
	if err != nil {
		return nil, err
	}
	if until == 0 {
		return nil, r.forged(e, reasonSpent)
	}
	switch {
	case sp.Backup != "":
		return r.judgeBackup(ctx, e, u)
	case sp.Key != "":
		return r.judgeKey(ctx, e, u)
	}
	a, err := r.tx.GetAuthenticator(ctx, sp.Authenticator)
	switch {
	case store.IsNotFound(err):
		return nothing, nil // it was removed since: there is nothing to spend
	case err != nil:
		return nil, err
	case a.UserID != u.ID || a.Kind != string(policy.TOTP):
		return nil, r.forged(e, reasonSpent)
	}
	p, seed, err := r.Keeper.OpenTOTP(a)
	if err != nil {
		return nil, err
	}
	code := []byte(p.Code(seed, sp.Step))
	seed.Wipe()
	defer clear(code)
	switch {
	case sp.Step > p.Step(r.now)+drift+otp.Skew:
		return nil, r.forged(e, reasonStep)
	case sp.Step > p.Step(clock.FromMicros(until))+drift+otp.Skew:
		return nil, r.forged(e, reasonEnded)
	}
	if reason := r.proved(u, sp, wire.SpentProof(r.m.ID, sp, code)); reason != "" {
		return nil, r.forged(e, reason)
	}
	return func() (bool, error) {
		n, err := r.tx.SpendStep(ctx, db.SpendStepParams{ID: a.ID, Step: sp.Step, Drift: a.Drift, At: clock.Micros(r.now)})
		if err != nil || n > 0 {
			return true, err
		}
		met := a.Step == sp.Step
		if a.Step > sp.Step { // another one may have been used there since
			if met, err = r.acceptedElsewhere(ctx, u, a.ID, p, sp.Step); err != nil {
				return false, err
			}
		}
		if met {
			err = r.collision(event.CodeCollision, u, map[string]any{"authenticator": a.ID, "step": sp.Step, "event": e.Event.ID})
		}
		return false, err
	}, nil
}

func (r *reader) judgeBackup(ctx context.Context, e wire.JournalEntry, u *db.User) (spending, error) {
	sp := *e.Spent
	c, err := r.tx.GetBackupCode(ctx, sp.Backup)
	switch {
	case store.IsNotFound(err):
		return nothing, nil // the set was replaced since
	case err != nil:
		return nil, err
	case c.UserID != u.ID || c.UsedAt == 0 && len(c.Sealed) == 0: // that one is in no bundle
		return nil, r.forged(e, reasonSpent)
	}
	if c.UsedAt == 0 { // of one that was used nothing is kept by which to tell
		code, err := r.Keeper.OpenBackup(c)
		if err != nil {
			return nil, err
		}
		want := wire.SpentProof(r.m.ID, sp, code.Reveal())
		code.Wipe()
		if reason := r.proved(u, sp, want); reason != "" {
			return nil, r.forged(e, reason)
		}
	}
	return func() (bool, error) {
		n, err := r.tx.SpendBackupCode(ctx, db.SpendBackupCodeParams{ID: c.ID, UserID: u.ID, MachineID: r.m.ID, At: clock.Micros(r.now)})
		if err != nil || n > 0 {
			return true, err
		}
		if c.UsedMachine != r.m.ID {
			err = r.collision(event.BackupCollision, u, map[string]any{"code": c.ID, "other_machine": c.UsedMachine, "event": e.Event.ID})
		}
		return false, err
	}, nil
}

// keyAhead and keyLate bound how far the time that a key has signed may lie from that
// of the entry: a sign-in takes a minute, and is written down behind it.
const (
	keyAhead = 10 * time.Second
	keyLate  = 5 * time.Minute
)

// judgeKey verifies what a security key has signed: a machine can report only a key that
// was plugged into it, and one touch once, for the moment at which it was touched.
func (r *reader) judgeKey(ctx context.Context, e wire.JournalEntry, u *db.User) (spending, error) {
	sp := *e.Spent
	k, err := r.tx.GetPasskey(ctx, sp.Key)
	switch {
	case store.IsNotFound(err):
		return nothing, nil // it was removed since
	case err != nil:
		return nil, err
	case k.UserID != u.ID:
		return nil, r.forged(e, reasonSpent)
	}
	at, ok := assertion.NonceTime(sp.Signed.Nonce)
	got, err := assertion.Verify(k.PublicKey, sp.Signed.AuthData, sp.Signed.Signature, assertion.Want{
		RPID: k.RpID, ClientHash: assertion.OfflineHash(sp.Signed.Nonce, r.m.ID, u.ID),
	})
	told := e.Event.At - at
	if err != nil || !ok || int64(got.Count) != sp.Step || told < -keyAhead.Microseconds() || told > keyLate.Microseconds() {
		return nil, r.forged(e, reasonProof)
	}
	// A key that counts tells one touch from another whatever the machine's clock says: a count
	// that is higher than all before was not told yet. Where it does not count, the moment alone
	// does, and one that has not come is not believed: it would make forgeries of all until then.
	counted := sp.Step > k.SignCount
	if sp.Step == 0 && at > clock.Micros(r.now.Add(keyLate)) {
		return nil, r.forged(e, reasonStep)
	}
	use, err := r.tx.GetPasskeyUse(ctx, db.GetPasskeyUseParams{MachineID: r.m.ID, AuthenticatorID: k.AuthenticatorID})
	switch {
	case err == nil && at <= use.At && !counted:
		return nil, r.forged(e, reasonProof) // that touch was told before
	case err != nil && !store.IsNotFound(err):
		return nil, err
	}
	return func() (bool, error) {
		n, err := r.tx.RaisePasskeyUse(ctx, db.RaisePasskeyUseParams{MachineID: r.m.ID, AuthenticatorID: k.AuthenticatorID, At: at})
		if err == nil && n == 1 {
			_, err = r.tx.UseAuthenticator(ctx, db.UseAuthenticatorParams{ID: k.AuthenticatorID, At: clock.Micros(r.now)})
		}
		if err != nil {
			return false, err
		}
		if sp.Step > k.SignCount { // else it was used elsewhere since: what is told late is no copy
			_, err = r.tx.UsePasskey(ctx, db.UsePasskeyParams{ID: k.AuthenticatorID, SignCount: sp.Step, Was: k.SignCount, BackedUp: k.BackedUp})
		}
		return true, err
	}, nil
}

func (r *reader) collision(t event.Type, u *db.User, what map[string]any) error {
	return r.open(event.Event{
		Type: t, Subject: u.Name, UserID: u.ID, MachineID: r.m.ID, Machine: r.m.Name, Link: string(policy.LinkDown), Outcome: "noticed", Data: object(what),
	})
}

// heldUntil is how long the machine has or had offline data of the user, in
// microseconds; 0: not lately.
func (r *reader) heldUntil(ctx context.Context, u *db.User) (until int64, err error) {
	vaults, err := r.tx.ListVaultsOfPair(ctx, db.ListVaultsOfPairParams{UserID: u.ID, MachineID: r.m.ID})
	for _, v := range vaults {
		switch {
		case v.State == Active || v.State == Activating:
			until = max(until, v.ExpiresAt)
		case clock.Micros(r.now)-v.UpdatedAt <= lately.Microseconds():
			until = max(until, min(v.ExpiresAt, v.UpdatedAt))
		}
	}
	return until, err
}

// count counts the sign-ins of this delivery for the report (O14), and ends the
// windows that an offline sign-in ends (W6).
func (r *reader) count(ctx context.Context) error {
	if err := r.remember(ctx); err != nil {
		return err
	}
	ids := make([]string, 0, len(r.used))
	for id := range r.used {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if _, err := occasion.Report(ctx, r.tx, r.m, occasion.What{Kind: policy.EndOffline, UserID: id}, r.now); err != nil {
			return err
		}
	}
	return nil
}

// without tells what a machine may report that has no use of its counter: that it has
// opened for nobody.
func without(t event.Type) bool {
	return t == event.SigninDenied || t == event.SigninAbandoned
}

// attested checks the TPM's word on the counter, where this machine has shown an
// attestation key and the counter's handle (O9, O11).
func (r *reader) attested(ctx context.Context, in wire.Journal) error {
	if len(r.m.AttestKey) == 0 {
		return nil
	}
	var info struct {
		Counter uint32 `json:"counter"`
	}
	if err := json.Unmarshal([]byte(r.m.TPMInfo), &info); err != nil || info.Counter == 0 {
		return nil // it has no counter to be certified yet
	}
	if !slices.ContainsFunc(in.Entries, func(e wire.JournalEntry) bool { return e.Counter != 0 || !without(e.Event.Type) }) {
		return nil // written while the TPM or the state could not be used
	}
	why := ""
	k, err := tpm.ParseAttestationKey(r.m.AttestKey)
	if err != nil {
		return fmt.Errorf("the attestation key of machine %s: %w", r.m.ID, err)
	}
	last := in.Entries[len(in.Entries)-1]
	v, err := k.VerifyCounter(info.Counter, last.Hash, tpm.Certified{Attest: in.Attest, Signature: in.Sig})
	switch {
	case len(in.Attest) == 0:
		why = "there is no certificate"
	case err != nil:
		why = err.Error()
	case v.Value < last.Counter:
		why = fmt.Sprintf("the TPM counts %d, the journal %d", v.Value, last.Counter)
	}
	if why == "" {
		return nil
	}
	return r.note(event.JournalForged, reasonAttest, map[string]any{"seq": last.Seq, "why": text.CleanN(why, 200)})
}

// reasonWord keeps a reason code, or an agent's few words as one.
func reasonWord(s string) string {
	out := []byte(text.CleanN(s, 64))
	for i, c := range out {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-':
		case c >= 'A' && c <= 'Z':
			out[i] = c + 'a' - 'A'
		default:
			out[i] = '-'
		}
	}
	return string(out)
}
