// Package status answers "is it alive?": /healthz and /readyz over HTTP, rendered
// from one Snapshot value, the heartbeats behind them, and the question asked
// from outside by renewatch health.
package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/net/netutil"
)

// Snapshot is what the program knows of itself at one moment. It holds nothing
// about the health of certificates: an orchestrator that restarted the program
// because a certificate is stale would blind the one who could mend it.
type Snapshot struct {
	Time     time.Time // when it was taken
	PID      int       // 0 means this process
	Version  string
	Started  time.Time
	Stalled  []string // loops that do not beat
	Scanned  bool     // the first scan of all files is done
	Degraded []Degradation
	Outbox   Outbox
}

// Degradation is one way in which the program is blind or deaf at present.
type Degradation struct {
	What   string    `json:"what"` // watch, nats, clock, roots, resolver, http ...
	Detail string    `json:"detail"`
	Hint   string    `json:"hint,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// Outbox is what is not delivered yet.
type Outbox struct {
	Depth  int       // events
	Oldest time.Time // when the oldest of them was written; zero when Depth is 0
}

// Report is the JSON body of /healthz and /readyz. Readers must expect more.
type Report struct {
	Status        string        `json:"status"` // ok, stalled, ready, starting
	PID           int           `json:"pid"`
	Version       string        `json:"version,omitempty"`
	UptimeSeconds int64         `json:"uptime_seconds"`
	Stalled       []string      `json:"stalled"`
	Degraded      []Degradation `json:"degraded"`
	DegradedMore  int           `json:"degraded_omitted,omitempty"`
	Outbox        OutboxReport  `json:"outbox"`
}

// OutboxReport is the Outbox in a Report.
type OutboxReport struct {
	Depth      int   `json:"depth"`
	AgeSeconds int64 `json:"age_seconds"` // of the oldest undelivered event
}

// The words of Report.Status.
const (
	StatusOK       = "ok"       // healthz: all loops beat
	StatusStalled  = "stalled"  // healthz: some do not
	StatusReady    = "ready"    // readyz: the first scan is done
	StatusStarting = "starting" // readyz: it is not
)

const (
	maxDegraded = 32
	maxText     = 512
)

func (s Snapshot) report(status string) Report {
	r := Report{
		Status: status, PID: cmp.Or(s.PID, os.Getpid()), Version: s.Version,
		UptimeSeconds: seconds(s.Time, s.Started),
		Stalled:       s.Stalled,
		Degraded:      []Degradation{},
		Outbox:        OutboxReport{Depth: s.Outbox.Depth, AgeSeconds: seconds(s.Time, s.Outbox.Oldest)},
	}
	if r.Stalled == nil {
		r.Stalled = []string{}
	}
	for i, d := range s.Degraded {
		if i == maxDegraded {
			r.DegradedMore = len(s.Degraded) - i
			break
		}
		d.What, d.Detail, d.Hint = cut(d.What), cut(d.Detail), cut(d.Hint)
		if !d.Since.IsZero() {
			d.Since = d.Since.UTC().Truncate(time.Second)
		}
		r.Degraded = append(r.Degraded, d)
	}
	return r
}

// seconds from then to now; 0 for an unset or later then.
func seconds(now, then time.Time) int64 {
	if then.IsZero() {
		return 0
	}
	return max(0, int64(now.Sub(then)/time.Second))
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Health is the answer to /healthz: 200 while every loop beats, else 503.
func (s Snapshot) Health() (code int, body Report) {
	if len(s.Stalled) > 0 {
		return http.StatusServiceUnavailable, s.report(StatusStalled)
	}
	return http.StatusOK, s.report(StatusOK)
}

// Ready is the answer to /readyz: 200 once the first scan is done, else 503.
func (s Snapshot) Ready() (code int, body Report) {
	if !s.Scanned {
		return http.StatusServiceUnavailable, s.report(StatusStarting)
	}
	return http.StatusOK, s.report(StatusReady)
}

// Handler serves /healthz and /readyz from snapshots. It only reads.
func Handler(snapshot func() Snapshot) http.Handler {
	mux := http.NewServeMux()
	serve := func(answer func(Snapshot) (int, Report)) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			if req.Method != http.MethodGet && req.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				reply(w, http.StatusMethodNotAllowed, map[string]string{"error": "only GET and HEAD"})
				return
			}
			code, body := answer(snapshot())
			reply(w, code, body)
		}
	}
	mux.Handle("/healthz", serve(Snapshot.Health))
	mux.Handle("/readyz", serve(Snapshot.Ready))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusNotFound, map[string]string{"error": "not found: there are /healthz and /readyz"})
	})
	return mux
}

func reply(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"error":"cannot encode the answer"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n'))
}

const (
	// maxConns bounds the connections served at once; further ones wait.
	maxConns = 64
	// readTimeout and writeTimeout bound how long a silent or slow client holds
	// one of them.
	readTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	// stopTimeout is how long requests under way may take when the server stops.
	stopTimeout = 2 * time.Second
)

// Server is a listening status server.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen opens the address; connections wait until Serve. Port 0 is any free one.
func Listen(ctx context.Context, address string, snapshot func() Snapshot) (*Server, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, listenError(address, err)
	}
	s := &Server{
		listener: netutil.LimitListener(l, maxConns),
		http: &http.Server{
			Handler:           Handler(snapshot),
			ReadTimeout:       readTimeout,
			ReadHeaderTimeout: readTimeout,
			WriteTimeout:      writeTimeout,
			MaxHeaderBytes:    8 << 10,
			// What a client does wrong is nobody's news.
			ErrorLog: log.New(io.Discard, "", 0),
		},
	}
	// One request a connection: an idle one would take a place from a probe.
	s.http.SetKeepAlivesEnabled(false)
	return s, nil
}

// ListenError is why an address could not be opened.
type ListenError struct {
	sentence, hint string
	err            error
}

func (e *ListenError) Error() string { return e.sentence }

// Unwrap returns the cause.
func (e *ListenError) Unwrap() error { return e.err }

// Hint says what a person can do; it may be empty.
func (e *ListenError) Hint() string { return e.hint }

func listenError(address string, err error) error {
	e := &ListenError{sentence: fmt.Sprintf("cannot listen on %s for http: %v", address, err), err: err}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.sentence = fmt.Sprintf("cannot listen on %s for http: the port is taken", address)
		e.hint = "another program, or another renewatch, has it: set http.listen to another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.sentence = fmt.Sprintf("cannot listen on %s for http: the address is not on this host", address)
		e.hint = "set http.listen to an address of this host, 127.0.0.1:9877 for example"
	case errors.Is(err, syscall.EACCES):
		e.sentence = fmt.Sprintf("cannot listen on %s for http: not allowed", address)
		e.hint = "ports below 1024 need a capability: set http.listen to a higher port"
	}
	return e
}

// URL is where the server can be reached from this host.
func (s *Server) URL() string {
	ap, err := netip.ParseAddrPort(s.listener.Addr().String())
	if err != nil {
		return "http://" + s.listener.Addr().String()
	}
	ip := ap.Addr().Unmap()
	switch {
	case ip == netip.IPv4Unspecified(), ip == netip.IPv6Unspecified():
		// Go opens the IPv6 wildcard for both families.
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "http://" + netip.AddrPortFrom(ip, ap.Port()).String()
}

// Serve answers until ctx ends, then lets requests under way finish. The end of
// ctx is no error.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("the http server ended: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := s.http.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-failed
	return err
}

// Close closes a server that is not served.
func (s *Server) Close() error { return s.listener.Close() }
