// Package server composes the parts of latchkeyd and runs them: database, keys,
// CA, the doors for machines, for people and for administrators, and the jobs that
// are nobody's request.
//
// It promises: a first start makes everything that is needed and says what it made;
// nothing is served before all of it stands; plain HTTP is served to nobody but
// root on the admin socket and, where asked for, metrics on a loopback address;
// when it is told to stop, every poll is answered, what was begun is finished, and
// it is gone within five seconds. The plug-ins (factors, directories) are chosen by
// the command, not here.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/api"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/post"
	"latchkey/internal/server/push"
	"latchkey/internal/server/session"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/web"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/statefile"
)

// Config is what a server is made from. Data, Listen, ListenAgent, AdminSocket,
// Clock and Log are required.
type Config struct {
	Data        string   // folder of the master key and, without Database, of the database
	Database    string   // "sqlite:PATH" or "postgres://…"; empty: latchkey.db in Data
	Replica     string   // name of this server's event chain; empty: "main"
	Listen      string   // address for people
	ListenAgent string   // address for machines
	AdminSocket string   // for the administrators of this host
	Metrics     string   // loopback address for Prometheus; empty: only on the admin socket
	PeopleURL   string   // https://HOST[:PORT] as people reach it; empty: what the listener tells
	Names       []string // further host names and addresses by which the server is reached
	// Outward is where notices to phones and text messages may go, where the settings name
	// nothing; the zero value: to public addresses alone, straight.
	Outward settings.Outward
	// TLSCert and TLSKey are files of a certificate of one's own for the people's door;
	// both or none. Reload has them read at once; may be nil. The machines' door always
	// shows Latchkey's own.
	TLSCert, TLSKey string
	Reload          <-chan struct{}
	// Plugs makes the kinds of factors that need parts of the server; may be nil.
	Plugs func(Parts) []factor.Factor
	// Directories are the settings of the directories, by their names; may be nil.
	Directories map[string]any

	Clock   clock.Clock
	Log     *slog.Logger
	Out     io.Writer // a few lines for the person who starts it; may be nil
	Version string
	// Ready is called once everything is served; may be nil.
	Ready func(Addresses)
}

// Parts are what kinds of factors stand on, beside the keeper of codes.
type Parts struct {
	Push     *push.Service
	Post     *post.Post
	Passkeys *passkey.Service
}

// Addresses are where a running server is reached. They are written to serve.json
// in the data folder, for scripts that had it choose a port.
type Addresses struct {
	PID         int    `json:"pid"`
	Listen      string `json:"listen"`
	ListenAgent string `json:"listen_agent"`
	AdminSocket string `json:"admin_socket"`
	Metrics     string `json:"metrics,omitempty"`
	CA          string `json:"ca"` // SHA-256 of the CA's certificate
}

// AddressFile is the name of the file in the data folder.
const AddressFile = "serve.json"

// stopTime is how long requests that are under way get when the server stops.
const stopTime = 4 * time.Second

// DatabaseOf is the address of the database of a data folder.
func DatabaseOf(data, database string) string {
	if database != "" {
		return database
	}
	return "sqlite:" + filepath.Join(data, "latchkey.db")
}

// running is a server and its parts.
type running struct {
	Config
	host  string
	store *store.Store
	keys  *keys.Keys
	ca    *ca.Authority
	api   *agentapi.API
	sign  *signin.Service
	off   *offline.Service
	bulk  *bulk.Service
	stats *stats
	desk  *desk.Desk
	push  *push.Service
	post  *post.Post

	phones   *phoneapi.Door
	sessions *session.Sessions

	cert  *ownCert // at the people's door; nil: the CA's
	certs *shownCerts

	setup string // file of the code for the first owner; empty: there is an owner

	percent int // the collector's, as it was set last

	ready readiness

	made   []string // what the first start has made, for people
	addrs  Addresses
	failed chan error
}

