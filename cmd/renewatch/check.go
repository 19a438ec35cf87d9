package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/renewatch/renewatch/internal/config"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
	"github.com/renewatch/renewatch/watch"
)

// checkFlags are the flags of check.
type checkFlags struct {
	cert, key, ca string
	samples       int
	timeout       string
}

func (a *app) checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [NAME | ENDPOINT ...]",
		Short: "look once: does every endpoint serve what is on disk?",
		Long: `check makes fresh handshakes with every address of every endpoint and compares
what is served with the certificate on disk.

An argument with :// is an endpoint; it is compared with the configured
certificate that lists it, else judged by itself. Anything else is the name of
a configured certificate. Without arguments every configured one is checked.
With --cert no configuration is needed.

Exit status: 0 fine, 1 a warning, 2 an error, 3 nothing can be said.`,
		Example: `  renewatch check
  renewatch check www.example.org
  renewatch check --cert /etc/letsencrypt/live/www.example.org/fullchain.pem https://www.example.org
  renewatch check smtp://mx.example.org --json`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.check(cmd, f, args) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.cert, "cert", "", "compare with this certificate file (leaf first, then the chain)")
	fl.StringVar(&f.key, "key", "", "with --cert: check that this key belongs to it")
	fl.StringVar(&f.ca, "ca", "", "PEM bundle trusted besides the system's roots")
	fl.IntVar(&f.samples, "samples", 2, "handshakes with each address")
	fl.StringVar(&f.timeout, "timeout", "", "of one handshake (default 10s)")
	_ = cmd.MarkFlagFilename("cert", "pem", "crt", "cer")
	_ = cmd.MarkFlagFilename("key", "pem", "key")
	_ = cmd.MarkFlagFilename("ca", "pem", "crt")
	return cmd
}

// unknown ends check with "nothing can be said".
func unknown(hint, format string, args ...any) *failure {
	return failed(exitUnknown, hint, format, args...)
}

// item is one endpoint to be checked.
type item struct {
	certificate string
	server      string
	text        string // the endpoint as it was written
	target      verify.Target
	// byDefault: nobody named this endpoint; it counts once it serves the lineage.
	byDefault bool
	confirmed bool
	required  bool
}

// fileFault is how check tells of a certificate file, in JSON.
type fileFault struct {
	Certificate string          `json:"certificate"`
	Path        string          `json:"path"`
	Code        string          `json:"code"`
	Severity    notify.Severity `json:"severity"`
	Detail      string          `json:"detail"`
	Hint        string          `json:"hint"`
}

// checker is one run of check.
type checker struct {
	watched []watchedLeaf // all that are configured
	a       *app
	f       checkFlags
	timeout time.Duration
	prober  *verify.Prober
	paint   painter
	roots   map[string]*x509.CertPool // by CA bundle
	items   []item
	worst   notify.Severity
	seen    int  // verdicts that say something
	faults  int  // files at fault
	unknown bool // something of what was asked cannot be said
}

// cannot says that something of what was asked cannot be said; the rest goes on.
func (c *checker) cannot(err error) {
	c.unknown = true
	var f *failure
	if errors.As(err, &f) && f.sentence != "" {
		c.a.complain(f.sentence, f.hint)
	}
}

