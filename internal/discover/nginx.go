package discover

import (
	"fmt"
	"strings"
)

// value is a word of a configuration and where it stands.
type value struct {
	text string
	at   string
	cond string // the condition it stands under, where that was not judged
}

// role says which directives a block of nginx has.
type role uint8

const (
	roleOther  role = iota // map, geo, types, events: what looks like a directive there is none
	roleMain               // the top level
	roleModule             // http, stream, mail
	roleServer
	roleInner // location, if, limit_except
)

// block is an open block of the configuration. A module and a server hold the
// certificates named in them; what is not named is the parent's.
type block struct {
	parent  *block
	role    role
	mail    bool // mail knows no variables: a dollar is a dollar
	heirs   bool // a module: there is a server that names no certificate of its own
	kept    bool // it is in nginxReading.named
	certs   []value
	keys    []value
	pass    bool
	clients []client
}

// client is what a proxy shows to a server behind it: proxy_ssl_certificate and
// its likes.
type client struct {
	module    string // proxy, grpc, uwsgi
	cert, key *value
	pass      bool
}

// nginxReading reads one configuration.
type nginxReading struct {
	*reading
	prefix string   // what relative paths are relative to
	named  []*block // blocks that name certificates, in order
}

// maxBlocks is how deep blocks may stand in each other.
const maxBlocks = 64

func (r *reading) nginx(inv invocation) {
	conf := inv.configs[0]
	r.found.Config = conf
	n := &nginxReading{reading: r, prefix: dirOf(conf)}
	n.file(conf, "", &block{role: roleMain}, 0)
	for _, b := range n.named {
		n.settle(b)
	}
}

// file reads a file into block b, which stands depth blocks deep.
func (n *nginxReading) file(path, at string, b *block, depth int) {
	data, ok := n.enter(path, at)
	if !ok {
		return
	}
	defer n.leave()
	l := &nginxLexer{data: data, line: 1}
	top, open := b, depth
	for !n.done() {
		st := l.next()
		switch st.end {
		case ';':
			n.directive(path, st, b, depth)
		case '{':
			if strings.HasSuffix(st.word(0), "_by_lua_block") {
				l.skipLua()
				continue
			}
			if depth++; depth > maxBlocks {
				n.gap(Gap{Path: path, Sentence: fmt.Sprintf("%s:%d: blocks stand more than %d deep; the rest of the file is not read", show(path), st.line, maxBlocks)})
				return
			}
			b = b.open(st.word(0))
		case '}':
			if depth == open {
				n.broken(path, st.line, `unexpected "}"`)
				return
			}
			depth--
			b.close()
			b = b.parent
		case 0:
			if l.wrong != "" {
				n.broken(path, st.line, l.wrong)
			} else if b != top {
				n.broken(path, st.line, `a "}" is missing`)
			}
			// What was read of open blocks counts nevertheless.
			for ; b != top; b = b.parent {
				b.close()
			}
			return
		}
	}
}

func (n *nginxReading) broken(path string, line int, why string) {
	n.gap(Gap{
		Path:     path,
		Sentence: fmt.Sprintf("%s:%d: %s; the file is not read any further", show(path), line, why),
		Hint:     "nginx refuses this as well: nginx -t",
	})
}

// open opens a block named word.
func (b *block) open(word string) *block {
	inner := &block{parent: b, mail: b.mail}
	switch {
	case b.role == roleMain && (word == "http" || word == "stream" || word == "mail"):
		inner.role, inner.mail = roleModule, word == "mail"
	case b.role == roleModule && word == "server":
		inner.role = roleServer
	case (b.role == roleServer || b.role == roleInner) && (word == "location" || word == "if" || word == "limit_except"):
		inner.role = roleInner
	}
	return inner
}

func (b *block) close() {
	// A server with nothing of its own, of which there may be thousands, is
	// remembered in its parent only.
	if b.role == roleServer && len(b.certs) == 0 && len(b.keys) == 0 {
		b.parent.heirs = true
	}
}

