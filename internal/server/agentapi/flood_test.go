package agentapi_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/turnstile"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

// silent connections of one address, with a start of a handshake or with nothing.
func (r *rig) crowd(n int, first []byte) (hangUp func()) {
	r.Helper()
	conns := make([]net.Conn, 0, n)
	for range n {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "https://"))
		if err != nil {
			r.Fatal(err)
		}
		_, _ = c.Write(first)
		conns = append(conns, c)
	}
	hangUp = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	r.Cleanup(hangUp)
	return hangUp
}

// TestACrowdOfStrangersShutsNobodyOut: thousands of half-open handshakes of one
// address, and from that very address machines say hello and join.
func TestACrowdOfStrangersShutsNobodyOut(t *testing.T) {
	for name, first := range map[string][]byte{
		"nothing at all":        nil,
		"half a handshake":      {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"a record without end":  append([]byte{0x16, 3, 1, 0x40, 0}, make([]byte, 4000)...),
		"a request in the open": []byte("POST " + wire.PathJoin + " HTTP/1.1\r\nHost: x\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, newStore(t), func(c *agentapi.Config) { c.Places = turnstile.Config{PerNetwork: 32} })
			before := r.joined()
			before.policy(0)
			held := before.dial("http/1.1") // shown who it is: keeps its place
			probe(t, held)
			r.crowd(scale.N(300, 2000), first)
			r.eventually("the crowd is bounded", func() bool { return r.api.Strangers() <= 32 })
			probe(t, held)
			// A try may draw the lot; an agent tries again at once.
			again := func(what string, do func() error) {
				t.Helper()
				var err error
				for range 5 {
					if err = do(); err == nil {
						return
					}
				}
				t.Errorf("%s: %v", what, err)
			}
			again("a machine says hello", func() error {
				before.http.CloseIdleConnections()
				_, _, err := before.call("POST", wire.PathHello, []byte(`{"facts":{"hostname":"x","os":"x","agent_version":"1","boot":"b","class":"software"}}`), nil)
				return err
			})
			if strings.HasPrefix(name, "a request") {
				return // answered with 400 and closed: no crowd
			}
			r.eventually("the event", func() bool {
				return strings.Contains(r.reasons(event.MachineRefused), "machine.refused/too-many-connections")
			})
		})
	}
}

func probe(t *testing.T, c *tls.Conn) {
	t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n", wire.PathProbe)
	buf := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := c.Read(buf)
	if err != nil || !bytes.Contains(buf[:n], []byte("HTTP/1.1 204")) {
		t.Errorf("a machine's connection: %q %v", buf[:n], err)
	}
}

// TestOneMachineHasBoundedPlaces: whoever has a machine's key can not use up the
// server's connections, and shuts nobody else out.
func TestOneMachineHasBoundedPlaces(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) {
		c.Places = turnstile.Config{PerGuest: 4}
		c.PerMachine = rate.Rate{PerSecond: 1e6, Burst: 1e6}
	})
	a, b := r.joined(), r.joined()
	other := b.dial("http/1.1")
	probe(t, other)
	var conns []*tls.Conn
	for range 20 {
		c := a.dial("http/1.1")
		probe(t, c)
		conns = append(conns, c)
	}
	open := 0
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				open++
			}
		}
	}
	if open != 4 {
		t.Errorf("one machine has %d connections open", open)
	}
	probe(t, other)
}

// TestACertificateWithoutItsKeyIsAStrangers: a copy of a machine's certificate takes
// no place of that machine.
func TestACertificateWithoutItsKeyIsAStrangers(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.Places = turnstile.Config{PerGuest: 1} })
	a := r.joined()
	own := a.dial("http/1.1")
	probe(t, own)
	thief := r.joined()
	conf := a.http.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{a.cert}, PrivateKey: thief.key}, nil
	}
	for range 3 {
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), conf)
		if err == nil {
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n", wire.PathProbe)
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("with another's certificate: %q", got)
			}
			_ = c.Close()
		}
	}
	probe(t, own)
}

