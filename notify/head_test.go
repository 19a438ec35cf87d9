package notify

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSkimHead: of a line as the journal writes it skimHead takes what parseHead
// takes; of others too, and it refuses what that refuses.
func TestSkimHead(t *testing.T) {
	e, err := Finish(proof(7), "web1.example.org", "instance", 41, noon)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	line := string(b)
	for name, s := range map[string]string{
		"as written":                  line,
		"another order":               `{"data":{},"sequence":"00000000000000000041","time":"2026-06-01T12:00:00Z","type":"t","id":"a"}`,
		"blanks":                      strings.Replace(line, `","type"`, `", "type"`, 1),
		"an escape":                   strings.Replace(line, `"id":"`, `"id":"\u0041`, 1),
		"an escape in the subject":    strings.Replace(line, `"subject":"`, `"subject":"\"\\`, 1),
		"other letters":               strings.Replace(line, `"subject":"`, `"subject":"bücher`, 1),
		"another key":                 strings.Replace(line, `"type"`, `"later":{"id":"no"},"type"`, 1),
		"a key in capitals":           strings.Replace(line, `"type"`, `"ID":"no","type"`, 1),
		"no id":                       strings.Replace(line, `"id"`, `"di"`, 1),
		"an empty id":                 strings.Replace(line, e.ID, "", 1),
		"no sequence":                 strings.Replace(line, `"sequence"`, `"secuence"`, 1),
		"a sequence of 0":             strings.Replace(line, e.Sequence, "00000000000000000000", 1),
		"a sequence that is none":     strings.Replace(line, e.Sequence, "0000000000000000004x", 1),
		"a sequence that is a number": strings.Replace(line, `"`+e.Sequence+`"`, "41", 1),
		"a time that is none":         strings.Replace(line, `"time":"2026`, `"time":"x026`, 1),
		"no time":                     strings.Replace(line, `"time"`, `"mite"`, 1),
		"cut off":                     line[:len(line)-1],
		"cut off in the head":         line[:60],
		"no bytes":                    "",
		"one":                         "{",
		"an array":                    "[" + line + "]",
		"zeroes":                      strings.Repeat("\x00", 100),
	} {
		h, seq, ok := skimHead([]byte(s))
		wantH, wantSeq, wantOK := parseHead([]byte(s))
		if ok != wantOK || ok && (h != wantH || seq != wantSeq) {
			t.Errorf("%s: %+v %d %t, want %+v %d %t", name, h, seq, ok, wantH, wantSeq, wantOK)
		}
		if name == "as written" && (!ok || h.ID != e.ID || seq != 41 || !h.Time.Equal(e.Time) || h.Type != e.Type) {
			t.Errorf("%s: %+v %d %t", name, h, seq, ok)
		}
	}
}

// FuzzSkimHead: whatever the texts of an event are, skimHead takes from its line
// what parseHead takes; and no bytes upset it.
func FuzzSkimHead(f *testing.F) {
	f.Add("0123456789abcdef", "//h/renewatch", "io.renewatch.alert.critical.v1", "www.example.org", int64(0), uint64(1), []byte("{}"))
	f.Add("\\\"", "\x00\n", `","sequence":"00000000000000000009","x":"`, "*.bücher.example", int64(1<<40), uint64(1)<<60, []byte(`{"id":"a","time":"2026-06-01T12:00:00Z"`))
	f.Fuzz(func(t *testing.T, id, source, kind, subject string, at int64, seq uint64, garbage []byte) {
		e := Event{SpecVersion: "1.0", ID: id, Source: source, Type: kind, Subject: subject, Time: time.Unix(at%(1<<36), 0).UTC(),
			DataContentType: "application/json", DataSchema: "urn:" + kind, Sequence: formatSequence(seq)}
		line, err := Encode(e)
		if err != nil {
			t.Skip()
		}
		h, n, ok := skimHead(line)
		if kind == "" || e.Time.IsZero() {
			return // as no event is
		}
		wantH, wantN, wantOK := parseHead(line)
		if ok != wantOK || ok && (h != wantH || n != wantN) {
			t.Fatalf("%s\n%+v %d %t, want %+v %d %t", line, h, n, ok, wantH, wantN, wantOK)
		}
		skimHead(garbage)
	})
}

