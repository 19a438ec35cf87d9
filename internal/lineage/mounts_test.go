package lineage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseMounts(t *testing.T) {
	text := `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw
30 27 0:50 / /mnt/with\040space\134and\043 rw - nfs4 host:/x rw,vers=4.2
31 27 254:0 /srv/a.pem//deleted /etc/ssl/a.pem rw - ext4 /dev/vda rw
32 27 0:60 / /merged/gone//deleted rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
garbage
33 27
x 27 0:1 / /bad rw - ext4 a b
34 27 0:61 / /odd rw -
35 27 0:62 / /fuse rw - fuse.sshfs me@host:/ rw
`
	all := parseMounts(strings.NewReader(text))
	want := []mount{
		{22, "0:21", "/", "/proc", "proc", "rw"},
		{27, "254:0", "/", "/", "ext4", "rw"},
		{30, "0:50", "/", `/mnt/with space\and#`, "nfs4", "rw,vers=4.2"},
		{31, "254:0", "/srv/a.pem//deleted", "/etc/ssl/a.pem", "ext4", "rw"},
		{32, "0:60", "/", "/merged/gone", "overlay", "rw,lowerdir=/l,upperdir=/u,workdir=/w"},
		{35, "0:62", "/", "/fuse", "fuse.sshfs", "rw"},
	}
	if len(all) != len(want) {
		t.Fatalf("%d mounts: %+v", len(all), all)
	}
	for i, m := range all {
		if m != want[i] {
			t.Errorf("got %+v\nwant %+v", m, want[i])
		}
	}
	for path, fstype := range map[string]string{
		`/mnt/with space\and#/x`: "nfs4", "/mnt/with space": "ext4", "/fuse": "fuse.sshfs", "/fused": "ext4", "/": "ext4",
	} {
		// These paths do not exist: the longest mount point counts.
		if m := mountAt(path, all); path != "/" && (m == nil || m.fstype != fstype) {
			t.Errorf("%s lies on %+v", path, m)
		}
	}
	if got := (&mount{fstype: "fuse.sshfs"}).deaf("/x"); got != "FUSE (sshfs)" {
		t.Errorf("sshfs: %q", got)
	}
	for _, local := range []string{"ext4", "xfs", "btrfs", "tmpfs", "zfs", "fuseblk", "bcachefs", ""} {
		if got := (&mount{fstype: local}).deaf("/x"); got != "" {
			t.Errorf("%s is %q", local, got)
		}
	}
	for _, remote := range []string{"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse", "ceph"} {
		if (&mount{fstype: remote}).deaf("/x") == "" {
			t.Errorf("%s is taken for local", remote)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b`: "a b", `\134040`: `\040`, `\0`: `\0`, `\04`: `\04`, `\999`: `\999`, `\777`: `\777`, `a\`: `a\`, ``: ``, `\011\012`: "\t\n",
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("22 27 0:21 / /proc rw - proc proc rw\n")
	f.Add(`1 2 3:4 \0 \\\777 rw - overlay o upperdir=,,`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(strings.NewReader(text)) {
			m.deaf("/a/b")
		}
	})
}

func TestLocalFilesNeedNoWarning(t *testing.T) {
	dir := tempDir(t)
	for _, path := range []string{write(t, filepath.Join(dir, "a.pem"), ""), filepath.Join(dir, "missing/b.pem"), ""} {
		if w, ok := BoundFile(path); ok {
			t.Errorf("%q: %+v", path, w)
		}
	}
	// A mount point is none of a single file when it is a directory.
	if w, ok := BoundFile("/proc"); ok {
		t.Errorf("/proc: %+v", w)
	}
}

// childBound mounts one file over another and then replaces the first.
func childBound(args []string) (any, error) {
	dir := args[0]
	origin, point := filepath.Join(dir, "origin.pem"), filepath.Join(dir, "with space/bound.pem")
	if err := errors.Join(private(), syscall.Mount(origin, point, "", syscall.MS_BIND, "")); err != nil {
		return nil, err
	}
	var all []Warning
	look := func(path string) {
		if w, ok := BoundFile(path); ok {
			all = append(all, w)
		}
	}
	look(point)
	look(filepath.Join(dir, "link.pem"))
	look(origin)
	fresh := filepath.Join(dir, "fresh.pem")
	if err := errors.Join(os.WriteFile(fresh, []byte("new"), 0o644), os.Rename(fresh, origin)); err != nil {
		return nil, err
	}
	look(point)
	// A mount over the directory hides the file that was mounted.
	if err := syscall.Mount("none", filepath.Dir(point), "tmpfs", 0, ""); err != nil {
		return nil, err
	}
	if err := os.WriteFile(point, nil, 0o644); err != nil {
		return nil, err
	}
	look(point)
	return all, nil
}

func TestBoundFile(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "origin.pem"), "old")
	point := write(t, filepath.Join(dir, "with space/bound.pem"), "")
	link := link(t, point, filepath.Join(dir, "link.pem"))
	all := child[[]Warning](t, "bound", syscall.CLONE_NEWNS, dir)
	if len(all) != 3 {
		t.Fatalf("warnings: %+v", all)
	}
	for i, path := range []string{point, link, point} {
		w := all[i]
		if w.Path != path || w.Hint == "" || !strings.HasPrefix(w.Sentence, point+" is a single file that was mounted") {
			t.Errorf("%d: %+v", i, w)
		}
		if stale := strings.Contains(w.Sentence, "has been replaced"); stale != (i == 2) {
			t.Errorf("%d: %+v", i, w)
		}
	}
}

// childOverlay looks at files of an overlay, of its lower and its upper layer.
func childOverlay(args []string) (any, error) {
	dir := args[0]
	merged := filepath.Join(dir, "merged")
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	if err := errors.Join(private(), syscall.Mount("tmpfs", dir, "tmpfs", 0, "")); err != nil {
		return nil, err
	}
	for _, sub := range []string{"lower/live", "lower2", "upper", "work", "merged", "readonly"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "lower/live/a.pem"), nil, 0o644); err != nil {
		return nil, err
	}
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return nil, err
	}
	if err := syscall.Mount("overlay", filepath.Join(dir, "readonly"), "overlay", 0, "lowerdir="+dir+"/lower:"+dir+"/lower2"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(merged, "live/b.pem"), nil, 0o644); err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, path := range []string{"merged/live/a.pem", "merged/live/b.pem", "merged/live/c.pem", "readonly/live/a.pem", "lower/live/a.pem"} {
		w, ok := Unheard(filepath.Join(dir, path))
		if ok != (w != Warning{}) {
			return nil, errors.New("a warning that is none")
		}
		all[path] = w.Sentence
	}
	// Written through the overlay, the file is one of the upper layer.
	if err := os.WriteFile(filepath.Join(merged, "live/a.pem"), []byte("new"), 0o644); err != nil {
		return nil, err
	}
	w, _ := Unheard(filepath.Join(merged, "live/a.pem"))
	all["written"] = w.Sentence
	return all, nil
}

func TestOverlay(t *testing.T) {
	all := child[map[string]string](t, "overlay", syscall.CLONE_NEWNS, tempDir(t))
	for path, want := range map[string]string{
		"merged/live/a.pem":   "lies on a lower layer of an overlay",
		"merged/live/b.pem":   "",
		"merged/live/c.pem":   "",
		"readonly/live/a.pem": "lies on a read-only overlay",
		"lower/live/a.pem":    "",
		"written":             "",
	} {
		got, ok := all[path]
		if !ok || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
