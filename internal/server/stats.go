package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// stats are what Prometheus sees. No name of a person or machine is in them.
type stats struct {
	reg      *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	events   *prometheus.CounterVec
}

func newStats() *stats {
	s := &stats{
		reg: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "latchkey_agent_requests_total", Help: "Requests of machines, by route and HTTP status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "latchkey_agent_request_seconds", Help: "Time to answer requests of machines, but for polls.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5},
		}, []string{"route"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "latchkey_events_total", Help: "Events written by this server since it started; sign-ins are those whose type begins with signin.",
		}, []string{"type", "outcome", "scope", "link"}),
	}
	s.reg.MustRegister(s.requests, s.seconds, s.events, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

func (s *stats) handler() http.Handler {
	return promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{Timeout: 10 * time.Second, MaxRequestsInFlight: 4})
}

// request is told of every request of a machine.
func (s *stats) request(route string, status int, took time.Duration) {
	_, path, _ := strings.Cut(route, " ")
	if path == "" {
		path = "none"
	}
	s.requests.WithLabelValues(path, strconv.Itoa(status)).Inc()
	if !strings.HasSuffix(path, "/changes") {
		s.seconds.WithLabelValues(path).Observe(took.Seconds())
	}
}

// watch adds what is looked up when somebody asks.
func (s *stats) watch(r *running) {
	s.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "latchkey_agent_polls", Help: "Machines that wait for news now.",
	}, func() float64 { return float64(r.api.Polls()) }), &tables{r})
}

// follow counts the events of this server's own chain.
func (s *stats) follow(ctx context.Context, r *running) {
	woken, cancel := r.store.WatchEvents()
	defer cancel()
	at, err := r.store.Position(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.Log.Error("events are not counted for metrics", "error", err)
		}
		return
	}
	for {
		list, err := r.store.EventsAfter(ctx, at, 500)
		if err != nil && ctx.Err() == nil {
			r.Log.Error("events could not be counted for metrics", "error", err)
		}
		for _, e := range list {
			if e.Chain == r.store.Replica() {
				s.events.WithLabelValues(e.Type, bounded(e.Outcome), bounded(e.Scope), bounded(e.Link)).Inc()
			}
		}
		if len(list) == 500 {
			continue
		}
		select {
		case _, ok := <-woken:
			if !ok {
				return
			}
		case <-ctx.Done():
			return
		}
		// A busy server writes many a second; nobody needs them counted one by one.
		if r.Clock.Sleep(ctx, time.Second) != nil {
			return
		}
	}
}

// bounded keeps words of the vocabulary: a machine must not be able to make up
// labels without end.
func bounded(word string) string {
	switch word {
	case "", "allow", "deny", "ignore", "noticed", "abandoned", "logon", "elevation", "remote", "up", "down", "refused":
		return word
	}
	return "other"
}

// tables collects what lies in the database.
type tables struct{ r *running }

var (
	descMachines = prometheus.NewDesc("latchkey_machines", "Machines by status.", []string{"status"}, nil)
	descSeen     = prometheus.NewDesc("latchkey_machines_up", "Active machines heard of within two minutes.", nil, nil)
	descUsers    = prometheus.NewDesc("latchkey_users", "Users.", nil, nil)
	descLocked   = prometheus.NewDesc("latchkey_users_locked", "Users who are locked out or must wait.", nil, nil)
	descReady    = prometheus.NewDesc("latchkey_ready", "1 if the server can do its work, as /readyz says; else 0.", nil, nil)
	descOffline  = prometheus.NewDesc("latchkey_offline_trouble", "Offline data with which nobody can sign in now, as far as machines have told: expired or shut.", []string{"state"}, nil)
	descBackup   = prometheus.NewDesc("latchkey_backup_timestamp_seconds", "When the last backup was made with latchkeyd backup; 0 is never.", nil, nil)
	descSeq      = prometheus.NewDesc("latchkey_event_chain_seq", "Number of the last event of each chain.", []string{"chain"}, nil)
)

// Describe implements prometheus.Collector.
func (t *tables) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descMachines, descSeen, descUsers, descLocked, descReady, descOffline, descBackup, descSeq} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (t *tables) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	now := t.r.Clock.Now()
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	if t.r.notReady(ctx) != "" {
		gauge(descReady, 0)
		return // what lies in the tables is not known
	}
	gauge(descReady, 1)
	var trouble db.CountVaultTroubleRow
	var backup int64
	var byStatus []db.CountMachinesByStatusRow
	var seen, users, locked int64
	var chains []db.Chain
	err := t.r.store.Read(ctx, func(q *store.Queries) (err error) {
		if byStatus, err = q.CountMachinesByStatus(ctx); err != nil {
			return err
		}
		if seen, err = q.CountSeenMachines(ctx, clock.Micros(now.Add(-2*time.Minute))); err != nil {
			return err
		}
		if users, err = q.CountUsers(ctx); err != nil {
			return err
		}
		if locked, err = q.CountLocked(ctx, clock.Micros(now)); err != nil {
			return err
		}
		if trouble, err = q.CountVaultTrouble(ctx, clock.Micros(now)); err != nil {
			return err
		}
		if v, err := q.GetSetting(ctx, settingBackup); err == nil {
			if backup, err = strconv.ParseInt(string(v), 10, 64); err != nil {
				return err
			}
		} else if !store.IsNotFound(err) {
			return err
		}
		chains, err = q.ListChains(ctx)
		return err
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descMachines, err)
		return
	}
	for _, s := range byStatus {
		gauge(descMachines, s.N, s.Status)
	}
	gauge(descSeen, seen)
	gauge(descUsers, users)
	gauge(descLocked, locked)
	gauge(descOffline, trouble.Expired, "expired")
	gauge(descOffline, trouble.Shut, "shut")
	gauge(descBackup, backup)
	for _, c := range chains {
		gauge(descSeq, c.Seq, c.Chain)
	}
}
