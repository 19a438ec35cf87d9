package watchdog

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// maxStateFile bounds what is read of one state file.
const maxStateFile = 8 << 20

func (k *Keeper) statePath(name string) string {
	return filepath.Join(k.o.StateDir, "certificates", notify.Token(name)+".json")
}

// readState reads what is remembered of a certificate. A file that cannot be
// understood is put aside, never overwritten.
func (k *Keeper) readState(name string) (State, error) {
	path := k.statePath(name)
	var s State
	err := readJSON(path, &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return State{}, nil
	case err == nil && s.Name != name:
		err = fmt.Errorf("it tells of %q", s.Name)
	case err == nil:
		if err = s.sound(); err == nil {
			return s, nil
		}
	}
	return State{}, errors.Join(err, putAside(path))
}

// putAside keeps a file that cannot be understood, for a person to look at.
func putAside(path string) error {
	err := os.Rename(path, fmt.Sprintf("%s.unreadable-%d", path, time.Now().Unix()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sound says what a state from disk lacks that Step relies on.
func (s *State) sound() error {
	switch s.Standing {
	case Unknown:
	case Open, Verified, Failed, Lost, Unverified, Reverted, Removed:
		if s.Disk == nil || s.Story == nil {
			return fmt.Errorf("it is %s without a certificate or a story", s.Standing)
		}
	default:
		return fmt.Errorf("its standing %q is not known", s.Standing)
	}
	if s.Rechecks < 0 {
		return errors.New("it has counted backwards")
	}
	if s.Story != nil {
		for name, r := range s.Story.Servers {
			if r == nil || r.Attempts < 0 {
				return fmt.Errorf("what it tells of the server %q cannot be", name)
			}
		}
	}
	return nil
}

// checkStates refuses a directory that a newer version wrote.
func (k *Keeper) checkStates() error {
	return eachState(k.o.StateDir, func(path string, s State) error {
		if s.Version > StateVersion {
			return fmt.Errorf("%s: %w (version %d, this one knows %d)", path, ErrNewerState, s.Version, StateVersion)
		}
		return nil
	})
}

// eachState calls f for every state that can be read.
func eachState(dir string, f func(path string, s State) error) error {
	paths, err := filepath.Glob(filepath.Join(globEscape(dir), "certificates", "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		var s State
		if readJSON(path, &s) != nil {
			continue
		}
		if err := f(path, s); err != nil {
			return err
		}
	}
	return nil
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxStateFile {
		return fmt.Errorf("%s is larger than %d bytes", path, maxStateFile)
	}
	return json.NewDecoder(f).Decode(v)
}

// write makes a state durable, unless it stands there already.
func (k *Keeper) write(c *cert, s State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if sum == c.written {
		return nil
	}
	if err := durable.WriteFile(k.statePath(c.policy.Name), data, 0o600); err != nil {
		return err
	}
	c.written = sum
	k.agent.clear("state")
	if s.Standing != Unknown {
		k.agent.clear("state:" + s.Name)
	}
	return nil
}

// resumeGlobs takes up the certificates that a glob had found before, so that
// one that was deleted meanwhile is said.
func (k *Keeper) resumeGlobs() {
	_ = eachState(k.o.StateDir, func(_ string, s State) error {
		if k.certs[s.Name] != nil || s.Disk == nil || s.Standing == Removed {
			return nil
		}
		for i := range k.setup.Certificates {
			conf := &k.setup.Certificates[i]
			if conf.Source.Name != "" {
				continue
			}
			if ok, _ := filepath.Match(conf.Source.Cert, s.Disk.Leaf.Path); !ok {
				continue
			}
			c := k.load(conf, s.Name, s.Disk.Leaf.Path)
			dir := filepath.Dir(s.Disk.Leaf.Path)
			_, gone := os.Lstat(dir)
			_, above := os.Lstat(filepath.Dir(dir))
			if errors.Is(gone, fs.ErrNotExist) && above == nil { // else it may not be mounted yet
				k.apply(c, Input{Removed: true})
			}
			break
		}
		return nil
	})
}

// seenOf turns a sound observation into what Step takes in.
func (k *Keeper) seenOf(c *cert, o watch.Observation) *Seen {
	leaf := Describe(o.Pair.Leaf())
	leaf.Name, leaf.Path = c.policy.Name, o.Pair.CertPath
	in := &Seen{Leaf: leaf, Since: o.Since, Facts: k.facts(c.conf, o.Pair, nil)}
	for _, x := range o.Pair.Chain {
		in.Chain = append(in.Chain, bytes.Clone(x.Raw))
	}
	for _, h := range o.History {
		d := Describe(h)
		in.History = append(in.History, Known{d.SHA256, d.NotBefore})
	}
	return in
}
