package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
)

// LoadOptions are what a configuration depends on besides its files.
type LoadOptions struct {
	// Getenv returns environment variables; nil: os.Getenv.
	Getenv func(string) string
	// UID is the user the default state directory is chosen for; 0 is root.
	UID int
	// StateDir, LogLevel and LogFormat are the values of the flags --state-dir,
	// --log-level and --log-format; empty: not given.
	StateDir  string
	LogLevel  string
	LogFormat string
}

// maxFiles is how many files conf.d may hold.
const maxFiles = 1024

// Load reads the file at path, the files in conf.d beside it, the environment
// and the flags. Its error is always of type Errors and holds every fault found.
func Load(path string, opts LoadOptions) (*Config, error) {
	if opts.Getenv == nil {
		opts.Getenv = os.Getenv
	}
	d := &decoder{cfg: defaults(), failed: map[string]bool{}}
	d.read(path, file())
	for _, f := range d.confD(filepath.Join(filepath.Dir(path), "conf.d")) {
		d.read(f, added())
	}
	return d.finish(opts)
}

// StateDirAnyway returns the state directory that the file at path, the
// environment and the flags say, whatever is wrong with the rest of the
// configuration: a daemon that refused it goes on with the one before.
func StateDirAnyway(path string, opts LoadOptions) string {
	if opts.Getenv == nil {
		opts.Getenv = os.Getenv
	}
	d := &decoder{cfg: defaults(), failed: map[string]bool{}}
	d.read(path, file())
	d.outside(opts)
	return d.cfg.StateDir
}

// finish applies what stands in no file and checks the whole.
func (d *decoder) finish(opts LoadOptions) (*Config, error) {
	d.outside(opts)
	d.whole()
	if len(d.errs) > 0 {
		return nil, d.errs.sorted(d.cfg.Files)
	}
	return d.cfg, nil
}

// read decodes one file into d.cfg.
func (d *decoder) read(path string, keys *object) {
	data, err := readFile(path)
	if err != nil {
		d.cfg.Files = append(d.cfg.Files, path)
		d.errs = append(d.errs, unreadable(path, err))
		return
	}
	d.readText(path, data, keys)
}

func (d *decoder) readText(path string, data []byte, keys *object) {
	d.file = path
	d.cfg.Files = append(d.cfg.Files, path)
	n, errs := parse(path, data)
	d.errs = append(d.errs, errs...)
	if n != nil && n.kind != isNull {
		keys.decode(d, place{}, n, reflect.ValueOf(d.cfg).Elem())
	}
}

// confD lists the files of a conf.d directory that are read.
func (d *decoder) confD(dir string) (files []string) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		d.errs = append(d.errs, unreadable(dir, err))
		return nil
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, "."):
		case strings.HasSuffix(name, ".yaml"):
			files = append(files, filepath.Join(dir, name))
		case strings.HasSuffix(name, ".yml"):
			d.cfg.notes = append(d.cfg.notes, &Warning{File: filepath.Join(dir, name),
				Sentence: "the file is not read: only conf.d/*.yaml is", Hint: "rename it to " + strings.TrimSuffix(name, "yml") + "yaml"})
		}
	}
	if len(files) > maxFiles {
		d.errs = append(d.errs, &Error{File: dir, Sentence: fmt.Sprintf("the directory holds %d files, and %d are the most", len(files), maxFiles), Hint: "put several certificates into one file"})
		files = files[:maxFiles]
	}
	return files
}

var errNotAFile = errors.New("it is no regular file")

// readFile reads at most one byte more than parse takes. It opens without
// blocking, and only what is a file: a FIFO would hold the start up for ever.
func readFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errNotAFile
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errNotAFile
	}
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func unreadable(path string, err error) *Error {
	e := &Error{File: path, Err: err}
	var inner *fs.PathError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	e.Sentence = "cannot be read: " + err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Sentence, e.Hint = "there is no such file", "check the path"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "let this user read it, or run as the user it belongs to"
	case errors.Is(err, errNotAFile):
		e.Hint = "name the configuration file itself"
	}
	return e
}

