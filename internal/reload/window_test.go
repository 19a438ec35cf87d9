package reload

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func clock(hours, minutes int) time.Duration {
	return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
}

// interval is when a window is open: from start, up to but without end.
type interval struct{ start, end int64 } // Unix seconds

// wallClock is what the clock on the wall shows at every minute from an instant,
// in seconds as if it were UTC. No change of a zone in these years falls between.
func wallClock(z *time.Location, from, to time.Time) []int64 {
	var shown []int64
	for at := from.In(z); at.Before(to); at = at.Add(time.Minute) {
		_, offset := at.Zone()
		shown = append(shown, at.Unix()+int64(offset))
	}
	return shown
}

// watchClock finds the intervals of w by looking at that clock every minute.
func watchClock(w Window, from, to time.Time, shown []int64) []interval {
	type due struct {
		start, end int64 // what the clock shows then
		since      int64
	}
	var waiting, begun []due
	var out []interval
	// The first dates are left out: what began before that cannot be seen.
	day := time.Date(from.Year(), from.Month(), from.Day()+2, 0, 0, 0, 0, time.UTC)
	for ; day.Before(to); day = day.AddDate(0, 0, 1) {
		if len(w.Days) > 0 && !slices.Contains(w.Days, day.Weekday()) {
			continue
		}
		d := due{start: day.Add(w.From).Unix(), end: day.Add(w.To).Unix()}
		if w.To <= w.From {
			d.end += 24 * 60 * 60
		}
		waiting = append(waiting, d)
	}
	for i, wall := range shown {
		at := from.Unix() + int64(i)*60
		for ; len(waiting) > 0 && wall >= waiting[0].start; waiting = waiting[1:] {
			d := waiting[0]
			d.since = at
			if wall >= d.end { // all of it was skipped
				out = append(out, interval{d.since, d.since + d.end - d.start})
				continue
			}
			begun = append(begun, d)
		}
		if len(begun) == 0 {
			continue
		}
		begun = slices.DeleteFunc(begun, func(d due) bool {
			if wall >= d.end {
				out = append(out, interval{d.since, at})
				return true
			}
			return false
		})
	}
	slices.SortFunc(out, func(a, b interval) int { return int(a.start - b.start) })
	return out
}

// Windows are open when a person who looks at the clock on the wall every minute
// of two years says so, and Next is the opening that person sees next.
func TestWindowsAgainstTheClockOnTheWall(t *testing.T) {
	from, to := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := zone(t, name)
			shown := wallClock(z, from, to)
			rnd := rand.New(rand.NewPCG(1, uint64(len(name))))
			windows := []Window{
				{From: clock(2, 0), To: clock(5, 0)},
				{From: clock(22, 0), To: clock(2, 15)},
				{From: clock(2, 5), To: clock(2, 25)},  // inside every skipped hour
				{From: clock(1, 35), To: clock(1, 55)}, // inside Lord Howe's doubled half hour
				{From: clock(0, 0), To: clock(24, 0), Days: []time.Weekday{time.Sunday}},
			}
			for range 3 {
				w := Window{From: clock(rnd.IntN(24), rnd.IntN(60)), To: clock(rnd.IntN(24), rnd.IntN(60))}
				for d := range time.Saturday + 1 {
					if rnd.IntN(3) == 0 {
						w.Days = append(w.Days, d)
					}
				}
				windows = append(windows, w)
			}
			var all [][]interval
			for i := range windows {
				windows[i].Zone = z
				seen := watchClock(windows[i], from, to, shown)
				if len(seen) < 100 {
					t.Fatalf("%v: only %d intervals were seen", windows[i], len(seen))
				}
				all = append(all, seen)
				hold(t, Windows{windows[i]}, seen)
			}
			for range 5 { // several windows together
				i, j := rnd.IntN(len(windows)), rnd.IntN(len(windows))
				hold(t, Windows{windows[i], windows[j]}, union(all[i], all[j]))
			}
		})
	}
}

