package reload

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// helperEnv makes the test binary a server that says on stdout what signals
// reach it.
const helperEnv = "LC_RENEWATCH_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "server" {
		ch := make(chan os.Signal, 4)
		signal.Notify(ch, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGTERM)
		os.Stdout.WriteString("ready\n")
		for s := range ch {
			os.Stdout.WriteString(s.String() + "\n")
			if s == syscall.SIGTERM {
				break
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// script writes an executable shell script and returns its path.
func script(t *testing.T, body string) string {
	t.Helper()
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("there is no /bin/sh here, which the scripts of this test need")
	}
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func command(argv ...string) Server { return Server{Name: "s", Way: Way{Command: argv}} }

func runOnce(t *testing.T, s Server, step Step, touch ...string) Result {
	t.Helper()
	res := Runner{}.Run(t.Context(), s, step, touch)
	if len(res.Output) > maxOutput || !shown(res.Output) {
		t.Errorf("output of %d bytes: %q", len(res.Output), res.Output)
	}
	if res.OK && res.Hint != "" || !res.OK && res.Detail == "" {
		t.Errorf("result %+v: a failure needs a sentence, a success no hint", res)
	}
	return res
}

func shown(s string) bool {
	for _, r := range s {
		if r != '\n' && !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name   string
		argv   []string
		ok     bool
		code   int // -1: none
		output string
		detail string
		hint   string
	}{
		{"output of both streams is kept", []string{script(t, "echo one; echo two >&2")}, true, 0, "one\ntwo", "", ""},
		{"an exit code is told", []string{script(t, "echo no such host; exit 3")}, false, 3, "no such host", "ended with exit code 3", ""},
		{"a silent failure has a hint", []string{script(t, "exit 1")}, false, 1, "", "ended with exit code 1", "by hand"},
		{"a signal is told", []string{script(t, "kill -USR2 $$")}, false, -1, "", "killed by signal 12", ""},
		{"arguments are not seen by a shell", []string{script(t, `printf '%s' "$1"`), "$(id); `id` *"}, true, 0, "$(id); `id` *", "", ""},
		{"not found in PATH", []string{"renewatch-no-such-program"}, false, -1, "", "was not found", "searched in"},
		{"not found at its path", []string{"/nonexistent/program"}, false, -1, "", "/nonexistent/program was not found", "correct the path"},
		{"a relative path is refused", []string{"./x"}, false, -1, "", "relative path", "full path"},
		{"an empty name", []string{""}, false, -1, "", "the command is empty", "name a program"},
		{"not executable", []string{file("plain", "x", 0o644)}, false, -1, "", "may not be executed", "chmod"},
		{"a directory", []string{dir}, false, -1, "", "is not a program", "executable file"},
		{"a script without its first line", []string{file("noshebang", "echo x\n", 0o755)}, false, -1, "", "not in a format", "#!/bin/sh"},
		{"a script whose interpreter is missing", []string{file("nointerpreter", "#!/nonexistent/sh\n", 0o755)}, false, -1, "", "interpreter", "#! line"},
		{"a name with a NUL", []string{"/bin/\x00sh"}, false, -1, "", "/bin/\uFFFDsh", ""},
		{"a name for a terminal", []string{"/\x1b[31mred\n"}, false, -1, "", "/red was not found", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := runOnce(t, command(tt.argv...), First)
			if res.OK != tt.ok || res.How != "command" || res.Interrupted {
				t.Errorf("result %+v", res)
			}
			if got := exitCode(res); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			if res.Output != tt.output || !strings.Contains(res.Detail, tt.detail) || !strings.Contains(res.Hint, tt.hint) {
				t.Errorf("output %q detail %q hint %q", res.Output, res.Detail, res.Hint)
			}
			if res.Took <= 0 {
				t.Error("it took no time")
			}
		})
	}
}

func exitCode(r Result) int {
	if r.ExitCode == nil {
		return -1
	}
	return *r.ExitCode
}

func TestCommandEnvironment(t *testing.T) {
	secrets := []string{"NATS_PASSWORD", "NATS_URL", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "CF_DNS_API_TOKEN"}
	for _, name := range secrets {
		t.Setenv(name, "secret")
	}
	t.Setenv("LC_TIME", "C")
	t.Setenv("TZ", "UTC")
	// A descriptor as systemd hands them down: open across exec.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, w.Fd(), syscall.F_SETFD, 0); errno != 0 {
		t.Fatal(errno)
	}
	fd := strconv.Itoa(int(w.Fd()))
	res := runOnce(t, command(script(t, "pwd; env; read x || echo stdin is empty; ( : >&"+fd+" ) 2>/dev/null && echo leaked descriptor; exit 0")), First)
	for _, want := range []string{"PATH=", "LC_TIME=C", "TZ=UTC", "stdin is empty"} {
		if !strings.Contains(res.Output, want) {
			t.Errorf("no %s in %q", want, res.Output)
		}
	}
	if !strings.HasPrefix(res.Output, "/\n") {
		t.Errorf("not started in /: %q", res.Output)
	}
	for _, bad := range append(secrets, "leaked") {
		if strings.Contains(res.Output, bad) {
			t.Errorf("%s reached the command: %q", bad, res.Output)
		}
	}
	t.Setenv("PATH", "")
	if res := runOnce(t, command("sh", "-c", "echo $PATH"), First); res.Output != defaultPath {
		t.Errorf("without a PATH: %+v", res)
	}
}

