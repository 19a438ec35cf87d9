package verify

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const serveEnv = "VERIFY_TEST_SERVE"

// TestServe is no test: it serves for a benchmark, in a process of its own, until
// its input ends. It prints its port, its root and its chain.
func TestServe(t *testing.T) {
	if os.Getenv(serveEnv) == "" {
		return
	}
	ca := newCA(t)
	p := ca.issue(t, spec{})
	port := start(t, tlsHandler(configOf(p)))
	fmt.Printf("serving %d", port)
	for _, c := range append([]*x509.Certificate{ca.root}, p.chain...) {
		fmt.Printf(" %s", base64.StdEncoding.EncodeToString(c.Raw))
	}
	fmt.Println()
	io.Copy(io.Discard, os.Stdin)
}

// elsewhere starts a server in another process.
func elsewhere(b *testing.B) (port uint16, roots *x509.CertPool, chain []*x509.Certificate) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "/proc/self/exe", "-test.run=^TestServe$")
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(line, err)
	}
	go io.Copy(io.Discard, out)
	words := strings.Fields(line)
	if _, err := fmt.Sscan(words[1], &port); err != nil {
		b.Fatal(line, err)
	}
	for _, w := range words[2:] {
		der, err := base64.StdEncoding.DecodeString(w)
		if err != nil {
			b.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			b.Fatal(err)
		}
		chain = append(chain, c)
	}
	roots = x509.NewCertPool()
	roots.AddCert(chain[0])
	return port, roots, chain[1:]
}

// cpu is what this process has used of all cores.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// inUse is what the heap and the stacks take, garbage included.
func inUse() float64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return float64(s[0].Value.Uint64() + s[1].Value.Uint64())
}

// BenchmarkRound measures what one address costs in a routine round, server not
// included: two samples.
func BenchmarkRound(b *testing.B) {
	port, roots, chain := elsewhere(b)
	p := &Prober{Roots: roots}
	target := Target{Endpoint: at(b, "https://localhost:%d?address=127.0.0.1", port), Expect: Expectation{Chain: chain}}
	b.ReportAllocs()
	used := cpu()
	for b.Loop() {
		if v := p.Round(context.Background(), target, 2, Patience{})[0]; v.Matching != 2 {
			b.Fatalf("%s: %s", v.Code, v.Detail)
		}
	}
	perRound := (cpu() - used) / time.Duration(b.N)
	b.ReportMetric(float64(perRound.Microseconds()), "cpu-us/round")
	b.ReportMetric(100*perRound.Seconds()*20_000/3600, "%core@20000/h")
}

// BenchmarkAllAtOnce asks for 20,000 rounds at the same time: the highest memory
// in use meanwhile, the goroutines, and what is left of it afterwards.
func BenchmarkAllAtOnce(b *testing.B) {
	const n = 20_000
	port, roots, chain := elsewhere(b)
	for b.Loop() {
		p := &Prober{Roots: roots}
		targets := make([]Target, n)
		for i := range targets {
			targets[i] = Target{Endpoint: at(b, "https://localhost:%d?address=127.0.0.1", port), Expect: Expectation{Chain: chain, History: make([]Fingerprint, 8)}}
		}
		runtime.GC()
		runtime.GC()
		before := inUse()
		var peak float64
		goroutines := 0
		done := make(chan struct{})
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				peak = max(peak, inUse()-before)
				goroutines = max(goroutines, runtime.NumGoroutine())
				select {
				case <-done:
					return
				case <-tick.C:
				}
			}
		}()
		var wg sync.WaitGroup
		for i := range targets {
			wg.Go(func() {
				if v := p.Round(context.Background(), targets[i], 2, Patience{})[0]; v.Matching != 2 {
					b.Errorf("%s: %s", v.Code, v.Detail)
				}
			})
		}
		wg.Wait()
		close(done)
		<-watched
		runtime.GC()
		runtime.GC()
		b.ReportMetric(peak/1e6, "peak-MB")
		b.ReportMetric((inUse()-before)/1e6, "left-MB")
		b.ReportMetric(float64(goroutines), "goroutines")
		runtime.KeepAlive(targets)
		runtime.KeepAlive(p)
	}
}

