package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/notify/schematest"
)

var updateScripts = flag.Bool("update", false, "rewrite what the scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"renewatch": main,
		"reloadweb": func() { os.Exit(reloadWeb(os.Args[1:])) },
	})
}

// TestScripts drives the real binary. Besides testscript's own commands:
//
//	issue DIR KEY=VALUE ...   a certificate: names=, from=, life=, key=rsa|ecdsa, ca=other, only=leaf
//	serve NAME DIR            a TLS server that keeps what it loaded; its port is $NAME
//	unserve NAME              stops it
//	reload NAME               makes it load its files again; also: reloadweb $CONTROL NAME
//	renew DIR FROM            puts the files of FROM into DIR, certificate first
//	expand FILE               replaces $VARIABLES in a file
//	exits CODE COMMAND ...    runs a command that ends with this code
//	event KIND [CERTIFICATE]  waits until the journal in state/ holds another such event
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: *updateScripts, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			s := &stage{dir: e.WorkDir, servers: map[string]*certtest.Server{}, seen: map[string]uint64{},
				cas: map[string]*certtest.CA{"": certtest.NewCA(certtest.CAOptions{Name: "Test"}), "other": certtest.NewCA(certtest.CAOptions{Name: "Other"})}}
			if err := s.control(); err != nil {
				return err
			}
			e.Defer(s.close)
			e.Values[stageKey{}] = s
			e.Setenv("CONTROL", s.listener.Addr().String())
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("TMPDIR", e.WorkDir)
			return os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), s.cas[""].RootPEM(), 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"issue": on((*stage).issue), "serve": on((*stage).serve), "unserve": on((*stage).unserve), "reload": on((*stage).reload),
			"renew": on((*stage).renew), "expand": expandFile, "exits": exits, "event": on((*stage).event),
		},
	})
}

type stageKey struct{}

// stage is the world of one script.
type stage struct {
	dir      string
	cas      map[string]*certtest.CA
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	servers map[string]*certtest.Server
	seen    map[string]uint64
}

// on makes a script command of a method.
func on(f func(*stage, *testscript.TestScript, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s := ts.Value(stageKey{}).(*stage)
		if err := f(s, ts, args); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

func (s *stage) close() {
	s.listener.Close()
	s.wg.Wait()
	for _, srv := range s.servers {
		srv.Close()
	}
}

func (s *stage) issue(ts *testscript.TestScript, args []string) error {
	o := certtest.LeafOptions{Names: []string{"www.example.org"}}
	life, ca, only := 90*24*time.Hour, "", ""
	from := -time.Hour
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		var err error
		switch k {
		case "names":
			o.Names = strings.Split(v, ",")
		case "from":
			from, err = time.ParseDuration(v)
		case "life":
			life, err = time.ParseDuration(v)
		case "key":
			o.KeyType = certtest.KeyType(v)
		case "ca":
			ca = v
		case "only":
			only = v
		default:
			return fmt.Errorf("issue: unknown word %q", a)
		}
		if err != nil {
			return err
		}
	}
	o.NotBefore = time.Now().Add(from)
	o.NotAfter = o.NotBefore.Add(life)
	leaf := s.cas[ca].Issue(o)
	dir := ts.MkAbs(args[0])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	full := leaf.FullchainPEM()
	if only == "leaf" {
		full = leaf.CertPEM()
	}
	ts.Setenv("SHA_"+filepath.Base(dir), leaf.SHA256())
	return errors.Join(os.WriteFile(filepath.Join(dir, "fullchain.pem"), full, 0o644), os.WriteFile(filepath.Join(dir, "privkey.pem"), leaf.KeyPEM(), 0o600))
}

func (s *stage) serve(ts *testscript.TestScript, args []string) error {
	dir := ts.MkAbs(args[1])
	srv, err := certtest.NewServer(certtest.ServerOptions{Sites: []certtest.Site{{Load: certtest.FromFiles(filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem"))}}})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.servers[args[0]] = srv
	s.mu.Unlock()
	ts.Setenv(args[0], strconv.Itoa(int(srv.Addr().Port())))
	return nil
}

func (s *stage) unserve(ts *testscript.TestScript, args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servers[args[0]].Stop()
	return nil
}

func (s *stage) reload(_ *testscript.TestScript, args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	srv := s.servers[args[0]]
	if srv == nil {
		return fmt.Errorf("no server %q", args[0])
	}
	return srv.Reload()
}

func (s *stage) renew(ts *testscript.TestScript, args []string) error {
	for _, name := range []string{"fullchain.pem", "privkey.pem"} {
		data, err := os.ReadFile(filepath.Join(ts.MkAbs(args[1]), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(ts.MkAbs(args[0]), name), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// control lets a child process (a reload command) reach the servers.
func (s *stage) control() (err error) {
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	s.wg.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			if err := s.reload(nil, strings.Fields(line)); err != nil {
				fmt.Fprintln(c, err)
			}
			c.Close()
		}
	})
	return nil
}

// reloadWeb is the other end of control: reloadweb CONTROL NAME.
func reloadWeb(args []string) int {
	addr, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return 2
	}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer c.Close()
	fmt.Fprintln(c, args[1])
	answer, _ := io.ReadAll(c)
	if len(answer) > 0 {
		fmt.Fprintf(os.Stderr, "%s", answer)
		return 3
	}
	return 0
}

func expandFile(ts *testscript.TestScript, _ bool, args []string) {
	for _, f := range args {
		path := ts.MkAbs(f)
		data, err := os.ReadFile(path)
		ts.Check(err)
		ts.Check(os.WriteFile(path, []byte(os.Expand(string(data), ts.Getenv)), 0o600))
	}
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s ended with %d, not %d", strings.Join(args[1:], " "), got, want)
	}
}

// event waits for an event that was not waited for before.
func (s *stage) event(ts *testscript.TestScript, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f := notify.Filter{After: s.seen["all"]}
	if len(args) > 1 {
		f.Certificate = args[1]
	}
	var got []string
	for r, err := range notify.Follow(ctx, filepath.Join(s.dir, "state", "journal"), f) {
		if err != nil {
			return err
		}
		if err := schematest.Validate(r.Line); err != nil {
			return fmt.Errorf("%w\n%s", err, r.Line)
		}
		got = append(got, string(r.Event.Kind()))
		if string(r.Event.Kind()) == args[0] {
			n, err := strconv.ParseUint(r.Event.Sequence, 10, 64)
			s.seen["all"] = n
			return err
		}
	}
	return fmt.Errorf("no %s came; what came: %s", args[0], strings.Join(got, ", "))
}
