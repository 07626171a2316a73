package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// eventFlags choose events.
type eventFlags struct {
	types                  []string
	user, machine, outcome string
	since, until           whenFlag
	limit                  int
	follow                 bool
	actions                bool
	more                   map[string]*string
}

func (e *eventFlags) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"type": strings.Join(e.types, ","), "user": e.user, "machine": e.machine, "outcome": e.outcome} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, v := range e.more {
		if *v != "" {
			q.Set(name, *v)
		}
	}
	if e.actions {
		q.Set("actions", "true")
	}
	for name, t := range map[string]time.Time{"since": e.since.t, "until": e.until.t} {
		if !t.IsZero() {
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

// filters adds the flags that choose events.
func (e *eventFlags) filters(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&e.types, "type", nil, "only of these types")
	f.StringVar(&e.user, "user", "", "only about this user: name or id")
	f.StringVar(&e.machine, "machine", "", "only on this machine: name, number or id")
	f.StringVar(&e.outcome, "outcome", "", "only with this outcome: allow, deny, ignore, …")
	f.Var(&e.since, "since", "only from this time on")
	f.Var(&e.until, "until", "only before this time")
	f.BoolVar(&e.actions, "actions", false, "only what administrators did")
	e.more = map[string]*string{}
	for _, x := range moreEventFlags {
		e.more[x.name] = f.String(x.name, "", x.usage)
	}
	types := make([]string, 0, len(event.Meaning))
	for t := range event.Meaning {
		types = append(types, string(t))
	}
	slices.Sort(types)
	choose(c, "type", types...)
}

const defaultEvents = 50

func (a *app) eventsCommand() *cobra.Command {
	e := eventFlags{since: whenFlag{now: a.clock.Now}, until: whenFlag{now: a.clock.Now}}
	c := &cobra.Command{
		Use: "events", Short: "What happened: sign-ins, offline data, machines, administrators' actions",
		Long: `Prints the youngest events, the oldest of them first. With --output json one object
a line. --follow goes on until it is interrupted.

--type takes a type ("signin.denied") or the beginning of some ("signin."), several with
commas. --since and --until take a time, or how long ago ("2h", "7d").`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if e.limit < 0 {
				return usagef("--limit: %d is not allowed; allowed is 0 (no end) or more", e.limit)
			}
			if e.follow {
				return a.follow(cmd.Context(), cl, e, cmd.Flags().Changed("limit"))
			}
			limit := e.limit
			if !cmd.Flags().Changed("limit") && !e.since.t.IsZero() {
				limit = 0 // since then means all since then
			}
			events, err := list[rest.Event](cmd.Context(), cl, "/events", e.query(), limit)
			if err != nil {
				return err
			}
			slices.Reverse(events)
			if a.output == outputJSON {
				return a.eventLines(events)
			}
			return a.emit(nil, func(p *printer) { eventTable(p, events) })
		},
	}
	f := c.Flags()
	e.filters(c)
	f.IntVar(&e.limit, "limit", defaultEvents, "how many; 0 is no end")
	f.BoolVarP(&e.follow, "follow", "f", false, "go on with what happens from now on")
	c.MarkFlagsMutuallyExclusive("follow", "until")
	c.AddCommand(a.eventsVerify(), a.eventsShow(), a.eventsExport())
	return c
}

func (a *app) eventLines(events []rest.Event) error {
	w := bufio.NewWriter(a.out)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return w.Flush()
}

func eventTable(p *printer, events []rest.Event) {
	t := text.NewTable("TIME", "EVENT", "WHO", "MACHINE", "SERVICE", "LINK", "RESULT", "DETAIL")
	for _, e := range events {
		t.Row(e.At.Local().Format("01-02 15:04:05"), e.Type, who(e), dash(e.Machine), dash(e.Service), dash(e.Link), dash(e.Outcome), eventDetail(e))
	}
	p.table(t, "There are no such events.")
}

// who is whom an event is about, and who did it if that is another.
func who(e rest.Event) string {
	switch {
	case e.Subject == "":
		return dash(e.Actor)
	case e.Actor == "" || e.Actor == e.Subject || e.Actor == "server" || e.Actor == "agent":
		return e.Subject
	}
	return e.Subject + " (by " + e.Actor + ")"
}

func eventDetail(e rest.Event) string {
	var parts []string
	for _, s := range []string{e.Reason, e.Factor} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Address != "" {
		parts = append(parts, "from "+e.Address)
	}
	return strings.Join(parts, ", ")
}

