// Package sourcetest starts the databases of others that tests read users from: the
// real programs, as an account that is not root, in a folder of the test's own.
package sourcetest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/clock"
)

// MariaDB is a server of the test's own.
type MariaDB struct {
	t      testing.TB
	dir    string
	Socket string
	Port   string
	CA     []byte // of its certificate, which is for localhost
	cred   *syscall.Credential
}

// NewMariaDB starts a server; it ends with the test.
func NewMariaDB(t testing.TB) *MariaDB {
	t.Helper()
	program := find("mariadbd")
	if program == "" {
		t.Fatal("these tests need a real MariaDB (Debian packages \"mariadb-server-core\" and \"mariadb-client-core\")")
	}
	dir, err := os.MkdirTemp("/tmp", "latchkey-maria-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &MariaDB{t: t, dir: dir, Socket: filepath.Join(dir, "sock")}
	m.certificate()
	if os.Getuid() == 0 {
		m.cred = account(t, "nobody")
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, int(m.cred.Uid), int(m.cred.Gid)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	data := "--datadir=" + filepath.Join(dir, "data")
	install := m.command(find("mariadb-install-db"), "--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	m.Port = Port(t)
	// The guard ends it when this process ends, however it ends.
	const script = `"$@" </dev/null >>log 2>&1 & my=$!; echo $my; read -r _; kill -KILL $my 2>/dev/null; wait $my`
	cmd := m.command(
		"/bin/sh", "-c", script, "sh", program, "--no-defaults", data, "--socket="+m.Socket, "--pid-file="+filepath.Join(dir, "pid"),
		"--bind-address=127.0.0.1", "--port="+m.Port, "--skip-name-resolve", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0",
		"--performance-schema=off", "--character-set-server=utf8mb4", "--ssl-cert="+filepath.Join(dir, "cert.pem"), "--ssl-key="+filepath.Join(dir, "key.pem"),
	)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	for range 1500 {
		if err = m.try("SELECT 1"); err == nil {
			return m
		}
		<-clock.Real.After(20 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	t.Fatalf("MariaDB does not answer: %v\n%s", err, log)
	return nil
}

func find(name string) string {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
		if p := filepath.Join(dir, name); exec.Command(p, "--version").Err == nil {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return ""
}

func account(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// Own gives a file to the owner of another.
func Own(t testing.TB, path string, like os.FileInfo) {
	t.Helper()
	if st, ok := like.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
		if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// Address is one of this machine's own addresses at which nobody else listens.
func Address(t testing.TB) net.IP {
	t.Helper()
	b := make([]byte, 3)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return net.IPv4(127, 1+b[0]%254, b[1], 1+b[2]%254)
}

// Port is a port at which nobody listens.
func Port(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

func (m *MariaDB) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = m.dir
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=" + m.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: m.cred}
	return cmd
}

func (m *MariaDB) certificate() {
	m.t.Helper()
	cert, key, err := Certificate()
	m.CA = cert
	err = errors.Join(err, os.WriteFile(filepath.Join(m.dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(m.dir, "key.pem"), key, 0o600))
	if err != nil {
		m.t.Fatal(err)
	}
}

// Certificate makes a certificate for localhost, and for these addresses, that vouches
// for itself.
func Certificate(addresses ...net.IP) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := clock.Real.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: addresses, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
	if err != nil {
		return nil, nil, err
	}
	p8, err := x509.MarshalPKCS8PrivateKey(k)
	var a, b bytes.Buffer
	err = errors.Join(err, pem.Encode(&a, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: p8}))
	return a.Bytes(), b.Bytes(), err
}

func (m *MariaDB) try(q string) error {
	cmd := m.command(find("mariadb"), "--no-defaults", "--socket="+m.Socket, "--user=root", "--default-character-set=utf8mb4")
	cmd.Stdin = strings.NewReader(q)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.New(string(out))
	}
	return nil
}

// Exec runs statements as root, through the database's own client.
func (m *MariaDB) Exec(q string) {
	m.t.Helper()
	if err := m.try(q); err != nil {
		m.t.Fatalf("%s: %v", q, err)
	}
}
