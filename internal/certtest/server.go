package certtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Load gets the certificates a site is to serve from now on: one, or one for
// each key type.
type Load func() ([]tls.Certificate, error)

// FromFiles loads a certificate file, leaf first, and its key.
func FromFiles(cert, key string) Load {
	return func() ([]tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		return []tls.Certificate{c}, nil
	}
}

// FromLeaves serves these leaves, and again these after a reload.
func FromLeaves(leaves ...*Leaf) Load {
	return func() ([]tls.Certificate, error) {
		var out []tls.Certificate
		for _, l := range leaves {
			out = append(out, l.TLS())
		}
		return out, nil
	}
}

// Site is what a server serves for some names.
type Site struct {
	Names []string // server names, "*." wildcards included
	Load  Load
}

// Fault is a way in which a server is out of order.
type Fault string

// The faults of a server.
const (
	Healthy Fault = ""        // none
	Hangup  Fault = "hangup"  // closes each connection at once
	Mute    Fault = "mute"    // accepts and never says a word
	Garbage Fault = "garbage" // answers with something that is not TLS
	Alert   Fault = "alert"   // refuses the handshake with an alert
)

// ServerOptions say what a server listens on and serves.
type ServerOptions struct {
	// Listen holds the addresses. Empty: 127.0.0.1:0. An address with port 0
	// after another address takes that one's port, so that 127.0.0.1:0 and
	// [::1]:0 together are one port on both families.
	Listen []string
	// Sites: the first one also answers unknown names and clients without SNI.
	Sites []Site
	// Config is the base of what crypto/tls is told (versions, say). May be nil.
	Config *tls.Config
	// HandshakeTimeout ends connections that do not get on. Zero: 10 s.
	HandshakeTimeout time.Duration
}

// Server is a TLS server that behaves like nginx: it goes on serving what it
// loaded, whatever happens on disk, until Reload is called, and a reload that
// cannot load everything changes nothing.
type Server struct {
	o  ServerOptions
	wg sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener
	addrs     []netip.AddrPort
	conns     map[net.Conn]struct{}
	new, old  []*tls.Config // per site; old is nil unless mixing
	turn      int
	fault     Fault
	counts    map[netip.AddrPort]int
	reloads   int
	closed    bool
}

// NewServer loads the sites and listens.
func NewServer(o ServerOptions) (*Server, error) {
	if len(o.Sites) == 0 {
		return nil, errors.New("a server needs a site")
	}
	if len(o.Listen) == 0 {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	s := &Server{o: o, conns: map[net.Conn]struct{}{}, counts: map[netip.AddrPort]int{}}
	var err error
	if s.new, err = s.load(); err != nil {
		return nil, err
	}
	if err := s.listenFirst(); err != nil {
		return nil, err
	}
	return s, nil
}

// listenFirst listens on all addresses. A port that was free on the first
// address may be taken on the second: then another one is tried.
func (s *Server) listenFirst() error {
	for try := 1; ; try++ {
		err := s.listen(s.o.Listen)
		if err == nil {
			return nil
		}
		if try == 10 || !strings.HasSuffix(s.o.Listen[0], ":0") {
			return err
		}
	}
}

func (s *Server) listen(addresses []string) error {
	var listeners []net.Listener
	var addrs []netip.AddrPort
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err == nil {
			if port == "0" && len(addrs) > 0 {
				port = strconv.Itoa(int(addrs[0].Port()))
			}
			var ln net.Listener
			if ln, err = net.Listen("tcp", net.JoinHostPort(host, port)); err == nil {
				listeners = append(listeners, ln)
				addrs = append(addrs, ln.Addr().(*net.TCPAddr).AddrPort())
				continue
			}
		}
		for _, ln := range listeners {
			ln.Close()
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners, s.addrs = listeners, addrs
	for i, ln := range listeners {
		s.wg.Go(func() { s.accept(ln, addrs[i]) })
	}
	return nil
}

// Addr is the first address.
func (s *Server) Addr() netip.AddrPort { return s.Addrs()[0] }

// Addrs are all addresses, in the order of Listen.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]netip.AddrPort(nil), s.addrs...)
}

// Handshakes counts the certificates presented so far: a client that has ended
// its handshake has been counted.
func (s *Server) Handshakes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.counts {
		n += c
	}
	return n
}