// hold compares ws with the intervals that were seen: at every border, a moment
// before it, and somewhere between.
func hold(t *testing.T, ws Windows, seen []interval) {
	t.Helper()
	check := func(at time.Time, open bool, next int64) {
		t.Helper()
		if got := ws.Open(at); got != open {
			t.Fatalf("%v at %s: open is %v, want %v", ws, at.In(ws[0].Zone), got, open)
		}
		want := at
		if !open {
			want = time.Unix(next, 0)
		}
		if got := ws.Next(at); !got.Equal(want) {
			t.Fatalf("%v at %s: next is %s, want %s", ws, at.In(ws[0].Zone), got.In(ws[0].Zone), want.In(ws[0].Zone))
		}
	}
	for i, x := range seen[:len(seen)-1] {
		start, end, next := time.Unix(x.start, 0), time.Unix(x.end, 0), seen[i+1].start
		check(start.Add(-time.Nanosecond), i > 0 && seen[i-1].end == x.start, x.start)
		check(start, true, 0)
		check(start.Add(end.Sub(start)/2), true, 0)
		check(end.Add(-time.Nanosecond), true, 0)
		check(end, next == x.end, next)
		if gap := next - x.end; gap > 60 {
			check(end.Add(time.Duration(gap)*time.Second/3), false, next)
		}
	}
}

func union(a, b []interval) []interval {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(a, b interval) int { return int(a.start - b.start) })
	var out []interval
	for _, x := range all {
		if last := len(out) - 1; last >= 0 && x.start <= out[last].end {
			out[last].end = max(out[last].end, x.end)
			continue
		}
		out = append(out, x)
	}
	// Where one of the lists has not begun or has ended, nothing is known.
	begin, end := max(a[0].start, b[0].start), min(a[len(a)-1].start, b[len(b)-1].start)
	return slices.DeleteFunc(out, func(x interval) bool { return x.start <= begin || x.start > end })
}

