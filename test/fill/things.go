package fill

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/wire"
)

func (w *world) machines(ctx context.Context) error {
	w.Machine, w.QuietMachine, w.OwnMachine = machineName(w.Machines/2), machineName(quiet), rest.MachinePrefix+w.machineID(admin)
	began := w.began()
	day := int64(86400e6)
	err := w.table(ctx, "machines", "id, number, name, status, mode, unknown_users, owner_user, all_users, os, agent_version, wire_version, tpm_class, tpm_info, boot, address, last_seen_at, joined_at, created_at, updated_at, hostname, key_in_tpm",
		counted(w.Machines, func(i int) ([]any, error) {
			status, mode := "active", "normal"
			switch {
			case i%200 == 11:
				status = "pending"
			case i%150 == 13:
				status = "revoked"
			case i%900 == 17:
				status = "lost"
			}
			if i%100 == 19 {
				mode = []string{"enforced", "exempt"}[i/100%2]
			}
			owner, seen := "", w.now()-int64(i%600)*1e6
			if i%2 == 1 {
				owner = w.userID(i % w.Users)
			}
			if i%30 == 0 {
				seen = w.now() - int64(i%90)*day
			}
			class, version := "tpm", []string{"1.0.0", "0.9.1", "1.0.0", "1.0.0"}[i%4]
			if i%7 == 0 {
				class = "software"
			}
			return []any{
				w.machineID(i), i + 1, machineName(i), status, mode, "deny", owner, i%40 != 0, []string{"Debian GNU/Linux 12", "Ubuntu 24.04", "Windows 11"}[i%3], version,
				int64(wire.Version), class, "{}", fmt.Sprintf("boot-%d", i), fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), seen, began, began, began, machineName(i), i%7 != 0,
			}, nil
		}))
	if err != nil {
		return err
	}
	if err := w.exec(ctx, "INSERT INTO counters (name, value) VALUES ('machines', $1)", int64(w.Machines)); err != nil {
		return err
	}
	err = w.table(ctx, "machine_certificates", "serial, machine_id, not_before, not_after, revoked_at, fingerprint", counted(w.Machines, func(i int) ([]any, error) {
		return []any{fmt.Sprintf("%032x", i+1), w.machineID(i), began, w.now() + int64(i%90)*day, 0, fmt.Sprintf("%064x", i+1)}, nil
	}))
	if err != nil {
		return err
	}
	return w.table(ctx, "machine_users", "machine_id, user_id", counted(w.Machines/40*3, func(i int) ([]any, error) {
		return []any{w.machineID(i / 3 * 40 % w.Machines), w.userID((i*11 + i%3) % w.Users)}, nil
	}))
}

