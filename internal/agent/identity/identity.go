// Package identity is who this machine is to its server: the machine key, the
// certificate, the pinned CA, and the keys by which the server's signatures are
// known. It lives in two files of the agent's state folder:
//
//	machine.json    everything but the key, and the name of the key's file
//	machine-….key   the machine key: PKCS#8, or a record that only this machine's TPM can use
//
// It promises: the identity on disk is whole or not there. The key's file is
// written first, under a name of its own; machine.json is renamed into place last,
// and only then are older keys removed. What is read is checked against itself (the
// certificate is of this key and this CA) before anybody uses it.
//
// Row E4.
package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"latchkey/internal/failpoint"
	"latchkey/internal/secret"
	"latchkey/internal/statefile"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// version of machine.json. It only rises.
const version = 1

// The bounds of what is read.
const (
	maxFile = 256 << 10
	maxKey  = 64 << 10
)

// FileName is the name of the identity in the state folder.
const FileName = "machine.json"

// Errors of Load.
var (
	// ErrNotJoined says that there is no identity in the folder.
	ErrNotJoined = errors.New("this machine has not joined a server")
	// ErrDamaged says that there is one and it can not be used.
	ErrDamaged = errors.New("the machine's identity is damaged")
	// ErrNewer says that a newer agent wrote it.
	ErrNewer = errors.New("the machine's identity was written by a newer agent: update the agent")
)

// The places of a machine key.
const (
	KeyFile = "file"
	KeyTPM  = "tpm"
)

// Identity is what a joined machine knows of itself and of its server.
type Identity struct {
	Version     int    `json:"version"`
	MachineID   string `json:"machine_id"`
	Name        string `json:"name"`
	Number      int64  `json:"number"`
	Server      string `json:"server"`          // https://HOST:PORT
	Proxy       string `json:"proxy,omitempty"` // http://HOST:PORT, asked with CONNECT
	CA          []byte `json:"ca"`              // DER
	Certificate []byte `json:"certificate"`     // DER
	GrantKey    []byte `json:"grant_key"`       // Ed25519
	PermitKey   []byte `json:"permit_key"`      // PKIX DER, P-256
	KeyPlace    string `json:"key_place"`       // file or tpm
	KeyName     string `json:"key_file"`        // name of the key's file in the same folder
	JoinedAt    int64  `json:"joined_at"`

	ca, cert *x509.Certificate
	permit   crypto.PublicKey
}

// CACertificate is the pinned CA.
func (i *Identity) CACertificate() *x509.Certificate { return i.ca }

// MachineCertificate is the machine's own certificate.
func (i *Identity) MachineCertificate() *x509.Certificate { return i.cert }

// Permit is the server's TPM-policy key.
func (i *Identity) Permit() crypto.PublicKey { return i.permit }

// Grant is the key of the server's signed objects.
func (i *Identity) Grant() ed25519.PublicKey { return ed25519.PublicKey(i.GrantKey) }

var (
	keyName = regexp.MustCompile(`^machine-[0-9a-f]{16}\.key$`)
	idForm  = regexp.MustCompile(`^[0-9a-z-]{1,64}$`)
)

// Parse reads machine.json and checks it against itself.
func Parse(b []byte) (*Identity, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: %s has more than %d octets", ErrDamaged, FileName, maxFile)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: %s is not JSON", ErrDamaged, FileName)
	}
	if head.Version > version {
		return nil, fmt.Errorf("%w (version %d, this one reads %d)", ErrNewer, head.Version, version)
	}
	var i Identity
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&i); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrDamaged, FileName, err)
	}
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, FileName, err)
	}
	return &i, nil
}

// check holds the parts against each other and keeps the parsed forms.
func (i *Identity) check() error {
	var err error
	switch {
	case i.Version != version:
		return fmt.Errorf("version %d", i.Version)
	case !idForm.MatchString(i.MachineID):
		return errors.New("machine_id is not an id")
	case i.KeyPlace != KeyFile && i.KeyPlace != KeyTPM:
		return errors.New("key_place is neither file nor tpm")
	case !keyName.MatchString(i.KeyName):
		return errors.New("key_file is not the name of a machine key")
	case len(i.GrantKey) != ed25519.PublicKeySize:
		return errors.New("grant_key is not an Ed25519 key")
	}
	if err := wire.CheckServerURL(i.Server); err != nil {
		return err
	}
	if err := CheckProxy(i.Proxy); err != nil {
		return err
	}
	if i.ca, err = x509.ParseCertificate(i.CA); err != nil || !i.ca.IsCA {
		return errors.New("ca is not the certificate of a CA")
	}
	if i.cert, err = x509.ParseCertificate(i.Certificate); err != nil {
		return errors.New("certificate is not one")
	}
	if err := i.cert.CheckSignatureFrom(i.ca); err != nil {
		return errors.New("certificate is not of this ca")
	}
	if pub, ok := i.cert.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return errors.New("certificate is not for a P-256 key")
	}
	if i.permit, err = x509.ParsePKIXPublicKey(i.PermitKey); err != nil {
		return errors.New("permit_key is not a public key")
	}
	if pub, ok := i.permit.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return errors.New("permit_key is not a P-256 key")
	}
	return nil
}

