package shim

import (
	"bytes"
	"fmt"
	"strconv"

	"latchkey/internal/secret"
)

// Phase is what the sign-in program is doing. The later phases come on
// connections of their own, and sshd makes them from other processes than the
// first: the agent correlates them by peer process and user.
type Phase string

// The phases; their values are those of the key "phase" on the wire.
const (
	PhaseAuth         Phase = "auth"
	PhaseAccount      Phase = "account"
	PhaseChauthtok    Phase = "chauthtok"
	PhaseSetcred      Phase = "setcred"
	PhaseSessionOpen  Phase = "session-open"
	PhaseSessionClose Phase = "session-close"
)

var phases = []struct {
	phase Phase
	verb  string
}{
	{PhaseAuth, "begin"},
	{PhaseAccount, "account"},
	{PhaseChauthtok, "chauthtok"},
	{PhaseSetcred, "setcred"},
	{PhaseSessionOpen, "session-open"},
	{PhaseSessionClose, "session-close"},
}

// Mode is how the stack was written.
type Mode string

// The modes.
const (
	// ModeFull: Latchkey judges the password and the second factor.
	ModeFull Mode = "full"
	// ModeSecond: the machine has judged the password before us.
	ModeSecond Mode = "second"
)

// First says who judged the first factor before this module was called.
type First string

// The judges that a shim can know of.
const (
	FirstNone    First = "none"
	FirstMachine First = "machine"
	FirstSSHKey  First = "sshkey"
)

// Scope is a scope that the administrator forced with scope=; usually empty, and
// the agent maps the service.
type Scope string

// The scopes.
const (
	ScopeNone      Scope = ""
	ScopeLogon     Scope = "logon"
	ScopeElevation Scope = "elevation"
	ScopeRemote    Scope = "remote"
)

// PAM flags that an agent may meet in Request.Flags (Linux-PAM's values).
const (
	FlagSilent              = 0x8000
	FlagDisallowNullAuthtok = 0x0001
	FlagEstablishCred       = 0x0002
	FlagDeleteCred          = 0x0004
	FlagReinitializeCred    = 0x0008
	FlagRefreshCred         = 0x0010
	FlagChangeExpired       = 0x0020
	FlagUpdateAuthtok       = 0x2000
	FlagPrelimCheck         = 0x4000
)

// Start begins a phase.
type Start struct {
	Phase Phase
	Request
}

// Request is what the shim knows about a sign-in. Everything in it comes from
// another program: names are octets, not checked for anything but NUL.
type Request struct {
	// Service is the PAM service ("sshd").
	Service string
	// User is PAM_USER as typed. For su it is the target; in setcred of sudo it
	// is root. PWName is the name that the system's own user data gives for it
	// (the canonical spelling), with UID; Known is false when there is no such user.
	User, PWName string
	UID          uint32
	Known        bool
	// RUser is PAM_RUSER, else the name of the process's real uid RUID: the
	// caller of su and sudo.
	RUser string
	RUID  uint32
	// PPID is the parent of the program, as a hint for correlation.
	PPID uint32
	// TTY and RHost as the program set them; RHost is set by sshd alone.
	TTY, RHost string
	// Flags are PAM's.
	Flags uint32
	Mode  Mode
	First First
	Scope Scope
	// Authtok is the password that the stack holds already, if Has Authtok.
	Authtok    secret.Bytes
	HasAuthtok bool
	// Junk says that Authtok is sshd's fake password, see IsJunk.
	Junk bool
}

