package notify

import "time"

// gauges is what can be asked of a journal while it waits for the disk.
type gauges struct {
	depth  int
	oldest time.Time
	newest time.Time
	last   uint64
}

// moment is the time of an event.
type moment struct {
	seq  uint64
	time time.Time
}

// Depth is how many events wait to be sent. Like OldestUnsent, Newest and Last it
// answers at once, also while Append waits for the disk.
func (j *Journal) Depth() int { return j.gauges.Load().depth }

// OldestUnsent is the time of the event that has waited longest, zero when none
// waits.
func (j *Journal) OldestUnsent() time.Time { return j.gauges.Load().oldest }

// Newest is the time of the newest event, zero when there is none.
func (j *Journal) Newest() time.Time { return j.gauges.Load().newest }

// Last is the sequence of the newest event, 0 when there is none.
func (j *Journal) Last() uint64 { return j.gauges.Load().last }

// waits tells whether any event waits to be sent.
func (j *Journal) waits() bool { return j.lowestCursor() < j.last }

// gauge sets the gauges to what is. It may read the file to find the event that
// has waited longest, once in readAhead events.
func (j *Journal) gauge() {
	g := gauges{newest: j.newest, last: j.last}
	sent := min(j.lowestCursor(), j.last)
	for _, s := range j.segs {
		if s.last > sent {
			g.depth += int(min(uint64(s.count), s.last-sent))
		}
	}
	for len(j.ahead) > 0 && j.ahead[0].seq <= sent {
		j.ahead = j.ahead[1:]
	}
	if len(j.ahead) == 0 && sent < j.last {
		j.aheadAt.after = max(j.aheadAt.after, sent)
		err := j.eachBehind(&j.aheadAt, func(h head, seq uint64, _ []byte) (more bool) {
			j.ahead = append(j.ahead, moment{seq, h.Time})
			return len(j.ahead) < readAhead
		})
		if err != nil {
			g.oldest = j.gauges.Load().oldest
			j.aheadAt = position{}
		}
	}
	if len(j.ahead) > 0 {
		g.oldest = j.ahead[0].time
	}
	j.gauges.Store(&g)
}

// rewritten is called when segments were rewritten or deleted: places in files
// and events known from them hold no longer.
func (j *Journal) rewritten() {
	j.remade++
	j.ahead, j.aheadAt = nil, position{}
}
