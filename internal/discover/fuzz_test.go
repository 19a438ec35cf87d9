package discover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// small bounds, so that a fuzzer reaches them.
var small = Reader{MaxFiles: 50, MaxFile: 1 << 16, MaxBytes: 1 << 18, MaxDepth: 5, MaxPairs: 20, MaxEntries: 200}

// fuzz reads main as the configuration of a server, with other beside it under
// some names, and checks what holds for any of them.
func fuzz(f *testing.F, kind Kind, main string, flags ...string) {
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, conf, other string) {
		if len(conf)+len(other) > 1<<15 {
			return
		}
		for name, text := range map[string]string{main: conf, "other": other, "sites/a.conf": other, "list": other, "sites/.hidden": "x"} {
			path := filepath.Join(dir, name)
			os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		hint := Hint{Commands: [][]string{inDir(dir, flags)}}
		r := small
		r.where = placesIn(dir)
		found, err := r.Pairs(context.Background(), hint)
		if err != nil || found.Kind != kind || found.Config != filepath.Join(dir, main) {
			t.Fatalf("%+v, %v", found, err)
		}
		seen := map[[2]string]bool{}
		for _, p := range found.Pairs {
			for _, path := range []string{p.Cert, p.Key} {
				if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
					t.Errorf("%q is no path", path)
				}
			}
			file := fileOf(p.At)
			if n, err := strconv.Atoi(strings.TrimPrefix(p.At, file+":")); err != nil || n < 1 {
				t.Errorf("at %q", p.At)
			} else if data, err := os.ReadFile(file); err != nil || n > strings.Count(string(data), "\n")+1 {
				t.Errorf("at %q, a file of %d lines: %v", p.At, strings.Count(string(data), "\n")+1, err)
			}
			if seen[[2]string{p.Cert, p.Key}] {
				t.Errorf("%+v is there twice", p)
			}
			seen[[2]string{p.Cert, p.Key}] = true
		}
		if len(found.Pairs) > r.MaxPairs || len(found.Unread) > maxGaps+2 {
			t.Errorf("%d pairs, %d gaps", len(found.Pairs), len(found.Unread))
		}
		for _, g := range found.Unread {
			if g.Sentence == "" || g.Path == "" || len(g.Sentence) > 8192 || strings.ContainsFunc(g.Sentence+g.Hint, func(c rune) bool { return !strconv.IsPrint(c) }) {
				t.Errorf("gap %+v", g)
			}
		}
		again, err := r.Pairs(context.Background(), hint)
		if err != nil || !reflect.DeepEqual(found, again) {
			t.Errorf("read again: %+v, %v, want %+v", again, err, found)
		}
	})
}

func FuzzNginx(f *testing.F) {
	f.Add("http { include other; include sites/*; server { ssl_certificate c; ssl_certificate_key k; } }", "server { ssl_certificate \"a b\"; ssl_certificate_key 'k'; }")
	f.Add("stream{server{proxy_ssl_certificate a;proxy_ssl_certificate_key $b;}}}", "x_by_lua_block { [==[ }]==] --[[}]] \"}\" }")
	f.Add("http { ssl_certificate c; ssl_certificate_key k; map a b { include other; } server {} include nginx.conf; }", "include other;")
	f.Add("mail {\n# x\nserver\\ { ${a}{ \"\\\"\" ''", "\x00\xff{;")
	fuzz(f, Nginx, "nginx.conf", "nginx", "-c", "DIR/nginx.conf")
}

func FuzzApache(f *testing.F) {
	f.Add("Define a DIR\nInclude ${a}/other\nInclude sites\nInclude sites/*\nSSLEngine on\n", "<VirtualHost *:1>\nSSLCertificateFile \"a \\\" b\"\nSSLCertificateKeyFile k\n</VirtualHost>")
	f.Add("<Macro M $a ${b}>\nSSLEngine on\nSSLCertificateFile x$a${b}\nUse N $a\n</Macro>\n<Macro N $c>\nUse M $c $c\n</Macro>\nUse M 1 2", "")
	f.Add("<IfDefine A>\n<IfModule !x>\nSSLCertificateFile a\n</IfDefine>\nSSLEngine on\n<IfFile other>\nSSLCertificateFile b", "Define a ${a}${a}\n")
	f.Add("SSLEngine \\\non\nSSLCertificateFile \\\n\\\n a\\", "<")
	fuzz(f, Apache, "httpd.conf", "httpd", "-d", "DIR", "-f", "httpd.conf")
}

