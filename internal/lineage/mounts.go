package lineage

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Warning is something that a person should know before a renewal comes.
type Warning struct {
	Path     string // the certificate
	Sentence string // what is wrong, without a full stop
	Hint     string // what to do
}

// BoundFile warns of a file that is a mount point itself, as docker -v FILE:FILE,
// a Kubernetes subPath and ReadWritePaths=FILE make it. Such a mount shows the
// inode that lay there when it was made: after a rename outside, the old content
// for ever. Links are followed.
func BoundFile(path string) (Warning, bool) { return boundFile(path, readMounts) }

// Warnings returns what BoundFile and Unheard warn of, for many files at the price
// of reading the mounts once.
func Warnings(paths []string) []Warning {
	read := sync.OnceValue(readMounts)
	var all []Warning
	for _, path := range paths {
		if w, bound := boundFile(path, read); bound {
			all = append(all, w)
		}
		if w, deaf := unheard(path, read()); deaf {
			all = append(all, w)
		}
	}
	return all
}

func boundFile(path string, mounts func() []mount) (Warning, bool) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil || !isFile(real) {
		return Warning{}, false
	}
	if real, err = filepath.Abs(real); err != nil {
		return Warning{}, false
	}
	root, sure := mountRoot(real)
	if sure && !root {
		return Warning{}, false
	}
	at := mountAt(real, mounts())
	if !sure && (at == nil || at.point != real) {
		return Warning{}, false
	}
	w := Warning{
		Path:     path,
		Sentence: fmt.Sprintf("%s is a single file that was mounted: when the file is replaced where it comes from, the old content stays here", show(real)),
		Hint:     "mount the directory instead; with certbot the whole of /etc/letsencrypt, because live/ links to archive/",
	}
	if at != nil && strings.HasSuffix(at.root, deleted) {
		w.Sentence = fmt.Sprintf("%s is a single file that was mounted, and the file where it comes from has been replaced or deleted since: this content is old", show(real))
	}
	return w, true
}

// Unheard warns of a certificate on a file system that tells this host nothing of
// what others write: no event comes, and a scan finds the change late or, beneath
// an overlay, perhaps never. Directories of links on the way count too. The file
// need not exist yet.
func Unheard(path string) (Warning, bool) { return unheard(path, readMounts()) }

func unheard(path string, mounts []mount) (Warning, bool) {
	for _, form := range forms(path) {
		dir := filepath.Dir(form)
		for !isDir(dir) && dir != "/" {
			dir = filepath.Dir(dir)
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			continue
		}
		m := mountAt(real, mounts)
		if m == nil {
			continue
		}
		why := m.deaf(filepath.Join(real, filepath.Base(form)))
		if why == "" {
			continue
		}
		w := Warning{
			Path:     path,
			Sentence: fmt.Sprintf("%s lies on %s: a renewal written elsewhere is found by scanning, not at once", show(form), why),
			Hint:     "run renewatch where the ACME client writes, or accept the delay of a scan",
		}
		if m.fstype == "overlay" {
			// The kernel keeps what it once looked up there.
			w.Sentence = fmt.Sprintf("%s lies on %s: a renewal written beneath the overlay may not be seen before it is mounted again", show(form), why)
			w.Hint = "mount the directory of the certificates itself into the overlay"
		}
		return w, true
	}
	return Warning{}, false
}

// mount is a line of /proc/self/mountinfo.
type mount struct {
	id      uint64
	dev     string // major:minor of the superblock
	root    string // what of the file system is mounted; ends in deleted when that is gone
	point   string // where, seen from our root
	fstype  string
	options string // of the superblock
}

// deleted is what the kernel puts behind the path of a file that is gone.
const deleted = "//deleted"

