package watch

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxSize bounds what is read of one file.
	maxSize = 1 << 20
	// maxTries bounds how often files are read again that change under the reader.
	maxTries = 3
	// racy is how old the last change of a file must be for its stat result to
	// stand for its content: FAT keeps times in steps of two seconds.
	racy = 2 * time.Second
	// rereadAfter bounds for how long a stat result is trusted all the same.
	rereadAfter = time.Hour
)

// Load reads a certificate file and its key, and judges them. Exactly one of
// the results is nil. With an empty key it is looked for beside the certificate
// (privkey.pem for fullchain.pem, X.key for X.crt, X.cer and X.pem), then in the
// same file; where there is none the pair's Key is KeyUnknown.
//
// At most 1 MiB of each file is read, and nothing but regular files is opened.
// The key itself is neither kept nor returned.
func Load(cert, key string) (*Pair, *Fault) {
	if cert == "" {
		return nil, newFault(Missing, "", "name the file that starts with the leaf, such as fullchain.pem", "no certificate file is named")
	}
	s := examine(newResolver(), cert, key, "", nil)
	if s.trouble != nil {
		return nil, systemFault(cert, s.trouble)
	}
	return s.pair, s.fault
}

// sight is what one look at a certificate file and its key found. Of pair,
// fault, trouble and reused exactly one is set, but that a fault may be reused.
type sight struct {
	kept
	pair    *Pair
	trouble error // nothing of the files: this process can open no more of them
	reused  bool  // the files are untouched: kept is the last look's, and pair nil

	steps  []step // the names that decide what would be seen
	cert   trail
	key    trail // zero when there is no key file
	newest int64 // latest change of the files and of the links to them
	around around
}

// kept is what is remembered of a sight for the next one.
type kept struct {
	certID ident
	keyID  ident
	readAt int64  // Unix ns; 0: not read, the next look must
	print  string // stands for all of a sound pair; empty: there is none
	fault  *Fault
}

// trusted reports whether a stat result that is the same still stands for the
// content.
func (k *kept) trusted(now time.Time) bool {
	age := now.UnixNano() - k.readAt
	return k.readAt != 0 && age >= 0 && age < int64(rereadAfter)
}

// examine looks at the files. before is the key path of the last sound sight of
// the same source, when the key was found and not configured: its going is a
// fault then. Files that are untouched since last are not read.
func examine(r *resolver, cert, key, before string, last *kept) *sight {
	var s *sight
	for try := 1; ; try++ {
		var again bool
		s, again = examineOnce(r, cert, key, before, last)
		if !again || try == maxTries {
			return s
		}
		last, r = nil, newResolver()
	}
}

// examineOnce reports whether the files were replaced while they were read.
func examineOnce(r *resolver, cert, key, before string, last *kept) (s *sight, again bool) {
	s = &sight{}
	if s.cert, s.certID, s.fault = find(r, cert); s.fault != nil {
		s.steps = s.cert.steps
		return s, false
	}
	s.steps = slices.Clone(s.cert.steps)
	s.newest = max(s.cert.newest, s.certID.newest())
	keyPath := key
	if key == "" {
		keyPath = s.findKey(r, cert)
	}
	var keyFault *Fault
	if keyPath != "" {
		s.key, s.keyID, keyFault = find(r, keyPath)
		s.steps = append(s.steps, s.key.steps...)
		s.newest = max(s.newest, s.key.newest, s.keyID.newest())
		if keyFault != nil && keyFault.Code == Missing {
			keyFault.Code = KeyMissing
			keyFault.Sentence = "the key " + keyFault.Sentence
		}
	}
	now := time.Now()
	if s.same(last, now) && keyFault == nil {
		s.kept, s.reused = *last, true
		return s, false
	}

	text, certID, fault, err := read(cert)
	if s.failed(fault, err) {
		return s, false
	}
	defer clear(text)
	blocks, fault := decode(cert, text)
	defer wipe(blocks)
	if fault != nil {
		s.fault = fault
		s.stamp(now, certID, keyFault)
		return s, replaced(cert, certID)
	}
	var keyBlocks []*pem.Block
	switch {
	case keyFault != nil:
	case keyPath != "" && s.keyID != s.certID: // not the inode alone: the number of a replaced file is used again
		keyText, _, fault, err := read(keyPath)
		if err != nil {
			s.trouble = err
			return s, false
		}
		defer clear(keyText)
		if keyFault = fault; fault == nil {
			keyBlocks, keyFault = decode(keyPath, keyText)
			defer wipe(keyBlocks)
		}
	case keyPath != "":
		keyBlocks = blocks
	case len(keysAmong(blocks)) > 0:
		keyPath, keyBlocks = cert, blocks
	case before != "":
		keyFault = newFault(KeyMissing, before, "write the key back", "the key %s was there before and is gone", show(before))
	}
	s.judge(r, cert, keyPath, blocks, keyBlocks, keyFault)
	s.stamp(now, certID, keyFault)
	return s, replaced(cert, certID) || s.fault != nil && s.key.real != "" && replaced(keyPath, s.keyID)
}