// CheckProxy says what is wrong with the address of a proxy; none is right too.
func CheckProxy(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil || s != "http://"+u.Host {
		return errors.New("proxy: allowed is http://HOST:PORT of a proxy that speaks CONNECT; the connection through it is encrypted end to end")
	}
	return nil
}

// Load reads the identity in dir and opens its key. The device is nil on a machine
// without a TPM.
func Load(dir string, device *tpm.Device) (id *Identity, signer crypto.Signer, err error) {
	defer func() {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w. Put the state folder %s back from a backup, or join again with a new token (latchkey-agent join --again)", err, dir)
		}
	}()
	i, err := read(dir)
	if err != nil {
		return nil, nil, err
	}
	key, err := i.open(dir, device)
	if err != nil {
		return nil, nil, err
	}
	return i, key, nil
}

func read(dir string) (*Identity, error) {
	b, err := readFile(filepath.Join(dir, FileName), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotJoined
	}
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

func readFile(name string, limit int64) ([]byte, error) {
	b, err := statefile.Read(name, limit)
	if errors.Is(err, statefile.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return b, err
}

// open reads the key's file.
func (i *Identity) open(dir string, device *tpm.Device) (crypto.Signer, error) {
	raw, err := readFile(filepath.Join(dir, i.KeyName), maxKey)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: machine key: %w", ErrDamaged, err)
	case err != nil:
		return nil, fmt.Errorf("machine key: %w", err)
	}
	if i.KeyPlace == KeyTPM && device == nil {
		// The agent runs on, and denies with words of its own (O17).
		return absentKey{i.cert.PublicKey}, nil
	}
	key := Key{Place: i.KeyPlace, Record: secret.New(raw)}
	signer, err := key.Signer(device)
	if err != nil {
		return nil, err
	}
	if pub, ok := signer.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(i.cert.PublicKey) {
		return nil, fmt.Errorf("%w: the certificate is for another key than %s", ErrDamaged, i.KeyName)
	}
	return signer, nil
}

// Key is a machine key as it is kept.
type Key struct {
	Place  string       // file or tpm
	Record secret.Bytes // PKCS#8, or the TPM's record
}

// Signer opens the key.
func (k Key) Signer(device *tpm.Device) (crypto.Signer, error) {
	if k.Place == KeyTPM {
		if device == nil {
			return nil, tpm.ErrNone
		}
		return device.Signer(k.Record.Reveal())
	}
	any, err := x509.ParsePKCS8PrivateKey(k.Record.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%w: the machine key can not be read", ErrDamaged)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the machine key is not a P-256 key", ErrDamaged)
	}
	return key, nil
}

// absentKey stands for a key in a TPM that is not there.
type absentKey struct{ pub crypto.PublicKey }

func (k absentKey) Public() crypto.PublicKey { return k.pub }

func (absentKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("the machine key lies in the TPM: %w; give the TPM with --tpm, or join again", tpm.ErrNone)
}

// fileKey makes a key that lies in a file.
func fileKey() (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return Key{}, err
	}
	return Key{Place: KeyFile, Record: secret.New(der)}, nil
}

// Request makes a PKCS#10 request, which proves that whoever sends it has the key.
// The server gives names; what stands in the request is for its log only.
func Request(key crypto.Signer, name string) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name}, SignatureAlgorithm: x509.ECDSAWithSHA256,
	}, key)
}

// Save writes the identity with its key into dir.
func Save(dir string, i *Identity, key Key) error {
	sum := sha256.Sum256(key.Record.Reveal())
	i.Version, i.KeyPlace, i.KeyName = version, key.Place, "machine-"+hex.EncodeToString(sum[:8])+".key"
	if err := i.check(); err != nil {
		return fmt.Errorf("what the server answered can not be used: %w", err)
	}
	if err := statefile.Replace(filepath.Join(dir, i.KeyName), key.Record.Reveal()); err != nil {
		return err
	}
	failpoint.Hit("identity.key")
	if err := i.write(dir); err != nil {
		return err
	}
	failpoint.Hit("identity.written")
	// The new identity stands; older keys are of no use to anybody but a thief.
	old, err := filepath.Glob(filepath.Join(dir, "machine-*.key"))
	if err != nil {
		return nil //nolint:nilerr // the pattern is constant
	}
	for _, name := range old {
		if filepath.Base(name) != i.KeyName {
			_ = os.Remove(name)
		}
	}
	return nil
}

// Renew writes the same identity with a new certificate for the same key.
func Renew(dir string, i *Identity, certificate []byte) (*Identity, error) {
	n := *i
	n.Certificate = bytes.Clone(certificate)
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("renewed certificate: %w", err)
	}
	if !n.cert.PublicKey.(*ecdsa.PublicKey).Equal(i.cert.PublicKey) {
		return nil, errors.New("renewed certificate: it is for another key")
	}
	if err := n.write(dir); err != nil {
		return nil, err
	}
	return &n, nil
}

func (i *Identity) write(dir string) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return statefile.Replace(filepath.Join(dir, FileName), append(b, '\n'))
}

// Host is the host of the server's address.
func (i *Identity) Host() string {
	u, err := url.Parse(i.Server)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Hostname(), ".")
}
