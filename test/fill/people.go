package fill

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
)

// world is what is being made.
type world struct {
	Size
	bulk
	*Made
	keeper *factor.Keeper
	box    *seal.Box
	rare   int // events of the rare type so far
	recent []recent
}

func splitColumns(s string) []string {
	f := strings.Split(s, ",")
	for i := range f {
		f[i] = strings.TrimSpace(f[i])
	}
	return f
}

// id is the n-th id of a kind, a UUIDv7 of the time.
func id(at int64, kind byte, n int) string {
	const hex = "0123456789abcdef"
	ms := uint64(at / 1000)
	var b [16]byte
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	us := at % 1000
	b[6], b[7] = 0x70|byte(us>>6), byte(us<<2)
	b[8], b[9] = 0x80, kind
	for i := range 6 {
		b[10+i] = byte(uint64(n) >> (40 - 8*i))
	}
	var out [36]byte
	j := 0
	for i, x := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out[j] = '-'
			j++
		}
		out[j], out[j+1] = hex[x>>4], hex[x&15]
		j += 2
	}
	return string(out[:])
}

// The kinds in ids.
const (
	kindUser = iota + 1
	kindGroup
	kindMachine
	kindFactor
	kindCode
	kindWindow
	kindPolicy
	kindEvent
	kindConversation
	kindPhone
	kindPhoneApp
	kindRequest
	kindPasskey
	kindMail
	kindSMS
	kindMessage
	kindPostCode
)

func (w *world) began() int64 { return clock.Micros(w.Began) }
func (w *world) now() int64   { return clock.Micros(w.Now) }

func (w *world) userID(i int) string { return id(w.began()-int64(w.Users-i)*1000, kindUser, i) }
func (w *world) machineID(i int) string {
	return id(w.began()-int64(w.Machines-i)*1000, kindMachine, i)
}
func (w *world) groupID(i int) string { return id(w.began(), kindGroup, i) }

var given = []string{"Ada", "Bela", "Chidi", "Dana", "Emre", "Farah", "Goran", "Hana", "Ines", "Jun", "Kofi", "Lena", "Mika", "Noor", "Oleg", "Pia", "Quinn", "Rosa", "Sami", "Tove", "Uma", "Vito", "Wanda", "Xenia", "Yara", "Zoran"}

var family = []string{"Abbott", "Berg", "Castro", "Dietz", "Egger", "Fuchs", "Gruber", "Hansen", "Ivanova", "Jensen", "Kowalski", "Lindt", "Moreau", "Novak", "Olsen", "Petrov", "Quist", "Rossi", "Schmidt", "Tanaka", "Urban", "Vogel", "Weber", "Xu", "Yilmaz", "Zhang"}

// The places of those who are named.
const (
	admin = iota
	busy
	quiet
	usual
)

func userName(i int) string {
	switch i {
	case admin:
		return "olivia"
	case busy:
		return "svc.deploy"
	case quiet:
		return "newcomer"
	}
	return fmt.Sprintf("%s.%s%d", strings.ToLower(given[i%len(given)]), strings.ToLower(family[i/len(given)%len(family)]), i)
}

func groupName(i int) string {
	if i == 0 {
		return "staff"
	}
	return fmt.Sprintf("team-%04d", i)
}

func machineName(i int) string {
	if i == quiet {
		return "unpacked-pc"
	}
	return fmt.Sprintf("%s-%05d", []string{"pc", "laptop", "srv", "kiosk"}[i%4], i)
}

