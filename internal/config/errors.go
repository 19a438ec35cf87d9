package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is one fault of a configuration.
type Error struct {
	// File is the file's path, or what else the value came from: the name of an
	// environment variable or of a flag.
	File string
	// Line and Column count from 1, columns in characters. Both are 0 when the
	// fault is of the file as a whole, or of a variable or flag.
	Line, Column int
	// Path names the key, e.g. servers.nginx.unit or
	// certificates[0].endpoints[1].url; list positions count within the file.
	Path string
	// Sentence says what is wrong. It never holds a secret or a neighbouring line.
	Sentence string
	// Hint says what to do; empty where the sentence says it.
	Hint string
	// Err is the operating system's error when the file could not be read.
	Err error
}

// Error returns file:line:column and the sentence, without the hint.
func (e *Error) Error() string { return position(e.File, e.Line, e.Column) + ": " + e.Sentence }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Errors are all faults of a configuration, in the order of the files.
type Errors []*Error

// Error returns one line per fault.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns every fault.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// maxErrors bounds what one configuration can print.
const maxErrors = 200

// sorted puts es in the order of files (then flags and variables), lines and
// columns, drops what is said twice, and bounds the rest.
func (es Errors) sorted(files []string) Errors {
	rank := make(map[string]int, len(files))
	for i, f := range files {
		rank[f] = i - len(files)
	}
	slices.SortStableFunc(es, func(a, b *Error) int {
		for _, d := range []int{rank[a.File] - rank[b.File], a.Line - b.Line, a.Column - b.Column} {
			if d != 0 {
				return d
			}
		}
		return 0
	})
	es = slices.CompactFunc(es, func(a, b *Error) bool { return *a == *b })
	if len(es) > maxErrors {
		more := len(es) - maxErrors
		last := es[maxErrors-1]
		es = append(es[:maxErrors:maxErrors], &Error{File: last.File,
			Sentence: fmt.Sprintf("%d more errors are not shown", more)})
	}
	return es
}

// Warning is something legal that is probably not meant. Its fields are those of
// Error.
type Warning struct {
	File         string
	Line, Column int
	Path         string
	Sentence     string
	Hint         string
}

// String returns file:line:column and the sentence, without the hint.
func (w *Warning) String() string { return position(w.File, w.Line, w.Column) + ": " + w.Sentence }

func position(file string, line, column int) string {
	file = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, file)
	if line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line) + ":" + strconv.Itoa(column)
}

// quote returns s in double quotes, printable and cut to what a line bears.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "..."
	}
	return strconv.Quote(s)
}

// enumerate joins names as prose: a, b and c.
func enumerate(names []string, last string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " " + last + " " + names[len(names)-1]
}

// Nearest returns the candidate that s was probably meant to be, or "".
func Nearest(s string, candidates []string) string {
	s = strings.ToLower(s)
	if len(s) > 40 {
		return ""
	}
	best, least := "", 1+max(1, len(s)/3)
	for _, c := range candidates {
		lower := strings.ToLower(c)
		d := distance(s, lower)
		if len(s) > 2 && (strings.HasPrefix(s, lower) || strings.HasPrefix(lower, s)) {
			d = min(d, 1)
		}
		if d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
