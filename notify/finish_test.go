package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func draft() Draft {
	return Draft{Kind: DeployFailed, Certificate: "www.example.com", Time: noon, Leaf: "ab", Occurrence: 1, Data: Data{Severity: Error}}
}

func TestIDsDifferInEveryPartAndInHowTheyAreDivided(t *testing.T) {
	seen := map[string]string{}
	add := func(what, host, instance string, change func(*Draft)) {
		d := draft()
		if change != nil {
			change(&d)
		}
		id := EventID(host, instance, d)
		if other, ok := seen[id]; ok {
			t.Errorf("%s has the id of %s", what, other)
		}
		seen[id] = what
	}
	add("the draft", "h", "i", nil)
	add("another host", "h2", "i", nil)
	add("another instance", "h", "i2", nil)
	add("host and instance divided otherwise", "hi", "", nil)
	add("another certificate", "h", "i", func(d *Draft) { d.Certificate = "x" })
	add("another transition", "h", "i", func(d *Draft) { d.Transition = "x" })
	add("another leaf", "h", "i", func(d *Draft) { d.Leaf = "cd" })
	add("transition and leaf divided otherwise", "h", "i", func(d *Draft) { d.Transition, d.Leaf = "deploy.faileda", "b" })
	add("another occurrence", "h", "i", func(d *Draft) { d.Occurrence = 2 })
	same := draft()
	same.Transition = string(DeployFailed)
	same.Time, same.Data = same.Time.Add(time.Hour), Data{Detail: "other words"}
	if seen[EventID("h", "i", same)] != "the draft" {
		t.Error("time, data or the default transition change the id")
	}
}

