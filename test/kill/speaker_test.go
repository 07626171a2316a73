//go:build e2e

package kill

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/agent/identity"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

// speaker speaks to the server as the agent of a machine does, and says what a test wants.
type speaker struct {
	w    *world
	http *http.Client
}

type problem struct{ wire.Problem }

func (p *problem) Error() string { return p.Problem.Error() }

// speaker takes the identity of a machine whose key lies in a file.
func (w *world) speaker(s *station) *speaker {
	w.t.Helper()
	id, key, err := identity.Load(s.state, nil)
	if err != nil {
		w.fatal("the identity of %s: %v", s.name, err)
	}
	return &speaker{w, &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // it is on this very machine
			Certificates: []tls.Certificate{{Certificate: [][]byte{id.Certificate}, PrivateKey: key}},
		},
	}}}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func (m *speaker) begin(user, tag string) wire.Step {
	return wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: user, Scope: policy.Logon, Service: "login", TTY: tag, Mode: "second", First: policy.FirstMachine, Boot: "boot",
		At: m.w.now().UnixMicro(),
	}}
}

func answer(s string) wire.Step {
	return wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(s))}}
}

// once sends a step and takes what comes.
func (m *speaker) once(id string, seq int, s wire.Step) (reply wire.StepReply, err error) {
	body, err := json.Marshal(s)
	if err != nil {
		return reply, err
	}
	req, err := http.NewRequest("POST", fmt.Sprintf("https://%s/agent/v1/conversations/%s/%d", m.w.addr, id, seq), bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	req.Header.Set(wire.VersionHeader, strconv.Itoa(wire.Version))
	req.Header.Set("Content-Type", "application/json")
	res, err := m.http.Do(req)
	if err != nil {
		return reply, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return reply, err
	}
	if res.StatusCode > 299 {
		var p problem
		if err := json.Unmarshal(raw, &p.Problem); err != nil || p.Code == "" {
			return reply, fmt.Errorf("status %d: %s", res.StatusCode, raw)
		}
		return reply, &p
	}
	return reply, json.Unmarshal(raw, &reply)
}

// step repeats the very same step until there is an answer, as an agent does.
func (m *speaker) step(id string, seq int, s wire.Step) (reply wire.StepReply, err error) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		reply, err = m.once(id, seq, s)
		if err == nil || codeOf(err) != "" && codeOf(err) != "unavailable" {
			return reply, err
		}
	}
	return reply, err
}