// Run serves until ctx ends. A returned error means that it could not start, or
// that a part of it died.
func Run(ctx context.Context, c Config) (err error) {
	r := &running{Config: c, failed: make(chan error, 8)}
	if r.Out == nil {
		r.Out = io.Discard
	}
	if err := prepareFolder(c.Data); err != nil {
		return err
	}
	unlock, err := lockFolder(c.Data)
	if err != nil {
		return err
	}
	defer unlock()
	if r.host, err = os.Hostname(); err != nil {
		r.host = "localhost"
	}
	if err := r.openCertificate(); err != nil {
		return err
	}
	// Everything below is closed in the opposite order.
	var undo []func()
	defer func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}()
	r.store, err = store.Open(ctx, store.Config{
		Database: DatabaseOf(c.Data, c.Database), Replica: c.Replica, Backups: filepath.Join(c.Data, "backup"), Clock: c.Clock, Logger: c.Log,
		Claim: true, Rewound: func(ctx context.Context, tx *store.Tx) error { return rewound(ctx, tx, c.Clock.Now()) },
	})
	if err != nil {
		return err
	}
	undo = append(undo, func() { err = errors.Join(err, r.store.Close()) })
	if err := r.open(ctx); err != nil {
		return err
	}
	handlers, err := r.compose()
	if err != nil {
		return err
	}

	life, end := context.WithCancel(context.WithoutCancel(ctx))
	undo = append(undo, end)
	doors, err := r.listen(life, handlers)
	if err != nil {
		return err
	}
	undo = append(undo, func() { closeDoors(doors) })
	failpoint.Hit("server.listening")
	if err := r.writeAddresses(); err != nil {
		return err
	}
	undo = append(undo, func() { _ = os.Remove(filepath.Join(c.Data, AddressFile)) })
	if err := r.event(ctx, event.ServerStarted, map[string]any{"version": c.Version, "engine": r.store.Engine()}); err != nil {
		return err
	}
	if r.setup, err = r.sessions.WriteSetup(ctx); err != nil {
		return fmt.Errorf("the code for the first owner: %w", err)
	}
	jobs := r.startJobs(life)
	for _, d := range doors {
		go d.serve(r.failed)
	}
	r.greet(ctx)
	r.Log.Info("the server is ready", "people", r.addrs.Listen, "machines", r.addrs.ListenAgent, "admin", r.addrs.AdminSocket, "metrics", r.addrs.Metrics,
		"database", r.store.Engine(), "version", c.Version)
	if c.Ready != nil {
		c.Ready(r.addrs)
	}

	select {
	case <-ctx.Done():
	case err = <-r.failed:
		r.Log.Error("a door failed; the server stops", "error", err)
	}
	r.Log.Info("the server stops")
	r.stop(doors, end)
	jobs()
	r.bulk.Close()
	if e := r.event(context.WithoutCancel(ctx), event.ServerStopped, nil); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// stop answers polls, lets go of followers of the event log, and gives the rest
// stopTime.
func (r *running) stop(doors []*door, end context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	done := make(chan struct{}, len(doors))
	// The listeners close before the polls are answered: who was answered must not
	// come back to this server.
	for _, d := range doors {
		go func() {
			if err := d.server.Shutdown(ctx); err != nil {
				_ = d.server.Close()
			}
			done <- struct{}{}
		}()
	}
	r.api.Stop()
	r.phones.Stop()
	end()
	for range doors {
		<-done
	}
}

// prepareFolder makes the data folder, or refuses one that belongs to somebody else or
// that others may look into.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("data folder: %s is no folder", dir)
	}
	return checkFolder(dir, info)
}

