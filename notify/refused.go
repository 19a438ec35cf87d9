package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
)

// Refused is an event that its destination will never take.
type Refused struct {
	ID       string
	Sequence uint64
	Kind     Kind
	Subject  string // NATS subject
	Reason   string // a sentence
}

// The files of refused events: how large one may get, and how many stay.
const (
	maxRefusedFile  = 1 << 20
	maxRefusedFiles = 8
)

// refuse keeps r durably in the journal's directory refused.
func (j *Journal) refuse(r record, why Refused) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	dir := filepath.Join(j.dir, "refused")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep refused event: %w", err)
	}
	line, err := json.Marshal(struct {
		At      time.Time       `json:"refused_at"`
		Reason  string          `json:"reason"`
		Subject string          `json:"nats_subject"`
		Event   json.RawMessage `json:"event"`
	}{instant(j.o.Now()), why.Reason, why.Subject, r.line})
	if err != nil {
		return fmt.Errorf("keep refused event: %w", err)
	}
	firsts, err := segmentFirsts(dir)
	if err != nil {
		return fmt.Errorf("keep refused event: %w", err)
	}
	first := r.seq
	if n := len(firsts); n > 0 {
		info, err := os.Stat(filepath.Join(dir, segmentName(firsts[n-1])))
		if err == nil && info.Size() < maxRefusedFile || firsts[n-1] >= r.seq {
			first = firsts[n-1]
		}
	}
	if err := appendLine(filepath.Join(dir, segmentName(first)), append(line, '\n')); err != nil {
		return fmt.Errorf("keep refused event: %w", err)
	}
	if !slices.Contains(firsts, first) {
		firsts = append(firsts, first)
	}
	var errs []error
	for _, old := range firsts[:max(0, len(firsts)-maxRefusedFiles)] {
		errs = append(errs, durable.Remove(filepath.Join(dir, segmentName(old))))
	}
	return errors.Join(append(errs, durable.SyncDir(dir))...)
}

// appendLine adds line to path durably, or nothing of it.
func appendLine(path string, line []byte) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(line, info.Size()); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, cutTo(f, info.Size()))
	}
	return nil
}
