package notify_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/notify/schematest"
)

const (
	host     = "web1.example.org"
	patience = 30 * time.Second
)

// serve runs a NATS server with JetStream on loopback until the test ends.
func serve(t *testing.T, change func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(),
	}
	if change != nil {
		change(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not come up")
	}
	return s
}

// makeStream makes the stream as its admin would.
func makeStream(t *testing.T, url string, opts []nats.Option, change func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	config := notify.StreamConfig(notify.DefaultStream, notify.DefaultPrefix, 1<<24)
	if change != nil {
		change(&config)
	}
	stream, err := js.CreateStream(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func journal(t *testing.T, dir string) *notify.Journal {
	t.Helper()
	j, err := notify.OpenJournal(dir, notify.JournalOptions{
		Host: host, Instance: "instance", Destinations: []string{notify.Destination},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func number(n int) notify.Draft {
	return notify.Draft{
		Kind: notify.RenewalDetected, Certificate: "www.example.com", Occurrence: uint64(n),
		Data: notify.Data{
			Detail: fmt.Sprint("number ", n), RenewalID: "0123456789abcdef",
			Certificate: &notify.Certificate{Name: "www.example.com"},
		},
	}
}

func add(t *testing.T, j *notify.Journal, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if _, err := j.Append(number(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// running is a Sender at work.
type running struct {
	*notify.Sender
	journal *notify.Journal
	stop    func() // and wait for Run
	refused chan notify.Refused
}

func run(t *testing.T, o notify.SenderOptions) *running {
	t.Helper()
	r := &running{refused: make(chan notify.Refused, 100), journal: o.Journal}
	o.Extra = append(o.Extra, nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	o.OnRefused = func(x notify.Refused) { r.refused <- x }
	s, err := notify.NewSender(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Sender = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var stopped bool
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// until waits for a state that comes by itself.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("does not happen: %s", what)
		case <-tick.C:
		}
	}
}

func (r *running) drained(t *testing.T) {
	t.Helper()
	until(t, "everything is sent", func() bool { return r.journal.Depth() == 0 })
}

// stored is what the stream holds, each event validated, as the numbers they have.
func stored(t *testing.T, stream jetstream.Stream) (numbers []int) {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if err := schematest.Validate(m.Data); err != nil {
			t.Error(err)
		}
		e, err := notify.Decode(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get("Nats-Msg-Id") != e.ID || m.Header.Get("Content-Type") != "application/cloudevents+json" ||
			m.Header.Get("Renewatch-Severity") != "info" || m.Header.Get("Nats-Expected-Stream") != "RENEWATCH" {
			t.Errorf("headers %v", m.Header)
		}
		for name := range m.Header {
			if strings.HasPrefix(strings.ToLower(name), "ce-") {
				t.Errorf("header %s", name)
			}
		}
		if want := "renewatch.evt.web1_example_org.www_example_com.renewal.detected"; m.Subject != want {
			t.Errorf("subject %s, want %s", m.Subject, want)
		}
		var n int
		if _, err := fmt.Sscanf(e.Data.Detail, "number %d", &n); err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func inOrder(t *testing.T, stream jetstream.Stream, from, to int) {
	t.Helper()
	got := stored(t, stream)
	if len(got) != to-from+1 {
		t.Fatalf("%d events, want %d: %v", len(got), to-from+1, got)
	}
	for i, n := range got {
		if n != from+i {
			t.Fatalf("not once and in order: %v", got)
		}
	}
}

func TestEventsReachTheStreamInOrder(t *testing.T) {
	s := serve(t, nil)
	stream := makeStream(t, s.ClientURL(), nil, nil)
	j := journal(t, t.TempDir())
	add(t, j, 1, 100)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}})
	add(t, j, 101, 200)
	r.drained(t)
	inOrder(t, stream, 1, 200)
	st := r.Status()
	if !st.Connected || st.URL != s.ClientURL() || st.LastError != "" || !st.OldestUnsent.IsZero() {
		t.Errorf("%+v", st)
	}
}

// The server goes while events come, and comes back at the same address.
func TestAnOutageCostsOnlyTime(t *testing.T) {
	store := t.TempDir()
	s := serve(t, func(o *server.Options) { o.StoreDir = store })
	addr := s.Addr().(*net.TCPAddr)
	makeStream(t, s.ClientURL(), nil, nil)
	dir := t.TempDir()
	j := journal(t, dir)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}})
	add(t, j, 1, 50)
	for round := range 2 {
		// Down in the middle of appending, at any point of a publish.
		stopped := make(chan struct{})
		go func() { s.Shutdown(); s.WaitForShutdown(); close(stopped) }()
		add(t, j, 51+round*100, 150+round*100)
		<-stopped
		until(t, "the sender notices", func() bool { return !r.Status().Connected && r.Status().LastError != "" })
		if r.Status().Depth == 0 || r.Status().OldestUnsent.IsZero() {
			t.Errorf("%+v", r.Status())
		}
		s = serve(t, func(o *server.Options) { o.StoreDir, o.Port = store, addr.Port })
		r.drained(t)
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), notify.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	inOrder(t, stream, 1, 250)
}

// The server is not there yet: nats.go fails every publish with headers then.
func TestAServerThatComesLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	j := journal(t, t.TempDir())
	add(t, j, 1, 5)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{fmt.Sprintf("nats://127.0.0.1:%d", addr.Port)}, EnsureStream: true})
	until(t, "an error is told", func() bool { return r.Status().LastError != "" })
	s := serve(t, func(o *server.Options) { o.Port = addr.Port })
	r.drained(t)
	if n := len(r.refused); n != 0 {
		t.Errorf("%d events were refused", n)
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), notify.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	inOrder(t, stream, 1, 5)
	if got := stream.CachedInfo().Config; got.Duplicates != 24*time.Hour || got.MaxMsgSize != 64<<10 || !got.DenyDelete {
		t.Errorf("the stream was made as %+v", got)
	}
}

func TestAStreamThatComesLater(t *testing.T) {
	s := serve(t, nil)
	j := journal(t, t.TempDir())
	add(t, j, 1, 3)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}})
	until(t, "an error is told", func() bool { return strings.Contains(r.Status().LastError, "no stream") })
	stream := makeStream(t, s.ClientURL(), nil, nil)
	r.drained(t)
	inOrder(t, stream, 1, 3)
}