// open opens keys and CA and makes sure that there is a default policy.
func (r *running) open(ctx context.Context) error {
	_, err := os.Stat(keys.MasterPath(r.Data))
	fresh := errors.Is(err, fs.ErrNotExist)
	var made bool
	if r.keys, made, err = keys.Open(ctx, keys.Config{Dir: r.Data, Store: r.store, Clock: r.Clock}); err != nil {
		return err
	}
	if err := finishRestore(ctx, r.store, r.Clock); err != nil {
		return fmt.Errorf("finish the restore from a backup that was broken off: %w", err)
	}
	if fresh {
		r.made = append(r.made, "master key      "+keys.MasterPath(r.Data))
	}
	if made {
		r.made = append(r.made, "signing keys    in the database, sealed under the master key")
	}
	if r.ca, made, err = ca.Open(ctx, ca.Config{Store: r.store, Keys: r.keys, Clock: r.Clock, PeopleURL: r.peopleURL}); err != nil {
		return err
	}
	if made {
		f := r.ca.Fingerprint()
		r.made = append(r.made, "CA              SHA-256 "+hex.EncodeToString(f[:]))
	}
	if made, err = defaultPolicy(ctx, r.store, r.Clock); err != nil {
		return fmt.Errorf("make the default policy: %w", err)
	}
	if made {
		failpoint.Hit("server.made")
		r.made = append(r.made, "default policy  a second factor at every sign-in, without the server too")
	}
	return nil
}

// rewound deals with a database that has lost its last changes: a standby took over
// that did not have them yet. What was accepted or ended in them is not known any
// more. So no one-time code is accepted that may have been before (S10), every window
// ends, because it may have been ended (W7), no generation that was being made is
// finished, because its permits may have been signed (O8), and machines are given
// later policies than they can have seen. It may be done twice.
func rewound(ctx context.Context, tx *store.Tx, now time.Time) error {
	if err := factor.SpendAll(ctx, tx, now); err != nil {
		return err
	}
	// Codes that were sent, too: any may have been used.
	if _, err := tx.DeleteOldPostCodes(ctx, clock.Micros(now)+1); err != nil {
		return err
	}
	// And what phones have approved, and codes with which they enrol.
	if _, err := tx.WithdrawAllPushRequests(ctx); err != nil {
		return err
	}
	if _, err := tx.EndAllPushEnrolments(ctx, clock.Micros(now)); err != nil {
		return err
	}
	if _, err := tx.EndWindows(ctx, db.EndWindowsParams{At: clock.Micros(now), Reason: "database-rewound"}); err != nil {
		return err
	}
	if _, err := tx.RetireAllActivating(ctx, clock.Micros(now)); err != nil {
		return err
	}
	return offline.Restored(ctx, tx, now)
}

// DefaultPolicyName is what the first start calls the default policy.
const DefaultPolicyName = "default"

// defaultPolicy makes the default policy unless there is one (P1). Of two replicas
// one makes it: the name is unique.
func defaultPolicy(ctx context.Context, s *store.Store, c clock.Clock) (made bool, err error) {
	exists := func(q *store.Queries) (bool, error) {
		_, err := q.GetDefaultPolicy(ctx)
		if store.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	}
	err = s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		made = false
		there, err := exists(tx.Queries)
		if err != nil || there {
			return err
		}
		body, err := json.Marshal(policy.NewPolicy())
		if err != nil {
			return err
		}
		id, now := store.NewID(), clock.Micros(c.Now())
		err = tx.InsertPolicy(ctx, db.InsertPolicyParams{ID: id, Name: DefaultPolicyName, IsDefault: true, Body: string(body), CreatedAt: now, UpdatedAt: now})
		if err != nil {
			return err
		}
		err = tx.InsertPolicyVersion(ctx, db.InsertPolicyVersionParams{
			PolicyID: id, Version: 1, Name: DefaultPolicyName, Body: string(body), Groups: "[]", Actor: "server", At: now, Comment: "made at the first start",
		})
		if err != nil {
			return err
		}
		made = true
		_, err = tx.Event(event.Event{Type: event.PolicyChanged, Actor: "server", Subject: DefaultPolicyName, Reason: "first-start"})
		return err
	})
	if store.IsDuplicate(err) {
		var there bool
		err = s.Read(ctx, func(q *store.Queries) (err error) { there, err = exists(q); return err })
		if err == nil && !there {
			err = fmt.Errorf("a policy is called %q and is not the default", DefaultPolicyName)
		}
		return false, err
	}
	return made && err == nil, err
}