func TestCommandOverTime(t *testing.T) {
	// The script ignores SIGTERM; its child keeps the output open.
	s := command(script(t, "trap '' TERM; sleep 600 & echo started; wait; sleep 600"))
	res := Runner{Timeout: 50 * time.Millisecond, Linger: 50 * time.Millisecond}.Run(t.Context(), s, First, nil)
	if res.OK || res.Interrupted || !strings.Contains(res.Detail, "was not done after 50ms and was killed") || res.Hint == "" {
		t.Errorf("result %+v", res)
	}
}

func TestOutputHeldOpen(t *testing.T) {
	s := command(script(t, "sleep 600 & echo $!"))
	res := Runner{Linger: 20 * time.Millisecond}.Run(t.Context(), s, First, nil)
	pid, err := strconv.Atoi(res.Output)
	if err != nil || !res.OK {
		t.Fatalf("result %+v", res)
	}
	// What a successful reload leaves behind may be the server itself.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process left behind by a success is gone: %v", err)
	}
}

func TestTestComesFirst(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	s := command(script(t, "echo done > "+mark))
	s.Test = []string{script(t, "echo bad line 7; exit 1")}
	res := runOnce(t, s, First)
	if res.OK || res.How != "test" || exitCode(res) != 1 || res.Output != "bad line 7" || res.Hint == "" ||
		!strings.HasPrefix(res.Detail, "the test before the reload failed: ") {
		t.Errorf("result %+v", res)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("reloaded although the test failed")
	}
	s.Test = []string{script(t, "echo fine")}
	if res := runOnce(t, s, First); !res.OK || res.How != "command" || res.Output != "" {
		t.Errorf("result %+v", res)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error("not reloaded although the test passed")
	}
}

func TestSteps(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-24 * time.Hour)
	file, link := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "link.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	age := func() bool {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(info.ModTime()) > time.Hour
	}
	reset := func() {
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	s := command(script(t, "echo way"))
	s.Then = &Way{Command: []string{script(t, "echo then")}}
	reset()
	if res := runOnce(t, s, First, file); res.Output != "way" || !age() {
		t.Errorf("first: %+v", res)
	}
	if res := runOnce(t, s, Touch, file); res.Output != "way" || age() || res.Detail != "" {
		t.Errorf("touch: %+v", res)
	}
	reset()
	res := runOnce(t, s, Touch, link, dir, filepath.Join(dir, "missing"), "/nonexistent/a", "/nonexistent/b")
	if !res.OK || res.Output != "way" {
		t.Errorf("trouble with touching stopped the reload: %+v", res)
	}
	if !age() {
		t.Error("a link was followed")
	}
	for _, want := range []string{"link.pem: not a regular file", "missing: no such file", "2 more files"} {
		if !strings.Contains(res.Detail, want) {
			t.Errorf("no %q in %q", want, res.Detail)
		}
	}
	if res := runOnce(t, s, Last, file); res.Output != "then" || !age() {
		t.Errorf("last: %+v", res)
	}
	s.Then = nil
	if res := runOnce(t, s, Last); res.Output != "way" {
		t.Errorf("last without then: %+v", res)
	}
	if res := runOnce(t, Server{Name: "x"}, First); res.OK || !strings.Contains(res.Detail, "no way") {
		t.Errorf("without a way: %+v", res)
	}
}