func TestFinishFillsInTheEnvelope(t *testing.T) {
	d := draft()
	d.Time = noon.In(time.FixedZone("", 3600))
	e, err := Finish(d, "web1.example.org", "i", 42, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"specversion": "1.0", "source": "//web1.example.org/renewatch", "type": "io.renewatch.deploy.failed.v1",
		"subject": "www.example.com", "time": "2026-06-01T12:00:00Z", "datacontenttype": "application/json",
		"dataschema": "urn:renewatch:event:deploy.failed:v1", "sequence": "00000000000000000042",
		"id": EventID("web1.example.org", "i", d),
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if e.Kind() != DeployFailed || e.Data.Host != "web1.example.org" {
		t.Errorf("kind %s, host %s", e.Kind(), e.Data.Host)
	}
	back, err := Decode(b)
	if err != nil || back.ID != e.ID || !back.Time.Equal(noon) {
		t.Errorf("read back as %+v %v", back, err)
	}
}

func TestFinishRefusesWhatIsNoEvent(t *testing.T) {
	for what, change := range map[string]func(*Draft){
		"no kind":        func(d *Draft) { d.Kind = "" },
		"unknown kind":   func(d *Draft) { d.Kind = "deploy.maybe" },
		"hostile kind":   func(d *Draft) { d.Kind = "deploy.>" },
		"no certificate": func(d *Draft) { d.Certificate = "" },
	} {
		d := draft()
		change(&d)
		if e, err := Finish(d, "h", "i", 1, noon); err == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
}

func TestDecodeRefusesWhatIsNoEvent(t *testing.T) {
	for _, s := range []string{"", "{}", "null", "[]", `{"specversion":"1.0"}`, `{"specversion":"2.0","id":"a","type":"b"}`, "\x00"} {
		if e, err := Decode([]byte(s)); err == nil {
			t.Errorf("%q is %+v", s, e)
		}
	}
	if e, err := Decode([]byte(`{"specversion":"1.0","id":"a","type":"io.renewatch.new.one.v1","future":1,"data":{"more":2}}`)); err != nil || e.Kind() != "new.one" {
		t.Errorf("an event from later on: %v %v", e, err)
	}
	for _, typ := range []string{"x", "io.renewatch.a.b.v2", "io.renewatch.a.b.c.v1", "io.renewatch..b.v1", "io.renewatch.a.>.v1"} {
		if k := (Event{Type: typ}).Kind(); k != "" {
			t.Errorf("%s is of kind %q", typ, k)
		}
	}
}

func huge() Draft {
	names := make([]string, 3000)
	for i := range names {
		names[i] = strings.Repeat("n", 250) + fmt.Sprint(i)
	}
	d := draft()
	d.Data.Certificate = &Certificate{Name: "c", Names: names}
	d.Data.Previous = &Certificate{Names: names}
	d.Data.Detail = strings.Repeat("é", 10000)
	d.Data.Hint = strings.Repeat(`"`, 10000)
	d.Data.Reload = &Reload{Server: "s", How: "command", Output: strings.Repeat("\\\n", 5000)}
	for i := range 5000 {
		v := Verdict{
			Endpoint: fmt.Sprint("https://", i), Code: "serving", Severity: Info, Detail: strings.Repeat("<", 5000),
			Served: &Served{Names: names, Chain: names},
		}
		if i%100 == 7 {
			v.Severity, v.Code = Critical, "expired"
		}
		if i%100 == 8 {
			v.Severity, v.Code = Warning, "stale"
		}
		d.Data.Verdicts = append(d.Data.Verdicts, v)
		d.Data.Excluded = append(d.Data.Excluded, Excluded{Endpoint: "e", Code: "c", Why: "w"})
	}
	return d
}

func TestEventsAreCutToTheirSizeWorstVerdictsFirst(t *testing.T) {
	d := huge()
	before := d.Data.Verdicts[0].Served.Names[0]
	e, err := Finish(d, "h", "i", 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Encode(e)
	if err != nil || len(b) > MaxEvent {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	kept := len(e.Data.Verdicts)
	if kept == 0 || kept+e.Data.VerdictsOmitted != 5000 {
		t.Errorf("%d kept, %d omitted", kept, e.Data.VerdictsOmitted)
	}
	for _, v := range e.Data.Verdicts {
		if v.Severity != Critical {
			t.Errorf("%s was kept", v.Severity)
		}
	}
	if c := e.Data.Certificate; len(c.Names)+c.NamesOmitted != 3000 {
		t.Errorf("%d names kept, %d omitted", len(c.Names), c.NamesOmitted)
	}
	if len(e.Data.Excluded)+e.Data.ExcludedOmitted != 5000 {
		t.Errorf("%d excluded kept, %d omitted", len(e.Data.Excluded), e.Data.ExcludedOmitted)
	}
	if len(d.Data.Verdicts) != 5000 || d.Data.Verdicts[0].Severity != Info || d.Data.Verdicts[0].Served.Names[0] != before || len(d.Data.Verdicts[0].Served.Names) != 3000 {
		t.Error("the caller's draft was changed")
	}
}

func TestManySmallVerdictsFillTheEvent(t *testing.T) {
	d := draft()
	for i := range 1000 {
		d.Data.Verdicts = append(d.Data.Verdicts, Verdict{Endpoint: fmt.Sprint("https://", i), Code: "stale", Severity: Warning})
	}
	e, err := Finish(d, "h", "i", 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Encode(e)
	if len(b) > MaxEvent || len(b) < MaxEvent*3/4 {
		t.Errorf("%d bytes used", len(b))
	}
	if e.Data.Verdicts[0].Endpoint != "https://0" {
		t.Error("equal ones changed their order")
	}
}

func TestTextsArePrintable(t *testing.T) {
	d := draft()
	d.Data.Detail = "a\x1b[31mb\r\nc\x00\xffd\u202ee"
	d.Data.Reload = &Reload{Output: "one\r\ntwo\tthree\x07"}
	nan := math.NaN()
	d.Data.LagSeconds = &nan
	d.Data.Certificate = &Certificate{NotAfter: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}
	e, err := Finish(d, "h", "i", 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	if want := "a\ufffd[31mb c\ufffd\ufffdd\ufffde"; e.Data.Detail != want {
		t.Errorf("detail %q, want %q", e.Data.Detail, want)
	}
	if want := "one\ntwo\tthree\ufffd"; e.Data.Reload.Output != want {
		t.Errorf("output %q, want %q", e.Data.Reload.Output, want)
	}
}

func FuzzText(f *testing.F) {
	f.Add("abc\x00\xff\n…", 10)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 8 || limit > 4096 {
			limit = 64
		}
		got := text(s, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Errorf("text(%q, %d) = %q", s, limit, got)
		}
		for _, r := range got {
			if r != utf8.RuneError && !unicode.IsPrint(r) {
				t.Errorf("%q is in %q", r, got)
			}
		}
		if utf8.ValidString(s) && len(s) <= limit && plain(s) && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func TestEveryListIsAList(t *testing.T) {
	d := draft()
	d.Data.Verdicts = []Verdict{{Endpoint: "e", Code: "serving", Served: &Served{}}}
	e, err := Finish(d, "h", "i", 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := Encode(e); bytes.Contains(b, []byte("null")) {
		t.Errorf("%s", b)
	}
}

func BenchmarkFinish(b *testing.B) {
	d := draft()
	for range 8 {
		d.Data.Verdicts = append(d.Data.Verdicts, Verdict{Endpoint: "https://www.example.com", Code: "serving", Served: &Served{Names: []string{"www.example.com"}, Chain: []string{strings.Repeat("a", 64)}}})
	}
	for b.Loop() {
		if _, err := Finish(d, "h", "i", 1, noon); err != nil {
			b.Fatal(err)
		}
	}
}
