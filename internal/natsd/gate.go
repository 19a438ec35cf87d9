package natsd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// What a visitor's consumer may be.
const (
	maxConsumers      = 64
	maxInactive       = time.Hour
	defaultInactive   = 5 * time.Minute
	maxFilters        = 64
	maxAckPending     = 1000
	maxBackoffs       = 32
	maxConsumerText   = 256
	maxDeliverSubject = 128
	apiTimeout        = 5 * time.Second
)

// gate makes consumers for visitors. It stands between them and the stream's API
// because a push consumer delivers to a subject of the owner's account that its
// maker names: the sender's inbox, say, or an API subject. It also bounds what a
// consumer costs and how long it lives. What goes on to the server is put together
// anew from what is known to be harmless.
type gate struct {
	conn   *conn
	stream string
	done   chan struct{}
}

// run answers requests until the connection ends.
func (g *gate) run() {
	defer close(g.done)
	for m := range g.conn.requests {
		if m.reply == "" {
			continue
		}
		answer, err := g.answer(m)
		if err != nil {
			answer = refusal(err)
		}
		if err := g.conn.publish(m.reply, "", answer); err != nil {
			return
		}
	}
}

func (g *gate) answer(m message) ([]byte, error) {
	req, err := g.request(m)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, errors.New("the request cannot be understood")
	}
	subject := "$JS.API.CONSUMER.CREATE." + g.stream
	if req.Config.Name != "" {
		subject += "." + req.Config.Name
	}
	return g.conn.request(subject, body, apiTimeout)
}

// request is a request for a consumer with nothing in it but what is allowed.
func (g *gate) request(m message) (*server.CreateConsumerRequest, error) {
	var asked server.CreateConsumerRequest
	if err := json.Unmarshal(m.data, &asked); err != nil {
		return nil, errors.New("the request cannot be understood")
	}
	if asked.Stream != g.stream {
		return nil, errors.New("the stream's name does not match the subject")
	}
	c := asked.Config
	name, err := consumerName(strings.TrimPrefix(m.subject, gatePrefix+"."), g.stream, c)
	if err != nil {
		return nil, err
	}
	switch {
	case c.DeliverSubject != "" && !inbox(c.DeliverSubject):
		return nil, errors.New("deliver_subject must be a literal subject below _INBOX here")
	case c.DeliverGroup != "" && !validName(c.DeliverGroup):
		return nil, errors.New("deliver_group must be a plain name")
	case c.PauseUntil != nil, len(c.PriorityGroups) > 0, c.PriorityPolicy != 0, c.PinnedTTL != 0:
		return nil, errors.New("pauses and priority groups are not offered here")
	case c.Direct, c.Sourcing, c.AckPolicy == server.AckFlowControl:
		return nil, errors.New("sourcing from this stream is not offered here")
	case len(c.FilterSubjects) > maxFilters, len(c.BackOff) > maxBackoffs:
		return nil, errors.New("too many filters or backoffs")
	case len(c.FilterSubject) > maxConsumerText, len(c.Description) > maxConsumerText:
		return nil, errors.New("a text is too long")
	}
	for _, f := range c.FilterSubjects {
		if len(f) > maxConsumerText {
			return nil, errors.New("a filter is too long")
		}
	}
	made := server.ConsumerConfig{
		Name:           name,
		Description:    c.Description,
		DeliverPolicy:  c.DeliverPolicy,
		OptStartSeq:    c.OptStartSeq,
		OptStartTime:   c.OptStartTime,
		AckPolicy:      c.AckPolicy,
		AckWait:        c.AckWait,
		MaxDeliver:     c.MaxDeliver,
		BackOff:        c.BackOff,
		FilterSubject:  c.FilterSubject,
		FilterSubjects: c.FilterSubjects,
		ReplayPolicy:   c.ReplayPolicy,
		RateLimit:      c.RateLimit,
		MaxWaiting:     min(c.MaxWaiting, server.JSWaitQueueDefaultMax),
		FlowControl:    c.FlowControl,
		HeadersOnly:    c.HeadersOnly,

		MaxRequestBatch:    c.MaxRequestBatch,
		MaxRequestExpires:  c.MaxRequestExpires,
		MaxRequestMaxBytes: c.MaxRequestMaxBytes,

		DeliverSubject: c.DeliverSubject,
		DeliverGroup:   c.DeliverGroup,
		Heartbeat:      c.Heartbeat,

		InactiveThreshold: defaultInactive,
		Replicas:          1,
		// Visitors write nothing to disk, and nothing of theirs outlives us.
		MemoryStorage: true,
	}
	if c.InactiveThreshold > 0 {
		made.InactiveThreshold = min(c.InactiveThreshold, maxInactive)
	}
	if c.Durable != "" {
		made.Durable = name
	}
	if c.AckPolicy != server.AckNone {
		made.MaxAckPending = maxAckPending
		if c.MaxAckPending > 0 {
			made.MaxAckPending = min(c.MaxAckPending, maxAckPending)
		}
	}
	return &server.CreateConsumerRequest{Stream: g.stream, Config: made, Action: asked.Action}, nil
}

// consumerName is the name asked for in the subject or the configuration, "" when
// the server is to choose one.
func consumerName(subject, stream string, c server.ConsumerConfig) (string, error) {
	name := c.Name
	if name == "" {
		name = c.Durable
	}
	rest, ok := strings.CutPrefix(subject, "CONSUMER.DURABLE.CREATE."+stream+".")
	if !ok {
		rest, ok = strings.CutPrefix(subject, "CONSUMER.CREATE."+stream+".")
	}
	if ok {
		token, _, _ := strings.Cut(rest, ".")
		if name == "" {
			name = token
		}
		if name != token {
			return "", errors.New("the consumer's name does not match the subject")
		}
	}
	if c.Durable != "" && c.Durable != name {
		return "", errors.New("the consumer's two names differ")
	}
	if name != "" && !validName(name) {
		return "", errors.New("the consumer's name must be letters, digits, - and _, at most 64")
	}
	return name, nil
}

// inbox tells whether subject is one that a client makes for itself.
func inbox(subject string) bool {
	rest, ok := strings.CutPrefix(subject, "_INBOX.")
	if !ok || len(subject) > maxDeliverSubject {
		return false
	}
	for token := range strings.SplitSeq(rest, ".") {
		if !validName(token) {
			return false
		}
	}
	return true
}

// refusal is err as the server would say it.
func refusal(err error) []byte {
	const consumerCreateFailed = 10012
	b, _ := json.Marshal(map[string]any{
		"type": server.JSApiConsumerCreateResponseType,
		"error": map[string]any{
			"code": 400, "err_code": consumerCreateFailed,
			"description": fmt.Sprintf("renewatch: %v", err),
		},
	})
	return b
}
