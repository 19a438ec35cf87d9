package natsd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/notify/schematest"
)

const patience = 20 * time.Second

func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// sender connects as the one who may publish.
func sender(t *testing.T, s *Server) *nats.Conn {
	t.Helper()
	user, password := s.Credentials()
	return connect(t, "", nats.InProcessServer(s), nats.UserInfo(user, password), nats.CustomInboxPrefix(SenderInbox))
}

// visitor connects as anybody does.
func visitor(t *testing.T, s *Server) *nats.Conn { return connect(t, s.URL()) }

func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append(opts, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func publish(t *testing.T, nc *nats.Conn, subject, body string) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(context.Background(), subject, []byte(body)); err != nil {
		t.Fatalf("publish %s: %v", subject, err)
	}
}

// state is how the stream really is, asked inside the owner's account.
func state(t *testing.T, s *Server) (messages, last uint64) {
	t.Helper()
	conn, err := dialGate(s.srv, s.secret)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	b, err := conn.request("$JS.API.STREAM.INFO."+notify.DefaultStream, nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		State struct {
			Messages uint64 `json:"messages"`
			LastSeq  uint64 `json:"last_seq"`
		} `json:"state"`
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(b, &info); err != nil || info.Error != nil {
		t.Fatalf("stream info: %v %v", err, info.Error)
	}
	return info.State.Messages, info.State.LastSeq
}

const event = "renewatch.evt.web1.example_com.deploy.verified"

func TestVisitorSeesEventsLiveWithAPlainSubscription(t *testing.T) {
	s := start(t, Options{})
	nc := visitor(t, s)
	sub, err := nc.SubscribeSync("renewatch.evt.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, sender(t, s), event, "one")
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != event || string(m.Data) != "one" {
		t.Errorf("got %s %q", m.Subject, m.Data)
	}
}

func TestVisitorReadsTheStream(t *testing.T) {
	s := start(t, Options{})
	from := sender(t, s)
	for i := range 600 { // more than one pull request brings
		publish(t, from, event, fmt.Sprint(i))
	}
	nc := visitor(t, s)
	for name, make := range map[string]func() (jetstream.JetStream, error){
		"by domain": func() (jetstream.JetStream, error) { return jetstream.NewWithDomain(nc, Domain) },
		"plainly":   func() (jetstream.JetStream, error) { return jetstream.New(nc) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			js, err := make()
			if err != nil {
				t.Fatal(err)
			}
			if info, err := js.AccountInfo(ctx); err != nil || info.Domain != Domain {
				t.Errorf("account info: %+v %v", info, err)
			}
			var names []string
			for n := range js.StreamNames(ctx).Name() {
				names = append(names, n)
			}
			if len(names) != 1 || names[0] != notify.DefaultStream {
				t.Errorf("streams: %q", names)
			}
			stream, err := js.Stream(ctx, notify.DefaultStream)
			if err != nil {
				t.Fatal(err)
			}
			if n := stream.CachedInfo().State.Msgs; n != 600 {
				t.Errorf("%d messages", n)
			}
			if m, err := stream.GetMsg(ctx, 7); err != nil || string(m.Data) != "6" {
				t.Errorf("get message: %v %v", m, err)
			}
			if m, err := stream.GetLastMsgForSubject(ctx, event); err != nil || string(m.Data) != "599" {
				t.Errorf("get last: %v %v", m, err)
			}

			ordered, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"renewatch.evt.*.*.deploy.>"}})
			if err != nil {
				t.Fatal(err)
			}
			expect(t, ordered, 600)

			// A named one, acknowledged twice over.
			pull, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
				Durable: "pager", FilterSubject: event, AckPolicy: jetstream.AckExplicitPolicy,
			})
			if err != nil {
				t.Fatal(err)
			}
			config := pull.CachedInfo().Config
			if config.InactiveThreshold != defaultInactive || !config.MemoryStorage || config.Durable != "pager" {
				t.Errorf("consumer: %+v", config)
			}
			batch, err := pull.Fetch(10)
			if err != nil {
				t.Fatal(err)
			}
			for m := range batch.Messages() {
				if err := m.DoubleAck(ctx); err != nil {
					t.Fatal(err)
				}
			}
			info, err := pull.Info(ctx)
			if err != nil || info.AckFloor.Consumer != 10 {
				t.Errorf("after ten acknowledgements: %+v %v", info, err)
			}
			if err := stream.DeleteConsumer(ctx, "pager"); err != nil {
				t.Error(err)
			}
		})
	}
}

