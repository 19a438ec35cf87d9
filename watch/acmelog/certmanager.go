package acmelog

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// certManager reads the log of cert-manager's controller: klog's text, before 1.13
// with "key"="value" pairs, and JSON (--logging-format=json); the events that it
// logs at verbosity 4; and events of the cluster, a JSON object a line.
//
// An issuance goes through a chain of resources, whose names begin with each
// other's: Certificate, CertificateRequest, Order, Challenge. What is said of one
// of them is said of the certificate's attempt. A temporary certificate, which
// cert-manager signs itself while it waits, is no renewal.
type certManager struct {
	fields fieldList
	weak   map[*attempt]bool // its problem is one that cert-manager may get over
	recent []*attempt        // that ended; more may be said of them
	open   *cmText
}

// cmText is a line of which a value goes on over several lines: err=<, lines behind
// a tab, " >" and the fields that follow.
type cmText struct {
	head, key, value []byte
	at               time.Time
	offset           int64
	lines            int
}

const maxRecent = 64

// cmWords are how the messages that matter begin.
var cmWords = []string{
	"Certificate must be re-issued", "certificate issued", "failed to create Order", "failed to finalize Order", "failed to update Order",
	"failed to retrieve the ACME order", "Event(v1.ObjectReference{", "re-queuing item due to error processing",
	"error waiting for authorization", "error accepting challenge", "acme server fatal error", "Found status change for Certificate",
	"Backing off from issuance", "Not re-issuing certificate", "propagation check failed",
}

// matters looks at the first words of a message without reading the line.
func (d *certManager) matters(text []byte) bool {
	if text[0] == '{' {
		_, words, ok := bytes.Cut(text, []byte(`"msg":"`))
		return ok && cmBegins(words) || bytes.Contains(text, []byte(`"involvedObject"`))
	}
	i := bytes.Index(text[:min(len(text), 160)], []byte("] "))
	if i < 0 {
		return false
	}
	words := text[i+2:]
	switch {
	case bytes.HasPrefix(words, []byte{'"'}):
		words = words[1:]
	case bytes.HasPrefix(words, []byte("cert-manager/")):
		_, words, _ = bytes.Cut(words, []byte(`"msg"="`))
	}
	return cmBegins(words)
}

func cmBegins(words []byte) bool {
	for _, w := range cmWords {
		if len(words) >= len(w) && string(words[:len(w)]) == w {
			return true
		}
	}
	return false
}

func signCertManager(text []byte) int {
	if text[0] == '{' {
		switch {
		case bytes.Contains(text, []byte(`"logger":"cert-manager`)), bytes.Contains(text, []byte(`"involvedObject":`)) && bytes.Contains(text, []byte("cert-manager.io/")):
			return 3
		}
		return 0
	}
	if _, _, msg, ok := klogLine(text, time.Time{}, time.UTC); ok {
		switch {
		case bytes.HasPrefix(msg, []byte("cert-manager/")), bytes.Contains(msg, []byte(` logger="cert-manager`)), bytes.Contains(msg, []byte(`APIVersion:"cert-manager.io/`)):
			return 3
		case bytes.HasPrefix(msg, []byte("Found status change for Certificate")), bytes.HasPrefix(msg, []byte("Setting lastTransitionTime for Certificate")):
			return 3
		}
	}
	return 0
}

// klogLine takes the head off a line of klog: "I1122 07:00:00.000000       1
// file.go:99] message". It has no year, as syslog has none.
func klogLine(b []byte, read time.Time, zone *time.Location) (level byte, at time.Time, msg []byte, ok bool) {
	if len(b) < 30 || b[5] != ' ' || b[8] != ':' || b[11] != ':' || b[14] != '.' || !isDigit(b[1]) {
		return 0, time.Time{}, nil, false
	}
	switch level = b[0]; level {
	case 'I', 'W', 'E', 'F':
	default:
		return 0, time.Time{}, nil, false
	}
	i := bytes.Index(b, []byte("] "))
	if i < 0 || i > 160 {
		return 0, time.Time{}, nil, false
	}
	t, err := time.ParseInLocation("0102 15:04:05.000000", string(b[1:min(len(b), 21)]), zone)
	if err != nil {
		return 0, time.Time{}, nil, false
	}
	if !read.IsZero() {
		at = t.AddDate(read.In(zone).Year(), 0, 0)
		if at.After(read.Add(24 * time.Hour)) {
			at = t.AddDate(read.In(zone).Year()-1, 0, 0)
		}
	}
	return level, at, b[i+2:], true
}

