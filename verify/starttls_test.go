package verify

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// mailServer speaks a script: a line "< x" waits for a line that starts with x,
// any other is sent. After it TLS begins, and what is said inside goes to said.
type mailServer struct {
	script string
	tls    *tls.Config
	mu     sync.Mutex
	said   []string // lines received, in plain text and inside TLS
}

func (m *mailServer) note(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, strings.TrimRight(line, "\r\n"))
}

func (m *mailServer) heard() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.said, "|")
}

func (m *mailServer) handle(c net.Conn) {
	r := bufio.NewReader(c)
	var out strings.Builder
	for line := range strings.Lines(m.script) {
		line = strings.TrimSuffix(line, "\n")
		want, waits := strings.CutPrefix(line, "< ")
		if !waits {
			out.WriteString(line + "\r\n")
			continue
		}
		if _, err := io.WriteString(c, out.String()); err != nil {
			return
		}
		out.Reset()
		got, err := r.ReadString('\n')
		if err != nil {
			return
		}
		m.note(got)
		if !strings.HasPrefix(got, want) {
			return
		}
	}
	if _, err := io.WriteString(c, out.String()); err != nil || m.tls == nil {
		waits(c)
		return
	}
	conn := tls.Server(c, m.tls)
	inside := bufio.NewReader(conn)
	line, err := inside.ReadString('\n')
	if err != nil {
		return
	}
	m.note("TLS")
	m.note(line)
	io.WriteString(conn, "221 bye\r\n")
}

const (
	smtpScript = "220-mx.example ESMTP\n220 ready\n< EHLO \n250-mx.example\n250-SIZE 1000\n250-starttls\n250 HELP\n< STARTTLS\n220 go ahead\n"
	imapScript = "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\n< a1 CAPABILITY\n* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\na1 OK done\n< a2 STARTTLS\na2 OK begin\n"
	pop3Script = "+OK ready <1@mx>\n< STLS\n+OK begin\n"
)

func TestSTARTTLS(t *testing.T) {
	ca := newCA(t)
	current := ca.issue(t, spec{})
	for _, tt := range []struct{ scheme, script, inside string }{
		{"smtp", smtpScript, "TLS|QUIT"}, {"submission", smtpScript, "TLS|QUIT"},
		{"imap", imapScript, "TLS|a3 LOGOUT"}, {"pop3", pop3Script, "TLS|QUIT"},
	} {
		m := &mailServer{script: tt.script, tls: configOf(current)}
		port := start(t, m.handle)
		p := &Prober{Roots: ca.pool(), EHLO: "probe.example"}
		v := check(t, p, Target{Endpoint: at(t, "%s://localhost:%d?address=127.0.0.1", tt.scheme, port), Expect: expecting(current)}, 12)
		if v.Samples != 3 || v.Matching != 3 {
			t.Errorf("%s: %d of %d samples, want 3", tt.scheme, v.Matching, v.Samples)
		}
		if heard := m.heard(); strings.Count(heard, tt.inside) != 3 {
			t.Errorf("%s: heard %q", tt.scheme, heard)
		}
		if tt.scheme == "smtp" && !strings.HasPrefix(m.heard(), "EHLO probe.example|STARTTLS|") {
			t.Errorf("heard %q", m.heard())
		}
	}
}

func TestSTARTTLSFails(t *testing.T) {
	for _, tt := range []struct {
		says, scheme, script string
		timeout              time.Duration
		want                 Code
		words                string
	}{
		{"not offered by SMTP", "smtp", "220 mx\n< EHLO\n250-mx\n250 HELP\n", 0, StartTLSFailed, `does not offer STARTTLS; it answered EHLO with "250-mx / 250 HELP"`},
		{"not offered by IMAP", "imap", "* OK mx\n< a1\n* CAPABILITY IMAP4rev1\na1 OK done\n", 0, StartTLSFailed, "does not offer STARTTLS"},
		{"refused by POP3", "pop3", "+OK mx\n< STLS\n-ERR no\x1b[31m\n", 0, StartTLSFailed, `answered STLS with "-ERR no.[31m"`},
		{"refused for now", "smtp", "220 mx\n< EHLO\n250 STARTTLS\n< STARTTLS\n454 TLS not available\n", 0, StartTLSFailed, "temporary"},
		{"too many connections", "smtp", "421 too many\n", 0, StartTLSFailed, `greets with "421 too many"`},
		{"injection", "smtp", "220 mx\n< EHLO\n250 STARTTLS\n< STARTTLS\n220 go\n250 injected\n", 0, StartTLSFailed, "injection"},
		{"answers before it is asked", "imap", "* OK mx\na1 OK done\n< a1\n", 0, StartTLSFailed, "goes on talking"},
		{"another protocol", "imap", "220 mx ESMTP\n", 0, StartTLSFailed, "no imap greeting"},
		{"IMAP says goodbye", "imap", "* OK mx\n< a1\n* BYE shutting down\n", 0, StartTLSFailed, "BYE"},
		{"mute", "smtp", "< never\n", brief, Timeout, "smtps://"},
		{"mute after the greeting", "smtp", "220 mx\n< EHLO\n< never\n", brief, Timeout, "after EHLO"},
	} {
		t.Run(tt.says, func(t *testing.T) {
			t.Parallel()
			m := &mailServer{script: tt.script}
			p := &Prober{Timeout: tt.timeout}
			v := check(t, p, Target{Endpoint: at(t, "%s://localhost:%d?address=127.0.0.1", tt.scheme, start(t, m.handle))}, 1, tt.want)
			says(t, v, tt.words)
			if printable(v.Detail, 1<<20) != v.Detail || len(v.Detail) > 500 {
				t.Errorf("unfit detail %q", v.Detail)
			}
		})
	}
	for what, text := range map[string]string{
		"an endless line": "220 " + strings.Repeat("x", 1000), "endless lines": "220-hello\r\n", "long lines without end": "220-" + strings.Repeat("y", 4000) + "\n",
	} {
		port := start(t, func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, text); err != nil {
					return
				}
			}
		})
		v := check(t, &Prober{}, Target{Endpoint: at(t, "smtp://localhost:%d?address=127.0.0.1", port)}, 1, StartTLSFailed)
		if !strings.Contains(v.Detail, "talks without end") {
			t.Errorf("%s: %q", what, v.Detail)
		}
	}
	port := start(t, func(c net.Conn) {})
	says(t, check(t, &Prober{}, Target{Endpoint: at(t, "smtp://localhost:%d?address=127.0.0.1", port)}, 1, StartTLSFailed), "without a greeting")

	port = start(t, func(c net.Conn) {
		io.WriteString(c, "+OK\r\n")
		bufio.NewReader(c).ReadString('\n')
		io.WriteString(c, "+OK\r\n")
		io.ReadFull(c, make([]byte, 100))
		io.WriteString(c, "-ERR what?\r\n")
		waits(c)
	})
	says(t, check(t, &Prober{}, Target{Endpoint: at(t, "pop3://localhost:%d?address=127.0.0.1", port)}, 1, StartTLSFailed), "plain text", "-ERR what?")
}

