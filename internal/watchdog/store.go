package watchdog

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
)

// maxStateFile bounds what is read of one state file.
const maxStateFile = 8 << 20

func (k *Keeper) statePath(name string) string {
	return filepath.Join("certificates", notify.Token(name)+".json")
}

// readState reads what is remembered of a certificate. A file that cannot be
// understood is put aside, never overwritten.
func (k *Keeper) readState(name string) (State, error) {
	path := k.statePath(name)
	var s State
	err := k.files.read(path, &s)
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
	return State{}, errors.Join(err, k.files.putAside(path))
}

// sound says what a state from disk lacks that Step relies on.
func (s *State) sound() error {
	switch s.Standing {
	case Unknown:
		if s.Disk != nil || s.Story != nil {
			return errors.New("it holds a certificate that was never sound")
		}
	case Open, Verified, Failed, Lost, Unverified, Reverted, Removed:
		if s.Disk == nil || s.Story == nil {
			return fmt.Errorf("it is %s without a certificate or a story", s.Standing)
		}
	default:
		return fmt.Errorf("its standing %q is not known", s.Standing)
	}
	if a := s.Alert; a != nil && a.Level != "" && (a.ID == "" || !slices.Contains([]notify.Severity{notify.Warning, notify.Error, notify.Critical}, a.Level)) {
		return errors.New("what it tells of its alert cannot be")
	}
	if a := s.Alert; a != nil && (a.Good.N < 0 || a.Bad[0].N < 0 || a.Bad[1].N < 0 || a.Bad[2].N < 0) {
		return errors.New("its alert has counted backwards")
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
	return k.eachState(func(path string, s State) error {
		if s.Version > StateVersion {
			return fmt.Errorf("%s: %w (version %d, this one knows %d)", path, ErrNewerState, s.Version, StateVersion)
		}
		return nil
	})
}

// eachState calls f for every state that can be read.
func (k *Keeper) eachState(f func(path string, s State) error) error {
	paths, err := k.files.list("certificates")
	if err != nil {
		return err
	}
	for _, path := range paths {
		var s State
		if k.files.read(path, &s) != nil {
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

const (
	writeEvery = time.Second            // how often states that promise nothing are written
	someWrites = 100 * time.Millisecond // for so long
	lastWrites = 4 * time.Second        // at the end, for so long
)

// promises reports whether a state must be on disk before anything is done: it
// decides events, or something that costs, or takes in how that ended. What else
// a kill may take is found out again.
func promises(in Input, next State, cmds []Command) bool {
	return len(next.Outbox) > 0 || in.Reload != nil || in.Removed || in.Left ||
		slices.ContainsFunc(cmds, func(c Command) bool { _, probe := c.(Probe); return !probe })
}

// sameMemory reports whether two states differ only in what a start finds out
// again: when and what was looked at last.
func sameMemory(a, b State) bool {
	for _, s := range []*State{&a, &b} {
		s.Probe, s.NextProbe, s.Checked, s.Findings, s.Rounds = nil, time.Time{}, time.Time{}, nil, 0
		s.Fresh, s.Sighted, s.Judged = false, false, time.Time{}
	}
	return reflect.DeepEqual(a, b)
}

// writeDirty writes the states that promise nothing, as far as it gets.
func (k *Keeper) writeDirty(within time.Duration) {
	end := k.clock.Now().Add(within)
	for name, c := range k.dirty {
		if err := k.write(c, c.state); err != nil {
			k.agent.raise("state", "the state directory cannot be written: "+err.Error(), "is the disk full?")
			return
		}
		delete(k.dirty, name)
		if k.clock.Now().After(end) {
			return
		}
	}
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
	if err := k.files.write(k.statePath(c.policy.Name), data); err != nil {
		return err
	}
	c.written = sum
	if k.dirty[c.policy.Name] == c {
		delete(k.dirty, c.policy.Name)
	}
	k.agent.clear("state")
	if s.Standing != Unknown {
		k.agent.clear("state:" + s.Name)
	}
	return nil
}

// resumeGlobs takes up the certificates that a glob had found before, so that
// one that was deleted meanwhile is said.
func (k *Keeper) resumeGlobs() {
	_ = k.eachState(func(_ string, s State) error {
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

// leave brings what is remembered of certificates that are not configured any
// more to its end.
func (k *Keeper) leave() {
	_ = k.eachState(func(_ string, s State) error {
		open := s.Story != nil && !s.Story.ended() || s.Alert != nil && s.Alert.Level != ""
		if k.certs[s.Name] != nil || !open || s.Version > StateVersion || s.sound() != nil || k.claimed(s) {
			return nil
		}
		c := &cert{path: "", state: s, conf: &Certificate{}}
		c.policy = Policy{Name: s.Name, Host: k.o.Host, Instance: k.o.Instance}
		k.flush(c)
		k.apply(c, Input{Left: true})
		k.names.remove(s.Name)
		return nil
	})
}

// claimed reports whether a glob may yet find the certificate of a state.
func (k *Keeper) claimed(s State) bool {
	return slices.ContainsFunc(k.setup.Certificates, func(c Certificate) bool {
		path := ""
		if s.Disk != nil {
			path = s.Disk.Leaf.Path
		} else if s.Fault != nil {
			path = s.Fault.Path // it was never sound; the glob finds it while its directory stands
			if _, err := os.Lstat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
				return false
			}
		}
		ok, _ := filepath.Match(c.Source.Cert, path)
		return ok && c.Source.Name == ""
	})
}

// seenOf turns a sound observation into what Step takes in.
func (k *Keeper) seenOf(c *cert, o watch.Observation) *Seen {
	leaf := Describe(o.Pair.Leaf())
	leaf.Name, leaf.Path = c.policy.Name, o.Pair.CertPath
	in := &Seen{Leaf: leaf, Since: o.Since, Facts: k.facts(c.conf, o.Pair, nil)}
	for _, x := range o.Pair.Chain {
		in.Chain = append(in.Chain, NewDER(x.Raw))
	}
	for _, h := range o.History {
		d := Describe(h)
		in.History = append(in.History, Known{d.SHA256, d.NotBefore})
	}
	return in
}
