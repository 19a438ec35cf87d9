package notify

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// clock is a wall clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func options(c *clock) JournalOptions {
	return JournalOptions{Host: "web1.example.org", Instance: "instance", Destinations: []string{Destination}, Now: c.Now}
}

func open(t testing.TB, dir string, o JournalOptions) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// nth is a draft that differs from all with another number.
func nth(n int) Draft {
	return Draft{Kind: RenewalDetected, Certificate: "www.example.com", Occurrence: uint64(n), Data: Data{Detail: fmt.Sprint("number ", n)}}
}

func appendAll(t testing.TB, j *Journal, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if _, err := j.Append(nth(i)); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
}

// details is what the journal in dir holds, as the numbers given to nth.
func details(t testing.TB, dir string, f Filter) (numbers []int) {
	t.Helper()
	for r, err := range Events(dir, f) {
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if _, err := fmt.Sscanf(r.Event.Data.Detail, "number %d", &n); err != nil {
			t.Fatalf("%q: %v", r.Event.Data.Detail, err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func counted(from, to int) (list []int) {
	for i := from; i <= to; i++ {
		list = append(list, i)
	}
	return list
}

func TestJournalNumbersEventsAndKnowsThemAgain(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	events, err := j.Append(nth(1), nth(2), nth(1))
	if err != nil || len(events) != 2 {
		t.Fatalf("%v %v", events, err)
	}
	if events[0].Sequence != "00000000000000000001" || events[1].Sequence != "00000000000000000002" {
		t.Errorf("sequences %s %s", events[0].Sequence, events[1].Sequence)
	}
	if again, err := j.Append(nth(2)); err != nil || len(again) != 0 {
		t.Errorf("handed in again: %v %v", again, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(nth(3)); err == nil {
		t.Error("a closed journal takes events")
	}
	j = open(t, dir, options(c))
	more, err := j.Append(nth(1), nth(2), nth(3))
	if err != nil || len(more) != 1 || more[0].Sequence != "00000000000000000003" {
		t.Errorf("after opening again: %v %v", more, err)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 3)) {
		t.Errorf("holds %v", got)
	}
	if r := j.TakeReport(); !r.Empty() {
		t.Errorf("report %+v", r)
	}
}

func TestABadDraftAddsNothing(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	if e, err := j.Append(nth(1), Draft{Kind: "no.kind", Certificate: "c"}); err == nil {
		t.Fatalf("taken: %v", e)
	}
	if got := details(t, dir, Filter{}); len(got) != 0 || j.Last() != 0 {
		t.Errorf("holds %v, last %d", got, j.Last())
	}
}

func TestJournalModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := open(t, dir, options(&clock{now: noon}))
	appendAll(t, j, 1, 1)
	if err := j.refuse(record{seq: 1, line: []byte(`{}`)}, Refused{Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s is %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A crash may leave any part of the last write. Whatever it is, what was confirmed
// stays, and the next event takes the next number.
func TestJournalCutAtEveryByteOfTheLastWrite(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	nth := func(n uint64) Draft { // a short one
		return Draft{Kind: AgentStarted, Certificate: AgentCertificate, Occurrence: n}
	}
	j := open(t, dir, options(c))
	if _, err := j.Append(nth(1), nth(2)); err != nil {
		t.Fatal(err)
	}
	path := j.segs[0].path(dir)
	confirmed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(nth(3), nth(4)); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	firstEnd := len(confirmed) + bytes.IndexByte(all[len(confirmed):], '\n') + 1
	for cut := len(confirmed); cut <= len(all); cut++ {
		if err := os.WriteFile(path, all[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(dir, options(c))
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		whole := 2
		if cut >= firstEnd {
			whole++
		}
		if cut == len(all) {
			whole++
		}
		if r := j.TakeReport(); (r.TornBytes > 0) == (cut == len(confirmed) || cut == firstEnd || cut == len(all)) || r.Garbage != 0 || r.Err != nil {
			t.Errorf("cut at %d: %+v", cut, r)
		}
		// The keeper hands everything in again that it has no word of.
		events, err := j.Append(nth(3), nth(4))
		if err != nil || len(events) != 4-whole || j.Last() != 4 {
			t.Errorf("cut at %d: %d events new, last %d, %v", cut, len(events), j.Last(), err)
		}
		j.Close()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, all) {
			t.Fatalf("cut at %d: the file differs (%v)", cut, err)
		}
	}
}

func TestGarbageIsPassedOverAndItsNumberNotGivenAgain(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 3)
	path := j.segs[0].path(dir)
	j.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	for name, spoil := range map[string]func() []byte{
		"the middle one": func() []byte { return slices.Concat(lines[0], []byte("\x00\x00{]\n"), lines[2]) },
		"the last one":   func() []byte { return slices.Concat(lines[0], lines[1], []byte("garbage\n")) },
		"a long one": func() []byte {
			return slices.Concat(lines[0], bytes.Repeat([]byte("x"), 2*maxLine), []byte("\n"), lines[2])
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, spoil(), 0o600); err != nil {
				t.Fatal(err)
			}
			j := open(t, dir, options(c))
			if r := j.TakeReport(); r.Garbage != 1 {
				t.Errorf("%+v", r)
			}
			e, err := j.Append(nth(9))
			if err != nil || e[0].Sequence != formatSequence(4) {
				t.Errorf("%v %v", e, err)
			}
			if n := len(details(t, dir, Filter{})); n != 3 {
				t.Errorf("%d events can be read", n)
			}
		})
	}
}

func TestAMegabyteOfZeroesAtTheEndIsCutOff(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 1)
	path := j.segs[0].path(dir)
	size := j.segs[0].size
	j.Close()
	if err := os.Truncate(path, size+1<<20); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, options(c))
	if r := j.TakeReport(); r.TornBytes != 1<<20 {
		t.Errorf("%+v", r)
	}
	appendAll(t, j, 2, 2)
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 2)) {
		t.Errorf("holds %v", got)
	}
}

// alone runs the test that calls it in a process of its own, and is true there:
// what it does to the process would hit the log that go test has a test write.
func alone(t *testing.T) bool {
	t.Helper()
	const key = "RENEWATCH_TEST_ALONE"
	if os.Getenv(key) == t.Name() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), key+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// limitFileSize makes every write beyond size fail as on a full disk: what fits is
// written.
func limitFileSize(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	set := func(n uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
	}
	set(size)
	lift = sync.OnceFunc(func() { set(old.Cur); signal.Reset(syscall.SIGXFSZ) })
	t.Cleanup(lift)
	return lift
}

func TestAFullDiskLeavesNothingHalfAndLaterItWorks(t *testing.T) {
	if !alone(t) {
		return
	}
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 2)
	path := j.segs[0].path(dir)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lift := limitFileSize(t, uint64(len(before)+len(before)/3))
	for range 3 {
		if _, err := j.Append(nth(3), nth(4)); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("got %v", err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%d bytes instead of %d (%v)", len(after), len(before), err)
		}
	}
	lift()
	events, err := j.Append(nth(3), nth(4))
	if err != nil || len(events) != 2 || events[0].Sequence != formatSequence(3) {
		t.Errorf("%v %v", events, err)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 4)) {
		t.Errorf("holds %v", got)
	}
}

