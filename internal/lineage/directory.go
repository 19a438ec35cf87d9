package lineage

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Directory is the address of the ACME directory that the client's files name for
// the lineage. It is empty when they name none, name two, or cannot be read. It is
// what they say: nobody has looked whether it is the CA that issued the certificate.
func (l Layout) Directory() string {
	switch l.Client {
	case Certbot:
		return directoryURL(confValue(l.conf(), "renewalparams", "server"))
	case AcmeSh:
		return acmeShDirectory(l)
	case Dehydrated:
		return dehydratedDirectory(l.Dir, "/etc/dehydrated/config", "/usr/local/etc/dehydrated/config")
	case Lego:
		return legoDirectory(l)
	}
	return ""
}

// directoryURL lets through what looks like a directory's address.
func directoryURL(s string) string {
	const most = 512
	u, err := url.Parse(s)
	if err != nil || len(s) > most || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return ""
	}
	return s
}

// acmeShDirectory reads NAME.conf. A name may have an RSA and an ECDSA
// certificate, in directories of their own, and a CA for each.
func acmeShDirectory(l Layout) string {
	one := ""
	for _, dir := range []string{l.Name, l.Name + "_ecc"} {
		found := directoryURL(shellValue(filepath.Join(l.Dir, dir, l.Name+".conf"), "Le_API"))
		if found != "" && one != "" && found != one {
			return ""
		}
		one = max(one, found)
	}
	return one
}

// dehydratedPresets are the names that dehydrated has for CAs.
var dehydratedPresets = map[string]string{
	"":                 "https://acme-v02.api.letsencrypt.org/directory",
	"letsencrypt":      "https://acme-v02.api.letsencrypt.org/directory",
	"letsencrypt-test": "https://acme-staging-v02.api.letsencrypt.org/directory",
	"zerossl":          "https://acme.zerossl.com/v2/DV90",
	"google":           "https://dv.acme-v02.api.pki.goog/directory",
	"google-test":      "https://dv.acme-v02.test-api.pki.goog/directory",
}

// dehydratedDirectory reads BASEDIR/config, or the one of configs that names this
// BASEDIR, and the *.sh files of its CONFIG_D. Without any of them, the only
// account tells: the directory it lies in is named after the CA, in base64url, with
// the newline of an echo in it.
func dehydratedDirectory(base string, configs ...string) string {
	config := filepath.Join(base, "config")
	if !isFile(config) {
		i := slices.IndexFunc(configs, func(path string) bool {
			return filepath.Clean(shellValue(path, "BASEDIR")) == base
		})
		if i < 0 {
			return dehydratedAccount(base)
		}
		config = configs[i]
	}
	if _, err := readSome(config); err != nil {
		return dehydratedAccount(base)
	}
	ca := shellValue(config, "CA")
	if more := shellValue(config, "CONFIG_D"); filepath.IsAbs(more) {
		for _, name := range readNames(more) {
			if filepath.Ext(name) == ".sh" {
				if value, ok := shellAssigned(filepath.Join(more, name), "CA"); ok {
					ca = value
				}
			}
		}
	}
	if preset, ok := dehydratedPresets[ca]; ok {
		return preset
	}
	return directoryURL(ca)
}

func dehydratedAccount(base string) string {
	one := ""
	for _, name := range readNames(filepath.Join(base, "accounts")) {
		decoded, err := base64.RawURLEncoding.DecodeString(name)
		found := directoryURL(strings.TrimSuffix(string(decoded), "\n"))
		if err != nil || found == "" {
			continue
		}
		if one != "" {
			return ""
		}
		one = found
	}
	return one
}

// legoDirectories are the CAs whose host alone tells the directory.
var legoDirectories = []string{
	"https://acme-v02.api.letsencrypt.org/directory",
	"https://acme-staging-v02.api.letsencrypt.org/directory",
	"https://dv.acme-v02.api.pki.goog/directory",
	"https://dv.acme-v02.test-api.pki.goog/directory",
	"https://acme.zerossl.com/v2/DV90",
	"https://acme-api.actalis.com/acme/directory",
}

// legoDirectory reads the address of the certificate in NAME.json. Its host is that
// of one account's server (lego 5 writes it down), or of a known CA.
func legoDirectory(l Layout) string {
	var certificate struct {
		URL string `json:"certUrl"`
	}
	if readJSON(filepath.Join(l.Dir, "certificates", l.Name+".json"), &certificate) != nil {
		return ""
	}
	host := hostOf(certificate.URL)
	if host == "" {
		return ""
	}
	var servers []string
	accounts := filepath.Join(l.Dir, "accounts")
	for _, server := range readNames(accounts) {
		for _, id := range readNames(filepath.Join(accounts, server)) {
			var account struct {
				Server string `json:"server"`
			}
			path := filepath.Join(accounts, server, id, "account.json")
			if readJSON(path, &account) == nil && directoryURL(account.Server) != "" && hostOf(account.Server) == host {
				servers = append(servers, account.Server)
			}
		}
	}
	slices.Sort(servers)
	switch servers = slices.Compact(servers); len(servers) {
	case 0:
		if i := slices.IndexFunc(legoDirectories, func(d string) bool { return hostOf(d) == host }); i >= 0 {
			return legoDirectories[i]
		}
	case 1:
		return servers[0]
	}
	return ""
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// confValue reads a key in a section of one of certbot's configurations.
func confValue(path, section, key string) string {
	raw, _ := readSome(path)
	in := ""
	for line := range lines(raw) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in = line
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || in != "["+section+"]" || strings.TrimSpace(name) != key {
			continue
		}
		value, _, _ = strings.Cut(value, " #")
		value = strings.TrimSpace(value)
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		return value
	}
	return ""
}

// shellValue is what a shell script assigns to a variable, see shellAssigned.
func shellValue(path, name string) string {
	value, _ := shellAssigned(path, name)
	return value
}

// shellAssigned reads the last plain assignment of a variable that begins a line of
// a shell script. A value that the shell would have to work out is not known: "?".
func shellAssigned(path, name string) (value string, ok bool) {
	raw, _ := readSome(path)
	for line := range lines(raw) {
		rest, assigned := strings.CutPrefix(strings.TrimPrefix(line, "export "), name+"=")
		if !assigned {
			continue
		}
		value, ok = unquote(rest), true
	}
	return value, ok
}

func unquote(s string) string {
	quote := ""
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		quote = s[:1]
	}
	switch quote {
	case "":
		if i := strings.IndexAny(s, " \t;#&|<>()"); i >= 0 {
			s = s[:i]
		}
	default:
		inside, _, closed := strings.Cut(s[1:], quote)
		if !closed {
			return "?"
		}
		s = inside
	}
	if quote != "'" && strings.ContainsAny(s, "$`\\\"'") {
		return "?"
	}
	return s
}

func lines(raw []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		s := bufio.NewScanner(bytes.NewReader(raw))
		for s.Scan() && yield(s.Text()) {
		}
	}
}

func readJSON(path string, to any) error {
	raw, err := readSome(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, to)
}

// readSome reads the beginning of a regular file. Nothing else can hold it up.
func readSome(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, os.ErrInvalid
	}
	return io.ReadAll(io.LimitReader(f, maxConf))
}

// readNames lists some of a directory, in order.
func readNames(dir string) []string {
	const most = 256
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(most)
	slices.Sort(names)
	return names
}
