package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// lab is where one client is run: a CA, a web server, and a directory.
type lab struct {
	out, cases string
	client     string
	version    string
	dir        string
	replace    *strings.Replacer
	pebble     *certtest.Pebble
	ca         *faultCA
	web        *http.Server
	webServed  chan struct{}
	clientPort int  // where clients that answer http-01 themselves listen
	again      bool // nothing is run, and the samples that are there are read
	wrong      int
}

func newLab(out, cases, client string, replace []string) (*lab, error) {
	l := &lab{out: out, cases: cases, client: client}
	var err error
	if l.dir, err = os.MkdirTemp("", "capture-"); err != nil {
		return nil, err
	}
	l.replace = strings.NewReplacer(append(replace, l.dir, "/srv/lab")...)
	for _, d := range []string{"webroot/.well-known/acme-challenge", "home", "tmp"} {
		if err := os.MkdirAll(l.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	// The lab is somebody's temporary directory; servers that drop root read in it.
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return nil, err
	}
	if l.clientPort, err = certtest.FreePort(); err != nil {
		return nil, err
	}
	here := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	hosts := map[string][]netip.Addr{refused: {netip.MustParseAddr("127.0.0.2")}}
	for _, n := range []string{"lab.test", "two.test", limited, soon, paused, busy, gateway, nonce, nonces, rejected, newline, hang, caa, late, wrong, forged, raw, caaEarly} {
		hosts[n], hosts["www."+n] = here, here
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if l.pebble, err = certtest.NewPebble(certtest.PebbleOptions{HTTPPort: web.Addr().(*net.TCPAddr).Port, Hosts: hosts}); err != nil {
		web.Close()
		return nil, err
	}
	if l.ca, err = newFaultCA(l.pebble, forgery(client)); err != nil {
		web.Close()
		return nil, err
	}
	if err := os.WriteFile(l.path("ca.pem"), l.ca.root, 0o644); err != nil {
		return nil, err
	}
	l.web = &http.Server{Handler: l.webServer(), ErrorLog: silent(), ReadHeaderTimeout: time.Minute}
	l.webServed = make(chan struct{})
	go func() {
		defer close(l.webServed)
		l.web.Serve(web) //nolint:errcheck // it ends with close
	}()
	return l, nil
}

func (l *lab) close() {
	l.web.Close()
	<-l.webServed
	l.ca.close()
	l.pebble.Close()
	os.RemoveAll(l.dir)
}

// webServer is the host's: it serves the webroot, and hands on what is not there
// to clients that answer http-01 themselves.
func (l *lab) webServer() http.Handler {
	client := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(l.clientPort))})
	client.ErrorLog = silent()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(r.Host, ":")
		if !l.ca.calm.Load() {
			switch name {
			case wrong, raw, caaEarly:
				io.WriteString(w, "<html>nothing here</html>") //nolint:errcheck // pebble is gone
				return
			case forged:
				io.WriteString(w, "no\n"+l.ca.forge+"\n") //nolint:errcheck // pebble is gone
				return
			}
		}
		path := filepath.Join(l.dir, "webroot", filepath.FromSlash(filepath.Clean("/"+r.URL.Path)))
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			http.ServeFile(w, r, path)
			return
		}
		client.ServeHTTP(w, r)
	})
}

// path is one in the laboratory.
func (l *lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

// write writes a file of the laboratory.
func (l *lab) write(name, text string, mode os.FileMode) error {
	path := l.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// script writes a shell script and returns its path.
func (l *lab) script(name, text string) (string, error) {
	return l.path(name), l.write(name, "#!/bin/sh\n"+text, 0o755)
}

// read reads a file that the client has written.
func (l *lab) read(path string) ([]byte, error) {
	if l.again {
		return nil, nil
	}
	return os.ReadFile(path)
}

// wants reports whether a case is asked for.
func (l *lab) wants(name string) bool {
	ok, _ := filepath.Match(l.cases, name)
	return ok
}

// run runs a program to its end, at most for that long, and returns what it wrote
// to stdout and stderr, in its order. That it fails is no error here.
func (l *lab) run(ctx context.Context, limit time.Duration, argv ...string) ([]byte, error) {
	return l.runWith(ctx, limit, nil, nil, argv...)
}

// runWith is run with additions to the environment, and stdout apart when it is
// not nil.
func (l *lab) runWith(ctx context.Context, limit time.Duration, env []string, stdout io.Writer, argv ...string) ([]byte, error) {
	if l.again {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.Dir = l.dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.path("home"), "TMPDIR=" + l.path("tmp"), "LANG=C.UTF-8", "TZ=UTC",
		"REQUESTS_CA_BUNDLE=" + l.path("ca.pem"), "LEGO_CA_CERTIFICATES=" + l.path("ca.pem"), "CURL_CA_BUNDLE=" + l.path("ca.pem"),
		"SSL_CERT_FILE=" + l.path("ca.pem"), "PYTHONWARNINGS=ignore",
	}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) || ctx.Err() == context.DeadlineExceeded {
		err = nil
	}
	return out.Bytes(), err
}

var number = regexp.MustCompile(`[0-9]+\.[0-9]+[0-9.]*`)

// ask sets the version of the client, unless it was given: the first number in
// what argv prints.
func (l *lab) ask(ctx context.Context, argv ...string) error {
	if l.version != "" {
		fmt.Printf("%s %s\n", l.client, l.version)
		return nil
	}
	out, err := l.run(ctx, time.Minute, argv...)
	if err != nil {
		return err
	}
	if l.version = strings.TrimRight(string(number.Find(out)), "."); l.version == "" {
		return fmt.Errorf("%s does not tell its version: %.200q", strings.Join(argv, " "), out)
	}
	fmt.Printf("%s %s\n", l.client, l.version)
	return nil
}

// newer reports whether the client's version is at least that one.
func (l *lab) newer(major, minor int) bool {
	var a, b int
	fmt.Sscanf(l.version, "%d.%d", &a, &b) //nolint:errcheck // 0 then
	return a > major || a == major && b >= minor
}

// keep stores a sample, and tells where watch/acmelog understands it otherwise.
func (l *lab) keep(name string, text []byte, what []told) error {
	return l.store(name, text, func(text []byte) []string { return compare(l.client, text, what) })
}

// keepFirst is keep for daemons, that try again: what is compared is the first
// attempt for each lineage or name.
func (l *lab) keepFirst(name string, text []byte, what []told) error {
	return l.store(name, text, func(text []byte) []string { return compareFirst(l.client, text, what) })
}

func (l *lab) store(name string, text []byte, compare func(text []byte) []string) error {
	if name == "" || len(bytes.TrimSpace(text)) == 0 && !l.again {
		return nil
	}
	any := ""
	if rest, ok := strings.CutSuffix(name, "_any"); ok {
		name, any = rest, "_any"
	}
	if rest, ok := strings.CutSuffix(name, "_out"); ok {
		name, any = rest, "_out"+any
	}
	file := filepath.Join(l.out, l.client, name+"_"+l.version+any+".log")
	if l.again {
		var err error
		if text, err = os.ReadFile(file); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		text = []byte(l.replace.Replace(string(text)))
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
	}
	differences := compare(text)
	for _, d := range differences {
		fmt.Printf("%s: %s\n", file, d)
	}
	if len(differences) > 0 {
		l.wrong++
	}
	return nil
}

func trusting(root []byte) *http.Transport {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
}

func tlsConfig(leaf *certtest.Leaf) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}}
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }

func port(ln net.Listener) string { return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port) }
