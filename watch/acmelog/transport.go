package acmelog

import (
	"bytes"
	"encoding/json"
	"time"
)

// wrapping is how a log's lines are wrapped by what carries them.
type wrapping int

const (
	undecided wrapping = iota
	plain
	docker  // Docker's json-file: {"log":"text\n","stream":"stdout","time":"..."}
	cri     // containerd and CRI-O: 2006-01-02T15:04:05.999999999Z stdout F text
	journal // journalctl -o json
	syslog  // a file that rsyslog or syslog-ng writes
	compose // docker compose logs: name  | text
	timed   // docker logs -t, kubectl logs --timestamps: 2006-01-02T15:04:05.000000000Z text
)

// transport takes the wrapping off. It is decided by the first line and kept: a
// log that quotes what others say must not change it later.
type transport struct {
	as wrapping
	// parts holds the beginnings of lines that come in pieces, by stream.
	parts [2]part
	unit  unitLife
}

// part is the beginning of a line that its transport split.
type part struct {
	text   []byte
	at     time.Time
	offset int64
	cut    bool
	lost   bool // its beginning was left out: what follows is no line
	stream string
}

// unwrap hands the text in a line as it stands in the log to the dialect, when it
// is whole.
func (t *transport) unwrap(l *line, p *Parser) {
	if len(l.text) > 0 && l.text[0] == 0 { // the hole that copytruncate leaves under a writer that does not append
		l.text = bytes.TrimLeft(l.text, "\x00")
	}
	if t.as == undecided {
		if len(bytes.TrimSpace(l.text)) == 0 || bytes.HasPrefix(l.text, []byte("-- ")) || bytes.HasPrefix(l.text, []byte("Attaching to ")) { // journalctl's and compose's own words
			return
		}
		if t.as = wrappingOf(l.text); t.as == plain && stamped(l.text) { // "last message repeated 2 times"
			t.as = undecided
		}
	}
	switch t.as {
	case docker:
		text, stream, at, whole, ok := dockerLine(l.text)
		if ok {
			t.join(l, p, text, stream, at, whole)
		}
	case cri:
		text, stream, at, whole, ok := criLine(l.text)
		if ok {
			t.join(l, p, text, stream, at, whole)
		}
	case journal:
		t.entry(l, p)
	case syslog:
		if text, at, ok := syslogLine(l.text, l.at, p.options.Location); ok {
			l.text, l.at = syslogText(text), at
		}
		p.text(l)
	case compose:
		if text, ok := composeLine(l.text); ok {
			l.text = text
		}
		if text, at, ok := timedLine(l.text); ok {
			l.text, l.at = text, at
		}
		p.text(l)
	case timed:
		if text, at, ok := timedLine(l.text); ok {
			l.text, l.at = text, at
		}
		p.text(l)
	default:
		p.text(l)
	}
}

// wrappingOf recognises the wrapping of a line.
func wrappingOf(b []byte) wrapping {
	switch {
	case bytes.HasPrefix(b, []byte(`{"log":"`)) && bytes.Contains(b, []byte(`"time":"`)):
		return docker
	case b[0] == '{' && bytes.Contains(b, []byte(`"__REALTIME_TIMESTAMP":`)):
		return journal
	}
	if _, _, _, _, ok := criLine(b); ok {
		return cri
	}
	if _, _, ok := syslogLine(b, time.Time{}, time.UTC); ok {
		return syslog
	}
	if _, ok := composeLine(b); ok {
		return compose
	}
	if _, _, ok := timedLine(b); ok {
		return timed
	}
	return plain
}

// composeLine cuts the name of a container and the bar behind it off.
func composeLine(b []byte) (text []byte, ok bool) {
	head := b[:min(len(b), 100)]
	i := bytes.IndexByte(head, '|')
	if i < 2 || head[i-1] != ' ' {
		return nil, false
	}
	name := bytes.TrimRight(head[:i], " ")
	if len(name) == 0 {
		return nil, false
	}
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return nil, false
		}
	}
	return bytes.TrimPrefix(b[i+1:], []byte(" ")), true
}

// timedLine cuts a time with nine digits behind the second off; that of lego 5, which
// has as many, is followed by a level.
func timedLine(b []byte) (text []byte, at time.Time, ok bool) {
	if len(b) < 31 || b[4] != '-' || b[10] != 'T' || b[19] != '.' || b[29] != 'Z' || b[30] != ' ' {
		return nil, time.Time{}, false
	}
	text = b[31:]
	for _, level := range []string{"DEBUG ", "INFO ", "WARN ", "ERROR "} {
		if bytes.HasPrefix(text, []byte(level)) {
			return nil, time.Time{}, false
		}
	}
	at, err := time.Parse(time.RFC3339Nano, string(b[:30]))
	return text, at, err == nil
}

