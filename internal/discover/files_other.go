//go:build unix && !linux

package discover

import (
	"os"
	"strings"
)

// ofKernel reports whether f lies in a file system that the kernel makes up.
func ofKernel(f *os.File) bool {
	return strings.HasPrefix(f.Name(), "/proc/") || strings.HasPrefix(f.Name(), "/dev/")
}
