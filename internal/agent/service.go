package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"latchkey/internal/policy"
)

// service is what the agent knows of a PAM service.
type service struct {
	scope policy.Scope
	// caller: the subject is who calls, not the account that is asked for (S1). sudo
	// says itself who has to prove himself.
	caller bool
	// console: it serves the machine's own screen if it runs on a console's terminal.
	console bool
	// local: it serves a keyboard and screen of this machine and nothing else.
	local bool
	// remote: it lets people in over the network; a login that went past its auth
	// phase is denied in its account phase.
	remote bool
	// job: it starts work of people who are not there.
	job bool
	// live: it shows text when it comes, not only with a prompt behind it.
	live bool
	// writes is what it names as its remote host although there is none; of sudo it is the
	// machine's own name (pam_rhost).
	writes string
	// programs that are expected behind the name; empty: any.
	programs []string
}

// services by name. What is not here is a logon if something says that it is of this
// machine (placed), and else remote; both are logged. Whatever names a remote host is
// remote, whether or not it is here.
var services = map[string]service{
	"sshd":    {scope: policy.Remote, remote: true, programs: []string{"sshd", "sshd-session", "sshd-auth"}},
	"xrdp":    {scope: policy.Remote, remote: true, programs: []string{"xrdp-sesman", "xrdp-sesexec", "xrdp"}},
	"cockpit": {scope: policy.Remote, remote: true, programs: []string{"cockpit-session"}},
	// The name under which xrdp's own stack is found, and that of util-linux's login -h.
	"xrdp-sesman": {scope: policy.Remote, remote: true, programs: []string{"xrdp-sesman", "xrdp-sesexec"}},
	"remote":      {scope: policy.Remote, remote: true, live: true, programs: []string{"login"}},

	"sudo":      {scope: policy.Elevation, live: true, console: true, writes: ownHost, programs: []string{"sudo", "sudo-rs"}},
	"sudo-i":    {scope: policy.Elevation, live: true, console: true, writes: ownHost, programs: []string{"sudo", "sudo-rs"}},
	"su":        {scope: policy.Elevation, live: true, caller: true, console: true, programs: []string{"su"}},
	"su-l":      {scope: policy.Elevation, live: true, caller: true, console: true, programs: []string{"su"}},
	"runuser":   {scope: policy.Elevation, live: true, caller: true, programs: []string{"runuser"}},
	"runuser-l": {scope: policy.Elevation, live: true, caller: true, programs: []string{"runuser"}},
	"polkit-1":  {scope: policy.Elevation, live: true, programs: []string{"polkit-agent-helper-1", "polkitd"}},
	"doas":      {scope: policy.Elevation, live: true, programs: []string{"doas"}},

	"login":             {scope: policy.Logon, live: true, local: true, programs: []string{"login"}},
	"gdm":               {scope: policy.Logon, local: true},
	"gdm-password":      {scope: policy.Logon, live: true, local: true},
	"gdm-autologin":     {scope: policy.Logon, local: true},
	"lightdm":           {scope: policy.Logon, live: true, local: true},
	"lightdm-autologin": {scope: policy.Logon, local: true},
	"sddm":              {scope: policy.Logon, local: true},
	"sddm-autologin":    {scope: policy.Logon, local: true},
	"greetd":            {scope: policy.Logon, local: true},
	"kde":               {scope: policy.Logon, local: true},
	"xdm":               {scope: policy.Logon, local: true},
	"slim":              {scope: policy.Logon, local: true, writes: "localhost"},

	// Unlocking, from the session itself.
	"xscreensaver":         {scope: policy.Logon},
	"swaylock":             {scope: policy.Logon},
	"i3lock":               {scope: policy.Logon},
	"vlock":                {scope: policy.Logon, live: true},
	"gnome-screensaver":    {scope: policy.Logon},
	"cinnamon-screensaver": {scope: policy.Logon},
	"mate-screensaver":     {scope: policy.Logon},
	"kscreenlocker":        {scope: policy.Logon},

	"passwd":       {scope: policy.Logon, programs: []string{"passwd"}},
	"cron":         {scope: policy.Logon, job: true, programs: []string{"cron", "crond"}},
	"crond":        {scope: policy.Logon, job: true, programs: []string{"cron", "crond"}},
	"atd":          {scope: policy.Logon, job: true, programs: []string{"atd"}},
	"systemd-user": {scope: policy.Logon, job: true, programs: []string{"systemd", "systemd-executor"}},
}

// ownHost stands for the machine's own name.
const ownHost = "\x00own"

// ownName is the machine's own name, as sudo writes it.
func ownName() string {
	name, _ := os.Hostname()
	return name
}

// here tells whether what a service names as its remote host is no host but this
// machine: nothing, a display, or the word that this very service is known to write.
// "localhost" of any other, or a loopback address, is not: a forwarded port, a proxy and
// whoever writes the reverse zone of his own address come by these names too.
func (s service) here(host string) bool {
	switch {
	case !policy.Elsewhere(host):
		return true
	case s.writes == ownHost:
		return host == ownName()
	}
	return s.writes != "" && host == s.writes
}

// serviceOf looks a name up; known is false for one that nobody has described.
func serviceOf(name string) (s service, known bool) {
	s, known = services[name]
	if !known {
		s.scope = policy.Logon
	}
	return s, known
}

// runs tells whether the program fits the service. A program that is not known (it
// could not be read) fits.
func (s service) runs(exe string) bool {
	if exe == "" || len(s.programs) == 0 {
		return true
	}
	return slices.Contains(s.programs, program(exe))
}

// program is the name of an executable; the kernel marks one that was replaced
// while it runs, as every upgrade does.
func program(exe string) string { return filepath.Base(strings.TrimSuffix(exe, " (deleted)")) }

// consoleTTY tells the terminals of the machine itself: /dev/tty1, /dev/console,
// /dev/ttyS0, /dev/hvc0; not /dev/tty and no pseudo-terminal.
func consoleTTY(tty string) bool {
	tty = strings.TrimPrefix(tty, "/dev/")
	if tty == "console" {
		return true
	}
	for _, p := range []string{"ttyS", "hvc", "tty"} {
		if n, ok := strings.CutPrefix(tty, p); ok {
			return n != "" && strings.Trim(n, "0123456789") == ""
		}
	}
	return false
}

// localSeat tells whether a person sits at the machine, for break-glass: the same
// rule as in the module.
func localSeat(s service, tty, rhost string) bool {
	return rhost == "" && (s.local || s.console && strings.HasPrefix(tty, "/dev/") && consoleTTY(tty))
}
