package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/renewatch/renewatch/internal/certtest"
)

// program is the package of the real renewatch.
const program = "github.com/renewatch/renewatch/cmd/renewatch"

// build builds renewatch into dir.
func build(ctx context.Context, dir string) (binary string, err error) {
	tool, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("the go command is needed to build renewatch: %w", err)
	}
	binary = filepath.Join(dir, "renewatch")
	c := newChild(dir, "build", tool, "build", "-o", binary, program)
	if err := c.start(); err != nil {
		return "", err
	}
	if err := c.wait(ctx); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("go build %s: %w\n%s", program, err, c.lastWords())
	}
	return binary, nil
}

// times are the short times of the show; renewatch's own defaults suit a server
// that runs for years.
const times = `    samples: 4
    spread: 1s
    grace: 3s
    deadline: 45s
    retries: [0s, 10s, 20s]
    recheck: [30s]
    timeout: 5s
`

// writeConfig writes renewatch's configuration.
func writeConfig(dir string, lineage *certtest.Lineage, issuer string, s *webServer) (path string, err error) {
	endpoint := fmt.Sprintf("https://%s:%d?address=%s", lineage.Name, s.port(), s.ips())
	text := fmt.Sprintf(`# A server that is reloaded by a signal, one certificate, one endpoint.
state_dir: %s
host: quickstart.test
log: {level: info, format: console}
nats:
  embedded: {listen: "127.0.0.1:0"}
http: {enabled: false}
servers:
  web: {signal: HUP, pidfile: %s}
defaults:
  server: web
  verify:
    ca: %s
%scertificates:
  - cert: %s
    endpoints:
      - %s
`, quote(filepath.Join(dir, "state")), quote(s.pidfile), quote(issuer), times, quote(lineage.Fullchain()), quote(endpoint))
	path = filepath.Join(dir, "renewatch.yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// quote writes a string for YAML, of which JSON is a part.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can always be written
	}
	return string(b)
}

// daemon is renewatch as a child process.
type daemon struct {
	*child
	nats string // URL of its embedded NATS server
}

// startDaemon starts renewatch and waits until its NATS server listens.
func startDaemon(ctx context.Context, dir, binary, config string) (*daemon, error) {
	d := &daemon{child: newChild(dir, "renewatch", binary, "run", "--config", config)}
	if err := d.start(); err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			err := fmt.Errorf("renewatch's NATS server does not listen: %w", context.Cause(ctx))
			d.stop(5 * time.Second)
			return d, err
		case <-d.done:
			return d, d.ended()
		case <-tick.C:
		}
		var running struct {
			NATS string `json:"nats"`
		}
		data, err := os.ReadFile(filepath.Join(dir, "state", "run.json"))
		if err == nil {
			err = json.Unmarshal(data, &running)
		}
		if err != nil {
			continue
		}
		if running.NATS == "" {
			d.stop(5 * time.Second)
			return d, errors.New("renewatch runs without its NATS server")
		}
		d.nats = running.NATS
		return d, nil
	}
}
