package verify

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// listen opens a loopback listener; host is "127.0.0.1" or "[::1]".
func listen(t testing.TB, host string, port uint16) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port))
	if err != nil {
		if strings.HasPrefix(host, "[") {
			t.Skip("this host has no IPv6 loopback address:", err)
		}
		t.Fatal(err)
	}
	return ln
}

func portOf(ln net.Listener) uint16 {
	return netip.MustParseAddrPort(ln.Addr().String()).Port()
}

// serve runs handle for every connection until the test ends.
func serve(t testing.TB, ln net.Listener, handle func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	closed := false
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			if closed {
				c.Close()
			}
			mu.Unlock()
			wg.Go(func() {
				handle(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		closed = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// tlsHandler shakes hands and then reads until the client goes.
func tlsHandler(c *tls.Config) func(net.Conn) {
	return func(raw net.Conn) {
		conn := tls.Server(raw, c)
		if conn.Handshake() == nil {
			io.Copy(io.Discard, conn)
		}
	}
}

func configOf(pairs ...pair) *tls.Config {
	c := &tls.Config{}
	for _, p := range pairs {
		c.Certificates = append(c.Certificates, p.tls())
	}
	return c
}

// start serves handle on a free IPv4 port and returns that.
func start(t testing.TB, handle func(net.Conn)) uint16 {
	t.Helper()
	ln := listen(t, "127.0.0.1", 0)
	serve(t, ln, handle)
	return portOf(ln)
}

func at(t testing.TB, format string, args ...any) Endpoint {
	t.Helper()
	e, err := ParseEndpoint(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func local(t testing.TB, port uint16) Endpoint {
	return at(t, "https://localhost:%d?address=127.0.0.1", port)
}

// check runs one Check and wants one verdict with these faults.
func check(t *testing.T, p *Prober, target Target, samples int, faults ...Code) Verdict {
	t.Helper()
	vs := p.Check(context.Background(), target, samples)
	if len(vs) != 1 {
		t.Fatalf("%d verdicts: %+v", len(vs), vs)
	}
	v := vs[0]
	if !slices.Equal(v.Faults, faults) {
		t.Fatalf("%s: faults %v (%s), want %v", target.Endpoint, v.Faults, v.Detail, faults)
	}
	if v.Detail == "" || len(faults) > 0 && v.Hint == "" {
		t.Errorf("%s: detail %q, hint %q", target.Endpoint, v.Detail, v.Hint)
	}
	return v
}

func says(t *testing.T, v Verdict, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(v.Detail+" / "+v.Hint, w) {
			t.Errorf("detail %q, hint %q: nothing of %q", v.Detail, v.Hint, w)
		}
	}
}

// replay is a connection whose first bytes have been read already.
type replay struct {
	net.Conn
	first io.Reader
}

func (r *replay) Read(b []byte) (int, error) { return r.first.Read(b) }

func replayed(c net.Conn, head []byte) net.Conn {
	return &replay{c, io.MultiReader(bytes.NewReader(head), c)}
}

// waits blocks until the client has gone.
func waits(c net.Conn) { io.Copy(io.Discard, c) }

// brief is the timeout where it is meant to be reached.
const brief = 300 * time.Millisecond
