package notify

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// TLSOptions says how to speak TLS with a NATS server. The files are read anew at
// each handshake.
type TLSOptions struct {
	CA    string // PEM file trusted instead of the system roots; "": the system roots
	Cert  string // PEM file of the client certificate; "": none
	Key   string // PEM file of its key
	First bool   // handshake before the server's INFO
}

// OptionError says which option of a Sender cannot be used, why, and what to do.
// It holds no secret.
type OptionError struct {
	Option string // "creds", "url", ...
	Reason string // a sentence
	Advice string
}

func (e *OptionError) Error() string { return "nats " + e.Option + ": " + e.Reason }

// Hint is what to do about it.
func (e *OptionError) Hint() string { return e.Advice }

func optionError(option, advice, format string, args ...any) error {
	return &OptionError{Option: option, Reason: fmt.Sprintf(format, args...), Advice: advice}
}

// InProcess is a NATS server in this process.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// How the connection is kept.
const (
	dialTimeout   = 5 * time.Second
	reconnectWait = 2 * time.Second
	pingInterval  = 20 * time.Second
)

// natsOptions checks o and makes what nats.Connect wants of it.
func natsOptions(o SenderOptions) (servers string, opts []nats.Option, err error) {
	if o.InProcess != nil && len(o.URLs) > 0 {
		return "", nil, optionError("url", "give one of both", "a URL and a server in this process")
	}
	if o.InProcess == nil {
		if servers, err = checkURLs(o.URLs); err != nil {
			return "", nil, err
		}
	}
	opts = []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(dialTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(500*time.Millisecond, time.Second),
		// What is not sent waits in the journal, never in a buffer.
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	if o.Inbox != "" {
		opts = append(opts, nats.CustomInboxPrefix(o.Inbox))
	}
	auth, err := authOptions(o)
	if err != nil {
		return "", nil, err
	}
	secure, err := tlsOptions(o.TLS)
	if err != nil {
		return "", nil, err
	}
	return servers, append(append(opts, auth...), secure...), nil
}

func checkURLs(urls []string) (string, error) {
	const advice = "write nats://HOST:4222, tls://HOST:4222 or wss://HOST"
	var websocket int
	var good []string
	for _, s := range urls {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			// The error of url.Parse quotes the URL, which may hold a password.
			return "", optionError("url", advice, "not a URL")
		}
		switch u.Scheme {
		case "nats", "tls":
		case "ws", "wss":
			websocket++
		default:
			return "", optionError("url", advice, "%s is not a URL of a NATS server", u.Redacted())
		}
		if u.Hostname() == "" || strings.Contains(s, ",") {
			return "", optionError("url", advice, "%s does not name one host", u.Redacted())
		}
		good = append(good, s)
	}
	if len(good) == 0 {
		return "", optionError("url", advice, "no server is given")
	}
	if websocket != 0 && websocket != len(good) {
		return "", optionError("url", "give only one sort", "websocket and plain URLs cannot be mixed")
	}
	return strings.Join(good, ","), nil
}

func authOptions(o SenderOptions) ([]nats.Option, error) {
	var given []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"creds", o.Creds != ""},
		{"nkey", o.NKey != ""},
		{"token", o.Token != "" || o.TokenFile != ""},
		{"user", o.User != ""},
	} {
		if way.set {
			given = append(given, way.name)
		}
	}
	if len(given) > 1 {
		return nil, optionError(given[1], "give one way to log in", "%s and %s are both given", given[0], given[1])
	}
	switch {
	case o.Creds != "":
		return credsOptions(o.Creds)
	case o.NKey != "":
		return nkeyOptions(o.NKey)
	case o.TokenFile != "":
		if _, err := readSecret("token_file", o.TokenFile); err != nil {
			return nil, err
		}
		// An unreadable file at a later connect sends nothing, which the server
		// refuses, which is told like any refusal.
		return []nats.Option{nats.TokenHandler(func() string {
			s, _ := readSecret("token_file", o.TokenFile)
			return s
		})}, nil
	case o.Token != "":
		return []nats.Option{nats.Token(o.Token)}, nil
	case o.User != "" && o.PasswordFile != "":
		if _, err := readSecret("password_file", o.PasswordFile); err != nil {
			return nil, err
		}
		return []nats.Option{nats.UserInfoHandler(func() (string, string) {
			s, _ := readSecret("password_file", o.PasswordFile)
			return o.User, s
		})}, nil
	case o.User != "":
		return []nats.Option{nats.UserInfo(o.User, o.Password)}, nil
	case o.Password != "" || o.PasswordFile != "":
		return nil, optionError("user", "set user", "a password without a user")
	}
	return nil, nil
}

