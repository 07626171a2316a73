package ui

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/fault"
)

// heartbeat is how often a stream says that it lives, where nothing else is said.
const heartbeat = 15 * time.Second

// Stream answers with server-sent events: each is a fragment, which the list that is
// followed puts on top, with an id from which the browser goes on when the connection
// is lost (LastID). follow calls send for each until its context ends. The route must
// be Slow; when its time is over the browser comes again, and who it is is judged anew.
func (r *Request) Stream(follow func(ctx context.Context, send func(id string, c templ.Component) error) error) error {
	if r.route == nil || r.route.Slow == 0 {
		return fault.New(fault.Internal, fmt.Errorf("%s is a stream and not slow", r.URL.Path))
	}
	ctx, cancel := context.WithTimeout(r.Context(), r.route.Slow-5*time.Second)
	defer cancel()
	h := r.W.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	out := http.NewResponseController(r.W)
	if _, err := fmt.Fprint(r.W, "retry: 2000\n\n"); err != nil {
		return nil
	}
	if err := out.Flush(); err != nil {
		return fault.New(fault.Internal, err)
	}
	lines := make(chan []byte)
	done := make(chan error, 1)
	go func() {
		// What guards the pages does not see this goroutine: a mistake in one row ends the
		// stream and not the server.
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		done <- follow(ctx, func(id string, c templ.Component) error {
			var b bytes.Buffer
			if err := c.Render(context.WithValue(ctx, requestKey{}, r), &b); err != nil {
				return err
			}
			select {
			case lines <- message(id, b.String()):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	var err error
	for over := false; !over; {
		select {
		case l := <-lines:
			_, err = r.W.Write(l)
		case <-r.Clock.After(heartbeat):
			_, err = fmt.Fprint(r.W, ":\n\n")
		case e := <-done:
			if e != nil && ctx.Err() == nil {
				r.Log.WarnContext(ctx, "a stream broke off", "path", r.URL.Path, "error", e)
			}
			return nil
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			over = true
		}
	}
	cancel()
	for {
		select {
		case <-lines:
		case <-done:
			return nil
		}
	}
}

// LastID is the id of the last event that the browser has of a stream; empty at first.
func (r *Request) LastID() string {
	id := r.Header.Get("Last-Event-ID")
	if len(id) > 100 {
		return ""
	}
	return id
}

// message writes an event of a stream: a line break must not end it early.
func message(id, data string) []byte {
	var b bytes.Buffer
	if id != "" {
		b.WriteString("id: " + strings.NewReplacer("\n", "", "\r", "", "\x00", "").Replace(id) + "\n")
	}
	for line := range strings.SplitSeq(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data), "\n") {
		b.WriteString("data: " + line + "\n")
	}
	b.WriteString("\n")
	return b.Bytes()
}
