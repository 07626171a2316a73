package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sample makes an identity with its key, as a server would.
func sample(t testing.TB) (*Identity, Key) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := key.Signer(nil)
	if err != nil {
		t.Fatal(err)
	}
	caT := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	ca, err := x509.CreateCertificate(rand.Reader, caT, caT, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	grant, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	permit, err := x509.MarshalPKIXPublicKey(caKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &Identity{
		MachineID: "0198c0de-0000-7000-8000-000000000001", Name: "m1", Number: 3, Server: "https://latchkey.example:8444", CA: ca,
		Certificate: certify(t, caKey, ca, signer.Public()), GrantKey: grant, PermitKey: permit,
	}, key
}

func certify(t testing.TB, caKey *ecdsa.PrivateKey, ca []byte, pub crypto.PublicKey) []byte {
	t.Helper()
	parent, err := x509.ParseCertificate(ca)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "m1"}, NotAfter: time.Now().Add(time.Hour),
	}, parent, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func folder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "agent")
	if err := Folder(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAnIdentityIsReadAsItWasWritten(t *testing.T) {
	dir := folder(t)
	if _, _, err := Load(dir, nil); !errors.Is(err, ErrNotJoined) {
		t.Fatalf("an empty folder: %v", err)
	}
	i, key := sample(t)
	if err := Save(dir, i, key); err != nil {
		t.Fatal(err)
	}
	got, signer, err := Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.MachineID != i.MachineID || got.Name != "m1" || got.Number != 3 || got.Server != i.Server || !signer.Public().(*ecdsa.PublicKey).Equal(got.MachineCertificate().PublicKey) {
		t.Errorf("%+v", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", e.Name(), st.Mode().Perm())
		}
	}
}

func TestJoiningAgainLeavesOneKey(t *testing.T) {
	dir := folder(t)
	for range 3 {
		i, key := sample(t)
		if err := Save(dir, i, key); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) != 1 {
		t.Errorf("keys: %v", keys)
	}
}

// A crash at any point between the files leaves the old identity whole.
func TestANewKeyWithoutItsIdentityChangesNothing(t *testing.T) {
	dir := folder(t)
	i, key := sample(t)
	if err := Save(dir, i, key); err != nil {
		t.Fatal(err)
	}
	for _, leftover := range []string{"machine-0123456789abcdef.key", "machine-0123456789abcdef.key.new", FileName + ".new"} {
		if err := os.WriteFile(filepath.Join(dir, leftover), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, _, err := Load(dir, nil)
	if err != nil || got.MachineID != i.MachineID {
		t.Fatalf("%v", err)
	}
}

func TestNothingIsWrittenOfAnAnswerThatDoesNotFit(t *testing.T) {
	for name, spoil := range map[string]func(*Identity){
		"no CA":                      func(i *Identity) { i.CA = nil },
		"a CA that is none":          func(i *Identity) { i.CA = i.Certificate },
		"a certificate of nobody":    func(i *Identity) { o, _ := sample(t); i.Certificate = o.Certificate },
		"a short grant key":          func(i *Identity) { i.GrantKey = i.GrantKey[:31] },
		"a permit key of no curve":   func(i *Identity) { i.PermitKey = []byte("key") },
		"an id that is a path":       func(i *Identity) { i.MachineID = "../../etc" },
		"an address in the clear":    func(i *Identity) { i.Server = "http://latchkey.example" },
		"a proxy with a password":    func(i *Identity) { i.Proxy = "http://a:b@proxy:3128" },
		"a certificate cut in half":  func(i *Identity) { i.Certificate = i.Certificate[:20] },
		"a certificate that is text": func(i *Identity) { i.Certificate = []byte("-----BEGIN") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			i, key := sample(t)
			spoil(i)
			if err := Save(dir, i, key); err == nil {
				t.Fatal("it was written")
			}
			if e, _ := os.ReadDir(dir); len(e) != 0 {
				t.Errorf("left behind: %v", e)
			}
		})
	}
}

func TestADamagedIdentityIsToldFromAbsentAndNewer(t *testing.T) {
	dir := folder(t)
	i, key := sample(t)
	if err := Save(dir, i, key); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newer := strings.Replace(string(whole), `"version": 1`, `"version": 2`, 1)
	for name, c := range map[string]struct {
		content string
		want    error
	}{
		"cut":             {string(whole[:len(whole)/2]), ErrDamaged},
		"empty":           {"", ErrDamaged},
		"newer":           {newer, ErrNewer},
		"unknown field":   {strings.Replace(string(whole), `"name"`, `"nmae"`, 1), ErrDamaged},
		"huge":            {string(whole) + strings.Repeat(" ", maxFile), ErrDamaged},
		"another's key":   {strings.Replace(string(whole), i.KeyName, "machine-0000000000000000.key", 1), ErrDamaged},
		"a key elsewhere": {strings.Replace(string(whole), i.KeyName, "../../etc/shadow", 1), ErrDamaged},
	} {
		write([]byte(c.content))
		if _, _, err := Load(dir, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(whole)
	if err := os.WriteFile(filepath.Join(dir, i.KeyName), []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(dir, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged key: %v", err)
	}
}

// The machine must go on denying with its own words while the TPM is gone (O17).
func TestAKeyInAMissingTPMFailsOnlyWhenItIsUsed(t *testing.T) {
	dir := folder(t)
	i, key := sample(t)
	key.Place = KeyTPM
	if err := Save(dir, i, key); err != nil {
		t.Fatal(err)
	}
	got, signer, err := Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !signer.Public().(*ecdsa.PublicKey).Equal(got.MachineCertificate().PublicKey) {
		t.Error("it stands for another key")
	}
	if _, err := signer.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err == nil || !strings.Contains(err.Error(), "TPM") {
		t.Errorf("it signs: %v", err)
	}
}

func TestARenewedCertificateMustBeOfTheSameKeyAndCA(t *testing.T) {
	dir := folder(t)
	i, key := sample(t)
	if err := Save(dir, i, key); err != nil {
		t.Fatal(err)
	}
	i, _, err := Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := sample(t)
	for name, der := range map[string][]byte{"another machine's": other.Certificate, "none": nil, "the CA's": i.CA} {
		if _, err := Renew(dir, i, der); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if again, _, err := Load(dir, nil); err != nil || string(again.Certificate) != string(i.Certificate) {
		t.Errorf("the identity changed: %v", err)
	}
}

func TestTheFolderIsRefusedIfOthersCouldLookIn(t *testing.T) {
	dir := folder(t)
	for _, mode := range []os.FileMode{0o755, 0o770, 0o777, 0o701} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := Folder(dir); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
			t.Errorf("%04o: %v", mode, err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := Folder(link); err == nil {
		t.Error("a symbolic link was followed")
	}
	if err := Folder("relative/folder"); err == nil {
		t.Error("a relative path was taken")
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := Folder(dir); err == nil || !strings.Contains(err.Error(), "12345") {
			t.Errorf("another's folder: %v", err)
		}
	}
}

func TestOneAgentAtATime(t *testing.T) {
	dir := folder(t)
	f, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another latchkey-agent") {
		t.Errorf("%v", err)
	}
	_ = f.Close()
	f, err = Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestVaultsOfEarlierIdentitiesAreToldApart(t *testing.T) {
	dir := folder(t)
	i, _ := sample(t)
	for _, d := range []string{i.VaultDir(dir), filepath.Join(dir, "vault-old"), filepath.Join(dir, "other")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if old := i.OldVaults(dir); len(old) != 1 || filepath.Base(old["old"]) != "vault-old" {
		t.Errorf("%v", old)
	}
}

func FuzzParse(f *testing.F) {
	i, key := sample(f)
	dir := folder(f)
	if err := Save(dir, i, key); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":99}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		// Whatever is taken fits together and is written back the same.
		if i.CACertificate() == nil || i.MachineCertificate() == nil || i.Permit() == nil || strings.ContainsAny(i.MachineID+i.KeyName, "/\\") {
			t.Fatalf("%+v", i)
		}
		out, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(out); err != nil {
			t.Fatalf("not read again: %v", err)
		}
	})
}

func FuzzCheckProxy(f *testing.F) {
	for _, s := range []string{"", "http://proxy:3128", "https://proxy", "http://a:b@c", "http://[::1]:8080", "socks5://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if CheckProxy(s) == nil && s != "" && !strings.HasPrefix(s, "http://") {
			t.Fatalf("%q", s)
		}
	})
}
