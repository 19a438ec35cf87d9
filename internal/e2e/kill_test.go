package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// renewatch is killed after every word it says of a renewal: the story goes on
// where it was, with the same end, nothing said twice and one reload.
func TestKilledAfterEveryEvent(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	after := s.renew()
	ofRenewal := about(fingerprint(after))
	for _, kind := range []string{"renewal.detected", "reload.done", "deploy.verified"} {
		d.await(kind, ofRenewal)
		d.kill()
		d.start()
	}
	verified := d.await("deploy.verified", ofRenewal)
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// renewatch is killed while a reload command runs. The command itself goes on:
// what came of it is looked at first, and it is not run again for nothing.
func TestKilledDuringAReload(t *testing.T) {
	t.Parallel()
	for name, restartFirst := range map[string]bool{"reload ends while it is down": false, "reload ends after the restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLocal(t, "www.e2e.test")
			gate := newGate(t)
			reload := countedReload(t, gate.wait()+shellQuote(s.nginx.reloadCommand()))
			d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "deadline", "5m")+
				certificateBlock(s.lineage.cert, s.endpoint()))
			d.start()
			d.baseline(fingerprint(s.lineage.leaf()))

			after := s.renew()
			reload.awaitRun(1)
			d.kill()
			if restartFirst {
				d.start()
			}
			gate.open()
			awaitServed(t, s.v4, s.name, after)
			if !restartFirst {
				d.start()
			}
			verified := d.await("deploy.verified", about(fingerprint(after)))
			story := only(of(d.journal(), verified.Data.RenewalID), "renewal.detected", "deploy.verified", "deploy.failed")
			wantKinds(t, story, "renewal.detected", "deploy.verified")
			reload.want(1)
			d.finish()
		})
	}
}

// renewatch and its reload command are both killed before anything was
// reloaded: after the minute between two reloads it is run again.
func TestKilledTogetherWithItsReload(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	gate := newGate(t)
	reload := countedReload(t, "if [ $n = 1 ]; then\n"+gate.wait()+"fi\n"+shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "deadline", "5m")+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	d.baseline(fingerprint(s.lineage.leaf()))

	after := s.renew()
	reload.awaitRun(1)
	d.kill()
	pid := reload.pids()[0]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reload command gone", func() error {
		if alive(pid) {
			return fmt.Errorf("pid %d runs", pid)
		}
		return nil
	})
	d.start()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	story := only(of(d.journal(), verified.Data.RenewalID), "renewal.detected", "deploy.verified", "deploy.failed")
	wantKinds(t, story, "renewal.detected", "deploy.verified")
	reload.want(2)
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// renewatch is killed before it has seen anything of a renewal, which happens
// while it is down: it is found at the next start.
func TestRenewedWhileKilled(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	d := newDaemon(t, "", serverBlock("nginx", s.nginx.reloadCommand())+verifying("nginx", s.ca.root)+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	before := s.lineage.leaf()
	d.baseline(fingerprint(before))
	d.kill()
	after := s.renew()
	d.start()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// renewatch is killed again and again, each time a little later: after the
// first, the second, the third time it wrote anything into its state directory.
// Wherever that hits, the story has one end, every word is said once, and the
// server is reloaded once.
func TestKilledAfterEveryWrite(t *testing.T) {
	t.Parallel()
	s := newLocal(t, "www.e2e.test")
	reload := countedReload(t, shellQuote(s.nginx.reloadCommand()))
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+verifying("nginx", s.ca.root, "deadline", "5m")+
		certificateBlock(s.lineage.cert, s.endpoint()))
	d.start()
	before := s.lineage.leaf()
	d.baseline(fingerprint(before))
	d.kill()
	after := s.renew()

	kills := 0
	for writes := 1; writes <= 60; writes++ {
		d.process = spawn(t, "renewatch", command(t, "run", "--config", d.conf))
		if !d.killAfterWrites(writes, fingerprint(after)) {
			break
		}
		kills++
	}
	t.Logf("killed %d times", kills)
	d.awaitReady()
	d.listen()
	verified := d.await("deploy.verified", about(fingerprint(after)))
	story := only(of(d.journal(), verified.Data.RenewalID), "renewal.detected", "deploy.verified", "deploy.failed")
	wantKinds(t, story, "renewal.detected", "deploy.verified")
	reload.want(1)
	mustServe(t, s.v4, s.name, after)
	d.finish()
}

// killAfterWrites kills the daemon once its memory of certificates, servers and
// events has changed n times. It reports false when deploy.verified of the leaf
// came first, and leaves the daemon running then.
func (d *daemon) killAfterWrites(n int, leaf string) bool {
	d.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	last := d.written()
	for changes := 0; changes < n; {
		select {
		case <-d.done:
			d.t.Fatalf("the daemon ended by itself: %v\n%s", d.err, d.log.tail())
		case <-deadline.C:
			d.t.Fatalf("only %d writes:\n%s", changes, tell(d.journal()))
		case <-tick.C:
		}
		now := d.written()
		if now == last {
			continue
		}
		last = now
		changes++
		if _, ok := find(d.journal(), "deploy.verified", about(leaf)); ok {
			return false
		}
	}
	d.kill()
	return true
}

// written is a summary of what lies in the state directory, the embedded NATS
// server's store excepted.
func (d *daemon) written() string {
	var b strings.Builder
	_ = filepath.WalkDir(d.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil // renamed or removed under our eyes: another write
		}
		if entry.IsDir() {
			if entry.Name() == "nats" {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := entry.Info(); err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	return b.String()
}

// gate holds a shell script until it is opened.
type gate struct {
	t    *testing.T
	path string
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{t: t, path: filepath.Join(tempDir(t), "gate")}
	if err := syscall.Mkfifo(g.path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Both ends stay open in here, so that neither side ever waits for the other
	// to come.
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return g
}

// wait is the line of shell that waits.
func (g *gate) wait() string { return "read -r _ <" + shellQuote([]string{g.path}) + "\n" }

// open lets one waiting script go on.
func (g *gate) open() {
	g.t.Helper()
	f, err := os.OpenFile(g.path, os.O_WRONLY, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("go\n"); err != nil {
		g.t.Fatal(err)
	}
}

// awaitRun waits until the command has been started n times.
func (c *counted) awaitRun(n int) {
	c.t.Helper()
	eventually(c.t, "the reload command", func() error {
		if got := len(c.pids()); got < n {
			return fmt.Errorf("run %d times", got)
		}
		return nil
	})
	// A script that a failing test leaves behind is ended by its pid.
	c.t.Cleanup(func() {
		for _, pid := range c.pids() {
			if c.mine(pid) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
}

// mine reports whether pid still is this script and not a stranger with a
// number that was used again.
func (c *counted) mine(pid int) bool {
	argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.Contains(strings.Split(string(argv), "\x00"), c.path)
}
