package notify_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/renewatch/renewatch/notify"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// delivers proves that a sender with these options gets an event acknowledged.
func delivers(t *testing.T, s *server.Server, o notify.SenderOptions) {
	t.Helper()
	o.Journal = journal(t, t.TempDir())
	if o.URLs == nil {
		o.URLs = []string{s.ClientURL()}
	}
	o.EnsureStream = true
	add(t, o.Journal, 1, 2)
	r := run(t, o)
	r.drained(t)
	r.stop()
}

func TestWaysToLogIn(t *testing.T) {
	t.Run("token", func(t *testing.T) {
		s := serve(t, func(o *server.Options) { o.Authorization = "s3cret" })
		delivers(t, s, notify.SenderOptions{Token: "s3cret"})
		delivers(t, s, notify.SenderOptions{TokenFile: write(t, "token", "s3cret\n")})
	})
	t.Run("password", func(t *testing.T) {
		s := serve(t, func(o *server.Options) { o.Username, o.Password = "u", "s3cret" })
		delivers(t, s, notify.SenderOptions{User: "u", Password: "s3cret"})
		delivers(t, s, notify.SenderOptions{User: "u", PasswordFile: write(t, "password", "s3cret\n")})
		delivers(t, s, notify.SenderOptions{URLs: []string{"nats://u:s3cret@" + s.Addr().String()}})
	})
	t.Run("nkey", func(t *testing.T) {
		key, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, _ := key.PublicKey()
		seed, _ := key.Seed()
		s := serve(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
		delivers(t, s, notify.SenderOptions{NKey: write(t, "seed", string(seed)+"\n")})
	})
	t.Run("creds", func(t *testing.T) {
		s, creds := operator(t)
		delivers(t, s, notify.SenderOptions{Creds: write(t, "agent.creds", creds)})
	})
}

// operator is a server in operator mode and a user's credentials file.
func operator(t *testing.T) (*server.Server, string) {
	t.Helper()
	must := func(kp nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		public, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return kp, public
	}
	op, opKey := must(nkeys.CreateOperator())
	acc, accKey := must(nkeys.CreateAccount())
	sys, sysKey := must(nkeys.CreateAccount())
	user, userKey := must(nkeys.CreateUser())
	_ = sys
	encode := func(c jwt.Claims, by nkeys.KeyPair) string {
		t.Helper()
		s, err := c.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	account := jwt.NewAccountClaims(accKey)
	account.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	resolver := &server.MemAccResolver{}
	resolver.Store(accKey, encode(account, op))
	resolver.Store(sysKey, encode(jwt.NewAccountClaims(sysKey), op))
	opClaims := jwt.NewOperatorClaims(opKey)
	opClaims.SystemAccount = sysKey
	encode(opClaims, op)
	s := serve(t, func(o *server.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{opClaims}
		o.AccountResolver = resolver
		o.SystemAccount = sysKey
	})
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(encode(jwt.NewUserClaims(userKey), acc), seed)
	if err != nil {
		t.Fatal(err)
	}
	return s, string(creds)
}

// A password that was wrong and is corrected in its file needs no restart.
func TestSecretsAreReadAgainAtEachConnect(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
	file := write(t, "password", "wrong")
	j := journal(t, t.TempDir())
	add(t, j, 1, 1)
	r := run(t, notify.SenderOptions{Journal: j, URLs: []string{s.ClientURL()}, User: "u", PasswordFile: file, EnsureStream: true})
	until(t, "the refusal is told", func() bool {
		return strings.Contains(strings.ToLower(r.Status().LastError), "authorization")
	})
	if st := r.Status(); st.Connected || strings.Contains(st.LastError, "wrong") {
		t.Errorf("%+v", st)
	}
	if err := os.WriteFile(file, []byte("right"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.drained(t)
	if st := r.Status(); st.LastError != "" {
		t.Errorf("%+v", st)
	}
}

// authority is a CA and what it issues for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: block("CERTIFICATE", der)}
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (a *authority) issue(t *testing.T) (certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", b)
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	certPEM, keyPEM := ca.issue(t)
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	clientCert, clientKey := ca.issue(t)
	options := notify.TLSOptions{CA: write(t, "ca.pem", ca.pem)}
	withCert := notify.TLSOptions{CA: options.CA, Cert: write(t, "cert.pem", clientCert), Key: write(t, "key.pem", clientKey)}
	secure := func(change func(*server.Options)) *server.Server {
		return serve(t, func(o *server.Options) {
			o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12}
			o.TLSTimeout = 10
			if change != nil {
				change(o)
			}
		})
	}
	t.Run("own CA", func(t *testing.T) {
		s := secure(nil)
		delivers(t, s, notify.SenderOptions{TLS: options, URLs: []string{"tls://" + s.Addr().String()}})
	})
	t.Run("handshake first", func(t *testing.T) {
		first := options
		first.First = true
		s := secure(func(o *server.Options) { o.TLSHandshakeFirst = true })
		delivers(t, s, notify.SenderOptions{TLS: first, URLs: []string{"tls://" + s.Addr().String()}})
	})
	t.Run("client certificate", func(t *testing.T) {
		s := secure(func(o *server.Options) {
			o.TLSVerify = true
			o.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
		})
		delivers(t, s, notify.SenderOptions{TLS: withCert, URLs: []string{"tls://" + s.Addr().String()}})
	})
	t.Run("unknown CA is told", func(t *testing.T) {
		s := secure(nil)
		j := journal(t, t.TempDir())
		add(t, j, 1, 1)
		r := run(t, notify.SenderOptions{Journal: j, URLs: []string{"tls://" + s.Addr().String()},
			TLS: notify.TLSOptions{CA: write(t, "other.pem", newAuthority(t).pem)}})
		until(t, "the reason is told", func() bool { return strings.Contains(r.Status().LastError, "x509") })
	})
}

func TestBadOptionsAreOneSentenceWithoutSecrets(t *testing.T) {
	ca := newAuthority(t)
	cert, _ := ca.issue(t)
	_, otherKey := ca.issue(t)
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	accountSeed, _ := account.Seed()
	unreadable := write(t, "unreadable", "s3cret")
	if err := os.Chmod(unreadable, 0); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]notify.SenderOptions{
		"no server":                {},
		"no URL":                   {URLs: []string{"nats://u:s3cret@ho st:4222"}},
		"bad escape":               {URLs: []string{"nats://u:s3cret%zz@host"}},
		"http":                     {URLs: []string{"http://u:s3cret@host"}},
		"no host":                  {URLs: []string{"nats://:4222"}},
		"two in one":               {URLs: []string{"nats://a,nats://b"}},
		"mixed":                    {URLs: []string{"nats://a", "wss://b"}},
		"missing creds":            {Creds: "/nonexistent/s3cret"[:12]},
		"creds are a directory":    {Creds: t.TempDir()},
		"creds without JWT":        {Creds: write(t, "c", "s3cret")},
		"nkey of an account":       {NKey: write(t, "n", string(accountSeed))},
		"nkey of nothing":          {NKey: write(t, "n", "s3cret")},
		"empty token":              {TokenFile: write(t, "t", "\n")},
		"two lines of token":       {TokenFile: write(t, "t", "s3cret\ns3cret\n")},
		"password without user":    {Password: "s3cret"},
		"two ways":                 {Token: "s3cret", User: "u"},
		"CA without a certificate": {TLS: notify.TLSOptions{CA: write(t, "ca", "s3cret")}},
		"cert without key":         {TLS: notify.TLSOptions{Cert: write(t, "c", cert)}},
		"no pair":                  {TLS: notify.TLSOptions{Cert: write(t, "c", cert), Key: write(t, "k", otherKey)}},
		"prefix":                   {Prefix: "a.b"},
		"stream":                   {Stream: "A B"},
		"mode":                     {Mode: "s0metimes"},
		"missing password file":    {User: "u", PasswordFile: "/nonexistent"},
		"missing token file":       {TokenFile: "/nonexistent"},
	} {
		if o.URLs == nil && name != "no server" {
			o.URLs = []string{"nats://127.0.0.1:4222"}
		}
		o.Journal = journal(t, t.TempDir())
		_, err := notify.NewSender(o)
		var option *notify.OptionError
		if !errors.As(err, &option) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s := err.Error(); strings.Contains(s+option.Hint(), "s3cret") || strings.Contains(s, string(accountSeed)) ||
			strings.Contains(s, "\n") || strings.HasSuffix(s, ".") || option.Hint() == "" {
			t.Errorf("%s: %q, hint %q", name, s, option.Hint())
		}
	}
	if os.Getuid() != 0 {
		if _, err := notify.NewSender(notify.SenderOptions{Journal: journal(t, t.TempDir()), URLs: []string{"nats://h"}, TokenFile: unreadable}); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("unreadable: %v", err)
		}
	}
	plain, err := notify.OpenJournal(t.TempDir(), notify.JournalOptions{Host: "h", Instance: "i"})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := notify.NewSender(notify.SenderOptions{Journal: plain, URLs: []string{"nats://h"}}); err == nil {
		t.Error("a journal that keeps no cursor for it")
	}
}
