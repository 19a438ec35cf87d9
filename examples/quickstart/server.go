package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// serveArgument makes this program the TLS server of the show.
const serveArgument = "serve-tls"

// serve is the TLS server: "serve-tls CERT KEY PIDFILE". It prints its addresses
// as one line of JSON, reloads on SIGHUP and ends on SIGTERM, or when stdin
// does, so that it never outlives the quickstart.
func serve(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) != 3 {
		fmt.Fprintf(stderr, "usage: %s CERT KEY PIDFILE\n", serveArgument)
		return exitUsage
	}
	cert, key, pidfile := args[0], args[1], args[2]
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)

	o := certtest.ServerOptions{
		Listen: []string{"127.0.0.1:0"},
		Sites:  []certtest.Site{{Load: certtest.FromFiles(cert, key)}},
	}
	if ln, err := net.Listen("tcp", "[::1]:0"); err == nil {
		ln.Close()
		o.Listen = append(o.Listen, "[::1]:0")
	}
	server, err := certtest.NewServer(o)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	defer server.Close()
	if err := os.WriteFile(pidfile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	defer os.Remove(pidfile)
	if err := json.NewEncoder(stdout).Encode(server.Addrs()); err != nil {
		return exitFailed
	}

	orphaned := make(chan struct{})
	go func() {
		io.Copy(io.Discard, stdin)
		close(orphaned)
	}()
	for {
		select {
		case <-orphaned:
			return exitDone
		case s := <-signals:
			if s != syscall.SIGHUP {
				return exitDone
			}
			if err := server.Reload(); err != nil {
				fmt.Fprintf(stderr, "SIGHUP: nothing is reloaded: %v\n", err)
			} else {
				fmt.Fprintln(stderr, "SIGHUP: reloaded")
			}
		}
	}
}

// webServer is the TLS server as a child process.
type webServer struct {
	*child
	addrs   []netip.AddrPort
	pidfile string
	stdin   io.Closer
}

// startServer starts this very program as the TLS server for the lineage.
func startServer(ctx context.Context, dir string, lineage *certtest.Lineage) (*webServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &webServer{pidfile: filepath.Join(dir, "server.pid")}
	s.child = newChild(dir, "server", self, serveArgument, lineage.Fullchain(), lineage.Key(), s.pidfile)
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// A pipe of our own: StdoutPipe would be closed when the process ends, maybe
	// before its line is read.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s.cmd.Stdout = in
	err = s.start()
	in.Close()
	if err != nil {
		return nil, err
	}
	out.SetReadDeadline(time.Now().Add(10 * time.Second))
	stop := context.AfterFunc(ctx, func() { out.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.addrs)
	}
	if err != nil {
		s.kill()
		return nil, fmt.Errorf("the TLS server did not start: %w: %s", err, s.lastWords())
	}
	return s, nil
}

// stop ends the server.
func (s *webServer) stop() error {
	s.stdin.Close()
	return s.child.stop(5 * time.Second)
}

// port is the one port of all addresses.
func (s *webServer) port() uint16 { return s.addrs[0].Port() }

// ips lists the IP addresses as an endpoint's address parameter wants them.
func (s *webServer) ips() string {
	var out []string
	for _, a := range s.addrs {
		out = append(out, a.Addr().String())
	}
	return strings.Join(out, ",")
}

// places lists the addresses as a person reads them.
func (s *webServer) places() string {
	var out []string
	for _, a := range s.addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " and ")
}
