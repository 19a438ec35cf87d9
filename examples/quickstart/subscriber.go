package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/renewatch/renewatch/notify"
)

// What a subscriber needs to know of renewatch: where its events are told, and
// where the embedded server keeps them.
const (
	subject = "renewatch.evt.>"
	stream  = "RENEWATCH"
	domain  = "renewatch"
)

// subscriber is anybody on this machine: it has no credentials, listens to the
// subject and reads what was told before from the stream.
type subscriber struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	events chan notify.Event // each event once; closed when ctx of subscribe ends
	wg     sync.WaitGroup
}

// subscribe listens from the first event on: it subscribes, then reads the
// history, then goes on with what has come since, and drops what it already
// knows by its id.
func subscribe(ctx context.Context, url string) (*subscriber, error) {
	nc, err := nats.Connect(url, nats.Name("quickstart"), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("NATS at %s: %w", url, err)
	}
	s := &subscriber{nc: nc, events: make(chan notify.Event, 256)}
	live := make(chan *nats.Msg, 256)
	if err = s.listen(ctx, live); err != nil {
		nc.Close()
		return nil, fmt.Errorf("NATS at %s: %w", url, err)
	}
	return s, nil
}

func (s *subscriber) listen(ctx context.Context, live chan *nats.Msg) (err error) {
	if s.js, err = jetstream.NewWithDomain(s.nc, domain); err != nil {
		return err
	}
	if _, err = s.nc.ChanSubscribe(subject, live); err != nil {
		return err
	}
	if err = s.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	past, err := s.history(ctx)
	if err != nil {
		return err
	}
	s.wg.Go(func() {
		defer close(s.events)
		known := map[string]bool{}
		pass := func(e notify.Event) {
			if known[e.ID] {
				return
			}
			known[e.ID] = true
			select {
			case s.events <- e:
			case <-ctx.Done():
			}
		}
		for _, e := range past {
			pass(e)
		}
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-live:
				var e notify.Event
				if json.Unmarshal(m.Data, &e) == nil {
					pass(e)
				}
			}
		}
	})
	return nil
}

// history reads the whole stream.
func (s *subscriber) history(ctx context.Context) ([]notify.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	consumer, err := s.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: 10 * time.Second,
		MemoryStorage:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("the history of stream %s: %w", stream, err)
	}
	var past []notify.Event
	for {
		batch, err := consumer.FetchNoWait(256)
		if err != nil {
			return nil, fmt.Errorf("the history of stream %s: %w", stream, err)
		}
		got := 0
		for m := range batch.Messages() {
			got++
			var e notify.Event
			if err := json.Unmarshal(m.Data(), &e); err != nil {
				return nil, fmt.Errorf("the history of stream %s: %w", stream, err)
			}
			past = append(past, e)
		}
		if err := batch.Error(); err != nil {
			return nil, fmt.Errorf("the history of stream %s: %w", stream, err)
		}
		if got == 0 {
			return past, nil
		}
		if ctx.Err() != nil {
			return nil, errors.New("the history has no end")
		}
	}
}

// close ends the connection; the subscription has ended with its context.
func (s *subscriber) close() {
	s.nc.Close()
	s.wg.Wait()
}
