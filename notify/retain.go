package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/renewatch/renewatch/internal/durable"
)

// retain deletes what need not be kept, and above MaxSize what is least worth
// keeping: sent events, then the story, alerts last. Trouble is reported and tried
// again at the next Append.
func (j *Journal) retain() {
	if err := j.retainOnce(); err != nil {
		j.report.Err = fmt.Errorf("delete old events: %w", err)
	}
}

func (j *Journal) retainOnce() error {
	sent := min(j.lowestCursor(), j.last)
	limit := j.o.Now().Add(-j.o.Keep)
	for len(j.segs) > 1 && j.segs[0].last <= sent && j.segs[0].newest.Before(limit) {
		if err := j.drop(0); err != nil {
			return err
		}
	}
	for j.size() > j.o.MaxSize {
		old := j.segs[:len(j.segs)-1]
		bySent := func(s segment) bool { return s.last <= sent }
		byStory := func(s segment) bool { return s.count > s.alerts }
		var err error
		if i := slices.IndexFunc(old, bySent); i >= 0 {
			err = j.drop(i)
		} else if i := slices.IndexFunc(old, byStory); i >= 0 {
			err = j.dropStory(i, sent)
		} else if len(old) > 0 {
			j.report.DroppedAlerts += old[0].count
			err = j.drop(0)
		} else if j.segs[0].count > 0 {
			err = j.begin(j.last + 1)
		} else {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (j *Journal) size() (total int64) {
	for _, s := range j.segs {
		total += s.size
	}
	return total
}

// drop deletes segment i.
func (j *Journal) drop(i int) error {
	if err := durable.Remove(j.segs[i].path(j.dir)); err != nil {
		return err
	}
	j.segs = slices.Delete(j.segs, i, i+1)
	j.rewritten()
	return nil
}

// dropStory rewrites segment i with nothing but its unsent alerts.
func (j *Journal) dropStory(i int, sent uint64) error {
	s := j.segs[i]
	f, err := os.Open(s.path(j.dir))
	if errors.Is(err, os.ErrNotExist) {
		return j.drop(i)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var (
		kept    bytes.Buffer
		dropped int
		after   = segment{first: s.first, last: s.last}
	)
	for lines := newLineReader(f); ; {
		line, _, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		h, seq, ok := parseHead(line)
		switch {
		case !whole || !ok || seq <= sent:
		case h.alert():
			kept.Write(line)
			kept.WriteByte('\n')
			after.add(h, seq)
		default:
			dropped++
		}
	}
	if after.count == 0 {
		if err := j.drop(i); err != nil {
			return err
		}
	} else {
		if err := durable.WriteFile(s.path(j.dir), kept.Bytes(), 0o600); err != nil {
			return err
		}
		after.last, after.size = s.last, int64(kept.Len())
		j.segs[i] = after
		j.rewritten()
	}
	j.report.DroppedStory += dropped
	return nil
}
