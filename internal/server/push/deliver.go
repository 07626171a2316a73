package push

import (
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/outward"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// A notice goes to the phone's push service (Web Push: RFC 8030, encrypted for the phone
// by RFC 8291, and with this server's name by RFC 8292). The address comes from the
// phone, so a request to it is one that somebody else has chosen: it goes to public
// addresses alone, and its answer is looked at for its status and nothing else.

// Delivery bounds where notices go, as far as the settings do not say it.
type Delivery struct {
	// Private are networks that may be reached although they are not public: a push
	// service of one's own.
	Private []netip.Prefix
	// Proxy is where notices go through; nil: straight. What the proxy reaches is its
	// business: then only the name is judged here.
	Proxy *url.URL
	// Roots are the authorities of a push service of one's own; nil: the system's.
	Roots *x509.CertPool
}

const (
	// sendTime bounds one attempt.
	sendTime = 5 * time.Second
	// sendTries is how often it is attempted.
	sendTries = 3
	// outbox is how old a request may be that is told of: phones that are told later
	// come too late.
	outboxAge = 2 * time.Minute
)

// endpoint judges where a subscription leads, as far as that is seen without asking
// anybody. The address behind the name is judged when it is dialled.
func (d Delivery) endpoint(s string) error {
	if len(s) > 1024 || !oneLine(s, 1024) {
		return errors.New("the address is too long")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return errors.New("the address is no URL")
	case u.Scheme != "https":
		return errors.New("the address does not begin with https://")
	case u.User != nil || u.Fragment != "":
		return errors.New("the address holds more than host, path and query")
	}
	host := outward.Host(u)
	if a, err := netip.ParseAddr(host); err == nil {
		if !outward.In(d.Private, a) {
			return errors.New("the address is a number and no name")
		}
		return nil
	}
	if !outward.PlainName(host) {
		return errors.New("the address is neither a name nor a number")
	}
	if outward.InnerName(host) {
		if len(d.Private) == 0 || d.Proxy != nil {
			return errors.New("the name is one of a private network")
		}
		return nil // the address behind it is judged
	}
	// A port of a name that leads into a network of one's own is judged with the address.
	if p := u.Port(); p != "" && p != portHTTPS && (len(d.Private) == 0 || d.Proxy != nil) {
		return errors.New("the port is not that of HTTPS")
	}
	return nil
}

const portHTTPS = "443"

// rules are those of the client. In a network of one's own any port may be the push
// service's; elsewhere it is that of HTTPS.
func (d Delivery) rules() outward.Rules {
	return outward.Rules{Private: d.Private, OnlyHTTPS: true, Proxy: d.Proxy, Roots: d.Roots, Timeout: sendTime, Conns: perService}
}

// outlet is how notices go out now.
type outlet struct {
	Delivery
	key    string
	client *http.Client
}

// outlet makes one when the settings have changed.
func (s *Service) outlet(ctx context.Context, q *db.Queries) (*outlet, error) {
	o, err := settings.ReadOutward(ctx, q, settings.Outward{Proxy: s.Delivery.Proxy, Push: s.Delivery.Private})
	if err != nil {
		return nil, err
	}
	key := fmt.Sprint(o.Proxy, o.Push)
	s.outletMu.Lock()
	defer s.outletMu.Unlock()
	if s.out == nil || s.out.key != key {
		d := Delivery{Private: o.Push, Proxy: o.Proxy, Roots: s.Delivery.Roots}
		s.out = &outlet{Delivery: d, key: key, client: d.rules().Client()}
	}
	return s.out, nil
}

// Run tells phones to look, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	woken, unhear := s.Store.Watch(wakeOutbox)
	defer unhear()
	out := &lanes{ctx: ctx, send: s.deliver, log: s.Log}
	defer out.work.Wait()
	for !ended(ctx) {
		s.tell(ctx, out)
		select {
		case _, ok := <-woken:
			if !ok {
				return
			}
		case <-s.Clock.After(time.Minute): // what another server has begun and not finished
		case <-ctx.Done():
			return
		}
	}
}

