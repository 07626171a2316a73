package vault

import (
	"context"
	"crypto/rand"
	"net"
	"testing"

	"latchkey/internal/agent/key"
	"latchkey/internal/assertion"
	"latchkey/internal/assertion/softkey"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

type fingers struct{ pin string }

func (fingers) Insert() {}
func (fingers) Touch()  {}
func (f fingers) PIN(context.Context, int) (secret.Bytes, error) {
	return secret.FromString(f.pin), nil
}

// touch has the key answer a nonce, as the sign-in would ask for it.
func (r *rig) touch(k *softkey.Key, ids [][]byte, nonce []byte, verify bool) *KeyGiven {
	r.Helper()
	keys := &key.Keys{Clock: clock.Real, Find: func() ([]key.Port, error) {
		here, there := net.Pipe()
		go k.Serve(there)
		return []key.Port{key.Over(here)}, nil
	}}
	a, err := keys.Assert(context.Background(), key.Ask{
		RPID: rpID, ClientHash: assertion.OfflineHash(nonce, machineID, userID), Credentials: ids, Verification: verify,
	}, fingers{k.PIN})
	ok(r, err)
	return &KeyGiven{Nonce: nonce, Answer: a}
}

func fresh(t testing.TB) []byte {
	b := make([]byte, assertion.NonceSize)
	_, err := rand.Read(b)
	ok(t, err)
	return b
}

func (r *rig) keyed(pw secret.Bytes, g *KeyGiven, codes ...secret.Bytes) (bool, string) {
	r.Helper()
	d, f := r.decide(policy.Logon)
	if d.Outcome != policy.MFAOffline {
		return false, string(d.Reason)
	}
	if codes == nil {
		codes = []secret.Bytes{{}}
	}
	res, err := r.v.Attempt(context.Background(), Attempt{
		User: f.User, Decision: d, Password: pw, Codes: codes, Key: g, Event: event.Event{UserID: userID, Subject: "anna"},
	})
	ok(r, err)
	return res.OK, res.Reason
}

func TestM2ASecurityKeyOpensTheMachineOffline(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		k := &softkey.Key{PIN: "1234"}
		id, cose := k.Register(rpID)
		r.srv.keys = []wire.KeyHeld{{ID: "key1", Credential: id, Public: cose}}
		r.sync()
		r.enrol()
		_, f := r.decide(policy.Logon)
		if f.Keys.RPID != rpID || len(f.Keys.Credentials) != 1 {
			t.Fatalf("%+v", f.Keys)
		}
		want := func(wantOK bool, wantReason string, pw secret.Bytes, g *KeyGiven) {
			t.Helper()
			if got, reason := r.keyed(pw, g); got != wantOK || reason != wantReason {
				t.Fatalf("%v, %q; want %v, %q", got, reason, wantOK, wantReason)
			}
		}
		g := r.touch(k, f.Keys.Credentials, fresh(t), false)
		want(false, WrongPassword, wrong, g)
		want(true, OK, password, g)
		// The same answer is for another attempt's nonce, and its counter is used.
		want(false, KeyCloned, password, g)
		again := r.touch(k, f.Keys.Credentials, fresh(t), false)
		again.Nonce = fresh(t)
		want(false, KeyWrong, password, again)
		r.restart()
		want(true, OK, password, r.touch(k, f.Keys.Credentials, fresh(t), false))
		k.Turn(0) // a copy, made before it was used here
		want(false, KeyCloned, password, r.touch(k, f.Keys.Credentials, fresh(t), false))
		// Somebody else's key.
		other := &softkey.Key{}
		strange, _ := other.Register(rpID)
		want(false, KeyWrong, password, r.touch(other, [][]byte{strange}, fresh(t), false))
		// A key without the code that it stands for.
		want(false, WrongCode, password, nil)
	})
}

func TestM2ThePolicyMayWantThePINOfAKey(t *testing.T) {
	r := newRig(t, false)
	k := &softkey.Key{PIN: "1234"}
	id, cose := k.Register(rpID)
	r.srv.keys, r.srv.pol.KeyVerification = []wire.KeyHeld{{ID: "key1", Credential: id, Public: cose}}, true
	r.sync()
	r.enrol()
	if got, reason := r.keyed(password, r.touch(k, [][]byte{id}, fresh(t), false)); got || reason != KeyWrong {
		t.Fatal(got, reason)
	}
	if got, reason := r.keyed(password, r.touch(k, [][]byte{id}, fresh(t), true)); !got {
		t.Fatal(reason)
	}
}

func TestAKeyAndACodeAreTwoFactors(t *testing.T) {
	r := newRig(t, false)
	k := &softkey.Key{}
	id, cose := k.Register(rpID)
	r.srv.keys, r.srv.pol.FactorsOffline = []wire.KeyHeld{{ID: "key1", Credential: id, Public: cose}}, 2
	r.sync()
	r.enrol()
	g := r.touch(k, [][]byte{id}, fresh(t), false)
	if got, reason := r.keyed(password, g, secret.Bytes{}, secret.Bytes{}); got {
		t.Fatal("one key is taken for two factors", reason)
	}
	if got, reason := r.keyed(password, r.touch(k, [][]byte{id}, fresh(t), false), secret.Bytes{}, r.code()); !got {
		t.Fatal(reason)
	}
}
