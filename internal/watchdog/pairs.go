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

	unseen bool // it was never sound: that it is missing means nothing
}

const (
	pairsEvery = 5 * time.Minute // how often the pairs that a server loads are read
	pairsFirst = time.Minute     // after the start
	pairSwap   = 2 * time.Second // a pair that is at fault may be in the middle of a swap
)

// usedBy reports whether a server is reloaded for a certificate, and which copies
// of it that server loads.
func (c *Certificate) usedBy(server string) (uses bool, copies []string) {
	if len(c.Endpoints) == 0 {
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
		if !uses || c.state.Standing == Removed {
			continue
		}
		if len(copies) == 0 {
			out = append(out, Pair{Cert: c.path, Key: c.conf.Source.Key, unseen: c.state.Disk == nil})
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
		if !f.breaks() || pair.unseen && fault.Absent() || pair.Passphrase && fault.Code == watch.EncryptedKey {
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
		if pair.At == "" && slices.ContainsFunc(own, func(g guard) bool { return g.path == pair.Cert }) {
			continue // it was read a moment ago; the server's own configuration may name another key
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

// pairsQuestion is which pairs are to be read.
type pairsQuestion struct {
	servers []reload.Server
	copies  map[string][]Pair // by server, those that endpoints name
	watched map[string]Pair   // by certificate file, those that tell of themselves
}

// readPairs finds the pairs at fault that the servers load by their own
// configuration and nobody watches. It runs outside the loop.
func (k *Keeper) readPairs(ctx context.Context, q pairsQuestion) []badPair {
	var out []badPair
	for _, s := range q.servers {
		pairs := q.copies[s.Name]
		if k.o.Pairs != nil {
			pairs = slices.Concat(pairs, k.o.Pairs(ctx, s))
		}
		for _, pair := range pairs {
			if len(out) == maxBadPairs {
				return out
			}
			if fault := k.sound.fault(pair); fault != nil && !k.ownStory(pair, q.watched) {
				out = append(out, badPair{Server: s.Name, Path: pair.Cert, Sentence: pair.about(s.Name, fault), Hint: fault.Hint})
			}
		}
	}
	return out
}

// ownStory reports whether a pair at fault is that of a watched certificate, which
// tells of it itself: perhaps under another name, but with the same key.
func (k *Keeper) ownStory(pair Pair, watched map[string]Pair) bool {
	info, err := os.Stat(pair.Cert)
	for name, own := range watched {
		is := name == pair.Cert
		if !is && err == nil {
			other, err := os.Stat(name)
			is = err == nil && os.SameFile(info, other)
		}
		if is {
			return k.sound.fault(own) != nil
		}
	}
	return false
}

// maxBadPairs bounds what is told of pairs at fault.
const maxBadPairs = 100

// lookAtPairs reads, every few minutes, the pairs that the servers load.
func (k *Keeper) lookAtPairs(now time.Time) {
	if k.pairsRead || now.Before(k.pairsAt) {
		return
	}
	if k.pairsAt.IsZero() {
		k.pairsAt = now.Add(pairsFirst)
		return
	}
	q := pairsQuestion{copies: map[string][]Pair{}, watched: make(map[string]Pair, len(k.certs))}
	for _, c := range k.certs {
		q.watched[c.path] = Pair{Cert: c.path, Key: c.conf.Source.Key}
	}
	for _, name := range sortedKeys(k.servers) {
		s := k.servers[name]
		if !s.known {
			continue
		}
		q.servers = append(q.servers, s.conf)
		for _, p := range k.watchedPairs(name) {
			if _, own := q.watched[p.Cert]; !own { // a copy that an endpoint names
				q.copies[name] = append(q.copies[name], p)
			}
		}
	}
	if len(q.servers) == 0 || k.o.Pairs == nil && len(q.copies) == 0 {
		k.pairsAt = now.Add(pairsEvery)
		return
	}
	k.pairsRead = true
	k.hands.pairs(k.ctx, q, func(bad []badPair) {
		k.pairsRead, k.pairsAt = false, k.clock.Now().Add(pairsEvery)
		k.agent.pairs(bad)
	})
}
