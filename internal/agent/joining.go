package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/link"
	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/seal"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// Joining is what `latchkey-agent join` was told.
type Joining struct {
	Token  string
	State  string
	Name   string
	Proxy  string
	Again  bool // replace the identity that is there
	Device *tpm.Device
	Clock  clock.Clock
	Built  time.Time
	Log    *slog.Logger
}

// Joined is what came of it.
type Joined struct {
	Identity *identity.Identity
	Pending  bool // an administrator has to approve
	InTPM    bool
}

// Join makes this machine one of a server's. Until the server has agreed and the
// answer was checked nothing is written but the folder; then the identity is
// written whole or not at all.
func Join(ctx context.Context, j Joining) (Joined, error) {
	token, err := wire.DecodeToken(j.Token)
	if err != nil {
		return Joined{}, err
	}
	defer token.Secret.Wipe()
	if err := identity.CheckProxy(j.Proxy); err != nil {
		return Joined{}, err
	}
	if err := identity.Folder(j.State); err != nil {
		return Joined{}, err
	}
	lock, err := identity.Lock(ctx, j.State)
	if err != nil {
		return Joined{}, err
	}
	defer lock.Close()
	if err := replaceable(j); err != nil {
		return Joined{}, err
	}
	if err := identity.Writable(j.State); err != nil {
		return Joined{}, err
	}
	key, err := identity.NewKey(ctx, j.Device)
	if err != nil {
		return Joined{}, fmt.Errorf("no machine key could be made in the TPM: %w. Clear up the TPM, or join with --tpm none", err)
	}
	defer key.Record.Wipe()
	signer, err := key.Signer(j.Device)
	if err != nil {
		return Joined{}, err
	}
	id, reply, err := link.Join(ctx, link.Joining{
		Token: token, Name: j.Name, Proxy: j.Proxy, Key: key, Signer: signer, Facts: joinFacts(ctx, j), Clock: j.Clock, Built: j.Built,
	})
	if err != nil {
		return Joined{}, err
	}
	failpoint.Hit("agent.joined")
	if err := identity.Save(j.State, id, key); err != nil {
		return Joined{}, fmt.Errorf("the server has taken this machine as %q, but the identity could not be written: %w. Mend that and join with a new token", reply.Name, err)
	}
	return Joined{Identity: id, Pending: reply.Status != "active", InTPM: key.Place == identity.KeyTPM}, nil
}

// replaceable tells whether there is no identity, or one that may be replaced.
func replaceable(j Joining) error {
	old, err := identity.Read(j.State)
	switch {
	case errors.Is(err, identity.ErrNotJoined):
		return nil
	case err != nil && !j.Again:
		return fmt.Errorf("%w. Join with --again to replace it", err)
	case err != nil:
		return nil
	}
	note := refusalOf(old, j.State)
	if j.Again {
		if note != nil {
			j.Log.Warn("the identity that is replaced was refused by its server", "status", note.Status, "text", note.Text)
		}
		return nil
	}
	if note != nil {
		return fmt.Errorf("this machine was joined as %q and its server has since refused it (%s): %s Join with --again to give it a new identity", old.Name, note.Status, note.Text)
	}
	return fmt.Errorf("this machine has joined %s as %q already. Join with --again to replace that; its offline data is then lost", old.Server, old.Name)
}

// refusalOf reads the refusal that the vault of an identity keeps, if it is one.
func refusalOf(id *identity.Identity, state string) *wire.RefusalNote {
	name := filepath.Join(id.VaultDir(state), "refusal")
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() > 64<<10 {
		return nil
	}
	signed, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	payload, err := seal.Verify(id.Grant(), seal.Refusal, id.MachineID, signed)
	if err != nil {
		return nil
	}
	var n wire.RefusalNote
	if json.Unmarshal(payload, &n) != nil {
		return nil
	}
	return &n
}

// joinFacts is what is known before there is a vault; the rest comes with the
// first greeting.
func joinFacts(ctx context.Context, j Joining) wire.MachineFacts {
	f := wire.MachineFacts{Boot: bootID(), Class: vault.ClassSoftware}
	if j.Device != nil {
		f.Class, f.KeyInTPM = vault.ClassTPM, true
		if info, err := j.Device.Info(ctx); err == nil {
			if raw, err := json.Marshal(info); err == nil {
				f.TPM = raw
			}
			f.Boot = fmt.Sprintf("%s:%d", f.Boot, info.ResetCount)
		}
	}
	complete(&f)
	return f
}

// NotJoined tells the error of Run for a machine that has no identity yet.
func NotJoined(err error) bool { return errors.Is(err, identity.ErrNotJoined) }