func TestEnsureStreamNeverChangesOne(t *testing.T) {
	s := serve(t, nil)
	stream := makeStream(t, s.ClientURL(), nil, func(c *jetstream.StreamConfig) {
		c.MaxAge, c.Subjects = 48*time.Hour, []string{"renewatch.>"}
	})
	j := journal(t, t.TempDir())
	add(t, j, 1, 3)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}, EnsureStream: true})
	r.drained(t)
	inOrder(t, stream, 1, 3)
	if c := stream.CachedInfo().Config; c.MaxAge != 48*time.Hour || c.Subjects[0] != "renewatch.>" {
		t.Errorf("changed to %+v", c)
	}
}

// Acknowledged, but the cursor did not get to disk: sent again, stored once.
func TestACrashBeforeTheCursorStoresNothingTwice(t *testing.T) {
	s := serve(t, nil)
	stream := makeStream(t, s.ClientURL(), nil, nil)
	dir := t.TempDir()
	j := journal(t, dir)
	cursor := filepath.Join(dir, "cursor.nats.json")
	before, err := os.ReadFile(cursor)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}})
	add(t, j, 1, 10)
	r.drained(t)
	r.stop()
	j.Close()
	if err := os.WriteFile(cursor, before, 0o600); err != nil {
		t.Fatal(err)
	}
	j = journal(t, dir)
	if j.Depth() != 10 {
		t.Fatalf("%d wait", j.Depth())
	}
	add(t, j, 11, 12)
	run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}}).drained(t)
	inOrder(t, stream, 1, 12)
}

// The cursor does not pass over events whose file was replaced by an empty one.
func TestEventsOfAReplacedFileAreSent(t *testing.T) {
	s := serve(t, nil)
	stream := makeStream(t, s.ClientURL(), nil, nil)
	dir := t.TempDir()
	j := journal(t, dir)
	add(t, j, 1, 5)
	swap := func() {
		files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		other := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(other, files[len(files)-1]); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}})
	r.drained(t)
	inOrder(t, stream, 1, 5)
	add(t, j, 6, 8)
	swap()
	add(t, j, 9, 9)
	r.drained(t)
	inOrder(t, stream, 1, 9)
}

func TestTheLastWordIsSentBeforeTheEnd(t *testing.T) {
	s := serve(t, nil)
	stream := makeStream(t, s.ClientURL(), nil, nil)
	j := journal(t, t.TempDir())
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}})
	until(t, "connected", func() bool { return r.Status().Connected })
	add(t, j, 1, 20)
	r.stop()
	inOrder(t, stream, 1, 20)
	until(t, "the connection is closed", func() bool { return s.NumClients() == 1 }) // the admin's
}

