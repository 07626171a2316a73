package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
)

// ApprovalHeader names the approval of a second owner (E3) that a request uses.
const ApprovalHeader = "Latchkey-Approval"

// answerTime bounds how long reading a request and answering it may take together,
// where slow says nothing else.
const answerTime = 30 * time.Second

// slow lists the operations that may take longer.
var slow = map[string]time.Duration{
	"verify-events": 10 * time.Minute,
	"try-policy":    2 * time.Minute,
	"query-import":  16 * time.Minute,
	"drop-import":   2 * time.Minute,
}

// endless lists the operations that see to their time by themselves.
var endless = map[string]bool{"follow-events": true, "export-events": true, "upload-import": true, "fetch-import-codes": true, "export-import-faults": true}

// secrets lists the operations whose answer holds a secret that is shown once. It is
// not kept for a repetition of the request.
var secrets = map[string]bool{
	"add-totp": true, "add-backup": true, "issue-enrolment-code": true, "issue-bypass-code": true, "issue-token": true,
	"fetch-import-codes": true,
}

// fresh lists the operations for which a person must have given the second factor
// within the last minutes (E3): what lets somebody in, weakens a rule, or destroys. The
// pages of the console ask for the same; a test of package web compares the two doors.
// Root on the server and API tokens have none to give: a token was made by somebody
// who had.
var fresh = map[string]bool{
	"add-totp": true, "add-backup": true, "lose-factor": true, "remove-factor": true, "issue-enrolment-code": true, "issue-bypass-code": true,
	"set-password": true, "add-user": true, "change-user": true, "remove-user": true,
	"change-group": true, "remove-group": true, "add-member": true, "remove-member": true,
	"add-policy": true, "change-policy": true, "remove-policy": true, "roll-back-policy": true,
	"change-machine": true, "refuse-machine": true, "revoke-machine": true, "lose-machine": true, "remove-machine": true, "issue-token": true,
	"disenroll-offline": true, "lift-offline": true,
	"change-settings": true,
	"apply-import":    true, "fetch-import-codes": true, "add-import-source": true, "remove-import-source": true,
}

// Fresh are the operations that ask a session for a fresh second factor.
func Fresh() []string { return slices.Sorted(maps.Keys(fresh)) }

// gate is what every request goes through.
func (x *door) gate(mux *http.ServeMux) http.Handler {
	ops := x.operations()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		o, ok := ops[pattern]
		switch {
		case ok:
		case strings.HasPrefix(pattern, descriptionPattern):
			x.cached(w, r, mux)
			return
		default:
			x.nowhere(w, r, mux)
			return
		}
		refuse := func(err error) { writeProblem(w, x.problem(r.Context(), err, false)) }
		if err := o.may(r.Context()); err != nil && !x.trusting {
			refuse(err)
			return
		}
		if fresh[o.OperationID] {
			if s := session.From(r.Context()); s != nil && !s.IsFresh(x.desk.Clock.Now()) {
				refuse(fault.New(fault.StepUp, nil))
				return
			}
		}
		if !endless[o.OperationID] {
			limit := slow[o.OperationID]
			if limit == 0 {
				limit = answerTime
			}
			c := http.NewResponseController(w)
			until := clock.Deadline(limit)
			if err := errors.Join(c.SetReadDeadline(until), c.SetWriteDeadline(until)); err != nil && !errors.Is(err, http.ErrNotSupported) {
				x.log.WarnContext(r.Context(), "the time of a request can not be set", "error", err)
			}
		}
		if o.RequestBody != nil && o.RequestBody.Content["application/json"] != nil {
			if p := wrongType(r); p != nil {
				writeProblem(w, p)
				return
			}
		}
		if r.Header.Get(ApprovalHeader) != "" {
			x.approved(w, r, o, mux)
			return
		}
		switch {
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			x.cached(w, r, mux)
		case len(r.Header.Values(KeyHeader)) > 0:
			x.once(w, r, o, mux)
		default:
			w.Header().Set("Cache-Control", "no-store")
			mux.ServeHTTP(w, r)
		}
	})
}

