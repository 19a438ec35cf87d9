package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/renewatch/renewatch/internal/discover"
	"github.com/renewatch/renewatch/internal/lineage"
	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/internal/systemd"
	"github.com/renewatch/renewatch/internal/watchdog"
)

// configurations reads the configurations of servers.
type configurations struct {
	log zerolog.Logger

	mu     sync.Mutex
	under  map[string]*reading // by server, what is being read
	unread map[string]string   // what could not be read of a server and was told
}

// reading is one reading of a server's configuration.
type reading struct {
	done  chan struct{}
	pairs []watchdog.Pair
}

// readWithin bounds the reading of one server's configuration: on a file system
// that hangs nothing is known, and a reload is not held for ever.
const readWithin = 15 * time.Second

// loaded returns the certificates and keys that a server loads by its own
// configuration, as far as that can be read and says so without a condition.
func (c *configurations) loaded(ctx context.Context, s reload.Server) []watchdog.Pair {
	c.mu.Lock()
	r := c.under[s.Name]
	if r == nil {
		r = &reading{done: make(chan struct{})}
		if c.under == nil {
			c.under = map[string]*reading{}
		}
		c.under[s.Name] = r
		go func() {
			r.pairs = c.read(s)
			c.mu.Lock()
			delete(c.under, s.Name)
			c.mu.Unlock()
			close(r.done)
		}()
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	select {
	case <-r.done:
		return r.pairs
	case <-ctx.Done():
		c.log.Warn().Str("server", s.Name).Str("hint", "is it on a file system that hangs?").Msg("the server's own configuration cannot be read in time; only the pairs that are watched are checked before a reload")
		return nil
	}
}

// tell logs once what could not be read of a server's configuration.
func (c *configurations) tell(server string, gaps []discover.Gap) {
	var said strings.Builder
	for _, g := range gaps {
		said.WriteString(g.Path + ": " + g.Sentence + "\n")
	}
	c.mu.Lock()
	known := c.unread[server] == said.String()
	if c.unread == nil {
		c.unread = map[string]string{}
	}
	c.unread[server] = said.String()
	c.mu.Unlock()
	if known {
		return
	}
	for _, g := range gaps {
		c.log.Info().Str("server", server).Str("path", g.Path).Str("hint", g.Hint).Msg("not all pairs that the server loads are known: " + g.Sentence)
	}
}

func (c *configurations) read(s reload.Server) []watchdog.Pair {
	ctx, cancel := context.WithTimeout(context.Background(), readWithin)
	defer cancel()
	hint := discover.Hint{}
	ways := []reload.Way{s.Way}
	if s.Then != nil {
		ways = append(ways, *s.Then)
	}
	for _, w := range ways {
		if w.Unit != "" {
			hint.Units = append(hint.Units, w.Unit)
		}
		if len(w.Command) > 0 {
			hint.Commands = append(hint.Commands, w.Command)
		}
		if w.PIDFile != "" {
			hint.PIDFiles = append(hint.PIDFiles, w.PIDFile)
		}
	}
	if len(s.Test) > 0 {
		hint.Commands = append(hint.Commands, s.Test)
	}
	found, err := discover.Reader{}.Pairs(ctx, hint)
	if err != nil {
		return nil
	}
	c.tell(s.Name, found.Unread)
	out := make([]watchdog.Pair, 0, len(found.Pairs))
	for _, p := range found.Pairs {
		if p.If == "" {
			out = append(out, watchdog.Pair{Cert: p.Cert, Key: p.Key, At: p.At, Passphrase: p.Passphrase})
		}
	}
	return out
}

// clientRuns tells whether a run of an ACME client goes on.
func clientRuns(ctx context.Context) func(context.Context, string) bool {
	runs := lineage.NewRuns(lineage.Options{Units: systemd.NewStates(ctx, 0)})
	return func(ctx context.Context, path string) bool { return runs.Of(ctx, path).Running }
}

// advise says what is unfortunate about where files lie.
func advise(paths []string) []watchdog.Advice {
	var out []watchdog.Advice
	for _, w := range lineage.Warnings(paths) {
		out = append(out, watchdog.Advice(w))
	}
	return out
}

// listeners names processes that have listened since long ago. Looking through
// /proc costs some milliseconds, so an answer holds for a while.
type listeners struct {
	mu   sync.Mutex
	seen map[netip.AddrPort]listened
}

type listened struct {
	at    time.Time
	found []discover.Listener
}

const (
	listenedFor  = 10 * time.Second
	maxListeners = 1000
)

// older names the processes that have listened at an address of this host since
// before a time.
func (l *listeners) older(ctx context.Context, at netip.AddrPort, before time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	x, known := l.seen[at]
	if !known || now.Sub(x.at) > listenedFor {
		found, err := discover.Listeners(ctx, at)
		if err != nil {
			found = nil
		}
		x = listened{now, found}
		if l.seen == nil || len(l.seen) >= maxListeners {
			l.seen = map[netip.AddrPort]listened{}
		}
		l.seen[at] = x
	}
	name := ""
	for _, p := range x.found {
		if p.Started.IsZero() || !p.Started.Before(before) {
			continue
		}
		if name != "" {
			name += " and "
		}
		name += fmt.Sprintf("%s (process %d, started %s)", p.Name, p.PID, p.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return name
}
