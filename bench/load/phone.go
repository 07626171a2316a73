package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"latchkey/internal/server/push"
)

// phone is one with the app: every call is signed by its key.
type phone struct {
	device string
	key    *ecdsa.PrivateKey
}

// sign signs as WebCrypto does: r and s, 32 octets each.
func (p *phone) sign(message []byte) (string, error) {
	h := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, p.key, h[:])
	if err != nil {
		return "", err
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return base64.RawURLEncoding.EncodeToString(sig[:]), nil
}

// call makes one signed call of the door at base.
func (p *phone) call(ctx context.Context, c *http.Client, base, method, path string, in, out any) error {
	var body []byte
	var err error
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, base+push.Base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	sig, err := p.sign(push.CallMessage(method, req.URL.RequestURI(), at, body))
	if err != nil {
		return err
	}
	req.Header.Set(push.HeaderDevice, p.device)
	req.Header.Set(push.HeaderTime, at)
	req.Header.Set(push.HeaderSignature, sig)
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, b)
	}
	return json.Unmarshal(b, out)
}

// approve looks what the phone is asked and answers with the number. sent is when the answer was signed and sent.
func (p *phone) approve(ctx context.Context, c *http.Client, base, number string) (sent time.Time, err error) {
	var all push.Requests
	if err := p.call(ctx, c, base, http.MethodGet, "requests?wait=0", nil, &all); err != nil {
		return sent, fmt.Errorf("the phone asks: %w", err)
	}
	if len(all.Requests) != 1 {
		return sent, fmt.Errorf("the phone is shown %d requests", len(all.Requests))
	}
	r := all.Requests[0]
	sent = time.Now()
	a := push.Answer{Decision: push.Approve, Number: number, Nonce: r.Nonce, ContentHash: push.ContentHash(r.Content)}
	if a.Signature, err = p.sign(push.AnswerMessage(r.ID, a.Decision, a.Number, a.Nonce, a.ContentHash)); err != nil {
		return sent, err
	}
	var out push.Answered
	err = p.call(ctx, c, base, http.MethodPost, "requests/"+r.ID+"/answer", a, &out)
	if err == nil && out.State != push.StateApproved {
		err = fmt.Errorf("the request is %s", out.State)
	}
	if err != nil {
		return sent, fmt.Errorf("the phone answers: %w", err)
	}
	return sent, nil
}
