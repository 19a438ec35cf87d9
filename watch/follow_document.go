package watch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"strconv"
	"time"

	"github.com/renewatch/renewatch/watch/acmelog"
)

// document is a log that its writer replaces as a whole. What is told of it is
// what has changed.
type document struct {
	id      ident // when it was read last
	running bool  // an attempt goes on
	// told is what was, by ID; it is kept with the position.
	told map[string]string
}

// maxTold bounds what is remembered of a document.
const maxTold = 512

// readDocument reads the whole file, as it was at one moment.
func readDocument(path string) (text []byte, id ident, err error) {
	for range maxTries {
		s, err := openSource(path)
		if err != nil {
			return nil, id, err
		}
		before, _ := s.stat()
		text, err = io.ReadAll(io.NewSectionReader(s.file, 0, maxSize+1))
		id, _ = s.stat()
		s.close()
		if err != nil {
			return nil, id, err
		}
		if before == id {
			break
		}
	}
	if len(text) > maxSize {
		return nil, id, newFault(TooLarge, path, "name the file that the ACME client writes", "%s has more than the 1 MiB that is read", show(path))
	}
	return text, id, nil
}

// document reads a document that may have changed.
func (t *tail) document(path string, id ident) {
	d := t.doc
	now := time.Now()
	if id == d.id && !d.running && now.Sub(time.Unix(0, id.newest())) > racy {
		t.tellBlind(nil)
		return
	}
	text, id, err := readDocument(path)
	if err != nil {
		if f := openFault(t.log.File, err); !f.Absent() {
			t.tellBlind(f)
		}
		return
	}
	t.tellBlind(nil)
	e := t.w.f.listen(t.log)
	e.Arrived(t.arrived(id))
	e.Write(text) //nolint:errcheck // never fails
	e.Flush()
	e.Stall(t.w.now())
	attempts := e.Take()
	d.id, d.running = id, false
	if len(attempts) == 0 {
		return // it may be half written
	}
	first := t.kept.Gen == 0 && (!t.missed || id.newest() < t.kept.Seen.UnixNano())
	seen := make(map[string]string, len(attempts))
	times := make(map[string]int)
	var heard []Heard
	for _, a := range attempts[max(0, len(attempts)-maxTold):] {
		d.running = d.running || a.Outcome == acmelog.Running
		at := "document " + a.Lineage + " " + strconv.FormatInt(a.Started.UnixNano(), 10)
		key := t.h.idOf(at, times[at])
		times[at]++
		seen[key] = sumOfAttempt(&a)
		if d.told[key] != seen[key] {
			heard = append(heard, Heard{Log: t.log, Kind: Attempted, Attempt: &a, ID: key, Time: t.w.now(), Old: first})
		}
	}
	if first && len(heard) > 0 {
		heard = heard[len(heard)-1:]
	}
	if d.running {
		t.soon(min(t.w.f.o.Poll, time.Minute))
	}
	if maps.Equal(seen, d.told) {
		return
	}
	d.told = seen
	t.tell(heard)
	t.moved()
}

// sumOfAttempt changes with everything that is told of an attempt.
func sumOfAttempt(a *acmelog.Attempt) string {
	b, _ := json.Marshal(a)
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// saveDocument writes down what was told.
func (t *tail) saveDocument() error {
	if t.doc.told == nil || maps.Equal(t.doc.told, t.kept.Told) {
		return nil
	}
	p := *t.kept
	p.Read, p.Left, p.Gen, p.Path, p.Told = time.Now(), time.Time{}, 1, t.log.File, t.doc.told
	return t.keep(&p)
}
