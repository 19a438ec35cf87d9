package verify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A stage plays the network for a confirmer: no sockets, only time.
type stage struct {
	t       *testing.T
	start   time.Time
	ca      *testCA
	old     pair
	current pair
	took    time.Duration // of one sample
	pace    time.Duration // of polls that find nothing
	mu      sync.Mutex
	taken   map[netip.AddrPort][]time.Duration
}

func newStage(t *testing.T) *stage {
	ca := newCA(t)
	return &stage{t: t, start: time.Now(), ca: ca, took: time.Millisecond,
		old: ca.issue(t, spec{from: time.Now().Add(-days(40))}), current: ca.issue(t, spec{from: time.Now().Add(-days(1))}),
		taken: map[netip.AddrPort][]time.Duration{}}
}

// shows is what a sample taken d after the start brings.
type shows func(d time.Duration) *pair

// refused is no pair at all.
var refused *pair

func (s *stage) confirmer(w Window, mail bool, servers map[netip.AddrPort]shows) *confirmer {
	c := &confirmer{
		polled: func(int64) {}, pace: func() time.Duration { return s.pace },
		window: w.filled(mail), mail: mail,
		bench:     newBench("localhost", expecting(s.current, s.old), s.ca.pool(), newChainCache(), time.Now),
		notBefore: func(netip.AddrPort) time.Time { return time.Time{} },
	}
	var dial []netip.AddrPort
	for a := range servers {
		dial = append(dial, a)
		s.taken[a] = nil
	}
	slices.SortFunc(dial, netip.AddrPort.Compare)
	c.lookup = func(context.Context) answer { return answer{dial: dial} }
	c.probe = func(addr netip.AddrPort) func(context.Context) sample {
		var mine []time.Duration
		return func(ctx context.Context) sample {
			at := time.Now()
			mine = append(mine, at.Sub(s.start))
			s.mu.Lock()
			s.taken[addr] = mine
			s.mu.Unlock()
			if !sleep(ctx, at.Add(s.took)) {
				return sample{start: at, interrupted: true}
			}
			x := sample{start: at, took: s.took}
			if p := servers[addr](at.Sub(s.start)); p == nil {
				x.code, x.why, x.advice = Refused, "refused", "start it"
			} else {
				x.chain = p.chain
			}
			return x
		}
	}
	return c
}

var one, two = netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("192.0.2.2:443")

func (s *stage) run(limit time.Duration, w Window, mail bool, server shows) (Verdict, time.Duration, []time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := s.confirmer(w, mail, map[netip.AddrPort]shows{one: server})
	vs := c.run(ctx)
	if len(vs) != 1 {
		s.t.Fatalf("%d verdicts", len(vs))
	}
	return vs[0], time.Since(s.start), s.taken[one]
}

func TestConfirmTakesTheSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.took = 0
		v, took, taken := s.run(time.Hour, Window{}, false, func(time.Duration) *pair { return &s.current })
		if v.Code != Serving || v.Samples != 12 || v.Matching != 12 || len(taken) != 12 || !v.Since.Equal(s.start) {
			t.Errorf("%s, %d of %d, %d taken, since %s", v.Code, v.Matching, v.Samples, len(taken), v.Since)
		}
		if took < 2*time.Second || took > 2*time.Second+time.Millisecond {
			t.Errorf("took %s, want the spread", took)
		}
	})
}

// TestConfirmKeepsThePace: an address that does not serve yet is polled as seldom
// as many others make necessary; the proof of one that does takes no longer.
func TestConfirmKeepsThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.pace = 3 * time.Second
		const flip = 8 * time.Second
		v, took, taken := s.run(time.Hour, Window{}, false, func(d time.Duration) *pair {
			if d < flip {
				return &s.old
			}
			return &s.current
		})
		if v.Code != Serving || len(taken) != 3+12 {
			t.Errorf("%s after %d samples", v.Code, len(taken))
		}
		for i := range 3 {
			if d := taken[i+1] - taken[i]; d < s.pace {
				t.Errorf("polled again after %s", d)
			}
		}
		if took > 9*time.Second+2*time.Second+50*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

