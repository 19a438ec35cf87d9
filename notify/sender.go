package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Mode says when an event counts as delivered.
type Mode string

// The modes.
const (
	JetStream Mode = "jetstream" // acknowledged by the stream; the default
	Core      Mode = "core"      // flushed to the server, whoever listens
)

// Destination is the name under which a journal keeps the Sender's cursor.
const Destination = "nats"

// SenderOptions says where the events of a journal go. At most one of Creds,
// NKey, Token, TokenFile and User is set. Files are read again at each connect.
type SenderOptions struct {
	Journal *Journal // opened with Destination; required

	URLs      []string  // of the servers of one cluster
	InProcess InProcess // instead of URLs: a server in this process
	Inbox     string    // prefix of the subjects of answers; "": _INBOX

	Creds        string // path of a credentials file (JWT and seed)
	NKey         string // path of a file with a user seed
	Token        string
	TokenFile    string // path of a file with the token alone in it
	User         string
	Password     string
	PasswordFile string // path of a file with the password alone in it
	TLS          TLSOptions

	Name         string // of the connection, for the server's operator; "": renewatch@<host>
	Prefix       string // first token of every subject; "": DefaultPrefix
	Mode         Mode   // "": JetStream
	Stream       string // "": DefaultStream
	EnsureStream bool   // make the stream when it is missing; it is never changed

	// OnRefused is called from Run for each event that will never be taken; the
	// event stands in the journal's directory refused then. It must not block.
	OnRefused func(Refused)

	// Extra is appended to what the options above make.
	Extra []nats.Option
}

// Status is how the Sender is doing.
type Status struct {
	Connected    bool
	URL          string    // of the server, without credentials; "" when never connected
	LastError    string    // why the oldest event is not delivered yet, "" when nothing is wrong
	Depth        int       // events waiting
	OldestUnsent time.Time // time of the one that has waited longest; zero: none
	Refused      int       // events refused for ever since Run began
}

// Sender brings the events of a journal to NATS, in their order, at least once.
type Sender struct {
	o       SenderOptions
	servers string
	opts    []nats.Option

	kick chan struct{} // something changed that makes another try worth while

	mu        sync.Mutex
	nc        *nats.Conn
	url       string
	lastError string
	refused   int
	flight    string                  // subject being published
	fail      context.CancelCauseFunc // ends that publish
}

// How long one attempt may take, how long is waited after failures, and what is
// left for sending when Run's context ends.
const (
	attemptTimeout = 5 * time.Second
	firstBackoff   = 500 * time.Millisecond
	lastBackoff    = 30 * time.Second
	farewell       = 2 * time.Second
	readAhead      = 64
)

// Check says what is wrong with the options, without touching the network or
// needing a Journal. Its error is an *OptionError.
func (o SenderOptions) Check() error {
	if err := o.fill(); err != nil {
		return err
	}
	_, _, err := natsOptions(o)
	return err
}

// fill puts the defaults in and refuses what cannot work.
func (o *SenderOptions) fill() error {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if !ValidPrefix(o.Prefix) {
		return optionError("prefix", "use letters, digits and hyphens, at most 64", "%q cannot be the first token of a subject", text(o.Prefix, maxWord))
	}
	if o.Stream == "" {
		o.Stream = DefaultStream
	}
	if len(o.Stream) > 255 || strings.ContainsAny(o.Stream, " .*>/\\\t\r\n") {
		return optionError("stream", "use letters, digits, - and _", "%q cannot be the name of a stream", text(o.Stream, maxWord))
	}
	switch o.Mode {
	case "":
		o.Mode = JetStream
	case JetStream, Core:
	default:
		return optionError("mode", "write jetstream or core", "%q is no mode", text(string(o.Mode), maxWord))
	}
	return nil
}

