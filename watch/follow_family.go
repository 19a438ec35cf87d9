package watch

import (
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kin is one file to which a log was rotated.
type kin struct {
	path   string
	log    string // of what
	number int    // log.1: the higher the older; -1: it has none
	stamp  string // log-20261122: the higher the newer
	zip    string // the ending that says how it is compressed
	id     ident
}

// zips are the endings of compressed files. Only the first is understood.
var zips = [...]string{".gz", ".xz", ".zst", ".bz2", ".lzma", ".Z"}

const gz = ".gz"

// maxKin bounds how many rotated files are looked at, the newest first.
const maxKin = 4096

// family lists what the log at path was rotated to, the newest first.
func family(path string) ([]kin, error) {
	dir, base := filepath.Split(path)
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []kin
	plain := make(map[string]bool)
	for _, name := range names {
		if k, ok := kinOf(name, base); ok {
			k.path, k.log = join(filepath.Clean(dir), name), path
			plain[k.path] = k.zip == ""
			all = append(all, k)
		}
	}
	// Beside the plain file a compressed one is only being made.
	all = slices.DeleteFunc(all, func(k kin) bool { return k.zip != "" && plain[strings.TrimSuffix(k.path, k.zip)] })
	numbers, stamps := true, true
	for _, k := range all {
		numbers = numbers && k.number >= 0
		stamps = stamps && k.number < 0 && len(k.stamp) == len(all[0].stamp)
	}
	slices.SortFunc(all, func(a, b kin) int {
		return cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(b.stamp, a.stamp), strings.Compare(a.path, b.path))
	})
	all = all[:min(len(all), maxKin)]
	files := all[:0]
	for _, k := range all {
		if k.id, err = lstat(k.path); err == nil && k.id.mode&unix.S_IFMT == unix.S_IFREG {
			files = append(files, k)
		}
	}
	all = files
	if !numbers && !stamps { // their names do not tell
		slices.SortStableFunc(all, func(a, b kin) int { return cmp.Compare(b.id.mtime, a.id.mtime) })
	}
	return all, nil
}

// kinOf reports whether a log of the name base can have been rotated to name.
func kinOf(name, base string) (k kin, ok bool) {
	for _, z := range zips {
		if rest, cut := strings.CutSuffix(name, z); cut {
			name, k.zip = rest, z
			break
		}
	}
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	var mid string
	if rest, cut := strings.CutPrefix(name, base); cut {
		mid = rest
	} else if rest, cut := strings.CutPrefix(name, stem); cut && stem != "" && ext != "" {
		if mid, cut = strings.CutSuffix(rest, ext); !cut {
			return k, false
		}
	}
	if len(mid) < 2 || !strings.ContainsRune(".-_", rune(mid[0])) {
		return k, false
	}
	mid = mid[1:]
	digits := strings.Trim(mid, "0123456789") == ""
	if n, err := strconv.Atoi(mid); err == nil && digits && len(mid) <= 6 {
		k.number = n
		return k, true
	}
	k.number = -1
	// 20261122, 20261122-070000, 2026-11-22T07-00-00.000, 1795364956
	if strings.Trim(mid, "0123456789-:.TZ_") != "" || len(mid) > 40 {
		return k, false
	}
	lead := strings.ReplaceAll(mid[:min(len(mid), 10)], "-", "")
	if len(lead) < 8 || strings.Trim(lead[:8], "0123456789") != "" {
		return k, false
	}
	k.stamp = mid
	return k, true
}

// sameKin reports whether nothing was rotated between two lists.
func sameKin(a, b []kin) bool {
	return slices.EqualFunc(a, b, func(x, y kin) bool { return x.path == y.path && x.id.inode == y.id.inode })
}

// open opens a rotated file for reading from its beginning; nil when it is not
// what was listed, or in a form that is not understood. An error says nothing of
// the file.
func (k *kin) open() (*source, error) {
	if k.zip != "" && k.zip != gz {
		return nil, nil
	}
	s, err := openSource(k.path)
	switch {
	case err != nil && exhausted(err):
		return nil, err
	case err != nil:
		return nil, nil
	}
	s.log = k.log
	if s.id.inode == k.id.inode && (k.zip == "" || s.unzip() == nil) {
		return s, nil
	}
	s.close()
	return nil, nil
}

// unzippedSize is how long the content of a gzip file says it is, modulo 1<<32.
func (s *source) unzippedSize() (uint32, bool) {
	id, err := s.stat()
	if err != nil || id.size < 18 {
		return 0, false
	}
	b, err := s.at(id.size-4, 4)
	if err != nil {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b), true
}
