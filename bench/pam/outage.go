package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ldap is somebody whom only the directory knows.
const ldapUser = "lena"

// outage measures how long the first sign-in takes whose server has just gone, and the one behind it: sssd with cached
// passwords beside Latchkey with offline data. Both have talked to their server just before.
func (w *world) outage() error {
	a := w.agents[0]
	// One clock for server and agent: the many offline sign-ins before lie in its past.
	a.proc.stop()
	if err := w.startServer(w.movable("latchkeyd"), "LATCHKEY_TEST_CLOCK="+a.clock); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(w.machines)
	if err != nil {
		return err
	}
	var used int64
	lk := &peer{
		name: "pam_latchkey: password and code", port: port,
		begin: func() error {
			if !w.server.running() {
				if err := w.startServer(w.movable("latchkeyd"), "LATCHKEY_TEST_CLOCK="+a.clock); err != nil {
					return err
				}
			}
			a.proc.stop() // an agent looks for a lost server less and less often, a new one at once
			if err := w.startAgent(a, true); err != nil {
				return err
			}
			if err := w.link(a, "up"); err != nil {
				return err
			}
			used = 0
			return a.turn(90 * time.Second) // to codes that nobody has given
		},
		kill: func() error { w.server.kill(); return nil },
		sign: func() (time.Duration, error) {
			// The second code is that of the next half minute: a clock that was turned in between would let the agent forget
			// that it has just met silence.
			code := totp(w.flyer.keys[""], stepOf(time.Now().Add(a.offset))+used)
			used++
			d, err := w.pamtester("b-"+a.name, w.flyer.name, password, code)
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, a.proc.tail())
			}
			return d, err
		},
	}
	peers := []*peer{lk}
	if !w.noSSS {
		sss, err := w.sssd()
		if err != nil {
			return err
		}
		peers = append(peers, sss)
	}
	fmt.Printf("## The server goes away\n\nTime to the answer of the first sign-in after it, and of the next one; medians of %d times, the slowest in brackets.\n\n", w.outages)
	head("what", "packets dropped: first", "next", "connection refused: first", "next")
	for _, p := range peers {
		cells := []string{p.name}
		for _, how := range []string{"dropped", "refused"} {
			var first, next []time.Duration
			for i := range w.outages {
				say("%s, %s, %d of %d", strings.SplitN(p.name, ":", 2)[0], how, i+1, w.outages)
				f, n, err := w.outOnce(p, how)
				if err != nil {
					return err
				}
				first, next = append(first, f), append(next, n)
			}
			for _, ds := range [][]time.Duration{first, next} {
				cells = append(cells, fmt.Sprintf("%.2f s (%.2f s)", median(ds).Seconds(), quantile(ds, 1).Seconds()))
			}
		}
		row(cells...)
	}
	fmt.Println()
	return nil
}

// peer is somebody whose server can be taken away.
type peer struct {
	name, port string
	begin      func() error // everything is up, and both have just talked
	kill       func() error
	sign       func() (time.Duration, error)
}

func (w *world) outOnce(p *peer, how string) (first, next time.Duration, err error) {
	if err := p.begin(); err != nil {
		return 0, 0, err
	}
	if how == "dropped" {
		if err := w.cut(p.port); err != nil {
			return 0, 0, err
		}
		defer w.mend()
	} else if err := p.kill(); err != nil {
		return 0, 0, err
	}
	if first, err = p.sign(); err != nil {
		return 0, 0, err
	}
	next, err = p.sign()
	return first, next, err
}

