package config

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	// What any YAML tool, 1.1 or 1.2, may take for a number.
	numeric = regexp.MustCompile(`^[-+]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+|` +
		`[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$`)
	durationForm = regexp.MustCompile(`^` + durationPattern + `$`)
	sizeForm     = regexp.MustCompile(`^` + sizePattern + `$`)
)

const (
	durationPattern = `-?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?([0-9]+ns)?`
	sizePattern     = `(0|[1-9][0-9]*)(B|KiB|MiB|GiB|TiB)`
)

// resolve says what a plain scalar is, for the strictest of readers.
func resolve(s string) kind {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return isNull
	case "true", "True", "TRUE", "false", "False", "FALSE",
		"yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF":
		return isBool
	}
	if numeric.MatchString(s) {
		return isNumber
	}
	return isString
}

var durationUnits = []struct {
	name string
	size time.Duration
}{
	{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute},
	{"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", time.Nanosecond},
}

// parseDuration reads integers with units, the largest unit first, each once. On
// failure it returns a predicate for a sentence and a hint.
func parseDuration(s string) (d time.Duration, wrong, hint string) {
	const example = "write 30s, 15m, 1h30m or 400d; units are ns us ms s m h d w"
	body := strings.TrimPrefix(s, "-")
	if numeric.MatchString(s) {
		if decimal.MatchString(s) {
			return 0, "has no unit", "write " + s + "s for seconds; units are ns us ms s m h d w"
		}
		return 0, "is a bare number", example
	}
	if body == "" || !durationForm.MatchString(s) {
		if std, err := time.ParseDuration(s); err == nil && strings.ContainsAny(s, ".µμ") && std >= 0 {
			return 0, "is not made of whole numbers with units", "write " + formatDuration(std)
		}
		return 0, "is no duration", example
	}
	m := durationForm.FindStringSubmatch(s)
	for i, u := range durationUnits {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(m[i+1], u.name), 10, 64)
		if err != nil || n > (math.MaxInt64-int64(d))/int64(u.size) {
			return 0, "is too long", "the longest is about 292 years"
		}
		d += time.Duration(n) * u.size
	}
	if body != s {
		d = -d
	}
	return d, "", ""
}

// formatDuration writes d so that parseDuration reads it back, without weeks.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	if d < 0 {
		b.WriteByte('-')
		d = -d
	}
	for _, u := range durationUnits[1:] {
		if n := d / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10))
			b.WriteString(u.name)
			d -= n * u.size
		}
	}
	return b.String()
}

var sizeUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func parseSize(s string) (n int64, wrong, hint string) {
	const example = "write 256MiB or 1GiB; units are B KiB MiB GiB TiB"
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		switch {
		case decimal.MatchString(s):
			return 0, "has no unit", example
		case strings.HasPrefix(s, "-"):
			return 0, "must not be negative", example
		}
		return 0, "is no size", example
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	for _, u := range sizeUnits {
		if u.name == m[2] {
			if err != nil || n > math.MaxInt64/u.size {
				return 0, "is too large", example
			}
			return n * u.size, "", ""
		}
	}
	return 0, "is no size", example
}

func formatSize(n int64) string {
	for _, u := range sizeUnits {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// ParseDuration reads a duration as the configuration writes it: integers with
// units (ns us ms s m h d w), such as 90s, 1h30m or 7d.
func ParseDuration(s string) (time.Duration, error) {
	d, wrong, _ := parseDuration(s)
	if wrong != "" {
		return 0, errors.New(wrong)
	}
	return d, nil
}
