package watch

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// claim is one certificate that a source asks for.
type claim struct {
	src       *Source
	cert, key string
	glob      bool
	clash     *Fault // several files claim the name, none is looked at
}

// item is one watched certificate. There may be many thousands: what it holds
// while nothing happens is kept small, and no certificate is part of it.
type item struct {
	name string
	claim
	settler
	kept
	holds []hold    // the names that decide what would be seen
	due   time.Time // when to look; zero: at the next sign
	dev   uint64    // the device of the directory above the match's own
	place int32     // in the queue of those that are due, from 1; 0: none
	// found is where the key was found that is not configured: in the certificate's
	// file (1) or at one of keysBeside (from 2 on); 0: nowhere yet.
	found   uint8
	loaded  bool // Loaded was told, and not Removed since
	conf    bool // certbot's renewal/NAME.conf was there once
	astray  bool // a directory on the way is another one now
	dropped bool // nobody asks for it any more
}

// share returns s in the memory of the item's own paths where it is part of one,
// else a copy: what is kept for long must not hold on to longer strings.
func (it *item) share(s string) string {
	if s == previousName {
		return previousName
	}
	for _, path := range [...]string{it.cert, it.key} {
		if i := strings.Index(path, s); i >= 0 && s != "" {
			return path[i : i+len(s)]
		}
	}
	return strings.Clone(s)
}

// foundKey is the path of the key that is not configured but was found.
func (it *item) foundKey() string {
	switch it.found {
	case 0:
		return ""
	case 1:
		return it.cert
	}
	return keysBeside(it.cert)[it.found-2]
}

// examine looks at the files. It changes nothing of the item, so that several
// goroutines can examine items at the same time.
func (it *item) examine(r *resolver, now time.Time) *sight {
	if it.clash != nil {
		return &sight{kept: kept{fault: it.clash}}
	}
	if it.untouched(now) {
		return nil
	}
	last := &it.kept
	if it.changed && it.print != it.told {
		last = nil // what may have to be told is read anew
	}
	s := examine(r, it.cert, it.key, it.foundKey(), last)
	if s.trouble == nil {
		it.lookAround(r, s)
	}
	return s
}

// foundAt is item.found for a pair.
func foundAt(p *Pair) uint8 {
	switch p.KeyPath {
	case "":
		return 0
	case p.CertPath:
		return 1
	}
	return uint8(2 + slices.Index(keysBeside(p.CertPath), p.KeyPath))
}

// untouched reports whether stat alone tells that all is as it was concluded:
// the files are the same, and no key appeared in a place that comes before.
func (it *item) untouched(now time.Time) bool {
	if it.changed || it.astray || it.print == "" || it.print != it.content || !it.trusted(now) {
		return false
	}
	if id, err := stat(it.cert); err != nil || id != it.certID {
		return false
	}
	if it.key != "" {
		id, err := stat(it.key)
		return err == nil && id == it.keyID
	}
	for i, path := range keysBeside(it.cert) {
		if int(it.found) == i+2 {
			id, err := stat(path)
			return err == nil && id == it.keyID
		}
		if _, err := lstat(path); err == nil {
			return false
		}
	}
	return it.keyID == ident{}
}

// decide takes in what examine found, nil where the files are untouched, and
// returns an observation when there is one to tell; it lacks the history.
func (it *item) decide(s *sight, now time.Time) *Observation {
	switch {
	case s == nil:
		it.due = time.Time{}
		return nil
	case s.trouble != nil:
		it.due = now.Add(it.settle)
		return nil
	}
	it.kept, it.astray = s.kept, false
	v := view{sound: s.fault == nil, age: now.Sub(time.Unix(0, s.newest))}
	// Old links were left by a certbot that died.
	v.busy = s.around.previous != 0 && now.Sub(time.Unix(0, s.around.previous)) < it.patience
	gone := it.gone(s)
	switch {
	case gone:
		v.verdict = "removed"
		v.content = v.verdict
	case s.fault != nil:
		v.verdict = fmt.Sprintf("%s %s", s.fault.Code, s.fault.Path)
		v.content = fmt.Sprint(v.verdict, s.certID, s.keyID)
	default:
		v.verdict = s.print
		v.content = v.verdict
	}
	if v.busy {
		v.content += " busy"
	}
	silent := it.told == ""
	tell, since := it.see(now, v)
	it.due = it.again
	if !tell || gone && silent {
		return nil
	}
	o := &Observation{Name: it.name, Source: it.source(), Path: it.cert, Time: now, Since: since}
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
			it.found = foundAt(s.pair)
		}
	}
	return o
}