func (w *world) people(ctx context.Context) error {
	w.Admin, w.Busy, w.Quiet, w.Usual = userName(admin), userName(busy), userName(quiet), userName(w.Users/2)
	w.Group, w.Password = groupName(0), "plum orchard ladder"
	dir, err := local.New(local.Config{Clock: clock.Real})
	if err != nil {
		return err
	}
	hash, err := dir.Hash(ctx, w.Admin, secret.FromString(w.Password))
	if err != nil {
		return err
	}
	began := w.began()
	err = w.table(ctx, "users", "id, name, name_fold, display_name, mail, role, password_hash, password_changed_at, password_generation, must_change, activation, activate_at, activated_at, disabled, mfa, uid, created_at, updated_at",
		counted(w.Users, func(i int) ([]any, error) {
			role, mfa := "none", "inherit"
			switch {
			case i == admin:
				role = "owner"
			case i > usual && i%1000 == 4:
				role = []string{"auditor", "helpdesk", "administrator"}[i/1000%3]
			}
			if i%50 == 7 {
				mfa = []string{"on", "off"}[i/50%2]
			}
			name := userName(i)
			return []any{
				w.userID(i), name, strings.ToLower(name), given[i%len(given)] + " " + family[i/len(given)%len(family)], name + "@example.org", role,
				hash, began, 1, i%200 == 9, "now", 0, began, i%100 == 8, mfa, int64(10_000 + i), began, began,
			}, nil
		}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "groups", "id, name, mfa, created_at, updated_at", counted(w.Groups, func(i int) ([]any, error) {
		mfa := "inherit"
		if i%20 == 3 {
			mfa = "on"
		}
		return []any{w.groupID(i), groupName(i), mfa, began, began}, nil
	}))
	if err != nil {
		return err
	}
	// Everybody is in two teams, every tenth in staff.
	var pairs [][2]int
	for i := range w.Users {
		if i%10 == 0 {
			pairs = append(pairs, [2]int{0, i})
		}
		a, b := 1+i%(w.Groups-1), 1+(i*7+3)%(w.Groups-1)
		if pairs = append(pairs, [2]int{a, i}); a != b {
			pairs = append(pairs, [2]int{b, i})
		}
	}
	err = w.table(ctx, "group_members", "group_id, user_id", counted(len(pairs), func(i int) ([]any, error) {
		return []any{w.groupID(pairs[i][0]), w.userID(pairs[i][1])}, nil
	}))
	if err != nil {
		return err
	}
	return w.factors(ctx)
}

func (w *world) factors(ctx context.Context) error {
	params, err := json.Marshal(app)
	if err != nil {
		return err
	}
	seed, err := w.keeper.NewSeed(app)
	if err != nil {
		return err
	}
	w.Key = seed
	// Sealing is bound to the row and takes a microsecond: everybody has the same seed, sealed for himself.
	began := w.began()
	err = w.table(ctx, "authenticators", "id, user_id, kind, name, secret, params, step, drift, confirmed_at, last_used_at, lost, created_at",
		counted(w.Users, func(i int) ([]any, error) {
			fid := id(began+int64(i), kindFactor, i)
			confirmed := began
			if i == admin {
				w.Factor = rest.FactorPrefix + fid
			} else if i%25 == 0 {
				confirmed = 0
			}
			return []any{
				fid, w.userID(i), string(policy.TOTP), []string{"phone", "", "tablet"}[i%3], w.box.Seal(seed.Reveal(), "authenticators", "secret", fid),
				string(params), 0, 0, confirmed, w.now() - int64(i%86400)*1e6, i != admin && i%333 == 0, began,
			}, nil
		}))
	if err != nil {
		return err
	}
	// Every fifth has ten backup codes, of which some are used.
	hash := make([]byte, 32)
	err = w.table(ctx, "backup_codes", "id, user_id, set_id, hash, created_at, used_at, used_machine, sealed", counted(w.Users/5*10, func(i int) ([]any, error) {
		used := int64(0)
		if i%10 < i/10%4 {
			used = w.now() - int64(i%1000)*3600e6
		}
		u := i / 10 * 5
		return []any{id(began+int64(i), kindCode, i), w.userID(u), id(began, kindCode, u), hash, began, used, "", nil}, nil
	}))
	if err != nil {
		return err
	}
	bypass := w.Users / 500
	err = w.table(ctx, "bypass_codes", "id, user_id, hash, scope, reason, created_at, expires_at, used_at, created_by, approved_by", counted(bypass, func(i int) ([]any, error) {
		at := w.now() - int64(i)*60e6
		return []any{id(at, kindCode, i), w.userID(i * 499), hash, "", "phone left at home", at, at + 3600e6, 0, w.Admin, ""}, nil
	}))
	if err != nil {
		return err
	}
	// Locks that stand now, and counts that do not lock.
	return w.table(ctx, "attempts", "user_id, machine_id, failures, first_at, last_at, blocked_until, locked_until", counted(w.Users/50, func(i int) ([]any, error) {
		machine, blocked, locked := w.machineID(i%w.Machines), int64(0), int64(0)
		if i%3 == 0 {
			machine = ""
		}
		if i%20 == 0 {
			locked = w.now() + int64(15*time.Minute/time.Microsecond)
		}
		return []any{w.userID(i * 49), machine, i%10 + 1, w.now() - 600e6, w.now() - 60e6, blocked, locked}, nil
	}))
}
