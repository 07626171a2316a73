package push

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Device is a phone that has proven to be one.
type Device struct {
	ID      string
	Name    string
	UserID  string
	User    string
	Key     Key
	Address string // the call came from

	Standalone bool
	Notify     bool // it has a subscription
	Verifies   bool // an authenticator of its own is registered
	CreatedAt  int64
	seenAt     int64
	credential []byte
}

// Find gives the phone of an id with its key. Its caller has a signature to judge before
// it believes anything.
func (s *Service) Find(ctx context.Context, id, address string) (Device, error) {
	if !oneLine(id, 64) || id == "" {
		return Device{}, errGone()
	}
	var row db.GetPushDeviceRow
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		row, err = q.GetPushDevice(ctx, id)
		return err
	})
	switch {
	case store.IsNotFound(err) || err == nil && row.Authenticator.Lost:
		return Device{}, errGone()
	case err != nil:
		return Device{}, fmt.Errorf("phone: %w", err)
	}
	key, err := ParseKey(row.PushDevice.PublicKey)
	if err != nil {
		return Device{}, fmt.Errorf("key of the phone %s: %w", id, err)
	}
	d := Device{
		ID: id, Name: row.Authenticator.Name, UserID: row.PushDevice.UserID, User: row.UserName, Key: key, Address: address,
		Standalone: row.PushDevice.Standalone, Notify: len(row.PushDevice.Subscription) > 0, Verifies: len(row.PushDevice.Credential) > 0,
		CreatedAt: row.PushDevice.CreatedAt, seenAt: row.PushDevice.SeenAt, credential: row.PushDevice.Credential,
	}
	if row.Disabled {
		return d, errDisabled()
	}
	return d, nil
}

// Seen notes that the phone was there, at most once a minute.
func (s *Service) Seen(ctx context.Context, d Device) error {
	now := s.now()
	if now-d.seenAt < time.Minute.Microseconds() {
		return nil
	}
	return s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SeePushDevice(ctx, db.SeePushDeviceParams{ID: d.ID, At: now})
		return err
	})
}

// People is the address of the people's door.
func (s *Service) People(ctx context.Context, q *db.Queries) (string, error) {
	return settings.People(ctx, q, s.PeopleURL)
}

// serverName is what a phone calls the server: its host.
func serverName(people string) string { return strings.TrimPrefix(people, "https://") }

// wantsVerification tells whether the policy asks the phone to prove who holds it.
func wantsVerification(p *policy.Policy) bool { return p != nil && p.PushVerification }

// Account tells a phone what it is to the server.
func (s *Service) Account(ctx context.Context, d Device) (Account, error) {
	out := Account{Device: d.ID, User: d.User, Name: d.Name, Verification: d.Verifies, Notify: d.Notify}
	err := s.Store.Read(ctx, func(q *store.Queries) error {
		people, err := s.People(ctx, q)
		if err != nil {
			return err
		}
		out.Server = serverName(people)
		p, err := facts.PolicyOf(ctx, q, d.UserID)
		if err != nil {
			return err
		}
		out.Wanted = wantsVerification(p)
		out.Locked, err = locked(ctx, q, d.UserID)
		return err
	})
	if err != nil {
		return out, err
	}
	out.VAPID, err = s.VAPIDKey(ctx)
	return out, err
}

