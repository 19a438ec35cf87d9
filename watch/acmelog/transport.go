package acmelog

import (
	"bytes"
	"encoding/json"
	"strconv"
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
)

// transport takes the wrapping off. It is decided by the first line and kept: a
// log that quotes what others say must not change it later.
type transport struct {
	as wrapping
	// parts holds the beginnings of lines that come in pieces, by stream.
	parts [2]part
}

// part is the beginning of a line that its transport split.
type part struct {
	text   []byte
	at     time.Time
	offset int64
	cut    bool
	stream string
}

// unwrap hands the text in a line as it stands in the log to the dialect, when it
// is whole.
func (t *transport) unwrap(l *line, p *Parser) {
	if t.as == undecided {
		if len(bytes.TrimSpace(l.text)) == 0 {
			return
		}
		t.as = wrappingOf(l.text)
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
	return plain
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
	if k.text != nil {
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
	if _, after, found := bytes.Cut(rest, []byte(`"time":"`)); found {
		if v, _, found := bytes.Cut(after, []byte(`"`)); found {
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
	if len(b) < 30 || b[4] != '-' || b[10] != 'T' {
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

// syslogLine takes the head off a line of a syslog file: "Nov 22 07:00:00 host
// tag[pid]: " or the same with an RFC 3339 time. The old form has no year: it is
// the one that is not in the future, seen from read.
func syslogLine(b []byte, read time.Time, zone *time.Location) (text []byte, at time.Time, ok bool) {
	var rest []byte
	switch {
	case len(b) > 16 && b[3] == ' ' && b[6] == ' ' && b[9] == ':' && b[12] == ':' && b[15] == ' ':
		t, err := time.ParseInLocation(time.Stamp, string(b[:15]), zone)
		if err != nil {
			return nil, time.Time{}, false
		}
		if read.IsZero() {
			at = time.Time{}
		} else {
			at = t.AddDate(read.In(zone).Year(), 0, 0)
			if at.After(read.Add(24 * time.Hour)) {
				at = t.AddDate(read.In(zone).Year()-1, 0, 0)
			}
		}
		rest = b[16:]
	case len(b) > 26 && b[4] == '-' && b[10] == 'T':
		stamp, after, _ := bytes.Cut(b, []byte{' '})
		t, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err != nil {
			return nil, time.Time{}, false
		}
		at, rest = t, after
	default:
		return nil, time.Time{}, false
	}
	_, rest, found := bytes.Cut(rest, []byte{' '}) // the host
	if !found {
		return nil, time.Time{}, false
	}
	tag, text, found := bytes.Cut(rest, []byte(": "))
	if !found || len(tag) > 96 || bytes.IndexByte(tag, ' ') >= 0 || !bytes.HasSuffix(tag, []byte{']'}) || bytes.IndexByte(tag, '[') <= 0 {
		return nil, time.Time{}, false
	}
	return text, at, true
}

// The journal's records of a unit's life, by their MESSAGE_ID (systemd.journal-fields,
// catalog).
const (
	unitStarts   = "7d4958e842da4a758f6c1cdc7b36dcc5"
	unitFinished = "39f53479d3a045ac8e11786248231fbf"
	unitFailed   = "be02cf6855d2428ba40df7e9d022f03d"
	processEnded = "98e322203f7a4ed290d09fe03c09fe15"
	unitSuccess  = "7ad2d189f7e94e70a38c781354912448"
	unitFailure  = "d9b373ed55a64feb8242e02dbe79a49c"
)

// entry reads one line of journalctl -o json.
func (t *transport) entry(l *line, p *Parser) {
	var e struct {
		Message json.RawMessage `json:"MESSAGE"`
		Time    string          `json:"__REALTIME_TIMESTAMP"`
		ID      string          `json:"MESSAGE_ID"`
		PID     string          `json:"_PID"`
		Exit    string          `json:"EXIT_STATUS"`
		Break   string          `json:"_LINE_BREAK"`
		Stream  string          `json:"_STREAM_ID"`
	}
	if json.Unmarshal(l.text, &e) != nil {
		return
	}
	if us, err := strconv.ParseInt(e.Time, 10, 64); err == nil {
		l.at = time.UnixMicro(us)
	}
	if e.ID != "" && e.PID == "1" { // only the manager itself is believed
		switch e.ID {
		case unitStarts:
			p.exited(Exit{At: l.at, Code: -1})
		case unitFinished, unitSuccess:
			p.exited(Exit{At: l.at, Code: 0})
		case processEnded, unitFailed, unitFailure:
			code, err := strconv.Atoi(e.Exit)
			if err != nil || code == 0 {
				code = 1
			}
			p.exited(Exit{At: l.at, Code: code})
		}
		return
	}
	text := message(e.Message)
	if text == nil {
		return
	}
	k := &t.parts[0]
	if k.text != nil && k.stream != e.Stream { // the rest of that one was lost
		t.say(0, p)
	}
	whole := e.Break != "line-max"
	t.join(l, p, text, "stdout", l.at, whole)
	if !whole {
		k.stream = e.Stream
	}
}

// message reads a MESSAGE: a string, an array of bytes where one of them cannot be
// printed, an array of strings where the field came twice, null where journalctl
// left it out.
func message(raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return nil
	}
	var text []byte
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return nil
		}
		text = []byte(s)
	case '[':
		var n []int
		if json.Unmarshal(raw, &n) == nil {
			for _, c := range n {
				text = append(text, byte(c))
			}
		} else {
			var several []json.RawMessage
			if json.Unmarshal(raw, &several) != nil || len(several) == 0 || several[0][0] == '[' && len(several[0]) < 2 {
				return nil
			}
			var s string
			if json.Unmarshal(several[0], &s) != nil {
				return nil
			}
			text = []byte(s)
		}
	default:
		return nil
	}
	// One message is one line, whatever its writer put into it.
	for i, c := range text {
		if c == '\n' || c == 0 {
			text[i] = ' '
		}
	}
	return text
}
