package notify

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	segmentSuffix = ".jsonl"
	// maxLine is the longest line that can be an event; anything longer in a
	// journal file is garbage and is passed over without being held in memory.
	maxLine = 256 << 10
)

// segment is one file of the journal. Its name is the sequence of its first event.
type segment struct {
	first  uint64
	last   uint64 // highest sequence in it; first-1 when it is empty
	count  int    // events in it
	alerts int    // of these, alerts
	size   int64
	begun  time.Time // time of its first event
	newest time.Time // time of its last event
}

func segmentName(first uint64) string { return formatSequence(first) + segmentSuffix }

func (s segment) path(dir string) string { return filepath.Join(dir, segmentName(s.first)) }

// segmentFirsts lists the first sequences of all segments in dir, ascending.
func segmentFirsts(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok || len(digits) != 20 || !e.Type().IsRegular() {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && n > 0 && n <= maxSequence {
			firsts = append(firsts, n)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// lineReader reads the lines of a segment.
type lineReader struct {
	r   *bufio.Reader
	buf []byte
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns the next line without its end, and how many bytes it took. A line
// that is too long is nil. whole is false for a last line without a line end;
// err is io.EOF behind it.
func (l *lineReader) next() (line []byte, took int64, whole bool, err error) {
	l.buf = l.buf[:0]
	long := false
	for {
		part, err := l.r.ReadSlice('\n')
		took += int64(len(part))
		if len(l.buf)+len(part) > maxLine {
			long = true
		}
		if !long {
			l.buf = append(l.buf, part...)
		}
		switch {
		case err == nil:
			if long {
				return nil, took, true, nil
			}
			return l.buf[:len(l.buf)-1], took, true, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && took > 0:
			return nil, took, false, nil
		default:
			return nil, 0, false, err
		}
	}
}

// scan reads a segment from its file, its lines with parse. each is called for
// every event in it. torn is how many bytes stand behind the last line end,
// garbage how many whole lines are no events. A garbage line counts as one lost
// sequence, so that no number is ever given twice.
func scan(dir string, first uint64, parse headParser, each func(h head, seq uint64)) (s segment, garbage int, torn int64, err error) {
	s = segment{first: first, last: first - 1}
	f, err := os.Open(s.path(dir))
	if err != nil {
		return s, 0, 0, err
	}
	defer f.Close()
	lines := newLineReader(f)
	for {
		line, took, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return s, garbage, torn, nil
		}
		if err != nil {
			return s, garbage, torn, fmt.Errorf("read journal: %w", err)
		}
		if !whole {
			torn = took
			continue
		}
		s.size += took
		h, seq, ok := parse(line)
		if !ok || seq <= s.last {
			garbage++
			s.last++
			continue
		}
		s.add(h, seq)
		each(h, seq)
	}
}

// add counts an event in.
func (s *segment) add(h head, seq uint64) {
	s.last = seq
	if s.count == 0 {
		s.begun = h.Time
	}
	s.count++
	if h.alert() {
		s.alerts++
	}
	s.newest = h.Time
}

// glance is scan for a segment of which only the end matters: the events in it
// are all sent, and their ids are too old to be handed in again.
func glance(dir string, first, next uint64) (segment, error) {
	s := segment{first: first, last: next - 1, count: int(next - first)}
	f, err := os.Open(s.path(dir))
	if err != nil {
		return s, err
	}
	defer f.Close()
	return s, s.lookAtEnd(f)
}

// lookAtEnd sets size and times.
func (s *segment) lookAtEnd(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s.size = info.Size()
	s.begun, s.newest = info.ModTime(), info.ModTime()
	// Nearly always the last event is in the last few bytes.
	for _, n := range []int64{8 << 10, 2 * maxLine} {
		end := make([]byte, min(n, s.size))
		if _, err := f.ReadAt(end, s.size-int64(len(end))); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read journal: %w", err)
		}
		end = end[:bytes.LastIndexByte(end, '\n')+1]
		for len(end) > 0 {
			end = end[:len(end)-1]
			line := end[bytes.LastIndexByte(end, '\n')+1:]
			if h, _, ok := skimHead(line); ok {
				s.newest = h.Time
				return nil
			}
			end = end[:len(end)-len(line)]
		}
	}
	return nil
}

// tally is scan for a segment whose events are not all sent, but whose ids are too
// old to be handed in again: they are counted, not read.
func tally(dir string, first, next uint64) (segment, error) {
	s := segment{first: first, last: next - 1}
	f, err := os.Open(s.path(dir))
	if err != nil {
		return s, err
	}
	defer f.Close()
	if err := s.lookAtEnd(f); err != nil {
		return s, err
	}
	// In a text these would be escaped.
	alert := []byte(`"type":"io.renewatch.alert.`)
	buf := make([]byte, 256<<10)
	kept := 0 // bytes in front that may be the start of one
	for {
		n, err := f.Read(buf[kept:])
		s.count += bytes.Count(buf[kept:kept+n], []byte("\n"))
		s.alerts += bytes.Count(buf[:kept+n], alert)
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return s, fmt.Errorf("read journal: %w", err)
		}
		tail := buf[max(0, kept+n-len(alert)+1) : kept+n]
		kept = copy(buf, tail)
	}
}
