package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// heard is one message as it came from NATS.
type heard struct {
	event
	subject string
	header  nats.Header
	stored  uint64 // its place in the stream; 0 for a plain subscription
}

// listener is a NATS client that reads what the daemon publishes: plainly, and
// from the stream.
type listener struct {
	t  *testing.T
	nc *nats.Conn

	mu     sync.Mutex
	plain  []heard
	stored []heard
	faults []string
}

// listen subscribes. With a domain the stream is read in that JetStream domain,
// as clients of the embedded server do.
func listen(t *testing.T, url, domain string) *listener {
	t.Helper()
	l := &listener{t: t}
	nc, err := nats.Connect(url, nats.Name("e2e listener"), nats.MaxReconnects(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.fault("NATS: %v", err) }))
	if err != nil {
		t.Fatalf("NATS at %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	l.nc = nc
	if _, err := nc.Subscribe("renewatch.evt.>", func(m *nats.Msg) { l.hear(m.Subject, m.Header, m.Data, 0) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.NewWithDomain(nc, domain)
	if domain == "" {
		js, err = jetstream.New(nc)
	}
	if err != nil {
		t.Fatal(err)
	}
	var consumer jetstream.Consumer
	eventually(t, "the stream RENEWATCH", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		consumer, err = js.OrderedConsumer(ctx, "RENEWATCH", jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
		return err
	})
	reading, err := consumer.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			l.fault("metadata: %v", err)
			return
		}
		l.hear(m.Subject(), m.Headers(), m.Data(), meta.Sequence.Stream)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reading.Stop)
	return l
}

func (l *listener) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func (l *listener) hear(subject string, header nats.Header, data []byte, stored uint64) {
	e, err := parseEvent(data)
	if err != nil {
		l.fault("on %s: %v: %q", subject, err, data)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := heard{event: e, subject: subject, header: header, stored: stored}
	if stored == 0 {
		l.plain = append(l.plain, h)
	} else {
		l.stored = append(l.stored, h)
	}
}

// subscribed is what the plain subscription heard, in order.
func (l *listener) subscribed() []event { return l.copy(&l.plain) }

// stream is what the stream holds, in order.
func (l *listener) stream() []event { return l.copy(&l.stored) }

func (l *listener) copy(from *[]heard) []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []event
	for _, h := range *from {
		out = append(out, h.event)
	}
	return out
}

// await waits until the plain subscription has heard an event.
func (l *listener) await(kind string, match ...func(event) bool) event {
	l.t.Helper()
	var found event
	eventually(l.t, kind+" on NATS", func() error {
		events := l.subscribed()
		e, ok := find(events, kind, match...)
		if !ok {
			return fmt.Errorf("heard only:\n%s", tell(events))
		}
		found = e
		return nil
	})
	return found
}

// check compares what NATS delivered with the journal: the stream holds every
// event once, in the journal's order and with the journal's words, and each
// message has its subject and headers as promised.
func (l *listener) check(host string, journal []event) {
	l.t.Helper()
	eventually(l.t, "every event in the stream", func() error {
		got := l.stream()
		if len(got) < len(journal) {
			return fmt.Errorf("%d of %d:\n%s", len(got), len(journal), tell(got))
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, h := range l.stored {
		if i >= len(journal) {
			break // said since the journal was read
		}
		if h.ID != journal[i].ID || h.Sequence != journal[i].Sequence || string(h.raw) != string(journal[i].raw) {
			l.t.Errorf("message %d of the stream is not event %d of the journal:\n%s\n%s", i+1, i+1, h.raw, journal[i].raw)
		}
	}
	for _, h := range slices.Concat(l.plain, l.stored) {
		if err := h.checkWire(host); err != nil {
			l.t.Errorf("message on %s: %v\n%v\n%s", h.subject, err, h.header, h.raw)
		}
	}
	for _, f := range l.faults {
		l.t.Error(f)
	}
}

func (h heard) checkWire(host string) error {
	class := eventType.FindStringSubmatch(h.Type)
	if class == nil {
		return fmt.Errorf("type %q", h.Type)
	}
	token := subjectToken(h.Subject)
	if h.Subject == "_agent" {
		token = "_agent"
	}
	want := strings.Join([]string{"renewatch", "evt", subjectToken(host), token, class[1], class[2]}, ".")
	switch {
	case strings.Count(h.subject, ".") != 5 || h.subject != want:
		return fmt.Errorf("subject, want %s", want)
	case h.header.Get("Content-Type") != "application/cloudevents+json":
		return fmt.Errorf("Content-Type %q", h.header.Get("Content-Type"))
	case h.header.Get("Nats-Msg-Id") != h.ID:
		return fmt.Errorf("Nats-Msg-Id %q, id %q", h.header.Get("Nats-Msg-Id"), h.ID)
	case h.header.Get("Nats-Expected-Stream") != "RENEWATCH":
		return fmt.Errorf("Nats-Expected-Stream %q", h.header.Get("Nats-Expected-Stream"))
	case h.header.Get("Renewatch-Severity") != h.Data.Severity:
		return fmt.Errorf("Renewatch-Severity %q, severity %q", h.header.Get("Renewatch-Severity"), h.Data.Severity)
	}
	for name := range h.header {
		if strings.HasPrefix(strings.ToLower(name), "ce-") {
			return fmt.Errorf("header %s", name)
		}
	}
	return nil
}

// natsServer is the real nats-server with JetStream in a directory of its own.
type natsServer struct {
	t    *testing.T
	conf string
	url  string
	*process
}

func newNATSServer(t *testing.T) *natsServer {
	t.Helper()
	dir := tempDir(t)
	port := freePort(t)
	s := &natsServer{t: t, conf: filepath.Join(dir, "nats.conf"), url: fmt.Sprintf("nats://127.0.0.1:%d", port)}
	writeFile(t, s.conf, fmt.Sprintf("listen: \"127.0.0.1:%d\"\njetstream { store_dir: %q }\n", port, filepath.Join(dir, "js")), 0o644)
	s.start()
	return s
}

// start starts the server, again after a kill, on the same port and store.
func (s *natsServer) start() {
	s.t.Helper()
	s.process = spawn(s.t, "nats-server", exec.Command(program(s.t, "nats-server"), "-c", s.conf))
	awaitPort(s.t, strings.TrimPrefix(s.url, "nats://"))
}

func (s *natsServer) kill() {
	s.t.Helper()
	s.stop(s.t, syscall.SIGKILL)
}
