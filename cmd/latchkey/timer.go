package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"latchkey/internal/statefile"
	units "latchkey/packaging/systemd/user"
)

// Renewal by itself (M4): a timer of the user's own systemd. Whoever packages this
// program installs the units (packaging/systemd/user); where they are not, install
// writes them into the user's own folder. Where the user has no systemd, the line for
// cron is told.

const (
	timerUnit   = units.Name + ".timer"
	serviceUnit = units.Name + ".service"
	systemdTime = 20 * time.Second
)

// systemctl speaks to the user's systemd, and gives what it says.
func systemctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, systemdTime)
	defer cancel()
	var said, fault strings.Builder
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--user"}, args...)...)
	cmd.Stdout, cmd.Stderr = &said, &fault
	if err := cmd.Run(); err != nil {
		return strings.TrimSpace(said.String()), fmt.Errorf("systemctl --user %s: %w: %.200s", args[0], err, strings.TrimSpace(fault.String()))
	}
	return strings.TrimSpace(said.String()), nil
}

// hasSystemd tells whether a systemd of the user's own runs.
func hasSystemd(ctx context.Context) bool {
	if runtime.GOOS != "linux" {
		return false
	}
	// One that is degraded says so with an exit code.
	said, _ := systemctl(ctx, "is-system-running")
	return slices.Contains([]string{"initializing", "starting", "running", "degraded", "maintenance"}, said)
}

// hasTimer tells whether the timer is switched on.
func hasTimer(ctx context.Context) bool {
	if runtime.GOOS != "linux" {
		return false
	}
	said, err := systemctl(ctx, "is-enabled", timerUnit)
	return err == nil && said == "enabled"
}

// timerWords says it to people.
func timerWords(on bool) string {
	if on {
		return timerUnit + ", daily"
	}
	return "none (" + timerUnit + " is not switched on; a crontab is not looked at); latchkey certificate install switches it on"
}

// renewal is a command line that renews: this program, with what differs from the usual.
type renewal struct {
	program, file, socket string // absolute; file and socket empty where they are the usual ones
	noBrowser             bool
}

func newRenewal(file, socket string, noBrowser bool) (r renewal, err error) {
	r.noBrowser = noBrowser
	if r.program, err = os.Executable(); err != nil {
		return r, err
	}
	if file != "" {
		if r.file, err = filepath.Abs(file); err != nil {
			return r, err
		}
	}
	if socket != defaultAgent {
		if r.socket, err = filepath.Abs(socket); err != nil {
			return r, err
		}
	}
	if strings.ContainsFunc(r.program+r.file+r.socket, unicode.IsControl) {
		return r, errors.New("a path holds a control character")
	}
	return r, nil
}

// args are those behind the program.
func (r renewal) args() []string {
	a := []string{"certificate", "renew", "--quiet"}
	if r.file != "" {
		a = append(a, "--file", r.file)
	}
	if r.socket != "" {
		a = append(a, "--socket", r.socket)
	}
	if r.noBrowser {
		a = append(a, "--no-browser")
	}
	return a
}

// usual tells whether the packaged units do it.
func (r renewal) usual() bool { return r.file == "" && r.socket == "" && !r.noBrowser }

// specifiers keeps systemd from filling in what a path holds.
var specifiers = strings.NewReplacer("%", "%%")

// service is the unit for this command line.
func (r renewal) service() string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%")
	line := `"` + quote.Replace(r.program) + `"`
	for _, a := range r.args() {
		// Variables are filled in behind the program alone.
		line += ` "` + strings.ReplaceAll(quote.Replace(a), "$", "$$") + `"`
	}
	var b strings.Builder
	for l := range strings.Lines(units.Service) {
		switch {
		case strings.HasPrefix(l, "ExecStart="):
			l = "ExecStart=" + line + "\n"
		case strings.HasPrefix(l, "ConditionPathExists=") && r.file != "":
			l = "ConditionPathExists=" + specifiers.Replace(r.file) + "\n"
		}
		b.WriteString(l)
	}
	return b.String()
}