func (m Start) fromShim() [][]byte {
	name := ""
	for _, p := range phases {
		if p.phase == m.Phase {
			name = p.verb
		}
	}
	f := verb(name)
	add := func(key, value string) { f = append(f, []byte(key+"="+value)) }
	add("phase", string(m.Phase))
	add("service", m.Service)
	add("user", m.User)
	add("ruser", m.RUser)
	add("tty", m.TTY)
	add("rhost", m.RHost)
	add("flags", strconv.FormatUint(uint64(m.Flags), 10))
	add("mode", string(m.Mode))
	add("first", string(m.First))
	if m.Scope != ScopeNone {
		add("scope", string(m.Scope))
	}
	if m.Known {
		add("uid", strconv.FormatUint(uint64(m.UID), 10))
		add("pwname", m.PWName)
	}
	add("ruid", strconv.FormatUint(uint64(m.RUID), 10))
	add("ppid", strconv.FormatUint(uint64(m.PPID), 10))
	if m.HasAuthtok {
		if m.Junk {
			add("junk", "1")
		}
		f = append(f, append([]byte("authtok="), m.Authtok.Reveal()...))
	}
	return f
}

// start reads key=value fields. Every key is known, at most once there, and
// complete: a message that needs guessing is refused.
func start(phase Phase, fields [][]byte) (FromShim, error) {
	m := Start{Phase: phase}
	seen := make(map[string]bool, len(fields))
	for _, f := range fields {
		k, v, ok := bytes.Cut(f, []byte("="))
		key := string(k)
		if !ok || seen[key] {
			return nil, fmt.Errorf("%w: key %s without a value or twice", ErrShape, quote(k))
		}
		seen[key] = true
		var err error
		switch key {
		case "phase":
			if string(v) != string(phase) {
				err = fmt.Errorf("%w: phase %s in a %s message", ErrShape, quote(v), phase)
			}
		case "service":
			m.Service = string(v)
		case "user":
			m.User = string(v)
		case "ruser":
			m.RUser = string(v)
		case "tty":
			m.TTY = string(v)
		case "rhost":
			m.RHost = string(v)
		case "flags":
			m.Flags, err = decimal(v)
		case "mode":
			m.Mode, err = oneOf(v, ModeFull, ModeSecond)
		case "first":
			m.First, err = oneOf(v, FirstNone, FirstMachine, FirstSSHKey)
		case "scope":
			m.Scope, err = oneOf(v, ScopeLogon, ScopeElevation, ScopeRemote)
		case "uid":
			m.UID, err = decimal(v)
			m.Known = true
		case "pwname":
			m.PWName = string(v)
		case "ruid":
			m.RUID, err = decimal(v)
		case "ppid":
			m.PPID, err = decimal(v)
		case "junk":
			m.Junk = true
			if string(v) != "1" {
				err = fmt.Errorf("%w: junk is 1 or absent", ErrShape)
			}
		case "authtok":
			m.Authtok = secret.New(append([]byte{}, v...))
			m.HasAuthtok = true
		default:
			err = fmt.Errorf("%w: unknown key %s", ErrShape, quote(k))
		}
		if err != nil {
			m.Authtok.Wipe()
			return nil, err
		}
	}
	for _, key := range [...]string{"phase", "service", "user", "flags", "mode", "first", "ruid", "ppid", "ruser", "tty", "rhost"} {
		if !seen[key] {
			m.Authtok.Wipe()
			return nil, fmt.Errorf("%w: key %q is missing", ErrShape, key)
		}
	}
	var err error
	switch {
	case m.Service == "" || m.User == "":
		err = fmt.Errorf("%w: service and user must not be empty", ErrShape)
	case seen["uid"] != seen["pwname"] || (m.Known && m.PWName == ""):
		err = fmt.Errorf("%w: uid and pwname come together", ErrShape)
	case m.Junk && !m.HasAuthtok:
		err = fmt.Errorf("%w: junk without authtok", ErrShape)
	case m.Mode == ModeFull && m.First == FirstMachine:
		err = fmt.Errorf("%w: mode=full has no first=machine", ErrShape)
	case m.Mode == ModeSecond && m.First == FirstNone:
		err = fmt.Errorf("%w: mode=second has no first=none", ErrShape)
	}
	if err != nil {
		m.Authtok.Wipe()
		return nil, err
	}
	return m, nil
}

func oneOf[T ~string](v []byte, allowed ...T) (T, error) {
	for _, a := range allowed {
		if string(v) == string(a) {
			return a, nil
		}
	}
	return "", fmt.Errorf("%w: %s is none of %q", ErrShape, quote(v), allowed)
}
