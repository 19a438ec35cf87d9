package verify

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// Bounds of a dialogue before TLS. RFC 5321 allows 512 bytes a line; IMAP
// capabilities are longer. Postscreen and others send some dozen lines.
const (
	maxLine     = 4096
	maxLines    = 128
	maxDialogue = 32 << 10
)

// A dialogue is what is said in plain text until both sides go over to TLS. A
// line protocol is one row of the table below; what is not made of lines needs
// a function of its own beside talk.
type dialogue struct {
	scheme    string
	exchanges []exchange
	bye       string // said inside TLS afterwards, so nobody logs a lost connection
	direct    string // scheme that speaks TLS at once
}

// An exchange is one line sent and the reply expected to it.
type exchange struct {
	send  string // without CRLF, {name} is ours; empty: the server speaks first
	reply reply
	offer string // a word the reply must hold
}

// A reply says whether a line ends a reply, and whether as hoped.
type reply func(line string) (last, good bool)

// RFC 3207, RFC 9051 section 6.2.1, RFC 2595.
var dialogues = [...]dialogue{
	{"smtp", smtpExchanges[:], "QUIT", "smtps"},
	{"submission", smtpExchanges[:], "QUIT", "smtps"},
	{"imap", []exchange{
		{reply: untagged("* OK")},
		{send: "a1 CAPABILITY", reply: tagged("a1"), offer: "STARTTLS"},
		{send: "a2 STARTTLS", reply: tagged("a2")},
	}, "a3 LOGOUT", "imaps"},
	{"pop3", []exchange{
		{reply: untagged("+OK")},
		{send: "STLS", reply: untagged("+OK")},
	}, "QUIT", "pop3s"},
}

var smtpExchanges = [...]exchange{
	{reply: coded("220")},
	{send: "EHLO {name}", reply: coded("250"), offer: "STARTTLS"},
	{send: "STARTTLS", reply: coded("220")},
}

func findDialogue(scheme string) (dialogue, bool) {
	for _, d := range dialogues {
		if d.scheme == scheme {
			return d, true
		}
	}
	return dialogue{}, false
}

// coded replies start with three digits; a hyphen says that more lines follow.
func coded(want string) reply {
	return func(line string) (last, good bool) {
		code, rest := line, ""
		if len(line) > 3 {
			code, rest = line[:3], line[3:]
		}
		if code != want {
			return true, false
		}
		return !strings.HasPrefix(rest, "-"), rest == "" || rest[0] == ' ' || rest[0] == '-'
	}
}

// tagged replies are IMAP's: untagged lines, then one that starts with the tag.
func tagged(tag string) reply {
	return func(line string) (last, good bool) {
		if strings.HasPrefix(line, "* ") {
			return hasWord(line, "* BYE"), false
		}
		return true, hasWord(line, tag+" OK")
	}
}

// untagged replies are one line with a given start.
func untagged(start string) reply {
	return func(line string) (last, good bool) { return true, hasWord(line, start) }
}

// hasWord reports whether line starts with start and a new word or nothing after it.
func hasWord(line, start string) bool {
	if len(line) < len(start) || !strings.EqualFold(line[:len(start)], start) {
		return false
	}
	return len(line) == len(start) || line[len(start)] == ' '
}

// A fault is why nothing could be judged: a code, the evidence, what to do.
type fault struct {
	code        Code
	why, advice string
}