func (a *app) check(cmd *cobra.Command, f checkFlags, args []string) error {
	c := &checker{a: a, f: f, paint: a.painter(a.stdout), roots: map[string]*x509.CertPool{}}
	if f.samples < 1 || f.samples > 1000 {
		return unknown("2 are enough for a look", "--samples %d is not between 1 and 1000", f.samples)
	}
	if f.timeout != "" {
		d, err := config.ParseDuration(f.timeout)
		if err != nil || d <= 0 || d > time.Hour {
			return unknown("write --timeout 5s", "--timeout %s is no duration between 1ms and 1h", f.timeout)
		}
		c.timeout = d
	}
	if f.key != "" && f.cert == "" {
		return unknown("name the certificate with --cert", "--key needs --cert")
	}
	c.prober = &verify.Prober{Timeout: c.timeout}
	var err error
	if f.cert != "" {
		err = c.withFile(args)
	} else {
		err = c.configured(args)
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := c.run(ctx); err != nil {
		return err
	}
	return c.result()
}

// withFile checks the endpoints in args against --cert.
func (c *checker) withFile(args []string) error {
	if len(args) == 0 {
		return unknown("renewatch check --cert FULLCHAIN https://www.example.org", "--cert needs an endpoint to compare with")
	}
	endpoints := c.parseEndpoints(args)
	roots, err := c.rootsFor(c.f.ca)
	if err != nil {
		return err
	}
	pair, fault := watch.LoadCertificate(c.f.cert)
	if fault != nil {
		return unknown(fault.Hint, "--cert: %s", fault.Sentence)
	}
	name := watch.NameOf(c.f.cert)
	if c.f.key != "" {
		if _, fault := watch.Load(c.f.cert, c.f.key); fault != nil {
			c.fileFault(name, fault)
		}
	}
	expect := verify.Expectation{Chain: pair.Chain, History: fingerprints(watch.History(c.f.cert))}
	for _, e := range endpoints {
		c.items = append(c.items, item{certificate: name, text: e.text, target: verify.Target{Endpoint: e.url, Roots: roots, Expect: expect}, required: true})
	}
	return nil
}

// written is an endpoint and how it was written.
type written struct {
	text string
	url  verify.Endpoint
}

// parseEndpoints says of each argument that is no endpoint what is wrong, and
// returns the others.
func (c *checker) parseEndpoints(args []string) []written {
	var out []written
	for _, arg := range args {
		if !strings.Contains(arg, "://") {
			c.cannot(unknown("write it as an endpoint, https://"+arg, "%q is no endpoint", arg))
			continue
		}
		e, err := verify.ParseEndpoint(arg)
		if err != nil {
			c.cannot(badEndpoint(arg, err))
			continue
		}
		out = append(out, written{arg, e})
	}
	return out
}

func badEndpoint(arg string, err error) error {
	if scheme, rest, ok := strings.Cut(arg, "://"); ok && strings.Contains(rest, "@") {
		arg = scheme + "://..." // a password may stand before the @
	}
	hint := ""
	var e *verify.EndpointError
	if errors.As(err, &e) {
		hint = e.Hint
	}
	return unknown(hint, "%s: %v", arg, err)
}

// rootsFor returns the system's roots with those of a bundle.
func (c *checker) rootsFor(bundle string) (*x509.CertPool, error) {
	if pool := c.roots[bundle]; pool != nil {
		return pool, nil
	}
	pool, err := verify.LoadRoots(bundle)
	if errors.Is(err, verify.ErrNoRoots) {
		return nil, unknown("install the ca-certificates package, or name a bundle with --ca or verify.ca", "there are no trusted root certificates on this host, so no chain can be judged")
	}
	if err != nil {
		return nil, unknown("--ca and verify.ca name a PEM file with CA certificates", "%v", err)
	}
	c.roots[bundle] = pool
	return pool, nil
}

// configured checks configured names and endpoints.
func (c *checker) configured(args []string) error {
	names := map[string]bool{}
	var urls []string
	for _, arg := range args {
		if strings.Contains(arg, "://") {
			urls = append(urls, arg)
		} else {
			names[arg] = true
		}
	}
	endpoints := c.parseEndpoints(urls)
	cfg, err := c.config(len(names) > 0 || len(args) == 0)
	if err != nil {
		return err
	}
	wanted, matched := map[verify.Endpoint]bool{}, map[verify.Endpoint]bool{}
	for _, e := range endpoints {
		wanted[e.url] = true
	}
	known := map[string]bool{}
	if cfg != nil {
		for _, conf := range cfg.Certificates {
			for _, one := range expand(conf) {
				known[one.Name] = true
				if pair, fault := watch.LoadCertificate(one.Cert); fault == nil {
					c.watched = append(c.watched, watchedLeaf{one.Name, pair.Leaf()})
				}
				all := len(args) == 0 || names[one.Name]
				if all || len(wanted) > 0 {
					c.certificate(cfg, one, all, wanted, matched)
				}
			}
		}
	}
	for _, name := range sorted(names) {
		if known[name] {
			continue
		}
		hint := "an endpoint is written with its scheme: https://" + name
		if list := sorted(known); len(list) > 0 {
			hint = "configured are " + strings.Join(list[:min(10, len(list))], ", ") + "; " + hint
		}
		c.cannot(unknown(hint, "no certificate is named %q", name))
	}
	for _, e := range endpoints {
		if matched[e.url] {
			continue
		}
		roots, err := c.rootsFor(c.f.ca)
		if err != nil {
			c.cannot(err)
			continue
		}
		c.items = append(c.items, item{text: e.text, target: verify.Target{Endpoint: e.url, Roots: roots}, required: true})
	}
	if len(c.items) == 0 && c.faults == 0 && !c.unknown {
		return unknown("name endpoints in the configuration, or as arguments", "there is nothing to check")
	}
	return nil
}

// config reads the configuration; without one nil is returned, unless it is needed.
func (c *checker) config(needed bool) (*config.Config, error) {
	path, _, err := config.Find(config.FindOptions{Flag: c.a.config, Env: c.a.getenv})
	var missing *config.NotFoundError
	if errors.As(err, &missing) {
		if !needed {
			return nil, nil
		}
		return nil, unknown(missing.Hint()+"; without one: renewatch check --cert FILE https://...", "%s", missing.Error())
	}
	if err != nil {
		return nil, unknown("", "%v", err)
	}
	return c.a.loadFile(path, exitUnknown)
}

// expand returns the certificates that an entry of the configuration stands for
// just now.
func expand(conf config.Certificate) []config.Certificate {
	if !conf.Glob() {
		return []config.Certificate{conf}
	}
	paths, _ := filepath.Glob(conf.Cert)
	var out []config.Certificate
	for _, p := range paths {
		one := conf
		one.Cert, one.Name = p, watch.NameOf(p)
		out = append(out, one)
	}
	return out
}

// certificate adds the endpoints of one certificate: all of them, or those
// wanted. A fault of its files is told, and what is served is looked at all the
// same where the certificate itself can be read.
func (c *checker) certificate(cfg *config.Config, conf config.Certificate, all bool, wanted, matched map[verify.Endpoint]bool) {
	remembered := watchdog.Remembered(cfg.StateDir, conf.Name)
	pair, fault := watch.Load(conf.Cert, conf.Key)
	if fault != nil {
		pair, _ = watch.LoadCertificate(conf.Cert)
	}
	expect := verify.Expectation{History: remembered.History}
	var items []item
	if pair != nil {
		expect.Chain = pair.Chain
		expect.History = append(expect.History, fingerprints(watch.History(conf.Cert))...)
		if conf.Endpoints == nil {
			for _, e := range watchdog.DefaultEndpoints(pair.Leaf().DNSNames) {
				items = append(items, item{certificate: conf.Name, server: conf.Server, text: e.String(), byDefault: true, confirmed: remembered.Confirmed[e.String()],
					required: true, target: verify.Target{Endpoint: e}})
			}
		}
	}
	for _, e := range conf.Endpoints {
		items = append(items, item{certificate: conf.Name, server: cmp.Or(e.Server, conf.Server), text: e.Text, required: e.Required,
			target: verify.Target{Endpoint: e.URL, Expect: verify.Expectation{AnyValid: e.AnyValid}}})
	}
	items = slices.DeleteFunc(items, func(i item) bool { return !all && !wanted[i.target.Endpoint] })
	if len(items) == 0 && !all {
		return
	}
	if fault != nil {
		c.fileFault(conf.Name, fault)
	}
	for _, i := range items {
		matched[i.target.Endpoint] = true
	}
	if pair == nil {
		return // there is nothing to compare with
	}
	roots, err := c.rootsFor(cmp.Or(c.f.ca, conf.Verify.CA))
	if err != nil {
		c.cannot(err)
		return
	}
	for _, i := range items {
		i.target.Roots, i.target.Timeout = roots, cmp.Or(c.timeout, conf.Verify.Timeout)
		anyValid := i.target.Expect.AnyValid
		i.target.Expect = expect
		i.target.Expect.AnyValid = anyValid
		c.items = append(c.items, i)
	}
}

func fingerprints(leaves []*x509.Certificate) []verify.Fingerprint {
	var out []verify.Fingerprint
	for _, l := range leaves {
		out = append(out, verify.FingerprintOf(l))
	}
	return out
}

func sorted(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// run checks every item, all at once, and prints them in their order.
func (c *checker) run(ctx context.Context) error {
	for i := range c.items {
		it := &c.items[i]
		for _, other := range c.watched {
			if it.certificate != "" && it.certificate != other.name && verify.Covers(other.leaf, it.target.Endpoint.Name()) {
				it.target.Expect.Siblings = append(it.target.Expect.Siblings, verify.FingerprintOf(other.leaf))
			}
		}
	}
	results := make([]chan []verify.Verdict, len(c.items))
	for i := range c.items {
		results[i] = make(chan []verify.Verdict, 1)
		go func() { results[i] <- c.prober.Check(ctx, c.items[i].target, c.f.samples) }()
	}
	for i, it := range c.items {
		found := <-results[i]
		for _, v := range found {
			it.confirmed = it.confirmed || v.Matching > v.Siblings || v.Has(verify.Stale) // at one of its addresses
		}
		for _, v := range found {
			if v.Unheard {
				c.unknown = true // interrupted
				continue
			}
			c.verdict(it, v)
		}
	}
	return nil
}

// verdict prints one verdict and keeps the worst severity.
func (c *checker) verdict(it item, v verify.Verdict) {
	w := watchdog.WireVerdict(it.certificate, it.server, v)
	if it.text != "" {
		w.Endpoint = it.text
	}
	// A person who looks wants to hear of it: what the daemon repairs by itself is
	// an error here.
	if v.Has(verify.Stale) && w.Severity.Rank() < notify.Error.Rank() {
		w.Severity = notify.Error
	}
	if v.Siblings > 0 && v.Siblings == v.Samples {
		for _, other := range c.watched {
			if verify.FingerprintOf(other.leaf) == verify.FingerprintOf(v.Served[0]) && w.Severity.Rank() < notify.Warning.Rank() {
				w.Severity = notify.Warning
				w.Detail = fmt.Sprintf("two certificates for %s are configured, %s and %s, and %s is the one that is served", w.Endpoint, it.certificate, other.name, other.name)
				w.Hint = "remove the one that no server uses, or name the endpoints that use it"
			}
		}
	}
	tested := v.Tested()
	if it.byDefault && !it.confirmed {
		w.Severity = notify.Info
		w.Detail = strings.TrimSuffix("not confirmed, nobody named this endpoint: "+w.Detail, ": ")
		tested = false
	}
	if !it.required {
		w.Detail = strings.TrimSuffix("not required: "+w.Detail, ": ")
	}
	if tested {
		c.seen++
	}
	c.note(w.Severity)
	if c.a.json {
		c.line(w)
		return
	}
	c.print(w)
}

func (c *checker) note(s notify.Severity) {
	if s.Rank() > c.worst.Rank() {
		c.worst = s
	}
}

func (c *checker) line(v any) { _ = json.NewEncoder(c.a.stdout).Encode(v) }

func (c *checker) fileFault(name string, f *watch.Fault) {
	c.faults++
	c.note(notify.Error)
	if c.a.json {
		c.line(fileFault{name, f.Path, "file_broken", notify.Error, f.Sentence, f.Hint})
		return
	}
	c.block("file_broken", notify.Error, name+"  "+f.Path, f.Sentence, f.Hint)
}

// print prints a verdict for a person.
func (c *checker) print(v notify.Verdict) {
	head := v.Endpoint
	if c.paint.terminal {
		head = short(v.Endpoint) // its addresses stand beside it
	}
	if v.Address != "" {
		head += "  " + v.Address
	}
	if v.Served != nil {
		head += "  " + until(v.Served.NotAfter, time.Now())
	}
	detail, hint := v.Detail, v.Hint
	if v.Code == string(verify.Serving) && len(v.Faults) == 0 {
		detail, hint = "", ""
		if strings.HasPrefix(v.Detail, "not ") {
			detail = v.Detail
		}
	}
	c.block(v.Code, v.Severity, head, detail, hint)
}

// short leaves the addresses out of an endpoint.
func short(endpoint string) string {
	url, query, _ := strings.Cut(endpoint, "?")
	var rest []string
	for part := range strings.SplitSeq(query, "&") {
		if part != "" && !strings.HasPrefix(part, "address=") {
			rest = append(rest, part)
		}
	}
	if len(rest) > 0 {
		url += "?" + strings.Join(rest, "&")
	}
	return url
}

// block prints a verdict's word, what it is about, the evidence and what to do:
// below each other on a terminal, on one line in a pipe.
func (c *checker) block(word string, sev notify.Severity, head, detail, hint string) {
	out := c.a.stdout
	if !c.paint.terminal {
		fmt.Fprintf(out, "%s  %s", word, head)
		if detail != "" {
			fmt.Fprintf(out, ": %s", detail)
		}
		if hint != "" {
			fmt.Fprintf(out, "; %s", hint)
		}
		fmt.Fprintln(out)
		return
	}
	fmt.Fprintf(out, "%s  %s\n", c.paint.paint(bold+";"+colourOf(sev), fmt.Sprintf("%-16s", word)), head)
	if detail != "" {
		fmt.Fprintf(out, "%18s%s\n", "", wrap(detail, c.paint.width-18, 18))
	}
	if hint != "" {
		fmt.Fprintf(out, "%16s%s %s\n", "", c.paint.paint(dim, ">"), wrap(hint, c.paint.width-18, 18))
	}
}

// wrap breaks s at spaces so that no line is longer than width, if it can be.
func wrap(s string, width, indent int) string {
	var b strings.Builder
	n := 0
	for i, word := range strings.Fields(s) {
		if i > 0 {
			if n+1+len(word) > max(width, 20) {
				b.WriteString("\n" + strings.Repeat(" ", indent))
				n = 0
			} else {
				b.WriteByte(' ')
				n++
			}
		}
		b.WriteString(word)
		n += len(word)
	}
	return b.String()
}

// until says how long a certificate is good.
func until(t, now time.Time) string {
	left := t.Sub(now)
	day := t.UTC().Format("2006-01-02")
	switch {
	case left < 0:
		return fmt.Sprintf("until %s (%s ago)", day, span(-left))
	default:
		return fmt.Sprintf("until %s (%s)", day, span(left))
	}
}

func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return count(int(d/(24*time.Hour)), "day")
	case d >= 2*time.Hour:
		return count(int(d/time.Hour), "hour")
	}
	return count(int(d/time.Minute), "minute")
}

// result turns what was found into the exit code.
func (c *checker) result() error {
	switch {
	case c.worst.Rank() >= notify.Error.Rank():
		return &failure{code: 2}
	case c.worst == notify.Warning:
		return &failure{code: 1}
	case c.seen == 0 || c.unknown:
		return &failure{code: exitUnknown}
	}
	return nil
}