// tell takes what nobody has told of yet.
func (s *Service) tell(ctx context.Context, out *lanes) {
	since := clock.Micros(s.Clock.Now().Add(-outboxAge))
	for !ended(ctx) {
		var rows []db.ListUntoldPushRequestsRow
		err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
			rows, err = q.ListUntoldPushRequests(ctx, since)
			return err
		})
		if err != nil || len(rows) == 0 {
			if err != nil && !ended(ctx) {
				s.Log.WarnContext(ctx, "phones can not be told to look", "error", err)
			}
			return
		}
		var mine []db.ListUntoldPushRequestsRow
		err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			mine = mine[:0]
			for _, r := range rows {
				n, err := tx.TellPushRequest(ctx, db.TellPushRequestParams{ID: r.ID, At: s.now()})
				if err != nil {
					return err
				}
				if n == 1 {
					mine = append(mine, r)
				}
			}
			return nil
		})
		if err != nil {
			s.Log.WarnContext(ctx, "phones can not be told to look", "error", err)
			return
		}
		for _, r := range mine {
			s.tellPhones(ctx, r, out)
		}
	}
}

func (s *Service) tellPhones(ctx context.Context, r db.ListUntoldPushRequestsRow, out *lanes) {
	var devices []db.ListPushDevicesRow
	var people string
	var by *outlet
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		if by, err = s.outlet(ctx, q); err != nil {
			return err
		}
		if people, err = s.People(ctx, q); err != nil {
			return err
		}
		devices, err = q.ListPushDevices(ctx, r.UserID)
		return err
	})
	if err != nil {
		s.Log.WarnContext(ctx, "phones can not be told to look", "error", err)
		return
	}
	for _, d := range devices {
		if d.Authenticator.Lost || len(d.PushDevice.Subscription) == 0 {
			continue
		}
		plain, err := s.Box.Open(d.PushDevice.Subscription, subscriptionPlace(d.PushDevice.AuthenticatorID)...)
		n := notice{request: r, device: d.PushDevice, people: people, by: by, since: s.now()}
		if err == nil {
			err = json.Unmarshal(plain.Reveal(), &n.to)
		}
		u, bad := url.Parse(n.to.Endpoint)
		if err != nil || bad != nil {
			s.Log.ErrorContext(ctx, "a phone's subscription can not be opened", "device", d.PushDevice.AuthenticatorID, "error", errors.Join(err, bad))
			continue
		}
		out.put(strings.ToLower(u.Host), n)
	}
}

// stale is how long a notice may have stood in its queue before it is looked whether its
// request still waits.
const stale = time.Second

// deliver sends one notice, and tells what the push service did at last. What can not be
// sent is no harm: the app looks by itself while it is open.
func (s *Service) deliver(ctx context.Context, n notice) (came outcome) {
	r, d := n.request, n.device
	log := s.Log.With("device", d.AuthenticatorID)
	for try := range sendTries {
		now := s.now()
		left := time.Duration(r.ExpiresAt-now) * time.Microsecond
		if left <= 0 || (try > 0 || now-n.since > stale.Microseconds()) && !s.waits(ctx, r.ID) {
			return came
		}
		status, err := s.send(ctx, n, left)
		if came = wasAnswered; err != nil {
			came = wasSilent
		}
		switch {
		case err == nil && status/100 == 2:
			return came
		case status == http.StatusNotFound || status == http.StatusGone:
			s.dropSubscription(ctx, d)
			return came
		case err == nil && status != http.StatusTooManyRequests && status/100 != 5:
			log.WarnContext(ctx, "the push service does not take a notice", "status", status)
			return came
		case try == sendTries-1:
			log.WarnContext(ctx, "a phone could not be told to look", "status", status, "error", err)
			return came
		}
		select {
		case <-s.Clock.After(time.Duration(1+2*try) * time.Second):
		case <-ctx.Done():
			return came
		}
	}
	return came
}

// waits tells whether the request still waits for an answer. Where that can not be known
// it does.
func (s *Service) waits(ctx context.Context, id string) bool {
	var r db.PushRequest
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		r, err = q.GetPushRequest(ctx, id)
		return err
	})
	return !store.IsNotFound(err) && (err != nil || r.State == StateOpen)
}

