package agent

import (
	"context"
	"encoding/json"

	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/vault"
	"latchkey/internal/buildinfo"
	"latchkey/internal/policy"
	"latchkey/internal/shim"
)

// statusJSON is the state for a caller: everything for root, for others what
// concerns themselves.
func (a *agent) statusJSON(ctx context.Context, who caller) string {
	a.off.judge(a.vault.Status(ctx, "\x00")) // of nobody: the machine's part
	st := a.link.State()
	version, trouble := a.link.Server()
	if a.vault.Unbound() {
		a.unbound.Set("")
	} else {
		a.unbound.Clear()
	}
	s := shim.MachineStatus{
		Link: string(st.Link), Since: st.Since.UTC(), LastAnswer: st.LastAnswer.UTC(), Machine: a.id.Name, MachineID: a.id.MachineID,
		Number: a.id.Number, Server: a.id.Server, Version: buildinfo.Version(), ServerIs: version,
		KeyInTPM: a.id.KeyPlace == identity.KeyTPM, Until: a.link.CertificateUntil().UTC(), Health: a.reg.Current(),
	}
	if st.Link == policy.LinkDown {
		s.Reason, s.Text = string(st.Reason), st.Reason.Text()
	}
	s.Standing = a.vault.Facts(ctx, "").Machine.Status
	if trouble != nil {
		s.ServerSays = trouble.Detail
	}
	if who.privileged() {
		s.Offline = a.vault.Status(ctx, "")
	} else {
		s.Offline = a.own(ctx, who.uid)
		for i := range s.Health {
			s.Health[i].Detail = ""
		}
	}
	s.Class = s.Offline.Class
	return fit(&s)
}

// own is the part of the status that a user may see.
func (a *agent) own(ctx context.Context, uid uint32) vault.Status {
	out := a.vault.Status(ctx, "\x00") // of nobody: the machine's part
	users := []vault.UserStatus{}
	for _, name := range a.names.Names(ctx, uid) {
		out = a.vault.Status(ctx, name)
		users = append(users, out.Users...)
	}
	out.Users, out.Detail = users, ""
	return out
}

// fit writes the status so that it fits one frame, leaving out users from the end.
func fit(s *shim.MachineStatus) string {
	for {
		b, err := json.Marshal(s)
		if err != nil {
			return "{}"
		}
		n := len(s.Offline.Users)
		if len(b) <= shim.MaxBody-64 || n == 0 {
			return string(b)
		}
		cut := max(1, n/8)
		s.Offline.Users, s.More = s.Offline.Users[:n-cut], s.More+cut
	}
}
