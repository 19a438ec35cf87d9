package notify

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
)

// JournalOptions says whose journal it is and how much of it is kept.
type JournalOptions struct {
	Host     string // real name of this host; goes into every event; required
	Instance string // random word made with the state directory; goes into every id; required

	// Destinations are the names of those the events are sent to, each with a
	// cursor of its own. None: an event counts as sent once it is fsynced. A
	// destination that is new to the journal starts behind what is in it already.
	Destinations []string

	Keep    time.Duration    // how long sent events are kept; 0: 400 days
	MaxSize int64            // bytes of events, above which even unsent ones go, story first; 0: 1 GiB
	Now     func() time.Time // wall clock; nil: time.Now
}

// Report is what happened to a journal that a person should hear of.
type Report struct {
	TornBytes     int64 // cut off the end at start: an event that was never confirmed
	Garbage       int   // lines that are no events, passed over
	DroppedStory  int   // unsent events deleted because the journal had reached its size
	DroppedAlerts int   // unsent alerts deleted for the same reason
	Vanished      bool  // somebody deleted events of the file that was being written
	Replaced      bool  // somebody moved, replaced or cut that file; what there was of its events was put back
	Err           error // the last trouble with cursors or with deleting; events are not affected
}

// Empty tells that there is nothing to report.
func (r Report) Empty() bool {
	if r.Err != nil {
		return false
	}
	return r == Report{}
}

// recentIDs is how many ids are remembered to recognise a draft handed in twice.
const recentIDs = 32 << 10

// Journal is the ordered, durable list of all events. It is safe for concurrent
// use; only one process may have it open (who opens it holds the lock of the
// state directory). Others read it with Events and Follow.
type Journal struct {
	dir string
	o   JournalOptions

	mu      sync.Mutex
	segs    []segment // oldest first; the last is the one being written
	active  *os.File  // of the last segment
	dirty   bool      // active may hold bytes behind its size
	last    uint64
	newest  time.Time
	seen    map[[16]byte]struct{}
	ring    [][16]byte // the ids in seen, oldest at turn
	turn    int
	cursors map[string]*cursor
	ahead   []moment // of the first events that wait, as many as are known
	aheadAt position // where to read more of them
	report  Report
	remade  uint64        // how often segments were rewritten or deleted
	changed chan struct{} // closed at the next Append

	gauges atomic.Pointer[gauges] // never nil
}

var errClosed = errors.New("the journal is closed")

