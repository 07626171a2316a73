// Package user holds the units for a user's own systemd, so that the command can write
// them where no package has (M4). They are files of their own, to be read and packaged.
package user

import _ "embed"

// Name is the units' common name.
const Name = "latchkey-certificate"

// Service renews the certificate, Timer starts it every day.
var (
	//go:embed latchkey-certificate.service
	Service string
	//go:embed latchkey-certificate.timer
	Timer string
)