type units func(ctx context.Context, unit string) (string, error)

func (u units) Reload(ctx context.Context, unit string) (string, error) { return u(ctx, unit) }

type hinted struct{ error }

func (hinted) Hint() string { return "do this" }

func TestUnit(t *testing.T) {
	s := Server{Way: Way{Unit: "nginx.service"}}
	tests := []struct {
		result, detail, hint string
		err                  error
	}{
		{"done", "", "", nil},
		{"failed", "the reload of nginx.service failed", "journalctl -u nginx.service", nil},
		{"invalid", "nginx.service is not active", "systemctl start", nil},
		{"timeout", "time limit", "systemctl status", nil},
		{"canceled", "cancelled", "stopped or restarted", nil},
		{"dependency", "depends on", "", nil},
		{"skipped", "skipped", "", nil},
		{"a\x1b[2Jnew\nword", `"anew word"`, "", nil},
		{"", "cannot reload nginx.service: no bus", "do this", hinted{errors.New("no bus")}},
	}
	for _, tt := range tests {
		r := Runner{Units: units(func(ctx context.Context, unit string) (string, error) {
			if _, ok := ctx.Deadline(); !ok || unit != "nginx.service" {
				t.Errorf("asked for %q without a deadline", unit)
			}
			return tt.result, tt.err
		})}
		res := r.Run(t.Context(), s, First, nil)
		if res.OK != (tt.result == "done") || res.How != "unit" || !strings.Contains(res.Detail, tt.detail) || !strings.Contains(res.Hint, tt.hint) {
			t.Errorf("%s: %+v", tt.result, res)
		}
	}
	if res := (Runner{}).Run(t.Context(), s, First, nil); res.OK || res.Detail == "" {
		t.Errorf("without systemd: %+v", res)
	}
	hang := units(func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	res := Runner{Units: hang, Timeout: time.Millisecond}.Run(t.Context(), s, First, nil)
	if res.OK || res.Interrupted || !strings.Contains(res.Detail, "was not done after 1ms") || res.Hint == "" {
		t.Errorf("hanging: %+v", res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if res := (Runner{Units: hang}).Run(ctx, s, First, nil); !res.Interrupted {
		t.Errorf("cancelled: %+v", res)
	}
}

func TestOutputIsBounded(t *testing.T) {
	res := runOnce(t, command(script(t, "echo the beginning; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo the end; exit 1")), First)
	if !strings.HasPrefix(res.Output, "the beginning\n") || !strings.HasSuffix(res.Output, "\nthe end") || !strings.Contains(res.Output, "left out]") {
		t.Errorf("output %q", res.Output)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext":                       "plain text",
		"a\r\nb\rc":                         "a\nb\nc",
		"\x1b[1;31mred\x1b[0m":              "red",
		"\x1b]0;title\x07x\x1b]8;;u\x1b\\y": "xy",
		"\x00\x01\x02z\x7f":                 "\uFFFDz\uFFFD",
		"\xff\xfe\u202eevil":                "\uFFFDevil",
		"\x1b":                              "",
		"\x1b[12":                           "",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("hello\nworld"), 3)
	f.Add([]byte("\x1b[31m\xff\x00"), 1)
	f.Add([]byte(strings.Repeat("äöü\x1b[K", 2000)), 700)
	f.Fuzz(func(t *testing.T, data []byte, chunk int) {
		if chunk < 1 {
			chunk = 1
		}
		var o output
		for rest := data; len(rest) > 0; {
			n := min(chunk, len(rest))
			if got, err := o.Write(rest[:n]); got != n || err != nil {
				t.Fatalf("write: %d %v", got, err)
			}
			rest = rest[n:]
		}
		text := o.String()
		if len(text) > maxOutput || !shown(text) {
			t.Fatalf("%d bytes: %q", len(text), text)
		}
		if len(data) <= 1000 && shown(string(data)) && !strings.ContainsRune(string(data), utf8.RuneError) && text != strings.TrimSpace(string(data)) {
			t.Fatalf("short printable output was changed: %q, %q", data, text)
		}
		if len(o.head) > keepRaw || len(o.tail) > 3*keepRaw {
			t.Fatalf("kept %d and %d bytes", len(o.head), len(o.tail))
		}
		if name := printable(string(data)); len(name) > maxName || !shown(name) || strings.Contains(name, "\n") {
			t.Fatalf("name %q", name)
		}
	})
}
