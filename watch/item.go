package watch

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// claim is one certificate that a source asks for.
type claim struct {
	src       Source
	cert, key string
	glob      bool
	clash     *Fault // several files claim the name, none is looked at
}

// item is one watched certificate.
type item struct {
	name string
	claim
	settler
	steps  []step
	last   *sight
	looked time.Time
	due    time.Time // when to look; zero: at the next sign
	loaded bool      // Loaded was told, and not Removed since
	// found is the key's path where it is not configured but was found.
	found string
	conf  bool   // certbot's renewal/NAME.conf was there once
	dev   uint64 // the device of the directory above the match's own
}

// look examines the files and decides. It returns an observation when there is
// one to tell; err is about this process, not about the files.
func (it *item) look(r *resolver, now time.Time) (*Observation, error) {
	it.looked = now
	s := &sight{fault: it.clash}
	if it.clash == nil {
		s = examine(r, it.cert, it.key, it.found, it.last)
		if s.trouble != nil {
			it.due = now.Add(it.settle)
			return nil, s.trouble
		}
	}
	// The same pair as at the last look, and no sign of change since.
	quiet := it.last != nil && s.pair != nil && s.pair == it.last.pair && !it.changed
	it.last = s
	v := view{sound: s.pair != nil, age: now.Sub(time.Unix(0, s.newest))}
	live, isLive := it.liveDir()
	if isLive && it.clash == nil {
		v.busy = it.swapping(r, s, live, now, quiet)
	}
	gone := !quiet && it.gone(r, s, live, isLive)
	switch {
	case gone:
		v.verdict = "removed"
		v.content = v.verdict
	case s.fault != nil:
		v.verdict = fmt.Sprintf("%s %s", s.fault.Code, s.fault.Path)
		v.content = fmt.Sprint(v.verdict, s.certID, s.keyID)
	default:
		v.verdict = fmt.Sprintf("sound %x %s %q %q", s.chain, s.pair.Key, s.pair.CertPath, s.pair.KeyPath)
		v.content = v.verdict
	}
	if v.busy {
		v.content += " busy"
	}
	silent := it.told == ""
	tell, since := it.see(now, v)
	it.due = it.again
	if !tell || gone && silent {
		return nil, nil
	}
	o := &Observation{Name: it.name, Source: it.src, Path: it.cert, Time: now, Since: since}
	switch {
	case gone:
		o.Kind, it.loaded = Removed, false
	case s.fault != nil:
		o.Kind, o.Fault = s.fault.kind(), s.fault
	default:
		o.Kind, o.Pair = Loaded, s.pair
		if it.loaded {
			o.Kind = Changed
		}
		it.loaded = true
		if it.key == "" {
			it.found = s.pair.KeyPath
		}
		o.History = history(it.cert, s.cert.real, s.pair.Leaf())
	}
	return o, nil
}

// liveDir returns the certificate's directory when it lies under live/, as
// certbot has it.
func (it *item) liveDir() (string, bool) {
	dir := filepath.Dir(it.cert)
	return dir, it.cert != "" && filepath.Base(filepath.Dir(dir)) == "live"
}

// swapping reports whether certbot is moving its links: for that time there are
// links to what was current before. Old ones were left by a certbot that died.
// While all is quiet it only notes which links to wait for.
func (it *item) swapping(r *resolver, s *sight, live string, now time.Time, quiet bool) bool {
	t := r.walk(live)
	if t.err != nil || !t.id.isDir() {
		return false
	}
	busy := false
	for _, name := range []string{"previous_cert.pem", "previous_privkey.pem", "previous_chain.pem", "previous_fullchain.pem"} {
		s.steps = append(s.steps, step{dir: t.real, id: t.id.inode, name: name})
		if quiet {
			continue
		}
		if id, err := lstat(filepath.Join(t.real, name)); err == nil && now.Sub(time.Unix(0, id.ctime)) < it.patience {
			busy = true
		}
	}
	return busy
}

// gone reports whether the certificate was taken away on purpose, and not just
// its files.
func (it *item) gone(r *resolver, s *sight, live string, isLive bool) bool {
	if it.clash != nil {
		return false
	}
	absent := s.fault != nil && (s.fault.Code == Missing || s.fault.Code == DanglingLink)
	if isLive {
		renewal := filepath.Join(filepath.Dir(filepath.Dir(live)), "renewal")
		conf := r.lstat(filepath.Join(renewal, filepath.Base(live)+".conf"))
		if conf.err == nil {
			it.conf = true
		}
		// Without renewal/ more than this lineage is away: unmounted, perhaps.
		if absent && it.conf && conf.err == syscall.ENOENT && r.lstat(renewal).err == nil {
			return true
		}
	}
	if !it.glob {
		return false
	}
	dir := filepath.Dir(it.cert)
	up, err := stat(filepath.Dir(dir))
	if err != nil {
		return false
	}
	_, err = lstat(dir)
	if err == nil {
		it.dev = up.dev
	}
	// Another device above it: the file system with the directory is not mounted.
	return absent && errors.Is(err, syscall.ENOENT) && (it.dev == 0 || it.dev == up.dev)
}

// clashFault says which files claim one name.
func clashFault(name string, claims []claim) *Fault {
	var paths []string
	for _, c := range claims {
		paths = append(paths, show(c.cert))
	}
	if len(paths) > 4 {
		paths = append(paths[:3], fmt.Sprintf("%d more", len(paths)-3))
	}
	return newFault(DuplicateName, claims[0].cert, "make the glob match only one of them (fullchain.pem, *.crt), or list each with a name of its own",
		"%s would both be named %s", strings.Join(paths, " and "), show(name))
}