// remotes are file systems that others write to behind our kernel's back.
var remotes = map[string]string{
	"nfs": "NFS", "nfs4": "NFS", "cifs": "SMB", "smb3": "SMB", "smbfs": "SMB", "ncpfs": "a network file system",
	"9p": "a file system of the host of this machine (9p)", "virtiofs": "a file system of the host of this machine (virtiofs)",
	"vboxsf": "a file system of the host of this machine (vboxsf)", "prl_fs": "a file system of the host of this machine (prl_fs)",
	"vmhgfs": "a file system of the host of this machine (vmhgfs)", "drvfs": "a file system of the host of this machine (drvfs)",
	"fakeowner": "a file system of the host of this machine (fakeowner)",
	"fuse":      "FUSE", "ceph": "Ceph", "afs": "AFS", "coda": "Coda", "lustre": "Lustre", "gpfs": "GPFS", "beegfs": "BeeGFS",
	"gfs2": "a cluster file system (gfs2)", "ocfs2": "a cluster file system (ocfs2)", "orangefs": "OrangeFS", "pvfs2": "OrangeFS",
}

// remote names the file system when others may write to it unseen. fuseblk is a
// local disk.
func (m *mount) remote() string {
	if kind, ok := strings.CutPrefix(m.fstype, "fuse."); ok {
		return "FUSE (" + show(kind) + ")"
	}
	return remotes[m.fstype]
}

// deaf says why no event tells of a foreign change of path, or "".
func (m *mount) deaf(path string) string {
	if m.fstype != "overlay" {
		return m.remote()
	}
	upper := ""
	for option := range strings.SplitSeq(m.options, ",") {
		if value, ok := strings.CutPrefix(option, "upperdir="); ok {
			upper = value
		}
	}
	if upper == "" {
		return "a read-only overlay"
	}
	// Seen from another mount namespace the upper directory is out of sight: then
	// nothing is known, and in a container layers do not change.
	rel, err := filepath.Rel(m.point, path)
	if err != nil || !filepath.IsAbs(upper) || !isDir(upper) {
		return ""
	}
	if _, err := os.Lstat(path); err != nil {
		return "" // what is written from now on lies in the upper layer
	}
	if _, err := os.Lstat(filepath.Join(upper, m.root, rel)); err != nil {
		return "a lower layer of an overlay"
	}
	return ""
}

// mountAt returns the mount in which path lies, nil when that is not known. path
// has no links.
func mountAt(path string, mounts []mount) *mount {
	if id, ok := mountID(path); ok {
		for i := range mounts {
			if mounts[i].id == id {
				return &mounts[i]
			}
		}
	}
	var best *mount
	for i := range mounts {
		// Of two at one place the later one covers the earlier.
		if m := &mounts[i]; below(path, m.point) && (best == nil || len(m.point) >= len(best.point)) {
			best = m
		}
	}
	return best
}

func below(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

func readMounts() []mount {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseMounts(f)
}

const (
	maxMounts    = 100_000 // the kernel's own default limit
	maxMountLine = 1 << 20
)

// parseMounts reads mountinfo (proc(5)); lines that are not of its form are
// passed over.
func parseMounts(r io.Reader) []mount {
	var all []mount
	lines := bufio.NewScanner(io.LimitReader(r, 64<<20))
	lines.Buffer(nil, maxMountLine)
	for lines.Scan() && len(all) < maxMounts {
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		before, after := strings.Fields(head), strings.Fields(tail)
		if !ok || len(before) < 6 || len(after) < 1 {
			continue
		}
		id, err := strconv.ParseUint(before[0], 10, 64)
		if err != nil {
			continue
		}
		m := mount{
			id: id, dev: before[2], root: unescape(before[3]),
			point: strings.TrimSuffix(unescape(before[4]), deleted), fstype: unescape(after[0]),
		}
		if len(after) > 2 {
			m.options = unescape(after[2])
		}
		all = append(all, m)
	}
	return all
}

// unescape turns \040 into a space: so the kernel writes white space, the
// backslash and the number sign.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