func TestADeletedFileIsSaidAndNoNumberGivenTwice(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	appendAll(t, j, 1, 2)
	if err := os.Remove(j.segs[0].path(dir)); err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, 3, 3)
	if r := j.TakeReport(); !r.Vanished {
		t.Errorf("%+v", r)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, []int{3}) || j.Last() != 3 {
		t.Errorf("holds %v, last %d", got, j.Last())
	}
	// Also when all are deleted while nobody looks: the cursor knows.
	if err := j.advance(Destination, 3, true); err != nil {
		t.Fatal(err)
	}
	last := j.segs[0].path(dir)
	j.Close()
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, options(c))
	if e, err := j.Append(nth(4)); err != nil || e[0].Sequence != formatSequence(4) {
		t.Errorf("%v %v", e, err)
	}
}

func TestCursors(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	o := options(c)
	o.Destinations = nil
	j := open(t, dir, o)
	appendAll(t, j, 1, 3)
	if j.Depth() != 0 || !j.OldestUnsent().IsZero() {
		t.Errorf("without a destination %d wait", j.Depth())
	}
	j.Close()

	j = open(t, dir, options(c)) // a new destination starts behind what is there
	c.add(time.Minute)
	appendAll(t, j, 4, 6)
	if j.Depth() != 3 || !j.OldestUnsent().Equal(noon.Add(time.Minute)) {
		t.Errorf("%d wait, the oldest since %v", j.Depth(), j.OldestUnsent())
	}
	if err := j.advance(Destination, 5, true); err != nil {
		t.Fatal(err)
	}
	j.Close()
	j = open(t, dir, options(c))
	if n, err := j.sentTo(Destination); n != 5 || err != nil || j.Depth() != 1 {
		t.Errorf("sent to %d (%v), %d wait", n, err, j.Depth())
	}
	cursor := filepath.Join(dir, "cursor.nats.json")
	j.Close()

	for _, broken := range []string{"", "{", `{"sequence":99999999999999999999}`, `{"sequence":18446744073709551615}`, `{"sequence":-1}`} {
		if err := os.WriteFile(cursor, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		j = open(t, dir, options(c))
		if n, _ := j.sentTo(Destination); n != 0 || j.Depth() != 6 || j.TakeReport().Err == nil {
			t.Errorf("a broken cursor %q: sent to %d, %d wait", broken, n, j.Depth())
		}
		j.Close()
	}

	j = open(t, dir, o) // off: what comes now counts as sent
	appendAll(t, j, 7, 7)
	j.Close()
	j = open(t, dir, options(c))
	if j.Depth() != 0 {
		t.Errorf("on again: %d wait", j.Depth())
	}
	if _, err := OpenJournal(dir, JournalOptions{Host: "h", Instance: "i", Destinations: []string{"../x"}}); err == nil {
		t.Error("a path is taken for a destination")
	}
}

func TestWallClockBackwardsKeepsTheOrder(t *testing.T) {
	dir, c := t.TempDir(), &clock{now: noon}
	j := open(t, dir, options(c))
	for i := range 20 {
		appendAll(t, j, i+1, i+1)
		c.add(-30 * time.Hour)
	}
	if n := len(j.segs); n != 1 {
		t.Errorf("%d files", n)
	}
	if got := details(t, dir, Filter{}); !slices.Equal(got, counted(1, 20)) {
		t.Errorf("holds %v", got)
	}
	newest := j.Newest()
	j.Close()
	if j = open(t, dir, options(c)); !j.Newest().Equal(newest) || newest.IsZero() {
		t.Errorf("newest %v, after opening %v", newest, j.Newest())
	}
}

func TestMemoryOfIDsIsBoundedAndNewestFirst(t *testing.T) {
	j := &Journal{seen: map[[16]byte]struct{}{}}
	id := func(n int) [16]byte { return idKey(fmt.Sprint(n)) }
	for i := range recentIDs + 100 {
		j.remember(id(i))
	}
	if len(j.seen) != recentIDs || len(j.ring) != recentIDs {
		t.Errorf("%d ids", len(j.seen))
	}
	if _, ok := j.seen[id(99)]; ok {
		t.Error("the oldest is still known")
	}
	for _, n := range []int{100, recentIDs + 99} {
		if _, ok := j.seen[id(n)]; !ok {
			t.Errorf("%d is forgotten", n)
		}
	}
}

func FuzzJournalFile(f *testing.F) {
	line := `{"specversion":"1.0","id":"a","type":"io.renewatch.agent.started.v1","sequence":"00000000000000000001","time":"2026-06-01T12:00:00Z","data":{}}` + "\n"
	f.Add([]byte(line))
	f.Add([]byte(line + line[:50]))
	f.Add([]byte("\n\n\x00" + line))
	f.Add([]byte(strings.Replace(line, "00001", "99999", 1)))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)), content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := OpenJournal(dir, JournalOptions{Host: "h", Instance: "i", Keep: 1 << 62})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		before := j.Last()
		events, err := j.Append(Draft{Kind: AgentStarted, Certificate: AgentCertificate})
		if err != nil || len(events) != 1 || events[0].Sequence != formatSequence(before+1) {
			t.Fatalf("%v %v", events, err)
		}
		// What was appended can be read, last of all, and everything in order.
		var last uint64
		var id string
		for r, err := range Events(dir, Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			_, seq, _ := parseHead(r.Line)
			if seq <= last {
				t.Errorf("%d after %d", seq, last)
			}
			last, id = seq, r.Event.ID
		}
		if id != events[0].ID {
			t.Errorf("the last one is %q", id)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	j := open(b, b.TempDir(), options(&clock{now: noon}))
	n := 0
	for b.Loop() {
		n++
		if _, err := j.Append(nth(n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	dir, o := b.TempDir(), options(&clock{now: noon})
	j := open(b, dir, o)
	for i := range 40 {
		var drafts []Draft
		for k := range 500 {
			drafts = append(drafts, nth(i*500+k))
		}
		if _, err := j.Append(drafts...); err != nil {
			b.Fatal(err)
		}
	}
	j.Close()
	for b.Loop() {
		j, err := OpenJournal(dir, o)
		if err != nil {
			b.Fatal(err)
		}
		j.Close()
	}
	runtime.KeepAlive(j)
}

func ExampleOpenJournal() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	j, err := OpenJournal(dir, JournalOptions{Host: "web1.example.org", Instance: "5b0ad6f6"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer j.Close()
	started := Draft{Kind: AgentStarted, Certificate: AgentCertificate, Occurrence: 1}
	for range 2 { // handed in twice, it is one event
		if _, err := j.Append(started); err != nil {
			fmt.Println(err)
		}
	}
	for r, err := range Events(dir, Filter{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(r.Event.Sequence, r.Event.Kind(), r.Event.Source)
	}
	// Output: 00000000000000000001 agent.started //web1.example.org/renewatch
}
