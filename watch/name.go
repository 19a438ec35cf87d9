package watch

import (
	"path/filepath"
	"strings"
)

// NameOf returns the name of the certificate in path where none is configured:
// the directory's name under live/, else the file's name without extension.
func NameOf(path string) string {
	dir := filepath.Dir(filepath.Clean(path))
	if filepath.Base(filepath.Dir(dir)) == "live" {
		return filepath.Base(dir)
	}
	base := filepath.Base(path)
	if name := strings.TrimSuffix(base, filepath.Ext(base)); name != "" {
		return name
	}
	return base
}

// IsGlob reports whether path is a pattern and not the path of one file.
func IsGlob(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// nameFault refuses names that cannot be a certificate's.
func nameFault(name, path string) *Fault {
	hint := "list this file by itself, with a name"
	switch {
	case name == "", name == ".", name == "/":
		return newFault(BadName, path, hint, "%s gives no name for a certificate", show(path))
	case strings.HasPrefix(name, "_"):
		return newFault(BadName, path, hint, "%s would be named %s: names that start with _ are reserved", show(path), show(name))
	}
	return nil
}
