package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/api"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	_ "latchkey/internal/server/source/postgresql"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// scene is a place where everything that the API knows is there at least once, with an
// owner and with anna, a person who has all that people have of their own.
type scene struct {
	*place
	t           *testing.T
	there       map[string]string // an example for each placeholder of a path
	own         map[string]string // what stands there instead in what people do for themselves
	owner, anna string            // secrets of sessions
	annaID      string
	seed        secret.Bytes // of anna's authenticator
}

const annasPassword = "correct horse battery"

func openScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{place: openPlace(t), t: t}
	s.Rig.Desk.Sessions = s.sessions
	s.there = objects(t, s.Rig)
	ctx, root := t.Context(), desk.Root()
	u, err := s.ShowUser(ctx, root, "anna")
	s.must(err)
	s.annaID = strings.TrimPrefix(u.ID, rest.UserPrefix)
	// Not by the desk, which ends what is open of whoever gets a new password.
	hash, err := s.Passwords.Hash(ctx, "anna", secret.FromString(annasPassword))
	s.must(err)
	s.must(s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SetUserPassword(ctx, db.SetUserPasswordParams{PasswordHash: hash, ID: s.annaID})
		return err
	}))
	s.seed, err = s.Keeper.NewSeed(otp.DefaultParams)
	s.must(err)
	// What the desk gives to others would end their sessions and windows.
	s.must(s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := s.Keeper.AddTOTP(ctx, tx, s.annaID, factor.TOTP{Name: "phone", Params: otp.DefaultParams, Seed: s.seed}, s.Clock.Now()); err != nil {
			return err
		}
		_, err := s.Keeper.IssueBackup(ctx, tx, s.annaID, s.Clock.Now())
		return err
	}))
	m, err := s.ShowMachine(ctx, root, "bridge")
	s.must(err)
	s.Vault(t, s.annaID, strings.TrimPrefix(m.ID, rest.MachinePrefix), "software", clock.Micros(s.Clock.Now().Add(time.Hour)), 5)
	s.Vault(t, s.annaID, s.Machine(t, "tower", rest.MachineActive).ID, "software", clock.Micros(s.Clock.Now().Add(-time.Hour)), 5) // stuck there
	s.Lock(t, s.annaID, "", clock.Micros(s.Clock.Now().Add(time.Hour)))
	strict, err := s.ChangePolicy(ctx, root, "strict", 0, rest.PolicyChange{Comment: "again", Settings: json.RawMessage(`{"window":"4h"}`)})
	s.must(err)
	s.owner = s.somebody(t, "owner", rest.RoleOwner, session.CLI, 0)
	s.anna = s.somebody(t, "anna", rest.RoleNone, session.CLI, 0)
	signin, report := store.NewID(), store.NewID()
	s.must(s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Event(event.Event{ID: signin, Type: event.SigninAllowed, Subject: "anna", UserID: s.annaID, MachineID: strings.TrimPrefix(m.ID, rest.MachinePrefix), Machine: "bridge"}); err != nil {
			return err
		}
		if err := tx.InsertPolicyReport(ctx, db.InsertPolicyReportParams{
			PolicyID: strings.TrimPrefix(strict.ID, rest.PolicyPrefix), At: clock.Micros(s.Clock.Now()), EventID: signin, Version: strict.Version, UserID: s.annaID,
			Outcome: string(policy.Deny), Change: string(policy.Changes[0]),
		}); err != nil {
			return err
		}
		return tx.InsertReport(ctx, db.InsertReportParams{ID: report, UserID: s.annaID, Kind: rest.ReportMachine, MachineID: strings.TrimPrefix(m.ID, rest.MachinePrefix)})
	}))
	s.there["signin"] = rest.EventPrefix + signin
	s.own = map[string]string{"machine": m.ID} // people name their machines by ids alone
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// code is a code of anna's authenticator that was not used yet.
func (s *scene) code(seed secret.Bytes) string {
	p := otp.DefaultParams
	return p.Code(seed, p.Step(s.Clock.Now()))
}

// calm lifts what stops anna from signing in.
func (s *scene) calm() {
	s.t.Helper()
	_, err := s.Unlock(s.t.Context(), desk.Root(), "anna")
	s.must(err)
}