// outside applies flags and environment, strongest first: flag, file,
// RENEWATCH_*, NATS_*, STATE_DIRECTORY, default.
func (d *decoder) outside(opts LoadOptions) {
	cfg := d.cfg
	for _, o := range []struct {
		key            string
		shape          text
		flag, flagName string
		env            string
		into           *string
		path           bool
	}{
		{"state_dir", absolutePath(), opts.StateDir, "--state-dir", "RENEWATCH_STATE_DIR", &cfg.StateDir, true},
		{"log.level", logLevel, opts.LogLevel, "--log-level", "RENEWATCH_LOG_LEVEL", &cfg.Log.Level, false},
		{"log.format", logFormat, opts.LogFormat, "--log-format", "RENEWATCH_LOG_FORMAT", &cfg.Log.Format, false},
	} {
		_, inFile := cfg.Origins[o.key]
		switch env := opts.Getenv(o.env); {
		case o.flag != "":
			d.set(Origin{Kind: FromFlag, Name: o.flagName}, o.key, o.shape, absolute(o.flag, o.path), o.into)
		case env != "" && !inFile:
			d.set(Origin{Kind: FromEnv, Name: o.env}, o.key, o.shape, absolute(env, o.path), o.into)
		}
	}
	d.natsEnv(opts.Getenv)
	if cfg.StateDir == "" && !d.failed["state_dir"] {
		d.defaultStateDir(opts)
	}
}

// absolute resolves a path given on the command line or in the environment.
func absolute(s string, isPath bool) string {
	if !isPath {
		return s
	}
	if abs, err := filepath.Abs(s); err == nil {
		return abs
	}
	return s
}

// set decodes a value that stands in no file, and reports whether it is sound.
func (d *decoder) set(from Origin, key string, s shape, value string, into any) bool {
	d.file = from.Name
	before := d.faults
	s.decode(d, place{key, key}, &node{kind: isString, quoted: true, text: value}, reflect.ValueOf(into).Elem())
	if d.faults > before {
		return false
	}
	d.cfg.Origins[key] = from
	return true
}

func (d *decoder) defaultStateDir(opts LoadOptions) {
	cfg := d.cfg
	if first, _, _ := strings.Cut(opts.Getenv("STATE_DIRECTORY"), ":"); first != "" {
		d.set(Origin{Kind: FromEnv, Name: "STATE_DIRECTORY"}, "state_dir", absolutePath(), first, &cfg.StateDir)
		return
	}
	if opts.UID == 0 {
		cfg.StateDir = "/var/lib/renewatch"
		return
	}
	dir := opts.Getenv("XDG_STATE_HOME")
	if home := opts.Getenv("HOME"); !filepath.IsAbs(dir) && filepath.IsAbs(home) {
		dir = filepath.Join(home, ".local", "state")
	}
	if !filepath.IsAbs(dir) {
		d.errs = append(d.errs, &Error{File: cfg.Files[0], Path: "state_dir", Sentence: "state_dir is missing, and this user has no home directory to put it",
			Hint: "set state_dir, --state-dir or RENEWATCH_STATE_DIR to an absolute path"})
		return
	}
	cfg.StateDir = filepath.Join(dir, "renewatch")
}

