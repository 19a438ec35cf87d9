package discover

import (
	"context"
	"os/exec"
	"testing"
)

func TestHAProxyReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		args  []string
		want  []string
		gaps  []string
	}{
		{
			name: "bind and server lines, relative to crt-base",
			files: map[string]string{"haproxy.cfg": `
global
    crt-base DIR/tls # comment
    stats socket ipv4@127.0.0.1:1 ssl crt stats.pem level admin
frontend f # crt no
    bind :443 ssl crt a.pem alpn h2 crt /x/b.pem
    default-bind crt e.pem
backend b
    default-server ssl crt c.pem
    server s 127.0.0.1:1 ssl verify none crt 'd e'.pem
    http-request set-header crt no.pem
`},
			want: []string{"tls/stats.pem tls/stats.pem", "tls/a.pem tls/a.pem", "/x/b.pem /x/b.pem", "tls/e.pem tls/e.pem", "tls/c.pem tls/c.pem", "tls/d e.pem tls/d e.pem"},
		},
		{
			name: "quotes, escapes and variables",
			files: map[string]string{"haproxy.cfg": `global
  setenv D DIR
  presetenv D no
  setenv EMPTY " "
  setenv TWO "crt ${D}/2a crt  ${D}/2b"
  unsetenv GONE
defaults
frontend f
  bind :1 crt "${D}/a\"b" crt $D/none crt ""DIR/c\ \x64\# crt "$D/e'f" crt "${NO-DIR/g}" crt "${D-x}/h"
  bind :2 "${TWO[*]}" crt "${EMPTY[*]}" '"' "${NONE[*]}"
  bind :3 crt "${MISSING}/x"
  bind :4 "unclosed
  bind :5 crt DIR/i#crt no
`},
			// $D outside of double quotes is no variable.
			want: []string{`a"b a"b`, `/$D/none /$D/none`, "c d# c d#", "e'f e'f", "g g", "h h", "2a 2a", "2b 2b", `/" /"`, "i i"},
			gaps: []string{"environment variable NONE", "environment variable MISSING", "is no line of a configuration"},
		},
		{
			name: "directories, bundles and keys beside",
			files: map[string]string{
				"haproxy.cfg": `frontend f
  bind :1 ssl crt DIR/d crt DIR/bundle.pem crt DIR/lone.pem crt DIR/gone.pem
`,
				"d/a.pem": "", "d/a.pem.key": "", "d/b.pem": "-----BEGIN EC PRIVATE KEY-----", "d/b.pem.key": "", "d/c.rsa": "", "d/c.ocsp": "", "d/c.issuer": "",
				"d/c.sctl": "", "d/.hidden": "", "d/noext": "", "d/c.dhparam": "", "d/sub/x.pem": "",
				"bundle.pem.rsa": "", "bundle.pem.ecdsa": "", "bundle.pem.ecdsa.key": "", "bundle.pem.ed": "", "lone.pem": "", "lone.pem.key": "",
			},
			want: []string{"d/a.pem d/a.pem.key", "d/b.pem d/b.pem", "d/c.dhparam d/c.dhparam", "d/c.rsa d/c.rsa", "d/noext d/noext",
				"bundle.pem.rsa bundle.pem.rsa", "bundle.pem.ecdsa bundle.pem.ecdsa.key", "lone.pem lone.pem.key", "gone.pem gone.pem"},
		},
		{
			name: "extra files without keys and bundles, and without the extension",
			files: map[string]string{"haproxy.cfg": `global
  ssl-load-extra-del-ext
frontend f
  bind :1 ssl crt DIR/x.crt
global
  ssl-load-extra-files ocsp
frontend g
  bind :2 ssl crt DIR/y.pem crt DIR/z
global
  ssl-load-extra-files bundle key
frontend g
  bind :2 ssl crt DIR/z crt DIR/y2.pem
`, "x.crt": "", "x.key": "", "x.crt.key": "", "y.pem": "", "y.pem.key": "", "z.rsa": "", "y2.pem": "", "y2.pem.key": ""},
			want: []string{"x.crt x.key", "y.pem y.pem", "z z", "z.rsa z.rsa", "y2.pem y2.pem.key"},
		},
		{
			name: "lists",
			files: map[string]string{"haproxy.cfg": `global
  crt-base DIR/tls
frontend f
  bind :1 ssl crt-list DIR/list crt-list DIR/list
  ssl-f-use crt inline.pem key DIR/inline.key ssl-min-ver TLSv1.3
  ssl-f-use crt short.pem
`, "list": "# crt no\n\na.pem\n/x/b.pem [alpn h2 ssl-min-ver TLSv1.2] *.example.test !no.example.test\n  c.pem[key DIR/c.key ocsp-update on]\n@store/d\n", "tls/a.pem": "", "tls/a.pem.key": ""},
			want: []string{"tls/a.pem tls/a.pem.key", "/x/b.pem /x/b.pem", "tls/c.pem c.key", "tls/inline.pem inline.key", "tls/short.pem tls/short.pem"},
		},
		{
			name: "stores",
			files: map[string]string{"haproxy.cfg": `global
  crt-base DIR/tls
  key-base DIR/keys
crt-store
  load crt a.pem key a.key
  load crt b.pem alias b
crt-store web
  crt-base DIR/web
  key-base DIR/webkeys
  load crt "c.pem" key "c.key" alias "c" ocsp-update on
  load crt own.pem acme le domains x
frontend f
  bind :1 ssl crt a.pem crt @web/c crt "@/b"
`, "tls/a.pem": "", "tls/a.pem.key": ""},
			want: []string{"tls/a.pem keys/a.key", "tls/b.pem tls/b.pem", "web/c.pem webkeys/c.key"},
		},
		{
			name: "conditions are not judged",
			files: map[string]string{"haproxy.cfg": `frontend f
.if defined(TLS)
  bind :1 ssl crt DIR/a
.if version_atleast(2.4)
  bind :1 ssl crt DIR/b
.endif
.else
  bind :1 ssl crt DIR/c
.endif
  bind :1 ssl crt DIR/d crt DIR/a
`},
			want: []string{"a a", "b b if .if defined(TLS) .if version_atleast(2.4)", "c c if .if defined(TLS)", "d d"},
		},
		{
			name: "several files are one configuration, of a directory the .cfg ones in order",
			files: map[string]string{
				"haproxy.cfg": "global\n crt-base DIR/x\n",
				"d/2.cfg":     " bind :1 crt b\n", "d/1.cfg": "frontend f\n bind :1 crt a", "d/3.cfg~": " bind :1 crt c", "d/.4.cfg": " bind :1 crt d",
			},
			args: []string{"-f", "DIR/d", "-D", "-x", "/sock", "-sf", "12", "13"},
			want: []string{"x/a x/a", "x/b x/b"},
		},
		{
			name: "default-path",
			files: map[string]string{
				"haproxy.cfg": "global\n default-path origin DIR/o\nfrontend f\n bind :1 crt a crt-list l\nglobal\n default-path config\nfrontend g\n bind :1 crt b\nglobal\n default-path parent\nfrontend g\n bind :1 crt c",
				"o/l":         "d\n",
			},
			want: []string{"o/a o/a", "o/d o/d", "b b", "../c ../c"},
		},
		{
			name:  "what is missing is said",
			files: map[string]string{"haproxy.cfg": "frontend f\n bind :1 crt-list DIR/gone\n"},
			args:  []string{"--", "DIR/other.cfg"},
			gaps:  []string{"/gone does not exist (named at ", "other.cfg does not exist"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			command := append([]string{"haproxy", "-c", "-f", dir + "/haproxy.cfg"}, inDir(dir, c.args)...)
			found := read(t, Reader{}, command...)
			if found.Kind != HAProxy || found.Config != dir+"/haproxy.cfg" {
				t.Errorf("found %s, %s", found.Kind, found.Config)
			}
			wantPairs(t, dir, found, inDir(dir, c.want)...)
			wantGaps(t, found, c.gaps...)
		})
	}
}