// replaced reports whether path is not any more what it was.
func replaced(path string, was ident) bool {
	now, err := stat(path)
	return err != nil || now != was
}

// find resolves path and refuses what is no regular file.
func find(r *resolver, path string) (trail, ident, *Fault) {
	t := r.walk(path)
	// The system's own answer counts: it follows /proc/PID/root, where reading
	// the link tells nothing.
	id, err := stat(path)
	if err != nil {
		if t.err == nil {
			t.err, t.at = err, path
		}
		return t, ident{}, t.fault(path)
	}
	if t.err != nil || t.id.inode != id.inode {
		t.real, t.id, t.err = path, id, nil
	}
	return t, id, notRegular(path, id)
}

func notRegular(path string, id ident) *Fault {
	what, code := "", NotRegular
	switch id.mode & unix.S_IFMT {
	case unix.S_IFREG:
		if id.size > maxSize {
			return newFault(TooLarge, path, "name the PEM file with the leaf and its chain", "%s has %d bytes, more than the 1 MiB that is read", show(path), id.size)
		}
		return nil
	case unix.S_IFDIR:
		what, code = "a directory", IsDirectory
	case unix.S_IFIFO:
		what = "a FIFO"
	case unix.S_IFSOCK:
		what = "a socket"
	default:
		what = "a device"
	}
	return newFault(code, path, "name a regular file or a link to one", "%s is %s, not a file", show(path), what)
}

// findKey returns the first key file beside cert that is there, and records the
// names whose appearance would change that.
func (s *sight) findKey(r *resolver, cert string) string {
	for _, path := range keysBeside(cert) {
		if _, err := lstat(path); err == nil {
			return path
		}
		t := r.walk(path)
		s.steps = append(s.steps, t.steps...)
	}
	return ""
}

// keysBeside returns where the key of cert may lie, the likelier path first.
func keysBeside(cert string) []string {
	var paths []string
	dir, base := filepath.Split(cert)
	if base == "fullchain.pem" {
		paths = append(paths, dir+"privkey.pem")
	}
	switch ext := filepath.Ext(base); ext {
	case ".crt", ".cer", ".pem":
		paths = append(paths, dir+strings.TrimSuffix(base, ext)+".key")
	}
	return paths
}

// same reports whether the files are untouched since they were last read.
func (s *sight) same(last *kept, now time.Time) bool {
	return last != nil && last.trusted(now) && s.certID == last.certID && s.keyID == last.keyID
}

// stamp lets the next look rely on stat, when that can tell a change.
func (s *sight) stamp(now time.Time, certID ident, keyFault *Fault) {
	if keyFault == nil && certID == s.certID && now.Sub(time.Unix(0, max(s.certID.newest(), s.keyID.newest()))) > racy {
		s.readAt = now.UnixNano()
	}
}

func (s *sight) failed(fault *Fault, err error) bool {
	s.fault, s.trouble = fault, err
	return fault != nil || err != nil
}