// signin begins a sign-in of anna's and gives what the next step takes.
func (s *scene) signin() string {
	s.t.Helper()
	s.calm()
	res := s.ask("POST", rest.Base+"/sessions", `{"name":"anna","password":"`+annasPassword+`"}`)
	if res.StatusCode != http.StatusOK {
		s.t.Fatal(res.Status)
	}
	return fields(s.t, res)["signin"]
}

// fields are the texts of an answer.
func fields(t *testing.T, res *http.Response) map[string]string {
	t.Helper()
	out := map[string]string{}
	for k, v := range read[map[string]any](t, res) {
		out[k], _ = v.(string)
	}
	return out
}

// enrolling is the session of somebody who has nothing but an enrolment code.
func (s *scene) enrolling() string {
	s.t.Helper()
	u, err := s.AddUser(s.t.Context(), desk.Root(), rest.NewUser{Name: "newcomer", Password: rest.HideText(annasPassword)})
	s.must(err)
	code, err := s.IssueEnrolCode(s.t.Context(), desk.Root(), "newcomer", rest.NewEnrolCode{})
	s.must(err)
	raw := "ls_" + base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%-32.32s", store.NewID())))
	hash := sha256.Sum256([]byte(raw))
	now := s.Clock.Now()
	s.must(s.Store.Update(s.t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertSession(ctx, db.InsertSessionParams{
			ID: store.NewID(), SecretHash: hash[:], UserID: strings.TrimPrefix(u.ID, rest.UserPrefix), Kind: session.CLI, Factor: session.Enrol,
			PasswordAt: clock.Micros(u.PasswordChangedAt), EnrolCode: strings.TrimPrefix(code.ID, rest.FactorPrefix), BeganAt: clock.Micros(now), SeenAt: clock.Micros(now), EndsAt: clock.Micros(now.Add(time.Hour)),
		})
	}))
	return raw
}

// pending begins a new authenticator of whoever has the session, and gives the ticket
// with its first code.
func (s *scene) pending(bearer string) string {
	s.t.Helper()
	res := s.ask("POST", rest.Base+"/me/factors/totp", "{}", auth(bearer)...)
	if res.StatusCode != http.StatusOK {
		s.t.Fatal(res.Status)
	}
	in := fields(s.t, res)
	seed, err := otp.ParseSeed(in["key"])
	s.must(err)
	return fmt.Sprintf(`{"ticket":%q,"code":%q,"name":"watch"}`, in["ticket"], s.code(seed))
}

