package status

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestAnswers(t *testing.T) {
	degraded := []Degradation{{What: "nats", Detail: "cannot reach nats.example.org", Since: now.Add(-time.Minute)}}
	tests := []struct {
		name, method, path string
		snapshot           Snapshot
		code               int
		status             string
		body               []string
	}{
		{"alive", "GET", "/healthz", Snapshot{}, 200, StatusOK, []string{`"degraded":[]`, `"stalled":[]`, `"depth":0`, fmt.Sprintf(`"pid":%d`, os.Getpid())}},
		{"alive before the first scan", "GET", "/healthz", Snapshot{Stalled: nil, Scanned: false}, 200, StatusOK, nil},
		{"a loop stands still", "GET", "/healthz", Snapshot{Stalled: []string{"watch"}, Scanned: true}, 503, StatusStalled, []string{`"stalled":["watch"]`}},
		{"degraded is alive", "GET", "/healthz", Snapshot{Time: now, Degraded: degraded, Outbox: Outbox{7, now.Add(-90 * time.Second)}}, 200, StatusOK,
			[]string{`"what":"nats"`, `"since":"2026-03-01T11:59:00Z"`, `"depth":7,"age_seconds":90`}},
		{"not ready", "GET", "/readyz", Snapshot{}, 503, StatusStarting, nil},
		{"ready", "GET", "/readyz", Snapshot{Scanned: true, Degraded: degraded}, 200, StatusReady, []string{`"what":"nats"`}},
		{"a clock that was set back", "GET", "/readyz", Snapshot{Time: now, Started: now.Add(time.Hour), Scanned: true}, 200, StatusReady, []string{`"uptime_seconds":0`}},
		{"HEAD", "HEAD", "/readyz", Snapshot{Scanned: true}, 200, "", nil},
		{"POST", "POST", "/healthz", Snapshot{}, 405, "", []string{"only GET and HEAD"}},
		{"elsewhere", "GET", "/debug/pprof/", Snapshot{}, 404, "", []string{"not found"}},
		{"the root", "GET", "/", Snapshot{}, 404, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(Handler(func() Snapshot { return tt.snapshot }))
			defer srv.Close()
			req, err := http.NewRequestWithContext(t.Context(), tt.method, srv.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.code || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %s", resp.StatusCode, resp.Header)
			}
			if (tt.method == "HEAD") != (len(body) == 0) {
				t.Errorf("body %q", body)
			}
			for _, want := range tt.body {
				if !strings.Contains(string(body), want) {
					t.Errorf("no %s in %s", want, body)
				}
			}
			if tt.status == "" {
				return
			}
			var r Report
			if err := json.Unmarshal(body, &r); err != nil || r.Status != tt.status {
				t.Errorf("%v: %s", err, body)
			}
		})
	}
}

func TestReportIsBounded(t *testing.T) {
	var s Snapshot
	for i := range 1000 {
		s.Degraded = append(s.Degraded, Degradation{What: fmt.Sprint(i), Detail: strings.Repeat("ä", 10_000)})
	}
	_, r := s.Health()
	data, err := json.Marshal(r)
	if err != nil || len(data) > 64<<10 || r.DegradedMore != 1000-maxDegraded || strings.Contains(string(data), "\uFFFD") {
		t.Errorf("%d bytes, %d left out, %v", len(data), r.DegradedMore, err)
	}
}

func TestServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := Listen(ctx, "127.0.0.1:0", func() Snapshot { return Snapshot{Scanned: true} })
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	address := strings.TrimPrefix(s.URL(), "http://")

	// Clients that connect and say nothing must not keep a probe out for ever.
	for range maxConns - 1 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 3 {
		resp, err := http.Get(s.URL() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || !resp.Close {
			t.Errorf("%d, connection kept: %t", resp.StatusCode, !resp.Close)
		}
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The server answers and closes before it has read all of a huge header.
	go fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n", strings.Repeat("a", 64<<10))
	if line, _ := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, "431") {
		t.Errorf("a huge header is answered %q", line)
	}
	if _, err := Listen(ctx, address, nil); err == nil || !strings.Contains(err.Error(), "port is taken") || err.(*ListenError).Hint() == "" {
		t.Errorf("a taken port: %v", err)
	}
	if _, err := Listen(ctx, "192.0.2.1:0", nil); err == nil || !strings.Contains(err.Error(), "not on this host") {
		t.Errorf("a foreign address: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("the end of the context is an error: %v", err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

func TestURLOfWildcard(t *testing.T) {
	s, err := Listen(t.Context(), "0.0.0.0:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
		t.Errorf("url %s", s.URL())
	}
}

func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Beats
		if got := b.Stalled(time.Now()); got != nil {
			t.Errorf("nothing is expected, stalled %v", got)
		}
		b.Expect("watch", time.Minute)
		b.Expect("keeper", 10*time.Second)
		b.Beat("stranger")
		stalled := func(want ...string) {
			t.Helper()
			if got := b.Stalled(time.Now()); !slices.Equal(got, want) {
				t.Errorf("stalled %v, want %v", got, want)
			}
		}
		time.Sleep(10 * time.Second)
		stalled()
		time.Sleep(time.Second)
		stalled("keeper")
		b.Beat("keeper")
		stalled()
		time.Sleep(time.Minute)
		stalled("keeper", "watch")
		b.Forget("keeper")
		b.Beat("keeper") // one that ends late
		stalled("watch")
		b.Expect("watch", time.Hour)
		stalled()
	})
}

func TestBeatsConcurrently(t *testing.T) {
	var b Beats
	var wg sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprint(i)
		wg.Go(func() {
			b.Expect(name, time.Hour)
			for range 200 {
				b.Beat(name)
				b.Stalled(time.Now())
			}
		})
	}
	wg.Wait()
	if got := b.Stalled(time.Now().Add(2 * time.Hour)); len(got) != 8 {
		t.Errorf("stalled %v", got)
	}
}
