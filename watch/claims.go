package watch

import (
	"path/filepath"
	"slices"
	"time"
)

// claims are what sources ask for.
type claims struct {
	byName map[string]claim
	more   map[string][]claim // all of a name that several files claim
	taken  map[string]bool    // files that are listed by themselves
	steps  []step             // the names that decide what the globs match
	faults []*Fault
}

func (c *claims) add(name string, one claim) {
	if f := nameFault(name, one.cert); f != nil {
		c.faults = append(c.faults, f)
		return
	}
	first, there := c.byName[name]
	same := func(other claim) bool { return other.cert == one.cert && other.key == one.key }
	switch {
	case !there:
		c.byName[name] = one
	case same(first) || slices.ContainsFunc(c.more[name], same):
	default:
		if c.more[name] == nil {
			c.more[name] = []claim{first}
		}
		c.more[name] = append(c.more[name], one)
	}
}

// claimsOf finds out which certificates the sources stand for now.
func claimsOf(sources []Source, size int) *claims {
	c := &claims{byName: make(map[string]claim, size), more: make(map[string][]claim), taken: make(map[string]bool)}
	globs := slices.ContainsFunc(sources, Source.isGlob)
	for i := range sources {
		s := &sources[i]
		if s.isGlob() {
			continue
		}
		name := s.Name
		if name == "" {
			name = NameOf(s.Cert)
		}
		if globs {
			c.taken[filepath.Clean(s.Cert)] = true
		}
		c.add(name, claim{src: s, cert: s.Cert, key: s.Key})
	}
	left := maxMatches
	r := newResolver()
	for i := range sources {
		s := &sources[i]
		if !s.isGlob() {
			continue
		}
		matches, steps, fault := r.expand(s.Cert, left)
		c.steps = append(c.steps, steps...)
		left -= len(matches)
		if fault != nil {
			c.faults = append(c.faults, fault)
		}
		for _, path := range matches {
			// What is listed by itself, or matched twice, is one certificate.
			if !c.taken[filepath.Clean(path)] {
				c.add(NameOf(path), claim{src: s, cert: path, key: s.Key, glob: true})
			}
		}
	}
	for name, all := range c.more {
		c.byName[name] = claim{src: all[0].src, glob: all[0].glob, clash: clashFault(name, all)}
	}
	return c
}

// isGlob reports whether s stands for any number of certificates.
func (s Source) isGlob() bool { return s.Name == "" && IsGlob(s.Cert) }

// takeSources takes what was set.
func (l *loop) takeSources() {
	l.sources, l.settled = l.w.currentSources(), false
}

// expand makes the items those that the sources stand for now.
func (l *loop) expand(now time.Time) {
	l.expandAt = time.Time{}
	if l.settled {
		return
	}
	c := claimsOf(l.sources, len(l.items))
	l.globFaults = c.faults
	for name, one := range c.byName {
		it := l.items[name]
		if it == nil {
			it = &item{name: name, settler: settler{settle: l.w.o.Settle, patience: l.w.o.Patience}}
			l.items[name] = it
		} else if it.cert == one.cert && it.key == one.key && sameFault(it.clash, one.clash) {
			it.src, it.glob = one.src, one.glob
			continue
		}
		it.claim, it.kept, it.found = one, kept{}, 0
		it.sign(now)
		l.mustLook([]*item{it}, now)
	}
	for name, it := range l.items {
		if _, asked := c.byName[name]; asked {
			continue
		}
		if it.glob && it.clash == nil && slices.Contains(l.sources, it.source()) {
			// Its file is gone. Whether the certificate is too, a look will tell.
			l.mustLook([]*item{it}, now)
			continue
		}
		l.drop(it)
	}
	l.expanded, l.expandTook = time.Now(), time.Since(now)
	l.settled = !slices.ContainsFunc(l.sources, Source.isGlob)
	l.mustLook(l.dirs.follow(l.globs, c.steps), l.expanded.Add(lookEvery))
}

func sameFault(a, b *Fault) bool { return a == b || a != nil && b != nil && *a == *b }
