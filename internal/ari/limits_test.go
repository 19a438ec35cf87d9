package ari

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTheDirectoryIsKept(t *testing.T) {
	for _, c := range []struct {
		name    string
		control string
		ttl     time.Duration
		fetched int
	}{
		{"for a day", "", 0, 1},
		{"for an hour, whatever it says", "public, max-age=0, no-cache", 0, 1},
		{"not longer than wanted", "", time.Nanosecond, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := newFakeCA(t)
			directory := ca.directory
			ca.answers(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", c.control)
				directory(w, r)
			}, nil)
			client := ca.client(t, Options{DirectoryTTL: c.ttl})
			for range 3 {
				if _, err := ca.ask(t, client); err != nil {
					t.Fatal(err)
				}
			}
			if d, i := ca.counts(); d != c.fetched || i != 3 {
				t.Errorf("%d and %d requests", d, i)
			}
		})
	}
	t.Run("that there is no ARI too", func(t *testing.T) {
		ca := newFakeCA(t)
		ca.answers(body(200, jsonType, `{"newOrder":"https://a.example/o"}`), nil)
		client := ca.client(t, Options{})
		for range 3 {
			if _, err := ca.ask(t, client); !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
		}
		if d, _ := ca.counts(); d != 1 {
			t.Errorf("%d requests", d)
		}
	})
	t.Run("but not when it leads nowhere", func(t *testing.T) {
		ca := newFakeCA(t)
		ca.answers(nil, body(404, html, "no route"))
		client := ca.client(t, Options{})
		for range 2 {
			if _, err := ca.ask(t, client); !errors.Is(err, ErrNonsense) {
				t.Fatal(err)
			}
		}
		if d, _ := ca.counts(); d != 2 {
			t.Errorf("%d requests", d)
		}
	})
}

func TestACAInTroubleIsLeftAlone(t *testing.T) {
	ca := newFakeCA(t)
	ca.answers(nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	client := ca.client(t, Options{})
	var first time.Time
	for range 5 {
		_, err := ca.ask(t, client)
		var e *Error
		if !errors.As(err, &e) || e.Kind != ErrUnavailable {
			t.Fatal(err)
		}
		if first.IsZero() {
			first = e.RetryAfter
		}
		if !e.RetryAfter.Equal(first) {
			t.Errorf("again at %s, then at %s", first, e.RetryAfter)
		}
	}
	if _, infos := ca.counts(); infos != 1 {
		t.Errorf("%d requests", infos)
	}
}

func TestOneQuestionAtATime(t *testing.T) {
	ca := newFakeCA(t)
	var running, most atomic.Int32
	slow := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n := running.Add(1)
			defer running.Add(-1)
			for range 2000 {
				runtime.Gosched()
			}
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			next(w, r)
		}
	}
	ca.answers(slow(ca.directory), slow(ca.info))
	client := ca.client(t, Options{})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := client.Ask(t.Context(), ca.URL+"/directory", ca.leaf); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if d, i := ca.counts(); most.Load() != 1 || d != 1 || i != 16 {
		t.Errorf("%d at a time, %d and %d requests", most.Load(), d, i)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	ca := newFakeCA(t)
	client := ca.client(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 10 * mostHosts {
		client.Ask(ctx, fmt.Sprintf("https://ca%d.invalid/directory", i), ca.leaf)
	}
	if n := len(client.hosts); n > mostHosts {
		t.Errorf("%d hosts are remembered", n)
	}
	for i := range 3 * mostHosts {
		if _, err := client.Ask(t.Context(), fmt.Sprintf("%s/%d", ca.URL, i), ca.leaf); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range client.hosts {
		if len(h.directories) > mostHosts {
			t.Errorf("%d directories are remembered", len(h.directories))
		}
	}
}

// TestProxy asks in a process of its own: net/http reads the environment once.
func TestProxy(t *testing.T) {
	const child = "RENEWATCH_TEST_PROXY"
	ca := newFakeCA(t)
	if os.Getenv(child) != "" {
		_, err := ca.client(t, Options{Timeout: 10 * time.Second}).Ask(t.Context(), "https://ca.test/directory", ca.leaf)
		if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	lines := make(chan string, 8)
	go func() {
		defer close(lines)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			lines <- strings.TrimSpace(line)
			io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			conn.Close()
		}
	}()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestProxy$", "-test.count=1")
	cmd.Env = append(os.Environ(), child+"=1", "HTTPS_PROXY=http://me:secret@"+ln.Addr().String(), "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ln.Close()
	if got := <-lines; got != "CONNECT ca.test:443 HTTP/1.1" {
		t.Errorf("the proxy was asked %q", got)
	}
}

func TestTLS11IsRefused(t *testing.T) {
	ca := newFakeCA(t)
	old := httptest.NewUnstartedServer(ca.Config.Handler)
	old.Config.ErrorLog = ca.Config.ErrorLog
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	t.Cleanup(old.Close)
	ca.roots.AddCert(old.Certificate())
	if _, err := ca.client(t, Options{}).Ask(t.Context(), old.URL+"/directory", ca.leaf); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}
