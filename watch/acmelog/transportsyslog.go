package acmelog

import (
	"bytes"
	"slices"
	"time"
)

// levelWords stand where a syslog file has the host, in logs that begin with a
// time and a level.
var levelWords = []string{
	"TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL", "PANIC",
	"TRC", "DBG", "INF", "WRN", "ERR", "FTL", "PNC",
}

// syslogLine takes the head off a line of a syslog file, or of journalctl's short
// formats:
//
//	Nov 22 07:00:00 host tag[pid]: text
//	2026-11-22T07:00:00.123456+01:00 host tag[pid]: text
//	<86>1 2026-11-22T07:00:00Z host app pid id [data] text
//
// The first has no year: it is the one that is not in the future, seen from read.
// The host may be missing in it, and a priority may stand before it.
func syslogLine(b []byte, read time.Time, zone *time.Location) (text []byte, at time.Time, ok bool) {
	if zone == nil { // a Recogniser has none
		zone = time.UTC
	}
	whole := b
	if len(b) > 3 && b[0] == '<' && isDigit(b[1]) {
		i := bytes.IndexByte(b[:min(len(b), 5)], '>')
		if i < 0 {
			return nil, time.Time{}, false
		}
		b = b[i+1:]
	}
	if len(b) > 2 && b[0] == '1' && b[1] == ' ' {
		return syslog5424(b[2:], read)
	}
	switch {
	case stamped(b):
		stamp, rest, _ := bytes.Cut(b[15:], []byte{' '})
		t, err := time.ParseInLocation(time.Stamp, string(b[:15])+string(stamp), zone)
		if err != nil {
			return nil, time.Time{}, false
		}
		if !read.IsZero() {
			at = t.AddDate(read.In(zone).Year(), 0, 0)
			if at.After(read.Add(24 * time.Hour)) {
				at = t.AddDate(read.In(zone).Year()-1, 0, 0)
			}
		}
		if text, ok := syslogTag(rest, true); ok { // no host
			return text, at, true
		}
		_, rest, _ = bytes.Cut(rest, []byte{' '})
		text, ok = syslogTag(rest, false)
		return text, at, ok
	case len(whole) == len(b) && len(b) > 26 && b[4] == '-' && b[10] == 'T':
		stamp, rest, _ := bytes.Cut(b, []byte{' '})
		at, ok = isoTime(stamp)
		if !ok {
			return nil, time.Time{}, false
		}
		host, rest, _ := bytes.Cut(rest, []byte{' '})
		if len(host) == 0 || host[len(host)-1] == ':' || slices.Contains(levelWords, string(host)) {
			return nil, time.Time{}, false
		}
		text, ok = syslogTag(rest, false)
		return text, at, ok
	}
	return nil, time.Time{}, false
}

// stamped reports whether a line begins as the old form does.
func stamped(b []byte) bool {
	return len(b) > 16 && b[3] == ' ' && b[6] == ' ' && b[9] == ':' && b[12] == ':' && (b[15] == ' ' || b[15] == '.') && isDigit(b[14])
}

// isoTime reads a time as RFC 3339 has it, or with an offset without a colon.
func isoTime(b []byte) (time.Time, bool) {
	if len(b) < 19 || len(b) > 40 {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05-0700", string(b))
	}
	return t, err == nil
}

// syslogTag takes "tag[pid]: " or "tag: " off; pid says that the former is
// required. One space belongs to it, what follows to the text.
func syslogTag(b []byte, pid bool) (text []byte, ok bool) {
	i := 0
	for i < len(b) && i < 96 && b[i] != ':' && b[i] != '[' {
		c := b[i]
		if !tokenByte(c) && c != '.' && c != '/' && c != '@' && c != '(' && c != ')' && c != '+' && c != '\\' {
			return nil, false
		}
		i++
	}
	if i == 0 || i >= len(b) {
		return nil, false
	}
	switch {
	case b[i] == '[':
		j := bytes.IndexByte(b[i:min(len(b), i+24)], ']')
		if j < 2 {
			return nil, false
		}
		i += j + 1
	case pid:
		return nil, false
	}
	if i >= len(b) || b[i] != ':' {
		return nil, false
	}
	if i+1 == len(b) {
		return b[i+1:], true
	}
	if b[i+1] != ' ' {
		return nil, false
	}
	return b[i+2:], true
}

// syslog5424 reads what follows the version in a line of RFC 5424.
func syslog5424(b []byte, read time.Time) (text []byte, at time.Time, ok bool) {
	stamp, b, ok := bytes.Cut(b, []byte{' '})
	if !ok {
		return nil, time.Time{}, false
	}
	at = read
	if string(stamp) != "-" {
		if at, ok = isoTime(stamp); !ok {
			return nil, time.Time{}, false
		}
	}
	for range 4 { // host, program, process, message
		var field []byte
		if field, b, ok = bytes.Cut(b, []byte{' '}); !ok || len(field) == 0 {
			return nil, time.Time{}, false
		}
	}
	switch {
	case len(b) > 0 && b[0] == '-':
		b = b[1:]
	case len(b) > 0 && b[0] == '[':
		for len(b) > 0 && b[0] == '[' {
			end := dataEnd(b)
			if end < 0 {
				return nil, time.Time{}, false
			}
			b = b[end+1:]
		}
	default:
		return nil, time.Time{}, false
	}
	if len(b) == 0 {
		return b, at, true
	}
	if b[0] != ' ' {
		return nil, time.Time{}, false
	}
	return bytes.TrimPrefix(b[1:], []byte("\xef\xbb\xbf")), at, true
}

// dataEnd is where the element of structured data that b begins with ends; -1 when
// it does not.
func dataEnd(b []byte) int {
	inside := false
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			if inside {
				i++
			}
		case '"':
			inside = !inside
		case ']':
			if !inside {
				return i
			}
		}
	}
	return -1
}

// syslogText takes out rsyslog's escapes of control characters, #033 and the like.
func syslogText(b []byte) []byte {
	if bytes.IndexByte(b, '#') < 0 {
		return b
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '#' && i+3 < len(b) && b[i+1] == '0' && b[i+2] >= '0' && b[i+2] <= '3' && b[i+3] >= '0' && b[i+3] <= '7' {
			c := (b[i+2]-'0')<<3 | (b[i+3] - '0')
			if c == '\n' || c == 0 { // one message is one line
				c = ' '
			}
			out = append(out, c)
			i += 3
			continue
		}
		out = append(out, b[i])
	}
	return out
}
