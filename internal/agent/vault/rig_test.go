package vault

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/tpm"
	"latchkey/internal/tpm/tpmtest"
	"latchkey/internal/wire"
)

const machineID, userID = "0197-machine", "0197-anna"

var (
	start    = time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)
	password = secret.FromString("correct horse battery")
	cheap    = Cost{Time: 1, Memory: 64}
)

// rig is a vault with a server of its own: the server's half of the keys, tags
// and permits, without network and tables.
type rig struct {
	testing.TB
	dir   string
	clk   *clock.Manual
	emu   *tpmtest.Emulator // nil: software class
	proxy *tpmtest.Proxy    // nil: the emulator itself
	boot  bool              // Secure Boot is on
	v     *Vault
	grant ed25519.PrivateKey
	srv   *authority
}

// authority is the server's half.
type authority struct {
	mu         sync.Mutex
	r          *rig
	permitKey  *ecdsa.PrivateKey
	pol        policy.Policy
	user       policy.User
	serial     int64
	generation uint64
	key        secret.Bytes
	spec       tpm.Spec
	class      string
	until      time.Time
	signed     map[string]bool
	ready      bool
	disenrol   bool
	lift       bool
	force      string // action instead of its own choice
	noSoftware bool   // the policy refuses offline data without a TPM
	seed       secret.Bytes
	params     otp.Params
	backup     []secret.Bytes
	keys       []wire.KeyHeld
	fail       map[string]error
}

func newRig(t testing.TB, withTPM bool) *rig {
	t.Helper()
	_, grant, err := ed25519.GenerateKey(rand.Reader)
	ok(t, err)
	permit, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	r := &rig{TB: t, dir: filepath.Join(t.TempDir(), "agent"), clk: clock.NewManual(start), grant: grant}
	p := policy.NewPolicy()
	p.ID, p.Name, p.Default = "p", "default", true
	seed := secret.New(make([]byte, 20))
	_, _ = rand.Read(seed.Reveal())
	r.srv = &authority{
		r: r, permitKey: permit, pol: p, serial: 1, seed: seed, params: otp.DefaultParams, signed: map[string]bool{}, fail: map[string]error{},
		user: policy.User{ID: userID, Name: "anna", Factors: []policy.Factor{policy.TOTP, policy.Backup}, Generation: 1},
	}
	for range 3 {
		c, err := otp.NewBackup(rand.Reader)
		ok(t, err)
		r.srv.backup = append(r.srv.backup, c)
	}
	if withTPM {
		r.emu = tpmtest.Start(t)
	}
	r.open()
	t.Cleanup(func() { r.v.Close() })
	return r
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) config() Config {
	cfg := Config{
		Dir: r.dir, MachineID: machineID, GrantKey: r.grant.Public().(ed25519.PublicKey), PermitKey: r.srv.permitKey.Public(),
		Clock: r.clk, BootID: "boot", Cost: cheap, SecureBoot: func() bool { return r.boot },
	}
	if r.emu != nil {
		spec := r.emu.Spec()
		if r.proxy != nil {
			spec = r.proxy.Spec()
		}
		d, err := tpm.OpenDevice(spec)
		ok(r, err)
		cfg.Device = d
	}
	return cfg
}

func (r *rig) open() {
	r.Helper()
	v, err := Open(context.Background(), r.config())
	ok(r, err)
	r.v = v
}

// restart is a new process over the same folder.
func (r *rig) restart() {
	r.Helper()
	ok(r, r.v.Close())
	r.open()
}

// sync is a contact with the server: policy up to date.
func (r *rig) sync() []wire.Wiped {
	r.Helper()
	w, err := r.v.ApplyPolicy(context.Background(), r.srv.policyFile())
	ok(r, err)
	return w
}

// renew is a greeting of the server, which has the journal up to seq and hash.
func (r *rig) renew(seq uint64, hash []byte) bool {
	r.Helper()
	renewed, err := r.v.Renew(context.Background(), seq, hash)
	ok(r, err)
	return renewed
}

func (r *rig) enrol() string {
	r.Helper()
	did, err := r.tryEnrol(password)
	ok(r, err)
	r.sync()
	return did
}

func (r *rig) tryEnrol(pw secret.Bytes) (string, error) {
	return r.v.Enrol(context.Background(), Offer{Conversation: "c", UserID: userID, UserName: "anna", Password: pw}, r.srv)
}

