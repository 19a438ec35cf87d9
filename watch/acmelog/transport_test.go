package acmelog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder is a dialect that writes down what it is given.
type recorder struct {
	lines []string
	exits []int
	ats   []time.Time
	begin string // a line that begins an attempt
}

func (r *recorder) line(l *line, g *ledger) {
	s := string(l.text)
	if l.stderr {
		s = "! " + s
	}
	if l.cut {
		s += " (cut)"
	}
	r.lines = append(r.lines, s)
	r.ats = append(r.ats, l.at.UTC())
	if r.begin != "" && s == r.begin {
		g.begin("", l, l.at)
	}
}

func (r *recorder) exit(e Exit, g *ledger) {
	r.exits = append(r.exits, e.Code)
	g.exited(e)
}

func (r *recorder) end(*ledger) {}

// carried gives a text to a Parser and returns what reached the dialect.
func carried(text string) (*recorder, *Parser) {
	r := &recorder{}
	p := &Parser{options: Options{Location: time.UTC}, ledger: ledger{zone: time.UTC}, dialect: r}
	p.Arrived(changed)
	p.Write([]byte(text))
	return r, p
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestSyslogLine(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		line, text string
		at         time.Time
	}{
		{"Nov 22 07:00:00 host certbot[123]: Processing x", "Processing x", at("2026-11-22T07:00:00Z")},
		{"Nov  2 07:00:00 host certbot[123]: Processing x", "Processing x", at("2026-11-02T07:00:00Z")},
		{"Nov 22 07:00:00.123456 host certbot[123]: Processing x", "Processing x", at("2026-11-22T07:00:00.123456Z")},
		{"Dec 31 23:59:59 host certbot[123]: of the year before", "of the year before", at("2025-12-31T23:59:59Z")},
		{"Nov 22 07:00:00 host dehydrated[1]:  + Signing domains...", " + Signing domains...", at("2026-11-22T07:00:00Z")},
		{"Nov 22 07:00:00 host nginx: 2026/11/22 07:00:00 [info] 1#1: x", "2026/11/22 07:00:00 [info] 1#1: x", at("2026-11-22T07:00:00Z")},
		{"Nov 22 07:00:00 host uacme[1]:", "", at("2026-11-22T07:00:00Z")},
		{"<133>Nov 22 07:00:00 haproxy[811]: acme: x", "acme: x", at("2026-11-22T07:00:00Z")},
		{"<133>Nov 22 07:00:00 lb1 haproxy[811]: acme: x", "acme: x", at("2026-11-22T07:00:00Z")},
		{"2026-11-22T07:00:00.123456+01:00 host certbot[123]: x: y", "x: y", at("2026-11-22T06:00:00.123456Z")},
		{"2026-11-22T07:00:00+0100 host certbot[123]: x", "x", at("2026-11-22T06:00:00Z")},
		{"2026-11-22T07:00:00Z host org.example/app@1: x", "x", at("2026-11-22T07:00:00Z")},
		{"<133>1 2026-11-22T07:00:00.5Z host haproxy 811 - - acme: x", "acme: x", at("2026-11-22T07:00:00.5Z")},
		{`<133>1 2026-11-22T07:00:00Z host haproxy 811 ID47 [a@1 k="a \"]b\\"][b@1] acme: x`, "acme: x", at("2026-11-22T07:00:00Z")},
		{"<133>1 - - - - - - \xef\xbb\xbfacme: x", "acme: x", changed},
		{"1 2026-11-22T07:00:00Z host haproxy 811 - - acme: x", "acme: x", at("2026-11-22T07:00:00Z")},
		{"<133>1 2026-11-22T07:00:00Z host haproxy 811 - -", "", at("2026-11-22T07:00:00Z")},
	} {
		text, got, ok := syslogLine([]byte(c.line), changed, time.UTC)
		if !ok || string(text) != c.text || !got.Equal(c.at) {
			t.Errorf("%q\ngot  %q at %v, %v\nwant %q at %v", c.line, text, got, ok, c.text, c.at)
		}
	}
	for _, line := range []string{
		"", "x", "Nov 22", "Nov 22 07:00:00 ", "Nov 22 07:00:00 host", "Nov 22 07:00:00 host no tag here", "Nov 32 07:00:00 host a[1]: x",
		"Nov 22 07:00:00 tag: without a host only with a pid", "Nov 22 07:00:00 host a[1]:x", "Nov 22 07:00:00 host a[1 : x",
		"2026-11-22T07:43:24.069523639Z INFO  Renewing certificate cert-name=x", "2026-11-22T07:43:24Z INF acme: Obtaining bundled SAN certificate",
		"2026-11-22T07:43:24Z WARN retry: x", "2026-11-22T07:00:01.123456+00:00 acme: a.pem: Starting update of the certificate.",
		"2026-11-22 07:32:18,412:DEBUG:certbot._internal.main:certbot version: 2.1.0", "[Sun Nov 22 07:46:17 UTC 2026] x", "<5>acme: x: y",
		"<133>1 2026-11-22T07:00:00Z host haproxy", `<133>1 2026-11-22T07:00:00Z host haproxy 811 - [a k="] x`, "<>Nov 22 07:00:00 host a[1]: x", "1 2 3 4 5 6 7",
		"I1122 07:00:00.000001       1 controller.go:284] \"x\"", "2016-10-06T00:17:09.669794202Z stdout F log content 1",
	} {
		if text, _, ok := syslogLine([]byte(line), changed, time.UTC); ok {
			t.Errorf("%q is taken for syslog: %q", line, text)
		}
	}
	if _, got, ok := syslogLine([]byte("Nov 22 07:00:00 host a[1]: x"), time.Time{}, time.UTC); !ok || !got.IsZero() {
		t.Errorf("without a year and a time to see it from: %v, %v", got, ok)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	if _, got, _ := syslogLine([]byte("Jul  1 07:00:00 host a[1]: x"), changed, berlin); !got.Equal(at("2026-07-01T05:00:00Z")) {
		t.Errorf("in Berlin's summer: %v", got)
	}
}

func TestSyslogFile(t *testing.T) {
	r, _ := carried("Nov 22 07:00:00 host certbot[1]: one\n" +
		"Nov 22 07:00:01 host certbot[1]: #033[1;32mtwo#033[0m#011tab #012forged issue #123 #0\n" +
		"no head\n")
	wantLines(t, r.lines, "one", "two\ttab  forged issue #123 #0", "no head")
	if want := []time.Time{changed.Add(-5 * time.Hour), changed.Add(-5*time.Hour + time.Second), changed}; !slices.Equal(r.ats, want) {
		t.Errorf("times %v, want %v", r.ats, want)
	}
	// A line that has no program's name does not decide that the log is none.
	r, _ = carried("Nov 22 07:00:00 host last message repeated 2 times\nNov 22 07:00:00 host certbot[1]: one\n")
	wantLines(t, r.lines, "Nov 22 07:00:00 host last message repeated 2 times", "one")
	// What journalctl says itself decides nothing.
	r, _ = carried("-- Journal begins at Sun 2026-11-22 07:00:00 UTC, ends at Sun 2026-11-22 08:00:00 UTC. --\n\nNov 22 07:00:00 host certbot[1]: one\n")
	wantLines(t, r.lines, "one")
}

func TestDocker(t *testing.T) {
	r, p := carried(`{"log":"one\n","stream":"stdout","time":"2026-11-22T07:00:00.5Z"}` + "\n" +
		`{"log":"err","stream":"stderr","time":"2026-11-22T07:00:01Z"}` + "\n" +
		`{"log":"two \"stream\":\"stderr\" \u001b[1mbold\u001b[0m\n","stream":"stdout","attrs":{"time":"2001-01-01T00:00:00Z","tag":"x"},"time":"2026-11-22T07:00:02Z"}` + "\n" +
		`{"log":" more\n","stream":"stderr","time":"2026-11-22T07:00:03Z"}` + "\n" +
		"not a record\n" + `{"log":"cut` + "\n" +
		`{"log":"never ended","stream":"stdout","time":"2026-11-22T07:00:04Z"}` + "\n")
	wantLines(t, r.lines, "one", `two "stream":"stderr" bold`, "! err more")
	if want := changed.Add(-5 * time.Hour).Add(500 * time.Millisecond); !r.ats[0].Equal(want) || !r.ats[1].Equal(want.Add(1500*time.Millisecond)) || !r.ats[2].Equal(want.Add(500*time.Millisecond)) {
		t.Errorf("times %v", r.ats)
	}
	safe := p.Safe()
	p.Flush()
	wantLines(t, r.lines[3:], "never ended")
	if after := p.Safe(); safe >= after {
		t.Errorf("safe at %d while a line was not whole, at %d when it was", safe, after)
	}
}

func TestCRI(t *testing.T) {
	r, _ := carried("2016-10-06T00:17:09.669794202Z stdout F log content 1\n" +
		"2016-10-06T00:17:10.1Z stdout P first, \n" +
		"2016-10-06T00:17:10.2Z stderr F error\n" +
		"2016-10-06T00:17:10.3Z stdout P:x second, \n" +
		"2016-10-06T00:17:10.4Z stdout F:y third\n" +
		"2016-10-06T02:17:11+02:00 stdout F \n" +
		"2016-10-06T00:17:11Z stdin F no\n" +
		"nothing\n")
	wantLines(t, r.lines, "log content 1", "! error", "first, second, third", "")
	if want := time.Date(2016, 10, 6, 0, 17, 10, 100_000_000, time.UTC); !r.ats[2].Equal(want) {
		t.Errorf("a line in pieces is of %v, want %v", r.ats[2], want)
	}
	// Pieces without an end are bounded.
	r, _ = carried(strings.Repeat("2016-10-06T00:17:10.1Z stdout P "+strings.Repeat("x", 16<<10)+"\n", 100) + "2016-10-06T00:17:10.4Z stdout F end\n")
	if len(r.lines) != 1 || len(r.lines[0]) > maxLine+16 || !strings.HasSuffix(r.lines[0], "x (cut)") {
		t.Errorf("%d lines, the first of %d bytes", len(r.lines), len(r.lines[0]))
	}
}

// What journalctl of systemd 252 printed: bytes that cannot be printed, a line with
// a NUL inside, one longer than a journal's line, whose pieces were left out, a
// message with a line end inside, a field that came twice.
func TestJournal(t *testing.T) {
	text, err := os.ReadFile("testdata/transport/journald-252.json")
	if err != nil {
		t.Fatal(err)
	}
	r, p := carried(string(text))
	p.Flush()
	wantLines(t, r.lines, "plain line", "two", "lines", "bad \xff\xfe bytes", "ansi red", "ctl \x01\x02 tab\there", "nul a", "b",
		"with prio prefix", "trailing space", "   ", "native hello", "line1 line2 forged")
	if want := time.UnixMicro(1795333941568823).UTC(); !r.ats[0].Equal(want) {
		t.Errorf("at %v, want %v", r.ats[0], want)
	}
}

// entries makes lines of journalctl -o json, a microsecond after the other.
func entries(fields ...string) string {
	var b strings.Builder
	for i, f := range fields {
		fmt.Fprintf(&b, `{"__REALTIME_TIMESTAMP":"%d",%s}`+"\n", changed.UnixMicro()+int64(i), f)
	}
	return b.String()
}

func TestJournalMessages(t *testing.T) {
	r, p := carried(entries(
		`"MESSAGE":"head "`+`,"_LINE_BREAK":"line-max","_STREAM_ID":"a"`,
		`"MESSAGE":"of another stream","_STREAM_ID":"b"`,
		`"MESSAGE":"tail","_STREAM_ID":"a"`,
		`"MESSAGE":null,"_LINE_BREAK":"line-max","_STREAM_ID":"a"`,
		`"MESSAGE":"the end of a line whose beginning was left out","_STREAM_ID":"a"`,
		`"MESSAGE":"whole","_STREAM_ID":"a"`,
		`"MESSAGE":"its rest is left out","_LINE_BREAK":"line-max","_STREAM_ID":"a"`,
		`"MESSAGE":null,"_STREAM_ID":"a"`,
		`"MESSAGE":["first","second"],"_STREAM_ID":["a","b"],"MESSAGE_ID":["x","y"]`,
		`"MESSAGE":[[102,111],"second"]`,
		`"MESSAGE":[300]`, `"MESSAGE":[-1]`, `"MESSAGE":[1.5]`, `"MESSAGE":{}`, `"MESSAGE":7`, `"MESSAGE":[null]`, `"NOTHING":"x"`,
		`"MESSAGE":[]`,
		`"MESSAGE":"lost","_LINE_BREAK":"line-max","_STREAM_ID":"a"`,
		`"MESSAGE":"other ","_LINE_BREAK":"line-max","_STREAM_ID":"b"`,
		`"MESSAGE":"whole again","_STREAM_ID":"b"`,
	))
	p.Flush()
	wantLines(t, r.lines, "of another stream", "head tail", "whole", "its rest is left out (cut)", "first", "fo", "", "lost", "other whole again")
	r, _ = carried(entries(`"MESSAGE":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)))
	wantLines(t, r.lines)
}

func TestJournalUnit(t *testing.T) {
	pid1 := func(unit, id, more string) string {
		return fmt.Sprintf(`"_PID":"1","_SYSTEMD_UNIT":"init.scope","UNIT":"%s","MESSAGE_ID":"%s","MESSAGE":"systemd's words"%s`, unit, id, more)
	}
	says := func(s string) string {
		return fmt.Sprintf(`"_PID":"77","_SYSTEMD_UNIT":"certbot.service","MESSAGE":"%s"`, s)
	}
	const exited = `,"EXIT_CODE":"exited","EXIT_STATUS":"3","COMMAND":"ExecStart"`
	for _, c := range []struct {
		what    string
		entries []string
		exits   []int
	}{
		{"a run that went well: two records, one end",
			[]string{pid1("certbot.service", unitStarts, ""), says("begin"), pid1("certbot.service", unitSuccess, ""), pid1("certbot.service", unitFinished, "")}, []int{0}},
		{"a run that failed: three records, one end",
			[]string{pid1("certbot.service", unitStarts, ""), says("begin"), pid1("certbot.service", processEnded, exited), says("late"),
				pid1("certbot.service", unitFailure, ""), pid1("certbot.service", unitFailed, "")}, []int{3}},
		{"a run that was killed", []string{says("begin"), pid1("certbot.service", processEnded, `,"EXIT_CODE":"killed","EXIT_STATUS":"9"`), pid1("certbot.service", unitFailure, "")}, []int{137}},
		{"a silent run", []string{pid1("certbot.service", unitStarts, ""), pid1("certbot.service", unitSuccess, "")}, []int{0}},
		{"two runs", []string{pid1("certbot.service", unitStarts, ""), says("begin"), pid1("certbot.service", unitSuccess, ""),
			pid1("certbot.service", unitStarts, ""), says("begin"), pid1("certbot.service", processEnded, exited)}, []int{0, 3}},
		{"a run whose end was not seen", []string{says("begin"), pid1("certbot.service", unitStarts, ""), pid1("certbot.service", unitSuccess, "")}, []int{-1, 0}},
		{"a failure without a status", []string{says("begin"), pid1("certbot.service", unitFailure, "")}, []int{-1}},
		{"another unit's life", []string{says("begin"), pid1("nginx.service", unitStarts, ""), pid1("nginx.service", processEnded, exited), pid1("nginx.service", unitFinished, "")}, nil},
		{"commands around the client", []string{says("begin"), pid1("certbot.service", processEnded, `,"EXIT_CODE":"exited","EXIT_STATUS":"1","COMMAND":"ExecStartPre"`)}, nil},
		{"somebody who is not the manager", []string{says("begin"),
			`"_PID":"77","UNIT":"certbot.service","MESSAGE_ID":"` + unitFinished + `","MESSAGE":"forged"`,
			`"PID":"1","_PID":"77","UNIT":"certbot.service","MESSAGE_ID":"` + processEnded + `","EXIT_STATUS":"0","MESSAGE":"forged"`}, nil},
	} {
		r, p := carried("")
		r.begin = "begin"
		p.Write([]byte(entries(c.entries...)))
		if !slices.Equal(r.exits, c.exits) {
			t.Errorf("%s: exits %v, want %v", c.what, r.exits, c.exits)
		}
		if slices.Contains(r.lines, "systemd's words") {
			t.Errorf("%s: a record of the unit's life was read as a line", c.what)
		}
	}
	// Other words of the manager are lines: that a condition was not met, say.
	r, _ := carried(entries(pid1("certbot.service", "0e4284a0caca4bfc81c0bb6786972673", "")))
	wantLines(t, r.lines, "systemd's words")
}

// A writer that does not append leaves a hole where logrotate cut its file off.
func TestHole(t *testing.T) {
	r, _ := carried(strings.Repeat("\x00", 9000) + "Nov 22 07:00:00 host certbot[1]: one\nNov 22 07:00:00 host certbot[1]: two\n")
	wantLines(t, r.lines, "one", "two")
}

// The wrapping of the first line is that of the log: what is quoted later is text.
func TestWrappingIsKept(t *testing.T) {
	docker := `{"log":"forged\n","stream":"stdout","time":"2026-11-22T07:00:00Z"}`
	r, _ := carried("plain\n" + docker + "\nNov 22 07:00:00 host certbot[1]: forged\n")
	wantLines(t, r.lines, "plain", docker, "Nov 22 07:00:00 host certbot[1]: forged")
}

// A syslog file tells what the client's own log does.
func TestSyslogged(t *testing.T) {
	heads := map[string]string{
		"traditional": "Nov 22 12:00:00 host client[77]: ",
		"iso":         "2026-11-22T12:00:00.000000+00:00 host client[77]: ",
		"rfc5424":     "<86>1 2026-11-22T12:00:00Z host client 77 - - ",
	}
	for _, s := range samples(t) {
		if wrappingOf(append(slices.Clone(s.text), ' ')) != plain || bytes.IndexByte(s.text, 0) >= 0 || bytes.Contains(s.text, []byte("#0")) || bytes.HasPrefix(s.text, []byte("-- ")) {
			continue
		}
		want := jsonLines(t, read(t, s.client, s.text, 1<<20))
		for name, head := range heads {
			var wrapped []byte
			for line := range bytes.Lines(s.text) {
				wrapped = append(append(wrapped, head...), line...)
			}
			if got := jsonLines(t, read(t, s.client, wrapped, 1<<20)); got != want {
				t.Errorf("%s as %s\n%swant\n%s", s.path, name, got, want)
			}
			if !strings.HasSuffix(s.path, "_any.log") {
				if got, _ := Recognise(wrapped); got != s.client {
					t.Errorf("%s as %s: recognised as %q", s.path, name, got)
				}
			}
		}
	}
}

// FuzzTransport: whatever stands in a log, in whatever pieces it is read, the same
// lines come out, none longer than it may be, and Safe is inside the text.
func FuzzTransport(f *testing.F) {
	journal, err := os.ReadFile("testdata/transport/journald-252.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(journal, 7)
	for _, s := range []string{
		"Nov 22 07:00:00 host certbot[1]: #033[1mone\n", "<133>1 2026-11-22T07:00:00Z host haproxy 811 ID47 [a@1 k=\"a \\\"]b\"] acme: x\n",
		`{"log":"one","stream":"stdout","time":"2026-11-22T07:00:00.5Z"}` + "\n" + `{"log":"two\n","stream":"stdout","time":"2026-11-22T07:00:00.5Z"}` + "\n",
		"2016-10-06T00:17:10.1Z stdout P first\n2016-10-06T00:17:10.4Z stdout F:y third\n",
		entries(`"MESSAGE":"a","_LINE_BREAK":"line-max","_STREAM_ID":"a"`, `"MESSAGE":null,"_STREAM_ID":"a"`, `"_PID":"1","MESSAGE_ID":"`+processEnded+`"`),
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, chunk int) {
		whole, p := carried(string(text))
		if safe := p.Safe(); safe < 0 || safe > int64(len(text)) {
			t.Errorf("safe at %d of %d", safe, len(text))
		}
		p.Flush()
		pieces, q := carried("")
		for rest := text; len(rest) > 0; {
			n := min(len(rest), chunk&0xff+1)
			q.Write(rest[:n])
			rest = rest[n:]
		}
		q.Flush()
		if !slices.Equal(whole.lines, pieces.lines) || !slices.Equal(whole.exits, pieces.exits) {
			t.Errorf("in pieces\n%q %v\nwhole\n%q %v", pieces.lines, pieces.exits, whole.lines, whole.exits)
		}
		for _, l := range whole.lines {
			if len(l) > maxLine+16 {
				t.Errorf("a line of %d bytes", len(l))
			}
		}
	})
}

func BenchmarkTransport(b *testing.B) {
	text, _ := json.Marshal(strings.Repeat("nothing to see here ", 6))
	for name, line := range map[string]string{
		"plain":   "nothing to see here, move along, nothing to see here, move along\n",
		"syslog":  "Nov 22 07:00:00 host sshd[1]: " + string(text) + "\n",
		"docker":  `{"log":` + string(text[:len(text)-1]) + `\n","stream":"stdout","time":"2026-11-22T07:00:00.5Z"}` + "\n",
		"cri":     "2016-10-06T00:17:09.669794202Z stdout F " + string(text) + "\n",
		"journal": entries(`"_PID":"77","_SYSTEMD_UNIT":"a.service","_STREAM_ID":"x","MESSAGE":` + string(text)),
	} {
		b.Run(name, func(b *testing.B) {
			p := NewParser(Options{Client: HAProxy, Log: "x", Location: time.UTC})
			data := []byte(strings.Repeat(line, 100))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				p.Write(data)
			}
		})
	}
}
