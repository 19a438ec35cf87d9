package watch

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSettler plays scripts: at each second one thing happens. A letter is a
// view (capital: sound, small: a fault), with ~ the writer is busy, with ! it has
// been so for long; "." is an event that changed nothing, "-" nothing at all.
// The result lists what was told, when, and since when.
func TestSettler(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"sound files are told once they were the same for 2 s", "A - - - -", "2:A(0)"},
		{"files that are old at first sight are told at once", "A! - -", "0:A(0)"},
		{"old broken files still take 2 s", "a! - - -", "2:a(0)"},
		{"a change starts the clock", "A! - B - - -", "0:A(0) 4:B(2)"},
		{"each change starts the clock anew", "A! B C D - - -", "0:A(0) 5:D(1)"},
		{"the same again is nothing", "A! . . - - .", "0:A(0)"},
		{"away and back within the time is nothing", "A! b A - - - -", "0:A(0)"},
		{"events alone do not hold up", "A! B . . . .", "0:A(0) 3:B(1)"},
		{"broken, then healed", "A! b - - B - - -", "0:A(0) 3:b(1) 6:B(4)"},
		{"broken, then the same as before", "A! b - - A - - -", "0:A(0) 3:b(1) 6:A(4)"},
		{"another fault is told too", "a - - b - - b", "2:a(0) 5:b(3)"},
		{"a busy writer is waited for", "A! B~ - - - B - - -", "0:A(0) 7:B(1)"},
		{"a writer that stays busy is not waited for longer than 10 s", "A! B~ - - - - - - - - - - - -", "0:A(0) 11:B(1)"},
		{"half-written in between: judged after 10 s", "A! b B b B b B b B b B b B b B", "0:A(0) 12:B(1)"},
		{"two that alternate: judged after 10 s", "A! B C B C B C B C B C B C B C", "0:A(0) 11:B(1)"},
		{"never sound: judged after 10 s", "A! b c d e f g h i j k l m n o", "0:A(0) 11:l(1)"},
		{"sound at first, then broken for good: judged after 20 s", "A! B c d c d c d c d c d c d c d c d c d c d c d", "0:A(0) 21:d(1)"},
		{"since is forgotten with a change that was none", "A! . - - - B - - -", "0:A(0) 7:B(5)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := play(tt.script); got != tt.want {
				t.Errorf("%s\ngot  %s\nwant %s", tt.script, got, tt.want)
			}
		})
	}
}

func play(script string) string {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := settler{settle: 2 * time.Second, patience: 10 * time.Second}
	var v view
	var told []string
	for n, word := range strings.Fields(script) {
		at := start.Add(time.Duration(n) * time.Second)
		switch word {
		case "-":
			if s.again.IsZero() || s.again.After(at) {
				continue
			}
		case ".":
			s.sign(at)
		default:
			name := word[:1]
			v = view{content: word, verdict: name, sound: name < "a", busy: strings.Contains(word, "~")}
			if strings.Contains(word, "!") {
				v.content, v.age = name, time.Hour
			}
			s.sign(at)
		}
		if tell, since := s.see(at, v); tell {
			told = append(told, strconv.Itoa(n)+":"+v.verdict+"("+strconv.Itoa(int(since.Sub(start)/time.Second))+")")
		}
	}
	return strings.Join(told, " ")
}

// TestSettlerNeverStarves: whatever happens, a change is judged within twice the
// patience, nothing is told twice, and what has rested is what is told.
func TestSettlerNeverStarves(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := settler{settle: 2 * time.Second, patience: 30 * time.Second}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		views := []view{{content: "A", verdict: "A", sound: true}, {content: "B", verdict: "B", sound: true}, {content: "c1", verdict: "c"}, {content: "c2", verdict: "c"},
			{content: "A busy", verdict: "A", sound: true, busy: true}}
		v, last := views[0], ""
		for range 2000 {
			if r.IntN(3) == 0 {
				v = views[r.IntN(len(views))]
				s.sign(now)
			}
			open, since := s.changed, s.since
			tell, first := s.see(now, v)
			if tell {
				if v.verdict == last {
					t.Fatalf("seed %d: %s told twice", seed, last)
				}
				if first.After(now) {
					t.Fatalf("seed %d: since lies in the future", seed)
				}
				last = v.verdict
			}
			if s.changed && s.again.IsZero() {
				t.Fatalf("seed %d: an open change and no time to look again", seed)
			}
			if open && s.changed && now.Sub(since) > 60*time.Second {
				t.Fatalf("seed %d: nothing concluded for %v", seed, now.Sub(since))
			}
			step := time.Duration(r.IntN(1500)) * time.Millisecond
			if s.changed && r.IntN(2) == 0 {
				step = s.again.Sub(now)
			}
			now = now.Add(step)
		}
		// At rest, what is there is told.
		v = views[1]
		s.sign(now)
		s.see(now, v)
		for s.changed {
			now = s.again
			s.see(now, v)
		}
		if s.told != "B" {
			t.Fatalf("seed %d: at rest %q is told", seed, s.told)
		}
	}
}