// TestSlowStrangersAreNotWaitedFor: the handshake, the header and the body have
// seconds each, and so has whoever does nothing behind the handshake over HTTP/2.
func TestSlowStrangersAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	raw := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	drip := func(c net.Conn, text string) {
		go func() {
			for _, b := range []byte(text) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(150 * time.Millisecond)
			}
		}()
	}
	for name, begin := range map[string]func() net.Conn{
		"a handshake that never begins": raw,
		"a handshake that drips": func() net.Conn {
			c := raw()
			drip(c, string(append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 200)...)))
			return c
		},
		"a header that drips": func() net.Conn {
			c := m.dial("http/1.1")
			drip(c, "GET "+wire.PathProbe+" HTTP/1.1\r\nHost: x\r\n"+strings.Repeat("X: y\r\n", 50))
			return c
		},
		"a body that drips": func() net.Conn {
			c := m.dial("http/1.1")
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\nContent-Length: 1000\r\n\r\n", wire.PathHello)
			drip(c, strings.Repeat(" ", 200))
			return c
		},
		"a chunked body that drips": func() net.Conn {
			c := m.dial("http/1.1")
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\nTransfer-Encoding: chunked\r\n\r\n", wire.PathHello)
			drip(c, strings.Repeat("1\r\n \r\n", 50))
			return c
		},
		"a body that nobody reads, drip by drip": func() net.Conn {
			conf := m.http.Transport.(*http.Transport).TLSClientConfig.Clone()
			conf.Certificates, conf.GetClientCertificate, conf.NextProtos = nil, nil, []string{"http/1.1"}
			c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), conf)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\nContent-Length: 1000\r\n\r\n", wire.PathHello)
			drip(c, strings.Repeat(" ", 1000))
			return c
		},
		"HTTP/2 without a preface": func() net.Conn { return m.dial("h2") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, begun := begin(), time.Now()
			_ = c.SetReadDeadline(begun.Add(25 * time.Second))
			_, err := io.Copy(io.Discard, c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Errorf("still open after %v", time.Since(begun))
			}
		})
	}
}

// TestShapesThatAreNoRequest: what two readers could understand in two ways is not
// answered as a request, and nothing behind it is read as a second one.
func TestShapesThatAreNoRequest(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.PerMachine = rate.Rate{PerSecond: 1e6, Burst: 1e6} })
	m := r.joined()
	second := "GET " + wire.PathProbe + " HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n"
	head := "POST " + wire.PathHello + " HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n"
	for name, text := range map[string]string{
		"two lengths":                    head + "Content-Length: 2\r\nContent-Length: 60\r\n\r\n{}" + second,
		"a length and chunks":            head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second,
		"chunks, but not quite":          head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second,
		"chunks twice":                   head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + second,
		"a blank in a field's name":      head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + second,
		"a length that is no number":     head + "Content-Length: +2\r\n\r\n{}" + second,
		"a negative length":              head + "Content-Length: -1\r\n\r\n" + second,
		"a length beyond all numbers":    head + "Content-Length: 99999999999999999999999\r\n\r\n{}" + second,
		"a chunk beyond all numbers":     head + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n" + second,
		"two hosts":                      "POST " + wire.PathHello + " HTTP/1.1\r\nHost: x\r\nHost: y\r\nLatchkey-Wire: 1\r\nContent-Length: 0\r\n\r\n" + second,
		"a NUL in the header":            head + "X: a\x00b\r\n\r\n" + second,
		"a header of a megabyte":         head + "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"ten thousand fields":            head + strings.Repeat("X: a\r\n", 10000) + "\r\n",
		"a request line without end":     "GET /" + strings.Repeat("a", 1<<20),
		"no HTTP":                        "\x00\x01\x02garbage\r\n\r\n" + second,
		"the HTTP/2 preface in HTTP/1.1": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 4096),
		"CONNECT":                        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
		"an absolute address":            "GET http://127.0.0.1:22/ HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n",
		"a way out of the path":          "GET /agent/v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := m.dial("http/1.1")
			go func() { _, _ = io.WriteString(c, text) }()
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second)) // some are left open
			got, _ := io.ReadAll(c)
			if bytes.Contains(got, []byte("HTTP/1.1 2")) {
				t.Errorf("answered: %.300q", got)
			}
		})
	}
	if m.fetches() != nil {
		t.Error("the door is shut for a machine in good standing")
	}
}

func (m *machine) fetches() error {
	_, _, err := m.call("GET", wire.PathProbe, nil, nil)
	return err
}

// TestMemoryStaysBounded: bodies that are announced and never come take no memory
// before they come.
func TestMemoryStaysBounded(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) {
		c.PerMachine = rate.Rate{PerSecond: 1e6, Burst: 1e6}
		c.PerAddress = rate.Rate{PerSecond: 1e6, Burst: 1e6}
		c.Places = turnstile.Config{PerNetwork: 400}
	})
	m := r.joined()
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conf := m.http.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.Certificates, conf.GetClientCertificate = nil, nil
	const n = 200
	for range n {
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.url, "https://"), conf)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\nContent-Length: %d\r\n\r\n{", wire.PathJoin, wire.MaxRequest)
	}
	time.Sleep(500 * time.Millisecond)
	runtime.GC()
	runtime.ReadMemStats(&during)
	// Both ends live in this process: buffers of TLS and HTTP, some 100 KiB a pair.
	if each := (int64(during.HeapAlloc) - int64(before.HeapAlloc)) / n; each > 300<<10 {
		t.Errorf("%d KiB for each body that was announced", each>>10)
	}
}
