package watch

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// dirs are the watched directories and who wants to know of which names in them.
type dirs struct {
	fs    *fsnotify.Watcher // nil: the system gave none
	nodes map[string]*node  // by real path
	// refusals is set when an err of a node has changed.
	refusals bool
}

// node is one directory. fsnotify watches inodes and knows them by path; after a
// rename the two no longer belong together, so the inode is kept here.
type node struct {
	id      inode
	watched bool
	err     error
	names   map[string]map[*item]bool // the value: weak
	strong  int                       // how many of them are not weak
}

func newDirs() *dirs { return &dirs{nodes: make(map[string]*node)} }

// follow makes steps the names that it is told of. It returns the items that
// must look (again), because a directory has been watched only from now on.
func (d *dirs) follow(it *item, steps []step) []*item {
	steps = compact(steps)
	if slices.Equal(steps, it.steps) && !slices.ContainsFunc(steps, func(s step) bool { return !d.nodes[s.dir].settled(d) }) {
		return nil
	}
	var again []*item
	for _, s := range steps {
		n := d.nodes[s.dir]
		if n == nil {
			n = &node{id: s.id, names: make(map[string]map[*item]bool)}
			d.nodes[s.dir] = n
		}
		users := n.names[s.name]
		if users == nil {
			users = make(map[*item]bool)
			n.names[s.name] = users
		}
		if weak, there := users[it]; !s.weak && (!there || weak) {
			n.strong++
		}
		users[it] = s.weak
		if n.id != s.id {
			n.id = s.id
			d.unwatch(s.dir, n)
		}
		if !n.watched && d.watch(s.dir, n) {
			again = append(again, n.users()...)
		}
	}
	for _, old := range it.steps {
		i, kept := slices.BinarySearchFunc(steps, old, func(a, b step) int { return a.compare(b) })
		n := d.nodes[old.dir]
		switch {
		case kept:
			if !old.weak && steps[i].weak {
				n.strong--
			}
			continue
		case !old.weak:
			n.strong--
		}
		delete(n.names[old.name], it)
		if len(n.names[old.name]) == 0 {
			delete(n.names, old.name)
		}
		if len(n.names) == 0 {
			d.unwatch(old.dir, n)
			delete(d.nodes, old.dir)
		}
	}
	it.steps = steps
	return again
}

// settled reports whether there is nothing to do for n before the next scan.
func (n *node) settled(d *dirs) bool { return n.watched || n.err != nil || d.fs == nil }

func (n *node) users() []*item {
	var all []*item
	for _, users := range n.names {
		for it := range users {
			all = append(all, it)
		}
	}
	return all
}

func (s step) compare(t step) int {
	if c := strings.Compare(s.dir, t.dir); c != 0 {
		return c
	}
	return strings.Compare(s.name, t.name)
}

// compact sorts steps and joins those for the same name.
func compact(steps []step) []step {
	slices.SortFunc(steps, step.compare)
	out := steps[:0]
	for _, s := range steps {
		if n := len(out); n > 0 && out[n-1].compare(s) == 0 {
			out[n-1].weak = out[n-1].weak && s.weak
			continue
		}
		out = append(out, s)
	}
	return out
}

func (d *dirs) watch(path string, n *node) bool {
	if d.fs == nil {
		return false
	}
	err := d.fs.Add(path)
	n.watched = err == nil
	if (err == nil) != (n.err == nil) || err != nil && err.Error() != n.err.Error() {
		d.refusals = true
	}
	n.err = err
	return n.watched
}

func (d *dirs) unwatch(path string, n *node) {
	d.refusals = d.refusals || n.err != nil
	n.watched, n.err = false, nil
	if d.fs != nil {
		// It fails when the watch went with its directory.
		_ = d.fs.Remove(path)
	}
}

// mend watches again what is not watched any more and returns the items that
// must look. fsnotify drops a watch without a word when its file system is
// unmounted.
func (d *dirs) mend() []*item {
	if d.fs == nil {
		return nil
	}
	var again []*item
	list := d.fs.WatchList()
	slices.Sort(list)
	for path, n := range d.nodes {
		if _, there := slices.BinarySearch(list, path); n.watched && there {
			continue
		}
		if d.watch(path, n) {
			again = append(again, n.users()...)
		}
	}
	return again
}

// lose forgets all watches: the system's side of them is gone.
func (d *dirs) lose() {
	if d.fs != nil {
		_ = d.fs.Close()
	}
	d.fs = nil
	for _, n := range d.nodes {
		n.watched, n.err = false, nil
	}
	d.refusals = true
}

// concerned returns the items that an event is about.
func (d *dirs) concerned(e fsnotify.Event) []*item {
	var all []*item
	path := filepath.Clean(e.Name)
	if n := d.nodes[filepath.Dir(path)]; n != nil {
		for it := range n.names[filepath.Base(path)] {
			all = append(all, it)
		}
		if e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 {
			for it := range n.names[anyName] {
				all = append(all, it)
			}
		}
	}
	if n := d.nodes[path]; n != nil && e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename|fsnotify.Chmod) != 0 {
		if e.Op != fsnotify.Chmod || n.err != nil {
			d.unwatch(path, n)
		}
		all = append(all, n.users()...)
	}
	return all
}

// troubles says which directories the system refuses to watch. That a parent
// may not be listed is none: it only tells of replaced directories sooner.
func (d *dirs) troubles() []*Fault {
	var limit, refused []string
	for path, n := range d.nodes {
		switch {
		case n.err == nil, errors.Is(n.err, syscall.ENOENT), errors.Is(n.err, syscall.ENOTDIR):
		case errors.Is(n.err, syscall.ENOSPC):
			limit = append(limit, path)
		case n.strong > 0 || !errors.Is(n.err, syscall.EACCES):
			refused = append(refused, path)
		}
	}
	var faults []*Fault
	if len(limit) > 0 {
		slices.Sort(limit)
		faults = append(faults, newFault(WatchLimit, limit[0], "raise the limit: sysctl fs.inotify.max_user_watches",
			"the limit of inotify watches is reached: %s is only scanned", showAll(limit)))
	}
	if len(refused) > 0 {
		slices.Sort(refused)
		faults = append(faults, newFault(WatchRefused, refused[0], "give this process read access to the directory",
			"%s cannot be watched and is only scanned: %s", showAll(refused), show(d.nodes[refused[0]].err.Error())))
	}
	return faults
}

func showAll(paths []string) string {
	if len(paths) == 1 {
		return show(paths[0])
	}
	return fmt.Sprintf("%s (and %d more)", show(paths[0]), len(paths)-1)
}