// TestHAProxyAgrees spoils one pair after the other and asks HAProxy itself.
func TestHAProxyAgrees(t *testing.T) {
	bin := program(t, "haproxy")
	dir := t.TempDir()
	var pairs [][2]string
	for _, n := range []string{"one.pem", "a b.pem", "quote\".pem", "env.pem", "dir/d1.pem", "dir/d2.dhparam", "dir/d3.rsa", "dir/noext", "bundle.pem.rsa", "bundle.pem.ecdsa",
		"list1.pem", "list2.pem", "server.pem", "late.pem", "stats.pem", "unused.pem", "comment.pem", "dir/.hidden", "dir/sub/x.pem", "hash.pem", "dropped.pem", "single$D.pem", "two.pem", "words.pem"} {
		pairs = append(pairs, [2]string{n, n})
	}
	pairs = append(pairs, [2]string{"beside.crt", "beside.crt.key"}, [2]string{"dir/d4.pem", "dir/d4.pem.key"})
	fill(t, dir, pairs)
	write(t, dir, map[string]string{
		"one.cfg": `global
  maxconn 10
  crt-base DIR
  setenv D DIR
  setenv TWO "crt DIR/two.pem  ssl"
  stats socket DIR/st ssl crt stats.pem
defaults
  mode http
  timeout client 1s
  timeout server 1s
  timeout connect 1s
frontend f
  bind unix@DIR/s1 ssl crt one.pem crt a\ b.pem crt "quote\".pem" # crt comment.pem
  bind unix@DIR/s2 ssl crt "${D}/env.pem" crt dir crt bundle.pem
  bind unix@DIR/s3 ssl crt-list DIR/list
  bind unix@DIR/s4 ssl crt beside.crt crt 'single$D.pem' crt "${NOBODY_SETS_THIS-hash.pem}"
  bind unix@DIR/s7 "${TWO[*]}" crt ""words.pem""
  default_backend b
`,
		"d/b.cfg":  "backend b\n  server s 127.0.0.1:1 ssl verify none crt server.pem\n",
		"d/c.cfg":  "frontend g\n  bind unix@DIR/s5 ssl crt late.pem\n  default_backend b\n",
		"d/x.conf": "frontend h\n  bind unix@DIR/s6 ssl crt dropped.pem\n",
		"list":     "list1.pem [alpn h2] *.example.test\n#unused.pem\nDIR/list2.pem\n",
	})
	command := []string{bin, "-c", "-f", dir + "/one.cfg", "-f", dir + "/d"}
	found, err := Reader{}.Pairs(context.Background(), Hint{Commands: [][]string{command}})
	if err != nil {
		t.Fatal(err)
	}
	wantGaps(t, found)
	if len(found.Pairs) != 21 {
		t.Errorf("%d pairs: %v", len(found.Pairs), pairLines(dir, found))
	}
	suspects(t, dir, found, pairs, func() (bool, string) {
		out, err := exec.Command(bin, command[1:]...).CombinedOutput()
		return err == nil, string(out)
	})
}