// natsEnv applies the variables of the nats command. They stand back as a whole
// when the file names a server or a credential.
func (d *decoder) natsEnv(getenv func(string) string) {
	n := &d.cfg.NATS
	for _, key := range []string{"url", "creds", "nkey", "token_file", "user", "password_file", "tls.cert", "tls.key"} {
		if d.failed["nats."+key] {
			return
		}
	}
	if !n.Enabled || len(n.URLs) > 0 || n.Creds != "" || n.NKey != "" || n.TokenFile != "" || n.User != "" ||
		n.PasswordFile != "" || n.TLS.Cert != "" || n.TLS.Key != "" {
		return
	}
	vars := []struct {
		name, key string
		shape     text
		into      *string
		path      bool
	}{
		{"NATS_CREDS", "nats.creds", text{secret: true, check: checkAbsolute}, &n.Creds, true},
		{"NATS_NKEY", "nats.nkey", text{secret: true, check: checkAbsolute}, &n.NKey, true},
		{"NATS_TOKEN", "nats.token", text{secret: true}, &n.Token, false},
		{"NATS_USER", "nats.user", text{}, &n.User, false},
		{"NATS_PASSWORD", "nats.password", text{secret: true}, &n.Password, false},
		{"NATS_CERT", "nats.tls.cert", text{check: checkAbsolute}, &n.TLS.Cert, true},
		{"NATS_KEY", "nats.tls.key", text{check: checkAbsolute}, &n.TLS.Key, true},
		{"NATS_CA", "nats.tls.ca", text{check: checkAbsolute}, &n.TLS.CA, true},
	}
	urls := strings.TrimSpace(getenv("NATS_URL"))
	if urls == "" {
		for _, v := range vars {
			if getenv(v.name) != "" {
				d.cfg.notes = append(d.cfg.notes, &Warning{File: v.name, Sentence: v.name + " is ignored: there is no NATS_URL and no nats.url", Hint: "set one of them, or unset " + v.name})
			}
		}
		return
	}
	for url := range strings.SplitSeq(urls, ",") {
		url = strings.TrimSpace(url)
		if url != "" && !strings.Contains(url, "://") {
			url = "nats://" + url
		}
		var one string
		if d.set(Origin{Kind: FromEnv, Name: "NATS_URL"}, "nats.url", natsURL, url, &one) {
			n.URLs = append(n.URLs, one)
		}
	}
	if wrong, hint := checkURLs(reflect.ValueOf(n.URLs)); wrong != "" {
		d.errs = append(d.errs, &Error{File: "NATS_URL", Path: "nats.url", Sentence: "NATS_URL " + wrong, Hint: hint})
	}
	for _, v := range vars {
		if s := getenv(v.name); s != "" && *v.into == "" {
			d.set(Origin{Kind: FromEnv, Name: v.name}, v.key, v.shape, absolute(s, v.path), v.into)
		}
	}
	var given []string
	for i, s := range []string{n.Creds, n.NKey, n.Token, n.User} {
		if s != "" {
			given = append(given, vars[i].name)
		}
	}
	if len(given) > 1 {
		d.errs = append(d.errs, &Error{File: given[1], Path: "nats", Sentence: enumerate(given, "and") + " are set, and only one of them can be", Hint: "unset all but the credential that the NATS server knows"})
	}
	for _, both := range [][2]string{{"NATS_USER", "NATS_PASSWORD"}, {"NATS_PASSWORD", "NATS_USER"}, {"NATS_CERT", "NATS_KEY"}, {"NATS_KEY", "NATS_CERT"}} {
		if getenv(both[0]) != "" && getenv(both[1]) == "" {
			d.errs = append(d.errs, &Error{File: both[0], Path: "nats", Sentence: both[0] + " is set but " + both[1] + " is not", Hint: "set both, or none"})
		}
	}
}

// StateDir returns the state directory where there is no configuration: the
// flag's, RENEWATCH_STATE_DIR's, STATE_DIRECTORY's, else the default one.
func StateDir(opts LoadOptions) (string, error) {
	if opts.Getenv == nil {
		opts.Getenv = os.Getenv
	}
	d := &decoder{cfg: defaults(), failed: map[string]bool{}}
	d.cfg.Files = []string{"no configuration"}
	d.outside(opts)
	for _, e := range d.errs {
		if e.Path == "state_dir" {
			return "", e
		}
	}
	return d.cfg.StateDir, nil
}
