package discover

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// haproxyReading reads one configuration: several files, one behind the other.
type haproxyReading struct {
	*reading
	inv      invocation
	pathMode string // default-path
	origin   string // default-path origin
	dir      string // what relative paths are relative to
	section  string
	crtBase  string
	keyBase  string
	store    haStore         // the crt-store section that is being read
	stores   map[string]bool // the certificates that a crt-store gives a key of their own
	vars     map[string]string
	unset    map[string]bool
	noBundle bool            // ssl-load-extra-files without bundle
	noKey    bool            // ssl-load-extra-files without key
	noExt    bool            // ssl-load-extra-del-ext
	pass     bool            // ssl-passphrase-cmd
	conds    []string        // .if blocks, whose conditions are not judged
	under    string          // the condition the file is read under
	seen     map[string]bool // directories and lists that were read
	looked   int64           // bytes of certificate files that were looked into
}

type haStore struct{ name, crtBase, keyBase string }

func (r *reading) haproxy(inv invocation) {
	h := &haproxyReading{
		reading: r, inv: inv, dir: inv.dir,
		stores: map[string]bool{}, vars: map[string]string{}, unset: map[string]bool{}, seen: map[string]bool{},
	}
	r.found.Config = inv.configs[0]
	for _, conf := range inv.configs {
		h.under = inv.maybe[conf]
		info, err := os.Stat(conf)
		if err != nil || !info.IsDir() {
			h.file(conf)
			continue
		}
		names, err := r.list(conf)
		if err != nil {
			r.gap(unread(conf, "", err))
		}
		for _, name := range names {
			if !strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".cfg") {
				h.file(under(conf, name))
			}
		}
	}
}

func (h *haproxyReading) file(conf string) {
	data, ok := h.enter(conf, "")
	if !ok {
		return
	}
	defer h.leave()
	h.conds = nil
	h.moveTo(conf)
	n := 0
	for text := range bytes.Lines(data) {
		if n++; h.done() {
			return
		}
		text = bytes.TrimSpace(text)
		if len(text) == 0 || text[0] == '#' || text[0] == '[' { // [a scope]
			continue
		}
		words, ok := haproxyWords(string(text), h.lookup)
		if !ok {
			h.gap(Gap{Path: conf, Sentence: show(line(conf, n)) + " is no line of a configuration: a quote, a brace or an escape is wrong",
				Hint: "HAProxy refuses this as well: haproxy -c"})
			continue
		}
		if len(words) > 0 {
			h.words(conf, n, words)
		}
	}
}

// moveTo sets what relative paths in a file are relative to (default-path).
func (h *haproxyReading) moveTo(conf string) {
	switch h.pathMode {
	case "config":
		h.dir = dirOf(conf)
	case "parent":
		h.dir = dirOf(conf) + "/.."
	case "origin":
		h.dir = h.origin
	default:
		h.dir = h.inv.dir
	}
}

func (h *haproxyReading) lookup(name string) (string, bool) {
	if v, ok := h.vars[name]; ok {
		return v, true
	}
	if h.unset[name] || h.inv.env == nil || strings.HasPrefix(name, ".") {
		return "", false
	}
	return h.inv.env(name)
}

// haSections are the words that begin a section.
var haSections = map[string]bool{
	"global": true, "defaults": true, "frontend": true, "backend": true, "listen": true, "userlist": true, "peers": true,
	"mailers": true, "resolvers": true, "cache": true, "program": true, "http-errors": true, "ring": true, "log-forward": true,
	"fcgi-app": true, "crt-store": true, "acme": true, "traces": true, "log-profile": true, "healthcheck": true,
}

func (h *haproxyReading) words(conf string, n int, words []haWord) {
	first := words[0].text
	arg := func(i int) string {
		if i < len(words) {
			return words[i].text
		}
		return ""
	}
	switch first {
	case ".if":
		var cond []string
		for _, w := range words[:min(len(words), 16)] {
			cond = append(cond, w.text)
		}
		if len(h.conds) < maxSections {
			h.conds = append(h.conds, show(strings.Join(cond, " ")))
		}
		return
	case ".endif":
		if len(h.conds) > 0 {
			h.conds = h.conds[:len(h.conds)-1]
		}
		return
	}
	if haSections[first] {
		h.section = first
		if first == "crt-store" {
			h.store = haStore{arg(1), h.crtBase, h.keyBase}
		}
		return
	}
	switch h.section {
	case "global":
		h.global(conf, n, words)
		return
	case "crt-store":
		switch first {
		case "crt-base":
			h.store.crtBase = arg(1)
		case "key-base":
			h.store.keyBase = arg(1)
		case "load":
			h.load(conf, n, words[1:])
		}
		return
	}
	switch first {
	case "bind", "default-bind":
		h.bind(conf, n, words[1:])
	case "ssl-f-use":
		h.use(conf, n, words[1:])
	case "server", "server-template", "default-server", "peer":
		for i := 1; i+1 < len(words); i++ {
			if words[i].text == "crt" && h.known(conf, n, words[i+1]) {
				i++
				h.certificate(words[i].text, line(conf, n), false)
			}
		}
	}
}

