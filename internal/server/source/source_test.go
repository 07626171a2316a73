package source_test

import (
	"errors"
	"strings"
	"testing"

	"latchkey/internal/secret"
	"latchkey/internal/server/source"
	_ "latchkey/internal/server/source/mysql"
	_ "latchkey/internal/server/source/oracle"
	_ "latchkey/internal/server/source/postgresql"
	_ "latchkey/internal/server/source/sqlserver"
)

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"postgresql://u:p@db.example.org/hr":                        "postgresql://u@db.example.org:5432/hr?tls=verify",
		"POSTGRES://u:p@db.example.org:6432/hr?tls=encrypt":         "postgresql://u@db.example.org:6432/hr?tls=encrypt",
		"postgres://u@/hr?socket=/run/postgresql":                   "postgresql://u@/hr?socket=%2Frun%2Fpostgresql&tls=off",
		"mysql://u:p%40%3A%2F@[2001:db8::1]/hr":                     "mysql://u@[2001:db8::1]:3306/hr?tls=verify",
		"mariadb://u:p@127.0.0.1/hr":                                "mysql://u@127.0.0.1:3306/hr?tls=off",
		"mariadb://u:p@127.0.0.1/hr?tls=verify":                     "mysql://u@127.0.0.1:3306/hr?tls=verify",
		"sqlserver://u:p@db.example.org/hr":                         "sqlserver://u@db.example.org:1433/hr?tls=verify",
		"mssql://u:p@db.example.org/hr?instance=PROD&tls=off":       "sqlserver://u@db.example.org:1433/hr?instance=PROD&tls=off",
		"oracle://u:p@db.example.org/ORCL":                          "oracle://u@db.example.org:1521/ORCL?tls=verify",
		"mysql://u:geheim@db.example.org":                           "!names no database",
		"mysql://u:geheim@/hr":                                      "!names no host",
		"mysql://u:geheim@db/hr/more":                               "!no database",
		"mysql://:geheim@db/hr":                                     "!no address",
		"mysql://db/hr":                                             "!no address",
		"mysql://u:geheim@db:99999/hr":                              "!port",
		"mysql://u:geheim@db:x/hr":                                  "!no address",
		"mysql://u:geheim@db/hr?tls=maybe":                          "!not allowed",
		"mysql://u:geheim@db/hr?tls=off&tls=verify":                 "!twice",
		"mysql://u:geheim@db/hr?socket=/x":                          "!a host and a socket",
		"mysql://u:geheim@/hr?socket=x":                             "!absolute",
		"oracle://u:geheim@/hr?socket=/x":                           "!not known",
		"mysql://u:geheim@db/hr?allowAllFiles=true":                 "!not known",
		"postgresql://u:geheim@db/hr?sslrootcert=/etc/passwd":       "!not known",
		"postgresql://u:geheim@db/hr?passfile=/etc/passwd":          "!not known",
		"postgresql://u:geheim@db/hr?host=elsewhere":                "!not known",
		"postgresql://u:geheim@one,two/hr":                          "!no name and no address",
		"sqlserver://u:geheim@db:1444/hr?instance=X":                "!one of them",
		"oracle://u:geheim@db/hr?wallet=/etc":                       "!not known",
		"sqlite:///etc/passwd":                                      "!not known",
		"file:///etc/passwd":                                        "!not known",
		"hr":                                                        "!no address",
		"":                                                          "!no address",
		"mysql://u:geheim\n@db/hr":                                  "!no address",
		"mysql://u:ge%zzheim@db/hr":                                 "!no address",
		"mysql://u:geheim@db/" + strings.Repeat("x", 129):           "!no database",
		"mysql://" + strings.Repeat("u", 129) + ":geheim@db/hr":     "!128 octets",
		"mysql://u:geheim@db/hr?x=" + strings.Repeat("geheim", 400): "!octets",
	} {
		t.Run(address[:min(len(address), 60)], func(t *testing.T) {
			a, err := source.Parse(address)
			if text, bad := strings.CutPrefix(want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%v, want %q", err, text)
				}
				if err != nil && strings.Contains(err.Error(), "geheim") {
					t.Errorf("the password is told: %v", err)
				}
				return
			}
			if err != nil || a.String() != want {
				t.Errorf("%s, %v; want %s", a, err, want)
			}
		})
	}
	a, err := source.Parse("mysql://u:p%40%3A%2F@db/hr")
	if err != nil || string(a.Password.Reveal()) != "p@:/" {
		t.Errorf("the password is read as %q, %v", a.Password.Reveal(), err)
	}
}

func TestAPasswordIsNotTold(t *testing.T) {
	err := source.Hide(errors.New("dial mysql://u:p%40ss@db: p@ss is wrong"), secret.FromString("p@ss"))
	if strings.Contains(err.Error(), "p@ss") || strings.Contains(err.Error(), "p%40ss") {
		t.Error(err)
	}
}

func TestWhichWereRunAgainstARealServer(t *testing.T) {
	var got []string
	for _, d := range source.Drivers() {
		if d.Tested {
			got = append(got, d.Name)
		}
	}
	if strings.Join(got, " ") != "mysql postgresql" {
		t.Errorf("tested: %q; whoever adds one has tests that run it", got)
	}
}

func TestTLS(t *testing.T) {
	for address, want := range map[string]string{
		"mysql://u@db/hr": "verified", "mysql://u@db/hr?tls=encrypt": "any", "mysql://u@localhost/hr": "none", "mysql://u@db/hr?tls=off": "none",
	} {
		a, err := source.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.TLSConfig()
		got := "none"
		if c != nil {
			got = "verified"
			if c.InsecureSkipVerify {
				got = "any"
			}
			if c.ServerName != "db" || c.MinVersion == 0 {
				t.Errorf("%+v", c)
			}
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v", address, got, err)
		}
	}
	a, _ := source.Parse("mysql://u@db/hr")
	a.CA = []byte("no certificate")
	if _, err := a.TLSConfig(); err == nil || source.CheckCA(a.CA) == nil {
		t.Error("what is no certificate is taken as one")
	}
}

// FuzzParse: what is parsed can be shown and parsed again, and no error tells the
// password.
func FuzzParse(f *testing.F) {
	f.Add("postgresql://u:geheim@db.example.org:5432/hr?tls=verify")
	f.Add("mssql://u:geheim@[::1]:1433/hr?instance=x")
	f.Add("mysql://u:gehe%69m@/hr?socket=/run/x")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := source.Parse(s)
		if err != nil {
			return
		}
		b, err := source.Parse(a.String())
		if err != nil || b.String() != a.String() {
			t.Fatalf("%q → %q → %q, %v", s, a, b, err)
		}
	})
}
