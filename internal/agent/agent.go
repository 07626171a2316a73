// Package agent puts the endpoint's side together: the local socket and its
// callers, the later phases of a sign-in, status, and the life of link, vault and
// conversations.
//
// It promises:
//
//   - Who may ask for what is decided by the kernel's word on the peer (uid, pid),
//     never by what the peer says. Root and the agent's own user may begin a sign-in
//     for anybody; everybody else may have the unlocking of his own session judged,
//     yes or no, and read his own status.
//   - Nobody can keep the others from signing in: connections are bounded for each
//     uid and for all who are not root, and each frame has one deadline.
//   - A key login that went past the auth phase is denied in the account phase,
//     unless the signed policy says that nothing more is asked of this account.
//   - The agent may be killed at any moment; what must survive is on the disk
//     before anybody is answered.
//
// Rows S1 (scope, subject), S8 (break-glass), S9 (password changes), S11 (service
// and peer), W6 (log-off), O1, O16 (status); architecture §4.
package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/agent/identity"
	keyring "latchkey/internal/agent/key"
	"latchkey/internal/agent/link"
	"latchkey/internal/agent/vault"
	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/health"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// Config is what the agent runs with.
type Config struct {
	State      string // folder
	Socket     string
	BreakGlass string // file
	Device     *tpm.Device
	Proxy      string // overrides the identity's; empty: that one
	Clock      clock.Clock
	Log        *slog.Logger
	Ready      func() // called once the socket listens
	// The rest is for tests; zero is right.
	Timing link.Timing
	Cost   vault.Cost
	Grain  time.Duration
}

// agent is a running one.
type agent struct {
	cfg   Config
	clk   clock.Clock
	log   *slog.Logger
	id    *identity.Identity
	link  *link.Link
	vault *vault.Vault
	talks *conversation.Conversations
	reg   *health.Register
	off   offlineHealth

	procs  processes
	names  accounts
	seen   *seen
	limits *limits
	glass  breakGlass

	unbound *health.Item // the state key, from Secure Boot

	mu   sync.Mutex
	boot string

	conns sync.WaitGroup
}

// Run serves until the context ends, then closes what it opened. The error says
// why it could not begin, or why the socket broke.
func Run(ctx context.Context, cfg Config) error {
	if err := identity.Folder(cfg.State); err != nil {
		return err
	}
	lock, err := identity.Lock(ctx, cfg.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	id, key, err := identity.Load(cfg.State, cfg.Device)
	if err != nil {
		return err
	}
	if cfg.Proxy != "" {
		if err := identity.CheckProxy(cfg.Proxy); err != nil {
			return err
		}
		id.Proxy = cfg.Proxy
	}
	dropOldVaults(ctx, cfg, id)

	v, err := vault.Open(ctx, vault.Config{
		Dir: id.VaultDir(cfg.State), MachineID: id.MachineID, Machine: id.Name, Device: cfg.Device, GrantKey: id.Grant(), PermitKey: id.Permit(),
		Clock: cfg.Clock, Log: cfg.Log.With("part", "vault"), BootID: bootID(), SecureBoot: secureBoot, Cost: cfg.Cost,
	})
	if err != nil {
		return err
	}
	defer v.Close()
	a := compose(cfg, id, key, v)

	l, err := listen(cfg.Socket)
	if err != nil {
		return err
	}
	cfg.Log.Info("the agent serves", "socket", cfg.Socket, "machine", id.Name, "server", id.Server, "version", buildinfo.Version())
	if cfg.Ready != nil {
		cfg.Ready()
	}
	return a.serve(ctx, l)
}

func compose(cfg Config, id *identity.Identity, key crypto.Signer, v *vault.Vault) *agent {
	a := &agent{
		cfg: cfg, clk: cfg.Clock, log: cfg.Log, id: id, vault: v, reg: health.New(cfg.Clock.Now),
		procs: systemProcesses(), names: systemAccounts(), limits: newLimits(cfg.Clock), glass: breakGlass{cfg.BreakGlass},
	}
	a.seen, a.off = newSeen(cfg.Clock), newOfflineHealth(a.reg)
	a.unbound = a.reg.Define(health.Problem{
		Code: "tpm-not-boot-bound", Severity: health.Warning,
		Text: "Secure Boot is on, and the TPM did not bind this machine's key to it: another system started on this machine could use it.",
		Next: "Look for what the agent's log says of it, and for newer firmware of the TPM; it is tried again at every contact.",
	})
	a.link = link.New(link.Config{
		Dir: cfg.State, Identity: id, Key: key, Vault: v, Facts: a.facts, Clock: cfg.Clock, Log: cfg.Log.With("part", "link"),
		Health: a.reg, Built: buildinfo.Time(), Timing: cfg.Timing,
	})
	talks := conversation.Config{Server: a.link, Vault: v, Clock: cfg.Clock, Log: cfg.Log.With("part", "signin"), Machine: id.Name, Grain: cfg.Grain, Admit: a.admit}
	if runtime.GOOS == "linux" { // elsewhere nothing finds keys yet
		talks.Key = newSeat(&keyring.Keys{Find: keyring.Find, Clock: cfg.Clock}, id.MachineID)
	}
	a.talks = conversation.New(talks)
	return a
}

// serve runs the link and answers the socket.
func (a *agent) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { a.link.Run(ctx) })
	wg.Go(func() { a.sweep(ctx) })
	if !a.learnBoot(ctx) {
		wg.Go(func() {
			for a.clk.Sleep(ctx, sweepEvery) == nil && !a.learnBoot(ctx) {
			}
		})
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()

	err := a.accept(ctx, l)
	cancel()
	a.conns.Wait()
	a.talks.Close()
	wg.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("the local socket broke: %w", err)
	}
	return nil
}