// handlers are what the doors serve.
type handlers struct {
	people, admin, metrics http.Handler
}

func (r *running) compose() (h handlers, err error) {
	keeper := &factor.Keeper{Box: r.keys.Box, Pepper: r.keys.Pepper, Random: rand.Reader}
	directories, err := directory.All(directory.Deps{Clock: r.Clock, Logger: r.Log, Settings: r.Directories})
	if err != nil {
		return h, err
	}
	passwords, ok := directories.Of(nil).(desk.Passwords)
	if !ok {
		return h, errors.New("the directory of local users can not set passwords")
	}
	door := enroll.New(enroll.Config{Store: r.store, Keys: r.keys, CA: r.ca, Clock: r.Clock, Log: r.Log})
	r.off = offline.New(offline.Config{Store: r.store, Keys: r.keys, Keeper: keeper, Clock: r.Clock, Random: rand.Reader, Log: r.Log})
	r.push = push.New(push.Deps{
		Store: r.store, Box: r.keys.Box, Pepper: r.keys.Pepper, Random: rand.Reader, Clock: r.Clock, Log: r.Log, PeopleURL: r.peopleURL, Delivery: push.Delivery{Private: r.Outward.Push, Proxy: r.Outward.Proxy},
	})
	r.post = post.New(post.Config{Store: r.store, Keys: r.keys, Clock: r.Clock, Random: rand.Reader, Log: r.Log, PeopleURL: r.peopleURL, Proxy: r.Outward.Proxy})
	r.store.OnEvent(r.post.Notice)
	keys := passkey.New(passkey.Config{Random: rand.Reader, URL: r.peopleURL})
	var plugs []factor.Factor
	if r.Plugs != nil {
		plugs = r.Plugs(Parts{Push: r.push, Post: r.post, Passkeys: keys})
	}
	factors := factor.All(keeper, plugs...)
	r.sign = signin.New(signin.Deps{
		Store: r.store, Keys: r.keys, Directories: directories, Factors: factors, Clock: r.Clock, Logger: r.Log,
	})
	r.certs = newShownCerts(r)
	r.stats = newStats()
	r.api = agentapi.New(agentapi.Config{
		Store: r.store, CA: r.ca, Enroll: door, Offline: r.off, Signin: r.sign, Clock: r.Clock, Log: r.Log, Version: r.Version, Observe: r.stats.request,
	})
	r.stats.watch(r)
	proxy, networks := r.Outward.Words()
	r.desk = desk.New(desk.Config{
		OutwardProxy: proxy, PushNetworks: networks,
		Store: r.store, Keys: r.keys, Clock: r.Clock, Random: rand.Reader, Passwords: passwords, Factors: keeper, Door: door, Push: r.push, Passkeys: keys, Post: r.post, CA: r.ca.Fingerprint, CACert: r.ca.Certificate,
		Issuer: r.ca, ServerURL: r.machinesURL(), PeopleURL: r.peopleURL, Version: r.Version, Logger: r.Log,
	})
	r.sessions = session.New(session.Config{
		Store: r.store, Keys: r.keys, Directories: directories, Factors: factors, Clock: r.Clock, Random: rand.Reader,
		Passkeys: keys, Certificates: r.ca, PeopleURL: r.peopleURL, SetupFile: filepath.Join(r.Data, "setup-code"), Logger: r.Log,
	})
	r.desk.Sessions = r.sessions
	r.bulk = bulk.New(bulk.Config{Store: r.store, Desk: r.desk, Box: r.keys.Box, Clock: r.Clock, Passwords: passwords, Codes: keeper, Log: r.Log})
	rest := api.New(api.Deps{Bulk: r.bulk, Desk: r.desk, Version: r.Version, Logger: r.Log, NotReady: r.notReady, Sessions: r.sessions})
	r.phones = phoneapi.New(phoneapi.Deps{Push: r.push, Desk: r.desk, Store: r.store, Clock: r.Clock, Log: r.Log})
	h.people = r.front(web.New(web.Deps{Deps: ui.Deps{
		MachinePort: func() string { _, port, _ := net.SplitHostPort(r.addrs.ListenAgent); return port },
		Desk:        r.desk, Sessions: r.sessions, Bulk: r.bulk, Clock: r.Clock, Log: r.Log, Version: r.Version, NotReady: r.notReady,
		OtherCA: func() bool { return r.cert != nil },
	}, API: r.fronted(rest), Phones: r.phones}))
	h.metrics = r.stats.handler()
	mux := http.NewServeMux()
	r.health(mux)
	mux.Handle("GET /metrics", h.metrics)
	mux.Handle("/", rest)
	h.admin = asRoot(mux)
	return h, nil
}

