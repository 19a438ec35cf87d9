package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// host is the name the daemons under test give themselves.
const host = "e2e.example.org"

// daemon is one renewatch with a configuration and a state directory.
type daemon struct {
	t        *testing.T
	state    string
	conf     string
	nats     string // URL of an external server; empty: the embedded one
	embedded string // where the embedded server listens
	flags    []string
	heard    *listener
	*process
}

// newDaemon writes a configuration and starts nothing yet. body holds servers,
// defaults and certificates; the rest is filled in here. With an external NATS
// server nats is its URL.
func newDaemon(t *testing.T, nats, body string) *daemon {
	t.Helper()
	dir := tempDir(t)
	d := &daemon{t: t, nats: nats, embedded: "127.0.0.1:0", state: filepath.Join(dir, "state"), conf: filepath.Join(dir, "renewatch.yaml")}
	d.configure(body)
	t.Cleanup(func() {
		if d.process != nil && t.Failed() {
			t.Logf("the story:\n%s", tell(d.journal()))
		}
	})
	return d
}

// configure writes the configuration anew.
func (d *daemon) configure(body string) {
	d.t.Helper()
	where := fmt.Sprintf("embedded: {listen: %q}", d.embedded)
	if d.nats != "" {
		where = fmt.Sprintf("url: %q\n  ensure_stream: true", d.nats)
	}
	replaceFile(d.t, d.conf, fmt.Sprintf(`state_dir: %s
host: %s
log: {level: debug, format: json}
nats:
  %s
http: {listen: "127.0.0.1:0"}
%s`, d.state, host, where, body), 0o644)
}

// command is renewatch with an environment of its own.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	cmd.Dir = tempDir(t)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TMPDIR=" + cmd.Dir, "LANG=C.UTF-8"}
	return cmd
}

// start starts the daemon, waits until it is ready, and listens to it. What was
// listened to before goes on where the server is an external one.
func (d *daemon) start() {
	d.t.Helper()
	d.startDeaf()
	if d.heard == nil || d.nats == "" {
		d.listen()
	}
}

// startDeaf starts the daemon and waits until it is ready.
func (d *daemon) startDeaf() {
	d.t.Helper()
	d.process = spawn(d.t, "renewatch", command(d.t, append([]string{"run", "--config", d.conf}, d.flags...)...))
	d.awaitReady()
}

// listen subscribes anew, to everything since the first event.
func (d *daemon) listen() {
	d.t.Helper()
	url, domain := d.nats, ""
	if url == "" {
		domain = "renewatch"
		if url = d.awaitReady().NATS; url == "" {
			url = "nats://" + d.embedded // it came after run.json was written
		}
	}
	d.heard = listen(d.t, url, domain)
}

// runInfo is run.json.
type runInfo struct {
	PID  int    `json:"pid"`
	NATS string `json:"nats"`
	HTTP string `json:"http"`
}

func (d *daemon) runFile() string { return filepath.Join(d.state, "run.json") }

func (d *daemon) awaitReady() runInfo {
	d.t.Helper()
	var info runInfo
	eventually(d.t, "the daemon ready", func() error {
		if !d.running() {
			return final("it ended: %v\n%s", d.err, d.log.tail())
		}
		data, err := os.ReadFile(d.runFile())
		if err != nil {
			return err
		}
		info = runInfo{}
		if err := json.Unmarshal(data, &info); err != nil {
			return err
		}
		if info.PID != d.pid() {
			return fmt.Errorf("run.json is of pid %d, not %d", info.PID, d.pid())
		}
		code, body, err := get(info.HTTP + "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("/readyz: %d %s", code, body)
		}
		return err
	})
	return info
}

func get(url string) (int, string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// journal is everything the daemon has said so far, from the files in which it
// keeps it. A last line without its newline is still being written.
func (d *daemon) journal() []event {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.state, "journal", "*.jsonl"))
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(files)
	var events []event
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			d.t.Fatal(err)
		}
		for {
			line, rest, whole := bytes.Cut(data, []byte("\n"))
			if !whole {
				break
			}
			data = rest
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			e, err := parseEvent(line)
			if err != nil {
				d.t.Fatalf("%s: %v: %s", file, err, line)
			}
			events = append(events, e)
		}
	}
	return events
}

