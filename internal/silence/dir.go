package silence

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Bounds of the directory. What is beyond them is a Fault and silences nothing.
const (
	// MaxSilences is how many files are read.
	MaxSilences = 1000
	// MaxFile is the largest file that is read, in bytes.
	MaxFile = 64 << 10
	// Kept is how long Sweep leaves a silence that has ended.
	Kept = 7 * 24 * time.Hour

	maxNames = 4 * MaxSilences // names of any kind that are looked at
	version  = 1               // of a file
	suffix   = ".json"
	subdir   = "silences"
)

// ErrUnknown is what End returns when there is no such silence.
var ErrUnknown = errors.New("there is no such silence")

// ErrFull is what Add returns when MaxSilences have not ended.
var ErrFull error = &Error{fmt.Sprintf("there are %d silences already, which is the most", MaxSilences), "end some of them; one can silence everything"}

// Dir is where the silences of one state directory are kept. Every method opens
// it anew, so that it may be made, emptied or put back at any time.
type Dir struct{ state string }

// In returns the silences of a state directory, which need not exist.
func In(stateDir string) Dir { return Dir{stateDir} }

// Fault says that a file in the directory silences nothing, though it should.
type Fault struct {
	Name     string // of the file, printable; "" is the directory
	Sentence string
	Hint     string
}

// String returns the name and the sentence.
func (f Fault) String() string {
	if f.Name == "" {
		return f.Sentence
	}
	return f.Name + ": " + f.Sentence
}

// file is what stands in a file.
type file struct {
	Version int `json:"version"`
	Silence
}

var idForm = regexp.MustCompile(`^[0-9a-z][0-9a-z_-]{0,31}$`)

// Add keeps a silence and returns it as it is kept, with its ID. Without a Since
// it begins now. ErrFull and any other *Error say why it is refused; another
// error, that it could not be written.
//
// The state directory is made where it is missing. Where there are too many,
// those that have ended make room. What root writes into another
// user's state directory belongs to that user, or the daemon could not read it.
func (d Dir) Add(s Silence) (Silence, error) {
	if s.Since.IsZero() {
		s.Since = time.Now()
	}
	s, err := s.normal()
	if err != nil {
		return Silence{}, err
	}
	root, err := d.create()
	if err != nil {
		return Silence{}, err
	}
	defer root.Close()
	names, _, err := list(root)
	if err == nil && len(names) >= MaxSilences {
		if _, err = sweep(root, time.Now(), 0); err == nil {
			names, _, err = list(root)
		}
	}
	if err != nil {
		return Silence{}, err
	}
	if len(names) >= MaxSilences {
		return Silence{}, ErrFull
	}
	for {
		var word [4]byte
		if _, err := rand.Read(word[:]); err != nil {
			return Silence{}, err
		}
		s.ID = hex.EncodeToString(word[:])
		if !slices.Contains(names, s.ID+suffix) {
			break
		}
	}
	data, err := json.Marshal(file{version, s})
	if err != nil {
		return Silence{}, err
	}
	return s, write(root, s.ID+suffix, append(data, '\n'))
}

// End removes a silence and returns it, or ErrUnknown. Of a file that cannot be
// understood only the ID is returned. It needs no room on the disk.
func (d Dir) End(id string) (Silence, error) {
	if !idForm.MatchString(id) {
		return Silence{}, ErrUnknown
	}
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		return Silence{}, ErrUnknown
	}
	if err != nil {
		return Silence{}, err
	}
	defer root.Close()
	s, fault := read(root, id+suffix)
	if fault != nil {
		s = Silence{ID: id}
	}
	err = root.Remove(id + suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return Silence{}, ErrUnknown
	}
	if err != nil {
		return Silence{}, err
	}
	return s, syncDir(root)
}

// List returns every silence that is kept, also those that have ended or not
// begun, the one that ends first first. A file that is no silence is a Fault. The
// error says that the directory cannot be read; that there is none is no error.
func (d Dir) List() ([]Silence, []Fault, error) {
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	names, whole, err := list(root)
	if err != nil {
		return nil, nil, err
	}
	var out []Silence
	var faults []Fault
	if !whole || len(names) > MaxSilences {
		faults = append(faults, Fault{Sentence: fmt.Sprintf("there are more than %d silences, and only %d are read", MaxSilences, MaxSilences), Hint: "end some of them"})
		names = names[:min(len(names), MaxSilences)]
	}
	for _, name := range names {
		s, fault := read(root, name)
		switch {
		case fault == nil:
			out = append(out, s)
		case fault.Sentence != "": // else it is gone meanwhile
			faults = append(faults, *fault)
		}
	}
	slices.SortFunc(out, func(a, b Silence) int { return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.ID, b.ID)) })
	return out, faults, nil
}

// Sweep removes the silences that ended longer than Kept before now, and what a
// crash left of one being written. Files it does not understand stay. Do not call
// it while the clock is in doubt.
func (d Dir) Sweep(now time.Time) (removed int, err error) {
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return sweep(root, now, Kept)
}

