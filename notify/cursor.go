package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/renewatch/renewatch/internal/durable"
)

// cursor is how far a destination has got.
type cursor struct {
	path  string
	seq   uint64 // everything up to here is sent or given up
	saved uint64
	fresh bool // had no file yet
}

// maxSequence is beyond any number of events: what is larger is a broken file.
const maxSequence = 1 << 60

type cursorFile struct {
	Sequence uint64 `json:"sequence"`
}

func (c *cursor) save() error {
	if c.saved == c.seq && !c.fresh {
		return nil
	}
	b, err := json.Marshal(cursorFile{c.seq})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(c.path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write cursor: %w", err)
	}
	c.saved, c.fresh = c.seq, false
	return nil
}

// loadCursors reads the cursors of all destinations and deletes those of others:
// what is written while a destination is off counts as sent to it.
func (j *Journal) loadCursors() error {
	j.cursors = map[string]*cursor{}
	for _, name := range j.o.Destinations {
		if !lowerWord(name) {
			return fmt.Errorf("%q cannot name a destination", name)
		}
		c := &cursor{path: filepath.Join(j.dir, "cursor."+name+".json")}
		b, err := os.ReadFile(c.path)
		var f cursorFile
		switch {
		case errors.Is(err, os.ErrNotExist):
			c.fresh = true
		case err != nil:
			return err
		default:
			// A cursor that cannot be read stays at 0: rather everything once
			// more than an event never.
			err := json.Unmarshal(b, &f)
			if err == nil && f.Sequence > maxSequence {
				err = fmt.Errorf("%d is no sequence", f.Sequence)
				f = cursorFile{}
			}
			if err != nil {
				j.report.Err = fmt.Errorf("%s cannot be read, all kept events are sent again: %w", c.path, err)
			}
		}
		c.seq, c.saved = f.Sequence, f.Sequence
		j.cursors[name] = c
	}
	old, err := filepath.Glob(filepath.Join(j.dir, "cursor.*.json"))
	if err != nil {
		return err
	}
	for _, path := range old {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "cursor."), ".json")
		if !slices.Contains(j.o.Destinations, name) {
			if err := durable.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// alignCursors puts new cursors behind what is in the journal.
func (j *Journal) alignCursors() error {
	for _, c := range j.cursors {
		if c.fresh {
			c.seq = j.last
		}
		if err := c.save(); err != nil {
			return err
		}
	}
	return nil
}

// lowestCursor is up to where everything is sent everywhere.
func (j *Journal) lowestCursor() uint64 {
	lowest := uint64(1<<64 - 1)
	for _, c := range j.cursors {
		if !c.fresh {
			lowest = min(lowest, c.seq)
		}
	}
	return lowest
}

// sentTo is the sequence up to which destination name has everything.
func (j *Journal) sentTo(name string) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, ok := j.cursors[name]
	if !ok {
		return 0, fmt.Errorf("notify: the journal has no destination %q", name)
	}
	return c.seq, nil
}

// advance says that destination name has everything up to seq. Unless durably is
// set the cursor's file follows later: after a crash a few events go out twice.
func (j *Journal) advance(name string, seq uint64, durably bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, ok := j.cursors[name]
	if !ok {
		return fmt.Errorf("notify: the journal has no destination %q", name)
	}
	c.seq = max(c.seq, seq)
	defer j.gauge() // whoever sees that nothing waits finds it in the cursor's file
	if !durably {
		return nil
	}
	err := c.save()
	if err != nil {
		j.report.Err = err
	}
	return err
}
