package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

const windowExample = `write - {days: [mon-fri], from: "02:00", to: "05:00", tz: Europe/Berlin}`

// windows is the key of a server that says when it may be reloaded.
var windows = field{key: "windows", name: "Windows", quiet: true, about: "When the server may be reloaded. Absent: at any time. When little of a certificate's life is left it is reloaded all the same.", shape: list{
	min: 1, max: 64, example: windowExample + "; leave windows out where any time will do",
	elem: &object{
		example: windowExample,
		fields: []field{
			{key: "days", name: "Days", shape: weekdays{}, absent: "every day", about: "Days on which the window begins: mon to sun, or ranges such as mon-fri. Absent: every day."},
			{key: "from", name: "From", required: true, shape: clock{}, about: "When it begins, HH:MM as the clock on the wall shows it."},
			{key: "to", name: "To", required: true, shape: clock{last: true}, about: "When it ends, HH:MM; earlier than from: on the next day. 24:00 is midnight at the end of the day."},
			{key: "tz", name: "Zone", shape: timeZone{}, absent: "the host's time zone", about: "Time zone of from and to, e.g. Europe/Berlin. Absent: the host's."},
		},
		rules: []rule{differ{"from", "to", `a whole day is from: "00:00", to: "24:00"`}},
		other: map[string]string{
			"day":      "write days: [mon-fri]",
			"weekdays": "write days: [mon-fri]",
			"start":    "write from",
			"begin":    "write from",
			"end":      "write to",
			"until":    "write to",
			"timezone": "write tz",
			"zone":     "write tz",
		},
	},
}}

// days in the order in which they are written and shown.
var (
	dayNames = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	dayForm  = regexp.MustCompile("^(" + dayPattern + ")$")
)

const (
	dayPattern = `(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?`
	dayHint    = "write mon, tue, wed, thu, fri, sat or sun, or a range such as mon-fri"
)

// weekdays is a list of days and ranges of them, kept as days.
type weekdays struct{}

var dayList = list{min: 1, max: 7, single: true, example: "write [mon, tue] or [mon-fri], or leave it out for every day",
	elem: text{check: checkDay, pattern: dayPattern, example: dayHint}}

func checkDay(s string) (wrong, hint string) {
	if dayForm.MatchString(s) {
		return "", ""
	}
	lower := strings.ReplaceAll(strings.ToLower(s), " ", "")
	if dayForm.MatchString(lower) {
		return "is no day", "write " + lower
	}
	parts := strings.Split(lower, "-")
	for i, p := range parts {
		for _, name := range dayNames {
			if strings.HasPrefix(p, name) {
				parts[i] = name
			}
		}
	}
	if short := strings.Join(parts, "-"); dayForm.MatchString(short) {
		return "is no day", "write " + short
	}
	return "is no day", dayHint
}

func (weekdays) decode(d *decoder, p place, n *node, into reflect.Value) {
	before := d.faults
	words := reflect.New(reflect.TypeFor[[]string]()).Elem()
	dayList.decode(d, p, n, words)
	if d.faults > before {
		return
	}
	var on [7]bool
	for _, word := range words.Interface().([]string) {
		first, last, _ := strings.Cut(word, "-")
		i := slices.Index(dayNames, first)
		for {
			if on[i] {
				d.fail(p, n, fmt.Sprintf("%s names %s twice", p.path, dayNames[i]), "name each day once")
				return
			}
			on[i] = true
			if last == "" || dayNames[i] == last {
				break
			}
			i = (i + 1) % 7
		}
	}
	var days []time.Weekday
	for i := range dayNames {
		if on[i] {
			days = append(days, time.Weekday((i+1)%7))
		}
	}
	into.Set(reflect.ValueOf(days))
}

func (weekdays) value(v reflect.Value) any {
	if v.IsNil() {
		return nil
	}
	out := []any{}
	for _, d := range v.Interface().([]time.Weekday) {
		out = append(out, dayNames[(int(d)+6)%7])
	}
	return out
}

func (weekdays) schema(def reflect.Value) map[string]any { return dayList.schema(def) }

// clock is a time of day, HH:MM.
type clock struct {
	last bool // 24:00 is one too
}

const clockPattern = `([01][0-9]|2[0-3]):[0-5][0-9]`

