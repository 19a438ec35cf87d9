package discover

import (
	"fmt"
	"os"
	"strings"
)

// apacheReading reads one configuration.
type apacheReading struct {
	*reading
	inv     invocation
	root    string // ServerRoot
	vars    map[string]string
	defined map[string]bool
	modules map[string]bool
	macros  map[string]*macro
	pass    bool // SSLPassPhraseDialog names a program

	main  vhost
	hosts []*vhost
	here  *vhost
	conds []string // the sections that are read although their condition was not judged

	uses int // macros in use
}

// vhost is the main server, or a virtual host.
type vhost struct {
	engine   string // on, off, optional; empty: not said
	protocol string
	certs    []value
	keys     []value
	machine  []value
	managed  []value // MDCertificateFile
	mdKeys   []value
}

// apacheScan is one run of lines: a file, a macro, or arguments of the program.
type apacheScan struct {
	skip    string // the section that is skipped, by its name; empty: none
	nested  int    // how many of that name are open inside
	macro   *macro // the macro whose body is being read
	inMacro int
	open    []opened
}

// opened is an open section.
type opened struct {
	name  string
	cond  bool // it stands in conds
	above *vhost
}

func (r *reading) apache(inv invocation) {
	conf := inv.configs[0]
	r.found.Config = conf
	a := &apacheReading{
		reading: r, inv: inv, root: inv.prefix,
		vars: map[string]string{}, defined: map[string]bool{}, modules: map[string]bool{},
		macros: map[string]*macro{},
	}
	a.here = &a.main
	for _, d := range inv.defines {
		a.defined[d] = true
	}
	a.arguments(inv.before)
	a.file(conf, "")
	a.arguments(inv.after)
	a.settle(&a.main, nil)
	for _, h := range a.hosts {
		a.settle(h, &a.main)
	}
}

func (a *apacheReading) arguments(directives []string) {
	s := &apacheScan{}
	for _, d := range directives {
		a.line(s, d, "the command line")
	}
	a.end(s)
}

func (a *apacheReading) file(path, at string) {
	data, ok := a.enter(path, at)
	if !ok {
		return
	}
	defer a.leave()
	s := &apacheScan{}
	l := &apacheLines{data: data}
	for !a.done() {
		text, n, ok := l.next()
		if !ok {
			break
		}
		a.line(s, text, line(path, n))
	}
	a.end(s)
}

// end closes what a file left open.
func (a *apacheReading) end(s *apacheScan) {
	for len(s.open) > 0 {
		a.shut(s)
	}
}

func (a *apacheReading) shut(s *apacheScan) {
	last := s.open[len(s.open)-1]
	s.open = s.open[:len(s.open)-1]
	if last.cond && len(a.conds) > 0 {
		a.conds = a.conds[:len(a.conds)-1]
	}
	if last.above != nil {
		a.here = last.above
	}
}

// maxSections is how deep sections may stand in each other.
const maxSections = 64

func (a *apacheReading) line(s *apacheScan, text, at string) {
	if a.uses > 0 { // macros multiply lines
		if a.bytes += int64(len(text)) + 16; a.bytes > a.MaxBytes {
			a.spent(fileOf(at), "its macros make more than %d bytes", a.MaxBytes)
			return
		}
	}
	if s.macro != nil {
		a.macroBody(s, text, at)
		return
	}
	if s.skip != "" {
		if name, _, closing, ok := section(text); ok && name == s.skip {
			if !closing {
				s.nested++
			} else if s.nested--; s.nested < 0 {
				s.skip, s.nested = "", 0
			}
		}
		return
	}
	text = expand(text, a.lookup)
	if name, args, closing, ok := section(text); ok {
		a.section(s, name, args, closing, at)
		return
	}
	word, rest := apacheWord(text)
	a.directive(strings.ToLower(word), rest, at)
}

// lookup knows what Define said, and the environment.
func (a *apacheReading) lookup(name string) (string, bool) {
	if v, ok := a.vars[name]; ok {
		return v, true
	}
	if a.inv.env == nil || !a.inv.exact && !strings.HasPrefix(name, "APACHE_") {
		return "", false
	}
	return a.inv.env(name)
}

// verdict is what is known of a section's condition.
type verdict uint8

const (
	holds verdict = iota
	fails
	unknown
)

