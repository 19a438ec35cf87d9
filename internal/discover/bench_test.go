package discover

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// bench reads a configuration of n pairs over and over.
func bench(b *testing.B, n int, files map[string]string, command ...string) {
	dir := b.TempDir()
	write(b, dir, files)
	hint := Hint{Commands: [][]string{inDir(dir, command)}}
	size := 0
	for _, text := range files {
		size += len(text)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		found, err := Reader{}.Pairs(context.Background(), hint)
		if err != nil || len(found.Pairs) != n || len(found.Unread) > 0 {
			b.Fatalf("%d pairs, %v, %v", len(found.Pairs), found.Unread, err)
		}
	}
}

const benchServer = `  server {
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name www%[1]d.example.test site%[1]d.example.test;
    ssl_certificate     /etc/letsencrypt/live/site%[1]d.example.test/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/site%[1]d.example.test/privkey.pem;
    access_log /var/log/nginx/site%[1]d.log; # each has its own
    location / { proxy_pass http://127.0.0.1:%[1]d; proxy_set_header Host $host; }
  }
`

// BenchmarkNginx2000 is one file with 2,000 server blocks.
func BenchmarkNginx2000(b *testing.B) {
	var conf strings.Builder
	conf.WriteString("http {\n")
	for i := range 2000 {
		fmt.Fprintf(&conf, benchServer, i)
	}
	conf.WriteString("}\n")
	bench(b, 2000, map[string]string{"nginx.conf": conf.String()}, "nginx", "-c", "DIR/nginx.conf")
}

// BenchmarkNginx10000 is 10,000 pairs, each in a file of its own.
func BenchmarkNginx10000(b *testing.B) {
	files := map[string]string{"nginx.conf": "http {\n  include sites/*.conf;\n}\n"}
	for i := range 10_000 {
		files[fmt.Sprintf("sites/%d.conf", i)] = fmt.Sprintf(benchServer, i)
	}
	bench(b, 10_000, files, "nginx", "-c", "DIR/nginx.conf")
}

// BenchmarkApache2000 is one file with 2,000 virtual hosts.
func BenchmarkApache2000(b *testing.B) {
	var conf strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&conf, `<VirtualHost *:443>
  ServerName site%[1]d.example.test
  DocumentRoot /srv/www/site%[1]d
  SSLEngine on
  SSLCertificateFile /etc/letsencrypt/live/site%[1]d.example.test/fullchain.pem
  SSLCertificateKeyFile /etc/letsencrypt/live/site%[1]d.example.test/privkey.pem
</VirtualHost>
`, i)
	}
	bench(b, 2000, map[string]string{"httpd.conf": conf.String()}, "httpd", "-d", "DIR", "-f", "httpd.conf")
}

// BenchmarkHAProxy10000 is a directory of 10,000 files.
func BenchmarkHAProxy10000(b *testing.B) {
	files := map[string]string{"haproxy.cfg": "frontend f\n bind :443 ssl crt DIR/tls\n"}
	for i := range 10_000 {
		files[filepath.Join("tls", fmt.Sprintf("site%d.pem", i))] = "x"
	}
	bench(b, 10_000, files, "haproxy", "-f", "DIR/haproxy.cfg")
}

// BenchmarkListeners looks through the processes of this host.
func BenchmarkListeners(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	for b.Loop() {
		if found, err := Listeners(context.Background(), addr); err != nil || len(found) != 1 {
			b.Fatal(found, err)
		}
	}
}
