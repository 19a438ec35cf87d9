package watch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inode tells two files or directories apart.
type inode struct{ dev, ino uint64 }

// ident tells two states of a file apart. It never proves that the content is
// the same: see reusable.
type ident struct {
	inode
	size         int64
	mtime, ctime int64 // Unix ns
	mode         uint32
}

func (id ident) isDir() bool  { return id.mode&unix.S_IFMT == unix.S_IFDIR }
func (id ident) isLink() bool { return id.mode&unix.S_IFMT == unix.S_IFLNK }

// newest is the later of the two times; ctime alone does not move on some
// network file systems.
func (id ident) newest() int64 { return max(id.mtime, id.ctime) }

func identOf(st *unix.Stat_t) ident {
	return ident{
		inode: inode{uint64(st.Dev), uint64(st.Ino)},
		size:  st.Size,
		mtime: st.Mtim.Nano(),
		ctime: st.Ctim.Nano(),
		mode:  uint32(st.Mode),
	}
}

func stat(path string) (id ident, err error) {
	var st unix.Stat_t
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Stat(path, &st)
	}
	return identOf(&st), err
}

func lstat(path string) (id ident, err error) {
	var st unix.Stat_t
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Lstat(path, &st)
	}
	return identOf(&st), err
}

func fstat(fd int) (id ident, err error) {
	var st unix.Stat_t
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Fstat(fd, &st)
	}
	return identOf(&st), err
}

// resolver follows paths component by component. It remembers what it saw, so
// one is used for one pass only.
type resolver struct{ memo map[string]entry }

type entry struct {
	id   ident
	link string
	err  error
}

func newResolver() *resolver { return &resolver{memo: make(map[string]entry)} }

func (r *resolver) lstat(path string) entry {
	if e, ok := r.memo[path]; ok {
		return e
	}
	var e entry
	e.id, e.err = lstat(path)
	if e.err == nil && e.id.isLink() {
		e.link, e.err = os.Readlink(path)
	}
	r.memo[path] = e
	return e
}

// step is one name in one directory whose change can change what a path means.
type step struct {
	dir  string // real path, no links in it
	id   inode  // of dir
	name string // anyName: every name counts
	weak bool   // the directory is watched only to see the one of this name come and go
}

// anyName stands for all names of a directory, as a glob needs it.
const anyName = ""

// trail is how a path resolves.
type trail struct {
	steps  []step
	real   string // the path without links; empty when it does not resolve
	id     ident  // of real
	err    error  // why it does not resolve
	at     string // where it does not
	link   string // the link that dangles, when err is ENOENT and a link is the reason
	newest int64  // latest change of a link on the way
}

// maxLinks is Linux's own limit.
const maxLinks = 40

// walk resolves path and records the names that decide how.
func (r *resolver) walk(path string) trail {
	var t trail
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			t.err, t.at = err, path
			return t
		}
		path = wd + "/" + path
	}
	// open holds the links that are being followed: each with the number of
	// components that remain once it is resolved.
	type following struct {
		link string
		left int
	}
	var open []following
	rest := components(path)
	dir, links := "/", 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		for len(open) > 0 && len(rest) < open[len(open)-1].left {
			open = open[:len(open)-1]
		}
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		full := filepath.Join(dir, name)
		e := r.lstat(full)
		last := len(rest) == 0
		if e.err != nil || e.id.isLink() || last || !e.id.isDir() {
			t.steps = append(t.steps, step{dir: dir, id: r.lstat(dir).id.inode, name: name})
		}
		switch {
		case e.err != nil:
			t.err, t.at = e.err, full
			if e.err == syscall.ENOENT && len(open) > 0 {
				t.link = open[0].link
			}
		case e.id.isLink():
			t.newest = max(t.newest, e.id.ctime)
			if links++; links > maxLinks {
				t.err, t.at = syscall.ELOOP, full
				break
			}
			open = append(open, following{full, len(rest)})
			if filepath.IsAbs(e.link) {
				dir = "/"
			}
			rest = append(components(e.link), rest...)
		case e.id.isDir():
			dir = full
		case !last:
			t.err, t.at = syscall.ENOTDIR, full
		default:
			dir = full
		}
		if t.err != nil {
			t.addParents(r)
			return t
		}
	}
	t.real, t.id = dir, r.lstat(dir).id
	t.addParents(r)
	return t
}

// addParents adds the directories whose entry is a directory that counts: a
// watch is lost when its directory is replaced, and only the parent tells.
func (t *trail) addParents(r *resolver) {
	for _, s := range slices.Clone(t.steps) {
		if s.dir == "/" {
			continue
		}
		up := filepath.Dir(s.dir)
		t.steps = append(t.steps, step{dir: up, id: r.lstat(up).id.inode, name: filepath.Base(s.dir), weak: true})
	}
}

// components splits a path; "." and doubled slashes mean nothing.
func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// fault says why the path does not resolve.
func (t *trail) fault(path string) *Fault {
	switch {
	case t.err == syscall.ENOENT && t.link != "":
		return newFault(DanglingLink, path, "point the link at an existing file; with certbot, compare live/ and archive/",
			"%s is a link to what does not exist", show(t.link))
	case t.err == syscall.ENOENT && !samePath(t.at, path):
		return newFault(Missing, path, "wait for the ACME client to write it, or correct the path",
			"%s does not exist: there is no %s", show(path), show(t.at))
	case t.err == syscall.ENOTDIR:
		return newFault(Missing, path, "correct the path", "%s does not exist: %s is not a directory", show(path), show(t.at))
	}
	return systemFault(path, t.err)
}

func samePath(a, b string) bool { return filepath.Clean(a) == filepath.Clean(b) }

// openToAll reports whether everyone may walk down to path and read it.
func (r *resolver) openToAll(real string, mode uint32) bool {
	if mode&0o004 == 0 {
		return false
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		if e := r.lstat(dir); e.err != nil || e.id.mode&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}
