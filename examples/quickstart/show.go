package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
	"github.com/renewatch/renewatch/notify"
)

// site is the name the show is about. Nothing resolves it: the CA's validation
// and renewatch's endpoint are told its address.
const site = "www.quickstart.test"

type options struct {
	binary  string        // renewatch; empty: built
	keep    bool          // the temporary directory
	timeout time.Duration // for all but building
}

// show is the whole show. What it starts is stopped and what it writes is
// removed when it returns.
func show(ctx context.Context, o options, s *story) (err error) {
	temp, err := filepath.Abs(os.TempDir())
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(temp, "renewatch-quickstart-")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			s.part("kept", "%s", dir)
			return
		}
		if gone := os.RemoveAll(dir); err == nil {
			err = gone
		}
	}()
	s.title("One renewal, with real parts, on loopback, in %s", dir)
	if o.binary == "" {
		s.part("build", "go build ./cmd/renewatch; the first time this takes a minute or two")
		if o.binary, err = build(ctx, dir); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("the show is not over after %s", o.timeout))
	defer cancel()

	start := time.Now()
	p := &play{story: s, dir: dir}
	defer p.cleanUp()
	if err := p.setUp(ctx, o.binary); err != nil {
		return p.failed(err)
	}
	if err := p.renew(ctx); err != nil {
		return p.failed(err)
	}
	proofs, err := p.prove(ctx)
	if err != nil {
		return p.failed(err)
	}
	if err := p.daemon.stop(10 * time.Second); err != nil {
		return p.failed(fmt.Errorf("renewatch did not end cleanly on SIGTERM: %w", err))
	}
	p.cleanUp()
	if ctx.Err() != nil {
		return fmt.Errorf("the parts did not stop: %w", context.Cause(ctx))
	}
	s.title("What was proven, in %s", seconds(time.Since(start)))
	for _, proof := range proofs {
		s.proven("%s", proof)
	}
	return nil
}

// told is an event and how long after the renewal it came.
type told struct {
	notify.Event
	since time.Duration
}

// play is everything on the stage.
type play struct {
	story *story
	dir   string

	acme       *acmeClient
	lineage    *certtest.Lineage
	old, new   *certtest.Leaf
	server     *webServer
	visitor    *visitor
	daemon     *daemon
	subscriber *subscriber

	told  []told   // every event, in the order in which it came
	undo  []func() // what cleanUp does, last first
	stage sync.WaitGroup
}

// cleanUp stops what is still there.
func (p *play) cleanUp() {
	for i := len(p.undo) - 1; i >= 0; i-- {
		p.undo[i]()
	}
	p.undo = nil
}

