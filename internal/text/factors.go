package text

import "fmt"

// This file is what people read about kinds of factors that go another way than through the prompt, and about more
// than one factor. Rows: S2, S12, P1, M7.

// What is said while a phone is waited for.
const (
	StillWaiting = "Nothing has come from the phone yet."
	WaitBack     = "Type m for another way."
	NobodyThere  = "Nobody answered in time."
	NoOtherWay   = "There is no other way to choose."
	SaidNo       = "Sign-in denied: the request was denied on the phone. If that was not you, tell an administrator."
)

// Step says which of several factors is asked for now (P1). With one alone it says nothing.
func Step(i, n int, prompt string) string {
	if n < 2 {
		return prompt
	}
	return fmt.Sprintf("Step %d of %d. %s", i, n, prompt)
}
