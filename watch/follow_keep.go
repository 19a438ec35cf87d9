package watch

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// position is how far a log was read, as it is kept.
type position struct {
	Client acmelog.Client `json:"client"`
	File   string         `json:"file,omitempty"`
	Unit   string         `json:"unit,omitempty"`
	// Salt is drawn when the log is first followed.
	Salt string `json:"salt"`
	// Seen is when that was.
	Seen time.Time `json:"seen"`
	// Left is since when nobody follows it.
	Left time.Time `json:"left,omitzero"`
	// Read is when it was read last.
	Read time.Time `json:"read,omitzero"`

	// Of a file: which one it is, where it was, and up to where it was read. What
	// was before OldTo in the file OldGen when the log was first followed is old.
	Gen     int64  `json:"gen,omitempty"`
	Path    string `json:"path,omitempty"`
	Dev     uint64 `json:"dev,omitempty"`
	Ino     uint64 `json:"ino,omitempty"`
	Birth   int64  `json:"birth,omitempty"`
	Changed int64  `json:"changed,omitempty"`
	Offset  int64  `json:"offset,omitempty"`
	Head    sum    `json:"head,omitzero"`
	Tail    sum    `json:"tail,omitzero"`
	OldGen  int64  `json:"old_gen,omitempty"`
	OldTo   int64  `json:"old_to,omitempty"`

	// Of a unit: the last entry of the journal that need not be read again.
	Cursor string    `json:"cursor,omitempty"`
	At     time.Time `json:"at,omitzero"`

	// Of a document: what was told of it, by ID.
	Told map[string]string `json:"told,omitempty"`
}

func (p *position) log() Log { return Log{p.Client, p.File, p.Unit} }

func (p *position) identity() identity { return identity{inode{p.Dev, p.Ino}, p.Birth} }

// maxPosition bounds the file of a position.
const maxPosition = 256 << 10

// positionPath is where the position of a log is kept.
func positionPath(dir string, l Log) string {
	h := sha256.Sum256([]byte(string(l.Client) + "\x00" + l.File + "\x00" + l.Unit))
	return filepath.Join(dir, hex.EncodeToString(h[:12])+".json")
}

// loadPosition returns the position of a log; nil when it was not followed yet, or
// when that is not to be made out.
func loadPosition(path string) *position {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPosition))
	var p position
	if err != nil || json.Unmarshal(b, &p) != nil || p.Salt == "" || p.Offset < 0 || p.Gen < 0 {
		return nil
	}
	return &p
}

func newPosition(l Log, now time.Time) *position {
	return &position{Client: l.Client, File: l.File, Unit: l.Unit, Salt: rand.Text(), Seen: now}
}

func (p *position) save(dir string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(positionPath(dir, p.log()), append(b, '\n'), 0o600)
}

// sweep removes the positions of logs that nobody has followed for long, and
// notes since when others are not.
func sweep(dir string, followed map[Log]bool, now time.Time) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		if strings.HasPrefix(name, ".") && strings.Contains(name, ".json.tmp-") {
			// A kill left it: nothing writes while this runs.
			_ = os.Remove(path)
			continue
		}
		if !strings.HasSuffix(name, ".json") || !e.Type().IsRegular() {
			continue
		}
		p := loadPosition(path)
		switch {
		case p == nil || followed[p.log()] || path != positionPath(dir, p.log()):
		case p.Left.IsZero() || p.Left.After(now):
			p.Left = now
			_ = p.save(dir)
		case now.Sub(p.Left) >= keepPosition:
			_ = durable.Remove(path)
		}
	}
}
