package agent

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"runtime"
	"strings"

	"latchkey/internal/buildinfo"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// complete adds what every machine can say of itself.
func complete(f *wire.MachineFacts) {
	f.AgentVersion = buildinfo.Version()
	if f.Hostname == "" {
		if h, err := os.Hostname(); err == nil {
			f.Hostname = text.CleanN(h, text.MaxName)
		}
	}
	f.OS = runtime.GOOS
	if pretty := osRelease(readSmall("/etc/os-release")); pretty != "" {
		f.OS += " " + pretty
	}
}

// osRelease finds PRETTY_NAME in an os-release file.
func osRelease(b []byte) string {
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
			return text.CleanN(strings.Trim(v, `"'`), 100)
		}
	}
	return ""
}

// bootID names the boot of the operating system; where the system has no such
// name it is empty, and no window silences anything (W5).
func bootID() string {
	id := strings.TrimSpace(string(readSmall("/proc/sys/kernel/random/boot_id")))
	if len(id) != 36 {
		return ""
	}
	return id
}

// secureBootVariable is the firmware's word on Secure Boot (UEFI §3.3): four octets of
// attributes, then 1 if it checks what it starts.
const secureBootVariable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// secureBoot tells whether Secure Boot is on; where nobody can say, it is not.
func secureBoot() bool {
	b := readSmall(secureBootVariable)
	return len(b) == 5 && b[4] == 1
}

// readSmall reads at most 64 KiB; what can not be read is nothing.
func readSmall(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil
	}
	return b
}
