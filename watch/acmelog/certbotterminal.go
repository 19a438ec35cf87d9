package acmelog

import (
	"strings"
	"time"
)

// Bounds of what is remembered of lines that nobody understood.
const (
	maxTail     = 4
	maxSentence = 4 << 10
)

// terminal reads a line of stdout or stderr.
func (d *certbot) terminal(l *line, g *ledger) {
	b := l.text
	if len(b) > maxSentence {
		b = b[:maxSentence]
	}
	text := strings.TrimRight(string(b), " \t")
	if text == "" {
		d.raw, d.framed = false, false
		if d.block.open {
			d.say(l, l.at, g, fromTerminal, "")
		}
		return
	}
	if d.raw {
		if !certbotAnchor(text) {
			return
		}
		d.raw = false
	}
	if d.cur != nil {
		d.cur.hear(l.at)
	}
	frame := strings.HasPrefix(text, "- - - - - - - -")
	if frame {
		d.frame(g, l.at)
	}
	d.framed = frame
	if !d.run.begun {
		d.run.begun, d.run.first, d.run.at = true, line{at: l.at, offset: l.offset}, l.at
	}
	if d.notes && !d.block.open && strings.HasPrefix(text, "   ") {
		text = text[3:]
	}
	if d.notes && strings.HasPrefix(text, " - ") {
		d.block.flush(d, g)
		d.block = certbotBlock{}
		text = text[3:]
		if text == "The following errors were reported by the server:" {
			d.block.begin(nil, true)
			return
		}
	}
	if d.form == certbotUnknown && signCertbot(b) > 0 {
		d.form = certbotTerminal
	}
	if d.say(l, l.at, g, fromTerminal, text) {
		d.tail = nil
		return
	}
	if len(d.tail) < maxTail && text[0] != ' ' {
		d.tail = append(d.tail, bound(text, maxText))
	}
}

// frame reads the lines around what certbot shows. Two that follow each other are a
// summary of which stderr has all.
func (d *certbot) frame(g *ledger, at time.Time) {
	if d.framed || d.list == listSuccess || d.list == listSkipped { // a list of failures names them all
		d.flush(g)
		for _, a := range append([]*attempt(nil), g.open...) {
			if a.Phase.rank() < PhaseIssued.rank() {
				d.run.failed++
				d.failing, d.failure.at = a, at
				d.finishFailing(g)
			}
		}
	}
}