// follow prints events as the server writes them, until it is interrupted. A stream ends
// after a while, or breaks: it is asked for again from its place, so that none is missed,
// and what was printed since is known by its id.
func (a *app) follow(ctx context.Context, cl *client, e eventFlags, limited bool) error {
	q := e.query()
	q.Del("since")
	q.Del("until")
	tail := 20
	if limited {
		tail = min(e.limit, rest.MaxPage)
	}
	q.Set("tail", strconv.Itoa(tail))
	cl.http.Timeout = 0
	printed := map[string]bool{} // since the place
	for failed := 0; ; {
		res, err := cl.request(ctx, http.MethodGet, "/events/stream", q, nil, http.Header{})
		switch {
		case ctx.Err() != nil:
			return nil // interrupted: that is how it ends
		case err != nil && (q.Get("after") == "" || refused(err)):
			return err
		case err == nil:
			failed = 0
			if place := res.Header.Get(placeHeader); place != "" {
				q.Set("after", place)
				q.Del("tail")
			}
			err = a.followOne(res, e, printed)
			_ = res.Body.Close()
			if place := res.Trailer.Get(placeHeader); err == nil && place != "" {
				q.Set("after", place) // all before it was printed
				clear(printed)
			} else if err == nil {
				err = &brokenError{errors.New("the server has ended it")}
			}
			var broken *brokenError
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil && (!errors.As(err, &broken) || q.Get("after") == ""):
				return err
			case err == nil:
				continue // its time was over
			}
			failed = 1
		default:
			failed++
		}
		wait := min(time.Second<<min(failed-1, 5), 30*time.Second)
		fmt.Fprintf(a.err, "%v\nIt is tried again in %v; what happens meanwhile is not missed.\n", err, wait)
		if a.clock.Sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// placeHeader names the place where a stream begins.
const placeHeader = "Latchkey-Place"

// refused tells an answer that another try does not change.
func refused(err error) bool {
	var p *rest.Problem
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusTooManyRequests
}

// brokenError is a stream that did not end as it should.
type brokenError struct{ cause error }

func (e *brokenError) Error() string {
	return "the connection to the server broke: " + e.cause.Error()
}

func (e *brokenError) Unwrap() error { return e.cause }

// followOne prints one stream but for what was printed before.
func (a *app) followOne(res *http.Response, e eventFlags, printed map[string]bool) error {
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue
		}
		var ev rest.Event
		if err := json.Unmarshal(sc.Bytes(), &ev); err != nil {
			return fmt.Errorf("the server's answer is not understood; is it of another version than this command? %w", err)
		}
		seen := printed[ev.ID]
		printed[ev.ID] = true
		if seen || !e.since.t.IsZero() && ev.At.Before(e.since.t) {
			continue
		}
		var err error
		if a.output == outputJSON {
			err = a.eventLines([]rest.Event{ev})
		} else {
			err = a.emit(nil, func(p *printer) { p.line("%s", eventLine(ev)) })
		}
		if err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return &brokenError{err}
	}
	return nil
}

// reasonOf is an event's reason with what it means for how it came out.
func reasonOf(e rest.Event) string {
	if e.Outcome == string(policy.Allow) && e.Reason == string(policy.ReasonMFA) {
		return e.Reason + ": A second factor was asked for, and given."
	}
	return reason(e.Reason)
}

// reason is a code with what it means.
func reason(code string) string {
	if m := event.Reasons[code]; m != "" {
		return code + ": " + m
	}
	return code
}

// eventLine is an event in a line of its own, where no table can be laid out.
func eventLine(e rest.Event) string {
	parts := []string{e.At.Local().Format("01-02 15:04:05"), e.Type, who(e)}
	if e.Machine != "" {
		parts = append(parts, "on "+e.Machine)
	}
	if e.Service != "" {
		parts = append(parts, "through "+e.Service)
	}
	if e.Link != "" {
		parts = append(parts, "link "+e.Link)
	}
	for _, s := range []string{e.Outcome, eventDetail(e)} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "  ")
}

func (a *app) eventsVerify() *cobra.Command {
	var in rest.Verify
	c := &cobra.Command{
		Use: "verify", Short: "Prove that no event is missing or was edited",
		Long: "Recomputes the chains of all events. Keep the marks that it prints somewhere else, and\ngive them to a later check: that shows also a chain that was rewritten as a whole.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			cl.http.Timeout = verifyTime
			var v rest.Verified
			if err := cl.call(cmd.Context(), http.MethodPost, "/events/verify", nil, in, &v); err != nil {
				return err
			}
			err = a.emit(v, func(p *printer) {
				if v.Whole {
					p.line("Whole: %s in %s, none missing or edited.", plural(int(v.Events), "event"), plural(len(v.Chains), "chain"))
				}
				for _, c := range v.Chains {
					if c.Broken == 0 {
						p.line("mark %s", c.Head)
					}
				}
			})
			if err != nil || v.Whole {
				return err
			}
			for _, c := range v.Chains {
				if c.Broken != 0 {
					a.say("the chain %s is broken at event %d: %s", c.Name, c.Broken, c.Why)
				}
			}
			a.say("somebody has changed the database by hand, or it was restored: compare it with a backup and with what was sent to the SIEM")
			return codeError(exitFailed)
		},
	}
	c.Flags().StringArrayVar(&in.Marks, "mark", nil, "CHAIN:SEQ:HASH of an earlier check; may be repeated")
	return c
}

func (a *app) eventsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show EVENT-ID", Short: "Show one event with all it holds", Args: words("EVENT-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var e rest.Event
			if err := cl.call(cmd.Context(), http.MethodGet, at("events", args[0]), nil, nil, &e); err != nil {
				return err
			}
			return a.emit(e, func(p *printer) {
				p.card("Event", e.Type, "Meaning", event.Meaning[event.Type(e.Type)], "Id", e.ID, "Place", fmt.Sprintf("%s %d", e.Chain, e.Seq),
					"At", e.At.Local().Format(time.RFC3339), "Received", e.ReceivedAt.Local().Format(time.RFC3339), "Actor", e.Actor, "Subject", e.Subject,
					"User", e.UserID, "Machine", strings.TrimSpace(e.Machine+" "+e.MachineID), "Address", e.Address, "Scope", e.Scope, "Service", e.Service,
					"Link", e.Link, "Outcome", e.Outcome, "Reason", reasonOf(e), "Factor", e.Factor)
				var data struct {
					Trace []step `json:"trace"`
				}
				if json.Unmarshal(e.Data, &data) == nil && len(data.Trace) > 0 {
					p.line("")
					trace(p, data.Trace)
				} else if len(e.Data) > 0 {
					p.line("Data:  %s", e.Data)
				}
			})
		},
	}
}
