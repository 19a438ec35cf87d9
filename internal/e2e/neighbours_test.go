package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// Two certificates of one Apache. It dies of a reload while either pair is
// broken, also when the reload was for the other one.
type neighbours struct {
	t      *testing.T
	ca     *authority
	age    time.Duration
	a, b   *lineage
	apache *apache
	addr   string
}

const nameA, nameB = "a.e2e.test", "b.e2e.test"

func newNeighbours(t *testing.T) *neighbours {
	t.Helper()
	n := &neighbours{t: t, ca: newAuthority(t), age: 10 * time.Hour}
	n.a = newLineage(t, nameA, n.ca.aged(n.age, nameA))
	n.b = newLineage(t, nameB, n.ca.aged(n.age, nameB))
	port := freePort(t)
	n.addr = fmt.Sprintf("127.0.0.1:%d", port)
	n.apache = newApacheWith(t, port, vhost{nameA, n.a.cert, n.a.key}, vhost{nameB, n.b.cert, n.b.key})
	mustServe(t, n.addr, nameA, n.a.leaf())
	mustServe(t, n.addr, nameB, n.b.leaf())
	return n
}

// next is a leaf that is an hour younger than the last one.
func (n *neighbours) next(name string) *certtest.Leaf {
	n.age -= time.Hour
	return n.ca.aged(n.age, name)
}

func (n *neighbours) entry(l *lineage) entry {
	return entry{l.cert, []place{{url: fmt.Sprintf("https://%s:%s?address=%s", filepath.Base(l.dir), n.addr[strings.LastIndex(n.addr, ":")+1:], n.addr)}}}
}

// daemon starts a renewatch that watches these lineages. The reload is Apache's
// own command, which tells where its configuration is.
func (n *neighbours) daemon(watched []*lineage, overrides ...string) *daemon {
	n.t.Helper()
	var entries []entry
	for _, l := range watched {
		entries = append(entries, n.entry(l))
	}
	d := newDaemon(n.t, "", serverBlocks(way{name: "apache", command: n.apache.reloadCommand()})+
		verifying("apache", n.ca.root, overrides...)+certificateBlocks(entries...))
	d.start()
	for _, l := range watched {
		d.baseline(fingerprint(l.leaf()))
	}
	return d
}

// watchOver looks the whole time whether Apache answers for both names.
func (n *neighbours) watchOver() *vigil {
	return keepVigil(n.t, func() error {
		for _, name := range []string{nameA, nameB} {
			if _, err := servedLeaf(n.addr, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
}

// held waits until a reload for this leaf is held because of the other pair, and
// fails unless its file is named.
func (n *neighbours) held(d *daemon, leaf *certtest.Leaf) event {
	n.t.Helper()
	held := d.await("reload.held", about(leaf.SHA256()))
	if held.Data.Cause != "other_pair" || held.Data.Reload == nil || held.Data.Reload.Server != "apache" {
		n.t.Errorf("reload.held does not tell that another pair is at fault: %s", held.raw)
	}
	if !strings.Contains(held.Data.Detail+" "+held.Data.Hint, n.b.dir+"/") {
		n.t.Errorf("reload.held does not name a file in %s: %s", n.b.dir, held.raw)
	}
	n.spared(d)
	return held
}

// spared fails when Apache was told to reload.
func (n *neighbours) spared(d *daemon) {
	n.t.Helper()
	wantReloads(n.t, d.journal(), map[string]int{})
	if !n.apache.running() {
		n.t.Fatalf("Apache is gone: %s\n%s", n.apache.errors(), tell(d.journal()))
	}
	if got := n.apache.reloaded(); got != 0 {
		n.t.Fatalf("Apache tells of %d reloads, although a pair is broken:\n%s", got, tell(d.journal()))
	}
}

// once fails unless Apache was reloaded once and lived the whole time.
func (n *neighbours) once(d *daemon, watch *vigil) {
	n.t.Helper()
	watch.end()
	if !n.apache.running() {
		n.t.Errorf("Apache is gone: %s", n.apache.errors())
	}
	// A reload for both is told of each.
	told := only(d.journal(), "reload.done", "reload.failed")
	times := map[string]int{}
	for _, e := range told {
		times[e.kind()+" "+e.Subject]++
	}
	once := func(name string) bool { return times["reload.done "+name] <= 1 && times["reload.failed "+name] == 0 }
	if len(told) == 0 || !once(nameA) || !once(nameB) {
		n.t.Errorf("told of other reloads than one:\n%s", tell(told))
	}
	if got := n.apache.reloaded(); got != 1 {
		n.t.Errorf("Apache tells of %d reloads:\n%s", got, n.apache.errors())
	}
}

// A renews while B's key is not its certificate's. Nothing is reloaded, however
// often that is decided anew: after a restart, and in A's next story. When B's
// pair is sound, one reload brings both live.
func TestApacheAndABrokenNeighbour(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t)
	d := n.daemon([]*lineage{n.a, n.b}, "deadline", "5m")
	watch := n.watchOver()

	nextB := n.next(nameB)
	replaceFile(t, n.b.key, string(nextB.KeyPEM()), 0o600)
	nextA := n.next(nameA)
	n.a.put(nextA)
	n.held(d, nextA)
	d.finish()
	d.start()

	last := n.next(nameA)
	n.a.put(last)
	n.held(d, last)
	// By now every retry of the first story has passed.
	if broken := d.await("file.broken", named(nameB)); !strings.Contains(broken.Data.Detail, n.b.dir+"/") {
		t.Errorf("file.broken does not name the file: %s", broken.raw)
	}
	n.spared(d)

	replaceFile(t, n.b.cert, string(nextB.FullchainPEM()), 0o644)
	d.await("deploy.verified", about(nextB.SHA256()))
	verified := d.await("deploy.verified", about(last.SHA256()))
	// The one reload is told of whichever of the two asked for it.
	wantKinds(t, without(of(d.journal(), verified.Data.RenewalID), "reload.done"),
		"renewal.detected", "reload.held", "deploy.verified")
	mustServe(t, n.addr, nameA, last.Cert)
	mustServe(t, n.addr, nameB, nextB.Cert)
	d.finish()
	n.once(d, watch)
}

// The same with a B that nobody watches: only Apache's configuration names it.
// Its fault holds A's reload past the deadline, and A recovers when B is sound.
func TestApacheAndABrokenNeighbourNobodyWatches(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t)
	d := n.daemon([]*lineage{n.a}, soon...)
	watch := n.watchOver()

	nextB := n.next(nameB)
	replaceFile(t, n.b.key, string(nextB.KeyPEM()), 0o600)
	nextA := n.next(nameA)
	n.a.put(nextA)
	n.held(d, nextA)
	failed := d.await("deploy.failed", about(nextA.SHA256()))
	if failed.Data.Cause != "other_pair" {
		t.Errorf("deploy.failed has the cause %q: %s", failed.Data.Cause, failed.raw)
	}
	wantVerdicts(t, failed, map[string]string{n.addr: "stale"})
	n.spared(d)

	replaceFile(t, n.b.cert, string(nextB.FullchainPEM()), 0o644)
	d.await("deploy.recovered")
	wantKinds(t, of(d.journal(), failed.Data.RenewalID),
		"renewal.detected", "reload.held", "deploy.failed", "reload.done", "deploy.recovered")
	mustServe(t, n.addr, nameA, nextA.Cert)
	mustServe(t, n.addr, nameB, nextB.Cert)
	d.finish()
	n.once(d, watch)
}