// OpenJournal opens or makes the journal in dir. A line torn by a crash is cut
// off the end.
func OpenJournal(dir string, o JournalOptions) (*Journal, error) {
	if o.Host == "" || o.Instance == "" {
		return nil, errors.New("notify: a journal needs a host and an instance")
	}
	if o.Keep <= 0 {
		o.Keep = 400 * 24 * time.Hour
	}
	if o.MaxSize <= 0 {
		o.MaxSize = 1 << 30
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make journal: %w", err)
	}
	j := &Journal{
		dir: dir, o: o,
		seen:    map[[16]byte]struct{}{},
		changed: make(chan struct{}),
	}
	j.gauges.Store(&gauges{})
	if err := j.load(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	return j, nil
}

func (j *Journal) load() error {
	firsts, err := segmentFirsts(j.dir)
	if err != nil {
		return err
	}
	if err := j.loadCursors(); err != nil {
		return err
	}
	sent := j.lowestCursor()
	var ids [][16]byte // newest first
	for i, first := range slices.Backward(firsts) {
		isLast := i == len(firsts)-1
		if !isLast && len(ids) >= recentIDs {
			count := tally
			if firsts[i+1]-1 <= sent {
				count = glance
			}
			s, err := count(j.dir, first, firsts[i+1])
			if err != nil {
				return err
			}
			j.segs = append(j.segs, s)
			continue
		}
		parse := skimHead
		if isLast { // the one that a crash may have hit
			parse = parseHead
		}
		var here [][16]byte
		s, garbage, torn, err := scan(j.dir, first, parse, func(h head, _ uint64) {
			here = append(here, idKey(h.ID))
		})
		if err != nil {
			return err
		}
		slices.Reverse(here)
		ids = append(ids, here...)
		j.report.Garbage += garbage
		if isLast {
			j.report.TornBytes = torn
		} else if torn > 0 {
			j.report.Garbage++
			s.size += torn
		}
		j.segs = append(j.segs, s)
		if j.newest.IsZero() {
			j.newest = s.newest
		}
	}
	slices.Reverse(j.segs)
	for _, id := range slices.Backward(ids[:min(len(ids), recentIDs)]) {
		j.remember(id)
	}
	// A number that was sent is never given again, even when somebody deleted
	// the file it stood in.
	for _, c := range j.cursors {
		j.last = max(j.last, c.seq)
	}
	for _, s := range j.segs {
		j.last = max(j.last, s.last)
	}
	if len(j.segs) == 0 {
		if err := j.begin(j.last + 1); err != nil {
			return err
		}
	} else if err := j.reopen(); err != nil {
		return err
	}
	if err := j.alignCursors(); err != nil {
		return err
	}
	j.retain()
	j.gauge()
	return nil
}

// begin makes a new segment and writes to it from now on.
func (j *Journal) begin(first uint64) error {
	s := segment{first: first, last: first - 1}
	const flags = os.O_CREATE | os.O_EXCL | os.O_RDWR
	f, err := os.OpenFile(s.path(j.dir), flags, 0o600)
	if errors.Is(err, os.ErrExist) {
		if err := setAside(s.path(j.dir)); err != nil {
			return err
		}
		j.report.Err = fmt.Errorf("%s stood in the journal's way and was set aside", s.path(j.dir))
		f, err = os.OpenFile(s.path(j.dir), flags, 0o600)
	}
	if err != nil {
		return err
	}
	if err := durable.SyncDir(j.dir); err != nil {
		f.Close()
		os.Remove(s.path(j.dir))
		return err
	}
	if j.active != nil {
		j.active.Close()
	}
	j.active, j.dirty = f, false
	j.segs = append(j.segs, s)
	return nil
}

// reopen opens the last segment for writing and cuts off what is behind its size.
func (j *Journal) reopen() error {
	s := j.segs[len(j.segs)-1]
	f, err := os.OpenFile(s.path(j.dir), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := cutTo(f, s.size); err != nil {
		f.Close()
		return err
	}
	if j.active != nil {
		j.active.Close()
	}
	j.active, j.dirty = f, false
	return nil
}

// cutTo cuts f durably to size.
func cutTo(f *os.File, size int64) error {
	if info, err := f.Stat(); err != nil || info.Size() == size {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// Append gives every draft its place in the journal and returns when all of them
// are on disk for good, or with an error and none of them. It returns the events
// that are new: a draft that was handed in before is passed over.
func (j *Journal) Append(drafts ...Draft) ([]Event, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active == nil {
		return nil, errClosed
	}
	var (
		now   = j.o.Now()
		buf   bytes.Buffer
		added []Event
		fresh = map[[16]byte]struct{}{}
	)
	for _, d := range drafts {
		id := idKey(EventID(j.o.Host, j.o.Instance, d))
		if _, known := j.seen[id]; known {
			continue
		}
		if _, twice := fresh[id]; twice {
			continue
		}
		e, err := Finish(d, j.o.Host, j.o.Instance, j.last+uint64(len(added))+1, now)
		if err != nil {
			return nil, err
		}
		line, err := Encode(e)
		if err != nil {
			return nil, err
		}
		buf.Write(line)
		buf.WriteByte('\n')
		added = append(added, e)
		fresh[id] = struct{}{}
	}
	if len(added) == 0 {
		return nil, nil
	}
	waited := j.waits()
	if err := j.write(buf.Bytes(), now); err != nil {
		j.gauge()
		return nil, fmt.Errorf("write journal: %w", err)
	}
	s := &j.segs[len(j.segs)-1]
	s.size += int64(buf.Len())
	for _, e := range added {
		j.last++
		s.add(head{ID: e.ID, Type: e.Type, Time: e.Time}, j.last)
		j.newest = e.Time
		j.remember(idKey(e.ID))
		if !waited && len(j.ahead) < readAhead {
			j.ahead = append(j.ahead, moment{j.last, e.Time})
		}
	}
	close(j.changed)
	j.changed = make(chan struct{})
	j.retain()
	j.gauge()
	return added, nil
}

// write puts b durably behind the last event, or leaves nothing of it.
func (j *Journal) write(b []byte, now time.Time) error {
	for range 3 {
		if err := j.place(now); err != nil {
			return err
		}
		size := j.segs[len(j.segs)-1].size
		_, err := j.active.WriteAt(b, size)
		if err == nil {
			err = j.active.Sync()
		}
		if err != nil {
			j.dirty = true
			if cutTo(j.active, size) == nil {
				j.dirty = false
			}
			return err
		}
		// Into a file that was taken away meanwhile nothing is written.
		if there, err := j.inPlace(); there || err != nil {
			j.dirty = err != nil
			return err
		}
	}
	return fmt.Errorf("somebody keeps replacing %s", j.segs[len(j.segs)-1].path(j.dir))
}

// place sees to it that the last segment is there, has nothing behind its size, and
// is neither too large nor of an earlier day.
func (j *Journal) place(now time.Time) error {
	there, err := j.inPlace()
	if err != nil {
		return err
	}
	if !there {
		return j.heal()
	}
	if j.dirty {
		if err := j.reopen(); err != nil {
			return err
		}
	}
	s := j.segs[len(j.segs)-1]
	const day = 24 * time.Hour
	if s.count == 0 || s.size < j.segmentSize() && !now.UTC().Truncate(day).After(s.begun.UTC().Truncate(day)) {
		return nil
	}
	return j.begin(j.last + 1)
}

// segmentSize is when a segment is full: small enough that deleting one is a
// small loss, large enough that there are not many.
func (j *Journal) segmentSize() int64 {
	return min(max(j.o.MaxSize/16, 4<<10), 8<<20)
}

// idKey is an id as the journal remembers it.
func idKey(id string) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:16])
}

func (j *Journal) remember(id [16]byte) {
	if len(j.ring) < recentIDs {
		j.ring = append(j.ring, id)
	} else {
		delete(j.seen, j.ring[j.turn])
		j.ring[j.turn] = id
		j.turn = (j.turn + 1) % recentIDs
	}
	j.seen[id] = struct{}{}
}

// SetLimits changes how long sent events are kept and how large the journal may
// get, from the next Append on; zero means as in JournalOptions.
func (j *Journal) SetLimits(keep time.Duration, maxSize int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if keep <= 0 {
		keep = 400 * 24 * time.Hour
	}
	if maxSize <= 0 {
		maxSize = 1 << 30
	}
	j.o.Keep, j.o.MaxSize = keep, maxSize
}

// Dir is the directory of the journal.
func (j *Journal) Dir() string { return j.dir }

// Host is the host whose journal it is.
func (j *Journal) Host() string { return j.o.Host }

// TakeReport returns what is to be reported since it was last asked.
func (j *Journal) TakeReport() Report {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.report
	j.report = Report{}
	return r
}

// Close writes the cursors and closes the journal.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active == nil {
		return nil
	}
	var errs []error
	if there, err := j.inPlace(); err == nil && !there {
		_, _, err = j.putBack() // the last that holds the file open
		errs = append(errs, err)
	}
	for _, c := range j.cursors {
		errs = append(errs, c.save())
	}
	errs = append(errs, j.active.Close())
	j.active = nil
	return errors.Join(errs...)
}

