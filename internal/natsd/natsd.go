// Package natsd runs a NATS server inside the program: one stream with the
// events, one account that owns it, and one for everybody who connects without
// credentials, who may read the stream and nothing else.
package natsd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/renewatch/renewatch/notify"
)

// Options says how the server runs.
type Options struct {
	Listen   string // host:port; port 0: any free one; "": 127.0.0.1:4222
	StoreDir string // directory of the stream; required
	MaxStore int64  // bytes the stream may take there; 0: 256 MiB
	Prefix   string // first token of every subject; "": notify.DefaultPrefix
	Stream   string // "": notify.DefaultStream

	// Log is told what the server has to say, one sentence at a time; nil: nobody.
	// The level is info, warn or error. It must not block.
	Log func(level, sentence string)
}

// ErrPortTaken is why a server does not start: another program listens there.
var ErrPortTaken = errors.New("the port is taken by another program")

// ErrStore is why a server does not start: its directory cannot be used.
var ErrStore = errors.New("the store of the embedded NATS server cannot be used")

const (
	minStore = 8 << 20
	// The size limit is the stream's. With one on the server as well a stream
	// made under a larger limit could not even be made smaller.
	unbounded = 1 << 50

	readyTimeout = 30 * time.Second
)

// Server is a running server.
type Server struct {
	srv    *server.Server
	gate   *gate
	secret string
}

// Start starts the server and makes its stream.
func Start(o Options) (*Server, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:4222"
	}
	if o.MaxStore == 0 {
		o.MaxStore = 256 << 20
	}
	if o.Prefix == "" {
		o.Prefix = notify.DefaultPrefix
	}
	if o.Stream == "" {
		o.Stream = notify.DefaultStream
	}
	switch {
	case o.StoreDir == "":
		return nil, errors.New("embedded nats server: no directory for the stream")
	case o.MaxStore < minStore:
		return nil, fmt.Errorf("embedded nats server: max_store of %d bytes is less than %d", o.MaxStore, minStore)
	case !notify.ValidPrefix(o.Prefix):
		return nil, fmt.Errorf("embedded nats server: %q cannot be the first token of a subject", o.Prefix)
	case !validName(o.Stream):
		return nil, fmt.Errorf("embedded nats server: %q cannot be the name of a stream", o.Stream)
	}
	host, port, err := listenAddress(o.Listen)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	all, users, secret, err := accounts(o.Prefix, o.Stream)
	if err != nil {
		return nil, fmt.Errorf("embedded nats server: %w", err)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName:             "renewatch",
		Host:                   host,
		Port:                   port,
		NoSigs:                 true,
		Accounts:               all,
		Users:                  users,
		NoAuthUser:             visitorUser,
		JetStream:              true,
		JetStreamDomain:        Domain,
		JetStreamMaxStore:      unbounded,
		JetStreamMaxMemory:     16 << 20,
		StoreDir:               o.StoreDir,
		SyncAlways:             true,
		DisableJetStreamBanner: true,
		MaxConn:                256,
		MaxSubs:                1024,
		MaxPending:             16 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded nats server: %w", err)
	}
	log := &logger{to: o.Log, fatal: make(chan string, 1)}
	srv.SetLogger(log, false, false)
	s := &Server{srv: srv, secret: secret}
	if err := s.start(o, log); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

// listenAddress splits host:port; the server wants -1 for any free port.
func listenAddress(listen string) (string, int, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("embedded nats server: %q is not host:port", listen)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("embedded nats server: %q is not host:port", listen)
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	// The server would tell of a taken port in words only.
	l, err := net.Listen("tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return "", 0, fmt.Errorf("embedded nats server: %s: %w", listen, ErrPortTaken)
	}
	if err != nil {
		return "", 0, fmt.Errorf("embedded nats server: %w", err)
	}
	return host, int(port), l.Close()
}