// asRoot says on whose behalf requests over the admin socket are made: the listener
// has let in nobody else.
func asRoot(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		next.ServeHTTP(w, req.WithContext(api.WithActor(req.Context(), desk.Root())))
	})
}

// machinesURL is how machines reach this server, as far as it can tell; tokens name
// it unless somebody says better. A port that is chosen by the system is not known
// yet: then there is none.
func (r *running) machinesURL() string {
	host, port, err := net.SplitHostPort(r.ListenAgent)
	if err != nil || port == "0" {
		return ""
	}
	if len(r.Names) > 0 {
		host = r.Names[0]
	}
	return "https://" + r.reached(net.JoinHostPort(host, port))
}

// peopleURL is how people reach this server, as far as it can tell: the address that
// was given, or the listener's own. It is asked when the doors stand.
func (r *running) peopleURL() string {
	if r.PeopleURL != "" {
		return r.PeopleURL
	}
	host, port, err := net.SplitHostPort(r.addrs.Listen)
	if err != nil {
		return ""
	}
	if len(r.Names) > 0 {
		host = r.Names[0]
	}
	host, port, err = net.SplitHostPort(r.reached(net.JoinHostPort(host, port)))
	if err != nil {
		return ""
	}
	host = strings.ToLower(host)
	if port == "443" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, port)
}

// reached is how a listener's address is told to people: nobody can open [::], so
// that a listener on all addresses goes by the host's name.
func (r *running) reached(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host = r.host; len(r.Names) > 0 {
			host = r.Names[0]
		}
	}
	return net.JoinHostPort(host, port)
}

// event writes an event of the server itself.
func (r *running) event(ctx context.Context, t event.Type, about map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	e := event.Event{Type: t, Actor: "server", Subject: r.host}
	if about != nil {
		b, err := json.Marshal(about)
		if err != nil {
			return err
		}
		e.Data = b
	}
	return r.store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
		_, err := tx.Event(e)
		return err
	})
}

// writeAddresses says in a file where the server is reached, whole or not at all.
func (r *running) writeAddresses() error {
	b, err := json.MarshalIndent(r.addrs, "", "  ")
	if err != nil {
		return err
	}
	return statefile.Replace(filepath.Join(r.Data, AddressFile), append(b, '\n'))
}

