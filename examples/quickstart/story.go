package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// The colours, as SGR parameters.
const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	green  = "32"
	yellow = "33"
	red    = "31"
	cyan   = "36"
)

// story prints what happens, one line each, from several goroutines.
type story struct {
	mu      sync.Mutex
	w       io.Writer
	colours bool
	start   time.Time // of the renewal; zero before it
}

// newStory prints to w; colours only on a terminal, and never with NO_COLOR.
func newStory(w io.Writer) *story {
	s := &story{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		s.colours = term.IsTerminal(int(f.Fd()))
	}
	return s
}

func (s *story) paint(colour, text string) string {
	if !s.colours || colour == plain {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// title prints a heading.
func (s *story) title(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "\n%s\n", s.paint(bold, fmt.Sprintf(format, args...)))
}

// part says what one part of the show is.
func (s *story) part(name, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "  %s  %s\n", s.paint(cyan, fmt.Sprintf("%-12s", name)), fmt.Sprintf(format, args...))
}

// proven prints one sentence of the end.
func (s *story) proven(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "  %s %s\n", s.paint(green, "✓"), fmt.Sprintf(format, args...))
}

// renewed starts the clock of the story.
func (s *story) renewed(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = at
}

// since is how long after the renewal t is; negative before a renewal.
func (s *story) since(t time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start.IsZero() {
		return -1
	}
	return t.Sub(s.start)
}

// line prints something that happened, with the time since the renewal.
func (s *story) line(colour, what, format string, args ...any) {
	clock := ""
	if d := s.since(time.Now()); d >= 0 {
		clock = "+" + seconds(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.w, "%8s  %s  %s\n", clock, s.paint(colour, fmt.Sprintf("%-16s", what)), fmt.Sprintf(format, args...))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// short is the beginning of a serial number: enough to tell two apart.
func short(serial string) string {
	if len(serial) <= 8 {
		return serial
	}
	return serial[:8] + "…"
}