// judge sets pair or fault.
func (s *sight) judge(r *resolver, cert, keyPath string, blocks, keyBlocks []*pem.Block, keyFault *Fault) {
	chain, fault := chainOf(cert, blocks)
	if fault != nil {
		s.fault = fault
		if fault.Code == NoCertificate && len(keysAmong(blocks)) > 0 && slices.ContainsFunc(keyBlocks, isCertificate) && keyPath != cert {
			s.fault = newFault(Switched, cert, "exchange the two paths, or the two files", "certificate and key are switched: %s holds the key and %s the certificate",
				show(cert), show(keyPath))
		}
		return
	}
	if keyFault != nil {
		s.fault = keyFault
		return
	}
	pair := &Pair{CertPath: cert, Chain: chain, Key: KeyUnknown, Touch: []string{s.cert.real}}
	if keyPath == "" {
		if i := leafAt(chain); i > 0 {
			s.fault = leafNotFirst(cert, i)
			return
		}
	} else {
		key, fault := publicHalf(keyPath, keyBlocks)
		if fault == nil {
			fault = match(cert, keyPath, chain, key)
		}
		if fault != nil {
			s.fault = fault
			return
		}
		pair.Key, pair.KeyPath = KeyMatches, keyPath
		real, mode := s.cert.real, s.certID.mode
		if s.key.real != "" {
			real, mode = s.key.real, s.keyID.mode
		}
		if real != s.cert.real {
			pair.Touch = append(pair.Touch, real)
		}
		if r.openToAll(real, mode) {
			pair.Warnings = append(pair.Warnings, newFault(KeyReadable, keyPath, "chmod o-r "+show(real), "everyone on this host can read the key in %s", show(keyPath)))
		}
	}
	if f := disorder(cert, chain); f != nil {
		pair.Warnings = append(pair.Warnings, f)
	}
	s.pair = pair
	sum := sha256.New()
	for _, c := range chain {
		one := sha256.Sum256(c.Raw)
		sum.Write(one[:])
	}
	fmt.Fprintf(sum, "%s %q %q", pair.Key, pair.CertPath, pair.KeyPath)
	s.print = string(sum.Sum(nil)[:16])
}

// read returns the content of path, a regular file of at most maxSize bytes,
// and its stat result, both of the same moment where that can be had. An error
// says nothing of the file.
func read(path string) ([]byte, ident, *Fault, error) {
	for try := 1; ; try++ {
		data, before, after, err := readOnce(path)
		switch f := (*Fault)(nil); {
		case errors.As(err, &f):
			return nil, ident{}, f, nil
		case err != nil && exhausted(err):
			return nil, ident{}, nil, err
		case err != nil:
			return nil, ident{}, systemFault(path, err), nil
		case before == after || try == maxTries:
			return data, after, nil, nil
		}
		clear(data)
	}
}

func readOnce(path string) (data []byte, before, after ident, err error) {
	// Without O_NONBLOCK a FIFO that took the file's place since it was looked
	// at would hold us up until somebody writes to it.
	fd := -1
	for err = unix.EINTR; err == unix.EINTR; {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, before, after, err
	}
	defer unix.Close(fd)
	if before, err = fstat(fd); err != nil {
		return nil, before, after, err
	}
	if fault := notRegular(path, before); fault != nil {
		return nil, before, after, fault
	}
	// Enough from the start: growing leaves copies of a key behind, to be cleared.
	data = make([]byte, 0, before.size+1)
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			clear(data)
			return nil, before, after, err
		}
		data = data[:len(data)+n]
		if n == 0 || before.size > 0 && int64(len(data)) == before.size {
			break
		}
		if len(data) > maxSize {
			clear(data)
			return nil, before, after, newFault(TooLarge, path, "name the PEM file with the leaf and its chain", "%s has more than the 1 MiB that is read", show(path))
		}
		if len(data) == cap(data) {
			larger := append(make([]byte, 0, min(2*cap(data)+4096, maxSize+1)), data...)
			clear(data)
			data = larger
		}
	}
	after, err = fstat(fd)
	return data, before, after, err
}
