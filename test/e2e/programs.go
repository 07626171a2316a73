//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// SSHD starts the machine's sshd at 127.0.0.1:22 with PAM, keyboard-interactive and
// no password method; lines of configuration are added before these, so that they
// win. It returns when sshd listens.
func (m *Machine) SSHD(config ...string) *Process {
	m.t.Helper()
	return m.SSHDAs("/usr/sbin/sshd", config...)
}

// SSHDAs is SSHD under another path. Its last part is the service that it asks PAM for.
func (m *Machine) SSHDAs(path string, config ...string) *Process {
	m.t.Helper()
	if _, err := os.Stat(m.Path("/etc/ssh/e2e_key")); err != nil {
		m.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/e2e_key")
	}
	m.Write("/etc/ssh/e2e_config", strings.Join(config, "\n")+`
ListenAddress 127.0.0.1
HostKey /etc/ssh/e2e_key
UsePAM yes
KbdInteractiveAuthentication yes
PasswordAuthentication no
PidFile none
UseDNS no
LogLevel VERBOSE
PrintMotd no
PrintLastLog no
`, 0o600)
	p := m.Start(path, "-D", "-e", "-f", "/etc/ssh/e2e_config")
	m.Until(10*time.Second, "sshd listens", func() bool {
		return strings.Contains(p.Output(), "Server listening") || !p.Running()
	})
	return p
}

// AuthorizeKey makes a key for ssh and lets it in as the user. It returns the path
// of the private key in the machine.
func (m *Machine) AuthorizeKey(user string) string {
	m.t.Helper()
	key := "/root/key-" + user
	if _, err := os.Stat(m.Path(key)); err != nil {
		m.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	}
	m.Run("install", "-d", "-o", user, "-g", user, "-m", "700", "/home/"+user+"/.ssh")
	m.Run("install", "-o", user, "-g", user, "-m", "600", key+".pub", "/home/"+user+"/.ssh/authorized_keys")
	return key
}

// SSH signs in over ssh from the machine itself; options are those of ssh ("-i",
// key, "-o", "NumberOfPasswordPrompts=1").
func (m *Machine) SSH(user string, turns []Turn, options ...string) Result {
	m.t.Helper()
	return m.SSHTerminal(user, markerCmd, options...).Talk(turns)
}

// SSHTerminal starts ssh and leaves the talking to the caller.
func (m *Machine) SSHTerminal(user, command string, options ...string) *Terminal {
	m.t.Helper()
	argv := []string{
		"ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=INFO",
		"-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey,keyboard-interactive,password",
	}
	argv = append(argv, options...)
	return m.Terminal("", append(argv, "-l", user, "127.0.0.1", command)...)
}

// Sudo runs sudo as the user, to root, without its ticket.
func (m *Machine) Sudo(user string, turns []Turn) Result {
	m.t.Helper()
	if _, err := os.Stat(m.Path("/etc/sudoers.d/e2e-" + user)); err != nil {
		m.Write("/etc/sudoers.d/e2e-"+user, "Defaults:"+user+" !lecture\n"+user+" ALL=(ALL) ALL\n", 0o440)
	}
	return m.Terminal(user, "sudo", "-k", "sh", "-c", markerCmd).Talk(turns)
}

// Su runs su as the caller, to the target.
func (m *Machine) Su(caller, target string, turns []Turn) Result {
	m.t.Helper()
	return m.Terminal(caller, "su", "-s", "/bin/sh", "-c", markerCmd, target).Talk(turns)
}

// Login runs login(1) on a terminal, as getty does after the name was typed. Behind
// it the shell is told to print and to leave.
func (m *Machine) Login(user string, turns []Turn) Result {
	m.t.Helper()
	t := m.Terminal("", "login", user)
	t.refusal = []string{"Login incorrect", "Maximum number of tries"} // it would ask for another name
	return t.Talk(append(append([]Turn(nil), turns...), Say("$ ", markerCmd+"; exit")...))
}

// Pamtester runs pamtester as root. The options (such as "-I", "tty=/dev/tty1") come
// before the service; operations are authenticate, acct_mgmt, setcred, open_session,
// close_session, chauthtok and the like. Opened tells that all succeeded.
func (m *Machine) Pamtester(options []string, service, user string, operations []string, turns []Turn) Result {
	m.t.Helper()
	return m.PamtesterAs("", options, service, user, operations, turns)
}

// PamtesterAs is Pamtester run by a user.
func (m *Machine) PamtesterAs(caller string, options []string, service, user string, operations []string, turns []Turn) Result {
	m.t.Helper()
	argv := append([]string{"pamtester"}, options...)
	argv = append(argv, service, user)
	r := m.Terminal(caller, append(argv, operations...)...).Talk(turns)
	r.Opened = r.Exit == 0
	return r
}

// Repository is the path of a file of the repository.
func Repository(file string) string { return filepath.Join(Root, file) }
