package discover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// reading is one reading of one server's configuration.
type reading struct {
	Reader
	ctx   context.Context
	found Found
	pairs map[[2]string]int // where in found.Pairs
	gaps  map[Gap]bool

	files   int
	bytes   int64
	entries int
	stack   []string // the files that are being read, each included by the one before
	over    bool     // a bound is reached: nothing more is read
	full    bool     // a bound is reached: no more pairs are added
	named   int      // how often a pair was named
}

// done reports whether to stop.
func (r *reading) done() bool { return r.over || r.ctx.Err() != nil }

func (r *reading) gap(g Gap) {
	if r.gaps[g] {
		return
	}
	if len(r.gaps) == maxGaps {
		r.gaps[g] = true
		r.found.Unread = append(r.found.Unread, Gap{Path: r.found.Config, Sentence: "there is more that could not be read"})
		return
	}
	if len(r.gaps) > maxGaps {
		return
	}
	r.gaps[g] = true
	r.found.Unread = append(r.found.Unread, g)
}

// spent says that a bound is reached.
func (r *reading) spent(path, format string, args ...any) {
	if r.over {
		return
	}
	r.over = true
	// Said even behind a row of others: it explains all that is missing.
	r.found.Unread = append(r.found.Unread, Gap{
		Path:     path,
		Sentence: "the configuration was not read to its end: " + fmt.Sprintf(format, args...),
	})
}

// enter reads a file and puts it on the stack of those being read; leave takes
// it off. at says who names the file.
func (r *reading) enter(path, at string) (data []byte, ok bool) {
	if slices.Contains(r.stack, path) {
		r.gap(Gap{Path: path, Sentence: show(path) + " includes itself", Hint: "remove the include at " + show(at)})
		return nil, false
	}
	if len(r.stack) >= r.MaxDepth {
		r.gap(Gap{Path: path, Sentence: fmt.Sprintf("%s is not read: files include each other more than %d deep", show(path), r.MaxDepth)})
		return nil, false
	}
	data, ok = r.read(path, at)
	if ok {
		r.stack = append(r.stack, path)
	}
	return data, ok
}

func (r *reading) leave() { r.stack = r.stack[:len(r.stack)-1] }

// read reads one file of the configuration.
func (r *reading) read(path, at string) (data []byte, ok bool) {
	if r.done() {
		return nil, false
	}
	if r.files++; r.files > r.MaxFiles {
		r.spent(path, "it has more than %d files", r.MaxFiles)
		return nil, false
	}
	data, err := readFile(path, r.MaxFile)
	if err != nil {
		r.gap(unread(path, at, err))
		return nil, false
	}
	if r.bytes += int64(len(data)); r.bytes > r.MaxBytes {
		r.spent(path, "it has more than %d bytes", r.MaxBytes)
		return nil, false
	}
	return data, true
}

var (
	errNotRegular = errors.New("not a regular file")
	errKernel     = errors.New("a file of the kernel")
	errTooLarge   = errors.New("too large")
)

// readFile reads a regular file of at most limit bytes. Devices and FIFOs are not
// opened; what becomes one meanwhile does not block.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	if ofKernel(f) {
		return nil, errKernel
	}
	if info.Size() > limit {
		return nil, errTooLarge
	}
	return readAll(f, info.Size(), limit)
}

// readAll reads up to limit bytes, at first into room for size of them.
func readAll(f io.Reader, size, limit int64) ([]byte, error) {
	data := make([]byte, 0, min(max(size, 0), limit, 1<<20)+1)
	for {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if int64(len(data)) > limit {
			return nil, errTooLarge
		}
		if err == io.EOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// unread says why a file could not be read. at may be empty: nobody names it.
func unread(path, at string, err error) Gap {
	g := Gap{Path: path}
	by := ""
	if at != "" {
		by = " (named at " + show(at) + ")"
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		g.Sentence = show(path) + " does not exist" + by
	case errors.Is(err, fs.ErrPermission):
		g.Sentence = "no permission to read " + show(path) + by
		g.Hint = "give this process read access to the file and its directories"
	case errors.Is(err, syscall.ELOOP):
		g.Sentence = show(path) + " leads through links in a circle" + by
	case errors.Is(err, errNotRegular):
		g.Sentence = show(path) + " is not a regular file" + by
	case errors.Is(err, errKernel):
		g.Sentence = show(path) + " is no file on a disk, and is not read" + by
	case errors.Is(err, errTooLarge):
		g.Sentence = show(path) + " is too large to be a configuration" + by
	default:
		why := err.Error()
		var errno syscall.Errno
		if errors.As(err, &errno) {
			why = errno.Error()
		}
		g.Sentence = fmt.Sprintf("%s cannot be read: %s%s", show(path), why, by)
	}
	return g
}

// list returns the names in a directory, sorted. Bounded by MaxEntries over the
// whole reading.
func (r *reading) list(dir string) ([]string, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if ofKernel(f) {
		return nil, errKernel
	}
	var names []string
	for !r.done() {
		some, err := f.Readdirnames(512)
		if r.entries += len(some); r.entries > r.MaxEntries {
			r.spent(dir, "its directories have more than %d entries", r.MaxEntries)
			break
		}
		names = append(names, some...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return names, err
		}
	}
	slices.Sort(names)
	return names, nil
}

// show makes a path or a foreign word fit for a sentence: short, printable, on
// one line.
func show(s string) string {
	const most = 512
	if len(s) > most {
		s = s[:most/2] + "..." + s[len(s)-most/2:]
	}
	for _, c := range s {
		if !strconv.IsPrint(c) || c == '\uFFFD' {
			return strconv.Quote(s)
		}
	}
	return s
}

// line is file:line.
func line(file string, n int) string {
	var b strings.Builder
	b.Grow(len(file) + 8)
	b.WriteString(file)
	b.WriteByte(':')
	b.WriteString(strconv.Itoa(n))
	return b.String()
}

// fileOf is the file of a file:line.
func fileOf(at string) string {
	if i := strings.LastIndexByte(at, ':'); i > 0 {
		return at[:i]
	}
	return at
}
