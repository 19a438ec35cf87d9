package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SystemPath is where the configuration of a host stands.
const SystemPath = "/etc/renewatch/renewatch.yaml"

// FindOptions say where a configuration file is looked for.
type FindOptions struct {
	// Flag is the value of --config; empty: not given.
	Flag string
	// Env returns environment variables; nil: os.Getenv.
	Env func(string) string
	// System is the host's file; empty: SystemPath.
	System string
}

// NotFoundError says that there is no configuration file.
type NotFoundError struct {
	// Tried are the paths that were looked at, with the reason where it is another
	// than that nothing is there.
	Tried []string
}

// Error lists what was tried.
func (e *NotFoundError) Error() string {
	return "no configuration file found; tried " + strings.Join(e.Tried, ", ")
}

// Hint says what to do.
func (e *NotFoundError) Hint() string {
	return "write " + SystemPath + ", or name a file with --config or RENEWATCH_CONFIG"
}

// Find returns the path of the configuration file: the flag's or
// RENEWATCH_CONFIG's, whether there is a file or not, else the first that exists
// of the host's and the user's. The error is a *NotFoundError.
func Find(opts FindOptions) (path string, tried []string, err error) {
	if opts.Env == nil {
		opts.Env = os.Getenv
	}
	if opts.Flag != "" {
		return opts.Flag, []string{opts.Flag}, nil
	}
	if p := opts.Env("RENEWATCH_CONFIG"); p != "" {
		return p, []string{p}, nil
	}
	if opts.System == "" {
		opts.System = SystemPath
	}
	candidates := []string{opts.System}
	user := opts.Env("XDG_CONFIG_HOME")
	if home := opts.Env("HOME"); !filepath.IsAbs(user) && filepath.IsAbs(home) {
		user = filepath.Join(home, ".config")
	}
	if filepath.IsAbs(user) {
		candidates = append(candidates, filepath.Join(user, "renewatch", "renewatch.yaml"))
	}
	for _, p := range candidates {
		_, err := os.Stat(p)
		if err == nil {
			return p, append(tried, p), nil
		}
		var reason *fs.PathError
		if errors.As(err, &reason) && !errors.Is(err, fs.ErrNotExist) {
			p += " (" + reason.Err.Error() + ")"
		}
		tried = append(tried, p)
	}
	return "", tried, &NotFoundError{Tried: tried}
}