func (n *nginxReading) directive(path string, st statement, b *block, depth int) {
	name := st.word(0)
	if len(name) < len("include") {
		return
	}
	if name == "include" {
		n.include(path, st, b, depth)
		return
	}
	if b.role != roleModule && b.role != roleServer && b.role != roleInner {
		return
	}
	here := func() value { return value{text: st.word(1), at: line(path, st.line)} }
	switch {
	case b.role != roleInner && name == "ssl_certificate":
		b.certs = append(b.certs, here())
	case b.role != roleInner && name == "ssl_certificate_key":
		b.keys = append(b.keys, here())
	case b.role != roleInner && name == "ssl_password_file":
		b.pass = true
	default:
		module, what, ok := strings.Cut(name, "_ssl_")
		if !ok || module != "proxy" && module != "grpc" && module != "uwsgi" {
			return
		}
		switch what {
		case "certificate":
			v := here()
			b.client(module).cert = &v
		case "certificate_key":
			v := here()
			b.client(module).key = &v
		case "password_file":
			b.client(module).pass = true
		default:
			return
		}
	}
	if !b.kept {
		b.kept = true
		n.named = append(n.named, b)
	}
	// Each value costs some hundred bytes of memory and two dozen of the file.
	if len(b.certs) > n.MaxPairs || len(b.keys) > n.MaxPairs || len(n.named) > 4*n.MaxPairs {
		n.spent(path, "it names more than %d pairs", n.MaxPairs)
	}
}

func (b *block) client(module string) *client {
	for i := range b.clients {
		if b.clients[i].module == module {
			return &b.clients[i]
		}
	}
	b.clients = append(b.clients, client{module: module})
	return &b.clients[len(b.clients)-1]
}

func (n *nginxReading) include(path string, st statement, b *block, depth int) {
	mask, at := under(n.prefix, st.word(1)), line(path, st.line)
	if st.word(1) == "" {
		return
	}
	if !isGlob(mask) {
		n.file(mask, at, b, depth)
		return
	}
	for _, match := range n.glob(mask, at) {
		n.file(match, at, b, depth)
	}
}

// settle adds the pairs of a block, with what it inherits. It runs when all is
// read: a parent's directive may stand behind the block.
func (n *nginxReading) settle(b *block) {
	for _, c := range b.clients {
		cert, key, pass := c.cert, c.key, c.pass
		for up := b.parent; up != nil; up = up.parent {
			for _, above := range up.clients {
				if above.module == c.module {
					if cert == nil {
						cert = above.cert
					}
					if key == nil {
						key = above.key
					}
					pass = pass || above.pass
				}
			}
		}
		if cert != nil && key != nil {
			n.files(*cert, *key, pass, b.mail)
		}
	}

	certs, keys, pass := b.certs, b.keys, b.pass
	switch b.role {
	case roleModule:
		// Only servers load certificates.
		if !b.heirs {
			return
		}
	case roleServer:
		if len(certs) == 0 {
			certs = b.parent.certs
		}
		if len(keys) == 0 {
			keys = b.parent.keys
		}
		pass = pass || b.parent.pass
	default:
		return
	}
	if !b.mail {
		for _, v := range [][]value{certs, keys} {
			for _, v := range v {
				// One variable, and nginx loads all of the block at each handshake.
				if strings.Contains(v.text, "$") {
					return
				}
			}
		}
	}
	if len(certs) > len(keys) {
		at := certs[len(keys)].at
		n.gap(Gap{Path: fileOf(at), Sentence: fmt.Sprintf(
			"%s: %s has no ssl_certificate_key", show(at), show(certs[len(keys)].text)), Hint: "nginx refuses this as well: nginx -t"})
		certs = certs[:len(keys)]
	}
	for i, cert := range certs {
		if n.full || n.ctx.Err() != nil {
			return
		}
		n.files(cert, keys[i], pass, b.mail)
	}
}

// files adds a pair, unless one of the two is no file.
func (n *nginxReading) files(cert, key value, pass, literal bool) {
	for _, v := range []string{cert.text, key.text} {
		if v == "" || !literal && strings.Contains(v, "$") {
			return
		}
		for _, scheme := range []string{"data:", "engine:", "store:"} {
			if strings.HasPrefix(v, scheme) {
				return
			}
		}
	}
	n.pair(Pair{Cert: under(n.prefix, cert.text), Key: under(n.prefix, key.text), At: cert.at, Passphrase: pass})
}