func FuzzHAProxy(f *testing.F) {
	f.Add("global\n crt-base DIR\n setenv A x\nfrontend f\n bind :1 ssl crt \"${A}/b\" crt-list DIR/list crt DIR/sites\n", "a.pem [key b] x\n@c\nd[")
	f.Add("crt-store x\n load crt a key b alias c\n.if a\nbackend b\n server s 1 ssl crt 'a b'\\ c\n.endif\n", "")
	f.Add("global\n ssl-load-extra-files none\nlisten l\n bind :1 crt \"${B[*]}\" crt \"$C\" crt \"${D-e}\" crt \\x41\n ssl-f-use crt a key b", "\n")
	fuzz(f, HAProxy, "haproxy.cfg", "haproxy", "-f", "DIR/haproxy.cfg", "-f", "DIR/other")
}

// FuzzQuotes: what is written in the quotes of a server is read as it was.
func FuzzQuotes(f *testing.F) {
	f.Add("/etc/ssl/a b.pem")
	f.Add(`\"'#;{}$x${y}`)
	f.Add("tab\tand é \x00 \\t \\n")
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, word string) {
		if len(word) > 1000 || word == "" {
			return
		}
		l := &nginxLexer{data: []byte(`d "` + escape.Replace(word) + `";`), line: 1}
		if st := l.next(); st.n != 2 || st.words[1] != word || st.end != ';' || l.next().end != 0 || l.wrong != "" {
			t.Errorf("nginx reads %q of %q, %s", st.words, word, l.wrong)
		}
		if got, rest := apacheWord(`"` + escape.Replace(word) + `" x`); got != word || rest != " x" {
			t.Errorf("Apache reads %q and %q of %q", got, rest, word)
		}
		if got := shellWords("a '" + strings.ReplaceAll(word, "'", `'\''`) + "';b"); len(got) != 2 || !slices.Equal(got[0], []string{"a", word}) {
			t.Errorf("a shell reads %q of %q", got, word)
		}
		if strings.ContainsAny(word, "\n\r") {
			return // the end of a line even in quotes
		}
		none := func(string) (string, bool) { return "", false }
		want := []haWord{{text: "a"}, {text: word}, {text: "b"}}
		if got, ok := haproxyWords(`a "`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(word)+`" b # c`, none); !ok || !slices.Equal(got, want) {
			t.Errorf("HAProxy reads %q of %q", got, word)
		}
		if strings.Contains(word, "'") {
			return
		}
		if got, ok := haproxyWords("a '"+word+"' b", none); !ok || !slices.Equal(got, want) {
			t.Errorf("HAProxy reads %q of %q in single quotes", got, word)
		}
	})
}

