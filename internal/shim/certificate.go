package shim

import (
	"encoding/json"
	"fmt"
)

// CertificateRequest is the JSON of a Certificate.
type CertificateRequest struct {
	CSR  []byte `json:"csr"` // PKCS#10, DER
	Name string `json:"name,omitempty"`
}

// CertificateReply is the answer: a certificate, or why there is none.
type CertificateReply struct {
	Certificate []byte `json:"certificate,omitempty"` // DER
	CA          []byte `json:"ca,omitempty"`          // DER
	User        string `json:"user,omitempty"`        // as the server calls whom it is for
	Server      string `json:"server,omitempty"`
	RenewAfter  int64  `json:"renew_after,omitempty"` // unix microseconds
	Problem     string `json:"problem,omitempty"`     // for people; nothing else is there then
	Code        string `json:"code,omitempty"`        // of the problem: fault.Code, or "down"
}

// Certificate asks the agent for a certificate of one's own.
func (s *ShimConn) Certificate(r CertificateRequest) (out CertificateReply, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return out, err
	}
	if err := s.Send(Hello{Version}, SendTime); err != nil {
		return out, err
	}
	if err := s.Send(Certificate{string(b)}, SendTime); err != nil {
		return out, err
	}
	m, err := s.Receive(FrameTime)
	if err != nil {
		return out, err
	}
	switch m := m.(type) {
	case Tell:
		if err := json.Unmarshal([]byte(m.Text), &out); err != nil {
			return out, fmt.Errorf("%w: the answer to certificate is no JSON", ErrShape)
		}
		return out, nil
	case Deny:
		return out, fmt.Errorf("%s", m.Text)
	case TooOld:
		return out, fmt.Errorf("%w: %s", ErrVersion, m.Text)
	default:
		return out, fmt.Errorf("%w: %T in answer to certificate", ErrShape, m)
	}
}