func locked(ctx context.Context, q *db.Queries, userID string) (bool, error) {
	_, err := q.GetPushLock(ctx, userID)
	if store.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Open are the user's requests that wait for an answer, as this phone is shown them.
func (s *Service) Open(ctx context.Context, d Device) (Requests, error) {
	out := Requests{Requests: []Request{}, Time: s.Clock.Now().Unix()}
	err := s.Store.Read(ctx, func(q *store.Queries) error {
		var err error
		if out.Locked, err = locked(ctx, q, d.UserID); err != nil {
			return err
		}
		rows, err := open(ctx, q, d.UserID, s.now())
		if err != nil {
			return err
		}
		out.Requests = out.Requests[:0]
		for _, r := range rows {
			x := shown(r)
			if r.Verification && d.Verifies {
				if x.VerificationID, err = credentialID(d.credential); err != nil {
					return err
				}
			}
			out.Requests = append(out.Requests, x)
		}
		return nil
	})
	return out, err
}

// shown is a request as a phone is shown it.
func shown(r db.PushRequest) Request {
	return Request{
		ID: r.ID, Content: r.Content, Nonce: r.Nonce, Digits: 2, At: clock.FromMicros(r.CreatedAt).Unix(), Expires: clock.FromMicros(r.ExpiresAt).Unix(),
		Verification: r.Verification,
	}
}

// ── enrolment ──

// codeLength of a code in octets.
const codeLength = 20

// CodeLife is how long the code of an enrolment is good.
const CodeLife = 10 * time.Minute

// NewCode makes the code of an enrolment and what is stored of it.
func (s *Service) NewCode() (code string, hash []byte, err error) {
	b, err := s.random(codeLength)
	if err != nil {
		return "", nil, err
	}
	code = encode(b)
	return code, CodeHash(code), nil
}

// CodeHash is what is stored of a code. It holds 160 random bits: nobody tries it out.
func CodeHash(code string) []byte {
	h := sha256.Sum256([]byte("latchkey/push-enrolment/1\x00" + code))
	return h[:]
}

// Link is what the QR code of an enrolment holds.
func Link(people, code string) string { return people + "/authenticator/#e=" + code }

// platforms are the words that a phone may say of itself; anything else is "".
var platforms = []string{"Android", "iOS", "desktop"}

// Judge judges the body of an enrolment and gives the phone's key in DER. The phone has
// proven that it holds the private half.
func (a *EnrolAsk) Judge() ([]byte, error) {
	if b, err := decode(a.Code); err != nil || len(b) != codeLength {
		return nil, errCode()
	}
	der, err := decode(a.PublicKey)
	if err != nil {
		return nil, refuse(422, "invalid", "The key of the phone is not of the documented form.").because(err)
	}
	key, err := ParseKey(der)
	if err != nil {
		return nil, refuse(422, "invalid", "The key of the phone is not of the documented form.").because(err)
	}
	if !key.Verify(EnrolMessage(a.Code, a.PublicKey), a.Proof) {
		return nil, refuse(422, "signature", "The phone has not proven that the key is its own.")
	}
	if a.Name == "" {
		a.Name = a.Agent
	}
	if a.Name = text.CleanN(a.Name, text.MaxName); a.Name == "" {
		a.Name = "Phone"
	}
	if !slices.Contains(platforms, a.Platform) {
		a.Platform = ""
	}
	return der, nil
}

// ErrCode is for whoever brings a code that counts no more.
func ErrCode() error { return errCode() }

func errCode() *Refusal {
	return refuse(403, "code", "This code is unknown, used or older than ten minutes. Ask the portal for a new one.")
}

// Redeem finds the enrolment that the code is for, if it still may be used: nothing of
// the user's factors or password has changed since.
func (s *Service) Redeem(ctx context.Context, tx *store.Tx, code string) (db.PushEnrolment, db.User, error) {
	e, err := tx.FindPushEnrolment(ctx, CodeHash(code))
	switch {
	case store.IsNotFound(err):
		return e, db.User{}, errCode()
	case err != nil:
		return e, db.User{}, fmt.Errorf("find an enrolment: %w", err)
	}
	u, err := tx.GetUser(ctx, e.UserID)
	if err != nil {
		return e, u, fmt.Errorf("user of an enrolment: %w", err)
	}
	if now := s.now(); e.UsedAt != 0 || now >= e.ExpiresAt || ahead(e.CreatedAt, now) || u.PasswordGeneration != e.Generation {
		return e, u, errCode()
	}
	if u.Disabled {
		return e, u, errDisabled()
	}
	return e, u, nil
}

// Add makes the phone of a redeemed enrolment, whose code is spent by this. The caller
// has judged and counted what the user has.
func (s *Service) Add(ctx context.Context, tx *store.Tx, e db.PushEnrolment, a EnrolAsk, der []byte) (id string, err error) {
	id = store.NewID()
	now := s.now()
	n, err := tx.SpendPushEnrolment(ctx, db.SpendPushEnrolmentParams{ID: e.ID, DeviceID: id, At: now})
	if err != nil {
		return "", fmt.Errorf("spend an enrolment: %w", err)
	}
	if n != 1 {
		return "", errCode()
	}
	if err := tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{
		ID: id, UserID: e.UserID, Kind: string(policy.Push), Name: a.Name, Params: "{}", ConfirmedAt: now, CreatedAt: now,
	}); err != nil {
		return "", fmt.Errorf("add a phone: %w", err)
	}
	err = tx.InsertPushDevice(ctx, db.InsertPushDeviceParams{
		AuthenticatorID: id, UserID: e.UserID, PublicKey: der, Platform: a.Platform, Standalone: a.Standalone, CreatedAt: now, SeenAt: now,
	})
	if err != nil {
		return "", fmt.Errorf("add a phone: %w", err)
	}
	return id, nil
}

