package durable

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestWriteFiles: every file that can be written is, whole and with its mode; one
// that cannot be has an error of its own and leaves nothing behind.
func TestWriteFiles(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100} {
		dir := t.TempDir()
		var paths []string
		var data [][]byte
		for i := range n {
			path := filepath.Join(dir, "sub"+strconv.Itoa(i%3), strconv.Itoa(i))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			paths, data = append(paths, path), append(data, []byte("content "+strconv.Itoa(i)))
		}
		bad := n / 2
		if n > 0 { // a directory cannot be replaced by a file
			if err := os.MkdirAll(filepath.Join(paths[bad], "in the way"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		errs := WriteFiles(paths, data, 0o640)
		if len(errs) != n {
			t.Fatalf("%d results for %d files", len(errs), n)
		}
		left := 0
		for i, path := range paths {
			if (errs[i] != nil) != (i == bad) {
				t.Errorf("%s: %v", path, errs[i])
			}
			if i == bad {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil || string(text) != string(data[i]) {
				t.Errorf("%s holds %q, %v", path, text, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
		if err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if e.Type().IsRegular() {
				left++
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if want := max(n-1, 0); left != want {
			t.Errorf("%d files lie there, want %d", left, want)
		}
	}
}
