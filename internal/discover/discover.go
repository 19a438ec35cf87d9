// Package discover finds out about servers on this host what their
// configuration and the kernel say: which certificate and key pairs nginx,
// Apache or HAProxy will load at the next reload, and which processes listen on
// an address.
//
// It reads files and /proc. It never runs a program, never writes, and bounds
// what it reads: a configuration is foreign input.
package discover

import (
	"cmp"
	"context"
	"path/filepath"
	"strings"
)

// Kind is a kind of server.
type Kind string

// The kinds of server whose configuration is understood.
const (
	Nginx   Kind = "nginx"
	Apache  Kind = "apache"
	HAProxy Kind = "haproxy"
)

// Pair is a certificate and the key that a server loads with it.
type Pair struct {
	Cert string // absolute path
	Key  string // absolute path; equal to Cert where the key lies in the same file
	At   string // file:line where the certificate is named
	// If is a condition that was not judged but assumed to hold, as it stands in
	// the configuration: "<IfDefine TLS>". Empty: the pair is loaded.
	If string
	// Passphrase: the configuration says where the server gets a passphrase for
	// its keys, so an encrypted key is no fault.
	Passphrase bool
}

// Gap is a part of a configuration that could not be read, or a value in it that
// is not known here. Pairs may be missing for it.
type Gap struct {
	Path     string // the file concerned
	Sentence string
	Hint     string // what a person can do; may be empty
}

// Found is what was found out about one server.
type Found struct {
	Kind   Kind   // empty: not a server that is understood, or not on this host
	Config string // the main configuration file
	Pairs  []Pair // in the order of the configuration, each once
	Unread []Gap
}

// Hint is what is known of a server. What stands first is believed first.
type Hint struct {
	// Units are systemd units: nginx.service.
	Units []string
	// Commands are commands that reload or test the server, with their arguments.
	Commands [][]string
	// PIDFiles hold the process id of the server.
	PIDFiles []string
}

// Reader reads the configuration of servers. The zero value is ready for use.
type Reader struct {
	// MaxFiles is how many configuration files are read. 0: 50,000.
	MaxFiles int
	// MaxFile is the size of the largest file that is read, in bytes. 0: 16 MiB.
	MaxFile int64
	// MaxBytes is how much is read in all, in bytes. 0: 64 MiB.
	MaxBytes int64
	// MaxDepth is how deep files may include each other. 0: 32.
	MaxDepth int
	// MaxPairs is how many pairs are returned. 0: 20,000.
	MaxPairs int
	// MaxEntries is how many directory entries are looked at. 0: 200,000.
	MaxEntries int

	where *places // nil: where the distributions keep things
}

// maxGaps is how many gaps are told one by one.
const maxGaps = 50

// Pairs finds the configuration of the server that hint tells of and returns the
// pairs it loads. A server that is not understood is an empty Found and no
// error. The error is that of ctx; what was found by then is returned with it.
func (r Reader) Pairs(ctx context.Context, hint Hint) (Found, error) {
	r.MaxFiles = cmp.Or(r.MaxFiles, 50_000)
	r.MaxFile = cmp.Or(r.MaxFile, 16<<20)
	r.MaxBytes = cmp.Or(r.MaxBytes, 64<<20)
	r.MaxDepth = cmp.Or(r.MaxDepth, 32)
	r.MaxPairs = cmp.Or(r.MaxPairs, 20_000)
	r.MaxEntries = cmp.Or(r.MaxEntries, 200_000)
	if r.where == nil {
		r.where = usual()
	}
	rd := &reading{ctx: ctx, Reader: r, pairs: map[[2]string]int{}, gaps: map[Gap]bool{}}
	inv, gap := r.where.invocation(hint)
	rd.found.Kind = inv.kind
	if gap != nil {
		rd.gap(*gap)
	}
	if inv.kind != "" && gap == nil {
		switch inv.kind {
		case Nginx:
			rd.nginx(inv)
		case Apache:
			rd.apache(inv)
		case HAProxy:
			rd.haproxy(inv)
		}
	}
	return rd.found, ctx.Err()
}

// pair adds a pair. Paths of a server are C strings: one with a NUL byte is not
// what it seems.
func (r *reading) pair(p Pair) {
	if !usable(p.Cert) || !usable(p.Key) {
		r.gap(Gap{Path: fileOf(p.At), Sentence: show(p.At) + " names " + show(p.Cert) + " and " + show(p.Key) + ", which cannot be a pair of files"})
		return
	}
	// Thousands of hosts can each inherit thousands of pairs.
	if r.named++; r.named > 50*r.MaxPairs {
		r.full = true
		r.spent(p.Cert, "its pairs are named more than %d times", 50*r.MaxPairs)
		return
	}
	p.Cert, p.Key = tidy(p.Cert), tidy(p.Key)
	key := [2]string{p.Cert, p.Key}
	if i, ok := r.pairs[key]; ok {
		// A pair is in doubt only where all who name it are.
		if have := &r.found.Pairs[i]; p.If == "" {
			have.If = ""
		}
		r.found.Pairs[i].Passphrase = r.found.Pairs[i].Passphrase && p.Passphrase
		return
	}
	if len(r.found.Pairs) >= r.MaxPairs {
		r.full = true
		r.spent(p.Cert, "it names more than %d pairs", r.MaxPairs)
		return
	}
	r.pairs[key] = len(r.found.Pairs)
	r.found.Pairs = append(r.found.Pairs, p)
}

func usable(path string) bool {
	return strings.HasPrefix(path, "/") && len(path) < 4096 && !strings.ContainsRune(path, 0)
}

// tidy cleans a path, unless it climbs: behind a link ".." is not the directory
// that is written before it.
func tidy(path string) string {
	if strings.Contains(path, "/../") || strings.HasSuffix(path, "/..") {
		return path
	}
	return filepath.Clean(path)
}

// under returns path as seen from the directory base.
func under(base, path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return strings.TrimSuffix(base, "/") + "/" + path
}

// dirOf is what stands before the last slash, links and dots left alone.
func dirOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}
