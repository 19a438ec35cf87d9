// Package watch tells what this host says: which certificate and key lie on
// disk, whether they belong together, and when they changed. It watches
// directories (never files), lets a change settle, compares leaves by their
// SHA-256 (never by time stamps) and scans everything once a minute, because
// file system events get lost.
package watch

import (
	"crypto/x509"
	"time"
)

// Kind is what sort of thing was observed.
type Kind string

// The kinds of observation.
const (
	// Loaded: the first sound sight of this source by this Watcher.
	Loaded Kind = "loaded"
	// Changed: the files are sound and settled and differ from what was last
	// observed (leaf, chain, key, or they were broken before).
	Changed Kind = "changed"
	// Broken: the files are there but not sound; Fault says how.
	Broken Kind = "broken"
	// Unreadable: the files cannot be read: missing, no permission, a dangling
	// link, an I/O error; Fault says which.
	Unreadable Kind = "unreadable"
	// Removed: a lineage that a glob had found is gone with its directory, or
	// certbot's renewal/NAME.conf went with its files.
	Removed Kind = "removed"
	// Blind: the watcher itself lost sight of something (no inotify, a lost
	// watch); it goes on by scanning. Fault says what.
	Blind Kind = "blind"
	// Sighted: what Blind said is over.
	Sighted Kind = "sighted"
)

// FaultCode names one way in which files can be at fault.
type FaultCode string

// Fault is one thing wrong with a certificate file or its key.
type Fault struct {
	Code     FaultCode
	Path     string
	Sentence string // what is wrong, a clear sentence without a full stop
	Hint     string // what to do
}

// Error makes a Fault usable as an error.
func (f *Fault) Error() string { return f.Sentence }

// KeyState says what is known of the key that belongs to a leaf.
type KeyState string

// The key states.
const (
	KeyMatches  KeyState = "matches"  // the key's public half is the leaf's
	KeyUnknown  KeyState = "unknown"  // no key is configured nor found; only the certificate is watched
	KeyMismatch KeyState = "mismatch" // never in a Loaded or Changed observation
)

// Source is one certificate to be watched.
type Source struct {
	Name string // fixed name; empty with a glob: each match is named by itself
	Cert string // path or glob of the PEM file: leaf first, then the chain; may hold the key too
	Key  string // path of the key; empty: found beside Cert, else in it, else KeyUnknown
}

// Pair is a certificate file and its key as read from disk at one moment.
type Pair struct {
	CertPath string
	KeyPath  string              // empty when Key is KeyUnknown; CertPath for a combined file
	Chain    []*x509.Certificate // leaf first, as in the file
	Key      KeyState
	Warnings []*Fault // worth saying, not in the way: key readable by everyone, chain out of order
	// Touch lists the real files behind CertPath and KeyPath (links resolved),
	// for a reload that must see a new time stamp.
	Touch []string
}

// Leaf returns the first certificate.
func (p *Pair) Leaf() *x509.Certificate { return p.Chain[0] }

// Observation is one thing seen on this host.
type Observation struct {
	Kind Kind
	Name string // the certificate's name; empty for Blind and Sighted of the whole watcher
	// Source is the one this came from, as it was given to Set: with a glob the
	// glob itself. Zero with Blind and Sighted.
	Source Source
	// Path is the certificate file, also where there is no Pair: with a glob the
	// match. Empty with Blind, Sighted and a name that two files claim.
	Path  string
	Time  time.Time // when it was concluded
	Since time.Time // when the first sign of this change was seen (before settling)
	Pair  *Pair     // with Loaded and Changed
	Fault *Fault    // with Broken, Unreadable and Blind; with Sighted the one that is over
	// History holds the leaves known of the lineage besides the present one,
	// from certbot's archive directory; oldest first, at most 64.
	History []*x509.Certificate
}

// remember adds the history.
func (o *Observation) remember() {
	if o.Pair != nil {
		o.History = history(o.Path, o.Pair.Touch[0], o.Pair.Leaf())
	}
}

// parsed is how many parsed certificates o holds.
func (o *Observation) parsed() int {
	if o.Pair == nil {
		return 0
	}
	return len(o.Pair.Chain) + len(o.History)
}