// join hands a line to the dialect when its last piece has come.
func (t *transport) join(l *line, p *Parser, text []byte, stream string, at time.Time, whole bool) {
	i := 0
	if stream == "stderr" {
		i = 1
	}
	k := &t.parts[i]
	if whole && k.text == nil {
		l.text, l.at, l.stderr = text, at, i == 1
		p.text(l)
		return
	}
	if k.text == nil {
		k.at, k.offset, k.text = at, l.offset, []byte{}
	}
	room := maxLine - len(k.text)
	k.text = append(k.text, text[:min(room, len(text))]...)
	k.cut = k.cut || l.cut || len(text) > room
	if whole {
		t.say(i, p)
	}
}

// say hands on what was gathered of a stream.
func (t *transport) say(i int, p *Parser) {
	k := t.parts[i]
	t.parts[i] = part{}
	if k.text != nil && !k.lost {
		p.text(&line{text: k.text, at: k.at, cut: k.cut, stderr: i == 1, offset: k.offset})
	}
}

// flush hands on what will not be completed.
func (t *transport) flush(p *Parser) {
	for i := range t.parts {
		t.say(i, p)
	}
}

// held is where the oldest incomplete line begins.
func (t *transport) held() (at int64, ok bool) {
	for _, k := range t.parts {
		if k.text != nil && (!ok || k.offset < at) {
			at, ok = k.offset, true
		}
	}
	return at, ok
}

// dockerLine reads one record of json-file. A record without a line end at its
// end goes on in the next one of its stream.
func dockerLine(b []byte) (text []byte, stream string, at time.Time, whole, ok bool) {
	const head = `{"log":"`
	if !bytes.HasPrefix(b, []byte(head)) {
		return nil, "", time.Time{}, false, false
	}
	raw, rest, ok := quoted(b[len(head):])
	if !ok {
		return nil, "", time.Time{}, false, false
	}
	text = unquote(raw)
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text, whole = text[:n-1], true
	}
	stream = "stdout"
	if bytes.Contains(rest, []byte(`"stream":"stderr"`)) {
		stream = "stderr"
	}
	if i := bytes.LastIndex(rest, []byte(`"time":"`)); i >= 0 { // the last: labels may stand before it
		if v, _, found := bytes.Cut(rest[i+len(`"time":"`):], []byte(`"`)); found {
			at, _ = time.Parse(time.RFC3339Nano, string(v))
		}
	}
	return text, stream, at, whole, true
}

// quoted cuts a JSON string, whose opening quote is gone, off b.
func quoted(b []byte) (raw, rest []byte, ok bool) {
	for i := 0; i < len(b); {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			return nil, nil, false
		}
		i += j
		slashes := 0
		for k := i - 1; k >= 0 && b[k] == '\\'; k-- {
			slashes++
		}
		if slashes%2 == 0 {
			return b[:i], b[i+1:], true
		}
		i++
	}
	return nil, nil, false
}

// unquote takes the escapes out of a JSON string.
func unquote(raw []byte) []byte {
	i := bytes.IndexByte(raw, '\\')
	if i < 0 {
		return raw
	}
	if i == len(raw)-2 && raw[i+1] == 'n' { // the usual line
		out := make([]byte, 0, len(raw)-1)
		return append(append(out, raw[:i]...), '\n')
	}
	q := make([]byte, 0, len(raw)+2)
	q = append(append(append(q, '"'), raw...), '"')
	var s string
	if json.Unmarshal(q, &s) != nil {
		return raw
	}
	return []byte(s)
}

// criLine reads one line of a CRI log: time, stream, tags (P: it goes on), text.
func criLine(b []byte) (text []byte, stream string, at time.Time, whole, ok bool) {
	if len(b) < 29 || b[4] != '-' || b[10] != 'T' {
		return nil, "", time.Time{}, false, false
	}
	stamp, rest, _ := bytes.Cut(b, []byte{' '})
	name, rest, _ := bytes.Cut(rest, []byte{' '})
	if s := string(name); s != "stdout" && s != "stderr" {
		return nil, "", time.Time{}, false, false
	}
	tags, text, _ := bytes.Cut(rest, []byte{' '})
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	if s := string(tag); s != "F" && s != "P" {
		return nil, "", time.Time{}, false, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return nil, "", time.Time{}, false, false
	}
	return text, string(name), at, tag[0] == 'F', true
}
