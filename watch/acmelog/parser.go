package acmelog

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"slices"
	"time"
)

// Bounds of a line.
const (
	maxRaw  = 256 << 10 // bytes kept of a line as it stands in the log; the rest is dropped
	maxLine = 64 << 10  // bytes of its text that a dialect sees
)

// Options of a Parser.
type Options struct {
	// Client is the dialect. Required: see Recognise.
	Client Client
	// Log is what attempts say of where they were read.
	Log string
	// Location is the time zone of logs that print local times without one; nil:
	// time.Local.
	Location *time.Location
}

// Parser reads one log. It is not safe for concurrent use. Its memory is bounded
// whatever it is fed.
type Parser struct {
	options   Options
	dialect   dialect
	transport transport
	ledger    ledger
	arrived   time.Time
	rest      []byte // of a line whose end was not seen
	dropping  bool   // the rest of an overlong line
	taken     int64  // bytes consumed
	begin     int64  // where the line in rest began
	line      line   // the present one
}

// line is one line of a client's text.
type line struct {
	text   []byte    // without line end and ANSI sequences, at most maxLine bytes; valid during the call only
	at     time.Time // when it was written, as the transport says, else when it was read; zero: unknown
	cut    bool      // it was longer
	stderr bool      // it came that way; only some transports tell
	offset int64     // where it begins
}

// dialect reads the lines of one client.
type dialect interface {
	// line reads one.
	line(l *line, g *ledger)
	// exit: the client's process ended. Daemons ignore it.
	exit(e Exit, g *ledger)
	// end: there is no more text: what is only certain when nothing follows is.
	end(g *ledger)
}

// NewParser returns a Parser; nil when there is no such client.
func NewParser(o Options) *Parser {
	if o.Location == nil {
		o.Location = time.Local
	}
	for _, s := range speakers {
		if s.client == o.Client {
			p := &Parser{options: o, ledger: ledger{client: o.Client, log: o.Log, zone: o.Location}}
			p.dialect = s.read()
			return p
		}
	}
	return nil
}

// Arrived says when what is written next was read, or a file was changed last:
// the time of lines that carry none.
func (p *Parser) Arrived(at time.Time) { p.arrived = at }

// Write reads the next bytes of the log; in whatever pieces they come, the
// attempts are the same. It never fails.
func (p *Parser) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			p.keep(b)
			p.taken += int64(len(b))
			break
		}
		if len(p.rest) > 0 || p.dropping {
			p.keep(b[:i])
			p.raw(p.rest, p.dropping, p.begin)
			p.rest, p.dropping = p.rest[:0], false
			if cap(p.rest) > maxLine {
				p.rest = nil
			}
		} else {
			p.raw(b[:min(i, maxRaw)], i > maxRaw, p.taken)
		}
		p.taken += int64(i) + 1
		p.begin = p.taken
		b = b[i+1:]
	}
	return n, nil
}

// keep remembers the beginning of a line.
func (p *Parser) keep(b []byte) {
	room := maxRaw - len(p.rest)
	if len(b) > room {
		b, p.dropping = b[:room], true
	}
	p.rest = append(p.rest, b...)
}

// raw reads one line as it stands in the log.
func (p *Parser) raw(b []byte, cut bool, offset int64) {
	p.line = line{text: b, at: p.arrived, cut: cut, offset: offset}
	p.transport.unwrap(&p.line, p)
}

// text hands a line without its wrapping to the dialect.
func (p *Parser) text(l *line) {
	l.text = bytes.TrimSuffix(l.text, []byte{'\r'})
	if bytes.IndexByte(l.text, 0x1b) >= 0 {
		l.text = stripANSI(l.text)
	}
	if len(l.text) > maxLine {
		l.text, l.cut = l.text[:maxLine], true
	}
	p.dialect.line(l, &p.ledger)
}

// exited hands the end of the client's process to the dialect.
func (p *Parser) exited(e Exit) { p.dialect.exit(e, &p.ledger) }

// Exit tells that the client's process ended, when that is known from elsewhere:
// its unit, its parent.
func (p *Parser) Exit(e Exit) { p.exited(e) }

// Flush ends the text: the last line counts although no line end followed.
func (p *Parser) Flush() {
	if len(p.rest) > 0 {
		p.raw(p.rest, p.dropping, p.begin)
		p.rest, p.dropping = nil, false
		p.begin = p.taken
	}
	p.transport.flush(p)
	p.dialect.end(&p.ledger)
}

// Take returns what has changed since it was called last: attempts that began,
// and attempts that ended. One that is Running or Stalled may come again, with
// the same Offset; so may one that has ended, when its client says of it later that
// it is in use, or when it tries next.
func (p *Parser) Take() []Attempt { return p.ledger.take() }

// Stall calls the attempts of which nothing was heard for StallAfter stalled.
// What comes later of one is told all the same.
func (p *Parser) Stall(now time.Time) { p.ledger.stall(now) }

// Safe is the position before which nothing that goes on began: a Parser that is
// given the text from there comes to the same end.
func (p *Parser) Safe() int64 {
	safe := p.begin
	if at, ok := p.transport.held(); ok {
		safe = min(safe, at)
	}
	for _, a := range p.ledger.open {
		if a.Outcome == Running {
			safe = min(safe, a.run, a.Offset)
		}
	}
	return safe
}

// Explain reads a whole text and returns its attempts, in their order. changed is
// when the text was written last, for those without times; now is what time it
// is: an attempt without an end is Running when it was heard of since StallAfter,
// else Stalled.
func Explain(p *Parser, text io.Reader, changed, now time.Time) ([]Attempt, error) {
	p.Arrived(changed)
	buf := make([]byte, 256<<10)
	all := map[uint64]Attempt{}
	take := func() {
		for _, a := range p.Take() {
			all[a.serial] = a
		}
	}
	for {
		n, err := text.Read(buf)
		p.Write(buf[:n]) //nolint:errcheck // never fails
		take()
		if err == nil {
			continue
		}
		p.Flush()
		p.Stall(now)
		take()
		out := slices.SortedFunc(maps.Values(all), func(a, b Attempt) int { return cmp.Compare(a.serial, b.serial) })
		if err == io.EOF {
			err = nil
		}
		return out, err
	}
}
