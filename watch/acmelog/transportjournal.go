package acmelog

import (
	"bytes"
	"strconv"
	"time"
)

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

// Records of one end come together: the process's, the unit's, the job's.
const oneEnd = 10 * time.Second

// unitLife is what the journal told of the runs of a unit.
type unitLife struct {
	name  string    // whose line began an attempt last
	spoke bool      // a line of the client came since its last end
	ended bool      // its end was told
	at    time.Time // when
}

// record is what is read of a line of journalctl -o json. It points into the line.
type record struct {
	message           []byte // as JSON
	time, id, pid     []byte
	unit              []byte // whose process wrote it
	about             []byte // the unit that the manager writes of
	command           []byte // Exec... that ended
	ended, status     []byte // how it did
	lineBreak, stream []byte
}

// read reads the members of an object.
func (e *record) read(b []byte) bool {
	b = skipSpace(b)
	if len(b) == 0 || b[0] != '{' {
		return false
	}
	for b = b[1:]; ; {
		if b = skipSpace(b); len(b) > 0 && b[0] == ',' {
			b = skipSpace(b[1:])
		}
		if len(b) > 0 && b[0] == '}' {
			return true
		}
		if len(b) == 0 || b[0] != '"' {
			return false
		}
		key, rest, ok := quoted(b[1:])
		if !ok {
			return false
		}
		if rest = skipSpace(rest); len(rest) == 0 || rest[0] != ':' {
			return false
		}
		raw := skipSpace(rest[1:])
		value, isString, rest, ok := jsonValue(raw)
		if !ok {
			return false
		}
		b = rest
		if into := e.field(key); into != nil {
			*into = simple(value, isString)
		} else if string(key) == "MESSAGE" {
			e.message = raw[:len(raw)-len(rest)]
		}
	}
}

// field is where a member goes, nil when it is of no use.
func (e *record) field(key []byte) *[]byte {
	switch string(key) {
	case "__REALTIME_TIMESTAMP":
		return &e.time
	case "MESSAGE_ID":
		return &e.id
	case "_PID":
		return &e.pid
	case "_SYSTEMD_UNIT":
		return &e.unit
	case "UNIT":
		return &e.about
	case "COMMAND":
		return &e.command
	case "EXIT_CODE":
		return &e.ended
	case "EXIT_STATUS":
		return &e.status
	case "_LINE_BREAK":
		return &e.lineBreak
	case "_STREAM_ID":
		return &e.stream
	}
	return nil
}

// simple is a string's text, or the first of several, when the field came more than
// once. The fields that are read this way need no escapes.
func simple(value []byte, isString bool) []byte {
	if isString {
		return value
	}
	if len(value) > 1 && value[0] == '[' {
		if first, isString, _, ok := jsonValue(skipSpace(value[1:])); ok && isString {
			return first
		}
	}
	return nil
}

// entry reads one line of journalctl -o json.
func (t *transport) entry(l *line, p *Parser) {
	var e record
	if !e.read(l.text) {
		return
	}
	if us, err := strconv.ParseInt(string(e.time), 10, 64); err == nil {
		l.at = time.UnixMicro(us)
	}
	// Only the manager itself is believed: fields that begin with _ are the
	// journal's own.
	if string(e.pid) == "1" && t.unit.life(&e, l.at, p) {
		return
	}
	text := message(e.message)
	whole := string(e.lineBreak) != "line-max"
	k := &t.parts[0]
	if k.text != nil && k.stream != string(e.stream) {
		if whole && text != nil { // another stream speaks in between
			t.hand(l, p, text, &e)
			return
		}
		if whole {
			return
		}
		t.say(0, p) // the rest of that one was lost
	}
	if text == nil { // left out by journalctl: too long
		if k.text == nil && whole {
			return
		}
		if k.text == nil {
			k.at, k.offset, k.text = l.at, l.offset, []byte{}
			k.lost, k.stream = true, string(e.stream)
		} else if whole {
			k.cut = true
			t.say(0, p)
		}
		return
	}
	if whole && k.text == nil {
		t.hand(l, p, text, &e)
		return
	}
	before := p.ledger.serial
	t.join(l, p, text, "stdout", l.at, whole)
	if !whole {
		k.stream = string(e.stream)
	}
	t.unit.heard(&e, before != p.ledger.serial)
}

