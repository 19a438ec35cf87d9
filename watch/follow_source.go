package watch

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// printSize bounds what a file is recognised by: so much of its beginning, and
	// as much before the place up to which it was read.
	printSize = 1 << 10
	// maxTail bounds a line: what is longer is cut off. It is more than any
	// dialect looks at.
	maxTail = 256<<10 + 1
	// readSize is how much is read of a file at once.
	readSize = 256 << 10
	// maxUnzipped bounds what is read of a compressed log.
	maxUnzipped = 4 << 30
)

// identity tells one file from every other one, in memory and on disk.
type identity struct {
	inode
	birth int64 // when it was made, Unix ns; 0: the file system does not say
}

// same reports whether it is the same file. Its number alone is given again; that
// of its device changes at boot.
func (a identity) same(b identity) bool {
	return a.ino == b.ino && a.birth == b.birth && (a.dev == b.dev || a.birth != 0)
}

// source is one file from which a log is read.
type source struct {
	path  string
	log   string // the path of the log of which it is or was a part, without links
	file  *os.File
	zip   *gzip.Reader // nil: the file is plain
	id    identity
	gen   int64  // the how-manieth of its log
	off   int64  // up to where it was read
	part  []byte // a line, the last one, whose end was not seen; it ends at off
	skip  bool   // the rest of a line is passed over
	holes bool   // NUL bytes are passed over: its writer kept its place when the file was cut off
	cut   bool   // it was cut off before, and is read from its beginning again
	doubt bool   // what was written before it may be lost
	head  []byte // of the file
	tail  []byte // before off
	// size and changed are as they were when it was read last.
	size    int64
	changed int64     // Unix ns
	read    time.Time // when that was
	left    time.Time // since when another one is followed
}

// openSource opens a regular file and nothing else, without ever waiting for
// somebody, and without waking a device.
func openSource(path string) (*source, error) {
	pin, err := openFile(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pin)
	id, err := fstat(pin)
	if err != nil {
		return nil, err
	}
	if f := notRegularLog(path, id); f != nil {
		return nil, f
	}
	fd, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	if id, err = fstat(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if f := notRegularLog(path, id); f != nil {
		unix.Close(fd)
		return nil, f
	}
	s := &source{path: path, log: path, id: identityOf(fd, id), size: id.size, changed: id.mtime, holes: true}
	_ = unix.SetNonblock(fd, false) // it only was for the opening
	s.file = os.NewFile(uintptr(fd), path)
	return s, nil
}

func openFile(path string, flags int) (fd int, err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0)
	}
	return fd, err
}

// identityOf adds when the file was made, where the system knows.
func identityOf(fd int, id ident) identity {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return identity{inode: id.inode}
	}
	return identity{id.inode, st.Btime.Sec*1e9 + int64(st.Btime.Nsec)}
}

// notRegularLog says what is no file.
func notRegularLog(path string, id ident) *Fault {
	id.size = 0
	f := notRegular(path, id)
	if f != nil {
		f.Hint = "name the file that the ACME client writes"
	}
	return f
}

func (s *source) close() {
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.zip = nil, nil
}

// stat is the file's present state.
func (s *source) stat() (ident, error) { return fstat(int(s.file.Fd())) }

// unzip makes a source read what a compressed file holds.
func (s *source) unzip() (err error) {
	if _, err = s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s.zip, err = gzip.NewReader(s.file)
	return err
}

// next reads what follows, at most len(buf) bytes. A plain file can grow after
// io.EOF.
func (s *source) next(buf []byte) (int, error) {
	if s.zip == nil {
		return s.file.ReadAt(buf, s.off)
	}
	if s.off >= maxUnzipped {
		return 0, io.EOF
	}
	return s.zip.Read(buf)
}

// start makes the source go on at off, or at the next line when that is in the
// middle of one.
func (s *source) start(off int64) error {
	s.off, s.part, s.skip, s.holes = off, nil, false, off == 0
	s.head, s.tail = nil, nil
	if off == 0 && s.zip != nil {
		return s.unzip()
	} else if off == 0 {
		return nil
	}
	var err error
	if s.zip == nil {
		if s.head, err = s.at(0, min(off, printSize)); err == nil {
			s.tail, err = s.at(max(0, off-printSize), min(off, printSize))
		}
	} else if err = s.unzip(); err == nil {
		s.head, s.tail, err = pass(s.zip, off)
	}
	if err != nil {
		return err
	}
	s.skip = s.tail[len(s.tail)-1] != '\n'
	return nil
}

// at reads a piece of a plain file.
func (s *source) at(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := s.file.ReadAt(b, off); err != nil {
		return nil, err
	}
	return b, nil
}

// beginning is what a plain file now begins with.
func (s *source) beginning() []byte {
	b := make([]byte, printSize)
	n, _ := s.file.ReadAt(b, 0)
	return b[:n]
}

// pass reads n bytes and returns the first and the last of them.
func pass(r io.Reader, n int64) (head, tail []byte, err error) {
	head = make([]byte, min(n, printSize))
	if _, err = io.ReadFull(r, head); err != nil {
		return nil, nil, err
	}
	if n <= 2*printSize {
		all := append(head, make([]byte, n-int64(len(head)))...)
		_, err = io.ReadFull(r, all[len(head):])
		return head, bytes.Clone(all[max(0, n-printSize):]), err
	}
	if _, err = io.CopyN(io.Discard, r, n-2*printSize); err != nil {
		return nil, nil, err
	}
	tail = make([]byte, printSize)
	_, err = io.ReadFull(r, tail)
	return head, tail, err
}