func (r *rig) code() secret.Bytes {
	return secret.FromString(r.srv.params.Code(r.srv.seed, r.srv.params.Step(r.clk.Now())))
}

func (r *rig) later() { r.clk.Advance(31 * time.Second) }

// decide asks the policy as the agent does.
func (r *rig) decide(scope policy.Scope) (policy.Decision, Facts) {
	f := r.v.Facts(context.Background(), "anna")
	return policy.Decide(policy.Request{User: "anna", Scope: scope, Service: "login", At: r.clk.Now(), Link: policy.LinkDown}, policy.Facts{
		User: f.User, NearMiss: f.NearMiss, Machine: f.Machine, Policies: f.Policies, Vault: f.Vault, VaultProblem: f.VaultProblem, PolicyProblem: f.PolicyProblem,
	}), f
}

// signin is an offline sign-in as the agent makes it; the string is the reason.
func (r *rig) signin(scope policy.Scope, pw secret.Bytes, codes ...secret.Bytes) (bool, string) {
	r.Helper()
	d, f := r.decide(scope)
	if d.Outcome != policy.MFAOffline {
		return false, string(d.Reason)
	}
	res, err := r.v.Attempt(context.Background(), Attempt{User: f.User, Decision: d, Remote: scope == policy.Remote, Password: pw, Codes: codes, Event: event.Event{UserID: userID, Subject: "anna"}})
	if err != nil {
		return false, string(ReasonOf(err))
	}
	return res.OK, res.Reason
}

func (r *rig) want(wantOK bool, wantReason string, scope policy.Scope, pw, code secret.Bytes) {
	r.Helper()
	if got, reason := r.signin(scope, pw, code); got != wantOK || reason != wantReason {
		r.Fatalf("signed in %v (%s), want %v (%s)", got, reason, wantOK, wantReason)
	}
}

func (a *authority) policyFile() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := wire.PolicyFile{
		MachineID: machineID, Serial: a.serial, IssuedAt: clock.Micros(a.r.clk.Now()), NotAfter: clock.Micros(a.r.clk.Now().Add(90 * 24 * time.Hour)),
		Machine: policy.Machine{ID: machineID, Name: "bridge", Status: "active", Mode: policy.Normal}, Policies: []policy.Policy{a.pol}, Users: []policy.User{a.user},
	}
	if a.generation != 0 && !a.disenrol {
		f.Vaults = []wire.VaultEntry{{UserID: userID, Generation: a.generation, Until: clock.Micros(a.until), Lift: a.lift}}
	}
	raw, err := json.Marshal(f)
	ok(a.r, err)
	return seal.Sign(a.r.grant, seal.Policy, machineID, raw)
}

func (a *authority) Prepare(_ context.Context, p wire.Prepare) (wire.PrepareReply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.fail["prepare"]; err != nil {
		return wire.PrepareReply{}, err
	}
	if a.noSoftware && p.Class == ClassSoftware {
		return wire.PrepareReply{Action: wire.ActionRefused, UserID: userID, Reason: string(policy.ReasonVaultSoftware)}, nil
	}
	a.until = a.r.clk.Now().Add(time.Duration(a.pol.OfflineDays) * 24 * time.Hour)
	rep := wire.PrepareReply{
		Action: wire.ActionGeneration, UserID: userID, FailLimit: uint32(a.pol.OfflineTries), UseLimit: a.uses(),
		Until: clock.Micros(a.until), UserGeneration: a.user.Generation,
	}
	a.serial++
	rep.Serial = a.serial
	if a.force != "" {
		rep.Action = a.force
	} else if a.generation != 0 && p.HaveGeneration == a.generation && a.ready {
		rep.Action, rep.Generation = wire.ActionExtend, a.generation
	}
	if rep.Action != wire.ActionGeneration {
		rep.Generation = a.generation
		return rep, nil
	}
	a.generation++
	a.ready, a.class = false, p.Class
	rep.Generation = a.generation
	if p.Class == ClassSoftware {
		a.key = seal.NewKey()
		rep.Key = wire.Hide(a.key.Clone())
		return rep, nil
	}
	parent, err := tpm.ParseParent(p.Parent)
	if err != nil {
		return rep, err
	}
	a.spec, err = tpm.NewSpec(tpm.ID{User: userID, Machine: machineID, Generation: a.generation}, a.permitKey.Public(), p.FailHandle, p.PassHandle)
	if err != nil {
		return rep, err
	}
	key, b, err := tpm.NewKey(a.spec, parent)
	a.key = key
	rep.Wrapped = &wire.Wrapped{Public: b.Public, Duplicate: b.Duplicate, Seed: b.Seed}
	return rep, err
}

