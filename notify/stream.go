package notify

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What the events are published with when nothing else is said.
const (
	DefaultPrefix = "renewatch"
	DefaultStream = "RENEWATCH"
)

// DuplicateWindow is how long the stream knows the ids it has stored.
const DuplicateWindow = 24 * time.Hour

// StreamConfig is the stream renewatch's events belong into. maxBytes 0 is 1 GiB.
func StreamConfig(stream, prefix string, maxBytes int64) jetstream.StreamConfig {
	if maxBytes <= 0 {
		maxBytes = 1 << 30
	}
	return jetstream.StreamConfig{
		Name:              stream,
		Description:       "renewatch: what happened to certificates",
		Subjects:          []string{prefix + ".evt.>"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardOld,
		MaxConsumers:      -1,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxBytes:          maxBytes,
		MaxAge:            365 * 24 * time.Hour,
		MaxMsgSize:        64 << 10,
		Replicas:          1,
		Duplicates:        DuplicateWindow,
		AllowDirect:       true,
		DenyDelete:        true,
		Compression:       jetstream.S2Compression,
	}
}

// StreamJSON is StreamConfig as natscli and the server read it.
func StreamJSON(stream, prefix string, maxBytes int64) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(StreamConfig(stream, prefix, maxBytes))
	return b.Bytes(), err
}