// imported brings an import of the owner's into a state: reading, checked or done.
func (s *scene) imported(state string) string {
	s.t.Helper()
	send := func(method, path, body string, want int, header ...string) rest.Import {
		s.t.Helper()
		res := s.ask(method, rest.Base+path, body, append(auth(s.owner), header...)...)
		if res.StatusCode != want {
			b := read[rest.Problem](s.t, res)
			s.t.Fatal(res.Status, b)
		}
		return read[rest.Import](s.t, res)
	}
	i := send("POST", "/imports", `{"on_faults":"skip","codes":true,"codes_valid_for":"24h"}`, http.StatusCreated)
	if state == rest.ImportReading {
		return i.ID
	}
	send("PUT", "/imports/"+i.ID+"/file", importFile, http.StatusOK, "Content-Type", "text/csv")
	if state == rest.ImportChecked {
		return i.ID
	}
	send("POST", "/imports/"+i.ID+"/apply", "", http.StatusAccepted)
	for range 500 {
		if i = send("GET", "/imports/"+i.ID, "", http.StatusOK); i.State == rest.ImportDone {
			return i.ID
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("%+v", i)
	return ""
}

const importFile = "name,display_name,groups\nberta,Berta,staff\ncarla,Carla,nowhere\n"

// call is an operation with good input.
type call struct {
	name   string // what is special about it
	secret string // whose; empty: nobody's
	path   string // with its parameters
	body   string
	kind   string // of the body; empty: JSON
}

// good says how an operation is called so that it does what it is for, where the body
// that the description gives by itself, sent by the owner (or by anna, where it is one's
// own), is not enough. It changes the call, or gives several.
//
// Whoever adds an operation and sees TestGoodInput fail adds a line here: there is no
// other way out. said is for what only needs another body.
var good = map[string]func(s *scene, c call) []call{
	"set-password":      said(`{"password":"violet kettle marsh"}`),
	"issue-bypass-code": said(`{"reason":"phone left at home"}`),
	"roll-back-policy":  said(`{"version":1}`),
	"explain":           said(`{"user":"anna","machine":"bridge","scope":"logon"}`),
	"make-api-token":    said(`{"name":"backup","scopes":["read"]}`),
	"disenroll-offline": said(`{"user":"anna"}`),
	"lift-offline":      said(`{"user":"anna"}`),
	"revoke-windows":    said(`{"user":"anna"}`),
	"change-machine":    said(`{"mode":"normal"}`),
	"change-me":         said(`{"display_name":"Anna","mail":"anna@example.org"}`),
	"change-own-password": called(func(s *scene, c *call) {
		s.calm()
		c.body = `{"old":"` + annasPassword + `","new":"violet kettle marsh"}`
	}),
	"add-import-source":     said(`{"name":"payroll","address":"postgresql://reader:word@db.example.org/hr","query":"SELECT login AS name FROM people"}`),
	"begin-import":          said(`{"on_faults":"skip","codes":true}`),
	"show-effective-policy": called(func(s *scene, c *call) { c.path += "?machine=bridge" }),
	"list-api-tokens":       called(func(s *scene, c *call) { c.path += "?all=true" }),
	"follow-events":         called(func(s *scene, c *call) { c.path += "?tail=20" }),
	"upload-import": called(func(s *scene, c *call) {
		c.path, c.body, c.kind = inImport(s, rest.ImportReading, "/file?label=people.csv"), importFile, "text/csv"
	}),
	"show-import":          called(func(s *scene, c *call) { c.path = inImport(s, rest.ImportChecked, "") }),
	"drop-import":          called(func(s *scene, c *call) { c.path = inImport(s, rest.ImportChecked, "") }),
	"list-import-rows":     called(func(s *scene, c *call) { c.path = inImport(s, rest.ImportChecked, "/rows") }),
	"export-import-faults": called(func(s *scene, c *call) { c.path = inImport(s, rest.ImportChecked, "/faults.csv") }),
	"apply-import":         called(func(s *scene, c *call) { c.path = inImport(s, rest.ImportChecked, "/apply") }),
	"fetch-import-codes":   called(func(s *scene, c *call) { c.path = inImport(s, rest.ImportDone, "/codes") }),
	"begin-session":        called(func(s *scene, c *call) { s.calm(); c.body = `{"name":"anna","password":"` + annasPassword + `"}` }),
	"answer-session":       called(func(s *scene, c *call) { c.body = fmt.Sprintf(`{"signin":%q,"code":%q}`, s.signin(), s.code(s.seed)) }),
	"choose-session": func(s *scene, c call) []call {
		mail := c
		s.hasMail()
		c.name, c.body = "an app", fmt.Sprintf(`{"signin":%q,"kind":"totp"}`, s.signin())
		mail.name, mail.body = "a mail", fmt.Sprintf(`{"signin":%q,"kind":"mail"}`, s.signin())
		return []call{c, mail}
	},
	"cancel-session": called(func(s *scene, c *call) { c.body = fmt.Sprintf(`{"signin":%q}`, s.signin()) }),
	"cancel-proof":   called(func(s *scene, c *call) { c.secret = s.anna }),
	"show-proof":     called(func(s *scene, c *call) { c.secret = s.anna }),
	"choose-proof": func(s *scene, c call) []call {
		s.hasMail()
		// Who is given a factor is signed out.
		c.secret, c.name, c.body = s.somebody(s.t, "anna", rest.RoleNone, session.CLI, 0), "an app", `{"kind":"totp"}`
		mail := c
		mail.name, mail.body = "a mail", `{"kind":"mail"}`
		return []call{c, mail}
	},
	"lose-own-machine":  said(`{"told":"in the tram"}`),
	"report-own-signin": said(`{"told":"not me"}`),
	"handle-report":     said(`{"answer":"looked after"}`),
	"remove-view":       called(func(s *scene, c *call) { c.path = rest.Base + "/events/views/" + s.view() }),
	"list-views":        called(func(s *scene, c *call) { s.view() }),
	"preview-policy":    said(`{"settings":{"window":"4h"}}`),
	"refuse-machine": called(func(s *scene, c *call) {
		s.Machine(s.t, "waiting", rest.MachinePending)
		c.path = rest.Base + "/machines/waiting/refuse"
	}),
	"remove-machine": called(func(s *scene, c *call) {
		s.Machine(s.t, "gone", rest.MachineRevoked)
		c.path = rest.Base + "/machines/gone"
	}),
	"renew-password": called(func(s *scene, c *call) {
		s.must(s.SetPassword(s.t.Context(), desk.Root(), "anna", rest.NewPassword{Password: rest.HideText(annasPassword), MustChange: true}))
		in := s.signin()
		res := s.ask("POST", rest.Base+"/sessions/answer", fmt.Sprintf(`{"signin":%q,"code":%q}`, in, s.code(s.seed)))
		if res.StatusCode != http.StatusOK {
			s.t.Fatal(res.Status)
		}
		c.body = fmt.Sprintf(`{"signin":%q,"password":"violet kettle marsh"}`, fields(s.t, res)["signin"])
	}),
	"prove-session": called(func(s *scene, c *call) {
		s.calm()
		c.secret, c.body = s.anna, fmt.Sprintf(`{"code":%q}`, s.code(s.seed))
	}),
	"ask-approval": called(func(s *scene, c *call) {
		s.somebody(s.t, "second", rest.RoleOwner, session.CLI, 0)
		c.body = `{"action":"issue-enrolment-code","subject":"second","reason":"new phone"}`
	}),
	"decide-approval": called(func(s *scene, c *call) {
		s.somebody(s.t, "third", rest.RoleOwner, session.CLI, 0)
		second := s.somebody(s.t, "second", rest.RoleOwner, session.CLI, 0)
		res := s.ask("POST", rest.Base+"/approvals", `{"action":"issue-enrolment-code","subject":"third","reason":"new phone"}`, auth(second)...)
		c.path, c.body = rest.Base+"/approvals/"+read[rest.Approval](s.t, res).ID+"/decide", `{"approve":true}`
	}),
	"query-import": called(func(s *scene, c *call) {
		pg, err := url.Parse(storetest.BarePostgreSQL(s.t))
		s.must(err)
		c.path = inImport(s, rest.ImportReading, "/query")
		c.body = fmt.Sprintf(`{"address":%q,"query":"SELECT 'dora' AS name"}`, "postgresql://"+pg.User.Username()+"@"+pg.Path+"?socket="+pg.Query().Get("host"))
	}),
	"change-mail": said(`{"on":true,"host":"mail.example.org","from":"latchkey@example.org"}`),
	"change-sms":  said(`{"on":true,"url":"https://sms.example.org/send"}`),
	"test-mail": called(func(s *scene, c *call) {
		s.posts()
		c.body = `{"to":"anna@example.org"}`
	}),
	"test-sms": called(func(s *scene, c *call) {
		s.posts()
		c.body = `{"to":"+491701234567"}`
	}),
	"add-mail": said(`{"address":"anna@example.org"}`),
	"add-sms":  said(`{"address":"+49 170 1234567"}`),
	"begin-own-address": called(func(s *scene, c *call) {
		s.posts()
		c.body = `{"address":"anna@example.org"}`
	}),
	"confirm-own-address": called(func(s *scene, c *call) {
		s.posts()
		res := s.ask("POST", rest.Base+"/me/addresses/mail", `{"address":"anna@example.org"}`, auth(s.anna)...)
		c.body = fmt.Sprintf(`{"ticket":%q,"code":%q}`, read[rest.PendingAddress](s.t, res).Ticket, s.mailed())
	}),
	"open-certificate-session": called(func(s *scene, c *call) {
		s.certificates()
		c.secret, s.peer = "", s.Certificate(s.t, s.annaID, "")
	}),
	"request-own-certificate": called(func(s *scene, c *call) {
		s.certificates()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.must(err)
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		s.must(err)
		b, err := json.Marshal(rest.NewCertificate{Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), Name: "a browser"})
		s.must(err)
		c.body = string(b)
	}),
	"list-machine-certificates": called(func(s *scene, _ *call) { s.machineCertificate() }),
	"revoke-machine-certificate": called(func(s *scene, c *call) {
		c.path = rest.Base + "/machines/bridge/certificates/" + s.machineCertificate() + "/revoke"
	}),
	"begin-own-totp": func(s *scene, c call) []call {
		newcomer := c
		newcomer.name, newcomer.secret = "the first one, with an enrolment code", s.enrolling()
		return []call{c, newcomer}
	},
	"confirm-own-totp": func(s *scene, c call) []call {
		newcomer := c
		newcomer.name, newcomer.secret = "the first one, with an enrolment code", s.enrolling()
		newcomer.body = s.pending(newcomer.secret)
		c.body = s.pending(c.secret)
		return []call{c, newcomer}
	},
}

// certificates switches them on.
func (s *scene) certificates() {
	s.t.Helper()
	use := ca.Portal
	_, err := s.ChangeCertificateSettings(s.t.Context(), desk.Root(), rest.CertificateSettingsChange{Use: &use})
	s.must(err)
}

// machineCertificate gives bridge a certificate.
func (s *scene) machineCertificate() string {
	s.t.Helper()
	m, err := s.ShowMachine(s.t.Context(), desk.Root(), "bridge")
	s.must(err)
	id := strings.TrimPrefix(m.ID, rest.MachinePrefix)
	s.must(s.Store.Update(s.t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertMachineCertificate(ctx, db.InsertMachineCertificateParams{
			Serial: "4711", MachineID: id, NotBefore: 1, NotAfter: clock.Micros(s.Clock.Now().Add(time.Hour)), Fingerprint: "00",
		})
	}))
	return "4711"
}