// known reports whether all variables in a word are; else it says so.
func (h *haproxyReading) known(conf string, n int, w haWord) bool {
	if w.unknown != "" {
		at := line(conf, n)
		h.gap(Gap{Path: conf, Sentence: show(at) + " may name a certificate by the environment variable " + show(w.unknown) + ", which is not known",
			Hint: "set it with setenv in the configuration, or let this process read the environment of HAProxy"})
	}
	return w.unknown == ""
}

func (h *haproxyReading) global(conf string, n int, words []haWord) {
	arg := func(i int) string {
		if i < len(words) {
			return words[i].text
		}
		return ""
	}
	switch words[0].text {
	case "crt-base":
		h.crtBase = arg(1)
	case "key-base":
		h.keyBase = arg(1)
	case "ssl-passphrase-cmd":
		h.pass = true
	case "ssl-load-extra-del-ext":
		h.noExt = true
	case "ssl-load-extra-files":
		h.noBundle, h.noKey = true, true
		for _, w := range words[1:] {
			h.noBundle = h.noBundle && w.text != "bundle" && w.text != "all"
			h.noKey = h.noKey && w.text != "key" && w.text != "all"
		}
	case "default-path":
		switch arg(1) {
		case "origin":
			h.origin = under(h.inv.dir, arg(2))
		}
		h.pathMode = arg(1)
		h.moveTo(conf)
	case "setenv", "presetenv":
		_, have := h.lookup(arg(1))
		if len(words) < 3 || words[2].unknown != "" || len(h.vars) > 10_000 || len(arg(2)) > maxWord || have && words[0].text == "presetenv" {
			return
		}
		h.vars[arg(1)] = arg(2)
	case "unsetenv":
		for _, w := range words[1:] {
			delete(h.vars, w.text)
			if len(h.unset) < 10_000 {
				h.unset[w.text] = true
			}
		}
	case "stats":
		if arg(1) == "socket" {
			h.bind(conf, n, words[2:])
		}
	}
}

// bind reads the options of a line that listens.
func (h *haproxyReading) bind(conf string, n int, words []haWord) {
	for i := 0; i < len(words); i++ {
		if words[i].text == "" && !h.known(conf, n, words[i]) { // "${OPTIONS[*]}"
			continue
		}
		if i+1 == len(words) {
			return
		}
		switch words[i].text {
		case "crt":
			if i++; h.known(conf, n, words[i]) {
				h.certificate(words[i].text, line(conf, n), true)
			}
		case "crt-list":
			if i++; h.known(conf, n, words[i]) {
				h.list(words[i].text, line(conf, n))
			}
		}
	}
}

// certificate adds what stands behind crt: a file, a directory, or the common
// name of a bundle.
func (h *haproxyReading) certificate(name, at string, listens bool) {
	if name == "" || name[0] == '@' { // from a crt-store, which is read for itself
		return
	}
	file := h.path(h.crtBase, name)
	if h.stores[file] || h.spentEntry(file) {
		return
	}
	info, err := os.Stat(file)
	switch {
	case err == nil && info.IsDir():
		if listens {
			h.directory(file, at)
		}
	case err != nil && os.IsNotExist(err) && listens && !h.noBundle:
		found := false
		for _, ext := range []string{".rsa", ".ecdsa", ".dsa"} {
			if _, err := os.Stat(file + ext); err == nil {
				found = true
				h.add(file+ext, h.keyOf(file+ext), at)
			}
		}
		if !found {
			h.add(file, file, at)
		}
	default:
		h.add(file, h.keyOf(file), at)
	}
}

// spentEntry counts a look at a file.
func (h *haproxyReading) spentEntry(file string) bool {
	if h.entries++; h.entries > h.MaxEntries {
		h.spent(file, "more than %d files are looked at", h.MaxEntries)
	}
	return h.done()
}

// path is the path of a file below a base.
func (h *haproxyReading) path(base, name string) string {
	if base != "" {
		name = under(base, name)
	}
	return under(h.dir, name)
}

