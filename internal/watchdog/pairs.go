package watchdog

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/renewatch/renewatch/internal/reload"
	"github.com/renewatch/renewatch/watch"
)

// Pair is a certificate and its key that a server loads.
type Pair struct {
	Cert string
	Key  string // "": found beside Cert, or in it
	At   string // where the server's configuration names it; "": ours does
	// Passphrase: the server is told one, so an encrypted key is no fault.
	Passphrase bool
}

const (
	pairsEvery = 5 * time.Minute // how often the pairs that a server loads are read
	pairsFirst = time.Minute     // after the start
	pairSwap   = 2 * time.Second // a pair that is at fault may be in the middle of a swap
)

// usedBy reports whether a server is reloaded for a certificate, and which copies
// of it that server loads.
func (c *Certificate) usedBy(server string) (uses bool, copies []string) {
	if c.Endpoints == nil {
		return c.Server == server, nil
	}
	for _, e := range c.Endpoints {
		if e.Server == server || e.Server == "" && c.Server == server {
			uses = true
			if e.File != "" {
				copies = append(copies, e.File)
			}
		}
	}
	return uses, copies
}

// watchedPairs returns the pairs that a server loads as far as our own
// configuration tells.
func (k *Keeper) watchedPairs(server string) []Pair {
	var out []Pair
	for _, name := range sortedKeys(k.certs) {
		c := k.certs[name]
		uses, copies := c.conf.usedBy(server)
		if !uses || c.state.Standing == Removed || c.state.Disk == nil {
			continue
		}
		if len(copies) == 0 {
			out = append(out, Pair{Cert: c.path, Key: c.conf.Source.Key})
		}
		for _, file := range copies {
			out = append(out, Pair{Cert: file})
		}
	}
	return out
}

// badPair is a pair at fault.
type badPair struct {
	Server   string    `json:"server"`
	Path     string    `json:"path"`
	Sentence string    `json:"sentence"`
	Hint     string    `json:"hint,omitempty"`
	Since    time.Time `json:"since"`
	Seen     time.Time `json:"seen"` // when it was at fault last
}

// soundPairs remembers which files were found sound, so that thousands of them
// are not parsed again before every reload.
type soundPairs struct {
	mu   sync.Mutex
	seen map[string]pairIdentity
}

// pairIdentity tells two states of a pair's files apart.
type pairIdentity struct {
	keyPath   string
	cert, key fileIdentity
}

type fileIdentity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func identify(path string) (fileIdentity, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return fileIdentity{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileIdentity{}, false
	}
	return fileIdentity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, true
}

// fault says what is wrong with a pair that a server loads; nil when nothing is,
// or it may not be seen from here.
func (p *soundPairs) fault(pair Pair) *watch.Fault {
	id := pair.Cert + "\x00" + pair.Key
	p.mu.Lock()
	old, known := p.seen[id]
	p.mu.Unlock()
	if known {
		cert, ok := identify(pair.Cert)
		if ok && cert == old.cert {
			if key, ok := identify(old.keyPath); ok && key == old.key {
				return nil
			}
		}
	}
	before, _ := identify(pair.Cert)
	loaded, fault := watch.Load(pair.Cert, pair.Key)
	if fault != nil {
		f := Fault{Code: string(fault.Code)}
		if !f.breaks() || pair.Passphrase && fault.Code == watch.EncryptedKey {
			return nil
		}
		return fault
	}
	if loaded.Key != watch.KeyMatches {
		return nil
	}
	if key, ok := identify(loaded.KeyPath); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.seen == nil || len(p.seen) > maxSoundPairs {
			p.seen = map[string]pairIdentity{}
		}
		p.seen[id] = pairIdentity{loaded.KeyPath, before, key}
	}
	return nil
}

// maxSoundPairs bounds what is remembered.
const maxSoundPairs = 50_000

// otherPairs returns the first pair besides those of a reload's own certificates
// that is at fault. One that is in the middle of a swap is waited for.
func (k *Keeper) otherPairs(ctx context.Context, conf reload.Server, own []guard, watched []Pair) (hold, bool) {
	pairs := watched
	if k.o.Pairs != nil {
		pairs = slices.Concat(watched, k.o.Pairs(ctx, conf))
	}
	for _, pair := range pairs {
		if slices.ContainsFunc(own, func(g guard) bool { return g.path == pair.Cert }) {
			continue
		}
		fault := k.sound.fault(pair)
		if fault != nil {
			select {
			case <-time.After(pairSwap):
			case <-ctx.Done():
			}
			fault = k.sound.fault(pair)
		}
		if fault != nil {
			return hold{CauseOtherPair, pair.about(conf.Name, fault), fault.Hint}, true
		}
	}
	return hold{}, false
}

// about words what is wrong with a pair that a server loads.
func (p Pair) about(server string, fault *watch.Fault) string {
	s := fmt.Sprintf("%s also loads %s: %s", server, p.Cert, fault.Sentence)
	if p.At != "" {
		s += " (named at " + p.At + ")"
	}
	return s
}

// readPairs finds the pairs at fault that the servers load by their own
// configuration and nobody watches. It runs outside the loop.
func (k *Keeper) readPairs(ctx context.Context, servers []reload.Server, watched map[string]bool) []badPair {
	var out []badPair
	for _, s := range servers {
		for _, pair := range k.o.Pairs(ctx, s) {
			if watched[pair.Cert] || len(out) == maxBadPairs {
				continue
			}
			if fault := k.sound.fault(pair); fault != nil && !same(pair.Cert, watched) {
				out = append(out, badPair{Server: s.Name, Path: pair.Cert, Sentence: pair.about(s.Name, fault), Hint: fault.Hint})
			}
		}
	}
	return out
}

// same reports whether a file is one of the watched ones under another name.
func same(path string, watched map[string]bool) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	for name := range watched {
		if other, err := os.Stat(name); err == nil && os.SameFile(info, other) {
			return true
		}
	}
	return false
}

// maxBadPairs bounds what is told of pairs at fault.
const maxBadPairs = 100

// lookAtPairs reads, every few minutes, the pairs that the servers load.
func (k *Keeper) lookAtPairs(now time.Time) {
	if k.o.Pairs == nil || k.pairsRead || now.Before(k.pairsAt) {
		return
	}
	if k.pairsAt.IsZero() {
		k.pairsAt = now.Add(pairsFirst)
		return
	}
	var servers []reload.Server
	watched := map[string]bool{}
	for _, name := range sortedKeys(k.servers) {
		if s := k.servers[name]; s.known {
			servers = append(servers, s.conf)
			for _, p := range k.watchedPairs(name) {
				watched[p.Cert] = true
			}
		}
	}
	for _, c := range k.certs {
		watched[c.path] = true
	}
	k.pairsRead = true
	k.hands.pairs(k.ctx, servers, watched, func(bad []badPair) {
		k.pairsRead, k.pairsAt = false, k.clock.Now().Add(pairsEvery)
		k.agent.pairs(bad)
	})
}