func sweep(root *os.Root, now time.Time, kept time.Duration) (removed int, err error) {
	names, err := readNames(root)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range names {
		switch {
		case isTemporary(name):
			info, err := root.Lstat(name)
			if err != nil || now.Sub(info.ModTime()) < time.Hour {
				continue
			}
		case isSilence(name):
			s, fault := read(root, name)
			if fault != nil || now.Sub(s.Until) < kept {
				continue
			}
		default:
			continue
		}
		switch err := root.Remove(name); {
		case err == nil:
			removed++
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	if removed > 0 {
		errs = append(errs, syncDir(root))
	}
	return removed, errors.Join(errs...)
}

// Signature is a value that differs when what List would return may differ. That
// time begins and ends silences is not seen in it.
type Signature [sha256.Size]byte

// Signature looks at the names, owners, modes, times and sizes of the files,
// without reading one.
func (d Dir) Signature() (Signature, error) {
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		return Signature{}, nil
	}
	if err != nil {
		return Signature{}, err
	}
	defer root.Close()
	names, whole, err := list(root)
	if err != nil {
		return Signature{}, err
	}
	h := sha256.New()
	b := fmt.Appendf(nil, "%v %d", whole, len(names))
	for _, name := range names {
		b = append(append(b, 0), name...)
		info, err := root.Lstat(name)
		if err != nil {
			continue // gone meanwhile: the next look sees it
		}
		b = binary.BigEndian.AppendUint64(b, uint64(info.ModTime().UnixNano()))
		b = binary.BigEndian.AppendUint64(b, uint64(info.Size()))
		b = binary.BigEndian.AppendUint32(b, uint32(info.Mode()))
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			b = binary.BigEndian.AppendUint64(b, uint64(st.Ino))
			b = binary.BigEndian.AppendUint32(b, st.Uid)
		}
		h.Write(b)
		b = b[:0]
	}
	h.Write(b)
	return Signature(h.Sum(nil)), nil
}

// open opens the directory. Nothing that stands in the state directory, which
// may be another user's, leads out of it.
func (d Dir) open() (*os.Root, error) {
	state, err := os.OpenRoot(d.state)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	return state.OpenRoot(subdir)
}

// create opens the directory and makes what is missing of it.
func (d Dir) create() (*os.Root, error) {
	root, err := d.open()
	if !errors.Is(err, fs.ErrNotExist) {
		return root, err
	}
	if err := os.MkdirAll(d.state, 0o700); err != nil {
		return nil, err
	}
	state, err := os.OpenRoot(d.state)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	if err := state.Mkdir(subdir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := syncDir(state); err != nil {
		return nil, err
	}
	if root, err = state.OpenRoot(subdir); err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err == nil {
		err = handOver(state, self)
		self.Close()
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// handOver gives f, made by root, to the owner of the directory it stands in.
func handOver(dir *os.Root, f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := dir.Stat(".")
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("the silence cannot be given to the user that the state directory belongs to (uid %d): %w", st.Uid, err)
	}
	return nil
}

// write makes a file that stands there whole or not at all, and whose owner is
// right before it has its name.
func write(root *os.Root, name string, data []byte) (err error) {
	temporary := "." + name + ".new"
	_ = root.Remove(temporary) // of a call that was killed; the name is random
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = root.Remove(temporary)
		}
	}()
	if err := handOver(root, f); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := root.Rename(temporary, name); err != nil {
		return err
	}
	return syncDir(root)
}

// syncDir makes the names in a directory durable.
func syncDir(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func isSilence(name string) bool {
	return strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".")
}

func isTemporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, suffix+".new")
}

// readNames returns the names in the directory, sorted; of a directory that
// somebody has filled only some.
func readNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// list returns the names of the files that should be silences, and whether these
// are all.
func list(dir *os.Root) (names []string, whole bool, err error) {
	names, err = readNames(dir)
	whole = len(names) < maxNames
	return slices.DeleteFunc(names, func(n string) bool { return !isSilence(n) }), whole, err
}

// read reads one file. A fault without a sentence: it is gone.
func read(dir *os.Root, name string) (Silence, *Fault) {
	wrong := func(hint, format string, args ...any) (Silence, *Fault) {
		return Silence{}, &Fault{cut(line(name), 64), fmt.Sprintf(format, args...), hint}
	}
	id := strings.TrimSuffix(name, suffix)
	remove := "write it anew, or remove it"
	if idForm.MatchString(id) {
		remove = "remove it with renewatch silence --end " + id
	} else {
		return wrong("give it a name of small letters and digits", "its name cannot be the ID of a silence")
	}
	before, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Silence{}, &Fault{}
	}
	if err != nil {
		return wrong("", "it cannot be looked at: %v", reason(err))
	}
	if !before.Mode().IsRegular() {
		return wrong(remove, "it is no regular file")
	}
	// Another may have taken its place: that must not block, and is not read.
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Silence{}, &Fault{}
	}
	if err != nil {
		return wrong("it must belong to the user the daemon runs as", "it cannot be read: %v", reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !os.SameFile(before, info) {
		return wrong("", "it changed while it was read")
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	switch {
	case err != nil:
		return wrong("", "it cannot be read: %v", reason(err))
	case len(data) > MaxFile:
		return wrong(remove, "it is larger than %d KiB", MaxFile>>10)
	}
	var in file
	if err := json.Unmarshal(data, &in); err != nil {
		return wrong(remove, "it does not hold a silence")
	}
	if in.Version > version {
		return wrong("run the newer renewatch", "it was written by a newer renewatch")
	}
	s, err := in.Silence.normal()
	if err != nil {
		return wrong(remove, "%v", err)
	}
	s.ID = id // the name is what --end takes, and a person may have copied the file
	return s, nil
}

// reason is an error without its path, which the fault names.
func reason(err error) error {
	var inner *fs.PathError
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}