// sssd makes a directory with one person and an sssd with the defaults of its distribution that caches passwords.
func (w *world) sssd() (*peer, error) {
	say("making a directory and sssd")
	dir := w.path("ldap")
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o700); err != nil {
		return nil, err
	}
	for _, s := range [][]string{
		{"cp", "-a", "/var/lib/sss", w.path("sss")},
		{"mount", "--bind", w.path("sss"), "/var/lib/sss"},
		{"mkdir", "-p", "/var/log/sssd", "/run/slapd", "/etc/sssd"},
		{
			"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost",
			"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", filepath.Join(dir, "key.pem"), "-out", filepath.Join(dir, "cert.pem"),
		},
		{"sed", "-i", "s/^passwd:.*/passwd: files sss/; s/^group:.*/group: files sss/; s/^shadow:.*/shadow: files/", "/etc/nsswitch.conf"},
	} {
		if err := sh(w.ctx, s...); err != nil {
			return nil, err
		}
	}
	var probes strings.Builder
	for i := range 4 * w.outages {
		fmt.Fprintf(&probes, "\ndn: uid=probe%[1]d,dc=bench\nobjectClass: account\nobjectClass: posixAccount\nuid: probe%[1]d\ncn: probe\nuidNumber: %[2]d\ngidNumber: 40001\nhomeDirectory: /home\n", i, 41000+i)
	}
	files := map[string]string{
		filepath.Join(dir, "slapd.conf"): `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile ` + dir + `/cert.pem
TLSCertificateKeyFile ` + dir + `/key.pem
database mdb
suffix dc=bench
rootdn cn=admin,dc=bench
directory ` + dir + `/db
index uid,objectClass eq
access to attrs=userPassword by anonymous auth by * none
access to * by * read
`,
		filepath.Join(dir, "people.ldif"): `dn: dc=bench
objectClass: domain
dc: bench

dn: uid=` + ldapUser + `,dc=bench
objectClass: account
objectClass: posixAccount
uid: ` + ldapUser + `
cn: ` + ldapUser + `
uidNumber: 40001
gidNumber: 40001
homeDirectory: /home
userPassword: ` + password + `
` + probes.String(),
		"/etc/sssd/sssd.conf": `[sssd]
services = nss, pam
domains = bench
[domain/bench]
id_provider = ldap
auth_provider = ldap
ldap_uri = ldaps://127.0.0.1:` + ldapPort + `
ldap_search_base = dc=bench
ldap_tls_cacert = ` + dir + `/cert.pem
cache_credentials = true
`,
	}
	for name, body := range files {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			return nil, err
		}
	}
	if err := sh(w.ctx, "slapadd", "-f", filepath.Join(dir, "slapd.conf"), "-l", filepath.Join(dir, "people.ldif")); err != nil {
		return nil, err
	}
	var slapd, sssd *process
	begun := 0
	sign := func() (time.Duration, error) {
		d, err := w.pamtester("b-sss", ldapUser, password)
		if err != nil && sssd != nil {
			err = fmt.Errorf("%w\n%s", err, sssd.tail())
		}
		return d, err
	}
	return &peer{
		name: "pam_sss (sssd " + version("sssd") + "): password alone", port: ldapPort,
		begin: func() error {
			var err error
			if slapd == nil || !slapd.running() {
				if slapd, err = w.start("slapd", nil, "slapd", "-d", "0", "-f", filepath.Join(dir, "slapd.conf"), "-h", "ldaps://127.0.0.1:"+ldapPort); err != nil {
					return err
				}
				if err := w.until("slapd listens", 15*time.Second, func() error {
					if !slapd.running() {
						return fmt.Errorf("%w: %s", errEnded, slapd.tail())
					}
					c, err := net.Dial("tcp", "127.0.0.1:"+ldapPort)
					if err == nil {
						c.Close()
					}
					return err
				}); err != nil {
					return err
				}
			}
			if sssd != nil {
				sssd.stop()
			}
			if sssd, err = w.start("sssd", nil, "sssd", "-i", "--logger=stderr"); err != nil {
				return err
			}
			if err := w.until("sssd knows its people", 30*time.Second, func() error {
				if !sssd.running() {
					return fmt.Errorf("%w: %s", errEnded, sssd.tail())
				}
				// Somebody new each time, whom no cache has: so it is online.
				return exec.CommandContext(w.ctx, "getent", "passwd", fmt.Sprintf("probe%d", begun)).Run()
			}); err != nil {
				return fmt.Errorf("%w: %s", err, sssd.tail())
			}
			begun++
			d, err := sign() // online, which fills the cache
			say("sssd, online: %s", ms(d))
			return err
		},
		kill: func() error { slapd.kill(); return nil },
		sign: sign,
	}, nil
}

// version is that of an installed package.
func version(pkg string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg+"-ldap").Output()
	if err != nil {
		return "of an unknown version"
	}
	return string(out)
}
