package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/renewatch/renewatch/notify"
)

// painter colours words where a person looks: on a terminal, unless NO_COLOR is
// set or the terminal is dumb.
type painter struct {
	terminal bool
	colour   bool
	width    int
}

func (a *app) painter(w io.Writer) painter {
	if o, wrapped := w.(*output); wrapped {
		w = o.w
	}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return painter{}
	}
	p := painter{terminal: true, colour: a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb", width: 80}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		p.width = width
	}
	return p
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
	bold   = "1"
)

func (p painter) paint(code, s string) string {
	if !p.colour || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// severity prints a severity padded to width.
func (p painter) severity(s notify.Severity, width int) string {
	return p.paint(colourOf(s), fmt.Sprintf("%-*s", width, s))
}

func colourOf(s notify.Severity) string {
	switch s {
	case notify.Info:
		return green
	case notify.Warning:
		return yellow
	}
	return red
}