func TestStoppingWithoutAServerIsQuick(t *testing.T) {
	j := journal(t, t.TempDir())
	add(t, j, 1, 1)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{"nats://127.0.0.1:1"}})
	until(t, "an error is told", func() bool { return r.Status().LastError != "" })
	r.stop()
	if j.Depth() != 1 {
		t.Error("sent to nobody")
	}
}

func TestRefusals(t *testing.T) {
	big := number(2)
	big.Data.Detail = strings.Repeat("x", 1800)
	deny := func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "admin", Password: "p"},
			{Username: "agent", Password: "p", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"renewatch.evt.*.www_example_com.>"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
		}
	}
	denied := number(2)
	denied.Certificate = "secret.example.com"
	elsewhere := func(c *jetstream.StreamConfig) {
		c.Name, c.Subjects = "OTHER", []string{"renewatch.evt.*.secret_example_com.>"}
	}
	for name, c := range map[string]struct {
		server func(*server.Options)
		other  func(*jetstream.StreamConfig) // a second stream
		stream func(*jetstream.StreamConfig)
		draft  notify.Draft
		mode   notify.Mode
		reason string
	}{
		"larger than the stream takes": {
			stream: func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1500 }, draft: big, reason: "larger than the stream allows",
		},
		"larger than the server takes": {
			server: func(o *server.Options) { o.MaxPayload = 1500 }, draft: big, reason: "more than the server takes",
		},
		"not permitted":       {server: deny, draft: denied, reason: "is not permitted"},
		"not permitted, core": {server: deny, draft: denied, mode: notify.Core, reason: "is not permitted"},
		"another stream's": {
			stream: func(c *jetstream.StreamConfig) { c.Subjects = []string{"renewatch.evt.*.www_example_com.>"} },
			other:  elsewhere, draft: denied, reason: "another stream",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.server)
			o := notify.SenderOptions{URLs: []string{s.ClientURL()}, Mode: c.mode}
			var admin []nats.Option
			if strings.HasPrefix(name, "not permitted") {
				admin = append(admin, nats.UserInfo("admin", "p"))
				o.User, o.Password = "agent", "p"
			}
			if c.mode != notify.Core {
				makeStream(t, s.ClientURL(), admin, c.stream)
			}
			if c.other != nil {
				makeStream(t, s.ClientURL(), admin, c.other)
			}
			nc, err := nats.Connect(s.ClientURL(), admin...)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			sub, err := nc.SubscribeSync("renewatch.evt.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			o.Journal = journal(t, dir)
			add(t, o.Journal, 1, 1)
			if _, err := o.Journal.Append(c.draft); err != nil {
				t.Fatal(err)
			}
			add(t, o.Journal, 3, 4)
			r := run(t, o)
			r.drained(t)
			x := <-r.refused
			if x.Sequence != 2 || !strings.Contains(x.Reason, c.reason) || x.Kind != notify.RenewalDetected || len(r.refused) != 0 {
				t.Errorf("refused: %+v, and %d more", x, len(r.refused))
			}
			if st := r.Status(); st.Refused != 1 || st.LastError != "" {
				t.Errorf("%+v", st)
			}
			for _, want := range []int{1, 3, 4} {
				m, err := sub.NextMsg(patience)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(m.Data, fmt.Appendf(nil, "number %d", want)) {
					// The refused one may be heard by core subscribers of a server
					// whose stream refuses it.
					if m, err = sub.NextMsg(patience); err != nil || !bytes.Contains(m.Data, fmt.Appendf(nil, "number %d", want)) {
						t.Errorf("want number %d: %v", want, err)
					}
				}
			}
			kept, err := filepath.Glob(filepath.Join(dir, "refused", "*.jsonl"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("%q %v", kept, err)
			}
			b, err := os.ReadFile(kept[0])
			if err != nil || !bytes.Contains(b, []byte(x.ID)) || !bytes.Contains(b, []byte(c.reason)) {
				t.Errorf("%s %v", b, err)
			}
		})
	}
}

func TestCoreModeNeedsNoStream(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.JetStream = false })
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("acme.evt.*.*.renewal.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	j := journal(t, t.TempDir())
	add(t, j, 1, 20)
	run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}, Mode: notify.Core, Prefix: "acme"}).drained(t)
	for i := range 20 {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(m.Data, fmt.Appendf(nil, `"number %d"`, i+1)) || m.Header.Get("Nats-Msg-Id") == "" {
			t.Errorf("message %d: %s", i, m.Data)
		}
	}
}

func TestInProcess(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.DontListen = true })
	j := journal(t, t.TempDir())
	add(t, j, 1, 3)
	r := run(t, notify.SenderOptions{Journal: j, InProcess: s, Inbox: "_OWN", EnsureStream: true})
	r.drained(t)
}
