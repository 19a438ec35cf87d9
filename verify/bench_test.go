package verify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"
)

// BenchmarkHandshakes compares a Prober's samples with a plain client that
// verifies as Go clients do, in turns against one server. "ratio" is ours
// through theirs; above 1 we are faster, because a chain is verified once.
func BenchmarkHandshakes(b *testing.B) {
	for _, keyType := range []string{"ecdsa", "rsa"} {
		b.Run(keyType, func(b *testing.B) {
			ca := newCA(b)
			current := ca.issue(b, spec{keyType: keyType})
			port := start(b, tlsHandler(configOf(current)))
			address := fmt.Sprintf("127.0.0.1:%d", port)
			config := &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}
			plain := func(n int) {
				for range n {
					raw, err := net.Dial("tcp", address)
					if err != nil {
						b.Fatal(err)
					}
					conn := tls.Client(raw, config)
					if err := conn.Handshake(); err != nil {
						b.Fatal(err)
					}
					conn.Close()
				}
			}
			p := &Prober{Roots: ca.pool()}
			target := Target{Endpoint: at(b, "https://localhost:%d?address=127.0.0.1", port), Expect: expecting(current)}
			ours := func(n int) {
				if v := p.Check(context.Background(), target, n)[0]; v.Matching != n {
					b.Fatalf("%s: %s", v.Code, v.Detail)
				}
			}
			const batch = 12
			plain(batch)
			ours(batch)
			var theirTime, ourTime time.Duration
			for b.Loop() {
				t0 := time.Now()
				plain(batch)
				t1 := time.Now()
				ours(batch)
				theirTime += t1.Sub(t0)
				ourTime += time.Since(t1)
			}
			b.ReportMetric(float64(theirTime)/float64(ourTime), "ratio")
			b.ReportMetric(float64(b.N*batch)/ourTime.Seconds(), "handshakes/s")
			b.ReportMetric(float64(b.N*batch)/theirTime.Seconds(), "plain/s")
		})
	}
}

// BenchmarkJudge measures what judging adds to a handshake.
func BenchmarkJudge(b *testing.B) {
	ca := newCA(b)
	current := ca.issue(b, spec{})
	for name, cache := range map[string]*chainCache{"cached": newChainCache(), "afresh": nil} {
		b.Run(name, func(b *testing.B) {
			bench := newBench("localhost", expecting(current), ca.pool(), cache, time.Now)
			for b.Loop() {
				if f := bench.judge(current.chain); len(f.faults) > 0 {
					b.Fatal(f.detail)
				}
			}
		})
	}
}