// Welcome completes what an enrolled phone is told; behind the commit.
func (s *Service) Welcome(ctx context.Context, out *Enrolled, userID string) error {
	err := s.Store.Read(ctx, func(q *store.Queries) error {
		var err error
		if out.People, err = s.People(ctx, q); err != nil {
			return err
		}
		p, err := facts.PolicyOf(ctx, q, userID)
		out.Verification = wantsVerification(p)
		return err
	})
	if err != nil {
		return err
	}
	out.Server, out.Poll = serverName(out.People), int(PollTime/time.Second)
	out.VAPID, err = s.VAPIDKey(ctx)
	return err
}

// PollTime is how long a poll may hang.
const PollTime = 25 * time.Second

// ── where a phone is told to look ──

// Subscribe notes the phone's push service.
func (s *Service) Subscribe(ctx context.Context, d Device, in Subscription) error {
	var by *outlet
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		by, err = s.outlet(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	if err := in.judge(by.Delivery); err != nil {
		return err
	}
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	sealed := s.Box.Seal(b, subscriptionPlace(d.ID)...)
	return s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SetPushSubscription(ctx, db.SetPushSubscriptionParams{ID: d.ID, Subscription: sealed, At: s.now()})
		return err
	})
}

// Unsubscribe forgets it.
func (s *Service) Unsubscribe(ctx context.Context, d Device) error {
	return s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SetPushSubscription(ctx, db.SetPushSubscriptionParams{ID: d.ID})
		return err
	})
}

func subscriptionPlace(id string) []string { return []string{"push_devices", "subscription", id} }

// judge bounds a subscription.
func (in Subscription) judge(d Delivery) error {
	if err := d.endpoint(in.Endpoint); err != nil {
		return refuse(422, "endpoint", "This server sends to push services of the public internet alone: "+err.Error()+". The app looks by itself while it is open.")
	}
	if k, err := decode(strings.TrimRight(in.P256DH, "=")); err != nil || len(k) != 65 {
		return refuse(422, "invalid", "The key of the subscription is not of the documented form.")
	} else if err := onCurve(k); err != nil {
		return refuse(422, "invalid", "The key of the subscription is not of the documented form.").because(err)
	}
	if k, err := decode(strings.TrimRight(in.Auth, "=")); err != nil || len(k) != 16 {
		return refuse(422, "invalid", "The secret of the subscription is not of the documented form.")
	}
	return nil
}

// ErrFull is for whoever has too many authenticators.
func ErrFull(n int) error {
	return fault.Newf(fault.Conflict, "There are %d authenticators already, and no more are allowed. Remove one that is not used, then enrol again.", n)
}