// pairs are users on machines: known ones, offline data, windows.
func (w *world) pairs(ctx context.Context) error {
	day := int64(86400e6)
	n := min(w.Users, w.Machines)
	// Machine i knows the users i and i+1.
	err := w.table(ctx, "machine_known", "machine_id, user_id, since", counted(2*n, func(i int) ([]any, error) {
		return []any{w.machineID(i / 2), w.userID((i/2 + i%2) % w.Users), w.began()}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "vaults", "user_id, machine_id, generation, state, class, fail_limit, use_limit, first_step, last_step, period, enrolled_at, synced_at, last_mfa_at, expires_at, uses_left, used, tries, password_generation, created_at, updated_at, counted_from",
		counted(n+n/4, func(i int) ([]any, error) {
			state, generation, m := "active", 2, i%n
			if i >= n {
				state, generation = []string{"wiped", "retired"}[i%2], 1
			}
			mfa := w.now() - int64(i%9)*day
			used, tries := i%40, 0
			if i%97 == 0 {
				used = 50
			}
			if i%101 == 0 {
				tries = 10
			}
			class := "tpm"
			if m%7 == 0 {
				class = "software"
			}
			return []any{
				w.userID(m), w.machineID(m), generation, state, class, 10, 60, 0, 0, 30, mfa, mfa, mfa, mfa + 7*day, 50 - used, used, tries, 1 - i%53/52, mfa, mfa, mfa,
			}, nil
		}))
	if err != nil {
		return err
	}
	// A third has an open window, all have had three more within the month for which they are kept.
	return w.table(ctx, "windows", "id, user_id, machine_id, boot, opened_at, expires_at, scopes, factors, ended_at, end_reason", counted(n/3+3*n, func(i int) ([]any, error) {
		at, ended, why := w.now()-int64(i%28800)*1e6*8/10, int64(0), ""
		if i >= n/3 {
			at = w.now() - day - int64(i%28)*day
			if i%4 == 0 {
				ended, why = at+3600e6, "reboot"
			}
		}
		p := i % n
		return []any{
			id(at, kindWindow, i), w.userID(p), w.machineID(p), fmt.Sprintf("boot-%d", p), at, at + 8*3600e6, `["logon"]`, `["totp"]`, ended, why,
		}, nil
	}))
}

// policies: the default one as the server makes it, and fifty for groups, one of them with a long history.
func (w *world) policies(ctx context.Context) error {
	w.Policy, w.Reporting = policyName(1), policyName(reporting)
	body, err := json.Marshal(policy.NewPolicy())
	if err != nil {
		return err
	}
	only := policy.NewPolicy()
	only.ReportOnly = true
	trial, err := json.Marshal(only)
	if err != nil {
		return err
	}
	bodyOf := func(p int) string {
		if p == reporting {
			return string(trial)
		}
		return string(body)
	}
	const n = 51
	began := w.began()
	err = w.table(ctx, "policies", "id, name, priority, is_default, body, version, created_at, updated_at", counted(n, func(i int) ([]any, error) {
		version := 1
		if i == 1 {
			version = 200
		}
		return []any{id(began, kindPolicy, i), policyName(i), 10 * i, i == 0, bodyOf(i), version, began, began}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "policy_groups", "policy_id, group_id", counted(min(n-1, w.Groups), func(i int) ([]any, error) {
		return []any{id(began, kindPolicy, i+1), w.groupID(i)}, nil
	}))
	if err != nil {
		return err
	}
	return w.table(ctx, "policy_versions", "policy_id, version, name, priority, body, groups, actor, at, comment", counted(n+199, func(i int) ([]any, error) {
		p, version := i, 1
		if i >= n {
			p, version = 1, i-n+2
		}
		groups := "[]"
		if p > 0 && p <= w.Groups {
			groups = fmt.Sprintf("[%q]", groupName(p-1))
		}
		return []any{id(began, kindPolicy, p), version, policyName(p), 10 * p, bodyOf(p), groups, w.Admin, began + int64(i)*3600e6, "tightened after the review of " + hex.EncodeToString([]byte{byte(i)})}, nil
	}))
}

// desk is what administrators and people leave behind: tokens, reports, views, approvals, imports.
func (w *world) desk(ctx context.Context) error {
	hash := func(kind, i int) []byte { return fmt.Appendf(nil, "%02d%030d", kind, i) }
	now, day := w.now(), int64(86400e6)
	err := w.table(ctx, "join_tokens", "id, secret_hash, kind, machine_name, created_by, created_at, expires_at, used_at, machine_id", counted(120, func(i int) ([]any, error) {
		at, used, kind, machine := now-int64(i)*3600e6, int64(0), "single", ""
		if i%3 == 0 {
			used, machine = at+60e6, w.machineID(i%w.Machines)
		}
		if i%40 == 1 {
			kind = "mass"
		}
		return []any{id(at, kindCode, i), hash(1, i), kind, fmt.Sprintf("new-pc-%d", i), w.Admin, at, at + day, used, machine}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "api_tokens", "id, secret_hash, user_id, name, scopes, role, created_at, expires_at, last_used_at, last_address", counted(30, func(i int) ([]any, error) {
		return []any{id(now-int64(i)*day, kindCode, 1000+i), hash(2, i), w.userID(admin), fmt.Sprintf("backup job %d", i), `["read"]`, "auditor", now - int64(i)*day, now + int64(90-i)*day, now - 60e6, "10.0.0.9"}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "reports", "id, user_id, kind, event_id, machine_id, machine, told, address, state, created_at, handled_at, handled_by, answer", counted(400, func(i int) ([]any, error) {
		at, state, by, handled := now-int64(i)*3600e6, "open", "", int64(0)
		if i%4 != 0 {
			state, by, handled = "handled", w.Admin, at+3600e6
		}
		rid := id(at, kindCode, 2000+i)
		if i == 0 {
			w.Report = rest.ReportPrefix + rid
		}
		if i%2 == 0 {
			return []any{rid, w.userID(usual + i%(w.Users-usual)), "signin", strings.TrimPrefix(w.Event, rest.EventPrefix), "", "", "I was on holiday", "10.1.2.3", state, at, handled, by, ""}, nil
		}
		return []any{rid, w.userID(usual + i%(w.Users-usual)), "machine", "", w.machineID(i % w.Machines), machineName(i % w.Machines), "left on a train", "10.1.2.3", state, at, handled, by, "revoked"}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "event_views", "id, owner, name, query, made_by, created_at", counted(6, func(i int) ([]any, error) {
		owner := ""
		if i%2 == 1 {
			owner = w.userID(admin)
		}
		return []any{id(now, kindCode, 3000+i), owner, fmt.Sprintf("Denied at night %d", i), "type=signin.denied", w.Admin, now}, nil
	}))
	if err != nil {
		return err
	}
	err = w.table(ctx, "approvals", "id, action, subject_id, subject, reason, requester_id, requester, state, asked_at, expires_at", counted(3, func(i int) ([]any, error) {
		return []any{id(now-int64(i)*60e6, kindCode, 4000+i), "remove-factor", w.userID(usual), userName(usual), "lost the phone", w.userID(busy), w.Busy, "asked", now - int64(i)*60e6, now + 900e6}, nil
	}))
	if err != nil {
		return err
	}
	const rows = 300
	iid := id(now, kindCode, 5000)
	w.Import = rest.ImportPrefix + iid
	err = w.table(ctx, "imports", "id, source, label, actor, actor_user, actor_role, address, state, columns, bytes_read, rows_read, rows_new, rows_changed, rows_same, rows_faulty, created_at, updated_at", counted(1, func(int) ([]any, error) {
		return []any{iid, "", "people.csv", w.Admin, w.userID(admin), "owner", "127.0.0.1", "checked", `["name","mail"]`, 12345, rows, rows - 20, 10, 0, 10, now, now}, nil
	}))
	if err != nil {
		return err
	}
	return w.table(ctx, "import_rows", "import_id, n, line, state, name, name_fold, input, faults", counted(rows, func(i int) ([]any, error) {
		state, faults := "new", "[]"
		if i%30 == 7 {
			state, faults = "faulty", `[{"field":"mail","fault":"\"nobody\" is no mail address; allowed is NAME@HOST"}]`
		}
		name := fmt.Sprintf("imported%d", i)
		return []any{iid, i + 1, i + 2, state, name, name, fmt.Sprintf(`{"name":%q}`, name), faults}, nil
	}))
}

// reporting is the place of the policy that only reports.
const reporting = 2

func policyName(i int) string {
	if i == 0 {
		return "default"
	}
	return fmt.Sprintf("rules-%02d", i)
}