// said is good input that needs another body alone.
func said(body string) func(*scene, call) []call {
	return called(func(_ *scene, c *call) { c.body = body })
}

func called(fn func(*scene, *call)) func(*scene, call) []call {
	return func(s *scene, c call) []call {
		fn(s, &c)
		return []call{c}
	}
}

func inImport(s *scene, state, tail string) string {
	return rest.Base + "/imports/" + s.imported(state) + tail
}

// posts switches mails and text messages on, and lets the policy take their codes. What is
// tried goes to a name that nobody has.
func (s *scene) posts() {
	s.t.Helper()
	ctx, root := s.t.Context(), desk.Root()
	on, host, from, url := true, "mail.invalid", "latchkey@example.org", "https://sms.invalid/send"
	_, _, err := s.ChangeMailSettings(ctx, root, "", rest.MailChange{On: &on, Host: &host, From: &from})
	s.must(err)
	_, _, err = s.ChangeSMSSettings(ctx, root, "", rest.SMSChange{On: &on, URL: &url})
	s.must(err)
	_, err = s.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"online_factors":["totp","mail","sms"]}`)})
	s.must(err)
}

// hasMail gives anna codes by mail.
func (s *scene) hasMail() {
	s.t.Helper()
	s.posts()
	_, err := s.AddAddress(s.t.Context(), desk.Root(), "anna", rest.ChannelMail, rest.NewAddress{Address: "anna@example.org"})
	s.must(err)
}

// mailed is the code of the message that was put into the queue last.
func (s *scene) mailed() string {
	s.t.Helper()
	var code string
	s.must(s.Store.Read(s.t.Context(), func(q *store.Queries) error {
		rows, err := q.ListOutbox(s.t.Context(), db.ListOutboxParams{Channel: rest.ChannelMail, N: 1})
		if err != nil {
			return err
		}
		plain, err := s.Keys.Box.Open(rows[0].Body, "outbox", "body", rows[0].ID)
		if err != nil {
			return err
		}
		code = regexp.MustCompile(`code that confirms this address is (\d{8})`).FindStringSubmatch(string(plain.Reveal()))[1]
		return nil
	}))
	return code
}

// view is a view of the owner's own.
func (s *scene) view() string {
	s.t.Helper()
	res := s.ask("POST", rest.Base+"/events/views", `{"name":"nights","query":"type=signin.denied"}`, auth(s.owner)...)
	return read[rest.View](s.t, res).ID
}

// calls are the operation with good input.
func (s *scene) calls(d *description, o *described) []call {
	c := call{secret: s.owner, path: o.fill(s.named(o)), body: d.body(o, false)}
	switch api.Rights[o.OperationID] {
	case "self":
		c.secret = s.anna
	case api.Public:
		c.secret = ""
	}
	if fn := good[o.OperationID]; fn != nil {
		return fn(s, c)
	}
	return []call{c}
}

// named gives the example for a placeholder of the operation's path.
func (s *scene) named(o *described) func(string) string {
	return func(name string) string {
		if own := s.own[name]; own != "" && api.Rights[o.OperationID] == "self" {
			return own
		}
		return s.there[name]
	}
}

// do asks.
func (s *scene) do(o *described, c call) *http.Response {
	var header []string
	if c.secret != "" {
		header = auth(c.secret)
	}
	if c.kind != "" {
		header = append(header, "Content-Type", c.kind)
	}
	return s.ask(o.method, c.path, c.body, header...)
}