// intact reports whether the file still has what was read of it.
func (s *source) intact(id ident) bool {
	if s.zip != nil {
		return true
	}
	if id.size < s.off {
		return false
	}
	var buf [printSize]byte
	for _, p := range []struct {
		was []byte
		off int64
	}{{s.head, 0}, {s.tail, s.off - int64(len(s.tail))}} {
		b := buf[:len(p.was)]
		if _, err := s.file.ReadAt(b, p.off); err != nil || !bytes.Equal(b, p.was) {
			return false
		}
	}
	return true
}

// remember notes what was read for intact.
func (s *source) remember(b []byte) {
	if s.off < printSize && int64(len(s.head)) == s.off {
		s.head = append(s.head, b[:min(len(b), printSize-len(s.head))]...)
	}
	if len(b) >= printSize {
		s.tail = append(s.tail[:0], b[len(b)-printSize:]...)
	} else {
		over := max(0, len(s.tail)+len(b)-printSize)
		s.tail = append(s.tail[:copy(s.tail, s.tail[over:])], b...)
	}
	s.off += int64(len(b))
}

// handOver lets o, which has the same content, go on where s stands.
func (s *source) handOver(o *source) {
	o.gen, o.part, o.skip, o.holes = s.gen, s.part, s.skip, s.holes
	s.part, s.skip = nil, false
}

// take takes in what was read: say gets whole lines and where they stand.
func (s *source) take(b []byte, say func(text []byte, off int64)) {
	begin := s.off // of b
	s.remember(b)
	rest := b
	at := func() int64 { return begin + int64(len(b)-len(rest)) }
	if s.holes {
		rest = bytes.TrimLeft(rest, "\x00")
		if len(rest) == 0 {
			return
		}
		s.holes = false
	}
	for len(rest) > 0 {
		if s.skip {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				return
			}
			rest, s.skip = rest[i+1:], false
			continue
		}
		if len(s.part) == 0 {
			if i := bytes.LastIndexByte(rest, '\n'); i >= 0 {
				say(rest[:i+1], at())
				rest = rest[i+1:]
				continue
			}
		}
		i := bytes.IndexByte(rest, '\n')
		lineAt := at() - int64(len(s.part))
		n := len(rest)
		if i >= 0 {
			n = i + 1
		}
		n = min(n, maxTail-len(s.part))
		s.part = append(s.part, rest[:n]...)
		rest = rest[n:]
		switch {
		case s.part[len(s.part)-1] == '\n':
			say(s.part, lineAt)
			s.drop()
		case len(s.part) >= maxTail:
			say(append(s.part, '\n'), lineAt)
			s.drop()
			s.skip = true
		}
	}
}

func (s *source) drop() {
	if s.part = s.part[:0]; cap(s.part) > 16<<10 {
		s.part = nil
	}
}

// finish hands over a last line without an end.
func (s *source) finish(say func(text []byte, off int64)) {
	if len(s.part) > 0 {
		say(append(s.part, '\n'), s.off-int64(len(s.part)))
	}
	s.part, s.skip = nil, false
}

// again is the same file from its beginning, after it was cut off. s is over.
func (s *source) again() *source {
	o := &source{path: s.path, log: s.log, file: s.file, id: s.id, cut: true, holes: true, read: s.read}
	s.file = nil
	if at := o.dataFrom(); at > 0 {
		if o.start(at) != nil {
			_ = o.start(0) // reads nothing
		}
		o.skip, o.holes = false, true
	}
	return o
}

// dataFrom is where the file has something else than a hole.
func (s *source) dataFrom() int64 {
	off, err := unix.Seek(int(s.file.Fd()), 0, unix.SEEK_DATA)
	if err != nil {
		return 0
	}
	return off
}

// sum is a fingerprint as it is kept.
type sum struct {
	Len int    `json:"len"`
	Sum string `json:"sum"`
}

func sumOf(b []byte) sum {
	h := sha256.Sum256(b)
	return sum{len(b), hex.EncodeToString(h[:])}
}

// matches reports whether the file may be the one of which so much was read: its
// beginning is, and what stands before off. An empty print matches nothing. The
// source then stands at off, else at its beginning.
func (s *source) matches(head, tail sum, off int64) bool {
	if head.Len == 0 || off <= 0 || head.Len > printSize || tail.Len > printSize || int64(head.Len) > off || int64(tail.Len) > off {
		return false
	}
	if s.zip == nil {
		if id, err := s.stat(); err != nil || id.size < off {
			return false
		}
	} else if b := make([]byte, head.Len); s.unzip() != nil {
		return false
	} else if _, err := io.ReadFull(s.zip, b); err != nil || sumOf(b) != head {
		return false
	}
	if s.start(off) == nil && len(s.head) >= head.Len && sumOf(s.head[:head.Len]) == head &&
		len(s.tail) >= tail.Len && (tail.Len == 0 || sumOf(s.tail[len(s.tail)-tail.Len:]) == tail) {
		return true
	}
	_ = s.start(0)
	return false
}
