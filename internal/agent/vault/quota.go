package vault

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/wire"
)

// How large the journal may be for an entry of each kind. Whoever can cause entries at
// will must not use up the room of those who can not: without room nobody signs in.
const (
	// roomRefused is for refusals that cost nobody anything: anybody on the network
	// causes them. What has no room is counted.
	roomRefused = 4 << 20
	// roomJudged is for wrong answers, which use up tries, and for what users of the
	// machine start in a loop (su, sudo).
	roomJudged = 16 << 20
	// roomOpened is for openings that spend nothing.
	roomOpened = 24 << 20
	// The rest, up to maxJournal, is for accepted factors, break-glass, and what the
	// agent itself has to say.
)

// onlyCounted is the reason of the entry that says how many refusals have none.
const onlyCounted = "only-counted"

// summaryEvery is how often it is written while refusals go on having no room; and
// before each delivery.
const summaryEvery = 10 * time.Minute

// share tells how large the journal may become by an entry.
func share(e event.Event, spent *wire.Spent) int {
	switch {
	case spent != nil, e.Reason == onlyCounted:
	case refusal(e) && slices.Contains([]string{WrongPassword, WrongCode, CodeUsed, BackupUsed, ClockBehind, ChecksUsedUp}, e.Reason):
		return roomJudged
	case refusal(e):
		return roomRefused
	case (e.Type == event.SigninIgnored || e.Type == event.SigninAllowed) && e.Scope == string(policy.Elevation):
		return roomJudged
	case e.Type == event.SigninIgnored || e.Type == event.SigninAllowed:
		return roomOpened
	}
	return maxJournal
}

// refusal tells events that let nobody in.
func refusal(e event.Event) bool {
	return e.Type == event.SigninDenied || e.Type == event.SigninAbandoned
}

// enter puts an event that is complete into the journal. A refusal for which there is
// no room is counted: it stands all the same.
func (v *Vault) enter(e event.Event, counter uint64, spent *wire.Spent) error {
	told := 0
	if e.Reason == onlyCounted {
		told = v.quiet.suppressed
		e.Data = fmt.Appendf(nil, `{"suppressed":%d}`, told)
	}
	err := v.jour.append(e, counter, spent, share(e, spent))
	switch {
	case err == nil:
		v.quiet.suppressed -= told
	case errors.Is(err, errFull) && refusal(e):
		v.quiet.suppressed++
		return nil
	case errors.Is(err, errFull):
		return because(policy.ReasonJournalFull, "%w", err)
	}
	return err
}

// full is why no answer may be judged, if there may be no room for how it comes out.
func (v *Vault) full(entries int) error {
	if v.jour.size+entries*maxEntry <= maxJournal {
		return nil
	}
	return because(policy.ReasonJournalFull, "%w", errFull)
}

// summarise writes down how many refusals were only counted. It says nothing: what can
// not be written goes on waiting.
func (v *Vault) summarise(every time.Duration) {
	now := v.now()
	if past := now.Sub(v.quiet.said); v.quiet.suppressed == 0 || v.led == nil || v.problem != "" || past >= 0 && past < every {
		return
	}
	v.quiet.said = now
	e := event.Event{Type: event.SigninDenied, Actor: "agent", Outcome: string(policy.Deny), Reason: onlyCounted}
	if err := v.append(e, nil); err != nil {
		v.log.Warn("refusals that were only counted can not be told now", "refusals", v.quiet.suppressed, "err", err)
	}
}
