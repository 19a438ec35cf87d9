package reload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxTouchNotes bounds how many files are named when touching fails.
const maxTouchNotes = 3

// touchFiles gives every file the present time and returns a sentence for each
// that refused. A link is refused: the caller names the real files, and a link
// put in their place meanwhile must not lead anywhere else.
func touchFiles(files []string) (notes []string) {
	bad := 0
	for _, file := range files {
		err := touchFile(file)
		if err == nil {
			continue
		}
		if bad++; bad <= maxTouchNotes {
			notes = append(notes, fmt.Sprintf("could not touch %s: %v", printable(file), err))
		}
	}
	if bad > maxTouchNotes {
		notes = append(notes, fmt.Sprintf("%d more files could not be touched", bad-maxTouchNotes))
	}
	return notes
}

func touchFile(file string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return reason(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	// Setting the present time needs permission to write, not ownership.
	return touchNow(unix.AT_FDCWD, file)
}

// reason strips the operation and the path off a file error.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	if errors.Is(err, syscall.ENOENT) {
		return errors.New("no such file")
	}
	return err
}