// TestTally: counting the lines of a file finds what reading them does, wherever
// the borders of the buffer fall.
func TestTally(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	const n = 900 // some 450 KB
	for i := range n {
		d := nth(i)
		d.Data.Detail = strings.Repeat(`"type":"io.renewatch.alert. `, i%17)
		e, err := Finish(d, "web1.example.org", "instance", uint64(i+2), noon.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			e.Type = TypeOf("alert.warning")
		}
		line, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	// A first line so long that the border falls into what is looked for.
	const border, alert = 256 << 10, `"type":"io.renewatch.alert.`
	at := border - 8<<10
	at += strings.Index(b.String()[at:], alert)
	all := strings.Repeat("x", border-at-len(alert)/2-1) + "\n" + b.String()
	for _, tail := range []string{"", "{torn", strings.Repeat("x", 10<<10), strings.Repeat("\x00", 1<<10) + "\ngarbage\n"} {
		path := segment{first: 1}.path(dir)
		if err := os.WriteFile(path, []byte(all+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		want, garbage, torn, err := scan(dir, 1, parseHead, func(head, uint64) {})
		if err != nil {
			t.Fatal(err)
		}
		got, err := tally(dir, 1, want.last+1)
		if err != nil || got.count != want.count+garbage || got.alerts != want.alerts || got.size != want.size+torn || !got.newest.Equal(want.newest) || got.last != want.last {
			t.Errorf("%d bytes behind: %+v, %v; want %+v", len(tail), got, err, want)
		}
		glanced, err := glance(dir, 1, want.last+1)
		if err != nil || glanced.count != want.count+garbage || glanced.size != want.size+torn || !glanced.newest.Equal(want.newest) {
			t.Errorf("%d bytes behind: %+v, %v; want %+v", len(tail), glanced, err, want)
		}
	}
}

// TestALargeJournalIsNotReadAtStart: the files of long ago are not gone through,
// and what is known of them is right all the same.
func TestALargeJournalIsNotReadAtStart(t *testing.T) {
	dir := t.TempDir()
	const n, sent = recentIDs + 3000, 500
	writeLarge(t, dir, nth(1), n, 70, sent)
	firsts, err := segmentFirsts(dir)
	if err != nil {
		t.Fatal(err)
	}
	gone := 0
	// Nothing there can be read as an event, but that shows only to who reads it.
	for i, first := range []uint64{firsts[0], firsts[3]} {
		path := segment{first: first}.path(dir)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if first > sent != (i == 1) {
			t.Fatalf("the segment from %d on does not fit the test", first)
		}
		if i == 1 { // and much of it was dropped when the disk was full
			lines := bytes.SplitAfter(b, []byte("\n"))
			gone = len(lines) - 1 - 10
			b = bytes.Join(lines[:10], nil)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte(`"id":`), []byte(`"di":`)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := options(&clock{now: noon.AddDate(0, 0, 70)})
	j := open(t, dir, o)
	if r := j.TakeReport(); !r.Empty() {
		t.Errorf("read, and found: %+v", r)
	}
	if j.Last() != n || j.Depth() != n-sent-gone || len(j.seen) != recentIDs {
		t.Errorf("last %d, %d wait, %d ids", j.Last(), j.Depth(), len(j.seen))
	}
	at := noon.Add(sent * (70 * 24 * time.Hour / n))
	if got := j.OldestUnsent(); got.Sub(at).Abs() > time.Second {
		t.Errorf("the oldest waits since %v, want %v", got, at)
	}
	j.rewritten()
	if j.gauge(); j.OldestUnsent().Sub(at).Abs() > time.Second {
		t.Errorf("after files were rewritten the oldest waits since %v, want %v", j.OldestUnsent(), at)
	}
	// Sending goes by what is there.
	var depths []int
	p := position{after: sent}
	for {
		records, err := j.read(&p, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			break
		}
		last := records[len(records)-1]
		if err := j.advance(Destination, last.seq, false); err != nil {
			t.Fatal(err)
		}
		depths = append(depths, j.Depth())
		if next := j.OldestUnsent(); last.seq < n && !next.After(last.event.Time) {
			t.Errorf("sent up to %v, the oldest waits since %v", last.event.Time, next)
		}
	}
	slices.Reverse(depths)
	if !slices.IsSorted(depths) || depths[0] != 0 || !j.OldestUnsent().IsZero() {
		t.Errorf("waiting: %v", depths)
	}
}
