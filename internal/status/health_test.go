package status

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/internal/durable"
)

func daemon(t *testing.T, snapshot func() Snapshot) (url string) {
	t.Helper()
	srv := httptest.NewServer(Handler(snapshot))
	t.Cleanup(srv.Close)
	return srv.URL
}

func lock(t *testing.T, dir string) {
	t.Helper()
	f, err := durable.Lock(filepath.Join(dir, LockFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
}

func TestRunFile(t *testing.T) {
	dir := t.TempDir()
	want := Run{PID: 42, NATS: "nats://127.0.0.1:4222", HTTP: "http://127.0.0.1:9877"}
	in := want
	in.NATS = "nats://user:secret@127.0.0.1:4222"
	if err := WriteRun(dir, in); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, RunFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if got, err := ReadRun(dir); err != nil || got != want {
		t.Errorf("read %+v %v", got, err)
	}
	for range 2 {
		if err := RemoveRun(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := ReadRun(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removing: %v", err)
	}
	for in, want := range map[string]string{
		"":                                "",
		"nats://a:4222,nats://t@b:4222":   "nats://a:4222,nats://b:4222",
		"user:pa/ss@host:4222":            "host:4222",
		"nats://user:p%zz@127.0.0.1:4222": "127.0.0.1:4222",
	} {
		if got := bare(in); got != want {
			t.Errorf("bare(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestHealth(t *testing.T) {
	me := os.Getpid()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	closed.Close()
	ended := exec.Command(os.Args[0], "-test.run=^$")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	serve := func(body string) func(*testing.T) string {
		return func(t *testing.T) string {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(body)) }))
			t.Cleanup(srv.Close)
			return srv.URL
		}
	}
	tests := []struct {
		name   string
		pid    int // 0: no run.json
		http   func(t *testing.T) string
		locked bool
		want   string // "": healthy
	}{
		{"alive", me, func(t *testing.T) string { return daemon(t, func() Snapshot { return Snapshot{} }) }, true, ""},
		{"stalled", me, func(t *testing.T) string {
			return daemon(t, func() Snapshot { return Snapshot{Stalled: []string{"keeper", "watch"}} })
		}, true, "is stalled: keeper, watch"},
		{"degraded is alive", me, func(t *testing.T) string {
			return daemon(t, func() Snapshot { return Snapshot{Degraded: []Degradation{{What: "nats"}}} })
		}, true, ""},
		{"never started", 0, nil, false, "no daemon runs here"},
		{"starting", 0, nil, true, "not opened its listeners"},
		{"the port is closed", me, func(*testing.T) string { return refused }, false, "does not listen on"},
		{"another renewatch has the port", me, func(t *testing.T) string { return daemon(t, func() Snapshot { return Snapshot{PID: 1} }) }, true, "is not the daemon"},
		{"a stranger has the port", me, serve("<html>hello"), true, "is not the daemon"},
		{"an endless stranger", me, serve(strings.Repeat("x", maxReport+10)), true, "is not the daemon"},
		{"no usable address", me, func(*testing.T) string { return "unix:///x" }, true, "names no usable http address"},
		{"http off, alive", me, func(*testing.T) string { return "" }, true, ""},
		{"http off, lock free", me, func(*testing.T) string { return "" }, false, "nobody holds"},
		{"http off, process gone", ended.Process.Pid, func(*testing.T) string { return "" }, false, "has ended without a clean stop"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.locked {
				lock(t, dir)
			}
			if tt.pid != 0 {
				if err := WriteRun(dir, Run{PID: tt.pid, HTTP: tt.http(t)}); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, Health(t.Context(), dir), tt.want)
		})
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("not healthy: %v", err)
		}
		return
	}
	var d *DeadError
	if !errors.As(err, &d) || !strings.Contains(err.Error(), want) || d.Hint() == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want %q with a hint", err, want)
	}
}

func TestHealthOfDamagedFiles(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "torn": `{"pid": 1`, "another type": `[]`, "no pid": `{}`, "a negative pid": `{"pid":-1}`,
		"two values": `{"pid":1}{"pid":2}`, "huge": `{"pid":1,"http":"` + strings.Repeat("x", maxRunFile) + `"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, RunFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Health(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, RunFile), 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, Health(t.Context(), dir), "not a regular file")
	expect(t, Health(t.Context(), filepath.Join(dir, "missing")), "cannot look into")
}

func TestHealthOfAMuteDaemon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	if err := WriteRun(dir, Run{PID: os.Getpid(), HTTP: "http://" + l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	expect(t, Health(ctx, dir), "did not answer on")
}