// hand gives a whole line to the dialect.
func (t *transport) hand(l *line, p *Parser, text []byte, e *record) {
	before := p.ledger.serial
	l.text = text
	p.text(l)
	t.unit.heard(e, before != p.ledger.serial)
}

// heard notes that the client spoke, and in which unit it began an attempt.
func (u *unitLife) heard(e *record, began bool) {
	if string(e.pid) == "1" {
		return
	}
	u.spoke = true
	if began && len(e.unit) > 0 {
		u.name = string(e.unit)
	}
}

// life reads a record of a unit's life; false when it is none.
func (u *unitLife) life(e *record, at time.Time, p *Parser) bool {
	code := 0
	switch string(e.id) {
	case unitStarts:
		if !u.ours(e) {
			return true
		}
		if u.spoke && !u.ended { // its last run ended unseen
			p.exited(Exit{At: at, Code: -1})
		}
		u.spoke, u.ended = false, false
		return true
	case unitFinished, unitSuccess:
	case unitFailed, unitFailure:
		code = -1
	case processEnded:
		if len(e.command) > 0 && string(e.command) != "ExecStart" { // a command around the client
			return true
		}
		n, err := strconv.Atoi(string(e.status))
		switch {
		case err != nil || n < 0 || n > 255:
			code = -1
		case string(e.ended) == "killed" || string(e.ended) == "dumped":
			code = 128 + n
		default:
			code = n
		}
	default:
		return false
	}
	if !u.ours(e) || u.ended && at.Sub(u.at) < oneEnd {
		return true
	}
	u.ended, u.spoke, u.at = true, false, at
	p.exited(Exit{At: at, Code: code})
	return true
}

// ours reports whether a record is about the unit in which the client runs; while
// that is not known, every one may be.
func (u *unitLife) ours(e *record) bool {
	return u.name == "" || len(e.about) == 0 || string(e.about) == u.name
}

// message reads a MESSAGE: a string, an array of bytes where one of them cannot be
// printed, an array of several where the field came more than once, null where
// journalctl left it out.
func message(raw []byte) []byte {
	if len(raw) == 0 {
		return nil
	}
	text, ok := oneMessage(raw)
	if !ok && raw[0] == '[' {
		if first, isString, rest, found := jsonValue(skipSpace(raw[1:])); found {
			if isString {
				text, ok = unquote(first), true
			} else if len(rest) > 0 && first[0] == '[' {
				text, ok = oneMessage(first)
			}
		}
	}
	if !ok {
		return nil
	}
	// One message is one line, whatever its writer put into it.
	if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, 0) >= 0 {
		text = bytes.Clone(text)
		for i, c := range text {
			if c == '\n' || c == 0 {
				text[i] = ' '
			}
		}
	}
	return text
}

// oneMessage reads a string or an array of bytes.
func oneMessage(raw []byte) (text []byte, ok bool) {
	switch {
	case raw[0] == '"':
		value, _, ok := quoted(raw[1:])
		return unquote(value), ok
	case raw[0] != '[':
		return nil, false
	}
	text = make([]byte, 0, len(raw)/3)
	for b := skipSpace(raw[1:]); ; {
		if len(b) > 0 && b[0] == ']' {
			return text, true
		}
		n, digits := 0, 0
		for len(b) > 0 && isDigit(b[0]) && digits < 4 {
			n, digits, b = n*10+int(b[0]-'0'), digits+1, b[1:]
		}
		if digits == 0 || n > 255 {
			return nil, false
		}
		text = append(text, byte(n))
		if b = skipSpace(b); len(b) > 0 && b[0] == ',' {
			b = skipSpace(b[1:])
		} else if len(b) == 0 || b[0] != ']' {
			return nil, false
		}
	}
}