// setUp starts every part and waits until renewatch has said that the first
// certificate is served.
func (p *play) setUp(ctx context.Context, binary string) error {
	ca, err := certtest.NewPebble(certtest.PebbleOptions{Hosts: map[string][]netip.Addr{site: {netip.MustParseAddr("127.0.0.1")}}})
	if err != nil {
		return err
	}
	p.undo = append(p.undo, ca.Close)
	p.story.part("CA", "pebble, an ACME server: %s", ca.DirectoryURL())

	log, err := os.OpenFile(filepath.Join(p.dir, "acme.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	p.undo = append(p.undo, func() { log.Close() })
	if p.acme, err = newACMEClient(ca, log); err != nil {
		return err
	}
	if p.old, err = p.acme.obtain(ctx, site, nil); err != nil {
		return fmt.Errorf("the first certificate: %w", err)
	}
	if p.lineage, err = certtest.NewLineage(filepath.Join(p.dir, "letsencrypt"), site, p.old); err != nil {
		return err
	}
	issuer := filepath.Join(p.dir, "issuer.pem")
	if err := os.WriteFile(issuer, ca.RootPEM(), 0o644); err != nil {
		return err
	}
	p.story.part("ACME client", "lego got serial %s for %s over http-01, in certbot's layout", short(p.old.Serial()), site)

	if p.server, err = startServer(ctx, p.dir, p.lineage); err != nil {
		return err
	}
	p.undo = append(p.undo, func() { p.server.stop() })
	p.story.part("TLS server", "%s, pid %d; keeps the certificate it loaded until SIGHUP", p.server.places(), p.server.pid())

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.RootPEM())
	p.visitor = &visitor{name: site, roots: roots, addrs: p.server.addrs, tell: p.seen}

	config, err := writeConfig(p.dir, p.lineage, issuer, p.server)
	if err != nil {
		return err
	}
	p.daemon, err = startDaemon(ctx, p.dir, binary, config)
	if p.daemon != nil {
		p.undo = append(p.undo, func() { p.daemon.stop(10 * time.Second) })
	}
	if err != nil {
		return err
	}
	p.story.part("renewatch", "pid %d; grace 3s, spread 1s, 4 samples: shorter than anybody needs in earnest", p.daemon.pid())
	p.story.part("NATS", "embedded in renewatch: nats --server %s sub '%s'", p.daemon.nats, subject)

	listening, stopListening := context.WithCancel(ctx)
	if p.subscriber, err = subscribe(listening, p.daemon.nats); err != nil {
		stopListening()
		return err
	}
	p.undo = append(p.undo, func() { stopListening(); p.subscriber.close() })

	p.story.title("Before the renewal")
	looking, stopLooking := context.WithCancel(ctx)
	p.stage.Go(func() { p.visitor.watch(looking) })
	p.undo = append(p.undo, func() { stopLooking(); p.stage.Wait() })
	return p.follow(ctx, notify.DeployVerified, p.old)
}

// renew has the ACME client renew without a reload and follows the story to its
// end.
func (p *play) renew(ctx context.Context) (err error) {
	if p.new, err = p.acme.obtain(ctx, site, p.old); err != nil {
		return fmt.Errorf("the renewal: %w", err)
	}
	p.story.title("The ACME client renews and forgets the reload")
	p.visitor.forget()
	if err := p.lineage.Renew(p.new); err != nil {
		return err
	}
	p.story.renewed(time.Now())
	p.story.line(yellow, "ACME client", "serial %s is on disk, live/%s links to it; nobody told the server", short(p.new.Serial()), site)
	for _, addr := range p.server.addrs {
		serial, err := p.visitor.shake(ctx, addr)
		if err != nil {
			return fmt.Errorf("a visitor at %s: %w", addr, err)
		}
		p.story.line(dim, "a visitor", "%s still serves serial %s", addr, short(serial))
	}
	return p.follow(ctx, notify.DeployVerified, p.new)
}

// seen is called when a visitor sees another certificate than before.
func (p *play) seen(addr netip.AddrPort, from, to string) {
	if from == "" {
		p.story.line(dim, "a visitor", "%s serves serial %s", addr, short(to))
		return
	}
	p.story.line(dim, "a visitor", "%s serves serial %s now, no longer %s", addr, short(to), short(from))
}

// follow prints the events until one of this kind about this leaf has come. An
// event that ends the leaf's story in another way is an error.
func (p *play) follow(ctx context.Context, until notify.Kind, leaf *certtest.Leaf) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s for serial %s has not come: %w", until, short(leaf.Serial()), context.Cause(ctx))
		case <-p.daemon.done:
			return p.daemon.ended()
		case <-p.server.done:
			return p.server.ended()
		case e, ok := <-p.subscriber.events:
			if !ok {
				continue // the context has ended
			}
			colour, sentence := words(e)
			p.story.line(colour, string(kind(e)), "%s", sentence)
			p.told = append(p.told, told{e, p.story.since(time.Now())})
			if !about(e, leaf) {
				continue
			}
			switch kind(e) {
			case until:
				return nil
			case notify.DeployFailed, notify.DeployUnverified, notify.DeploySuperseded:
				return fmt.Errorf("the story of serial %s ended with %s: %s", short(leaf.Serial()), kind(e), sentence)
			}
		}
	}
}

// about tells whether an event is about this leaf.
func about(e notify.Event, leaf *certtest.Leaf) bool {
	return e.Data.Certificate != nil && e.Data.Certificate.SHA256 == leaf.SHA256()
}

// failed adds renewatch's last words to an error; to the end by Ctrl-C there is
// nothing to add.
func (p *play) failed(err error) error {
	if errors.Is(err, context.Canceled) || p.daemon == nil {
		return err
	}
	p.daemon.stop(10 * time.Second)
	if words := p.daemon.lastWords(); words != "" {
		err = fmt.Errorf("%w\n\nthe last lines of renewatch's log:\n  %s", err, strings.ReplaceAll(words, "\n", "\n  "))
	}
	return err
}
