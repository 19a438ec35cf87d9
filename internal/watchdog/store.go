package watchdog

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
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
			s.share(name)
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
	paths, err := k.files.list("certificates")
	if err != nil {
		return err
	}
	for _, path := range paths {
		var s struct {
			Version int `json:"version"`
		}
		if k.files.read(path, &s) == nil && s.Version > StateVersion {
			return fmt.Errorf("%s: %w (version %d, this one knows %d)", path, ErrNewerState, s.Version, StateVersion)
		}
	}
	return nil
}

// eachOther calls f for every state that can be read and is of no certificate that
// is kept.
func (k *Keeper) eachOther(f func(s State)) {
	paths, err := k.files.list("certificates")
	if err != nil || len(paths) == 0 {
		return
	}
	kept := make(map[string]bool, len(k.certs))
	for name := range k.certs {
		kept[k.statePath(name)] = true
	}
	for _, path := range paths {
		var s State
		if !kept[path] && k.files.read(path, &s) == nil && k.certs[s.Name] == nil {
			f(s)
		}
	}
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
	text := make([]byte, info.Size())
	if _, err := io.ReadFull(f, text); err != nil {
		return err
	}
	return json.Unmarshal(text, v)
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
		in.Told != nil && in.Told.Attempt.Outcome != string(acmelog.Skipped) ||
		slices.ContainsFunc(cmds, func(c Command) bool { _, probe := c.(Probe); return !probe })
}

// sameMemory reports whether two states differ only in what a start finds out
// again: when and what was looked at last.
func sameMemory(a, b State) bool {
	for _, s := range []*State{&a, &b} {
		s.Probe, s.NextProbe, s.Checked, s.Findings, s.Rounds = nil, time.Time{}, time.Time{}, nil, 0
		s.Fresh, s.Sighted, s.Judged, s.Listening = false, false, time.Time{}, time.Time{}
	}
	return reflect.DeepEqual(a, b)
}

// writeDirty writes the states that promise nothing, as far as it gets.
func (k *Keeper) writeDirty(within time.Duration) {
	end := k.clock.Now().Add(within)
	for len(k.dirty) > 0 {
		some := make([]*decided, 0, min(len(k.dirty), maxTogether))
		for _, c := range k.dirty {
			if some = append(some, &decided{c: c, next: c.state}); len(some) == maxTogether {
				break
			}
		}
		k.writeAll(some)
		for _, d := range some {
			if d.err != nil {
				k.agent.raise("state", "the state directory cannot be written: "+d.err.Error(), "is the disk full?")
				return
			}
			k.dirty = without(k.dirty, d.c.policy.Name)
		}
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
	k.wrote(c, s, sum)
	return nil
}

// wrote notes that a state is on disk.
func (k *Keeper) wrote(c *cert, s State, sum [32]byte) {
	c.written = sum
	if k.dirty[c.policy.Name] == c {
		k.dirty = without(k.dirty, c.policy.Name)
	}
	k.agent.clear("state")
	if s.Standing != Unknown {
		k.agent.clear("state:" + s.Name)
	}
}

// resumeGlobs takes up the certificates that a glob had found before, so that
// one that was deleted meanwhile is said.
func (k *Keeper) resumeGlobs() {
	k.eachOther(func(s State) {
		if s.Disk == nil || s.Standing == Removed {
			return
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
	})
}

// leave brings what is remembered of certificates that are not configured any
// more to its end.
func (k *Keeper) leave() {
	k.eachOther(func(s State) {
		open := s.Story != nil && !s.Story.ended() || s.Alert != nil && s.Alert.Level != ""
		if !open || s.Version > StateVersion || s.sound() != nil || k.claimed(s) {
			return
		}
		c := &cert{path: "", state: s, conf: &Certificate{}}
		c.policy = Policy{Name: s.Name, Host: k.o.Host, Instance: k.o.Instance}
		k.flush(c)
		k.apply(c, Input{Left: true})
		k.names.remove(s.Name)
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
	if d := c.state.Disk; d != nil {
		share(&leaf, d.Leaf)
	}
	leaf.Issuer = unique.Make(leaf.Issuer).Value()
	in := &Seen{Leaf: leaf, Since: o.Since, Facts: k.facts(c.conf, o.Pair, nil)}
	same(&in.Facts.SHA256, leaf.SHA256)
	for _, x := range o.Pair.Chain {
		in.Chain = append(in.Chain, NewDER(x.Raw))
	}
	for _, h := range o.History {
		d := Describe(h)
		in.History = append(in.History, Known{d.SHA256, d.NotBefore})
	}
	return in
}
