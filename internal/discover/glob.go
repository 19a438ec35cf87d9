package discover

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// isGlob reports whether a server takes path for a pattern.
func isGlob(path string) bool { return strings.ContainsAny(path, "*?[") }

// glob returns the paths that an absolute pattern matches, as glob(3) does: "*"
// does not match a leading dot. at says who names it.
func (r *reading) glob(pattern, at string) []string {
	paths := []string{"/"}
	rest := strings.TrimLeft(pattern, "/")
	for rest != "" && len(paths) > 0 {
		part, after, more := strings.Cut(rest, "/")
		rest = strings.TrimLeft(after, "/")
		var next []string
		for _, dir := range paths {
			if r.done() {
				return nil
			}
			if !isGlob(part) {
				next = append(next, under(dir, unescape(part)))
				continue
			}
			names, err := r.list(dir)
			switch {
			case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, errKernel):
			default:
				r.gap(unread(dir, at, err))
			}
			for _, name := range names {
				if matches(part, name) {
					next = append(next, under(dir, name))
				}
			}
		}
		paths = next
		if !more {
			break
		}
	}
	exist := paths[:0]
	for _, p := range paths {
		if r.entries++; r.entries > r.MaxEntries {
			r.spent(p, "its patterns match more than %d names", r.MaxEntries)
			return nil
		}
		if _, err := os.Lstat(p); err == nil || errors.Is(err, fs.ErrPermission) {
			exist = append(exist, p)
		}
	}
	return exist
}

func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// matches reports whether name matches a pattern without slashes. The time is
// at most the product of the lengths.
func matches(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") && !strings.HasPrefix(pattern, `\.`) {
		return false
	}
	p, n := 0, 0
	star, mark := -1, 0 // where to go on when a match ends: one more byte for the last star
	for n < len(name) || p < len(pattern) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, mark = p, n
				p++
				continue
			}
			if n < len(name) {
				if ok, after := matchOne(pattern, p, name[n]); ok {
					p, n = after, n+1
					continue
				}
			}
		}
		if star < 0 || mark >= len(name) {
			return false
		}
		mark++
		p, n = star+1, mark
	}
	return true
}

// matchOne matches one byte with what stands at p, and says what stands behind it.
func matchOne(pattern string, p int, c byte) (ok bool, after int) {
	switch pattern[p] {
	case '?':
		return true, p + 1
	case '\\':
		if p+1 < len(pattern) {
			return pattern[p+1] == c, p + 2
		}
	case '[':
		if ok, after, set := matchSet(pattern, p, c); set {
			return ok, after
		}
	}
	return pattern[p] == c, p + 1
}

// matchSet matches [a-z], [!a-z] and [^a-z]. A bracket that is never closed is no set.
func matchSet(pattern string, p int, c byte) (ok bool, after int, set bool) {
	i := p + 1
	not := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if not {
		i++
	}
	for first := true; i < len(pattern); first = false {
		lo := pattern[i]
		if lo == ']' && !first {
			return ok != not, i + 1, true
		}
		if lo == '\\' && i+1 < len(pattern) {
			i++
			lo = pattern[i]
		}
		i++
		hi := lo
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			i++
			hi = pattern[i]
			if hi == '\\' && i+1 < len(pattern) {
				i++
				hi = pattern[i]
			}
			i++
		}
		ok = ok || lo <= c && c <= hi
	}
	return false, 0, false
}
