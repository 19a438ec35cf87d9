package verify

import (
	"net/netip"
	"slices"
	"time"
)

// Window says when an address counts as serving after a change, and how often
// it is asked until then. Zero fields have the defaults.
type Window struct {
	// Samples that must show the expected leaf, one after the other; 0: 12. Mail
	// servers are asked at most 3 times.
	Samples int
	// Spread is the time these must span at least; 0: 2 s. Servers mix old and new
	// answers for about half a second after a reload.
	Spread time.Duration
	// Fast is the interval of polling at first; 0: 200 ms. Mail servers are
	// never asked more often than every 10 s.
	Fast time.Duration
	// FastFor is how long that lasts from the start, and again from the first
	// sight of the expected leaf; then the interval doubles. 0: 10 s.
	FastFor time.Duration
	// Max bounds the interval; 0: 30 s.
	Max time.Duration
	// Progress, unless nil, is told every verdict that differs from the one
	// before at its address, in the goroutine that called Confirm. Down verdicts
	// are graded by the neighbours known so far.
	Progress func(Verdict)
}

func (w Window) filled(mail bool) Window {
	positive := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	positive(&w.Spread, 2*time.Second)
	positive(&w.Fast, 200*time.Millisecond)
	positive(&w.FastFor, 10*time.Second)
	positive(&w.Max, 30*time.Second)
	if w.Samples <= 0 {
		w.Samples = 12
	}
	if mail {
		w.Samples = min(w.Samples, mailSamples)
		w.Fast = max(w.Fast, mailInterval)
	}
	w.Max = max(w.Max, w.Fast)
	return w
}

// step is the interval between the samples of a run. Rounded up: the last of
// them must not be short of the spread.
func (w Window) step(mail bool) time.Duration {
	if mail {
		return w.Fast
	}
	gaps := max(time.Duration(w.Samples-1), 1)
	return min(w.Fast, (w.Spread+gaps-1)/gaps)
}

// A track follows one address through a Window. It is pure: every time is an
// argument.
type track struct {
	w        Window
	mail     bool
	fastTill time.Time
	interval time.Duration // the doubling one, once the fast phase is over
	sighted  bool          // the expected leaf was seen
	recent   []judged      // the last samples, at most w.Samples
	run      int           // samples of the unbroken run of accepted ones
	runStart time.Time
	since    time.Time // of the unbroken run of samples with the expected leaf
	last     time.Time // start of the last sample
	tries    int
	downFrom time.Time
}

func newTrack(w Window, mail bool, now time.Time) *track {
	return &track{w: w, mail: mail, fastTill: now.Add(w.FastFor), interval: w.Fast}
}

// add takes in a sample.
func (t *track) add(j judged) {
	if len(t.recent) == t.w.Samples {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	t.recent = append(t.recent, j)
	t.last = j.start
	if j.good() {
		if t.since.IsZero() {
			t.since = j.start
		}
		if !t.sighted {
			t.sighted = true
			t.fastTill = j.start.Add(t.w.FastFor)
			t.interval = t.w.Fast
		}
	} else {
		t.since = time.Time{}
	}
	if j.accepted() {
		if t.run++; t.run == 1 {
			t.runStart = j.start
		}
	} else {
		t.run, t.runStart = 0, time.Time{}
	}
	if j.code.down() {
		if t.tries++; t.tries == 1 {
			t.downFrom = j.start
		}
	} else {
		t.tries, t.downFrom = 0, time.Time{}
	}
}

// running reports whether a failed sample would break something that one lost
// packet should not.
func (t *track) running() bool { return t.run > 0 }

// done reports whether the address counts as serving.
func (t *track) done() bool {
	return t.run >= t.w.Samples && (t.mail || t.last.Sub(t.runStart) >= t.w.Spread)
}

// next returns when to take the next sample, given that the last one ended at
// end; call it once for each sample.
func (t *track) next(end time.Time) time.Time {
	var at time.Time
	switch {
	case t.run > 0 && !t.done():
		// Counted from the start of the run, so that slow handshakes do not add up.
		at = t.runStart.Add(time.Duration(t.run) * t.w.step(t.mail))
	case !t.done() && t.last.Before(t.fastTill):
		at = t.last.Add(t.w.Fast)
	default:
		t.interval = min(2*t.interval, t.w.Max)
		at = t.last.Add(t.interval)
	}
	if t.mail {
		at = latest(at, t.last.Add(mailInterval))
	}
	return latest(at, end)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// window returns the samples a verdict now rests on: the run once it is
// complete, else those inside the last window's length.
func (t *track) window() []judged {
	if t.done() {
		n := 0
		for n < len(t.recent) && t.recent[n].start.Before(t.runStart) {
			n++
		}
		return t.recent[n:]
	}
	length := t.w.Spread + t.w.Fast
	if t.mail {
		length = time.Duration(t.w.Samples) * mailInterval
	}
	n := 0
	for n < len(t.recent)-1 && t.last.Sub(t.recent[n].start) > length {
		n++
	}
	return t.recent[n:]
}

// verdict returns what is known of the address now.
func (t *track) verdict(b *bench, e Endpoint, addr netip.AddrPort) Verdict {
	samples := t.window()
	// A failure inside the window is history once an answer came after it; one
	// at its end is what counts now.
	if last := &samples[len(samples)-1]; last.failed() {
		samples = samples[len(samples)-1:]
	} else {
		answered := make([]judged, 0, len(samples))
		for _, j := range samples {
			if !j.failed() {
				answered = append(answered, j)
			}
		}
		samples = answered
	}
	v := b.verdict(e, addr, samples)
	v.Since, v.Tries, v.DownSince, v.Whole = t.since, t.tries, t.downFrom, t.done()
	return v
}