func TestConfirmAfterTheLastOldAnswer(t *testing.T) {
	// As nginx does: old and new in turns for a while, at several moments.
	for _, flip := range []time.Duration{0, 70 * time.Millisecond, 3 * time.Second, 9 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			var lastOld time.Duration
			n := 0
			v, took, _ := s.run(time.Hour, Window{}, false, func(d time.Duration) *pair {
				n++
				if d < flip || d < flip+450*time.Millisecond && n%3 == 0 {
					lastOld = d
					return &s.old
				}
				return &s.current
			})
			if v.Code != Serving || v.Samples != 12 || !v.CountsAsServing() {
				t.Errorf("flip at %s: %s, %d of %d", flip, v.Code, v.Matching, v.Samples)
			}
			if after := took - lastOld; after < 2*time.Second || after > 2*time.Second+210*time.Millisecond {
				t.Errorf("flip at %s: confirmed %s after the last old answer", flip, after)
			}
			if since := v.Since.Sub(s.start); since <= lastOld && lastOld > 0 {
				t.Errorf("flip at %s: since %s, though an old answer came at %s", flip, since, lastOld)
			}
		})
	}
}

func TestConfirmSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		v, took, taken := s.run(15*time.Minute, Window{}, false, func(time.Duration) *pair { return &s.old })
		if v.Code != Stale || took != 15*time.Minute || !v.Since.IsZero() {
			t.Errorf("%s after %s", v.Code, took)
		}
		var gaps []time.Duration
		fast := 0
		for i := 1; i < len(taken); i++ {
			gap := taken[i] - taken[i-1]
			if gap == 200*time.Millisecond {
				fast++
			} else {
				gaps = append(gaps, gap)
			}
		}
		if fast != 50 {
			t.Errorf("%d fast polls, want 50", fast)
		}
		want := []time.Duration{400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(gaps[:len(want)], want) || slices.Max(gaps) != 30*time.Second {
			t.Errorf("gaps %v", gaps)
		}
	})
}

func TestConfirmLateLeafIsSeenFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		first, lastOld := time.Duration(0), time.Duration(0)
		n := 0
		v, took, _ := s.run(time.Hour, Window{}, false, func(d time.Duration) *pair {
			if d < 5*time.Minute {
				return &s.old
			}
			if n++; n == 1 {
				first = d
			}
			if n%2 == 0 && d < first+400*time.Millisecond {
				lastOld = d
				return &s.old
			}
			return &s.current
		})
		if v.Code != Serving || lastOld == 0 || took-lastOld > 2*time.Second+210*time.Millisecond {
			t.Errorf("%s, %s after the last old answer", v.Code, took-lastOld)
		}
	})
}

func TestConfirmZombie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		n := 0
		v, took, taken := s.run(15*time.Minute, Window{}, false, func(time.Duration) *pair {
			// Eleven new answers in a row, then one old: a window of 12 is never full.
			if n++; n%12 == 0 {
				return &s.old
			}
			return &s.current
		})
		if took != 15*time.Minute || v.CountsAsServing() {
			t.Errorf("a zombie passed as serving after %s", took)
		}
		if v.Code != Mixed && v.Code != Serving && v.Code != Stale {
			t.Errorf("%s", v.Code)
		}
		if len(taken) > 800 {
			t.Errorf("%d handshakes in 15 minutes", len(taken))
		}
	})
}

func TestConfirmMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		n := 0
		v, _, _ := s.run(9*time.Second, Window{}, false, func(time.Duration) *pair {
			if n++; n%2 == 0 {
				return &s.old
			}
			return &s.current
		})
		if v.Code != Mixed || !v.Has(Stale) || v.Matching == 0 || v.Matching == v.Samples || v.Severity != Error {
			t.Errorf("%v, %d of %d, %s", v.Faults, v.Matching, v.Samples, v.Severity)
		}
	})
}

func TestConfirmForgivesOneLostPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		n := 0
		v, took, _ := s.run(time.Hour, Window{}, false, func(time.Duration) *pair {
			if n++; n == 5 {
				return refused
			}
			return &s.current
		})
		if v.Code != Serving || took > 2100*time.Millisecond {
			t.Errorf("%s after %s", v.Code, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		n := 0
		v, took, _ := s.run(time.Hour, Window{}, false, func(time.Duration) *pair {
			if n++; n == 5 || n == 6 {
				return refused
			}
			return &s.current
		})
		if v.Code != Serving || v.Samples != 12 || took < 2700*time.Millisecond {
			t.Errorf("two errors in a row did not restart the window: %s after %s", v.Code, took)
		}
	})
}

func TestConfirmCountsTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		var news []Verdict
		w := Window{Progress: func(v Verdict) { news = append(news, v) }}
		v, _, _ := s.run(time.Minute, w, false, func(d time.Duration) *pair {
			if d < 5*time.Second {
				return &s.old
			}
			return refused
		})
		if v.Code != Refused || v.Severity != Critical || !v.DownFor(3, 30*time.Second, time.Now()) || v.DownSince.Sub(s.start) < 5*time.Second {
			t.Errorf("%s, %d tries since %s", v.Code, v.Tries, v.DownSince.Sub(s.start))
		}
		if len(news) != 2 || news[0].Code != Stale || news[1].Code != Refused || news[1].Tries != 1 {
			t.Errorf("%d reports of progress: %+v", len(news), news)
		}
	})
}

func TestConfirmMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		v, took, taken := s.run(time.Hour, Window{}, true, func(d time.Duration) *pair {
			if d < 15*time.Second {
				return &s.old
			}
			return &s.current
		})
		if v.Code != Serving || v.Samples != 3 {
			t.Errorf("%s, %d samples", v.Code, v.Samples)
		}
		for i := 1; i < len(taken); i++ {
			if gap := taken[i] - taken[i-1]; gap < 10*time.Second {
				t.Errorf("polled after %s", gap)
			}
		}
		if took > time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

func TestConfirmWaitsForEveryAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		c := s.confirmer(Window{}, false, map[netip.AddrPort]shows{
			one: func(d time.Duration) *pair {
				// Falls back while the other is waited for.
				if d > time.Minute && d < 2*time.Minute {
					return &s.old
				}
				return &s.current
			},
			two: func(d time.Duration) *pair {
				if d < 110*time.Second {
					return &s.old
				}
				return &s.current
			},
		})
		vs := c.run(context.Background())
		if len(vs) != 2 || !vs[0].CountsAsServing() || !vs[1].CountsAsServing() {
			t.Fatalf("%+v", vs)
		}
		if took := time.Since(s.start); took < 2*time.Minute {
			t.Errorf("confirmed after %s though an address served the old leaf until 2m", took)
		}
	})
}

func TestConfirmFollowsTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		c := s.confirmer(Window{}, false, map[netip.AddrPort]shows{
			one: func(time.Duration) *pair { return &s.old },
			two: func(time.Duration) *pair { return &s.current },
		})
		c.lookup = func(context.Context) answer {
			switch d := time.Since(s.start); {
			case d < time.Minute:
				v := Verdict{Code: Unresolved, Faults: []Code{Unresolved}, Severity: Error}
				return answer{lost: true, fixed: []Verdict{v}}
			case d > 80*time.Second && d < 100*time.Second:
				return answer{lost: true, fixed: []Verdict{{Code: Unresolved, Faults: []Code{Unresolved}}}}
			case d < 2*time.Minute:
				return answer{dial: []netip.AddrPort{one}}
			}
			return answer{dial: []netip.AddrPort{two}}
		}
		var codes []Code
		c.window.Progress = func(v Verdict) { codes = append(codes, v.Code) }
		vs := c.run(context.Background())
		if len(vs) != 1 || vs[0].Address != two || vs[0].Code != Serving {
			t.Fatalf("%+v", vs)
		}
		if !slices.Equal(codes, []Code{Unresolved, Stale, Serving}) {
			t.Errorf("progress %v", codes)
		}
	})
}

func TestConfirmNotTestable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		c := s.confirmer(Window{}, false, map[netip.AddrPort]shows{one: func(time.Duration) *pair { return &s.current }, two: nil})
		probe := c.probe
		c.probe = func(a netip.AddrPort) func(context.Context) sample {
			if a == one {
				return probe(a)
			}
			return func(context.Context) sample {
				return sample{start: time.Now(), code: NotTestable, why: "no route", advice: "go elsewhere"}
			}
		}
		vs := c.run(context.Background())
		if len(vs) != 2 || vs[0].Code != Serving || vs[1].Code != NotTestable || vs[1].Severity != Info {
			t.Errorf("%+v", vs)
		}
		// Alone it confirms nothing.
		c.lookup = func(context.Context) answer { return answer{dial: []netip.AddrPort{two}} }
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if vs := c.run(ctx); ctx.Err() == nil || len(vs) != 1 || vs[0].CountsAsServing() {
			t.Errorf("%+v", vs)
		}
	})
}

func TestConfirmChainMustBeGoodToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		leafOnly := s.current.serving(s.current.leaf())
		v, took, _ := s.run(time.Minute, Window{}, false, func(d time.Duration) *pair {
			if d < 30*time.Second {
				return &leafOnly
			}
			return &s.current
		})
		if v.Code != Serving || took < 30*time.Second || v.Since.Sub(s.start) > time.Second {
			t.Errorf("%s after %s, since %s", v.Code, took, v.Since.Sub(s.start))
		}
	})
}

func TestWindowSizes(t *testing.T) {
	for _, tt := range []struct {
		w       Window
		samples int
		took    time.Duration
	}{
		{Window{Samples: 1}, 1, 2 * time.Second},
		{Window{Samples: 2, Spread: time.Second}, 2, time.Second},
		{Window{Samples: 100, Spread: time.Second}, 100, time.Second},
		{Window{Samples: 4, Spread: time.Minute}, 4, time.Minute},
		{Window{Samples: 7, Spread: 1}, 7, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.took = 0
			v, took, _ := s.run(time.Hour, tt.w, false, func(time.Duration) *pair { return &s.current })
			if v.Samples != tt.samples || took < tt.took || took > tt.took+time.Microsecond {
				t.Errorf("%s: %d samples in %s, want %d in %s", fmt.Sprint(tt.w.Samples, tt.w.Spread), v.Samples, took, tt.samples, tt.took)
			}
		})
	}
}

func TestConfirmIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.took = time.Hour
		v, took, _ := s.run(time.Minute, Window{}, false, func(time.Duration) *pair { return &s.current })
		if v.Code != Unverifiable || took != time.Minute {
			t.Errorf("%s after %s", v.Code, took)
		}
	})
}

// The whole of Confirm, on sockets: a server that starts to serve the new leaf
// after some handshakes, on one of two addresses.
func TestConfirmOnSockets(t *testing.T) {
	ca := newCA(t)
	old, current := ca.issue(t, spec{from: time.Now().Add(-days(40))}), ca.issue(t, spec{from: time.Now().Add(-days(1))})
	var n atomic.Int64
	four := listen(t, "127.0.0.1", 0)
	six := listen(t, "[::1]", portOf(four))
	serve(t, four, tlsHandler(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := current.tls()
		if i := n.Add(1); i < 4 || i == 6 {
			c = old.tls()
		}
		return &c, nil
	}}))
	serve(t, six, tlsHandler(configOf(current)))
	p := &Prober{Roots: ca.pool()}
	var news []string
	w := Window{Samples: 5, Spread: 100 * time.Millisecond, Fast: 5 * time.Millisecond, Progress: func(v Verdict) {
		if v.Address.Addr().Is4() {
			news = append(news, string(v.Code))
		}
	}}
	vs := p.Confirm(context.Background(), Target{Endpoint: at(t, "https://localhost:%d?address=127.0.0.1,[::1]", portOf(four)), Expect: expecting(current, old)}, w)
	if len(vs) != 2 {
		t.Fatalf("%d verdicts", len(vs))
	}
	for _, v := range vs {
		if v.Code != Serving || v.Samples < 5 || v.Matching != v.Samples || !v.CountsAsServing() {
			t.Errorf("%s: %s, %d of %d (%s)", v.Address, v.Code, v.Matching, v.Samples, v.Detail)
		}
	}
	if len(news) < 3 || news[0] != "stale" || news[len(news)-1] != "serving" {
		t.Errorf("progress %v", news)
	}
	if vs := p.Confirm(context.Background(), Target{Endpoint: at(t, "https://*.example.org")}, Window{}); len(vs) != 1 || vs[0].Code != Unverifiable {
		t.Errorf("wildcard: %+v", vs)
	}
}