func (a *apacheReading) section(s *apacheScan, name, args string, closing bool, at string) {
	if closing {
		for n := len(s.open) - 1; n >= 0; n-- {
			if s.open[n].name == name {
				for len(s.open) > n {
					a.shut(s)
				}
				return
			}
		}
		return
	}
	if len(s.open) >= maxSections {
		a.gap(Gap{Path: fileOf(at), Sentence: fmt.Sprintf("%s: sections stand more than %d deep", show(at), maxSections)})
		s.skip = name
		return
	}
	o := opened{name: name}
	switch name {
	case "virtualhost":
		o.above = a.here
		a.here = &vhost{}
		if len(a.hosts) > 4*a.MaxPairs {
			a.spent(fileOf(at), "it has more than %d virtual hosts", 4*a.MaxPairs)
			return
		}
		a.hosts = append(a.hosts, a.here)
	case "macro":
		words := apacheWords(args, 64)
		if len(words) == 0 || len(a.macros) > 1000 {
			return
		}
		s.macro, s.inMacro = &macro{params: words[1:]}, 0
		a.macros[strings.ToLower(words[0])] = s.macro
		return
	case "ifdefine", "ifmodule", "iffile", "ifversion", "ifdirective", "ifsection":
		switch a.judge(name, args) {
		case fails:
			s.skip = name
			return
		case unknown:
			o.cond = true
			a.conds = append(a.conds, show("<"+name+" "+args+">"))
		}
	}
	s.open = append(s.open, o)
}

// judge decides a condition where that is possible without asking Apache.
func (a *apacheReading) judge(name, args string) verdict {
	arg, _ := apacheWord(args)
	arg, not := strings.CutPrefix(arg, "!")
	v := unknown
	switch name {
	case "ifdefine":
		if a.defined[arg] {
			v = holds
		} else if a.inv.exact {
			v = fails
		}
	case "ifmodule":
		id := strings.ToLower(arg)
		if base, ok := strings.CutSuffix(id, ".c"); ok {
			id = strings.TrimPrefix(base, "mod_") + "_module"
		}
		// Whoever names certificates has mod_ssl.
		if a.modules[id] || id == "ssl_module" || id == "so_module" || id == "core_module" {
			v = holds
		}
	case "iffile":
		if _, err := os.Stat(under(a.root, arg)); err == nil {
			v = holds
		} else if os.IsNotExist(err) {
			v = fails
		}
	}
	if not && v == holds {
		return fails
	} else if not && v == fails {
		return holds
	}
	return v
}

func (a *apacheReading) macroBody(s *apacheScan, text, at string) {
	name, _, closing, ok := section(text)
	if ok && name == "macro" {
		if !closing {
			s.inMacro++
		} else if s.inMacro--; s.inMacro < 0 {
			s.macro = nil
			return
		}
	}
	s.macro.lines = append(s.macro.lines, macroLine{text, at})
}

// use puts the lines of a macro in the place of Use.
func (a *apacheReading) use(rest, at string) {
	words := apacheWords(rest, 65)
	if len(words) == 0 {
		return
	}
	m := a.macros[strings.ToLower(words[0])]
	if m == nil {
		a.gap(Gap{Path: fileOf(at), Sentence: show(at) + " uses the macro " + show(words[0]) + ", which is not defined before it"})
		return
	}
	if a.uses >= a.MaxDepth {
		a.gap(Gap{Path: fileOf(at), Sentence: fmt.Sprintf("%s: macros use each other more than %d deep", show(at), a.MaxDepth)})
		return
	}
	a.uses++
	defer func() { a.uses-- }()
	s := &apacheScan{}
	for _, l := range m.lines {
		if a.done() {
			break
		}
		a.line(s, m.fill(l.text, words[1:]), l.at)
	}
	a.end(s)
}

func (a *apacheReading) directive(name, rest, at string) {
	switch name {
	case "include", "includeoptional":
		for _, target := range apacheWords(rest, 64) {
			a.include(target, at, name == "includeoptional")
		}
		return
	case "use":
		a.use(rest, at)
		return
	}
	arg, more := apacheWord(rest)
	switch name {
	case "serverroot":
		a.root = under("/", arg)
	case "define":
		if len(a.vars) < 10_000 && arg != "" {
			a.defined[arg] = true
			if v, _ := apacheWord(more); v != "" && len(v) <= maxWord {
				a.vars[arg] = v
			}
		}
	case "undefine":
		delete(a.vars, arg)
		delete(a.defined, arg)
	case "loadmodule":
		if len(a.modules) < 10_000 {
			a.modules[strings.ToLower(arg)] = true
		}
	case "undefmacro":
		delete(a.macros, strings.ToLower(arg))
	case "protocol":
		a.here.protocol = strings.ToLower(arg)
	case "sslengine":
		a.here.engine = strings.ToLower(arg)
	case "sslcertificatefile":
		a.add(&a.here.certs, arg, at)
	case "sslcertificatekeyfile":
		a.add(&a.here.keys, arg, at)
	case "sslproxymachinecertificatefile":
		a.add(&a.here.machine, arg, at)
	case "mdcertificatefile":
		a.add(&a.here.managed, arg, at)
	case "mdcertificatekeyfile":
		a.add(&a.here.mdKeys, arg, at)
	case "sslpassphrasedialog":
		a.pass = strings.HasPrefix(arg, "exec:") || strings.HasPrefix(arg, "|")
	case "sslopensslconfcmd":
		if strings.EqualFold(arg, "Certificate") || strings.EqualFold(arg, "PrivateKey") {
			a.gap(Gap{Path: fileOf(at), Sentence: show(at) + " names a certificate or key with SSLOpenSSLConfCmd, which is not read",
				Hint: "name it with SSLCertificateFile and SSLCertificateKeyFile"})
		}
	}
}