// directory adds every file of a directory that HAProxy loads.
func (h *haproxyReading) directory(dir, at string) {
	if h.again(dir) {
		return
	}
	names, err := h.reading.list(dir)
	if err != nil {
		h.gap(unread(dir, at, err))
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") || slices.Contains([]string{".issuer", ".ocsp", ".sctl", ".key"}, filepath.Ext(name)) {
			continue
		}
		file := under(dir, name)
		if h.spentEntry(file) {
			return
		}
		if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
			continue
		}
		h.add(file, h.keyOf(file), at)
	}
}

// keyOf is where HAProxy looks for the key of a certificate: in its own file, and
// if there is none beside it.
func (h *haproxyReading) keyOf(cert string) string {
	if h.noKey {
		return cert
	}
	beside := cert
	if h.noExt {
		beside = strings.TrimSuffix(cert, ".crt")
	}
	beside += ".key"
	if _, err := os.Stat(beside); err != nil {
		return cert
	}
	data, err := readFile(cert, 1<<20)
	if h.looked += int64(len(data)); h.looked > 8*h.MaxBytes {
		h.spent(cert, "its certificate files have more than %d bytes", 8*h.MaxBytes)
	}
	if err == nil && bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return cert
	}
	return beside
}

func (h *haproxyReading) add(cert, key, at string) {
	h.pair(Pair{Cert: cert, Key: key, At: at, If: h.cond(), Passphrase: h.pass})
}

func (h *haproxyReading) cond() string {
	return strings.TrimSpace(h.under + " " + strings.Join(h.conds, " "))
}

// again reports whether a directory or a list was read under these conditions
// before.
func (h *haproxyReading) again(path string) bool {
	key := path + "\x00" + h.cond()
	seen := h.seen[key]
	h.seen[key] = true
	return seen
}

// list reads a crt-list: a certificate, [options] and names on each line.
func (h *haproxyReading) list(name, at string) {
	if strings.HasPrefix(name, "@") {
		return
	}
	file := h.path("", name)
	if h.again(file) {
		return
	}
	data, ok := h.enter(file, at)
	if !ok {
		return
	}
	defer h.leave()
	n := 0
	for text := range bytes.Lines(data) {
		if n++; h.done() {
			return
		}
		if text[0] == '#' {
			continue
		}
		words := strings.FieldsFunc(string(text), func(c rune) bool { return c == '[' || c == ']' || c < 256 && isSpace(byte(c)) })
		if len(words) == 0 {
			continue
		}
		_, options, _ := bytes.Cut(text, []byte("["))
		options, _, _ = bytes.Cut(options, []byte("]"))
		h.entry(words[0], strings.Fields(string(options)), line(file, n))
	}
}

// use reads ssl-f-use, which is a line of a crt-list in the configuration.
func (h *haproxyReading) use(conf string, n int, words []haWord) {
	var options []string
	crt := ""
	for i := 0; i < len(words); i++ {
		if words[i].text == "crt" && i+1 < len(words) {
			if i++; !h.known(conf, n, words[i]) {
				return
			}
			crt = words[i].text
			continue
		}
		options = append(options, words[i].text)
	}
	h.entry(crt, options, line(conf, n))
}

// entry adds one certificate of a crt-list; options may name its key.
func (h *haproxyReading) entry(crt string, options []string, at string) {
	for i := 0; i+1 < len(options); i++ {
		if options[i] == "key" && crt != "" && crt[0] != '@' {
			h.add(h.path(h.crtBase, crt), h.path("", options[i+1]), at)
			return
		}
	}
	h.certificate(crt, at, true)
}

// load reads a line of a crt-store.
func (h *haproxyReading) load(conf string, n int, words []haWord) {
	var crt, key, alias string
	acme := false
	for i := 0; i+1 < len(words); i += 2 {
		v := words[i+1]
		switch words[i].text {
		case "crt", "key":
			if !h.known(conf, n, v) {
				return
			}
			if words[i].text == "crt" {
				crt = v.text
			} else {
				key = v.text
			}
		case "alias":
			alias = v.text
		case "acme", "generate-dummy":
			acme = true
		}
	}
	if crt == "" {
		return
	}
	cert := h.path(h.store.crtBase, crt)
	if _, err := os.Stat(cert); acme && os.IsNotExist(err) {
		return // HAProxy makes one for itself until the CA has answered
	}
	if h.store.name == "" && alias == "" && len(h.stores) < h.MaxPairs {
		h.stores[cert] = true
	}
	if key == "" {
		key = cert
	} else {
		key = h.path(h.store.keyBase, key)
	}
	h.add(cert, key, line(conf, n))
}
