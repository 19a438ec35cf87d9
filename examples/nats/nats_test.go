package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/notify/schematest"
)

const patience = 30 * time.Second

// The two files work together: the admin makes the stream of stream.json, a host
// publishes its own events and no other's, and the pager reads them.
func TestStreamAndPermissions(t *testing.T) {
	for _, user := range []string{"ADMIN", "WEB1", "PAGER"} {
		t.Setenv("NATS_"+user+"_PASSWORD", "password-of-"+user)
	}
	o, err := server.ProcessConfigFile("permissions.conf")
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.StoreDir, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not come up")
	}

	admin, err := nats.Connect(s.ClientURL(), nats.UserInfo("admin", "password-of-ADMIN"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("stream.json")
	if err != nil {
		t.Fatal(err)
	}
	var config jetstream.StreamConfig
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}

	events := make(map[string]int)
	for _, host := range []string{"web1.example.org", "web2.example.org"} {
		j, err := notify.OpenJournal(t.TempDir(), notify.JournalOptions{
			Host: host, Instance: "i", Destinations: []string{notify.Destination},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if _, err := j.Append(notify.Draft{Kind: notify.AgentStarted, Certificate: notify.AgentCertificate}); err != nil {
			t.Fatal(err)
		}
		refused := make(chan notify.Refused, 1)
		sender, err := notify.NewSender(notify.SenderOptions{
			Journal: j, URLs: []string{s.ClientURL()}, User: "web1", Password: "password-of-WEB1",
			OnRefused: func(r notify.Refused) { refused <- r },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		ended := make(chan error, 1)
		go func() { ended <- sender.Run(ctx) }()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for j.Depth() > 0 && ctx.Err() == nil {
			<-tick.C
		}
		events[host] = len(refused)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if events["web1.example.org"] != 0 || events["web2.example.org"] != 1 {
		t.Errorf("refused events: %v", events)
	}

	pager, err := nats.Connect(s.ClientURL(), nats.UserInfo("pager", "password-of-PAGER"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer pager.Close()
	js, err = jetstream.New(pager)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := js.OrderedConsumer(t.Context(), config.Name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next(jetstream.FetchMaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject() != "renewatch.evt.web1_example_org._agent.agent.started" {
		t.Errorf("subject %s", m.Subject())
	}
	if err := schematest.Validate(m.Data()); err != nil {
		t.Error(err)
	}
	if err := pager.Publish(m.Subject(), m.Data()); err != nil {
		t.Fatal(err)
	}
	if err := pager.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := pager.LastError(); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("the pager may publish: %v", err)
	}
}