func credsOptions(path string) ([]nats.Option, error) {
	const advice = "give the .creds file that nsc or the operator of the NATS server made"
	b, err := readSmall("creds", path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if jwt, err := nkeys.ParseDecoratedJWT(b); err != nil || !strings.HasPrefix(jwt, "ey") {
		return nil, optionError("creds", advice, "%s holds no user JWT", path)
	}
	key, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return nil, optionError("creds", advice, "%s holds no user seed", path)
	}
	key.Wipe()
	return []nats.Option{nats.UserCredentials(path)}, nil
}

func nkeyOptions(path string) ([]nats.Option, error) {
	const advice = "give a file with one user seed (SU...), as nk -gen user makes it"
	b, err := readSmall("nkey", path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	key, err := nkeys.ParseDecoratedNKey(b)
	if err != nil {
		return nil, optionError("nkey", advice, "%s holds no seed", path)
	}
	defer key.Wipe()
	if seed, err := key.Seed(); err != nil || !bytes.HasPrefix(seed, []byte("SU")) {
		return nil, optionError("nkey", advice, "%s does not hold the seed of a user", path)
	}
	opt, err := nats.NkeyOptionFromSeed(path)
	if err != nil {
		return nil, optionError("nkey", advice, "%s holds no seed", path)
	}
	return []nats.Option{opt}, nil
}

func tlsOptions(t TLSOptions) ([]nats.Option, error) {
	var opts []nats.Option
	if t.CA != "" {
		b, err := readSmall("tls.ca", t.CA)
		if err != nil {
			return nil, err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(b) {
			return nil, optionError("tls.ca", "give a PEM file of CA certificates", "%s holds no certificate", t.CA)
		}
		opts = append(opts, nats.RootCAs(t.CA))
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, optionError("tls.cert", "give cert and key, or neither", "only one of cert and key is given")
	}
	if t.Cert != "" {
		for option, path := range map[string]string{"tls.cert": t.Cert, "tls.key": t.Key} {
			b, err := readSmall(option, path)
			if err != nil {
				return nil, err
			}
			clear(b)
		}
		if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			return nil, optionError("tls.cert", "give the PEM files of one client certificate and its key",
				"%s and %s are no pair: %s", t.Cert, t.Key, strings.TrimPrefix(err.Error(), "tls: "))
		}
		opts = append(opts, nats.ClientCert(t.Cert, t.Key))
	}
	if t.First {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	return opts, nil
}

// readSmall reads a file of credentials: a regular one of at most 1 MiB.
func readSmall(option, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, optionError(option, "give a file", "%s is no regular file", path)
	}
	if err == nil && info.Size() > 1<<20 {
		return nil, optionError(option, "give the right file", "%s is larger than 1 MiB", path)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, optionError(option, "check the path", "%s does not exist", path)
	case errors.Is(err, os.ErrPermission):
		return nil, optionError(option, "let the user renewatch runs as read it", "%s cannot be read: permission denied", path)
	case err != nil:
		return nil, optionError(option, "check the path", "%s cannot be read: %v", path, errors.Unwrap(err))
	}
	return b, nil
}

// readSecret reads a one-line secret.
func readSecret(option, path string) (string, error) {
	b, err := readSmall(option, path)
	if err != nil {
		return "", err
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return "", optionError(option, "write the secret alone into the file", "%s does not hold one line", path)
	}
	return s, nil
}