// wait returns a channel that is closed at the next Append.
func (j *Journal) wait() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// record is one event as it stands in the journal.
type record struct {
	seq   uint64
	line  []byte
	event Event
}

// position is where a reader of the journal stands.
type position struct {
	after  uint64 // sequence of the last event read
	seg    uint64 // first sequence of the segment that off belongs to
	off    int64
	remade uint64
}

// read returns the events behind p, a few at a time, none at the end, and moves p.
func (j *Journal) read(p *position, atMost int) ([]record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active != nil {
		// What was cut off the file is no hole as long as a copy of it is there.
		if held, err := j.active.Stat(); err == nil && held.Size() < j.segs[len(j.segs)-1].size {
			if err := j.heal(); err != nil {
				return nil, fmt.Errorf("read journal: %w", err)
			}
			j.gauge()
		}
	}
	var out []record
	err := j.eachBehind(p, func(_ head, seq uint64, line []byte) (more bool) {
		if e, err := Decode(line); err == nil {
			out = append(out, record{seq: seq, line: bytes.Clone(line), event: e})
		}
		return len(out) < atMost
	})
	return out, err
}

// eachBehind calls f for the events behind p, and moves p, until f wants no more.
func (j *Journal) eachBehind(p *position, f func(h head, seq uint64, line []byte) (more bool)) error {
	if p.remade != j.remade {
		p.seg, p.off, p.remade = 0, 0, j.remade
	}
	for i, s := range j.segs {
		if s.last <= p.after || s.first < p.seg {
			continue
		}
		if s.first != p.seg {
			p.seg, p.off = s.first, 0
		}
		// Of the one being written the name may lead to another file.
		file := j.active
		if i < len(j.segs)-1 || file == nil {
			var err error
			file, err = os.Open(s.path(j.dir))
			if errors.Is(err, os.ErrNotExist) {
				p.after = max(p.after, s.last)
				continue
			}
			if err != nil {
				return fmt.Errorf("read journal: %w", err)
			}
		}
		more, err := s.eachBehind(file, p, f)
		if file != j.active {
			file.Close()
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// eachBehind is that of Journal for one segment, whose file is r.
func (s segment) eachBehind(r io.ReaderAt, p *position, f func(h head, seq uint64, line []byte) (more bool)) (more bool, err error) {
	lines := newLineReader(io.NewSectionReader(r, p.off, s.size-p.off))
	for {
		line, took, whole, err := lines.next()
		if errors.Is(err, io.EOF) || err == nil && !whole {
			p.after = max(p.after, s.last)
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read journal: %w", err)
		}
		p.off += took
		h, seq, ok := skimHead(line)
		if !ok || seq <= p.after {
			continue
		}
		p.after = seq
		if !f(h, seq, line) {
			return false, nil
		}
	}
}
