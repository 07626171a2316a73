package fill

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/post"
)

// has tells whether the user of that place has one of every so many. Who is named first has none of these: others rely on that
// they sign in with an app. The usual one has all.
func (w *world) has(i, every, of int) bool { return i == w.Users/2 || i > usual && i%every == of }

// who are the places of those who have it.
func (w *world) who(every, of int) (out []int) {
	for i := range w.Users {
		if w.has(i, every, of) {
			out = append(out, i)
		}
	}
	return out
}

// strong are phones with what they were asked, passkeys, codes by mail and text message with the queue, and certificates.
func (w *world) strong(ctx context.Context) error {
	for _, do := range []func(context.Context) error{w.phones, w.passkeys, w.messages, w.certificates} {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

const authenticatorColumns = "id, user_id, kind, name, secret, params, step, drift, confirmed_at, last_used_at, lost, created_at, parent"

// phones: a third has one, with an app on it, and was asked several times within the two days for which that is kept.
func (w *world) phones(ctx context.Context) error {
	app, err := json.Marshal(app)
	if err != nil {
		return err
	}
	who, began := w.who(3, 1), w.began()
	phone := func(i int) string { return id(began+int64(i), kindPhone, i) }
	err = w.table(ctx, "authenticators", authenticatorColumns, counted(2*len(who), func(k int) ([]any, error) {
		i, lost := who[k/2], who[k/2]%250 == 1
		if k%2 == 0 {
			return []any{phone(i), w.userID(i), string(policy.Push), "Chrome on Android", nil, "{}", 0, 0, began, w.now() - int64(i%86400)*1e6, lost, began, nil}, nil
		}
		own := id(began+int64(i), kindPhoneApp, i)
		return []any{
			own, w.userID(i), string(policy.TOTP), "Chrome on Android", w.box.Seal(w.Key.Reveal(), "authenticators", "secret", own), string(app), 0, 0, began, 0, lost, began, phone(i),
		}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "push_devices", "authenticator_id, user_id, public_key, platform, standalone, subscription, subscribed_at, created_at, seen_at", counted(len(who), func(k int) ([]any, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, err
		}
		i, subscribed := who[k], began
		sub := w.box.Seal([]byte(`{"endpoint":"https://push.example.org/","p256dh":"","auth":""}`), "push_devices", "subscription", phone(i))
		if i%4 == 0 {
			sub, subscribed = nil, 0
		}
		return []any{phone(i), w.userID(i), der, []string{"Android", "iOS"}[i%2], i%3 > 0, sub, subscribed, began, w.now() - int64(i%9000)*1e6}, nil
	}))
	if err != nil {
		return err
	}
	hash := make([]byte, 32)
	err = w.table(ctx, "push_requests", "id, user_id, ticket, door, machine_id, machine, scope, service, address, content, nonce, number_hash, state, reason, device_id, created_at, expires_at, told_at, answered_at",
		counted(6*len(who), func(k int) ([]any, error) {
			i, at := who[k%len(who)], w.now()-120e6-int64(k)*172_000e6/int64(6*len(who)+1)
			state, reason, answered := "spent", "", at+9e6
			switch {
			case k%17 == 3:
				state, answered = "expired", 0
			case k%90 == 5:
				state, reason = "denied", "push-denied"
			}
			m := i % w.Machines
			return []any{
				id(at, kindRequest, k), w.userID(i), id(at, kindConversation, k), "machine", w.machineID(m), machineName(m), "logon", "gdm-password", "",
				fmt.Sprintf(`{"machine":%q,"place":"at the machine itself","address":"","scope":"logon","service":"gdm-password","door":"machine","user":%q,"at":%d,"expires":%d,"nonce":"n"}`,
					machineName(m), userName(i), at/1e6, at/1e6+60), "n", hash, state, reason, phone(i), at, at + 60e6, at + 1e5, answered,
			}, nil
		}))
	if err != nil {
		return err
	}
	locked := len(who)/300 + 1
	return w.table(ctx, "push_locks", "user_id, reason, at", counted(locked, func(k int) ([]any, error) {
		return []any{w.userID(who[k*len(who)/locked]), "push-reported", w.now() - int64(k)*3600e6}, nil
	}))
}

// passkeys: a fifth has one, some of them two.
func (w *world) passkeys(ctx context.Context) error {
	who, began := w.who(5, 2), w.began()
	n := len(who) + len(who)/4
	key := func(k int) string { return id(began+int64(k), kindPasskey, k) }
	err := w.table(ctx, "authenticators", authenticatorColumns, counted(n, func(k int) ([]any, error) {
		return []any{key(k), w.userID(who[k%len(who)]), string(policy.FIDO2), []string{"Security key", "This device", "Passkey"}[k%3], nil, "{}", 0, 0, began, w.now() - int64(k%86400)*1e6, k%400 == 9, began, nil}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "passkeys", "authenticator_id, user_id, credential_id, public_key, rp_id, aaguid, transports, attachment, sign_count, verifies_user, backup_eligible, discoverable", counted(n, func(k int) ([]any, error) {
		return []any{
			key(k), w.userID(who[k%len(who)]), fmt.Appendf(nil, "%064d", k), fmt.Appendf(nil, "%077d", k), "latchkey.example.org", "ee882879-721c-4913-9775-3dfcce97072a",
			`["usb","nfc"]`, "cross-platform", k % 5000, k%2 == 0, k%3 == 2, k%3 > 0,
		}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "passkey_users", "user_id, handle, created_at", counted(len(who), func(k int) ([]any, error) {
		return []any{w.userID(who[k]), fmt.Appendf(nil, "%064d", k), began}, nil
	}))
	if err != nil {
		return err
	}
	return w.table(ctx, "passkey_uses", "machine_id, authenticator_id, at", counted(len(who), func(k int) ([]any, error) {
		return []any{w.machineID(who[k] % w.Machines), key(k), w.now() - int64(k)*1e6}, nil
	}))
}

// messages: a tenth gets codes by mail, another by text message; a message has gone to everybody within the day for which it is
// kept, some could not be delivered, and some wait.
func (w *world) messages(ctx context.Context) error {
	began, now := w.began(), w.now()
	for c, channel := range []string{string(policy.Mail), string(policy.SMS)} {
		who := w.who(10, 3+c)
		err := w.table(ctx, "authenticators", authenticatorColumns, counted(len(who), func(k int) ([]any, error) {
			i := who[k]
			to := userName(i) + "@example.org"
			if channel == string(policy.SMS) {
				to = fmt.Sprintf("+4366012%06d", i)
			}
			return []any{id(began+int64(i), byte(kindMail+c), i), w.userID(i), channel, post.Mask(channel, to), nil, post.ParamsOf(to), 0, 0, began, 0, false, began, nil}, nil
		}))
		if err != nil {
			return err
		}
	}
	channel := func(k int) string {
		if k%4 == 0 {
			return rest.ChannelSMS
		}
		return rest.ChannelMail
	}
	waiting, failed := w.Users/200, w.Users/20
	err := w.table(ctx, "outbox", "id, channel, purpose, urgent, user_id, subject, mask, body, state, tries, reason, due_at, expires_at, created_at, done_at", counted(w.Users+failed+waiting, func(k int) ([]any, error) {
		i := k % w.Users
		at, state, reason, tries, done, body := now-int64(k%86000)*1e6, rest.MessageSent, "", 1, int64(0), []byte(nil)
		switch {
		case k < w.Users:
			done = at + 2e6
		case k < w.Users+failed:
			state, reason, tries, at = rest.MessageFailed, "refused", 8, now-int64(k%1_200_000)*1e6
			done = at + 3600e6
		default: // for tomorrow, so that nothing is tried now
			state, body, tries, at = rest.MessageWaiting, make([]byte, 400), 0, now-60e6
		}
		due := at
		if state == rest.MessageWaiting {
			due = now + 86400e6
		}
		return []any{
			id(at, kindMessage, k), channel(k), "code", k%2 == 0, w.userID(i), userName(i), "a***@example.org", body, state, tries, reason, due, due + 86400e6, at, done,
		}, nil
	}))
	if err != nil {
		return err
	}
	hash := make([]byte, 32)
	return w.table(ctx, "post_codes", "id, user_id, kind, ticket, hash, place, door, machine_id, tries, created_at, expires_at, used_at", counted(w.Users/2, func(k int) ([]any, error) {
		at, used := now-int64(k%86000)*1e6, int64(0)
		if k%5 > 0 {
			used = at + 20e6
		}
		i := k * 2 % w.Users
		return []any{
			id(at, kindPostCode, k), w.userID(i), channel(k), id(at, kindConversation, k), hash, fmt.Appendf(nil, "%032d", i), "machine", w.machineID(i % w.Machines), 1, at, at + 600e6, used,
		}, nil
	}))
}

// certificates: half of all have one that is good and two older ones, of which every other was revoked: as many as half of all
// users are in the revocation list.
func (w *world) certificates(ctx context.Context) error {
	day := int64(86400e6)
	revoked := w.Users / 2
	over := func(k int) bool { return k%3 > 0 }
	err := w.table(ctx, "user_certificates", "serial, user_id, machine_id, name, key_class, not_before, not_after, created_at, revoked_at, reason, fingerprint, last_used_at, last_address",
		counted(w.Users/2*3, func(k int) ([]any, error) {
			i := k / 3 * 2 % w.Users
			from, at, why := w.now()-int64(k%3)*30*day, int64(0), ""
			if over(k) && k/3 < revoked/2 {
				at, why = from+day, ca.Unspecified
			}
			return []any{
				serial(k), w.userID(i), w.machineID(i % w.Machines), "", []string{"file", "tpm", "request"}[k%3], from, from + 90*day, from, at, why, fmt.Sprintf("%064x", k), from + day, "10.1.2.3",
			}, nil
		}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "revocations", "serial, number, revoked_at, not_after, reason", counted(revoked/2*2, func(n int) ([]any, error) {
		k := n/2*3 + 1 + n%2
		from := w.now() - int64(k%3)*30*day
		return []any{serial(k), n + 1, from + day, from + 90*day, ca.Unspecified}, nil
	}))
	if err != nil {
		return err
	}
	return w.exec(ctx, "INSERT INTO counters (name, value) VALUES ('revocations', $1)", int64(revoked/2*2))
}

func serial(k int) string { return fmt.Sprintf("7%031x", k) }
