package watch

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxMatches bounds how many files the globs of one watcher stand for.
const maxMatches = 16384

// expand returns the files that pattern matches, sorted, and the names that
// decide which they are. Names with a leading dot match only a pattern with
// one (Kubernetes keeps its versions in such directories); directories, and the
// NAME.issuer.crt without a key that lego writes beside NAME.crt, are no matches.
func (r *resolver) expand(pattern string, most int) (matches []string, steps []step, fault *Fault) {
	var fixed []string
	rest := strings.Split(pattern, "/")
	for len(rest) > 0 && !IsGlob(rest[0]) {
		fixed = append(fixed, rest[0])
		rest = rest[1:]
	}
	base := strings.Join(fixed, "/")
	if base == "" && strings.HasPrefix(pattern, "/") {
		base = "/"
	}
	if base == "" {
		base = "."
	}
	paths := []string{base}
	for i, part := range rest {
		last := i == len(rest)-1
		var next []string
		for _, dir := range paths {
			if part == "" || part == "." {
				next = append(next, dir)
				continue
			}
			if !IsGlob(part) {
				// What is there needs no watch: a certificate has its own.
				path := join(dir, part)
				if id, err := stat(path); err == nil && (!last || !id.isDir()) {
					next = append(next, path)
					continue
				}
			}
			t := r.walk(dir)
			if t.err != nil || !t.id.isDir() {
				steps = append(steps, t.steps...)
				if t.err != nil && t.err != syscall.ENOENT && t.err != syscall.ENOTDIR && fault == nil {
					fault = t.fault(dir)
				}
				continue
			}
			if !IsGlob(part) {
				path := join(dir, part)
				w := r.walk(path)
				if _, err := lstat(path); err == nil && (!last || !w.id.isDir()) {
					next = append(next, path) // a link to nowhere, for now
				} else {
					steps = append(steps, w.steps...)
				}
				continue
			}
			steps = append(steps, t.steps...)
			steps = append(steps, step{dir: t.real, id: t.id.inode, name: anyName})
			entries, err := entriesIn(dir)
			if err != nil && fault == nil {
				fault = systemFault(dir, err)
			}
			for _, e := range entries {
				name := e.Name()
				if strings.HasPrefix(name, ".") && !strings.HasPrefix(part, ".") {
					continue
				}
				ok, err := filepath.Match(part, name)
				if err != nil {
					return nil, steps, newFault(BadGlob, pattern, "correct the pattern", "the pattern %s is malformed", show(pattern))
				}
				if !ok {
					continue
				}
				path, isDir := join(dir, name), e.IsDir()
				if !isDir && !e.Type().IsRegular() {
					id, err := stat(path)
					if isDir = id.isDir(); err != nil {
						isDir = !last
					}
				}
				if isDir != last {
					next = append(next, path)
				}
			}
			if len(next) > most {
				return nil, steps, newFault(TooManyMatches, pattern, "make the pattern narrower", "%s matches more than %d files", show(pattern), most)
			}
		}
		paths = next
	}
	if fault != nil {
		fault = newFault(BadGlob, pattern, fault.Hint, "the matches of %s are not all known: %s", show(pattern), fault.Sentence)
	}
	slices.Sort(paths)
	paths = slices.DeleteFunc(paths, func(p string) bool {
		name, ok := strings.CutSuffix(p, ".issuer.crt")
		if !ok {
			return false
		}
		_, err := lstat(name + ".issuer.key")
		return err != nil
	})
	return paths, steps, fault
}

// join keeps ".." and doubled slashes: cleaning would change what a path with
// links means.
func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}
