package e2e

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// The image: built from the Dockerfile, looked into, and run with nothing but
// what its comments ask for.
func TestImage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"buildah", "crun", "busybox", "nginx"} {
		program(t, name)
	}
	if os.Getenv(apartEnv) == "" {
		// Apart there is no network to get a module from that is still missing.
		mustRun(t, exec.Command(program(t, "go"), "mod", "download"))
	}
	if !apart(t) {
		return
	}
	built := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	i := buildImage(t, map[string]string{"VERSION": "1.2.3-e2e", "REVISION": "0123abcd", "BUILT": built.Format(time.RFC3339)})
	t.Run("content", i.testContent)
	// As the image says: root without a capability, who reads certbot's tree.
	t.Run("root", func(t *testing.T) { i.testRun(t, i.config.User) })
	// As its comment offers, where others may read the certificates.
	t.Run("nobody", func(t *testing.T) { i.testRun(t, "65532:65532") })
}

// Nothing is in it but the program, the root certificates and a state directory;
// what an engine needs to know of it is said.
func (i *image) testContent(t *testing.T) {
	files := i.files()
	want := []string{"/" + caBundle, "/renewatch"}
	if !slices.Equal(files, want) {
		t.Errorf("the image holds %q, want %q", files, want)
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(readFile(t, filepath.Join(i.root, caBundle)))) {
		t.Error("there are no root certificates in the bundle")
	}
	const state = "/var/lib/renewatch"
	// A new volume takes over the mode.
	if info, err := os.Stat(filepath.Join(i.root, state)); err != nil {
		t.Error(err)
	} else if info.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %v", state, info.Mode().Perm())
	}
	if _, ok := i.config.Volumes[state]; !ok || len(i.config.Volumes) != 1 {
		t.Errorf("volumes %v", i.config.Volumes)
	}
	for name, want := range map[string]string{
		"title": "renewatch", "version": "1.2.3-e2e", "revision": "0123abcd",
		"source": "https://github.com/renewatch/renewatch", "licenses": "Apache-2.0",
	} {
		if got := i.config.Labels["org.opencontainers.image."+name]; got != want {
			t.Errorf("label %s is %q, want %q", name, got, want)
		}
	}
	if i.config.Labels["org.opencontainers.image.description"] == "" {
		t.Error("there is no description")
	}
	if h := i.config.Healthcheck; h == nil || len(h.Test) < 2 || h.Test[0] != "CMD" {
		t.Errorf("healthcheck %+v: without a shell it has to be an argv", h)
	}
}

// testRun runs the image as a user, beside an nginx with certificates in
// certbot's layout: it starts with a configuration and no further word, answers
// the health check, tells a renewal that a hook deployed, and stops.
func (i *image) testRun(t *testing.T, user string) {
	if i.config.Healthcheck == nil {
		t.Fatal("the image has no health check")
	}
	healthcheck := i.config.Healthcheck.Test[1:]
	const name = "www.e2e.test"
	ca := newAuthority(t)
	dir := tempDir(t)
	d := &daemon{t: t, state: filepath.Join(dir, "state")}
	live, err := certtest.NewLineage(filepath.Join(dir, "letsencrypt"), name, ca.aged(hours(10), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.state, 0o700); err != nil {
		t.Fatal(err)
	}
	var uid, gid int
	if _, err := fmt.Sscanf(user, "%d:%d", &uid, &gid); err != nil {
		t.Fatalf("user %q: %v", user, err)
	}
	if err := os.Chown(d.state, uid, gid); err != nil {
		t.Fatal(err)
	}
	share := func() {
		if uid != 0 {
			mustRun(t, exec.Command("chgrp", "--recursive", fmt.Sprint(gid), live.Dir))
			mustRun(t, exec.Command("chmod", "--recursive", "g+rX", live.Dir))
		}
	}
	share()
	port := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	n := newNginx(t, tlsServer(name, live.Fullchain(), live.Key(), at))
	writeFile(t, filepath.Join(dir, "etc", "root.pem"), string(ca.RootPEM()), 0o644)
	writeFile(t, filepath.Join(dir, "etc", "renewatch.yaml"), "host: "+host+"\n"+verifying("none", "/etc/renewatch/root.pem")+
		fmt.Sprintf("certificates:\n  - cert: /etc/letsencrypt/live/*/fullchain.pem\n    endpoints: [\"https://%s:%d?address=127.0.0.1\"]\n", name, port), 0o644)

	c := i.start(t, user, []string{"TZ=Europe/Berlin"}, filepath.Join(dir, "etc")+":/etc/renewatch:ro",
		live.Dir+":/etc/letsencrypt:ro", d.state+":/var/lib/renewatch:rw")
	d.process = c.process
	eventually(t, "the health check", func() error {
		if !c.running() {
			return final("the container ended: %v\n%s", c.err, c.log.tail())
		}
		if res := c.exec(healthcheck...); res.code != 0 {
			return errors.New(res.String())
		}
		return nil
	})
	c.wantConfined()
	first := d.baseline(fingerprint(lineageIn(t, live.LiveDir()).leaf()))

	after := ca.aged(hours(5), name)
	if err := live.Renew(after); err != nil {
		t.Fatal(err)
	}
	share()
	n.reload()
	verified := d.await("deploy.verified", about(after.SHA256()))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "deploy.verified")
	if _, bad := find(d.journal(), "agent.degraded"); bad {
		t.Errorf("something is missing in the image:\n%s", tell(d.journal()))
	}

	// The trusted roots come from the image: with none at all it could not say.
	if res := c.exec("/renewatch", "check", "--json", "--cert", "/etc/letsencrypt/live/"+name+"/fullchain.pem", fmt.Sprintf("https://%s:%d?address=127.0.0.1", name, port)); res.code != 2 || !strings.Contains(res.stdout, `"untrusted"`) {
		t.Errorf("check of a chain to an unknown root: %v", res)
	}
	if res := c.exec("/renewatch", "version"); res.code != 0 || !strings.Contains(res.stdout, "1.2.3-e2e") {
		t.Errorf("version: %v", res)
	}
	// A time zone is known by its name: windows in the configuration name one.
	said, err := time.Parse(time.RFC3339, first.Time)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if res := c.exec("/renewatch", "events"); !strings.Contains(res.stdout, said.In(berlin).Format(time.DateTime)) {
		t.Errorf("events does not tell of %v in Berlin's time: %v", said, res)
	}
	c.terminate()
	if res := run(t, c.crun("list", "--quiet")); strings.Contains(res.stdout, c.name) {
		mustRun(t, c.crun("delete", c.name))
	}
	if _, err := os.Stat(d.runFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run.json after a clean stop: %v", err)
	}
	events := d.journal()
	if events[len(events)-1].kind() != "agent.stopped" {
		t.Errorf("the last event is not agent.stopped:\n%s", tell(events))
	}
	checkStory(t, host, events)
}

// wantConfined holds the container's first process against what it was to have.
func (c *container) wantConfined() {
	c.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", c.init())
	status := readFile(c.t, proc+"status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, "\n"+want+"\n") {
			c.t.Errorf("the container's process does not have %q:\n%s", want, status)
		}
	}
	for _, mount := range lines(readFile(c.t, proc+"mountinfo")) {
		if f := strings.Fields(mount); f[4] == "/" && !slices.Contains(strings.Split(f[5], ","), "ro") {
			c.t.Errorf("the root of the container is writable: %s", mount)
		}
	}
}
