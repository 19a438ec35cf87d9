package e2e

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// secret is a directory as the kubelet writes it for a Secret volume: the names
// are links through ..data, which is exchanged as a whole.
type secret struct {
	t    *testing.T
	dir  string
	cert string
	key  string
	n    int
}

func newSecret(t *testing.T, leaf *certtest.Leaf) *secret {
	t.Helper()
	dir := tempDir(t)
	s := &secret{t: t, dir: dir, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	s.put(leaf)
	for _, name := range []string{"tls.crt", "tls.key"} {
		s.link(filepath.Join("..data", name), name)
	}
	return s
}

// put writes a new version the way the kubelet's atomic writer does.
func (s *secret) put(leaf *certtest.Leaf) {
	s.t.Helper()
	old, _ := os.Readlink(filepath.Join(s.dir, "..data"))
	s.n++
	version := fmt.Sprintf("..2026_11_22_10_00_0%d.%09d", s.n, 1234567*s.n)
	writeFile(s.t, filepath.Join(s.dir, version, "tls.crt"), string(leaf.FullchainPEM()), 0o644)
	writeFile(s.t, filepath.Join(s.dir, version, "tls.key"), string(leaf.KeyPEM()), 0o600)
	s.link(version, "..data_tmp")
	if err := os.Rename(filepath.Join(s.dir, "..data_tmp"), filepath.Join(s.dir, "..data")); err != nil {
		s.t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(s.dir, old)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *secret) link(target, name string) {
	s.t.Helper()
	if err := os.Symlink(target, filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

// A Secret is rotated: no event names tls.crt, its directory is exchanged under
// it and the old one removed. It is seen at once and not by the scan that comes
// every minute, the leaf before is known as such, and the new one goes live.
func TestKubernetesSecret(t *testing.T) {
	t.Parallel()
	const name = "www.e2e.test"
	ca := newAuthority(t)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	names := []string{name}
	s := newSecret(t, ca.aged(20*time.Hour, names...))
	l := &lineage{t: t, dir: s.dir, cert: s.cert, key: s.key}
	n := newNginx(t, tlsServer(name, s.cert, s.key, addr))
	awaitServed(t, addr, name, l.leaf())
	reload := countedReload(t, shellQuote(n.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", ca.root, "deadline", "100s", "retries", "[0s, 80s, 90s]")+
		certificateBlock(s.cert, fmt.Sprintf("https://%s%s?address=%s", name, strings.TrimPrefix(addr, "127.0.0.1"), addr)))
	d.start()
	d.baseline(fingerprint(l.leaf()))
	started := eventTime(t, d.await("agent.started"))

	// Should a scan fall into the time in which a rotation was seen, that one
	// proves nothing, and another is made.
	rotations := 0
	for seen := false; !seen; {
		if rotations++; rotations > 3 {
			t.Fatalf("three times the rotation was not seen before a scan:\n%s", tell(d.journal()))
		}
		before := l.leaf()
		// One more name each time: that the leaf before is stale and not foreign
		// is known by nothing but its having been on disk.
		names = append(names, fmt.Sprintf("alias%d.e2e.test", rotations))
		after := ca.aged(time.Duration(20-rotations)*time.Hour, names...)
		rotated := time.Now()
		s.put(after)
		detected := d.await("renewal.detected", about(after.SHA256()))
		seen = !scanBetween(started, rotated, eventTime(t, detected))
		if p := detected.Data.Previous; p == nil || p.SHA256 != fingerprint(before) {
			t.Errorf("renewal.detected does not tell the leaf before: %s", detected.raw)
		}
		verified := d.await("deploy.verified", about(after.SHA256()))
		wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
		mustServe(t, addr, name, after.Cert)
		reload.want(rotations)
	}
	if bad := only(d.journal(), "file.broken", "file.removed", "file.reverted", "deploy.lost"); len(bad) != 0 {
		t.Errorf("a rotation is no fault:\n%s", tell(bad))
	}
	d.finish()
}

func eventTime(t *testing.T, e event) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, e.Time)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// scanBetween reports whether one of the scans that a daemon makes every minute
// since its start may lie between two times.
func scanBetween(started, from, to time.Time) bool {
	const every, slack = time.Minute, 5 * time.Second
	for at := started; at.Before(to.Add(slack)); at = at.Add(every) {
		if at.After(started) && at.After(from.Add(-slack)) {
			return true
		}
	}
	return false
}

// Two certificates are given to a container as single files, bound into it one by
// one. When the host renews by a rename, the container goes on seeing the file
// from before for ever: nobody in there can know, and nothing is told of it, but
// for what the endpoint shows once the host has reloaded its server. A directory
// bound as a whole shows the renewal.
func TestBoundFile(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	const bound, free = "bound.e2e.test", "free.e2e.test"
	ca := newAuthority(t)
	host := map[string]*lineage{}
	inside := map[string]*lineage{}
	container := tempDir(t)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	var blocks []string
	for _, name := range []string{bound, free} {
		host[name] = newLineage(t, name, ca.aged(10*time.Hour, name))
		inside[name] = lineageIn(t, filepath.Join(container, "live", name))
		blocks = append(blocks, tlsServer(name, host[name].cert, host[name].key, addr))
		if name == free {
			if err := os.MkdirAll(inside[name].dir, 0o755); err != nil {
				t.Fatal(err)
			}
			mountAt(t, "--bind", host[name].dir, inside[name].dir)
			continue
		}
		for from, to := range map[string]string{host[name].cert: inside[name].cert, host[name].key: inside[name].key} {
			writeFile(t, to, "", 0o600)
			mountAt(t, "--bind", from, to)
		}
	}
	n := newNginx(t, blocks...)
	for name, l := range host {
		awaitServed(t, addr, name, l.leaf())
	}
	reload := countedReload(t, shellQuote(n.reloadCommand()))
	endpoint := func(name string) string {
		return fmt.Sprintf("https://%s%s?address=%s", name, strings.TrimPrefix(addr, "127.0.0.1"), addr)
	}
	// Once the host has reloaded for the bound certificate, its endpoint is
	// probed anew within seconds.
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", ca.root, "every", "3s")+
		certificateBlock(inside[bound].cert, endpoint(bound))+
		strings.TrimPrefix(certificateBlock(inside[free].cert, endpoint(free)), "certificates:\n"))
	d.start()
	before := host[bound].leaf()
	d.baseline(fingerprint(before))
	d.baseline(fingerprint(host[free].leaf()))
	wantWarningOf(t, d, inside[bound].cert)

	after := ca.aged(time.Hour, bound)
	host[bound].put(after)
	if !inside[bound].leaf().Equal(before) {
		t.Fatal("the bound file shows the renewal: this kernel does not do what the test is about")
	}
	// By the time the second certificate is renewed, seen and verified, the first
	// one's renewal would have been seen as well.
	next := ca.aged(time.Hour, free)
	host[free].put(next)
	// nginx has no certificate twice: this reload makes both of them live.
	verified := d.await("deploy.verified", about(next.SHA256()))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	mustServe(t, addr, bound, after.Cert)

	// Now visitors have what the daemon's file has not.
	lost := d.await("deploy.lost", named(bound))
	wantVerdicts(t, lost, map[string]string{addr: "ahead"})
	if v := lost.Data.Verdicts[0]; v.Served == nil || v.Served.SHA256 != after.SHA256() || v.ExpectedSHA256 != fingerprint(before) {
		t.Errorf("the verdict does not tell that the served leaf is newer than the file: %+v", v)
	}
	d.await("reload.held", named(bound), func(e event) bool { return e.Data.Cause == "older" })
	for _, e := range d.journal() {
		if e.Subject == bound && (e.kind() == "renewal.detected" || strings.HasPrefix(e.kind(), "file.") || e.kind() == "reload.done") {
			t.Errorf("told of a renewal that cannot be seen: %v", e)
		}
	}
	reload.want(1)
	d.finish()
}

// wantWarningOf: the log holds a warning that names the file and says what is
// wrong with it.
func wantWarningOf(t *testing.T, d *daemon, path string) {
	t.Helper()
	eventually(t, "a warning of "+path, func() error {
		for _, line := range lines(d.log.String()) {
			var entry struct {
				Level string `json:"level"`
			}
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "warn" &&
				strings.Contains(line, path) && strings.Contains(line, "mount") {
				return nil
			}
		}
		return fmt.Errorf("the log has none:\n%s", d.log.tail())
	})
}

// A certificate lies on the lower layer of an overlay and is written from outside
// of it, as it happens to containers: there is no event at all. The scan that
// comes every minute finds it, which makes this the test that takes a minute.
func TestOverlayNeedsTheScan(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it waits for the scan that comes every minute")
	}
	if !apart(t) {
		return
	}
	const name = "www.e2e.test"
	ca := newAuthority(t)
	dir := tempDir(t)
	layer := map[string]string{}
	for _, l := range []string{"layers", "lower", "upper", "work", "merged"} {
		layer[l] = filepath.Join(dir, "layers", l)
	}
	layer["layers"] = filepath.Join(dir, "layers")
	if err := os.Mkdir(layer["layers"], 0o755); err != nil {
		t.Fatal(err)
	}
	// An overlay cannot be made on another one, which the disk often is.
	mountAt(t, "-t", "tmpfs", "-o", "mode=755", "tmpfs", layer["layers"])
	for _, l := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(layer[l], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outside := lineageIn(t, filepath.Join(layer["lower"], "live", name))
	outside.put(ca.aged(10*time.Hour, name))
	mountAt(t, "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", layer["lower"], layer["upper"], layer["work"]), "overlay", layer["merged"])
	inside := lineageIn(t, filepath.Join(layer["merged"], "live", name))

	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	n := newNginx(t, tlsServer(name, inside.cert, inside.key, addr))
	awaitServed(t, addr, name, outside.leaf())
	reload := countedReload(t, shellQuote(n.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", ca.root)+
		certificateBlock(inside.cert, fmt.Sprintf("https://%s%s?address=%s", name, strings.TrimPrefix(addr, "127.0.0.1"), addr)))
	d.start()
	d.baseline(fingerprint(inside.leaf()))
	started := eventTime(t, d.await("agent.started"))

	// In place: an overlay that knows a file already does not see another one
	// renamed over it below.
	after := ca.aged(time.Hour, name)
	written := time.Now()
	overwrite(t, outside, after)
	sees(t, inside, after.Cert)
	detected := d.await("renewal.detected", about(after.SHA256()))
	if !scanBetween(started, written, eventTime(t, detected)) {
		t.Errorf("the renewal was seen without a scan, after %v: this test does not show what it is for", eventTime(t, detected).Sub(written))
	}
	verified := d.await("deploy.verified", about(after.SHA256()))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	mustServe(t, addr, name, after.Cert)
	reload.want(1)
	d.finish()
}

// overwrite writes a pair into the files that are there.
func overwrite(t *testing.T, l *lineage, leaf *certtest.Leaf) {
	t.Helper()
	writeFile(t, l.key, string(leaf.KeyPEM()), 0o600)
	writeFile(t, l.cert, string(leaf.FullchainPEM()), 0o644)
}

func sees(t *testing.T, l *lineage, leaf *x509.Certificate) {
	t.Helper()
	if got := l.leaf(); !got.Equal(leaf) {
		t.Fatalf("%s holds %s, not %s: this kernel does not do what the test is about", l.cert, fingerprint(got), fingerprint(leaf))
	}
}