// talk leads the dialogue up to the first byte of TLS; nil when the server
// agreed. Nothing the server sent may be left over then: what came in plain
// text together with the go-ahead would be taken for protected (and is how
// STARTTLS injection attacks work).
func talk(w *wire, d dialogue, name string) *fault {
	lines := bufio.NewReaderSize(w, maxLine)
	total := 0
	for _, x := range d.exchanges {
		said := x.send
		if said != "" {
			if lines.Buffered() > 0 {
				return &fault{StartTLSFailed, fmt.Sprintf("the server goes on talking before it is sent %s", verb(said)), "find out what answers on this port"}
			}
			w.listen(time.Time{})
			if _, err := io.WriteString(w, strings.ReplaceAll(said, "{name}", name)+"\r\n"); err != nil {
				return talkError(err, said, d)
			}
		}
		offered := x.offer == ""
		answer := ""
		for n := 0; ; n++ {
			raw, err := lines.ReadSlice('\n')
			total += len(raw)
			if errors.Is(err, bufio.ErrBufferFull) || n == maxLines || total > maxDialogue {
				return &fault{StartTLSFailed, fmt.Sprintf("the server talks without end %s", after(said)), "find out what answers on this port"}
			}
			line := strings.TrimRight(string(raw), "\r\n")
			if err != nil {
				if len(raw) > 0 && errors.Is(err, io.EOF) {
					return &fault{StartTLSFailed, fmt.Sprintf("the server closed the connection in the middle of %s %s", quoted(line), after(said)), "look into the server's log"}
				}
				return talkError(err, said, d)
			}
			if len(answer) < 200 {
				if answer != "" {
					answer += " / "
				}
				answer += line
			}
			last, good := x.reply(line)
			offered = offered || (good || !last) && offers(line, x.offer)
			if !last {
				continue
			}
			if !good {
				return refusal(said, line, d)
			}
			break
		}
		if !offered {
			return &fault{StartTLSFailed,
				fmt.Sprintf("the server does not offer %s; it answered %s with %s", x.offer, verb(said), `"`+printable(answer, 200)+`"`),
				"turn on TLS in the server's configuration; it may offer it to other clients only"}
		}
	}
	if n := lines.Buffered(); n > 0 {
		rest, _ := lines.Peek(min(n, 64))
		return &fault{StartTLSFailed,
			fmt.Sprintf("the server sent %d bytes in plain text after agreeing to TLS (%s), as in a STARTTLS injection", n, quoted(string(rest))),
			"update the server, or find out who meddles with the connection"}
	}
	return nil
}

// offers reports whether word stands in line; SMTP joins it to the code by a hyphen.
func offers(line, word string) bool {
	for _, f := range strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '-' }) {
		if strings.EqualFold(f, word) {
			return true
		}
	}
	return false
}

// verb names what was sent: without the tag, without our name.
func verb(said string) string {
	words := strings.Fields(said)
	if len(words) > 1 && len(words[0]) == 2 {
		words = words[1:]
	}
	return words[0]
}

func after(said string) string {
	if said == "" {
		return "in its greeting"
	}
	return "after " + verb(said)
}

func refusal(said, line string, d dialogue) *fault {
	f := &fault{code: StartTLSFailed}
	if said == "" {
		f.why = fmt.Sprintf("the server greets with %s, which is no %s greeting", quoted(line), d.scheme)
		f.advice = "check the port; " + d.direct + ":// is for TLS from the first byte"
	} else {
		f.why = fmt.Sprintf("the server answered %s with %s", verb(said), quoted(line))
		f.advice = "look into the server's log for why it refuses TLS"
	}
	if strings.HasPrefix(line, "4") {
		f.advice = "the server says this is temporary; look into its log if it stays"
	}
	return f
}

func talkError(err error, said string, d dialogue) *fault {
	switch {
	case isTimeout(err):
		f := &fault{code: Timeout, why: "the server accepted the connection but did not answer in time", advice: "look into the server's log"}
		if said == "" {
			f.why = "the server accepted the connection but sent no greeting in time"
			f.advice = "a port with TLS from the first byte keeps silent, too: " + d.direct + ":// is for that"
		} else {
			f.why += " " + after(said)
		}
		return f
	case errors.Is(err, errFlood):
		return &fault{StartTLSFailed, "the server talks without end", "find out what answers on this port"}
	case said == "":
		return &fault{StartTLSFailed, "the server closed the connection without a greeting",
			"look into the server's log; it may refuse this host, allow no more connections, or expect the PROXY protocol (proxy_protocol=v2)"}
	}
	return &fault{StartTLSFailed, "the server closed the connection " + after(said), "look into the server's log"}
}

// sayBye ends the session inside TLS and waits for the answer, but not long:
// closing at once could reset the connection before the server has read it.
func sayBye(c io.ReadWriter, bye string) {
	if _, err := io.WriteString(c, bye+"\r\n"); err != nil {
		return
	}
	var buf [512]byte
	for range 8 {
		n, err := c.Read(buf[:])
		if err != nil || n > 0 && buf[n-1] == '\n' {
			return
		}
	}
}

// greetingName is how we introduce ourselves: a host name with a domain, else
// an address literal (RFC 5321 section 4.1.3), which no server may refuse for
// being unknown to DNS.
func greetingName(configured, host string, local netip.Addr) string {
	for _, name := range [...]string{configured, host} {
		if !strings.Contains(name, ".") {
			continue
		}
		if canonical, err := parseHost(name, "name"); err == nil && !strings.HasPrefix(canonical, "*") {
			if _, err := netip.ParseAddr(canonical); err != nil {
				return canonical
			}
		}
	}
	if local = local.Unmap(); local.Is6() {
		return "[IPv6:" + local.WithZone("").String() + "]"
	}
	return "[" + local.String() + "]"
}
