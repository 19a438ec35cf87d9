package notify

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// head is what the journal itself needs to know of an event.
type head struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Sequence string    `json:"sequence"`
	Time     time.Time `json:"time"`
}

func (h head) alert() bool { return strings.HasPrefix(h.Type, "io.renewatch.alert.") }

// headParser reads the head of a line; ok is false for what is not an event.
type headParser func(line []byte) (h head, seq uint64, ok bool)

// parseHead is the headParser that reads the whole line.
func parseHead(line []byte) (h head, seq uint64, ok bool) {
	if err := json.Unmarshal(line, &h); err != nil || h.ID == "" {
		return head{}, 0, false
	}
	seq, ok = h.number()
	return h, seq, ok
}

// number is the sequence as a number.
func (h head) number() (seq uint64, ok bool) {
	seq, err := strconv.ParseUint(h.Sequence, 10, 64)
	return seq, err == nil && seq > 0 && seq <= maxSequence
}

// skimHead is the headParser that reads no further than it must, forty times as
// fast. Of a line as the journal writes it it takes what parseHead does, but does
// not see what is broken behind that; other lines it leaves to parseHead.
func skimHead(line []byte) (h head, seq uint64, ok bool) {
	rest, started := bytes.CutPrefix(line, []byte("{"))
	if !started || !bytes.HasSuffix(line, []byte("}}")) {
		return parseHead(line)
	}
	for {
		key, value, after := skimMember(rest)
		switch string(key) {
		case "id":
			h.ID = string(value)
		case "type":
			h.Type = string(value)
		case "time":
			if h.Time.UnmarshalText(value) != nil {
				return parseHead(line)
			}
		case "sequence": // the last of these that is written
			h.Sequence = string(value)
			if seq, ok = h.number(); !ok || h.ID == "" || h.Type == "" || h.Time.IsZero() {
				return parseHead(line)
			}
			return h, seq, true
		case "specversion", "source", "subject", "datacontenttype", "dataschema":
		default:
			return parseHead(line)
		}
		rest = after
	}
}

// skimMember reads a member of an object and the comma behind it: a name and a
// string of plain ASCII without escapes. The name is nil where there is anything
// else.
func skimMember(b []byte) (name, value, rest []byte) {
	name, b = skimString(b)
	b, ok := bytes.CutPrefix(b, []byte(":"))
	if name == nil || !ok {
		return nil, nil, nil
	}
	value, b = skimString(b)
	rest, ok = bytes.CutPrefix(b, []byte(","))
	if value == nil || !ok {
		return nil, nil, nil
	}
	return name, value, rest
}

func skimString(b []byte) (text, rest []byte) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil
	}
	for i, c := range b[1:] {
		switch {
		case c == '"':
			return b[1 : 1+i], b[2+i:]
		case c < ' ' || c == '\\' || c > '~':
			return nil, nil
		}
	}
	return nil, nil
}
