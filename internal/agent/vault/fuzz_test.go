package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

func FuzzJournalFile(f *testing.F) {
	fsys := RealFS(f.TempDir())
	j := loadJournal(fsys, "m")
	for range 3 {
		if err := j.append(event.Event{Type: event.SigninDenied}, 1, &wire.Spent{Backup: "b"}, maxJournal); err != nil {
			f.Fatal(err)
		}
	}
	raw, _ := fsys.ReadFile("journal")
	f.Add(raw)
	f.Add(raw[:len(raw)-3])
	f.Fuzz(func(t *testing.T, raw []byte) {
		base, entries, good, _ := readJournal("m", raw)
		if good > len(raw) {
			t.Fatal("more octets are good than there are")
		}
		head := base
		for _, e := range entries {
			h := wire.EntryHash("m", head.hash(), e)
			if !bytes.Equal(h[:], e.Hash) || e.Seq != head.Seq+1 {
				t.Fatal("an entry that breaks the chain is taken")
			}
			head = journalHead{e.Seq, e.Hash}
		}
	})
}

func FuzzSignedFile(f *testing.F) {
	key := seal.NewKey()
	f.Add(signFrame(key, ledgerMagic, []byte("{}")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if body, err := openSigned(key, ledgerMagic, raw); err == nil && !bytes.Equal(signFrame(key, ledgerMagic, body), raw) {
			t.Fatal("a file that was not signed is taken")
		}
		_, _, _ = unframe(vaultMagic, raw)
	})
}

// FuzzStateFolder puts arbitrary bytes into every file in turn: the vault opens,
// and never says that an offline sign-in may go on.
func FuzzStateFolder(f *testing.F) {
	pub, grant, _ := ed25519.GenerateKey(nil)
	f.Add(uint8(0), frame(stateMagic, []byte(`{"machine_id":"m","class":"software","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`)))
	f.Add(uint8(1), seal.Sign(grant, seal.Policy, "m", []byte(`{"machine_id":"m","machine":{"id":"m"}}`)))
	f.Add(uint8(4), seal.Sign(grant, seal.Refusal, "m", []byte(`{"machine_id":"m"}`)))
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		names := []string{"state", "policy", "ledger", "journal", "refusal", "vaults/u", "bundles/u.1.0"}
		cfg := Config{FS: newMemFS(), MachineID: "m", GrantKey: pub, Clock: clock.NewManual(start), Cost: cheap}
		v, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.fs.WriteFile(names[int(which)%len(names)], raw); err != nil {
			t.Fatal(err)
		}
		v.Close()
		if v, err = Open(context.Background(), cfg); err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if fc := v.Facts(context.Background(), "anna"); fc.Vault != nil {
			t.Fatal("garbage opens")
		}
		v.Status(context.Background(), "")
		_ = v.Record(context.Background(), event.Event{Type: event.SigninDenied})
	})
}

func FuzzPolicyAndRefusal(f *testing.F) {
	p, _ := json.Marshal(wire.PolicyFile{MachineID: "m", Machine: policy.Machine{ID: "m"}, Policies: []policy.Policy{policy.NewPolicy()}})
	f.Add(p)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if p, err := parsePolicy(raw, "m"); err == nil && p.MachineID != "m" {
			t.Fatal("another machine's policy is taken")
		}
		_, _ = parseRefusal(raw)
	})
}

func FuzzNames(f *testing.F) {
	f.Add("0197-anna.3.0")
	f.Fuzz(func(t *testing.T, s string) {
		if u, g, n, ok := parseBundleFile(s); ok && (!fileID(u) || bundleFile(u, g, n) == "") {
			t.Fatal("a name that is not one of ours is taken")
		}
		codeForm(secret.FromString(s))
	})
}
