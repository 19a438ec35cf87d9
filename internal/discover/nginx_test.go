package discover

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNginxReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
		gaps  []string
	}{
		{
			name: "several pairs in a block are matched in order, whatever the order of the directives",
			files: map[string]string{"nginx.conf": `http { server {
				ssl_certificate_key k1; ssl_certificate c1;
				ssl_certificate c2; ssl_certificate_key k2; } }`},
			want: []string{"c1 k1", "c2 k2"},
		},
		{
			name: "what a server does not name it inherits, also from behind",
			files: map[string]string{"nginx.conf": `http {
				server { ssl_certificate own; }
				server { ssl_certificate_key own.key; ssl_certificate own; }
				server { listen 443 ssl; }
				ssl_certificate common; ssl_certificate_key common.key; ssl_password_file pw; }`},
			want: []string{"own common.key passphrase", "own own.key passphrase", "common common.key passphrase"},
		},
		{
			name: "a pair that all servers replace is loaded by nobody",
			files: map[string]string{"nginx.conf": `http { ssl_certificate common; ssl_certificate_key common.key;
				server { ssl_certificate own; ssl_certificate_key own.key; } }`},
			want: []string{"own own.key"},
		},
		{
			name: "quotes, escapes, comments",
			files: map[string]string{"nginx.conf": "http{server{#ssl_certificate no;\n" +
				`ssl_certificate "with blank";ssl_certificate_key 'it\'s';` + "\n" +
				`ssl_certificate a\ b#c;` + "\r\n\tssl_certificate_key\n\"k\\\\2\"\n;}}"},
			want: []string{`with blank it's`, `a\ b#c k\2`},
		},
		{
			name: "what looks like a directive in a map is none",
			files: map[string]string{"nginx.conf": `events { } http { map $a $b { ssl_certificate no; include deep; } types { ssl_certificate_key no; }
				upstream u { server 127.0.0.1; }
				server { location / { if ($x = "}") { return 200 "ssl_certificate no;"; } }
				ssl_certificate c; ssl_certificate_key k; } }
				server { ssl_certificate no; ssl_certificate_key no; }`, "deep": "ssl_certificate no;"},
			want: []string{"c k"},
		},
		{
			name: "variables, data and engines are no files",
			files: map[string]string{"nginx.conf": `http {
				server { ssl_certificate /x/$ssl_server_name.crt; ssl_certificate_key /x/$ssl_server_name.key; }
				server { ssl_certificate c1; ssl_certificate_key engine:pkcs11:x; }
				server { ssl_certificate c2; ssl_certificate_key "store:file:k"; }
				server { ssl_certificate data:$c; ssl_certificate_key data:$k; }
				server { ssl_certificate c3; ssl_certificate_key k3; ssl_certificate /x/${ssl_server_name}; ssl_certificate_key k; } }
				mail { server { ssl_certificate c$4; ssl_certificate_key k$4; } }`},
			want: []string{"c$4 k$4"},
		},
		{
			name: "what a proxy shows is a pair too, inherited half by half",
			files: map[string]string{"nginx.conf": `http { proxy_ssl_certificate_key all.key;
				server { proxy_ssl_certificate a; grpc_ssl_certificate g; grpc_ssl_certificate_key g.key;
					location / { proxy_ssl_certificate b; proxy_ssl_certificate_key b.key; uwsgi_ssl_certificate ""; uwsgi_ssl_certificate_key ""; } } }
				stream { server { proxy_ssl_certificate s; proxy_ssl_certificate_key s.key; proxy_ssl_password_file pw; } }`},
			want: []string{"a all.key", "g g.key", "b b.key", "s s.key passphrase"},
		},
		{
			name: "includes are relative to the main file's directory and know their block",
			files: map[string]string{
				"nginx.conf":      "http { include conf.d/*.conf; include sites/?[!x].conf; include none/*.conf; server { include snippets/tls; } } include top;",
				"conf.d/a.conf":   "server { include snippets/tls; }",
				"conf.d/.b.conf":  "server { ssl_certificate hidden; ssl_certificate_key hidden; }",
				"conf.d/c.conf~":  "server { ssl_certificate backup; ssl_certificate_key backup; }",
				"snippets/tls":    "ssl_certificate tls/c; ssl_certificate_key tls/k;",
				"sites/1a.conf":   "server { ssl_certificate 1a; ssl_certificate_key 1a.key; }",
				"sites/1x.conf":   "server { ssl_certificate 1x; ssl_certificate_key 1x.key; }",
				"top":             "stream { server { ssl_certificate st; ssl_certificate_key st.key; } }",
				"sites/22.conf.d": "server { ssl_certificate 22; ssl_certificate_key 22.key; }",
			},
			want: []string{"tls/c tls/k", "1a 1a.key", "st st.key"},
		},
		{
			name: "Lua blocks are no configuration",
			files: map[string]string{"nginx.conf": `http { init_by_lua_block {
				local s = "}" -- }
				local t = [==[ } ]] ]==] --[[ } ]] if s == '\'}' then x = {1, {2}} end }
				server { content_by_lua_block { ngx.say("{") }
				ssl_certificate c; ssl_certificate_key k; } }`},
			want: []string{"c k"},
		},
		{
			name:  "a missing include is said",
			files: map[string]string{"nginx.conf": "http { include gone.conf; server { ssl_certificate c; ssl_certificate_key k; } }"},
			want:  []string{"c k"},
			gaps:  []string{"gone.conf does not exist (named at "},
		},
		{
			name:  "a file that includes itself is read once",
			files: map[string]string{"nginx.conf": "http { server { ssl_certificate c; ssl_certificate_key k; } include DIR/nginx.conf; }"},
			want:  []string{"c k"},
			gaps:  []string{"includes itself"},
		},
		{
			name:  "more certificates than keys",
			files: map[string]string{"nginx.conf": "http { server { ssl_certificate c; ssl_certificate_key k; ssl_certificate d; } }"},
			want:  []string{"c k"},
			gaps:  []string{"d has no ssl_certificate_key"},
		},
		{
			name:  "what is no configuration is said, and what stood before it counts",
			files: map[string]string{"nginx.conf": "http {\nserver { ssl_certificate c; ssl_certificate_key k; }\n}\n}\nhttp {}"},
			want:  []string{"c k"},
			gaps:  []string{`nginx.conf:4: unexpected "}"`},
		},
		{
			name:  "an open block",
			files: map[string]string{"nginx.conf": "http {\nserver { ssl_certificate c; ssl_certificate_key k;\n"},
			want:  []string{"c k"},
			gaps:  []string{`nginx.conf:3: a "}" is missing`},
		},
		{
			name:  "a quote that is not closed",
			files: map[string]string{"nginx.conf": "http {\nserver { ssl_certificate 'c; ssl_certificate_key k; } }"},
			gaps:  []string{`nginx.conf:2: the file ends inside a directive`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			found := read(t, Reader{}, "nginx", "-s", "reload", "-c", dir+"/nginx.conf")
			if found.Kind != Nginx || found.Config != dir+"/nginx.conf" {
				t.Errorf("found %s, %s", found.Kind, found.Config)
			}
			wantPairs(t, dir, found, c.want...)
			wantGaps(t, found, c.gaps...)
		})
	}
}

