package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"latchkey/internal/event"
	"latchkey/internal/secret"
)

func TestSecretsCrossTheWireButNotALog(t *testing.T) {
	b := Begin{User: "anna", Password: Hide(secret.FromString("hunter2"))}
	raw, err := json.Marshal(b)
	if err != nil || bytes.Contains(raw, []byte("hunter2")) {
		t.Fatal(string(raw), err)
	}
	var back Begin
	if err := json.Unmarshal(raw, &back); err != nil || string(back.Password.Reveal()) != "hunter2" {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v", b, back, b.Password); strings.Contains(s, "hunter2") {
		t.Error(s)
	}
	if raw, _ := json.Marshal(Begin{}); bytes.Contains(raw, []byte("password")) {
		t.Error("an empty password is sent:", string(raw))
	}
}

func bundle(t interface{ Fatal(...any) }, key secret.Bytes, first int64, count int) Bundle {
	tags := CodeTags{ID: "a1", Period: 30, Digits: 6, First: first, Count: count}
	for s := first; s < first+int64(count); s++ {
		for _, o := range Offsets {
			tag := CodeTag(key, 30, s, fmt.Sprintf("%06d", (s+o)%1000000))
			tags.Tags = append(tags.Tags, tag[:]...)
		}
	}
	tag := BackupTag(key, secret.FromString("12345678"))
	return Bundle{UserID: "u", MachineID: "m", Generation: 1, Authenticators: []CodeTags{tags}, Backup: []BackupTagged{{"b1", tag[:]}}}
}

func TestO7ABundleTellsTheStepOfACode(t *testing.T) {
	key := secret.New(make([]byte, 32))
	_, _ = rand.Read(key.Reveal())
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Int64Range(0, 1<<33).Draw(t, "first")
		count := rapid.IntRange(1, 20).Draw(t, "count")
		raw, err := EncodeBundle(bundle(t, key, first, count))
		if err != nil {
			t.Fatal(err)
		}
		b, err := DecodeBundle(raw)
		if err != nil {
			t.Fatal(err)
		}
		a := b.Authenticators[0]
		step := first + rapid.Int64Range(-2, int64(count)+1).Draw(t, "step")
		tags, ok := a.At(step)
		if ok != (step >= a.First && step <= a.Last()) {
			t.Fatal("bounds")
		}
		if !ok {
			return
		}
		for i, o := range Offsets {
			if tags[i] != CodeTag(key, 30, step, fmt.Sprintf("%06d", (step+o)%1000000)) {
				t.Fatal("tag of another step")
			}
		}
		cut := rapid.IntRange(0, len(raw)-1).Draw(t, "cut")
		if _, err := DecodeBundle(raw[:cut]); err == nil {
			t.Fatal("a cut bundle is taken")
		}
	})
}

func TestO11EveryPartOfAnEntryIsInItsHash(t *testing.T) {
	base := JournalEntry{Seq: 1, Counter: 5, Event: event.Event{Type: event.SigninAllowed}}
	h := EntryHash("m", event.Hash{}, base)
	spent, other, proved := base, base, base
	proved.Spent = &Spent{Authenticator: "a", Step: 7, Proof: []byte{1}}
	spent.Spent = &Spent{Authenticator: "a", Step: 7}
	other.Spent = &Spent{Backup: "a", Step: 7}
	counter := base
	counter.Counter = 6
	seen := map[event.Hash]bool{h: true}
	for _, x := range []event.Hash{EntryHash("n", event.Hash{}, base), EntryHash("m", event.Hash{1}, base), EntryHash("m", event.Hash{}, spent), EntryHash("m", event.Hash{}, proved), EntryHash("m", event.Hash{}, other), EntryHash("m", event.Hash{}, counter)} {
		if seen[x] {
			t.Error("two different entries have one hash")
		}
		seen[x] = true
	}
}

func TestAProofIsOfOneCodeOnOneMachineAlone(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range [][]byte{
		SpentProof("m", Spent{Authenticator: "a", Step: 7}, []byte("123456")),
		SpentProof("n", Spent{Authenticator: "a", Step: 7}, []byte("123456")),
		SpentProof("m", Spent{Authenticator: "b", Step: 7}, []byte("123456")),
		SpentProof("m", Spent{Backup: "a", Step: 7}, []byte("123456")),
		SpentProof("m", Spent{Authenticator: "a", Step: 8}, []byte("123456")),
		SpentProof("m", Spent{Authenticator: "a", Step: 7}, []byte("123457")),
		SpentProof("ma", Spent{Step: 7}, []byte("123456")),
	} {
		if len(p) != ProofSize || seen[string(p)] {
			t.Errorf("%x is the proof of something else, too", p)
		}
		seen[string(p)] = true
	}
}

func FuzzDecodeBundle(f *testing.F) {
	raw, _ := EncodeBundle(bundle(f, secret.FromString("k"), 100, 3))
	f.Add(raw)
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := DecodeBundle(raw)
		if err != nil {
			return
		}
		for _, a := range b.Authenticators {
			for _, s := range []int64{a.First - 1, a.First, a.Last(), a.Last() + 1} {
				a.At(s)
			}
		}
		again, err := EncodeBundle(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeBundle(again); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzStep(f *testing.F) {
	f.Add([]byte(`{"begin":{"user":"anna","password":"aGk="}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s Step
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
	})
}