// greet tells the person who has started it what was made and, as long as there
// is nobody who could sign in, what to do next.
func (r *running) greet(ctx context.Context) {
	people, machines := "https://"+r.reached(r.addrs.Listen), "https://"+r.reached(r.addrs.ListenAgent)
	cli := "latchkey"
	if r.addrs.AdminSocket != DefaultAdminSocket {
		cli += " --server unix:" + r.addrs.AdminSocket
	}
	if len(r.made) > 0 {
		fmt.Fprintf(r.Out, "Latchkey server %s: the first start. It has made:\n  %s\n", r.Version, strings.Join(r.made, "\n  "))
	}
	// The first start may have failed behind the making, at a port that was taken.
	users, place := int64(-1), r.peopleURL()
	r.warnOfNames(ctx)
	_ = r.store.Read(ctx, func(q *store.Queries) (err error) {
		if users, err = q.CountUsers(ctx); err != nil {
			return err
		}
		place, err = settings.People(ctx, q, r.peopleURL)
		return err
	})
	remark := rest.PlaceRemark(place)
	setPlace := strings.Replace(rest.SetPlace, "latchkey", cli, 1)
	if users == 0 {
		fmt.Fprintln(r.Out, "Next:")
		var steps [][2]string
		if remark != "" {
			// Passkeys and phones are bound to it.
			steps = append(steps, [2]string{"people's address, before any of the others", setPlace})
		}
		for _, step := range append(steps, [][2]string{
			{"the first administrator, in a browser", people + "/setup"},
			{"the code for it", cli + " setup-code"},
			{"a person who signs in", cli + " user add NAME"},
			{"their second factor, shown once", cli + " factor add totp NAME"},
			{"lets one machine join", cli + " machine token"},
			{"on that machine, as root", "latchkey-agent join -   (paste the token)"},
			{"and there, unless it starts at boot", "latchkey-agent run"},
			{"a first sign-in there, for trying out", "latchkey signin NAME --service login"},
			{"a backup; the master key is in no other", "latchkeyd backup " + r.place() + " --with-key --passphrase-file FILE BACKUP"},
		}...) {
			fmt.Fprintf(r.Out, "  %-42s  %s\n", step[0], step[1])
		}
	}
	if r.setup != "" && users != 0 {
		fmt.Fprintf(r.Out, "There is no owner: %s/setup makes one, with the code of %s setup-code\n", people, cli)
	}
	if r.cert != nil {
		leaf := r.cert.now.Load().Leaf
		fmt.Fprintf(r.Out, "Certificate for people: %s, good until %s\n", strings.Join(namesOf(leaf), ", "), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if len(r.made) == 0 {
		fmt.Fprintf(r.Out, "CA: SHA-256 %s\n", r.addrs.CA)
	}
	fmt.Fprintf(r.Out, "Listening: people %s, machines %s, administration %s\n", people, machines, r.addrs.AdminSocket)
	if remark != "" {
		fmt.Fprintf(r.Out, "Warning: people's address is %s, but %s Set it before passkeys and phones are enrolled: %s\n", place, remark, setPlace)
	}
}

// place is how the commands beside the server are told where it is. An address of a
// database with a password does not belong on a screen.
func (r *running) place() string {
	at := "--data " + r.Data
	if r.Database == "" {
		return at
	}
	if u, err := url.Parse(r.Database); err == nil {
		if _, secret := u.User.Password(); !secret && !u.Query().Has("password") {
			return at + " --database '" + r.Database + "'"
		}
	}
	return at + " --config FILE"
}

// DefaultAdminSocket is where administrators find the server of a host.
const DefaultAdminSocket = "/run/latchkey/admin.sock"

// openCertificate reads the certificate of one's own for the people's door, if there
// is one.
func (r *running) openCertificate() error {
	if r.TLSCert == "" && r.TLSKey == "" {
		return nil
	}
	if r.TLSCert == "" || r.TLSKey == "" {
		return errors.New("a certificate for people needs both --tls-cert and --tls-key")
	}
	names := append(slices.Clone(r.Names), r.host)
	if host, _, err := net.SplitHostPort(r.Listen); err == nil && host != "" {
		names = append(names, host)
	}
	r.cert = &ownCert{certFile: r.TLSCert, keyFile: r.TLSKey, names: names, clock: r.Clock, log: r.Log}
	return r.cert.open()
}

// followCertificate reads it anew when its files change, and when it is told to.
func (r *running) followCertificate(life context.Context) {
	for {
		select {
		case <-life.Done():
			return
		case <-r.Reload: // nil: never
			if r.cert == nil {
				r.Log.Info("there is nothing to read anew: the people's door shows a certificate of Latchkey's own CA")
				continue
			}
			r.cert.look(true)
		case <-r.Clock.After(certLook):
			if r.cert != nil {
				r.cert.look(false)
			}
		}
	}
}

// certificate is the server's own for the address that it listens on.
func (r *running) certificate(listen string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		r.Log.Warn("the addresses of this host can not be read", "error", err)
	}
	return r.ca.ServerCertificate(ca.ServerNames(listen, r.host, addrs, r.Names))
}