func (d *certManager) line(l *line, g *ledger) {
	text := l.text
	if o := d.open; o != nil {
		if len(text) > 0 && text[0] == '\t' && o.lines < 32 {
			o.lines++
			o.value = append(append(o.value, bytes.Trim(text, "\t ")...), ' ')
			return
		}
		d.open = nil
		rest, ours := bytes.CutPrefix(text, []byte(" >"))
		if ours {
			o.head = append(o.head, rest...)
		}
		d.klog(o.head, &field{key: o.key, value: bytes.TrimSpace(o.value)}, &line{at: o.at, offset: o.offset}, g)
		if ours {
			return
		}
	}
	if len(text) < 30 || !d.matters(text) {
		return
	}
	if text[0] == '{' {
		d.json(l, g)
		return
	}
	_, at, msg, ok := klogLine(text, l.at, g.zone)
	if !ok {
		return
	}
	m := line{at: at, offset: l.offset}
	if head, ok := bytes.CutSuffix(msg, []byte("=<")); ok {
		i := bytes.LastIndexByte(head, ' ') + 1
		d.open = &cmText{head: bytes.Clone(head[:i]), key: bytes.Clone(head[i:]), at: at, offset: l.offset}
		return
	}
	d.klog(msg, nil, &m, g)
}

func (d *certManager) exit(Exit, *ledger) {}
func (d *certManager) end(*ledger)        { d.open = nil }

// cmSaying is a message with what it is said of.
type cmSaying struct {
	msg             string
	logger          string
	space, resource string // what is worked on
	err             string
	dnsName         string
}

// klog reads a message in klog's text: "words" key="value", or before 1.13
// logger "msg"="words" "key"="value". extra is a field that was read already.
func (d *certManager) klog(msg []byte, extra *field, l *line, g *ledger) {
	s := cmSaying{}
	d.fields.reset()
	prefix := ""
	switch {
	case bytes.HasPrefix(msg, []byte{'"'}):
		words, rest, ok := quoted(msg[1:])
		if !ok {
			return
		}
		s.msg = field{value: words, quoted: true}.text()
		d.fields.logfmt(rest)
	case bytes.HasPrefix(msg, []byte("cert-manager/")):
		logger, rest, _ := bytes.Cut(msg, []byte{' '})
		s.logger = string(logger)
		d.fields.logfmt(rest)
		prefix = `"`
		s.msg = d.fields.text(`"msg"`)
	default:
		d.condition(string(msg), l, g)
		return
	}
	if extra != nil {
		d.fields.list = append(d.fields.list, *extra)
	}
	key := func(k string) string { return d.fields.text(prefix + k + prefix) }
	d.fill(&s, key)
	d.say(&s, key, l, g)
}

// json reads a line of the JSON format, or an event.
func (d *certManager) json(l *line, g *ledger) {
	if bytes.Contains(l.text, []byte(`"involvedObject"`)) {
		var e struct {
			Object struct {
				Kind      string `json:"kind"`
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
				Version   string `json:"apiVersion"`
			} `json:"involvedObject"`
			Type    string `json:"type"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
			Last    string `json:"lastTimestamp"`
			Time    string `json:"eventTime"`
		}
		if json.Unmarshal(l.text, &e) != nil || !strings.Contains(e.Object.Version, "cert-manager.io/") {
			return
		}
		m := line{at: l.at, offset: l.offset}
		for _, s := range []string{e.Time, e.Last} {
			if t := stamp(s, time.UTC); !t.IsZero() {
				m.at = t
			}
		}
		d.event(cmEvent{e.Object.Kind, e.Object.Namespace, e.Object.Name, e.Type, e.Reason, e.Message}, &m, g)
		return
	}
	d.fields.reset()
	d.fields.json(l.text)
	s := cmSaying{msg: d.fields.text("msg"), logger: d.fields.text("logger")}
	m := line{at: l.at, offset: l.offset}
	if t := stamp(d.fields.text("ts"), g.zone); !t.IsZero() {
		m.at = t
	}
	if strings.HasPrefix(s.msg, "Event(v1.ObjectReference{") {
		if e, ok := cmReference(s.msg); ok {
			d.event(e, &m, g)
		}
		return
	}
	d.fill(&s, d.fields.text)
	d.say(&s, d.fields.text, &m, g)
}

// fill finds out what a message is said of.
func (d *certManager) fill(s *cmSaying, key func(string) string) {
	if s.logger == "" {
		s.logger = key("logger")
	}
	if s.err = key("err"); s.err == "" {
		s.err = key("error")
	}
	s.dnsName = key("dnsName")
	s.space, s.resource = key("resource_namespace"), key("resource_name")
	for _, k := range []string{"key", "certificate"} {
		if s.resource != "" {
			return
		}
		v := key(k)
		if strings.HasPrefix(v, "{") { // JSON prints references as objects
			var ref struct{ Name, Namespace string }
			if json.Unmarshal([]byte(v), &ref) == nil {
				s.space, s.resource = ref.Namespace, ref.Name
			}
			continue
		}
		if space, name, ok := strings.Cut(v, "/"); ok {
			s.space, s.resource = space, name
		} else {
			s.resource = v
		}
	}
}