// What a person reads in the documentation, in words and times.
func TestWindowsByExample(t *testing.T) {
	berlin, howe := zone(t, "Europe/Berlin"), zone(t, "Australia/Lord_Howe")
	nights := Windows{{From: clock(2, 0), To: clock(5, 0), Zone: berlin}}
	weekend := Windows{{Days: []time.Weekday{time.Saturday}, From: clock(22, 0), To: clock(4, 0), Zone: berlin}}
	inside := Windows{{From: clock(2, 15), To: clock(2, 45), Zone: berlin}}
	for _, c := range []struct {
		name string
		ws   Windows
		at   string
		open bool
		next string // "": at itself
	}{
		{"no windows: always", nil, "2026-06-01T12:00:00Z", true, ""},
		{"in the night", nights, "2026-06-01T02:00:00+02:00", true, ""},
		{"the end is outside", nights, "2026-06-01T05:00:00+02:00", false, "2026-06-02T02:00:00+02:00"},
		{"on the evening before", nights, "2026-06-01T23:00:00+02:00", false, "2026-06-02T02:00:00+02:00"},
		{"past midnight belongs to the day it began on", weekend, "2026-06-07T03:59:59+02:00", true, ""},
		{"the evening of Sunday is not Saturday's", weekend, "2026-06-07T22:30:00+02:00", false, "2026-06-13T22:00:00+02:00"},
		{"the early Saturday is Friday's night", weekend, "2026-06-06T03:00:00+02:00", false, "2026-06-06T22:00:00+02:00"},
		{"spring: 2:15 does not exist, it opens at 3:00", inside, "2026-03-29T01:59:59+01:00", false, "2026-03-29T03:00:00+02:00"},
		{"spring: and lasts as long as meant", inside, "2026-03-29T03:29:59+02:00", true, ""},
		{"spring: and no longer", inside, "2026-03-29T03:30:00+02:00", false, "2026-03-30T02:15:00+02:00"},
		{"spring: the night opens an hour shorter", nights, "2026-03-29T03:00:00+02:00", true, ""},
		{"autumn: it opens in the first 2:15", inside, "2026-10-25T02:15:00+02:00", true, ""},
		{"autumn: and not again in the second", inside, "2026-10-25T02:15:00+01:00", false, "2026-10-26T02:15:00+01:00"},
		{"autumn: the night is an hour longer", nights, "2026-10-25T04:59:59+01:00", true, ""},
		{"Lord Howe skips half an hour", Windows{{From: clock(2, 10), To: clock(2, 20), Zone: howe}}, "2026-10-04T01:59:59+10:30", false, "2026-10-04T02:30:00+11:00"},
		{"the first of several", Windows{weekend[0], nights[0]}, "2026-06-06T12:00:00+02:00", false, "2026-06-06T22:00:00+02:00"},
		{"the whole day", Windows{{From: 0, To: clock(24, 0), Days: []time.Weekday{time.Monday}, Zone: berlin}}, "2026-06-01T23:59:59+02:00", true, ""},
		{"and no minute of the next", Windows{{From: 0, To: clock(24, 0), Days: []time.Weekday{time.Monday}, Zone: berlin}}, "2026-06-02T00:00:00+02:00", false, "2026-06-08T00:00:00+02:00"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		next := at
		if c.next != "" {
			if next, err = time.Parse(time.RFC3339, c.next); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.ws.Open(at); got != c.open {
			t.Errorf("%s: open is %v", c.name, got)
		}
		if got := c.ws.Next(at); !got.Equal(next) {
			t.Errorf("%s: next is %s, want %s", c.name, got, next)
		}
	}
}

// A window without a zone follows the host's, and one that names no day there is
// never opens.
func TestWindowsAtTheEdge(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.Local)
	if !(Windows{{From: clock(11, 59), To: clock(12, 1)}}).Open(at) {
		t.Error("the host's zone is not the default")
	}
	never := Windows{{Days: []time.Weekday{9}, From: 0, To: clock(24, 0)}}
	if never.Open(at) || !never.Next(at).IsZero() {
		t.Error("there is a ninth day")
	}
	if got := (Windows{never[0], {From: clock(13, 0), To: clock(14, 0)}}).Next(at); !got.Equal(at.Add(time.Hour)) {
		t.Errorf("next is %s", got)
	}
}

// Every zone there is, at any time, ends in an answer that agrees with itself.
func FuzzWindows(f *testing.F) {
	zones := []string{"Europe/Berlin", "Pacific/Apia", "Africa/Monrovia", "America/Juneau", "Asia/Manila", "Antarctica/Troll"}
	f.Add(int64(1_325_239_200), uint8(1), uint16(0), uint16(30), uint8(0))
	f.Add(int64(-1<<40), uint8(2), uint16(1439), uint16(1439), uint8(255))
	f.Fuzz(func(t *testing.T, unix int64, z uint8, from, to uint16, days uint8) {
		const far = 1 << 40 // tens of thousands of years
		at := time.Unix(unix%far, 0)
		w := Window{From: time.Duration(from%1440) * time.Minute, To: time.Duration(to%1441) * time.Minute, Zone: zone(t, zones[int(z)%len(zones)])}
		for d := range time.Saturday + 1 {
			if days&(1<<d) != 0 {
				w.Days = append(w.Days, d)
			}
		}
		ws := Windows{w}
		next := ws.Next(at)
		if next.IsZero() || next.Before(at) || ws.Open(at) != next.Equal(at) {
			t.Fatalf("%v at %s: open is %v and next is %s", w, at, ws.Open(at), next)
		}
		if !ws.Open(next) || !next.Equal(at) && ws.Open(next.Add(-time.Nanosecond)) {
			t.Fatalf("%v at %s: it does not open at %s", w, at, next)
		}
		if next.Sub(at) > 9*24*time.Hour {
			t.Fatalf("%v at %s: it opens at %s only", w, at, next)
		}
	})
}

func BenchmarkWindowsNext(b *testing.B) {
	ws := Windows{{Days: []time.Weekday{time.Monday}, From: clock(2, 0), To: clock(5, 0), Zone: zone(b, "Europe/Berlin")}}
	at := time.Date(2026, 6, 2, 12, 0, 0, 0, time.UTC)
	for b.Loop() {
		ws.Next(at)
	}
}

func ExampleWindows() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	nights := Windows{{Days: []time.Weekday{time.Tuesday}, From: 2 * time.Hour, To: 5 * time.Hour, Zone: berlin}}
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, berlin)
	fmt.Println(nights.Open(noon), nights.Next(noon))
	// Output: false 2026-06-02 02:00:00 +0200 CEST
}
