package notify

import (
	"bufio"
	"encoding/json"
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

// head is what the journal itself needs to know of an event.
type head struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Sequence string    `json:"sequence"`
	Time     time.Time `json:"time"`
}

// parseHead reads id, sequence, class and time of a line; ok is false for what is
// not an event.
func parseHead(line []byte) (h head, seq uint64, ok bool) {
	if err := json.Unmarshal(line, &h); err != nil || h.ID == "" {
		return head{}, 0, false
	}
	seq, err := strconv.ParseUint(h.Sequence, 10, 64)
	return h, seq, err == nil && seq > 0 && seq <= maxSequence
}

func (h head) alert() bool { return strings.HasPrefix(h.Type, "io.renewatch.alert.") }

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

// scan reads a segment from its file. each is called for every event in it.
// torn is how many bytes stand behind the last line end, garbage how many whole
// lines are no events. A garbage line counts as one lost sequence, so that no
// number is ever given twice.
func scan(dir string, first uint64, each func(h head, seq uint64)) (s segment, garbage int, torn int64, err error) {
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
		h, seq, ok := parseHead(line)
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
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	s.size = info.Size()
	s.begun, s.newest = info.ModTime(), info.ModTime()
	if _, err := f.Seek(max(0, s.size-2*maxLine), io.SeekStart); err != nil {
		return s, err
	}
	for lines := newLineReader(f); ; {
		line, _, whole, err := lines.next()
		if err != nil {
			return s, nil
		}
		if h, _, ok := parseHead(line); whole && ok {
			s.newest = h.Time
		}
	}
}