// HandshakesAt counts the certificates presented at one address.
func (s *Server) HandshakesAt(addr netip.AddrPort) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[addr]
}

// Reloads counts the reloads that succeeded.
func (s *Server) Reloads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

// Reload loads every site anew. When one cannot be loaded, all go on serving
// what they served before.
func (s *Server) Reload() error {
	fresh, err := s.load()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.new, s.old = fresh, nil
	s.reloads++
	return nil
}

// ReloadMixing loads every site anew, but until settle is called every second
// handshake is still answered with what was served before: old workers that
// have not gone yet.
func (s *Server) ReloadMixing() (settle func(), err error) {
	fresh, err := s.load()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.new, s.old = fresh, s.new
	s.reloads++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.old = nil
	}, nil
}

// SetFault puts the server out of order, or with Healthy back in order, for
// connections accepted from now on.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Stop stops listening: connections are refused. Start listens again.
func (s *Server) Stop() {
	s.mu.Lock()
	for _, ln := range s.listeners {
		ln.Close()
	}
	s.listeners = nil
	s.mu.Unlock()
}

// Start listens again on the same addresses after Stop.
func (s *Server) Start() error {
	s.mu.Lock()
	running, closed := s.listeners != nil, s.closed
	s.mu.Unlock()
	if closed {
		return errors.New("the server is closed")
	}
	if running {
		return errors.New("the server is running")
	}
	var addresses []string
	for _, a := range s.Addrs() {
		addresses = append(addresses, a.String())
	}
	return s.listen(addresses)
}

// Close ends everything and waits for it.
func (s *Server) Close() {
	s.Stop()
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Server) load() ([]*tls.Config, error) {
	var out []*tls.Config
	for i, site := range s.o.Sites {
		certs, err := site.Load()
		if err != nil {
			return nil, fmt.Errorf("site %d %v: %w", i+1, site.Names, err)
		}
		// A new tls.Config has new ticket keys, so no session outlives a reload.
		c := &tls.Config{}
		if s.o.Config != nil {
			c = s.o.Config.Clone()
		}
		c.Certificates = certs
		out = append(out, c)
	}
	return out, nil
}

func (s *Server) accept(ln net.Listener, addr netip.AddrPort) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			<-time.After(10 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		s.mu.Lock()
		fault := s.fault
		if s.closed {
			s.mu.Unlock()
			conn.Close()
			return
		}
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() {
			defer func() {
				conn.Close()
				s.mu.Lock()
				delete(s.conns, conn)
				s.mu.Unlock()
			}()
			s.serve(conn, addr, fault)
		})
	}
}

func (s *Server) serve(conn net.Conn, addr netip.AddrPort, fault Fault) {
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return s.choose(hello.ServerName, addr), nil
	}}
	switch fault {
	case Hangup:
		return
	case Mute:
		io.Copy(io.Discard, conn) // until the client or Close ends it
		return
	case Garbage:
		io.WriteString(conn, "220 this is not TLS\r\n")
		return
	case Alert:
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, errors.New("refused on purpose")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.o.HandshakeTimeout)
	defer cancel()
	t := tls.Server(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return
	}
	t.SetReadDeadline(time.Now().Add(time.Minute))
	io.Copy(io.Discard, t)
	t.Close()
}

// choose picks the site for a client, and while old workers linger, whether an
// old or a new one answers.
func (s *Server) choose(serverName string, addr netip.AddrPort) *tls.Config {
	site := 0
search:
	for i, candidate := range s.o.Sites {
		for _, name := range candidate.Names {
			if covers(name, serverName) {
				site = i
				break search
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[addr]++
	if s.old == nil {
		return s.new[site]
	}
	s.turn++
	if s.turn%2 == 1 {
		return s.old[site]
	}
	return s.new[site]
}

func covers(pattern, name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	pattern = strings.ToLower(pattern)
	if rest, ok := strings.CutPrefix(pattern, "*."); ok {
		_, parent, found := strings.Cut(name, ".")
		return found && parent == rest
	}
	return pattern == name
}
