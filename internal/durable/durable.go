// Package durable writes files durably or not at all.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// WriteFile replaces path with data so that after a crash at any moment either
// the old or the new content stands there whole: a temporary file in the same
// directory is written and fsynced, renamed over path, and the directory is
// fsynced.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	if err := place(path, data, perm); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// atOnce is how many files WriteFiles writes at the same time.
const atOnce = 16

// WriteFiles is WriteFile for several paths, each once, and returns an error or
// nil for each. It takes hardly longer than WriteFile: what waits for the disk
// waits together.
func WriteFiles(paths []string, data [][]byte, perm os.FileMode) []error {
	errs := make([]error, len(paths))
	if len(paths) == 1 {
		errs[0] = WriteFile(paths[0], data[0], perm)
		return errs
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(atOnce, len(paths)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(paths); i = int(next.Add(1)) - 1 {
				errs[i] = place(paths[i], data[i], perm)
			}
		})
	}
	wg.Wait()
	dirs := map[string]error{}
	for i, path := range paths {
		if errs[i] != nil {
			continue
		}
		dir := filepath.Dir(path)
		err, synced := dirs[dir]
		if !synced {
			err = SyncDir(dir)
			dirs[dir] = err
		}
		errs[i] = err
	}
	return errs
}

// place is WriteFile but for the directory.
func place(path string, data []byte, perm os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(perm); err != nil {
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
	return os.Rename(f.Name(), path)
}

// Remove deletes path durably. A path that is already gone is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ErrLocked is returned by Lock when another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// Lock takes an exclusive lock on path, which is created when missing. The lock
// ends with the returned file, at the latest with the process. It does not wait.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return nil, err
	}
	return f, nil
}
