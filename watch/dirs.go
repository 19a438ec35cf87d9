package watch

import (
	"cmp"
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
	// watched is how many of the nodes are.
	watched int
	// errs is why others are not.
	errs map[*node]error
	// refusals is set when errs has changed.
	refusals bool
}

// node is one directory. fsnotify watches inodes and knows them by path; after a
// rename the two no longer belong together, so the inode is kept here. There may
// be many thousands of them.
type node struct {
	path   string
	id     inode
	uses   []use // by name
	parent *node // is watched for this one's sake: a watch is lost when its directory is replaced
	// children is of how many nodes this is the parent.
	children int32
	watched  bool
}

// use says that an item wants to know of a name in a node.
type use struct {
	name string
	it   *item
}

// hold is the item's side of a use.
type hold struct {
	node *node
	name string
}

// eventBuffer is how many events are taken from the system ahead of time, so
// that many can be taken in at once. The system queues 16,384 more.
const eventBuffer = 512

func newDirs() *dirs {
	return &dirs{nodes: make(map[string]*node), errs: make(map[*node]error)}
}

// open begins to take events from the system.
func (d *dirs) open() (err error) {
	d.fs, err = fsnotify.NewBufferedWatcher(eventBuffer)
	return err
}

// follow makes steps the names that it is told of. It returns the items that
// must look (again), because a directory has been watched only from now on.
func (d *dirs) follow(it *item, steps []step) []*item {
	steps, parents := compact(steps)
	if d.followed(it, steps, parents) {
		return nil
	}
	var again []*item
	old, holds := it.holds, make([]hold, 0, len(steps))
	for _, s := range steps {
		for len(old) > 0 && old[0].before(s) {
			d.release(it, old[0])
			old = old[1:]
		}
		n := d.node(it, s)
		h := hold{node: n}
		if len(old) > 0 && old[0].node == n && old[0].name == s.name {
			h.name = old[0].name
			old = old[1:]
		} else {
			h.name = it.share(s.name)
			n.add(use{h.name, it})
		}
		holds = append(holds, h)
		if !n.watched && d.watch(n) {
			again = append(again, n.items()...)
		}
	}
	for _, s := range parents {
		child := d.nodes[join(s.dir, s.name)]
		if child == nil {
			continue
		}
		n := d.node(it, s)
		if child.parent == nil {
			child.parent = n
			n.children++
		}
		if !n.watched && d.watch(n) {
			again = append(again, it)
		}
	}
	for _, h := range old {
		d.release(it, h)
	}
	it.holds = holds
	return again
}

// followed reports whether follow would change nothing before the next scan.
func (d *dirs) followed(it *item, steps, parents []step) bool {
	settled := func(n *node, s step) bool {
		return n.path == s.dir && n.id == s.id && (n.watched || d.fs == nil || d.errs[n] != nil)
	}
	for _, s := range parents {
		child := d.nodes[join(s.dir, s.name)]
		if child == nil || child.parent == nil || !settled(child.parent, s) {
			return false
		}
	}
	return slices.EqualFunc(it.holds, steps, func(h hold, s step) bool { return h.name == s.name && settled(h.node, s) })
}

// node returns the directory of a step.
func (d *dirs) node(it *item, s step) *node {
	n := d.nodes[s.dir]
	if n == nil {
		n = &node{path: it.share(s.dir), id: s.id}
		d.nodes[n.path] = n
	}
	if n.id != s.id {
		n.id = s.id
		d.unwatch(n)
	}
	return n
}

// release takes away one use.
func (d *dirs) release(it *item, h hold) {
	h.node.remove(use{h.name, it})
	for n := h.node; n != nil && len(n.uses) == 0 && n.children == 0; n = n.parent {
		d.unwatch(n)
		delete(d.nodes, n.path)
		if n.parent != nil {
			n.parent.children--
		}
	}
}

// before reports whether h is for an earlier name than s, as compact sorts them.
func (h hold) before(s step) bool {
	return cmp.Or(strings.Compare(h.node.path, s.dir), strings.Compare(h.name, s.name)) < 0
}

// find returns where the uses for name begin.
func (n *node) find(name string) int {
	i, _ := slices.BinarySearchFunc(n.uses, name, func(u use, name string) int { return strings.Compare(u.name, name) })
	return i
}

func (n *node) add(u use) {
	i := n.find(u.name)
	for i < len(n.uses) && n.uses[i].name == u.name {
		i++
	}
	if len(n.uses) < 8 {
		// Most directories have no more than these, and there may be many.
		n.uses = append(make([]use, 0, len(n.uses)+1), n.uses...)
	}
	n.uses = slices.Insert(n.uses, i, u)
}

func (n *node) remove(u use) {
	for i := n.find(u.name); i < len(n.uses) && n.uses[i].name == u.name; i++ {
		if n.uses[i].it == u.it {
			n.uses = slices.Delete(n.uses, i, i+1)
			return
		}
	}
}

// named appends the items that want to know of name.
func (n *node) named(all []*item, name string) []*item {
	for i := n.find(name); i < len(n.uses) && n.uses[i].name == name; i++ {
		all = append(all, n.uses[i].it)
	}
	return all
}

// items returns all that want to know of something in n, some more than once.
func (n *node) items() []*item {
	all := make([]*item, 0, len(n.uses))
	for _, u := range n.uses {
		if len(all) == 0 || all[len(all)-1] != u.it {
			all = append(all, u.it)
		}
	}
	return all
}