func (s *Server) start(o Options, log *logger) error {
	hadStream := exists(filepath.Join(o.StoreDir, server.JetStreamStoreDir, ownerAccount, "streams", o.Stream))

	s.srv.Start()
	ready := make(chan bool, 1)
	go func() { ready <- s.srv.ReadyForConnections(readyTimeout) }()
	select {
	case sentence := <-log.fatal:
		switch {
		case strings.Contains(sentence, syscall.EADDRINUSE.Error()):
			return fmt.Errorf("embedded nats server: %s: %w", o.Listen, ErrPortTaken)
		case strings.Contains(sentence, "JetStream"):
			return fmt.Errorf("%w: %s", ErrStore, sentence)
		}
		return fmt.Errorf("embedded nats server: %s", sentence)
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("embedded nats server: not ready after %v", readyTimeout)
		}
	}
	if err := s.proveListener(); err != nil {
		return err
	}

	owner, err := s.srv.LookupAccount(ownerAccount)
	if err != nil {
		return fmt.Errorf("embedded nats server: %w", err)
	}
	err = owner.EnableJetStream(map[string]server.JetStreamAccountLimits{
		"": {
			MaxMemory: 8 << 20, MaxStore: -1, MaxStreams: 1, MaxConsumers: maxConsumers,
			MaxAckPending: maxAckPending, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
		},
	}, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	conn, err := dialGate(s.srv, s.secret)
	if err != nil {
		return fmt.Errorf("embedded nats server: %w", err)
	}
	g := &gate{conn: conn, stream: o.Stream, done: make(chan struct{})}
	if err := ensureStream(conn, o, hadStream); err != nil {
		conn.close()
		return err
	}
	s.gate = g
	go g.run()
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// proveListener connects as everybody does and holds the answer against us: behind
// the address another program might answer.
func (s *Server) proveListener() error {
	c, err := net.DialTimeout("tcp", s.Addr().String(), 5*time.Second)
	if err != nil {
		return fmt.Errorf("embedded nats server: connect to itself: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReaderSize(c, maxProtocolLine).ReadString('\n')
	if err != nil {
		return fmt.Errorf("embedded nats server: connect to itself: %w", err)
	}
	var info struct {
		ID string `json:"server_id"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil || info.ID != s.srv.ID() {
		return fmt.Errorf("embedded nats server: %s: %w", s.Addr(), ErrPortTaken)
	}
	return nil
}

// ensureStream makes the stream, or fits an existing one to the options.
func ensureStream(c *conn, o Options, hadStream bool) error {
	text, err := notify.StreamJSON(o.Stream, o.Prefix, o.MaxStore-o.MaxStore/8)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	config["deny_purge"] = true
	config["max_consumers"] = maxConsumers
	config["consumer_limits"] = map[string]any{"inactive_threshold": maxInactive}
	body, err := json.Marshal(config)
	if err != nil {
		return err
	}
	info, err := streamAPI(c, "INFO."+o.Stream, nil)
	if err != nil {
		return err
	}
	verb := "UPDATE."
	if info.Code == 404 {
		if hadStream {
			return fmt.Errorf("%w: the stream %s could not be read back; move %s away and start again: events of the journal stay where they are",
				ErrStore, o.Stream, filepath.Join(o.StoreDir, server.JetStreamStoreDir))
		}
		verb = "CREATE."
	}
	made, err := streamAPI(c, verb+o.Stream, body)
	if err != nil {
		return err
	}
	if made.Code != 0 {
		return fmt.Errorf("%w: %s the stream %s: %s", ErrStore,
			map[string]string{"CREATE.": "make", "UPDATE.": "update"}[verb], o.Stream, made.Description)
	}
	return nil
}

type apiError struct {
	Code        int    `json:"code"`
	Description string `json:"description"`
}

func streamAPI(c *conn, what string, body []byte) (apiError, error) {
	answer, err := c.request("$JS.API.STREAM."+what, body, readyTimeout)
	if err != nil {
		return apiError{}, fmt.Errorf("embedded nats server: %w", err)
	}
	var r struct {
		Error apiError `json:"error"`
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return apiError{}, fmt.Errorf("embedded nats server: %w", err)
	}
	return r.Error, nil
}

// Addr is the address it listens on.
func (s *Server) Addr() net.Addr { return s.srv.Addr() }

// URL is where clients connect to.
func (s *Server) URL() string {
	if a := s.Addr(); a != nil {
		return "nats://" + a.String()
	}
	return ""
}

// InProcessConn is a connection without a socket. It needs Credentials to do more
// than a visitor.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// Credentials are who may publish events. They hold for connections inside this
// process only, and change at each start.
func (s *Server) Credentials() (user, password string) { return senderUser, s.secret }

// Shutdown stops the server and waits until it has stopped.
func (s *Server) Shutdown() {
	if s.gate != nil {
		s.gate.conn.close()
		<-s.gate.done
	}
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// logger passes on what the server says and catches why it does not start.
type logger struct {
	to    func(level, sentence string)
	fatal chan string
}

func (l *logger) say(level, format string, v []any) {
	if l.to != nil {
		l.to(level, fmt.Sprintf(format, v...))
	}
}

func (l *logger) Noticef(format string, v ...any) { l.say("info", format, v) }

// Warnf passes a warning on, but for the one about passwords: ours are random,
// made anew at every start, and never leave this process.
func (l *logger) Warnf(format string, v ...any) {
	if !strings.HasPrefix(format, "Plaintext passwords detected") {
		l.say("warn", format, v)
	}
}

func (l *logger) Errorf(format string, v ...any) { l.say("error", format, v) }
func (l *logger) Debugf(string, ...any)          {}
func (l *logger) Tracef(string, ...any)          {}

func (l *logger) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, v...):
	default:
	}
}
