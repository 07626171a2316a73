package ui

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/clock"
)

func TestAPanicInARowEndsTheStreamAndNotTheServer(t *testing.T) {
	var log strings.Builder
	d := &Deps{Clock: clock.Real, Log: slog.New(slog.NewTextHandler(&log, nil))}
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		r := NewRequest(d, w, hr, nil, &Route{Slow: time.Minute})
		ended <- r.Stream(func(_ context.Context, send func(string, templ.Component) error) error {
			if err := send("1", templ.Raw("<p>first</p>")); err != nil {
				return err
			}
			return send("2", templ.ComponentFunc(func(context.Context, io.Writer) error { panic("a row that can not be drawn") }))
		})
	}))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(b), "id: 1\ndata: <p>first</p>") {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "a row that can not be drawn") {
		t.Errorf("the log does not tell: %s", &log)
	}
}