// around is what was seen beside the files themselves.
type around struct {
	previous int64 // when certbot made the newest of its previous_* links, Unix ns; 0: there is none
	conf     entry // renewal/NAME.conf
	renewal  error // of renewal/
	above    entry // the directory above the match's own
	own      error // of the match's own directory
	seen     bool  // conf and above are known
}

// lookAround looks for what tells that certbot is moving its links, or that the
// certificate was taken away on purpose. While all is quiet it only notes which
// links to wait for.
func (it *item) lookAround(r *resolver, s *sight) {
	quiet := s.reused && s.fault == nil && !it.changed
	a := &s.around
	live, isLive := it.liveDir()
	if isLive {
		if t := r.walk(live); t.err == nil && t.id.isDir() {
			s.steps = append(s.steps, step{dir: t.real, id: t.id.inode, name: previousName})
			for _, name := range previousNames {
				if quiet {
					break
				}
				if id, err := lstat(join(t.real, name)); err == nil {
					a.previous = max(a.previous, id.ctime)
				}
			}
		}
	}
	if a.seen = !quiet; quiet {
		return
	}
	if isLive {
		renewal := filepath.Join(filepath.Dir(filepath.Dir(live)), "renewal")
		a.conf, a.renewal = r.lstat(filepath.Join(renewal, filepath.Base(live)+".conf")), r.lstat(renewal).err
	}
	if it.glob {
		dir := filepath.Dir(it.cert)
		a.above.id, a.above.err = stat(filepath.Dir(dir))
		_, a.own = lstat(dir)
	}
}

// liveDir returns the certificate's directory when it lies under live/, as
// certbot has it.
func (it *item) liveDir() (string, bool) {
	dir := filepath.Dir(it.cert)
	return dir, it.cert != "" && filepath.Base(filepath.Dir(dir)) == "live"
}

// gone reports whether the certificate was taken away on purpose, and not just
// its files.
func (it *item) gone(s *sight) bool {
	a := &s.around
	if !a.seen {
		return false
	}
	absent := s.fault != nil && (s.fault.Code == Missing || s.fault.Code == DanglingLink)
	if _, isLive := it.liveDir(); isLive {
		if a.conf.err == nil {
			it.conf = true
		}
		// Without renewal/ more than this lineage is away: unmounted, perhaps.
		if absent && it.conf && a.conf.err == syscall.ENOENT && a.renewal == nil {
			return true
		}
	}
	if !it.glob || a.above.err != nil {
		return false
	}
	if a.own == nil {
		it.dev = a.above.id.dev
	}
	// Another device above it: the file system with the directory is not mounted.
	return absent && errors.Is(a.own, syscall.ENOENT) && (it.dev == 0 || it.dev == a.above.id.dev)
}

// certbot's links to what was current before, in the order in which it makes
// them, and the name that stands for all of them in a step.
var previousNames = [...]string{"previous_cert.pem", "previous_privkey.pem", "previous_chain.pem", "previous_fullchain.pem"}

const previousName = "previous_*.pem"

// foldName returns the name that stands for name in a step.
func foldName(name string) string {
	if strings.HasPrefix(name, "previous_") && slices.Contains(previousNames[:], name) {
		return previousName
	}
	return name
}

// source is what the item comes from.
func (it *item) source() Source {
	if it.src == nil {
		return Source{}
	}
	return *it.src
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