// uses is the limit as the real server sets it for one authenticator.
func (a *authority) uses() uint32 {
	return uint32((a.pol.OfflineSignins + a.pol.OfflineTries) * max(1, a.pol.FactorsOffline))
}

func (a *authority) Permit(_ context.Context, p wire.PermitRequest) (wire.Permit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.fail["permit"]; err != nil {
		return wire.Permit{}, err
	}
	limit := uint32(a.pol.OfflineTries)
	kind := tpm.PasswordIndex
	if p.Kind == tpm.UseIndex.String() {
		kind, limit = tpm.UseIndex, a.uses()
	}
	if a.class == ClassSoftware {
		return wire.Permit{Limit: limit}, nil
	}
	sign := tpm.SignLift
	if !p.Written {
		name := fmt.Sprint(p.Generation, p.Kind)
		if a.signed[name] {
			return wire.Permit{}, errors.New("activation was signed before")
		}
		a.signed[name] = true
		sign = tpm.SignActivation
	}
	permit, err := sign(a.permitKey, a.spec, kind, tpm.Tally{Limit: limit}, p.Nonce, 60)
	return wire.Permit{Count: permit.Value.Count, Limit: permit.Value.Limit, Expiration: permit.Expiration, Signature: permit.Signature}, err
}

func (a *authority) Ready(context.Context, wire.Ready) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = true
	return a.fail["ready"]
}

func (a *authority) Bundle(_ context.Context, b wire.BundleRequest) (wire.BundleReply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.fail["bundle"]; err != nil {
		return wire.BundleReply{}, err
	}
	first := max(a.params.Step(a.r.clk.Now())-5, b.Have["totp1"]+1)
	tags := wire.CodeTags{ID: "totp1", Period: a.params.Period, Digits: a.params.Digits, First: first}
	for s := first; s <= a.params.Step(a.until); s++ {
		tags.Count++
		for _, o := range wire.Offsets {
			tag := wire.CodeTag(a.key, a.params.Period, s, a.params.Code(a.seed, s+o))
			tags.Tags = append(tags.Tags, tag[:]...)
		}
	}
	out := wire.Bundle{UserID: userID, MachineID: machineID, Generation: a.generation, IssuedAt: clock.Micros(a.r.clk.Now()), Until: clock.Micros(a.until), Authenticators: []wire.CodeTags{tags}}
	for i, c := range a.backup {
		tag := wire.BackupTag(a.key, c)
		out.Backup = append(out.Backup, wire.BackupTagged{ID: fmt.Sprint("backup", i), Tag: tag[:]})
	}
	if len(a.keys) > 0 {
		out.RPID, out.Keys = rpID, a.keys
	}
	raw, err := wire.EncodeBundle(out)
	return wire.BundleReply{Bundle: seal.Sign(a.r.grant, seal.Bundle, machineID, raw)}, err
}

const rpID = "latchkey.example.org"

// snapshot copies the state folder; restore puts the copy back.
func (r *rig) snapshot() map[string][]byte {
	r.Helper()
	files := map[string][]byte{}
	ok(r, filepath.Walk(r.dir, func(path string, i os.FileInfo, err error) error {
		if err != nil || i.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(r.dir, path)
		files[rel] = b
		return err
	}))
	return files
}

func (r *rig) restore(files map[string][]byte, only ...string) {
	r.Helper()
	ok(r, r.v.Close())
	if len(only) == 0 {
		ok(r, os.RemoveAll(r.dir))
	}
	for name, b := range files {
		if len(only) > 0 && !bytes.Contains([]byte(fmt.Sprint(only)), []byte(name)) {
			continue
		}
		ok(r, os.MkdirAll(filepath.Dir(filepath.Join(r.dir, name)), 0o700))
		ok(r, os.WriteFile(filepath.Join(r.dir, name), b, 0o600))
	}
	r.open()
}

// both runs a test in the software class and on an emulator.
func both(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Run("software class", func(t *testing.T) { f(t, newRig(t, false)) })
	t.Run("TPM class", func(t *testing.T) { f(t, newRig(t, true)) })
}

func formatted(c secret.Bytes) string { return otp.FormatBackup(c) }

func secretCode(s string) secret.Bytes { return secret.FromString(s) }