var (
	clockForm = regexp.MustCompile("^" + clockPattern + "$")
	looseForm = regexp.MustCompile(`^([0-9]{1,2})[:.hH]([0-9]{2})(:00)?$`)
)

func (t clock) text() text {
	c := text{check: t.check, pattern: clockPattern, example: `write HH:MM in quotes: "02:00"`}
	if t.last {
		c.pattern += "|24:00"
	}
	return c
}

func (t clock) check(s string) (wrong, hint string) {
	if clockForm.MatchString(s) || t.last && s == "24:00" {
		return "", ""
	}
	if s == "24:00" {
		return "is no time that a window can begin at", `write "00:00", and the day that begins then`
	}
	if m := looseForm.FindStringSubmatch(s); m != nil {
		if right := ("0" + m[1])[len(m[1])-1:] + ":" + m[2]; clockForm.MatchString(right) {
			return "is no time of day", `write "` + right + `"`
		}
	}
	return "is no time of day", `write HH:MM from "00:00" to "23:59", e.g. "02:00"`
}

func (t clock) decode(d *decoder, p place, n *node, into reflect.Value) {
	c := t.text()
	if n.kind == isString && n.text == "" {
		d.fail(p, n, p.path+" must not be empty", c.example)
		return
	}
	s := reflect.New(reflect.TypeFor[string]()).Elem()
	c.decode(d, p, n, s)
	var hours, minutes int64
	if _, err := fmt.Sscanf(s.String(), "%d:%d", &hours, &minutes); err == nil {
		into.SetInt(int64(time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute))
	}
}

func (clock) value(v reflect.Value) any {
	minutes := int64(time.Duration(v.Int()) / time.Minute)
	return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60)
}

func (t clock) schema(reflect.Value) map[string]any { return t.text().schema(reflect.Value{}) }

// timeZone is a name of the IANA time zone database, or Local.
type timeZone struct{}

// What Debian keeps beside the zones, right/ with leap seconds say, is none.
const zonePattern = `[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*`

var (
	zoneName = text{check: checkZone, pattern: zonePattern, example: "write a name of the IANA time zone database, e.g. Europe/Berlin"}
	zoneForm = pattern(zonePattern)
)

func checkZone(s string) (wrong, hint string) {
	if zoneForm(s) && len(s) <= 64 {
		if _, err := time.LoadLocation(s); err == nil {
			return "", ""
		}
	}
	const example = "write a name of the IANA time zone database, e.g. Europe/Berlin, America/New_York or UTC"
	switch {
	case strings.EqualFold(s, "utc"), strings.EqualFold(s, "gmt"), s == "Z":
		return "is no time zone", "write UTC"
	case strings.EqualFold(s, "local"):
		return "is no time zone", "write Local, or leave tz out"
	case strings.ContainsAny(s[:1], "+-0123456789"):
		return "is no time zone", example + "; an offset does not know of summer time"
	}
	return "is no time zone", example
}

func (timeZone) decode(d *decoder, p place, n *node, into reflect.Value) {
	s := reflect.New(reflect.TypeFor[string]()).Elem()
	zoneName.decode(d, p, n, s)
	if s.String() == "" {
		return
	}
	zone, err := time.LoadLocation(s.String())
	if err != nil { // found a moment ago
		d.fail(p, n, p.path+" "+quote(s.String())+" is no time zone", "")
		return
	}
	into.Set(reflect.ValueOf(zone))
}

func (timeZone) value(v reflect.Value) any {
	if v.IsNil() {
		return nil
	}
	return v.Interface().(*time.Location).String()
}

func (timeZone) schema(reflect.Value) map[string]any { return zoneName.schema(reflect.Value{}) }

// differ says that two keys must not hold the same text.
type differ struct{ a, b, hint string }

func (r differ) keys() []string { return []string{r.a, r.b} }

func (r differ) broken(_ *object, n *node) (string, string, string) {
	a, b := n.get(r.a), n.get(r.b)
	if a != nil && b != nil && a.kind == isString && b.kind == isString && a.text == b.text {
		return fmt.Sprintf("has the same time in %s and %s", r.a, r.b), r.hint, r.b
	}
	return "", "", ""
}

// schema cannot compare two values.
func (r differ) schema(*object) map[string]any {
	return map[string]any{"$comment": r.a + " and " + r.b + " differ"}
}
