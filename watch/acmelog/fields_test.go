package acmelog

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFieldsJSON(t *testing.T) {
	var f fieldList
	f.json([]byte(` {"level":"error","ts":1795334063.25,"msg":"say \"hi\"\n","list":["a.test","b.test"],"deep":{"msg":"no","x":["}",{"y":"\\"}]},"none":null,"wait":60,"span":"1m30s","msg":"again" } tail`))
	for key, want := range map[string]string{"level": "error", "msg": "say \"hi\"\n", "ts": "1795334063.25", "deep": `{"msg":"no","x":["}",{"y":"\\"}]}`, "none": "null", "x": "", "tail": ""} {
		if got := f.text(key); got != want {
			t.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	if got := f.names("list"); !slices.Equal(got, []string{"a.test", "b.test"}) {
		t.Errorf("list is %q", got)
	}
	if d, ok := f.seconds("wait", time.Hour); !ok || d != time.Minute {
		t.Errorf("60 is %v, %v", d, ok)
	}
	if d, ok := f.seconds("span", time.Hour); !ok || d != 90*time.Second {
		t.Errorf("1m30s is %v, %v", d, ok)
	}
}

// What is cut off ends a line; what came before counts.
func TestFieldsCut(t *testing.T) {
	const whole = `{"a":"1","b":{"c":["2","}"]},"d":"3"}`
	for n := range len(whole) {
		var f fieldList
		f.json([]byte(whole[:n]))
		if n > 9 && f.text("a") != "1" {
			t.Errorf("%s: a is %q", whole[:n], f.text("a"))
		}
	}
}

func TestFieldsLogfmt(t *testing.T) {
	var f fieldList
	f.logfmt([]byte(`time=2026-11-22T07:00:00Z level=info msg="a \"b\" c=d\n" stray  domains="a.test, b.test" list=["c.test","d.test"] empty= q="" msg=again open="cut`))
	for key, want := range map[string]string{"level": "info", "msg": "a \"b\" c=d\n", "empty": "", "q": "", "stray": "", "open": "cut", "c": ""} {
		if got := f.text(key); got != want {
			t.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	if got := f.names("domains"); !slices.Equal(got, []string{"a.test", "b.test"}) {
		t.Errorf("domains are %q", got)
	}
	if got := f.names("list"); got != nil && !slices.Equal(got, []string{"c.test", "d.test"}) {
		t.Errorf("list is %q", got)
	}
}

func TestFieldsBounded(t *testing.T) {
	var f fieldList
	f.json([]byte("{" + strings.Repeat(`"k":[`+strings.Repeat("[", 100)+`"]"`+strings.Repeat("]", 100)+`],`, 1000)))
	f.logfmt([]byte(strings.Repeat(`k="\"" `, 1000)))
	if len(f.list) > maxFields {
		t.Errorf("%d fields", len(f.list))
	}
}

func TestStamp(t *testing.T) {
	want := time.Date(2026, 11, 22, 7, 54, 22, 897600000, time.UTC)
	berlin := time.FixedZone("", 3600)
	for _, s := range []string{"1795334062.8976", "1.7953340628976e+09", "1795334062897.6", "1795334062897600000", "2026-11-22T07:54:22.8976Z", "2026-11-22T08:54:22.8976+01:00",
		"2026-11-22T08:54:22.8976+0100", "2026/11/22 08:54:22.8976", "2026-11-22 08:54:22.8976"} {
		if got := stamp(s, berlin); !got.Equal(want) {
			t.Errorf("%s is %v", s, got)
		}
	}
	for _, s := range []string{"", "0", "-1", "NaN", "Inf", "1e400", "yesterday", "12:00"} {
		if got := stamp(s, berlin); !got.IsZero() {
			t.Errorf("%q is %v", s, got)
		}
	}
}