// cron is the line for a crontab. The time of the day comes from the certificate, so
// that not everybody comes at once.
func (r renewal) cron(serial []byte) string {
	var sum int
	for _, b := range serial {
		sum += int(b)
	}
	words := append([]string{r.program}, r.args()...)
	for i, w := range words {
		words[i] = shellWord(w)
	}
	return fmt.Sprintf("%d %d * * * %s", sum%60, 9+sum%8, strings.ReplaceAll(strings.Join(words, " "), "%", `\%`))
}

// shellWord quotes a word for a shell, where that is needed.
func shellWord(w string) string {
	if !strings.ContainsFunc(w, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("/._-=,:", c)
	}) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// startTimer sees to it that the certificate is renewed by itself. What does not work is
// told and is no error: the certificate is there.
func startTimer(ctx context.Context, r renewal, serial []byte) (on bool, problem string) {
	if runtime.GOOS == "windows" {
		return false, "nothing renews the certificate by itself here; have the task scheduler run this once a day: " + r.program + " " + strings.Join(r.args(), " ")
	}
	if !hasSystemd(ctx) {
		return false, "nothing renews the certificate by itself, because no systemd of your own runs here; put this into cron (crontab -e): " + r.cron(serial)
	}
	if err := enableTimer(ctx, r); err != nil {
		return false, fmt.Sprintf("nothing renews the certificate by itself: %v; put this into cron (crontab -e): %s", err, r.cron(serial))
	}
	return true, ""
}

func enableTimer(ctx context.Context, r renewal) error {
	config, err := os.UserConfigDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(config, "systemd", "user")
	there, err := systemctl(ctx, "show", "--property=FragmentPath", "--value", timerUnit)
	if err != nil {
		return err
	}
	if packaged := there != "" && filepath.Dir(there) != dir; !packaged || !r.usual() {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		for name, unit := range map[string]string{serviceUnit: r.service(), timerUnit: units.Timer} {
			if err := statefile.Replace(filepath.Join(dir, name), []byte(unit)); err != nil {
				return err
			}
		}
	}
	if _, err := systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	_, err = systemctl(ctx, "enable", "--now", timerUnit)
	return err
}

// stopTimer undoes startTimer: the timer is switched off, and units that were written into
// the user's folder go. One that renews another file stays.
func stopTimer(ctx context.Context, file string) (off bool, problem string) {
	if runtime.GOOS != "linux" {
		return false, ""
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return false, fmt.Sprintf("the timer was not looked for: %v; set HOME and try again", err)
	}
	usual, err := certFile("")
	if err != nil {
		return false, err.Error()
	}
	service := filepath.Join(config, "systemd", "user", serviceUnit)
	unit, err := os.ReadFile(service)
	switch {
	case err != nil: // there is none, or the packaged one is used
		if file != usual {
			return false, ""
		}
	case strings.Contains(string(unit), `"--file"`):
		if !strings.Contains(string(unit), "\nConditionPathExists="+specifiers.Replace(file)+"\n") {
			return false, ""
		}
	case file != usual:
		return false, ""
	}
	if hasTimer(ctx) {
		if _, err := systemctl(ctx, "disable", "--now", timerUnit); err != nil {
			return false, fmt.Sprintf("the timer %s is still there: %v; switch it off yourself: systemctl --user disable --now %s", timerUnit, err, timerUnit)
		}
		off = true
	}
	var faults []error
	for _, u := range []string{service, filepath.Join(filepath.Dir(service), timerUnit)} {
		if err := os.Remove(u); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		} else if err == nil {
			off = true
		}
	}
	if err := errors.Join(faults...); err != nil {
		return off, fmt.Sprintf("the timer's unit is still there: %v; delete it yourself", err)
	}
	if off && hasSystemd(ctx) {
		_, _ = systemctl(ctx, "daemon-reload")
	}
	return off, ""
}
