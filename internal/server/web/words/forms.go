package words

// Two people change the same thing.
const (
	ClashTitle     = "Somebody else changed this in the meantime"
	ClashElsewhere = "None of these fields was changed, but something else on this page was."
	ClashField     = "Field"
	ClashWas       = "When you opened the page"
	ClashIs        = "Now"
	ClashYours     = "Yours"
	ClashBoth      = "both changed"
	ClashDecide    = "Nothing of yours was saved. The form below holds the newer values, and yours where you had changed them. Look it over and send it again, and it replaces the newer values."
	ClashDrop      = "Drop mine and open the page anew"
)

// ClashBy names who was faster.
func ClashBy(name string) string {
	if name == "" {
		return "It was changed"
	}
	return name + " changed it"
}

// A form that needs a second factor given a moment ago.
const (
	FormConfirm     = "Nothing was saved yet: this needs your second factor again."
	FormConfirmHow  = "What you typed is still here, except passwords. Confirm in another tab, then send this again."
	FormConfirmLink = "Confirm it is you"
)
