package signin_test

import (
	"net/netip"
	"testing"

	"latchkey/internal/policy"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// An agent from before, or one that is wrong, calls a sign-in a logon at the machine and
// tells the host that it comes from: neither a window that was opened at the desk nor a
// trusted network lets it in (W5, P6).
func TestANamedHostIsBelievedOfEveryAgent(t *testing.T) {
	from := func(host string) func(*wire.Begin) {
		return func(b *wire.Begin) { b.Service, b.RHost = "vsftpd", host }
	}
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		// A window that was opened at the desk.
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		r.begin(begin("alice")).allowed(false)
		for _, host := range []string{"203.0.113.9", "evil.example", "127.0.0.1"} {
			r.begin(begin("alice", from(host))).asks(wire.ForCode)
		}
		r.setPolicy(func(p *policy.Policy) {
			p.Window, p.TrustedNetworks = 0, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		})
		r.begin(begin("alice")).allowed(false)
		r.begin(begin("alice", from("203.0.113.9"))).asks(wire.ForCode)
		// Nor does somebody without a factor enrol from there.
		r.addUser("bob")
		r.setPolicy(func(p *policy.Policy) { p.TrustedNetworks, p.EnrolAtSignin = nil, true })
		r.begin(begin("bob")).asks(wire.ForEnrolCode)
		r.begin(begin("bob", from("203.0.113.9"))).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
	})
}