// TestADownAddressHoldsNobodyUp: a round that waits for an address that is down
// lets others begin.
func TestADownAddressHoldsNobodyUp(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	port := start(t, tlsHandler(configOf(current)))
	ln := listen(t, "127.0.0.1", 0)
	closed := portOf(ln)
	ln.Close()
	p := &Prober{Roots: ca.pool(), MaxConcurrent: 1}
	ctx, cancel := context.WithCancel(context.Background())
	var down [3][]Verdict
	var wg sync.WaitGroup
	for i := range down {
		wg.Go(func() {
			// Two addresses: the turn ends with the later one's first try.
			e := at(t, "https://localhost:%d?address=127.0.0.1,127.0.0.2", closed)
			down[i] = p.Round(ctx, Target{Endpoint: e, Expect: expecting(current)}, 2, Patience{Tries: 2, Over: time.Hour})
		})
	}
	for range 20 {
		check(t, p, Target{Endpoint: local(t, port), Expect: expecting(current)}, 2)
	}
	cancel()
	wg.Wait()
	for _, vs := range down {
		if len(vs) != 2 || vs[0].Code != Refused && !vs[0].Unheard {
			t.Errorf("%+v", vs)
		}
	}
	if len(p.turns) != 0 || len(p.places) != 0 {
		t.Errorf("%d turns and %d places are left", len(p.turns), len(p.places))
	}
}

// TestRoundsTakeTurns: the samples of a round come one after the other, those of
// others wait; and who goes away while waiting has heard nothing.
func TestRoundsTakeTurns(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{names: []string{"a.test", "b.test", "c.test"}})
	var mu sync.Mutex
	var seen []string
	config := configOf(current)
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, h.ServerName)
		return nil, nil
	}
	port := start(t, tlsHandler(config))
	p := &Prober{Roots: ca.pool(), MaxConcurrent: 1}
	var wg sync.WaitGroup
	for _, name := range []string{"a.test", "b.test", "c.test"} {
		wg.Go(func() {
			vs := p.Check(context.Background(), Target{Endpoint: at(t, "https://%s:%d?address=127.0.0.1", name, port), Expect: expecting(current)}, 8)
			if len(vs) != 1 || vs[0].Code != Serving || vs[0].Matching != 8 {
				t.Errorf("%s: %+v", name, vs)
			}
		})
	}
	wg.Wait()
	if runs := len(slices.Compact(slices.Clone(seen))); len(seen) != 24 || runs != 3 {
		t.Errorf("%d runs: %v", runs, seen)
	}

	p.turns <- struct{}{} // somebody has the only turn
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan []Verdict)
	go func() { gone <- p.Check(ctx, Target{Endpoint: local(t, port), Expect: expecting(current)}, 2) }()
	cancel()
	if vs := <-gone; len(vs) != 1 || !vs[0].Unheard || vs[0].Code != Unverifiable {
		t.Errorf("gone: %+v", vs)
	}
	if len(p.turns) != 1 {
		t.Error("a turn was given back that was never had")
	}
}

// crowd is a resolver that notes how many ask at the same time.
type crowd struct{ now, most atomic.Int32 }

func (c *crowd) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	now := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	for range 1000 {
		runtime.Gosched()
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

// TestRoundsBeginInTurn: of a round that has no turn nothing is begun.
func TestRoundsBeginInTurn(t *testing.T) {
	c := &crowd{}
	p := &Prober{MaxConcurrent: 8, Resolver: c}
	p.init()
	for range 6 {
		p.turns <- struct{}{}
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if vs := p.Check(context.Background(), Target{Endpoint: at(t, "https://a.test")}, 2); len(vs) != 1 || vs[0].Code != Unresolved {
				t.Errorf("%+v", vs)
			}
		})
	}
	wg.Wait()
	if most := c.most.Load(); most > 2 {
		t.Errorf("%d at the same time, with two turns", most)
	}
}
