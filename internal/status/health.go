package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/renewatch/renewatch/internal/durable"
)

// The files in the state directory that tell of a running daemon.
const (
	RunFile  = "run.json" // there from the opening of the listeners to a clean stop
	LockFile = "lock"     // locked as long as the daemon lives
)

const (
	maxRunFile    = 64 << 10
	maxReport     = 256 << 10
	healthTimeout = 5 * time.Second
)

// Run is the content of run.json.
type Run struct {
	PID  int    `json:"pid"`
	NATS string `json:"nats"` // URL; empty when off or refused
	HTTP string `json:"http"` // URL; empty when off or refused
}

// WriteRun writes run.json durably, readable by its owner alone. User names and
// passwords in the URLs stay out of it.
func WriteRun(stateDir string, r Run) error {
	r.NATS, r.HTTP = bare(r.NATS), bare(r.HTTP)
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(stateDir, RunFile)
	if err := durable.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// RemoveRun removes run.json. That it is gone already is no error.
func RemoveRun(stateDir string) error {
	path := filepath.Join(stateDir, RunFile)
	if err := durable.Remove(path); err != nil {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return nil
}

// bare strips the user of each URL in a list separated by commas.
func bare(urls string) string {
	parts := strings.Split(urls, ",")
	for i, p := range parts {
		p = strings.TrimSpace(p)
		if u, err := url.Parse(p); err == nil && u.Host != "" {
			u.User = nil
			p = u.String()
		} else if at := strings.LastIndexByte(p, '@'); at >= 0 {
			p = p[at+1:]
		}
		parts[i] = p
	}
	return strings.Join(parts, ",")
}

// DeadError says why no healthy daemon was found.
type DeadError struct {
	sentence, hint string
	err            error
}

func (e *DeadError) Error() string { return e.sentence }

// Unwrap returns the cause, if there is one.
func (e *DeadError) Unwrap() error { return e.err }

// Hint says what a person can do; it may be empty.
func (e *DeadError) Hint() string { return e.hint }

func dead(hint, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &DeadError{sentence: err.Error(), hint: hint, err: errors.Unwrap(err)}
}

// ReadRun reads run.json. Every error is a *DeadError; errors.Is(err,
// fs.ErrNotExist) tells that there is none.
func ReadRun(stateDir string) (Run, error) {
	path := filepath.Join(stateDir, RunFile)
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(stateDir); err != nil {
			return Run{}, dead("name the state directory of the daemon: --state-dir", "no daemon runs here: cannot look into %s: %w", stateDir, reason(err))
		}
		return Run{}, &DeadError{sentence: "no daemon runs here: there is no " + path, err: fs.ErrNotExist,
			hint: "start it with renewatch run; if it runs, name its state directory: --state-dir"}
	case err != nil:
		return Run{}, dead("run this as the user the daemon runs as", "cannot read %s: %w", path, reason(err))
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return Run{}, dead("remove it and restart the daemon", "%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxRunFile+1))
	if err != nil {
		return Run{}, dead("", "cannot read %s: %w", path, reason(err))
	}
	var r Run
	dec := json.NewDecoder(bytes.NewReader(data))
	if len(data) > maxRunFile || dec.Decode(&r) != nil || dec.More() || r.PID <= 0 {
		return Run{}, dead("restart the daemon: it writes it anew", "%s is damaged", path)
	}
	return r, nil
}

func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Health returns nil when the daemon with this state directory is alive and all
// its loops beat. It asks /healthz; where HTTP is off it looks for the process
// and its lock instead. Every error is a *DeadError.
func Health(ctx context.Context, stateDir string) error {
	r, err := ReadRun(stateDir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && held(stateDir) {
			return dead("wait: it is starting, or stopping", "the daemon has not opened its listeners yet")
		}
		return err
	}
	if r.HTTP == "" {
		return alive(stateDir, r.PID)
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return ask(ctx, r)
}

// alive looks for the daemon without asking it.
func alive(stateDir string, pid int) error {
	if err := unix.Kill(pid, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return dead("start it again; its log says why it ended", "the daemon (process %d) has ended without a clean stop", pid)
	}
	if !held(stateDir) {
		return dead("start it again; its log says why it ended", "the daemon has ended without a clean stop: nobody holds %s", filepath.Join(stateDir, LockFile))
	}
	return nil
}

// held reports whether a daemon holds the lock of the state directory. It takes
// a shared lock for a moment at most, and only when nobody holds it.
func held(stateDir string) bool {
	file, err := os.OpenFile(filepath.Join(stateDir, LockFile), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	return errors.Is(unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func ask(ctx context.Context, r Run) error {
	const again = "start it again; its log says why it ended"
	base, err := url.Parse(r.HTTP)
	if err != nil || base.Scheme != "http" || base.Host == "" {
		return dead("restart the daemon: it writes it anew", "%s names no usable http address", RunFile)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("healthz").String(), nil)
	if err != nil {
		return dead("", "cannot ask the daemon: %w", err)
	}
	client := &http.Client{
		// No proxy of the environment may answer for the daemon.
		Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		var timeout net.Error
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return dead(again, "the daemon (process %d) does not listen on %s", r.PID, base.Host)
		case errors.As(err, &timeout) && timeout.Timeout():
			return dead("it hangs or the machine is overloaded: see its log", "the daemon (process %d) did not answer on %s in time", r.PID, base.Host)
		}
		return dead(again, "cannot ask the daemon on %s: %w", base.Host, err)
	}
	defer resp.Body.Close()
	var body Report
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReport+1))
	if err != nil || len(data) > maxReport || json.Unmarshal(data, &body) != nil || body.Status == "" || body.PID != r.PID {
		return dead("its port was taken by another program: start the daemon again", "what answers on %s is not the daemon (process %d)", base.Host, r.PID)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	if len(body.Stalled) > 0 {
		return dead("see its log; a watchdog or a restart helps", "the daemon (process %d) is stalled: %s", r.PID, cut(strings.Join(body.Stalled, ", ")))
	}
	return dead("see its log", "the daemon (process %d) answers %d", r.PID, resp.StatusCode)
}