func (s step) compare(t step) int {
	return cmp.Or(strings.Compare(s.dir, t.dir), strings.Compare(s.name, t.name))
}

// compact sorts steps, each name once, and sets those apart that are there for a
// parent's sake.
func compact(steps []step) (own, parents []step) {
	slices.SortFunc(steps, step.compare)
	for _, s := range steps {
		into := &own
		if s.weak {
			into = &parents
		}
		if n := len(*into); n == 0 || (*into)[n-1].compare(s) != 0 {
			*into = append(*into, s)
		}
	}
	return own, parents
}

func (d *dirs) watch(n *node) bool {
	if d.fs == nil {
		return false
	}
	err := d.fs.Add(n.path)
	d.set(n, err == nil)
	if was := d.errs[n]; err == nil && was != nil {
		d.refusals = true
		delete(d.errs, n)
	} else if err != nil && (was == nil || err.Error() != was.Error()) {
		d.refusals = true
		d.errs[n] = err
	}
	return n.watched
}

func (d *dirs) unwatch(n *node) {
	if d.errs[n] != nil {
		d.refusals = true
		delete(d.errs, n)
	}
	d.set(n, false)
	if d.fs != nil {
		// It fails when the watch went with its directory.
		_ = d.fs.Remove(n.path)
	}
}

func (d *dirs) set(n *node, watched bool) {
	switch {
	case watched && !n.watched:
		d.watched++
	case !watched && n.watched:
		d.watched--
	}
	n.watched = watched
}

// mend watches again what is not watched any more, before everything looks.
// fsnotify drops a watch without a word when its file system is unmounted; and
// when events were lost, another directory may stand in the place of the watched
// one.
func (d *dirs) mend() {
	var list []string
	if d.fs != nil {
		if list = d.fs.WatchList(); len(list) == d.watched {
			list = nil // they are all there
		} else {
			slices.Sort(list)
		}
	}
	for path, n := range d.nodes {
		if id, err := lstat(path); err != nil || id.inode != n.id {
			for _, it := range n.items() {
				it.astray = true
			}
			if err == nil {
				n.id = id.inode
				d.unwatch(n)
			}
		}
		there := n.watched
		if there && list != nil {
			_, there = slices.BinarySearch(list, path)
		}
		if !there {
			d.watch(n)
		}
	}
}

// lose forgets all watches: the system's side of them is gone.
func (d *dirs) lose() {
	if d.fs != nil {
		_ = d.fs.Close()
	}
	d.fs, d.watched = nil, 0
	for _, n := range d.nodes {
		n.watched = false
	}
	clear(d.errs)
	d.refusals = true
}

// concerned returns the items that an event is about, some more than once.
func (d *dirs) concerned(e fsnotify.Event) []*item {
	var all []*item
	path := filepath.Clean(e.Name)
	if n := d.nodes[filepath.Dir(path)]; n != nil {
		all = n.named(all, foldName(filepath.Base(path)))
		if e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 {
			all = n.named(all, anyName)
		}
	}
	if n := d.nodes[path]; n != nil && e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename|fsnotify.Chmod) != 0 {
		if e.Op != fsnotify.Chmod || d.errs[n] != nil {
			d.unwatch(n)
		}
		all = append(all, d.below(n)...)
	}
	return all
}

// below returns all that want to know of something in n or in its children.
func (d *dirs) below(n *node) []*item {
	all := n.items()
	if n.children == 0 {
		return all
	}
	for _, child := range d.nodes {
		if child.parent == n {
			all = append(all, child.items()...)
		}
	}
	return all
}

// limited reports whether err says that there are no more watches.
func limited(err error) bool { return errors.Is(err, syscall.ENOSPC) }

// counts reports whether it must be said that n is not watched because of err.
// That a parent may not be listed need not: it only tells of replaced directories
// sooner.
func (n *node) counts(err error) bool {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		return false
	}
	return limited(err) || len(n.uses) > 0 || !errors.Is(err, syscall.EACCES)
}

// troubles says which directories the system refuses to watch.
func (d *dirs) troubles() []*Fault {
	var limit, refused []*node
	for n, err := range d.errs {
		switch {
		case !n.counts(err):
		case limited(err):
			limit = append(limit, n)
		default:
			refused = append(refused, n)
		}
	}
	first := func(nodes []*node) (n *node, all string) {
		n = slices.MinFunc(nodes, func(a, b *node) int { return strings.Compare(a.path, b.path) })
		if len(nodes) == 1 {
			return n, show(n.path)
		}
		return n, fmt.Sprintf("%s (and %d more)", show(n.path), len(nodes)-1)
	}
	var faults []*Fault
	if len(limit) > 0 {
		n, all := first(limit)
		faults = append(faults, newFault(WatchLimit, n.path, fmt.Sprintf("raise the limit: sysctl fs.inotify.max_user_watches; %d are needed here", len(d.nodes)),
			"the limit of inotify watches is reached: %s is only scanned", all))
	}
	if len(refused) > 0 {
		n, all := first(refused)
		faults = append(faults, newFault(WatchRefused, n.path, "give this process read access to the directory",
			"%s cannot be watched and is only scanned: %s", all, show(d.errs[n].Error())))
	}
	return faults
}
