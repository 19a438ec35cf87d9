package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// way is one entry of servers: a name and how that server is reloaded.
type way struct {
	name    string
	command []string
	signal  string
	pidfile string
}

// serverBlocks configures several servers.
func serverBlocks(ways ...way) string {
	var b strings.Builder
	b.WriteString("servers:\n")
	for _, w := range ways {
		fmt.Fprintf(&b, "  %s:\n", w.name)
		if w.command == nil {
			fmt.Fprintf(&b, "    signal: %s\n    pidfile: %q\n", w.signal, w.pidfile)
			continue
		}
		list, err := json.Marshal(w.command)
		if err != nil {
			panic(err) // strings always marshal
		}
		fmt.Fprintf(&b, "    command: %s\n", list)
	}
	return b.String()
}

// place is one entry of endpoints.
type place struct {
	url    string
	server string // empty: the default one
	file   string // the copy that this server loads; empty: none
}

// entry is one entry of certificates.
type entry struct {
	cert   string
	places []place
}

// certificateBlocks configures several certificates.
func certificateBlocks(entries ...entry) string {
	var b strings.Builder
	b.WriteString("certificates:\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "  - cert: %q\n    endpoints:\n", e.cert)
		for _, p := range e.places {
			fmt.Fprintf(&b, "      - {url: %q", p.url)
			if p.server != "" {
				fmt.Fprintf(&b, ", server: %s", p.server)
			}
			if p.file != "" {
				fmt.Fprintf(&b, ", file: %q", p.file)
			}
			b.WriteString("}\n")
		}
	}
	return b.String()
}

// without drops the events of one kind.
func without(events []event, kind string) []event {
	var out []event
	for _, e := range events {
		if e.kind() != kind {
			out = append(out, e)
		}
	}
	return out
}

// reloads counts, for each server, the reloads that were run, whatever came of
// them.
func reloads(t *testing.T, events []event) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, e := range only(events, "reload.done", "reload.failed") {
		if e.Data.Reload == nil {
			t.Errorf("%s names no server: %s", e.kind(), e.raw)
			continue
		}
		n[e.Data.Reload.Server]++
	}
	return n
}

// wantReloads holds the reloads that were told against the ones that are meant
// to have been run; a server that is not named must not have been reloaded.
func wantReloads(t *testing.T, events []event, want map[string]int) {
	t.Helper()
	if got := reloads(t, events); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("reloads told: %v, want %v:\n%s", got, want, tell(events))
	}
	if failed := only(events, "reload.failed"); len(failed) != 0 {
		t.Errorf("a reload failed:\n%s", tell(failed))
	}
}

// vigil looks again and again, from its start to its end, at what must hold the
// whole time.
type vigil struct {
	t    *testing.T
	stop func()

	mu     sync.Mutex
	looks  int
	faults []string
}

// keepVigil starts one.
func keepVigil(t *testing.T, look func() error) *vigil {
	t.Helper()
	v := &vigil{t: t}
	quit, done := make(chan struct{}), make(chan struct{})
	v.stop = sync.OnceFunc(func() { close(quit); <-done })
	t.Cleanup(v.stop)
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			err := look()
			v.mu.Lock()
			v.looks++
			if err != nil && len(v.faults) < 5 {
				v.faults = append(v.faults, fmt.Sprintf("look %d at %s: %v", v.looks, time.Now().UTC().Format(time.RFC3339Nano), err))
			}
			v.mu.Unlock()
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return v
}

// end ends the vigil: every look must have found things in order.
func (v *vigil) end() {
	v.t.Helper()
	v.stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.looks == 0 {
		v.t.Error("the vigil never looked")
	}
	for _, f := range v.faults {
		v.t.Error(f)
	}
}

// logged counts the lines of a server's log that match.
func logged(t *testing.T, log, pattern string) int {
	t.Helper()
	return len(regexp.MustCompile("(?m)^.*"+pattern).FindAllString(log, -1))
}

// shortDir is a temporary directory whose name leaves room for the path of a
// unix socket, which has 108 bytes at most.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