func TestNginxSaysWhere(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"nginx.conf": "http {\n  include a.conf;\n}\n", "a.conf": "# \"\nserver\n{\n  server_name \"a\\\n b\" # x\n  c;\n  ssl_certificate\n    c; ssl_certificate_key k;\n}"})
	found := read(t, Reader{}, "nginx", "-c", dir+"/nginx.conf")
	if len(found.Pairs) != 1 || found.Pairs[0].At != dir+"/a.conf:7" {
		t.Errorf("found %+v", found)
	}
}

// nginxAccepts runs nginx -t.
func nginxAccepts(t *testing.T, dir string) func() (bool, string) {
	bin := program(t, "nginx")
	return func() (bool, string) {
		out, err := exec.Command(bin, "-t", "-e", "stderr", "-p", dir, "-c", dir+"/nginx.conf").CombinedOutput()
		return err == nil, string(out)
	}
}

// TestNginxAgrees spoils one pair after the other and asks nginx itself.
func TestNginxAgrees(t *testing.T) {
	dir := t.TempDir()
	pairs := [][2]string{
		{"tls/common.crt", "tls/common.key"}, {"tls/own.crt", "tls/own.key"}, {"tls/plain.crt", "tls/plain.key"},
		{"tls/a b.crt", "tls/a b.key"}, {"tls/map.crt", "tls/map.key"}, {"tls/hidden.crt", "tls/hidden.key"},
		{"tls/proxy.crt", "tls/proxy.key"}, {"tls/loc.crt", "tls/loc.key"}, {"tls/second.crt", "tls/second.key"},
		{"tls/dollar.crt", "tls/dollar.key"}, {"tls/glob.crt", "tls/glob.key"}, {"tls/unused.crt", "tls/unused.key"},
		{"tls/comment.crt", "tls/comment.key"}, {"tls/both.pem", "tls/both.pem"}, {"tls/\"q\".crt", "tls/\"q\".key"},
		{"tls/bs\\x.crt", "tls/bs\\x.key"}, {"tls/bracket.crt", "tls/bracket.key"}, {"tls/reject.crt", "tls/reject.key"},
	}
	fill(t, dir, pairs)
	write(t, dir, map[string]string{
		"nginx.conf": `pid DIR/nginx.pid; worker_processes 1;
events { worker_connections 16; }
http {
  access_log off; client_body_temp_path DIR/tmp1; proxy_temp_path DIR/tmp2; fastcgi_temp_path DIR/tmp3; uwsgi_temp_path DIR/tmp4; scgi_temp_path DIR/tmp5;
  map $host $x { default 1; ssl_certificate 2; }
  server { listen unix:DIR/s1 ssl; }
  server { listen unix:DIR/s2 ssl; ssl_certificate "tls/own.crt"; ssl_certificate_key 'tls/own.key'; ssl_certificate tls/second.crt; ssl_certificate_key tls/second.key; }
  server { listen unix:DIR/s3; ssl_certificate tls/plain.crt; ssl_certificate_key tls/plain.key; #ssl_certificate tls/comment.crt;
  }
  server { listen unix:DIR/s4 ssl; ssl_certificate "tls/a b.crt"; ssl_certificate_key "tls/a b.key";
    proxy_ssl_certificate tls/proxy.crt; proxy_ssl_certificate_key tls/proxy.key;
    location / { proxy_pass https://127.0.0.1:1; }
    location /x { proxy_pass https://127.0.0.1:1; proxy_ssl_certificate tls/loc.crt; proxy_ssl_certificate_key tls/loc.key; } }
  server { listen unix:DIR/s5 ssl; ssl_certificate tls/dollar.crt; ssl_certificate_key tls/dollar.key; ssl_certificate tls/$ssl_server_name.crt; ssl_certificate_key tls/$ssl_server_name.key; }
  server { listen unix:DIR/s6 ssl; ssl_certificate tls/both.pem; ssl_certificate_key tls/both.pem; }
  server { listen unix:DIR/s7 ssl; ssl_certificate tls/\"q\".crt; ssl_certificate_key 'tls/\"q\".key'; ssl_certificate tls/bs\x.crt; ssl_certificate_key "tls/bs\\x.key"; }
  server { listen unix:DIR/s8 ssl; ssl_reject_handshake on; ssl_certificate tls/reject.crt; ssl_certificate_key tls/reject.key; }
  include sites/*.conf;
  include sites/[a-c^!]?;
  ssl_certificate tls/common.crt; ssl_certificate_key tls/common.key;
}
`,
		"sites/x.conf":  "server { listen unix:DIR/g1 ssl; ssl_certificate tls/glob.crt; ssl_certificate_key tls/glob.key; }",
		"sites/.h.conf": "server { listen unix:DIR/g2 ssl; ssl_certificate tls/hidden.crt; ssl_certificate_key tls/hidden.key; }",
		"sites/b_":      "server { listen unix:DIR/g3 ssl; ssl_certificate tls/bracket.crt; ssl_certificate_key tls/bracket.key; }",
		"sites/d_":      "server { listen unix:DIR/g4 ssl; ssl_certificate tls/unused.crt; ssl_certificate_key tls/unused.key; }",
	})
	found := read(t, Reader{}, "nginx", "-t", "-p", dir, "-c", dir+"/nginx.conf")
	wantGaps(t, found)
	if len(found.Pairs) != 13 {
		t.Errorf("%d pairs: %v", len(found.Pairs), pairLines(dir, found))
	}
	suspects(t, dir, found, pairs, nginxAccepts(t, dir))
}

func TestNginxUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"nginx.conf": "http { include fifo; include dir; include loop; include big; include /proc/self/environ; include /proc/self/*; include /dev/zero; server { ssl_certificate c; ssl_certificate_key k; } }",
		"big":        strings.Repeat("#", 5000),
	})
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/dir", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", dir+"/loop"); err != nil {
		t.Fatal(err)
	}
	found := read(t, Reader{MaxFile: 4999}, "nginx", "-c", dir+"/nginx.conf")
	wantPairs(t, dir, found, "c k")
	wantGaps(t, found, "fifo is not a regular file", "dir is not a regular file", "in a circle", "too large",
		"/proc/self/environ is no file on a disk", "/dev/zero is not a regular file")
}

func TestNginxBounds(t *testing.T) {
	dir := t.TempDir()
	deep := map[string]string{"nginx.conf": "http { include d1; include d1; }"}
	for i := 1; i < 40; i++ {
		deep[fmt.Sprintf("d%d", i)] = fmt.Sprintf("server { ssl_certificate c%d; ssl_certificate_key k%d; } include d%d; include d%d;", i, i, i+1, i+1)
	}
	write(t, dir, deep)
	for _, c := range []struct {
		name   string
		reader Reader
		word   string
	}{
		{"files", Reader{MaxFiles: 100}, "more than 100 files"},
		{"bytes", Reader{MaxBytes: 3000}, "more than 3000 bytes"},
		{"pairs", Reader{MaxPairs: 3, MaxFiles: 500}, "more than 3 pairs"},
		{"depth", Reader{MaxDepth: 5}, "more than 5 deep"},
		{"depth as it is", Reader{}, "than "},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := read(t, c.reader, "nginx", "-c", dir+"/nginx.conf")
			said := false
			for _, g := range found.Unread {
				said = said || strings.Contains(g.Sentence, c.word)
			}
			if !said || len(found.Pairs) < 3 {
				t.Errorf("%d pairs, %+v", len(found.Pairs), found.Unread)
			}
		})
	}
	t.Run("blocks", func(t *testing.T) {
		write(t, dir, map[string]string{"nest.conf": strings.Repeat("a{", 100_000)})
		wantGaps(t, read(t, Reader{}, "nginx", "-c", dir+"/nest.conf"), "blocks stand more than 64 deep")
	})
	t.Run("blocks over files", func(t *testing.T) {
		write(t, dir, map[string]string{"over.conf": "a{b{c{ include next; }}}", "next": "a{b{c{ include next; }}}"})
		wantGaps(t, read(t, Reader{}, "nginx", "-c", dir+"/over.conf"), "includes itself")
	})
	t.Run("entries", func(t *testing.T) {
		write(t, dir, map[string]string{"many.conf": "http { include */*; include many/*; include many/*; }", "many/a": "", "many/b": "", "many/c": ""})
		found := read(t, Reader{MaxEntries: 60}, "nginx", "-c", dir+"/many.conf")
		if n := len(found.Unread); n == 0 || !strings.Contains(found.Unread[n-1].Sentence, "more than 60") {
			t.Errorf("%+v", found.Unread)
		}
	})
	t.Run("gaps", func(t *testing.T) {
		var b strings.Builder
		for i := range 500 {
			fmt.Fprintf(&b, "include gone%d;", i)
		}
		write(t, dir, map[string]string{"gaps.conf": b.String()})
		if found := read(t, Reader{}, "nginx", "-c", dir+"/gaps.conf"); len(found.Unread) != maxGaps+1 {
			t.Errorf("%d gaps", len(found.Unread))
		}
	})
	t.Run("time", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		defer cancel()
		<-ctx.Done()
		found, err := Reader{}.Pairs(ctx, Hint{Commands: [][]string{{"nginx", "-c", dir + "/nginx.conf"}}})
		if err != context.DeadlineExceeded || len(found.Pairs) != 0 {
			t.Errorf("%v, %v", found, err)
		}
	})
}

// TestNginxHeirs: thousands of servers that each inherit thousands of pairs are
// not counted out one by one.
func TestNginxHeirs(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	b.WriteString("http {")
	for i := range 2000 {
		fmt.Fprintf(&b, "ssl_certificate c%d; ssl_certificate_key k%d;\n", i, i)
	}
	b.WriteString(strings.Repeat("server { ssl_password_file x; }\n", 2000) + "}")
	write(t, dir, map[string]string{"nginx.conf": b.String()})
	found := read(t, Reader{MaxPairs: 2500}, "nginx", "-c", filepath.Join(dir, "nginx.conf"))
	if len(found.Pairs) != 2000 || len(found.Unread) != 1 || !strings.Contains(found.Unread[0].Sentence, "named more than") {
		t.Errorf("%d pairs, %+v", len(found.Pairs), found.Unread)
	}
}