func (a *apacheReading) add(to *[]value, text, at string) {
	if len(*to) >= a.MaxPairs {
		a.spent(fileOf(at), "it names more than %d pairs", a.MaxPairs)
		return
	}
	*to = append(*to, value{text: text, at: at, cond: strings.Join(a.conds, " ")})
}

// include reads files, directories with all that is in them, and patterns.
func (a *apacheReading) include(target, at string, optional bool) {
	if unknown := unexpanded(target); unknown != "" {
		a.gap(Gap{Path: fileOf(at), Sentence: show(at) + " includes " + show(target) + ", and " + show(unknown) + " is not known"})
		return
	}
	target = under(a.root, target)
	if !isGlob(target) {
		if _, err := os.Stat(target); optional && os.IsNotExist(err) {
			return
		}
		a.tree(target, at, 0)
		return
	}
	for _, match := range a.glob(target, at) {
		a.tree(match, at, 0)
	}
}

// tree reads a file, or a directory with all that is in it.
func (a *apacheReading) tree(path, at string, depth int) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		a.file(path, at)
		return
	}
	if depth >= a.MaxDepth {
		a.gap(Gap{Path: path, Sentence: fmt.Sprintf("%s is not read: directories stand more than %d deep", show(path), a.MaxDepth)})
		return
	}
	names, err := a.list(path)
	if err != nil {
		a.gap(unread(path, at, err))
	}
	for _, name := range names {
		if a.done() {
			return
		}
		a.tree(under(path, name), at, depth+1)
	}
}

// unexpanded is the first ${NAME} left in a word.
func unexpanded(s string) string {
	if i := strings.Index(s, "${"); i >= 0 {
		if n := strings.IndexByte(s[i:], '}'); n >= 0 {
			return s[i : i+n+1]
		}
	}
	return ""
}

// settle adds the pairs of a host that has TLS.
func (a *apacheReading) settle(h, main *vhost) {
	for i, cert := range h.managed {
		key := cert
		if i < len(h.mdKeys) {
			key = h.mdKeys[i]
		}
		a.files(cert, key)
	}
	for _, v := range h.machine {
		a.files(v, v)
	}
	certs, keys, engine, protocol := h.certs, h.keys, h.engine, h.protocol
	if main != nil {
		certs, keys = merged(main.certs, certs), merged(main.keys, keys)
		if engine == "" {
			engine = main.engine
		}
		if protocol == "" {
			protocol = main.protocol
		}
	}
	// "Listen 443 https" alone does not turn TLS on; Protocol does.
	if engine == "off" || engine == "" && protocol != "https" {
		return
	}
	for i, cert := range certs {
		if a.full || a.ctx.Err() != nil {
			return
		}
		key := cert
		if i < len(keys) {
			key = keys[i]
		}
		a.files(cert, key)
	}
}

// merged is what a host has of its own and of the main server: the first three of
// its own take the place of the main server's, as modssl_ctx_cfg_merge does.
func merged(base, own []value) []value {
	const replace = 3
	if len(base) == 0 || len(own) == 0 {
		return append(base[:len(base):len(base)], own...)
	}
	all := append([]value(nil), own[:min(len(own), replace)]...)
	if len(base) > len(all) {
		all = append(all, base[len(all):]...)
	}
	if len(own) > replace {
		all = append(all, own[replace:]...)
	}
	return all
}

// files adds a pair, unless one of the two is no file.
func (a *apacheReading) files(cert, key value) {
	for _, v := range []value{cert, key} {
		if v.text == "" || strings.HasPrefix(v.text, "pkcs11:") {
			return
		}
		if name := unexpanded(v.text); name != "" {
			a.gap(Gap{Path: fileOf(v.at), Sentence: show(v.at) + " names " + show(v.text) + ", and " + show(name) + " is not known",
				Hint: "define it in the configuration"})
			return
		}
	}
	cond := cert.cond
	if cond == "" {
		cond = key.cond
	}
	a.pair(Pair{Cert: under(a.root, cert.text), Key: under(a.root, key.text), At: cert.at, If: cond, Passphrase: a.pass})
}
