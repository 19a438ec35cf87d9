package config

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

const (
	serverPattern = `[A-Za-z0-9][A-Za-z0-9._@-]{0,63}`
	unitPattern   = `[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]+)?\.(service|socket|target|mount|swap|automount|path|slice|scope|timer|device)`
	streamPattern = `[A-Za-z0-9_=+,:;!#%&()~-]{1,255}`
	hostPattern   = `[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*`
	namePattern   = `[^_\s-]([^\x00-\x1f]*[^\s])?`
	globPattern   = `[*?\[\\]`
	signalPattern = `(SIG)?(HUP|INT|QUIT|USR1|USR2|TERM|WINCH|CONT|ALRM)`
)

var (
	serverForm = pattern(serverPattern)
	unitForm   = pattern(unitPattern)
	streamForm = pattern(streamPattern)
	hostForm   = pattern(hostPattern)
	signalForm = pattern(signalPattern)
	prefixForm = pattern(`[A-Za-z0-9-]{1,64}`)
)

// hasMeta reports whether path is a pattern for filepath.Match.
func hasMeta(path string) bool { return strings.ContainsAny(path, `*?[\`) }

// nameOf returns the name a certificate file has when the configuration gives
// none, the same as watch.NameOf does for the matches of a glob: the directory's
// name under live/, else the file name without extension.
func nameOf(path string) string {
	dir := filepath.Dir(filepath.Clean(path))
	if filepath.Base(filepath.Dir(dir)) == "live" {
		return filepath.Base(dir)
	}
	base := filepath.Base(path)
	return cmp.Or(strings.TrimSuffix(base, filepath.Ext(base)), base)
}

func checkAbsolute(s string) (wrong, hint string) {
	switch {
	case strings.HasPrefix(s, "~"):
		return "must be an absolute path", "write the home directory out; ~ is not expanded"
	case !filepath.IsAbs(s):
		return "must be an absolute path", "start it with /"
	}
	return "", ""
}

func checkCert(s string) (wrong, hint string) {
	if wrong, hint = checkAbsolute(s); wrong != "" {
		return wrong, hint
	}
	switch {
	case strings.HasSuffix(s, "/"):
		return "names a directory", "name the certificate file in it, e.g. fullchain.pem"
	case strings.Contains(s, "**"):
		return "has ** in it, which matches no deeper than *", "write one * per directory level"
	}
	if _, err := filepath.Match(s, ""); err != nil {
		return "is not a well-formed glob", `close every [, and write \[ for a bracket in a file's name`
	}
	return "", ""
}

// checkName checks the name of a certificate.
func checkName(s string) (wrong, hint string) {
	switch {
	case strings.Trim(s, ".") == "":
		return "is made of dots only", ""
	case strings.HasPrefix(s, "_"):
		return "starts with _, which is reserved", "choose another name, e.g. " + cmp.Or(cut(strings.TrimLeft(s, "_.")), "www")
	case strings.HasPrefix(s, "-"):
		return "starts with -, which the command line takes for a flag", ""
	case strings.Contains(s, "://"):
		return "looks like an endpoint", "use a plain name; endpoints stand under endpoints"
	case len(s) > 200:
		return "is longer than 200 bytes", ""
	case strings.TrimSpace(s) != s:
		return "starts or ends with a space", ""
	case unprintable(s) >= 0:
		return "holds characters that cannot be printed", ""
	}
	return "", ""
}

func checkServerName(s string) (wrong, hint string) {
	if !serverForm(s) {
		return "is no server name", "use letters, digits and . _ @ -, at most 64, starting with a letter or digit"
	}
	return "", ""
}

// checkNewServer also refuses the name that means no server.
func checkNewServer(s string) (wrong, hint string) {
	if s == None {
		return "none is reserved: it means never reloaded", "choose another name"
	}
	return checkServerName(s)
}

func checkUnit(s string) (wrong, hint string) {
	switch {
	case len(s) > 255:
		return "is longer than 255 bytes", ""
	case unitForm(s):
		return "", ""
	case pattern(`[^.]*@\.[a-z]+`)(s):
		return "is a template without an instance", "write " + strings.Replace(cut(s), "@.", "@NAME.", 1)
	case pattern(`[A-Za-z0-9_@-]+`)(s):
		return "has no suffix", "write " + cut(s) + ".service"
	}
	return "is no systemd unit name", "write the unit's full name, e.g. nginx.service"
}

func checkSignal(s string) (wrong, hint string) {
	if signalForm(s) {
		return "", ""
	}
	const known = "known signals: HUP, INT, QUIT, USR1, USR2, TERM, WINCH, CONT, ALRM"
	switch up := strings.TrimPrefix(strings.ToUpper(s), "SIG"); {
	case up == "KILL" || up == "STOP":
		return "makes no server reload", "most servers reload on HUP"
	case signalForm(up):
		return "is no signal name", "write " + up
	}
	return "is no signal name", known
}

func signalName(s string) string { return strings.TrimPrefix(s, "SIG") }

func checkCommand(v reflect.Value) (wrong, hint string) {
	if v.Len() == 0 {
		return "", ""
	}
	switch program := v.Index(0).String(); {
	case strings.HasPrefix(program, "/"):
		if strings.HasSuffix(program, "/") {
			return "starts with a directory, not a program", ""
		}
	case strings.Contains(program, "/"):
		return "starts with a relative path", "write the absolute path of the program, or its plain name"
	case strings.ContainsAny(program, " \t"):
		return "has spaces in the program's name", "write one element per word: [nginx, -s, reload]; there is no shell"
	case strings.HasPrefix(program, "-"):
		return "starts with an option, not a program", "write the program first: [nginx, -s, reload]"
	}
	return "", ""
}

func checkHost(s string) (wrong, hint string) {
	switch {
	case strings.EqualFold(s, "localhost"), strings.EqualFold(s, "localhost.localdomain"):
		return "does not tell this host from others", "write the name this host is known by, e.g. web1.example.org"
	case len(s) > 253 || !hostForm(s):
		return "is no host name", "write it like web1.example.org"
	}
	return "", ""
}

func checkPrefix(s string) (wrong, hint string) {
	if !prefixForm(s) {
		return "is not one subject token", "use letters, digits and -, at most 64"
	}
	return "", ""
}

func checkStream(s string) (wrong, hint string) {
	if !streamForm(s) {
		return "is no stream name", "use letters, digits, - and _; no spaces, dots, * or >"
	}
	return "", ""
}

func checkListen(s string) (wrong, hint string) {
	const form = "write HOST:PORT, e.g. 127.0.0.1:4222; port 0 is any free one"
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "is no HOST:PORT", form
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "has no port from 0 to 65535", form
	}
	if host != "" && net.ParseIP(host) == nil && !hostForm(host) {
		return "has no host that can be listened on", form
	}
	return "", ""
}

func checkNATSURL(s string) (wrong, hint string) {
	const example = "write nats://nats.example.org:4222"
	u, err := url.Parse(s)
	switch {
	case !strings.Contains(s, "://"):
		return "has no scheme", "write nats:// before the host"
	case strings.Contains(s, "@") || err == nil && u.User != nil:
		return "holds a user, password or token", "take it out and use user with password_file, or token_file, creds or nkey"
	case err != nil:
		return "is no URL", example
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return "has an unknown scheme", "write nats://, tls://, ws:// or wss://"
	case u.Hostname() == "" || net.ParseIP(u.Hostname()) == nil && !hostForm(u.Hostname()):
		return "has no valid host", example
	case u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" || strings.ContainsAny(s, "?#"):
		return "has something after the host and port", example
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return "has no port from 1 to 65535", example
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return "has no port after the colon", example
	}
	return "", ""
}

func checkURLs(v reflect.Value) (wrong, hint string) {
	seen, web := map[string]int{}, 0
	for i := range v.Len() {
		s := v.Index(i).String()
		if first, twice := seen[s]; twice {
			return fmt.Sprintf("holds the same URL twice, as entries %d and %d", first+1, i+1), "remove one of the two"
		}
		seen[s] = i
		if strings.HasPrefix(s, "ws") {
			web++
		}
	}
	if web > 0 && web < v.Len() {
		return "mixes WebSocket URLs with others", "use ws:// and wss://, or nats:// and tls://, but not both kinds"
	}
	return "", ""
}
