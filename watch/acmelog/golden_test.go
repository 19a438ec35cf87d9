package acmelog

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what is found as what is expected into testdata")

// When the texts in testdata were written last, and when they are read.
var (
	changed = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	later   = changed.Add(24 * time.Hour)
)

// sample is one captured log: testdata/CLIENT/NAME.log, with the attempts expected
// of it, a line each, in NAME.json beside it.
type sample struct {
	client Client
	path   string
	text   []byte
}

func samples(t testing.TB) (all []sample) {
	paths, err := filepath.Glob("testdata/*/*.log")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sample{client: Client(filepath.Base(filepath.Dir(path))), path: path, text: text})
	}
	return all
}

func read(t testing.TB, client Client, text []byte, chunk int) []Attempt {
	p := NewParser(Options{Client: client, Log: "LOG", Location: time.UTC})
	if p == nil {
		t.Fatalf("nobody speaks %q", client)
	}
	all, err := Explain(p, &pieces{text, chunk}, changed, later)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// pieces is a reader that gives at most n bytes at once.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), p.n)], p.rest)
	p.rest = p.rest[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func jsonLines(t testing.TB, all []Attempt) string {
	var b strings.Builder
	for _, a := range all {
		line, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.String()
}

func TestSamples(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(strings.TrimPrefix(s.path, "testdata/"), func(t *testing.T) {
			got := jsonLines(t, read(t, s.client, s.text, 1<<20))
			want := strings.TrimSuffix(s.path, ".log") + ".json"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(expected) {
				t.Errorf("got\n%swant\n%s", got, expected)
			}
		})
	}
}

// The same bytes give the same attempts in whatever pieces they come.
func TestPieces(t *testing.T) {
	for _, s := range samples(t) {
		whole := jsonLines(t, read(t, s.client, s.text, 1<<20))
		for _, n := range []int{1, 7, 4096} {
			if got := jsonLines(t, read(t, s.client, s.text, n)); got != whole {
				t.Errorf("%s: in pieces of %d\n%swhole\n%s", s.path, n, got, whole)
			}
		}
	}
}

// A sample whose name ends in _any does not tell whose it is.
func TestRecognise(t *testing.T) {
	for _, s := range samples(t) {
		if strings.HasSuffix(s.path, "_any.log") {
			continue
		}
		if got, _ := Recognise(s.text); got != s.client {
			t.Errorf("%s: recognised as %q", s.path, got)
		}
	}
}

func TestNotALog(t *testing.T) {
	for _, text := range []string{"", "\n", "hello\nworld\n", "{}\n", "<html>\n", "127.0.0.1 - - [22/Nov/2026:07:00:00 +0000] \"GET / HTTP/1.1\" 200 12\n", strings.Repeat("\x00", 4096)} {
		if got, ok := Recognise([]byte(text)); ok {
			t.Errorf("%.20q is recognised as %s", text, got)
		}
	}
}

var secret = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8}|[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}|jwt=[A-Za-z0-9]|/acct/[A-Za-z0-9]`)

// checkTold holds what is true of all that any Parser tells, whatever it was fed.
func checkTold(t *testing.T, what string, all []Attempt) {
	for _, a := range all {
		for _, text := range append([]string{a.Lineage, a.CA, a.ProblemType, a.ProblemDetail}, append(slices.Clone(a.Names), a.Saved...)...) {
			if len(text) > maxText {
				t.Errorf("%s: %d bytes: %q", what, len(text), text)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%s: not printable: %q", what, text)
			}
			if secret.MatchString(text) {
				t.Errorf("%s: a secret: %q", what, text)
			}
		}
		if len(a.Names) > maxNames || len(a.Saved) > maxSaved || len(a.Problems) > maxNames {
			t.Errorf("%s: %d names, %d saved, %d problems", what, len(a.Names), len(a.Saved), len(a.Problems))
		}
		if a.Phase.rank() < 0 {
			t.Errorf("%s: phase %q", what, a.Phase)
		}
		switch a.Outcome {
		case Issued, Failed, Skipped, Stalled, Running:
		default:
			t.Errorf("%s: outcome %q", what, a.Outcome)
		}
		if a.Names == nil || a.Saved == nil {
			t.Errorf("%s: names %v, saved %v: absent lists", what, a.Names, a.Saved)
		}
		if k := a.ProblemType; k != "" && k != Network && k != HTTP5xx && !strings.HasPrefix(k, problemP) {
			t.Errorf("%s: problem type %q", what, k)
		}
		if a.Outcome == Issued && a.Phase.rank() < PhaseIssued.rank() {
			t.Errorf("%s: issued in phase %q", what, a.Phase)
		}
	}
}

func TestTold(t *testing.T) {
	for _, s := range samples(t) {
		checkTold(t, s.path, read(t, s.client, s.text, 1<<20))
	}
}

// What carries a log does not change what it tells, but for times where it has
// none of its own.
func TestWrapped(t *testing.T) {
	wrap := map[string]func(line []byte) []byte{
		"docker": func(line []byte) []byte {
			text, _ := json.Marshal(string(line) + "\n")
			return fmt.Appendf(nil, `{"log":%s,"stream":"stdout","time":"2026-11-22T12:00:00Z"}`+"\n", text)
		},
		"docker in pieces": func(line []byte) (out []byte) {
			line = append(slices.Clone(line), '\n')
			for len(line) > 0 {
				n := min(len(line), 11)
				for n < len(line) && line[n]&0xc0 == 0x80 {
					n++
				}
				text, _ := json.Marshal(string(line[:n]))
				out = fmt.Appendf(out, `{"log":%s,"stream":"stdout","time":"2026-11-22T12:00:00Z"}`+"\n", text)
				line = line[n:]
			}
			return out
		},
		"cri": func(line []byte) (out []byte) {
			for len(line) > 13 {
				out = fmt.Appendf(out, "2026-11-22T12:00:00.000000000Z stdout P %s\n", line[:13])
				line = line[13:]
			}
			return fmt.Appendf(out, "2026-11-22T12:00:00.000000000Z stdout F %s\n", line)
		},
		"journal": func(line []byte) []byte {
			text, _ := json.Marshal(string(line))
			return fmt.Appendf(nil, `{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"%d","_STREAM_ID":"1","MESSAGE":%s}`+"\n", changed.UnixMicro(), text)
		},
	}
	for _, s := range samples(t) {
		if wrappingOf(append(slices.Clone(s.text), ' ')) != plain || !bytes.Equal(bytes.ToValidUTF8(s.text, nil), s.text) || bytes.IndexByte(s.text, 0) >= 0 {
			continue // wrapped already, or bytes that JSON changes
		}
		want := jsonLines(t, read(t, s.client, s.text, 1<<20))
		for name, f := range wrap {
			var wrapped []byte
			for line := range bytes.Lines(s.text) {
				wrapped = append(wrapped, f(bytes.TrimSuffix(line, []byte{'\n'}))...)
			}
			if got := jsonLines(t, read(t, s.client, wrapped, 1<<20)); got != want {
				t.Errorf("%s as %s\n%swant\n%s", s.path, name, got, want)
			}
		}
	}
}

// FuzzDialects: no text makes a parser panic, tell more than it may, or depend on
// how it is cut; and what a Parser that starts at Safe finds is what it would have
// found anyway.
func FuzzDialects(f *testing.F) {
	for _, s := range samples(f) {
		for i, c := range Clients() {
			if c == s.client && len(s.text) < 64<<10 {
				f.Add(byte(i), 5, s.text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which byte, chunk int, text []byte) {
		client := Clients()[int(which)%len(Clients())]
		whole := read(t, client, text, 1<<20)
		checkTold(t, string(client), whole)
		if got, want := jsonLines(t, read(t, client, text, max(1, chunk&0xff))), jsonLines(t, whole); got != want {
			t.Errorf("%s: in pieces of %d\n%swhole\n%s", client, chunk&0xff, got, want)
		}
	})
}
