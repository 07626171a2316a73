package key

// The items of a HID report descriptor (USB HID 1.11 §6.2.2) that say what a device is.
const (
	itemUsagePage = 0x04
	itemUsage     = 0x08
	itemLong      = 0xfe
	itemMask      = 0xfc
	pageFIDO      = 0xf1d0
	usageCTAPHID  = 0x01
)

// isFIDO tells whether a report descriptor is that of a security key.
func isFIDO(b []byte) bool {
	page := uint32(0)
	for len(b) > 0 {
		head := b[0]
		if head == itemLong {
			if len(b) < 3 || len(b) < 3+int(b[1]) {
				return false
			}
			b = b[3+int(b[1]):]
			continue
		}
		n := int(head & 3)
		if n == 3 {
			n = 4
		}
		if len(b) < 1+n {
			return false
		}
		v := uint32(0)
		for i := range n {
			v |= uint32(b[1+i]) << (8 * i)
		}
		switch head & itemMask {
		case itemUsagePage:
			page = v
		case itemUsage:
			of := page
			if n == 4 { // four octets: the page stands in the upper two (§6.2.2.8)
				of, v = v>>16, v&0xffff
			}
			if of == pageFIDO && v == usageCTAPHID {
				return true
			}
		}
		b = b[1+n:]
	}
	return false
}