// FuzzGlob compares with the standard library where both mean the same.
func FuzzGlob(f *testing.F) {
	f.Add("*.conf", "a.conf")
	f.Add("a*b?c*", "axxbycz")
	f.Add("[a-c]x\\*", "bx*")
	f.Add("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		got := matches(pattern, name)
		for _, s := range []string{pattern, name} {
			if strings.HasPrefix(s, ".") || strings.Contains(s, "/") {
				return
			}
			for _, c := range []byte(s) { // the library matches characters, servers match bytes
				if c >= 0x80 {
					return
				}
			}
		}
		if strings.ContainsAny(pattern, `[\`) || strings.HasPrefix(pattern, `\.`) {
			return
		}
		if want, err := filepath.Match(pattern, name); err == nil && want != got {
			t.Errorf("matches(%q, %q) = %v", pattern, name, got)
		}
	})
}

// FuzzForeign feeds the small parsers of what the kernel and people write.
func FuzzForeign(f *testing.F) {
	f.Add("12 (a) b) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 77 0")
	f.Add("   0: 0100007F:01BB 00000000:0000 0A 0 0 0 0 0 4711 1")
	f.Add("sh -c 'nginx -c \"a' -g b")
	f.Add("export A='x'\nB=\"\n")
	f.Add("--[==[ ]==] [[ ]] } {")
	f.Fuzz(func(t *testing.T, text string) {
		if st, ok := parseStat(text); ok && (st.ticks < 0 || st.parent < 0) {
			t.Errorf("stat %+v", st)
		}
		if s, ok := parseTCP(text); ok && (s.inode == 0 || !s.bound.IsValid()) {
			t.Errorf("socket %+v", s)
		}
		if c := printable(text); strings.ContainsFunc(c, func(r rune) bool { return !strconv.IsPrint(r) && r != '\u00a0' }) || len(c) > 64*3 {
			t.Errorf("printable %q", c)
		}
		for name, v := range assignments(text) {
			if name == "" || strings.ContainsAny(v, "$`\n") {
				t.Errorf("%q=%q", name, v)
			}
		}
		recognise(strings.Fields(text), 0)
		recognise([]string{"sh", "-c", text}, 0)
		for _, kind := range []Kind{Nginx, Apache, HAProxy} {
			if inv := flags(kind, "x", strings.Fields(text)); strings.ContainsAny(fmt.Sprint(inv.configs, inv.prefix), "$`") {
				t.Errorf("%+v", inv)
			}
		}
		l := &nginxLexer{data: []byte(text), line: 1}
		l.skipLua()
		if l.pos > len(text) || l.line > strings.Count(text, "\n")+1 {
			t.Errorf("at %d:%d", l.line, l.pos)
		}
	})
}

// TestHostile: what is made to take for ever is read in one go.
func TestHostile(t *testing.T) {
	const n = 1 << 18
	for _, c := range []struct{ name, conf string }{
		{"names that are never closed", strings.Repeat("${", n)},
		{"names that are closed at the end", strings.Repeat("${", n) + "}"},
		{"joined lines", strings.Repeat("aaa\\\n", n)},
		{"empty joined lines", strings.Repeat("\\\n", n)},
		{"open blocks and sections", strings.Repeat("<a>\n{", n)},
		{"blocks", strings.Repeat("a{}", n)},
		{"certificates", "http{server{" + strings.Repeat("ssl_certificate a;ssl_certificate_key b;", n/8)},
		{"hosts", strings.Repeat("<VirtualHost a>\nSSLEngine on\nSSLCertificateFile a\n</VirtualHost>\n", n/16)},
		{"growing definitions", "Define a aaaaaaaaaaaaaaaa\n" + strings.Repeat("Define a ${a}${a}${a}\nSSLCertificateFile ${a}${a}\n", n/32)},
		{"growing macros", "<Macro M $a>\nUse M $a$a$a$a$a$a$a$a\nUse M $a\n</Macro>\nUse M xxxxxxxxxxxx\n"},
		{"large macros", "<Macro M $a>\n" + strings.Repeat("$a", n) + "\n</Macro>\n" + strings.Repeat("Use M "+strings.Repeat("x", 1000)+"\n", 1000)},
		{"Lua", "http{a_by_lua_block{" + strings.Repeat("[=[[==[--[", n/4)},
		{"Lua strings", "http{a_by_lua_block{" + strings.Repeat("'\"\\", n)},
		{"variables", "global\n" + strings.Repeat("setenv A \"${A}${A}x\"\n", n/32) + "frontend f\nbind :1 crt " + strings.Repeat(`"${A}`, n/4)},
		{"words", "frontend f\n" + strings.Repeat("bind "+strings.Repeat("crt a ", 1000)+"\n", 100)},
		{"quotes", strings.Repeat("\"'", n)},
		{"patterns", "Include " + strings.Repeat("*/", 1000) + "*\ninclude " + strings.Repeat("*", 4000) + ";"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"conf": c.conf})
			for _, server := range []string{"nginx -c DIR/conf", "httpd -d DIR -f conf", "haproxy -f DIR/conf"} {
				found := read(t, Reader{}, inDir(dir, strings.Fields(server))...)
				if len(found.Pairs) > 20_000 || len(found.Unread) > maxGaps+2 {
					t.Errorf("%s: %d pairs, %d gaps", server, len(found.Pairs), len(found.Unread))
				}
			}
		})
	}
}
