package verify

import (
	"errors"
	"net"
	"time"
)

// maxRead bounds what is read from a server in one sample. The largest
// certificate message crypto/tls takes has 256 KiB.
const maxRead = 512 << 10

var errFlood = errors.New("more bytes than a handshake can have")

// wire is a connection to a server that may be mute, slow, endless or hostile:
// what it reads is bounded, and so is the time, by one deadline for everything.
type wire struct {
	net.Conn
	left  int
	until time.Time // deadline of the whole sample
	early time.Time // deadline of the first byte of an answer; zero: until
	heard bool      // since the last call of listen
	head  []byte    // the first bytes of that answer
}

func newWire(c net.Conn, until time.Time) *wire {
	w := &wire{Conn: c, left: maxRead, until: until}
	c.SetDeadline(until)
	return w
}

// listen starts to wait for an answer whose first byte must come before early.
func (w *wire) listen(early time.Time) {
	w.heard, w.head, w.early = false, w.head[:0], early
	if !early.IsZero() {
		w.Conn.SetReadDeadline(early)
	}
}

func (w *wire) Read(b []byte) (int, error) {
	if w.left <= 0 {
		return 0, errFlood
	}
	if len(b) > w.left {
		b = b[:w.left]
	}
	n, err := w.Conn.Read(b)
	w.left -= n
	if n > 0 {
		if !w.heard && !w.early.IsZero() {
			w.Conn.SetReadDeadline(w.until)
		}
		w.heard = true
		if room := 64 - len(w.head); room > 0 {
			w.head = append(w.head, b[:min(n, room)]...)
		}
	}
	return n, err
}
