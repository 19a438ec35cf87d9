package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renewatch/renewatch/internal/natsd"
	"github.com/renewatch/renewatch/notify"
)

func TestSubscriberGetsEachEventOnceAndInOrder(t *testing.T) {
	s, err := natsd.Start(natsd.Options{Listen: "127.0.0.1:0", StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	user, password := s.Credentials()
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.UserInfo(user, password), nats.CustomInboxPrefix(natsd.SenderInbox))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			data, err := json.Marshal(notify.Event{ID: fmt.Sprint("id-", i), Sequence: fmt.Sprintf("%020d", i)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.Publish(ctx, "renewatch.evt.host.cert.agent.started", data); err != nil {
				t.Fatal(err)
			}
		}
	}
	const before, all = 300, 320 // more than one batch of the history
	publish(1, before)
	listening, stop := context.WithCancel(ctx)
	defer stop()
	sub, err := subscribe(listening, s.URL())
	if err != nil {
		t.Fatal(err)
	}
	publish(before+1, all)
	publish(all, all) // at least once: the last one comes again
	publish(all+1, all+1)
	for i := 1; i <= all+1; i++ {
		select {
		case e := <-sub.events:
			if want := fmt.Sprintf("%020d", i); e.Sequence != want {
				t.Fatalf("got %s, want %s", e.Sequence, want)
			}
		case <-ctx.Done():
			t.Fatalf("event %d has not come", i)
		}
	}
	history, err := sub.history(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != all+2 {
		t.Errorf("the history has %d events, want %d", len(history), all+2)
	}
	stop()
	sub.close()
}