// wrongType refuses a body that says to be something else than JSON. That a body says
// so at all keeps a form of another site from being one (CSRF).
func wrongType(r *http.Request) *problem {
	if r.ContentLength == 0 {
		return nil
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err == nil && t == "application/json" && (charset == "" || charset == "utf-8") {
		return nil
	}
	p := newProblem(fault.Newf(fault.BadRequest, "The body must be JSON in UTF-8, sent with the header Content-Type: application/json."), false)
	p.Status, p.Title = http.StatusUnsupportedMediaType, http.StatusText(http.StatusUnsupportedMediaType)
	return p
}

// approved carries a request out with the approval that it names. The approval is
// given back where the request is refused.
func (x *door) approved(w http.ResponseWriter, r *http.Request, o operation, mux *http.ServeMux) {
	s := session.From(r.Context())
	id, ok := strings.CutPrefix(r.Header.Get(ApprovalHeader), session.ApprovalPrefix)
	switch {
	case s == nil || x.sessions == nil:
		writeProblem(w, x.problem(r.Context(), fault.Newf(fault.Forbidden, "An approval belongs to a person who has signed in: not to a token, and not to the admin socket."), false))
		return
	case !ok || len(id) > 64 || len(r.Header.Values(KeyHeader)) > 0:
		writeProblem(w, x.problem(r.Context(), fault.New(fault.Invalid, nil).With(ApprovalHeader, "it is no id of an approval, such as apr_…, or it comes with an %s: an approval is good once as it is", KeyHeader), false))
		return
	}
	var rec *recorder
	err := x.sessions.Approved(r.Context(), s, addressOf(r.Context()), id, o.OperationID, func(a desk.Actor) error {
		rec = &recorder{w: w}
		mux.ServeHTTP(rec, r.WithContext(WithActor(r.Context(), a)))
		if rec.status >= 300 {
			return errRefused
		}
		return nil
	})
	switch {
	case rec != nil && (err == nil || errors.Is(err, errRefused)):
		w.Header().Set("Cache-Control", "no-store")
		rec.pass()
	default:
		writeProblem(w, x.problem(r.Context(), err, false))
	}
}

var errRefused = errors.New("the request was refused")

// cached answers a GET with an ETag: that of the thing, or else one of what is
// answered. Whoever has it already gets 304 and no body.
func (x *door) cached(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	w.Header().Set("Cache-Control", "private, no-cache")
	rec := &recorder{w: w}
	mux.ServeHTTP(rec, r)
	if rec.through || rec.status != http.StatusOK {
		if rec.status >= 300 {
			w.Header().Set("Cache-Control", "no-store")
		}
		rec.pass()
		return
	}
	tag := w.Header().Get("ETag")
	if tag == "" {
		h := sha256.Sum256(rec.body.Bytes())
		tag = `W/"` + hex.EncodeToString(h[:12]) + `"`
		w.Header().Set("ETag", tag)
	}
	if seen(r.Header.Values("If-None-Match"), tag) {
		w.Header().Del("Content-Type")
		w.Header().Del("Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	rec.pass()
}

// seen tells whether a list of ETags holds the tag, as RFC 9110 §13.1.2 compares them.
func seen(lists []string, tag string) bool {
	weak := func(s string) string { return strings.TrimPrefix(strings.TrimSpace(s), "W/") }
	for _, list := range lists {
		if strings.TrimSpace(list) == "*" {
			return true
		}
		if slices.ContainsFunc(strings.Split(list, ","), func(s string) bool { return weak(s) == weak(tag) }) {
			return true
		}
	}
	return false
}

// maxKept is how much of an answer is kept in memory; more goes through as it comes.
const maxKept = 1 << 20

// recorder keeps an answer back until it is known what becomes of it.
type recorder struct {
	w       http.ResponseWriter
	status  int
	body    bytes.Buffer
	through bool // it was too large, or is a stream: it has gone out
}

func (r *recorder) Header() http.Header { return r.w.Header() }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.through {
		return r.w.Write(b)
	}
	if r.body.Len()+len(b) > maxKept {
		if err := r.let(); err != nil {
			return 0, err
		}
		return r.w.Write(b)
	}
	return r.body.Write(b)
}

// let lets go of what was kept.
func (r *recorder) let() error {
	if r.through {
		return nil
	}
	r.through = true
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.w.WriteHeader(r.status)
	_, err := io.Copy(r.w, &r.body)
	return err
}

// pass ends the answer.
func (r *recorder) pass() { _ = r.let() }

// FlushError is for streams: whoever flushes wants it to go out now.
func (r *recorder) FlushError() error {
	if err := r.let(); err != nil {
		return err
	}
	return http.NewResponseController(r.w).Flush()
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.w }

// nowhere answers where there is no operation.
func (x *door) nowhere(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := *r
		other.Method = m
		if _, pattern := mux.Handler(&other); pattern != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		p := newProblem(fault.Newf(fault.BadRequest, "%s is not possible here; allowed is %s.", clip(r.Method), strings.Join(allowed, ", ")), false)
		p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		writeProblem(w, p)
		return
	}
	writeProblem(w, x.problem(r.Context(), fault.Newf(fault.NotFound, "There is nothing at %s %s. The API is described at %s/openapi.json.", r.Method, clip(r.URL.Path), rest.Base), false))
}