func TestGreetingName(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		configured, host string
		local            netip.Addr
		want             string
	}{
		{"probe.example", "web1.example", v4, "probe.example"},
		{"", "web1.example", v4, "web1.example"},
		{"", "web1", v4, "[192.0.2.1]"},
		{"", "web1", v6, "[IPv6:2001:db8::1]"},
		{"a b.example\r\nMAIL FROM:<x@y>", "", v4, "[192.0.2.1]"},
		{"192.0.2.9", "", v4, "[192.0.2.1]"},
	} {
		if got := greetingName(tt.configured, tt.host, tt.local); got != tt.want {
			t.Errorf("greetingName(%q, %q) = %q, want %q", tt.configured, tt.host, got, tt.want)
		}
	}
}

// script is a server of fixed words; it counts what is taken of them.
type script struct {
	net.Conn
	text  string
	chunk int
	taken int
	sent  strings.Builder
}

func (s *script) Read(b []byte) (int, error) {
	if s.taken == len(s.text) {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.chunk)], s.text[s.taken:])
	s.taken += n
	return n, nil
}
func (s *script) Write(b []byte) (int, error)      { return s.sent.Write(b) }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// Whatever a server says: the dialogue ends, reads no more than its bounds,
// sends nothing but its own lines, and agrees only if nothing is left over.
func FuzzDialogue(f *testing.F) {
	for i, d := range dialogues {
		f.Add(uint8(i), "220 x\r\n250 STARTTLS\r\n220 y\r\n", uint16(1))
		f.Add(uint8(i), d.scheme+"* OK\n", uint16(9))
	}
	f.Add(uint8(2), "* OK x\r\n* CAPABILITY STARTTLS\r\na1 OK x\r\na2 OK x\r\n", uint16(8))
	f.Add(uint8(3), "+OK\r\n+OK\r\nrest", uint16(5))
	f.Fuzz(func(t *testing.T, which uint8, text string, chunk uint16) {
		d := dialogues[int(which)%len(dialogues)]
		// Repeated, a text is as long as an endless one to us.
		s := &script{text: strings.Repeat(text, 1+maxRead/max(len(text), 1)/8), chunk: int(chunk)%8192 + 1}
		fault := talk(newWire(s, time.Time{}), d, "probe.example")
		if s.taken > maxDialogue+2*maxLine {
			t.Fatalf("%d bytes were read", s.taken)
		}
		var all strings.Builder
		for _, x := range d.exchanges {
			if x.send != "" {
				all.WriteString(strings.ReplaceAll(x.send, "{name}", "probe.example") + "\r\n")
			}
		}
		if !strings.HasPrefix(all.String(), s.sent.String()) {
			t.Fatalf("sent %q", s.sent.String())
		}
		if fault == nil {
			if s.sent.String() != all.String() {
				t.Fatalf("agreed after only %q", s.sent.String())
			}
			return
		}
		if fault.code != StartTLSFailed || fault.why == "" || fault.advice == "" || printable(fault.why, 600) != fault.why {
			t.Fatalf("%+v", fault)
		}
	})
}

func TestMailIsPacedByAddress(t *testing.T) {
	p := &Prober{}
	p.init()
	now := time.Now()
	addr := netip.MustParseAddrPort("127.0.0.1:25")
	p.dialled(addr, now.Add(-2*mailInterval))
	if p.lastDialled(addr).IsZero() {
		t.Error("forgotten at once")
	}
	p.dialled(netip.MustParseAddrPort("127.0.0.2:25"), now)
	if !p.lastDialled(addr).IsZero() || len(p.mail) != 1 {
		t.Error("what is long past is kept")
	}
}