// NewSender checks the options, without touching the network. A bad option is an
// *OptionError.
func NewSender(o SenderOptions) (*Sender, error) {
	if o.Journal == nil {
		return nil, errors.New("notify: a sender needs a journal")
	}
	if _, err := o.Journal.sentTo(Destination); err != nil {
		return nil, err
	}
	if err := o.fill(); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "renewatch@" + o.Journal.Host()
	}
	s := &Sender{o: o, kick: make(chan struct{}, 1)}
	servers, opts, err := natsOptions(o)
	if err != nil {
		return nil, err
	}
	s.servers = servers
	s.opts = append(append(opts,
		nats.ConnectHandler(s.connected),
		nats.ReconnectHandler(s.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { s.trouble(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { s.trouble(err) }),
		nats.ClosedHandler(func(*nats.Conn) { s.wake() }),
		nats.ErrorHandler(s.asyncError),
	), o.Extra...)
	return s, nil
}

// Run sends until ctx ends. Then what is in flight is finished, what is left is
// tried for two seconds, and the connection is closed. It returns nil then; any
// other end is an error of the journal.
func (s *Sender) Run(ctx context.Context) error {
	// hard ends a while after ctx: what stands in the journal at the end still
	// has the chance to leave.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(farewell, cancel)
		context.AfterFunc(hard, func() { timer.Stop() })
	})
	defer stop()
	defer s.disconnect()

	var (
		sent, err = s.o.Journal.sentTo(Destination)
		at        = position{after: sent}
		backoff   time.Duration
		ensured   *nats.Conn
	)
	if err != nil {
		return err
	}
	defer func() { s.o.Journal.advance(Destination, sent, true) }()
	for hard.Err() == nil {
		changed := s.o.Journal.wait()
		records, err := s.o.Journal.read(&at, readAhead)
		if err != nil {
			s.trouble(err)
			at = position{after: sent}
			backoff = s.pause(ctx, backoff)
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		if len(records) == 0 {
			if at.after > sent { // what is left are holes
				sent = at.after
				s.o.Journal.advance(Destination, sent, true)
			}
			if ctx.Err() != nil {
				return nil
			}
			s.connectOnce(hard) // also when there is nothing to send: Status tells
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-s.kick:
			}
			continue
		}
		for i, r := range records {
			for {
				nc := s.connectOnce(hard)
				if s.o.EnsureStream && s.o.Mode == JetStream && ensured != nc && nc != nil && nc.IsConnected() {
					ensured = nc // once, until no stream answers
					s.trouble(s.ensure(hard, nc))
				}
				err := s.deliver(hard, nc, r)
				if err == nil {
					break
				}
				var final *finalError
				if errors.As(err, &final) {
					if err = s.giveUp(r, final.reason); err == nil {
						break
					}
				}
				if errors.Is(err, jetstream.ErrNoStreamResponse) {
					ensured = nil
				}
				s.trouble(err)
				if ctx.Err() != nil {
					return nil
				}
				backoff = s.pause(ctx, backoff)
			}
			backoff = 0
			sent = r.seq
			// In the middle of a backlog the cursor's file may lag behind.
			s.o.Journal.advance(Destination, sent, i == len(records)-1)
			if hard.Err() != nil {
				break
			}
		}
	}
	return nil
}

// pause waits before the next attempt, less when something changes meanwhile, and
// returns how long that was meant to be.
func (s *Sender) pause(ctx context.Context, last time.Duration) time.Duration {
	wait := min(max(2*last, firstBackoff), lastBackoff)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.kick:
		return 0
	case <-timer.C:
	}
	return wait
}

// connectOnce is the connection, made when there is none. nats.go keeps it from
// then on; only a connection that it gave up for good is made anew.
func (s *Sender) connectOnce(ctx context.Context) *nats.Conn {
	s.mu.Lock()
	nc := s.nc
	s.mu.Unlock()
	if nc != nil && !nc.IsClosed() {
		return nc
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	// Connect knows no context and may take dialTimeout per server.
	made := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(s.servers, s.opts...)
		made <- result{nc, err}
	}()
	select {
	case r := <-made:
		if r.err != nil {
			s.trouble(r.err)
			return nil
		}
		s.mu.Lock()
		s.nc = r.nc
		s.mu.Unlock()
		return r.nc
	case <-ctx.Done():
		go func() {
			if r := <-made; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil
	}
}

func (s *Sender) disconnect() {
	s.mu.Lock()
	nc := s.nc
	s.nc = nil
	s.mu.Unlock()
	if nc != nil {
		nc.Close()
	}
}

var errNotConnected = errors.New("not connected to a NATS server")

// finalError is why an event will never be taken.
type finalError struct{ reason string }

func (e *finalError) Error() string { return e.reason }

// deliver sends one event. A *finalError means that trying again is no use.
func (s *Sender) deliver(ctx context.Context, nc *nats.Conn, r record) error {
	if nc == nil || !nc.IsConnected() {
		// Before the first connect nats.go would refuse the headers instead of
		// waiting.
		return errNotConnected
	}
	if r.event.Kind() == "" {
		return &finalError{"its type " + text(r.event.Type, maxWord) + " has no subject"}
	}
	m := s.message(r)
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s.setFlight(m.Subject, fail)
	defer s.setFlight("", nil)

	var err error
	if s.o.Mode == Core {
		err = s.deliverCore(ctx, nc, m)
	} else {
		err = s.deliverStream(ctx, nc, m)
	}
	if err == nil {
		s.setError("")
		return nil
	}
	var final *finalError
	if cause := context.Cause(ctx); errors.As(cause, &final) {
		return final
	}
	return classify(err, len(m.Data))
}

func (s *Sender) message(r record) *nats.Msg {
	m := nats.NewMsg(Subject(s.o.Prefix, r.event.Data.Host, r.event.Subject, r.event.Kind()))
	m.Data = r.line
	// Header.Set keeps the case of these names, as NATS wants it.
	m.Header.Set("Content-Type", ContentType)
	m.Header.Set(jetstream.MsgIDHeader, r.event.ID)
	m.Header.Set("Renewatch-Severity", string(r.event.Data.Severity))
	if s.o.Mode == JetStream {
		m.Header.Set(jetstream.ExpectedStreamHeader, s.o.Stream)
	}
	return m
}

func (s *Sender) deliverStream(ctx context.Context, nc *nats.Conn, m *nats.Msg) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// A duplicate was stored before: delivered as well.
	_, err = js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	return err
}

