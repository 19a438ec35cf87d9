package acmelog

import "bytes"

// speaker is one dialect.
type speaker struct {
	client Client
	read   func() dialect
	// sign says how much a line speaks for this dialect: 0 not at all, 1 a little
	// (others may say so too), 3 for sure.
	sign func(text []byte) int
}

// Clients lists the dialects that are spoken.
func Clients() []Client {
	out := make([]Client, 0, len(speakers))
	for _, s := range speakers {
		out = append(out, s.client)
	}
	return out
}

// Sure is how many signs make a dialect certain.
const sure = 3

// Recogniser finds out which client wrote a log.
type Recogniser struct {
	parser Parser
	points []int
}

// NewRecogniser returns one.
func NewRecogniser() *Recogniser {
	r := &Recogniser{points: make([]int, len(speakers))}
	r.parser.dialect = r
	return r
}

// Write reads the next bytes of the log. It never fails.
func (r *Recogniser) Write(b []byte) (int, error) { return r.parser.Write(b) }

// Client is the client that the text speaks for; sure is true as soon as reading
// on would not change it. ok is false while nothing speaks for any.
func (r *Recogniser) Client() (client Client, certain, ok bool) {
	best := -1
	for i, n := range r.points {
		if n > 0 && (best < 0 || n > r.points[best]) {
			best = i
		}
	}
	if best < 0 {
		return "", false, false
	}
	return speakers[best].client, r.points[best] >= sure, true
}

// Recognise is Recogniser for a text that is at hand as a whole.
func Recognise(text []byte) (Client, bool) {
	r := NewRecogniser()
	for len(text) > 0 {
		n := min(len(text), 64<<10)
		r.Write(text[:n]) //nolint:errcheck // never fails
		text = text[n:]
		if c, certain, _ := r.Client(); certain {
			return c, true
		}
	}
	r.parser.Flush()
	c, _, ok := r.Client()
	return c, ok
}

func (r *Recogniser) line(l *line, _ *ledger) {
	text := bytes.TrimRight(l.text, " \t")
	if len(text) == 0 {
		return
	}
	for i, s := range speakers {
		if r.points[i] < 1<<20 {
			r.points[i] += s.sign(text)
		}
	}
}

func (r *Recogniser) exit(Exit, *ledger) {}
func (r *Recogniser) end(*ledger)        {}
