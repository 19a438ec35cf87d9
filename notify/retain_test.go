package notify

import (
	"slices"
	"testing"
	"time"
)

func TestSentEventsAreKeptForTheirTimeUnsentOnesLonger(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	o := options(c)
	o.Keep = 72 * time.Hour
	j := open(t, dir, o)
	for day := range 10 {
		appendAll(t, j, day+1, day+1)
		c.add(24 * time.Hour)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 10)) {
		t.Errorf("unsent, but gone: %v", got)
	}
	if err := j.advance(Destination, 8, true); err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, 11, 11)
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(8, 11)) {
		t.Errorf("kept %v", got)
	}
	if r := j.TakeReport(); !r.Empty() {
		t.Errorf("%+v", r)
	}
	if got := details(t, dir, Filter{Since: noon.Add(9 * 24 * time.Hour)}); !slices.Equal(got, counted(10, 11)) {
		t.Errorf("since the tenth day: %v", got)
	}
}

// alarm makes the segment hold an alert, as a later version writes them.
func alarm(t *testing.T, j *Journal, n int) {
	t.Helper()
	e, err := Finish(nth(n), j.o.Host, j.o.Instance, j.last+1, j.o.Now())
	if err != nil {
		t.Fatal(err)
	}
	e.Type = TypeOf("alert.critical")
	line, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.write(append(line, '\n'), j.o.Now()); err != nil {
		t.Fatal(err)
	}
	j.last++
	s := &j.segs[len(j.segs)-1]
	s.size += int64(len(line)) + 1
	s.add(head{ID: e.ID, Type: e.Type, Time: e.Time}, j.last)
}

func TestAFullJournalDropsSentThenStoryThenAlerts(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	o := options(c)
	o.MaxSize = 64 << 10
	j := open(t, dir, o)
	for i := 1; i <= 60; i++ {
		if i%10 == 0 {
			alarm(t, j, i)
		} else {
			appendAll(t, j, i, i)
		}
	}
	if err := j.advance(Destination, 12, true); err != nil {
		t.Fatal(err)
	}
	total := 60
	for j.segs[0].first == 1 { // sent ones go first
		total++
		appendAll(t, j, total, total)
	}
	if r := j.TakeReport(); !r.Empty() {
		t.Errorf("only sent ones are gone: %+v", r)
	}
	for range 60 {
		total++
		appendAll(t, j, total, total)
	}
	r := j.TakeReport()
	if r.DroppedStory == 0 || r.DroppedAlerts != 0 {
		t.Errorf("%+v", r)
	}
	left := details(t, dir, Filter{})
	for i := 20; i <= 60; i += 10 {
		if !slices.Contains(left, i) {
			t.Errorf("alert %d is gone, left are %v", i, left)
		}
	}
	if !slices.IsSorted(left) || left[len(left)-1] != total {
		t.Errorf("left are %v", left)
	}
	if lost := total - 12 - r.DroppedStory; j.Depth() > lost+60 || j.size() > o.MaxSize {
		t.Errorf("%d wait, %d bytes", j.Depth(), j.size())
	}
	for range 200 {
		total++
		alarm(t, j, total)
		j.retain()
	}
	if r := j.TakeReport(); r.DroppedAlerts == 0 || r.Err != nil {
		t.Errorf("alerts at last: %+v", r)
	}
	// What is read for sending is what is left.
	j.Close()
	j = open(t, dir, o)
	var at position
	var numbers []int
	for {
		records, err := j.read(&at, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			numbers = append(numbers, int(r.seq))
		}
	}
	if left := details(t, dir, Filter{}); !slices.Equal(left, numbers) || at.after != uint64(total) {
		t.Errorf("read %v, left %v", numbers, left)
	}
}

func TestReadingGoesOnAfterFilesWereRewritten(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	o := options(c)
	o.MaxSize = 64 << 10
	j := open(t, dir, o)
	appendAll(t, j, 1, 30)
	var at position
	first, err := j.read(&at, 5)
	if err != nil || len(first) != 5 {
		t.Fatalf("%d %v", len(first), err)
	}
	if err := j.dropStory(0, 0); err != nil {
		t.Fatal(err)
	}
	rest, err := j.read(&at, 1000)
	if err != nil || len(rest) == 0 || rest[len(rest)-1].seq != 30 || rest[0].seq <= 5 {
		t.Errorf("%d events, %v", len(rest), err)
	}
}