func expect(t *testing.T, c jetstream.Consumer, n int) {
	t.Helper()
	messages, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for i := range n {
		m, err := messages.Next(jetstream.NextMaxWait(patience))
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if string(m.Data()) != fmt.Sprint(i) || m.Subject() != event {
			t.Fatalf("message %d is %s %q", i, m.Subject(), m.Data())
		}
	}
}

// As natscli's "nats sub --all" does it: a push consumer with flow control.
func TestVisitorReplaysWithAPushConsumer(t *testing.T) {
	s := start(t, Options{})
	from := sender(t, s)
	body := strings.Repeat("x", 2000)
	for range 300 {
		publish(t, from, event, body)
	}
	nc := visitor(t, s)
	n := 300
	for name, opts := range map[string][]nats.SubOpt{
		"ephemeral": {nats.EnableFlowControl(), nats.IdleHeartbeat(time.Second), nats.AckNone(), nats.DeliverAll()},
		"ordered":   {nats.OrderedConsumer()},
	} {
		t.Run(name, func(t *testing.T) {
			js, err := nc.JetStream(nats.Domain(Domain))
			if err != nil {
				t.Fatal(err)
			}
			sub, err := js.SubscribeSync("renewatch.evt.>", opts...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				m, err := sub.NextMsg(patience)
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if m.Subject != event {
					t.Fatalf("message %d came as %s", i, m.Subject)
				}
			}
			publish(t, from, event, "live")
			n++
			if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != "live" {
				t.Errorf("what comes later: %v %v", m, err)
			}
			if err := sub.Unsubscribe(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRestartKeepsTheStream(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Options{StoreDir: dir})
	publish(t, sender(t, s), event, "one")
	old, _ := s.Credentials()
	_, before := s.Credentials()
	s.Shutdown()
	// Another size, prefix and port are no obstacle.
	s = start(t, Options{StoreDir: dir, MaxStore: 32 << 20, Prefix: "other"})
	if n, _ := state(t, s); n != 1 {
		t.Errorf("%d messages after the restart", n)
	}
	if user, after := s.Credentials(); user != old || after == before {
		t.Error("the password did not change")
	}
	publish(t, sender(t, s), "other.evt.a.b.c.d", "two")
	if n, _ := state(t, s); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := Start(Options{Listen: l.Addr().String(), StoreDir: t.TempDir()})
	if !errors.Is(err, ErrPortTaken) {
		t.Errorf("got %v %v", s, err)
	}
	first := start(t, Options{})
	if s, err := Start(Options{Listen: first.Addr().String(), StoreDir: t.TempDir()}); !errors.Is(err, ErrPortTaken) {
		t.Errorf("beside another NATS server: %v %v", s, err)
	}
}

func TestBadOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"no directory":        {Listen: "127.0.0.1:0"},
		"no port":             {Listen: "127.0.0.1", StoreDir: dir},
		"no host":             {Listen: ":4222", StoreDir: dir},
		"port out of range":   {Listen: "127.0.0.1:65536", StoreDir: dir},
		"negative port":       {Listen: "127.0.0.1:-1", StoreDir: dir},
		"foreign address":     {Listen: "192.0.2.1:4222", StoreDir: dir},
		"prefix of two":       {Listen: "127.0.0.1:0", StoreDir: dir, Prefix: "a.b"},
		"wildcard prefix":     {Listen: "127.0.0.1:0", StoreDir: dir, Prefix: "*"},
		"stream with a dot":   {Listen: "127.0.0.1:0", StoreDir: dir, Stream: "A.B"},
		"tiny store":          {Listen: "127.0.0.1:0", StoreDir: dir, MaxStore: 1},
		"a file in the place": {Listen: "127.0.0.1:0", StoreDir: filepath.Join(file, "x")},
	} {
		if s, err := Start(o); err == nil {
			s.Shutdown()
			t.Errorf("%s: started", name)
		} else if strings.ContainsAny(err.Error(), "\n") || strings.HasSuffix(err.Error(), ".") {
			t.Errorf("%s: %q is not one sentence", name, err)
		}
	}
}

func TestBrokenStoreIsSaid(t *testing.T) {
	streams := filepath.Join("jetstream", ownerAccount, "streams", notify.DefaultStream)
	for name, c := range map[string]struct {
		file     string
		content  []byte
		survives bool
	}{
		"its description is garbage": {file: filepath.Join(streams, "meta.inf"), content: []byte("garbage")},
		"its description is empty":   {file: filepath.Join(streams, "meta.inf")},
		// The server cuts off what it cannot read; the journal has it still.
		"its messages are garbage": {file: filepath.Join(streams, "msgs", "1.blk"), content: []byte("garbage"), survives: true},
		"its index is garbage":     {file: filepath.Join(streams, "msgs", "index.db"), content: []byte("garbage"), survives: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := start(t, Options{StoreDir: dir})
			publish(t, sender(t, s), event, "one")
			s.Shutdown()
			if err := os.WriteFile(filepath.Join(dir, c.file), c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Start(Options{Listen: "127.0.0.1:0", StoreDir: dir})
			if err == nil {
				defer s.Shutdown()
			}
			if c.survives {
				if err != nil {
					t.Fatal(err)
				}
				publish(t, sender(t, s), event, "two")
			} else if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(Options{Listen: "127.0.0.1:0", StoreDir: dir}); !errors.Is(err, ErrStore) {
		t.Errorf("a file in the place: %v %v", s, err)
	}
}

// The way the daemon uses it: journal, sender inside the process, a visitor reads.
func TestSenderOfTheProcess(t *testing.T) {
	s := start(t, Options{Prefix: "acme", Stream: "CERTS"})
	j, err := notify.OpenJournal(t.TempDir(), notify.JournalOptions{
		Host: "web1.example.org", Instance: "i", Destinations: []string{notify.Destination},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	user, password := s.Credentials()
	out, err := notify.NewSender(notify.SenderOptions{
		Journal: j, InProcess: s, Inbox: SenderInbox, User: user, Password: password, Prefix: "acme", Stream: "CERTS",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- out.Run(ctx) }()
	nc := visitor(t, s)
	live, err := nc.SubscribeSync("acme.evt.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(notify.Draft{Kind: notify.AgentStarted, Certificate: notify.AgentCertificate}); err != nil {
		t.Fatal(err)
	}
	heard, err := live.NextMsg(patience)
	if err != nil {
		t.Fatalf("%v; %+v", err, out.Status())
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); j.Depth() > 0 && time.Now().Before(deadline); {
		<-tick.C
	}
	js, err := jetstream.NewWithDomain(nc, Domain)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "CERTS")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if string(kept.Data) != string(heard.Data) || kept.Subject != "acme.evt.web1_example_org._agent.agent.started" {
		t.Errorf("%s\n%s\n%s", kept.Subject, kept.Data, heard.Data)
	}
	if err := schematest.Validate(kept.Data); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if j.Depth() != 0 {
		t.Errorf("%d wait", j.Depth())
	}
}

func TestConsumersAreLimited(t *testing.T) {
	s := start(t, Options{})
	nc := visitor(t, s)
	js, err := jetstream.NewWithDomain(nc, Domain)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range maxConsumers {
		c, err := js.CreateConsumer(ctx, notify.DefaultStream, jetstream.ConsumerConfig{
			Name: fmt.Sprintf("c%d", i), InactiveThreshold: 1000 * time.Hour,
		})
		if err != nil {
			t.Fatalf("consumer %d: %v", i, err)
		}
		if got := c.CachedInfo().Config.InactiveThreshold; got != maxInactive {
			t.Fatalf("expires after %v", got)
		}
	}
	if _, err := js.CreateConsumer(ctx, notify.DefaultStream, jetstream.ConsumerConfig{Name: "more"}); err == nil {
		t.Error("one consumer too many")
	}
}

func TestCredentialsDoNotWorkFromOutside(t *testing.T) {
	s := start(t, Options{})
	user, password := s.Credentials()
	for _, u := range []string{user, gateUser, visitorUser, ""} {
		for _, p := range []string{password, "", "x"} {
			if u == visitorUser && p == "" || u == "" && p == "" {
				continue // that is what a visitor is
			}
			nc, err := nats.Connect(s.URL(), nats.UserInfo(u, p))
			if err == nil {
				defer nc.Close()
				if u != "" { // without a name nats.go logs in as nobody
					t.Errorf("logged in as %q with %q over TCP", u, p)
				}
			}
		}
	}
}