// accept takes connections. One that fails for want of files is not the end.
func (a *agent) accept(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			a.conns.Go(func() { a.connection(ctx, c) })
		case ctx.Err() != nil:
			return nil
		case isTemporary(err):
			a.log.Error("a connection of a shim could not be taken", "err", err)
			if a.clk.Sleep(ctx, 100*time.Millisecond) != nil {
				return nil
			}
		default:
			return err
		}
	}
}

// facts is what the machine says of itself at each greeting.
func (a *agent) facts(ctx context.Context) wire.MachineFacts {
	ctx, cancel := context.WithTimeout(ctx, factsTime)
	defer cancel()
	f := a.vault.MachineFacts(ctx)
	complete(&f)
	f.KeyInTPM = a.id.KeyPlace == identity.KeyTPM
	return f
}

// factsTime bounds how long a greeting waits for the TPM.
const factsTime = 3 * time.Second

// bootNow names the present boot, or is empty while the TPM has not said which one
// it is; then no window silences anything (W5). No sign-in waits for a TPM that
// does not answer.
func (a *agent) bootNow() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.boot
}

// learnBoot asks the TPM until it answers: a boot does not change while the agent
// runs.
func (a *agent) learnBoot(ctx context.Context) (known bool) {
	ctx, cancel := context.WithTimeout(ctx, factsTime)
	defer cancel()
	boot := a.vault.Boot(ctx)
	if strings.Contains(boot, ":unknown-") {
		return false
	}
	a.mu.Lock()
	a.boot = boot
	a.mu.Unlock()
	return true
}

// dropOldVaults removes offline data of identities that this machine had before.
func dropOldVaults(ctx context.Context, cfg Config, id *identity.Identity) {
	for machine, dir := range id.OldVaults(cfg.State) {
		err := vault.Discard(ctx, vault.Config{Dir: dir, MachineID: machine, Device: cfg.Device, Clock: cfg.Clock, Log: slog.New(slog.DiscardHandler), Cost: cfg.Cost})
		if err != nil {
			cfg.Log.Warn("offline data of an earlier identity could not be removed whole", "folder", dir, "err", err)
			continue
		}
		cfg.Log.Info("offline data of an earlier identity was removed", "folder", dir)
	}
}