// find returns the first event of a kind that matches.
func find(events []event, kind string, match ...func(event) bool) (event, bool) {
	for _, e := range events {
		if e.kind() == kind && !slices.ContainsFunc(match, func(m func(event) bool) bool { return !m(e) }) {
			return e, true
		}
	}
	return event{}, false
}

// await waits until the journal holds an event of a kind that matches, and
// returns the first one.
func (d *daemon) await(kind string, match ...func(event) bool) event {
	d.t.Helper()
	var found event
	eventually(d.t, kind, func() error {
		events := d.journal()
		e, ok := find(events, kind, match...)
		if ok {
			found = e
			return nil
		}
		if !d.running() {
			return final("the daemon ended: %v", d.err)
		}
		return fmt.Errorf("said only:\n%s", tell(events))
	})
	return found
}

// about matches events of a certificate by its fingerprint.
func about(sha256 string) func(event) bool {
	return func(e event) bool { return e.Data.Certificate != nil && e.Data.Certificate.SHA256 == sha256 }
}

// named matches events of a certificate by its name.
func named(name string) func(event) bool {
	return func(e event) bool { return e.Subject == name }
}

// baseline waits until the daemon has seen the certificate served, which is
// where most stories begin.
func (d *daemon) baseline(sha256 string) event {
	d.t.Helper()
	return d.await("deploy.verified", about(sha256))
}

// kill ends the daemon without giving it a chance to say anything.
func (d *daemon) kill() {
	d.t.Helper()
	d.stop(d.t, syscall.SIGKILL)
}

// finish is the end of every scenario: what NATS delivered is held against the
// journal, and the daemon is stopped the clean way.
func (d *daemon) finish() {
	d.t.Helper()
	d.heard.check(host, d.journal())
	d.stop(d.t, syscall.SIGTERM)
	if code := d.exitCode(d.t); code != 0 {
		d.t.Errorf("renewatch ended with exit code %d after SIGTERM", code)
	}
	said := d.log.String()
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "goroutine 1 ["} {
		if i := strings.Index(said, bad); i >= 0 {
			d.t.Errorf("renewatch said %q: %s", bad, said[i:min(len(said), i+4000)])
		}
	}
	if _, err := os.Stat(d.runFile()); !errors.Is(err, os.ErrNotExist) {
		d.t.Errorf("run.json after a clean stop: %v", err)
	}
	events := d.journal()
	if len(events) == 0 || events[len(events)-1].kind() != "agent.stopped" {
		d.t.Errorf("the last event is not agent.stopped:\n%s", tell(events))
	}
	checkStory(d.t, host, events)
}

// verifying is the block of defaults with times fit for a test. Overrides are
// key and value of the verify block.
func verifying(server, root string, overrides ...string) string {
	values := [][2]string{
		{"ca", root}, {"samples", "4"}, {"spread", "500ms"}, {"grace", "3s"}, {"deadline", "30s"},
		{"retries", "[0s, 5s, 10s]"}, {"recheck", "[5s, 10s, 20s]"}, {"every", "1h"}, {"timeout", "5s"},
	}
	for i := 0; i+1 < len(overrides); i += 2 {
		at := slices.IndexFunc(values, func(v [2]string) bool { return v[0] == overrides[i] })
		values[at][1] = overrides[i+1]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "defaults:\n  server: %s\n  verify:\n", server)
	for _, v := range values {
		fmt.Fprintf(&b, "    %s: %s\n", v[0], v[1])
	}
	return b.String()
}

// serverBlock configures one server that is reloaded by a command.
func serverBlock(name string, argv []string) string {
	list, err := json.Marshal(argv)
	if err != nil {
		panic(err) // strings always marshal
	}
	return fmt.Sprintf("servers:\n  %s:\n    command: %s\n", name, list)
}

// certificateBlock configures one certificate with its endpoints.
func certificateBlock(cert string, endpoints ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "certificates:\n  - cert: %s\n    endpoints:\n", cert)
	for _, e := range endpoints {
		fmt.Fprintf(&b, "      - %q\n", e)
	}
	return b.String()
}