func (s *Service) send(ctx context.Context, n notice, left time.Duration) (int, error) {
	r, d, sub := n.request, n.device, n.to
	// What was allowed when it was noted may not be any more.
	if err := n.by.endpoint(sub.Endpoint); err != nil {
		return http.StatusGone, err
	}
	v, err := s.vapidKeys(ctx)
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(Notice{Device: d.AuthenticatorID, Request: r.ID, Expires: clock.FromMicros(r.ExpiresAt).Unix()})
	if err != nil {
		return 0, err
	}
	topic := sha256.Sum256([]byte(r.ID))
	ctx, done := context.WithTimeout(ctx, sendTime)
	defer done()
	answer, err := webpush.SendNotificationWithContext(ctx, body, &webpush.Subscription{
		Endpoint: sub.Endpoint, Keys: webpush.Keys{Auth: sub.Auth, P256dh: sub.P256DH},
	}, &webpush.Options{
		HTTPClient: n.by.client, RecordSize: recordSize, Subscriber: n.people, Topic: encode(topic[:])[:32], TTL: int(left/time.Second) + 1, Urgency: webpush.UrgencyHigh,
		VAPIDPublicKey: v.Public, VAPIDPrivateKey: encode(v.private.Bytes()),
	})
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 4<<10))
	return answer.StatusCode, answer.Body.Close()
}

// recordSize of the encrypted notice: all are of one length.
const recordSize = 512

// dropSubscription forgets an address that is gone, unless a new one has come.
func (s *Service) dropSubscription(ctx context.Context, d db.PushDevice) {
	err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.DropPushSubscription(ctx, db.DropPushSubscriptionParams{ID: d.AuthenticatorID, At: d.SubscribedAt})
		if err != nil || n == 0 {
			return err
		}
		row, err := tx.GetPushDevice(ctx, d.AuthenticatorID)
		if err != nil {
			return err
		}
		return note(tx, event.Event{Type: event.PushUnreachable, Actor: "server", Subject: row.UserName, UserID: d.UserID, Factor: string(policy.Push)}, map[string]any{
			"authenticator": rest.FactorPrefix + d.AuthenticatorID, "name": row.Authenticator.Name,
		})
	})
	if err != nil && !ended(ctx) {
		s.Log.WarnContext(ctx, "a subscription that is gone could not be forgotten", "error", err)
	}
}

// ── this server's name to push services ──

const settingVAPID = "push.vapid"

// vapid is the key pair of RFC 8292. Subscriptions are bound to it.
type vapid struct {
	Public  string
	private *ecdh.PrivateKey
}

// VAPIDKey is the public half, as subscriptions want it.
func (s *Service) VAPIDKey(ctx context.Context) (string, error) {
	v, err := s.vapidKeys(ctx)
	if err != nil {
		return "", err
	}
	return v.Public, nil
}

// vapidKeys makes the pair when it is first needed. Of two replicas one makes it.
func (s *Service) vapidKeys(ctx context.Context) (*vapid, error) {
	s.vapidOnce.Lock()
	defer s.vapidOnce.Unlock()
	if s.vapid != nil {
		return s.vapid, nil
	}
	read := func() (sealed []byte, err error) {
		err = s.Store.Read(ctx, func(q *store.Queries) error {
			sealed, err = q.GetSetting(ctx, settingVAPID)
			return err
		})
		return sealed, err
	}
	sealed, err := read()
	if store.IsNotFound(err) {
		var k *ecdh.PrivateKey
		if k, err = ecdh.P256().GenerateKey(s.Random); err != nil {
			return nil, fmt.Errorf("make a key for push services: %w", err)
		}
		err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.InitSetting(ctx, db.InitSettingParams{Key: settingVAPID, Value: s.Box.Seal(k.Bytes(), "settings", "value", settingVAPID), UpdatedAt: s.now()})
			return err
		})
		if err == nil {
			sealed, err = read()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key for push services: %w", err)
	}
	plain, err := s.Box.Open(sealed, "settings", "value", settingVAPID)
	if err != nil {
		return nil, fmt.Errorf("key for push services: %w", err)
	}
	defer plain.Wipe()
	k, err := ecdh.P256().NewPrivateKey(plain.Reveal())
	if err != nil {
		return nil, fmt.Errorf("key for push services: %w", err)
	}
	s.vapid = &vapid{Public: encode(k.PublicKey().Bytes()), private: k}
	return s.vapid, nil
}

func onCurve(point []byte) error {
	_, err := ecdh.P256().NewPublicKey(point)
	return err
}