func (s *Sender) deliverCore(ctx context.Context, nc *nats.Conn, m *nats.Msg) error {
	before := nc.LastError()
	if err := nc.PublishMsg(m); err != nil {
		return err
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return err
	}
	// The server answers in order: a refusal came before the flush was done.
	if after := nc.LastError(); after != before && deniedSubject(after) == m.Subject {
		return denied(m.Subject)
	}
	return nil
}

// Codes of the JetStream API that no other try of the same message can change.
var finalCodes = map[jetstream.ErrorCode]string{
	10054: "it is larger than the stream allows",
	10060: "its subject belongs to another stream",
	10165: "the stream does not take a message with such headers",
	10166: "the stream does not take a message with such headers",
}

func classify(err error, size int) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrBadSubject):
		return &finalError{"its subject is invalid"}
	case errors.Is(err, nats.ErrMaxPayload):
		return &finalError{fmt.Sprintf("it has %d bytes, more than the server takes", size)}
	case errors.As(err, &api) && finalCodes[api.ErrorCode] != "":
		return &finalError{fmt.Sprintf("%s (%s, code %d)", finalCodes[api.ErrorCode], api.Description, api.ErrorCode)}
	case errors.Is(err, nats.ErrHeadersNotSupported), errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrDisconnected):
		return errNotConnected
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("no stream takes the events' subjects: %w", jetstream.ErrNoStreamResponse)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return errors.New("the server did not acknowledge the event in time (is there a stream on its subject?)")
	}
	return err
}

// giveUp keeps an event that will never be taken and tells of it.
func (s *Sender) giveUp(r record, reason string) error {
	why := Refused{
		ID: r.event.ID, Sequence: r.seq, Kind: r.event.Kind(), Reason: text(reason, maxDetail),
		Subject: Subject(s.o.Prefix, r.event.Data.Host, r.event.Subject, r.event.Kind()),
	}
	if err := s.o.Journal.refuse(r, why); err != nil {
		return err
	}
	s.mu.Lock()
	s.refused++
	s.lastError = "" // nothing waits because of it
	s.mu.Unlock()
	if s.o.OnRefused != nil {
		s.o.OnRefused(why)
	}
	return nil
}

// ensure makes the stream when there is none of its name.
func (s *Sender) ensure(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err = js.Stream(ctx, s.o.Stream); err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("look for the stream %s: %w", s.o.Stream, err)
	}
	_, err = js.CreateStream(ctx, StreamConfig(s.o.Stream, s.o.Prefix, 0))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("make the stream %s: %w", s.o.Stream, err)
	}
	return nil
}

func (s *Sender) connected(nc *nats.Conn) {
	s.mu.Lock()
	s.url = nc.ConnectedUrlRedacted()
	s.lastError = ""
	s.mu.Unlock()
	s.wake()
}

func (s *Sender) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// asyncError is told what the server says without being asked. It says so, and
// only so, that publishing is not permitted.
func (s *Sender) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	subject := deniedSubject(err)
	if strings.HasPrefix(subject, s.o.Prefix+".evt.") {
		s.mu.Lock()
		defer s.mu.Unlock()
		if subject == s.flight {
			s.fail(denied(subject))
		}
		return
	}
	s.trouble(err)
}

func denied(subject string) error {
	return &finalError{"publishing to " + subject + " is not permitted"}
}

// deniedSubject is what the server forbids to publish to, "" when err says
// something else.
func deniedSubject(err error) string {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return ""
	}
	_, rest, ok := strings.Cut(err.Error(), `Publish to "`)
	if !ok {
		return ""
	}
	subject, _, _ := strings.Cut(rest, `"`)
	return subject
}

func (s *Sender) setFlight(subject string, fail context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight, s.fail = subject, fail
}

// trouble remembers why events are not delivered.
func (s *Sender) trouble(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errNotConnected) && s.lastError != "" {
		return // the reason for that is known and says more
	}
	s.lastError = text(redact(strings.TrimPrefix(err.Error(), "nats: ")), maxDetail)
}

func (s *Sender) setError(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError = what
}

// redact takes passwords out of URLs in s.
func redact(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if strings.Contains(w, "://") && strings.Contains(w, "@") {
			words[i] = "(a server)"
			if u, err := url.Parse(strings.Trim(w, `"':,`)); err == nil {
				words[i] = u.Redacted()
			}
		}
	}
	return strings.Join(words, " ")
}

// Status tells how the Sender is doing.
func (s *Sender) Status() Status {
	s.mu.Lock()
	st := Status{URL: s.url, LastError: s.lastError, Refused: s.refused}
	nc := s.nc
	s.mu.Unlock()
	st.Connected = nc != nil && nc.IsConnected()
	st.Depth = s.o.Journal.Depth()
	st.OldestUnsent = s.o.Journal.OldestUnsent()
	return st
}
