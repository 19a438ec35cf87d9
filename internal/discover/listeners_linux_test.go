package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen listens in this process, sharing the port where asked.
func listen(t *testing.T, network, address string) netip.AddrPort {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	l, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		if network == "tcp6" {
			t.Skipf("no IPv6 here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func mustListeners(t *testing.T, addr netip.AddrPort) []Listener {
	t.Helper()
	found, err := Listeners(t.Context(), addr)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	return found
}

func at(host string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), port)
}

func TestListenersOfThisProcess(t *testing.T) {
	loop := listen(t, "tcp4", "127.0.0.1:0")
	any4 := listen(t, "tcp4", "0.0.0.0:0")
	listen(t, "tcp4", fmt.Sprintf("127.0.0.2:%d", any4.Port()))
	for _, c := range []struct{ addr, bound netip.AddrPort }{
		{loop, loop},
		{at("::ffff:127.0.0.1", loop.Port()), loop},
		{at("127.0.0.1", any4.Port()), at("0.0.0.0", any4.Port())},
		{at("127.0.0.2", any4.Port()), at("127.0.0.2", any4.Port())},
		{at("0.0.0.0", any4.Port()), at("0.0.0.0", any4.Port())},
	} {
		found := mustListeners(t, c.addr)
		if len(found) != 1 || found[0].PID != os.Getpid() || found[0].Address != c.bound {
			t.Errorf("%s: %+v, want this process at %s", c.addr, found, c.bound)
			continue
		}
		comm, err := os.ReadFile("/proc/self/comm")
		if err != nil || found[0].Name != strings.TrimSpace(string(comm)) {
			t.Errorf("name %q, want %q", found[0].Name, comm)
		}
		if age := time.Since(found[0].Started); age < 0 || age > time.Hour {
			t.Errorf("started %v", found[0].Started)
		}
	}
	for _, addr := range []netip.AddrPort{at("127.0.0.2", loop.Port()), at("::1", loop.Port()), at("::1", any4.Port())} {
		if found := mustListeners(t, addr); len(found) != 0 {
			t.Errorf("%s: %+v, want nobody", addr, found)
		}
	}
}

func TestListenersIPv6(t *testing.T) {
	any6 := listen(t, "tcp", "[::]:0") // and IPv4
	loop6 := listen(t, "tcp6", "[::1]:0")
	for _, c := range []struct{ addr, bound netip.AddrPort }{
		{at("127.0.0.1", any6.Port()), at("::", any6.Port())},
		{at("::1", any6.Port()), at("::", any6.Port())},
		{loop6, loop6},
	} {
		if found := mustListeners(t, c.addr); len(found) != 1 || found[0].PID != os.Getpid() || found[0].Address != c.bound {
			t.Errorf("%s: %+v, want this process at %s", c.addr, found, c.bound)
		}
	}
	if found := mustListeners(t, at("127.0.0.1", loop6.Port())); len(found) != 0 {
		t.Errorf("%+v, want nobody", found)
	}
	mapped := listen(t, "tcp6", "[::ffff:127.0.0.3]:0")
	if found := mustListeners(t, at("127.0.0.3", mapped.Port())); len(found) != 1 {
		t.Errorf("%+v, want this process", found)
	}
}

func TestListenersRefuses(t *testing.T) {
	var not *NotHereError
	if _, err := Listeners(t.Context(), at("192.0.2.1", 443)); !errors.As(err, &not) {
		t.Errorf("192.0.2.1: %v", err)
	}
	for _, addr := range []netip.AddrPort{{}, at("127.0.0.1", 0)} {
		if _, err := Listeners(t.Context(), addr); err == nil {
			t.Errorf("%s: no error", addr)
		}
	}
	addr := listen(t, "tcp4", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Listeners(ctx, addr); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context: %v", err)
	}
}

// startNginx starts a master that shares a port. nginx writes its pidfile when it
// listens.
func startNginx(t *testing.T, addr netip.AddrPort) *exec.Cmd {
	t.Helper()
	bin := program(t, "nginx")
	dir := t.TempDir()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	write(t, dir, map[string]string{"nginx.conf": user + fmt.Sprintf(`
daemon off; pid DIR/nginx.pid; worker_processes 2; error_log DIR/error.log;
events { worker_connections 16; }
http { access_log off; client_body_temp_path DIR/t1; proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3; uwsgi_temp_path DIR/t4; scgi_temp_path DIR/t5;
server { listen %s reuseport; } }`, addr)})
	cmd := exec.Command(bin, "-p", dir, "-e", dir+"/error.log", "-c", "nginx.conf")
	start(t, dir+"/nginx.pid", cmd)
	return cmd
}

// TestListenersOfNginx: two independent masters share a port, each with workers
// that hold the sockets too.
func TestListenersOfNginx(t *testing.T) {
	addr := listen(t, "tcp4", "127.0.0.1:0") // so that nobody else gets the port
	before := time.Now()
	first := startNginx(t, addr)
	second := startNginx(t, addr)
	found := mustListeners(t, addr)
	var pids []int
	for _, l := range found {
		pids = append(pids, l.PID)
		if l.PID == os.Getpid() {
			continue
		}
		if l.Name != "nginx" || l.Address != addr || l.Started.Before(before.Add(-time.Second)) || l.Started.After(time.Now().Add(time.Second)) {
			t.Errorf("%+v", l)
		}
		if want := fmt.Sprintf("nginx (process %d, started ", l.PID); !strings.HasPrefix(l.String(), want) {
			t.Errorf("%s, want %s", l, want)
		}
	}
	want := []int{os.Getpid(), first.Process.Pid, second.Process.Pid}
	slices.Sort(pids)
	slices.Sort(want)
	if !slices.Equal(pids, want) {
		t.Fatalf("processes %v, want %v", pids, want)
	}

	// Read its configuration by its pidfile alone.
	inv := usual().process(first.Process.Pid)
	if inv.kind != Nginx || !inv.exact || len(inv.configs) != 1 {
		t.Errorf("the running nginx is %+v", inv)
	}
	got, err := Reader{}.Pairs(t.Context(), Hint{PIDFiles: []string{inv.prefix + "/nginx.pid"}})
	if err != nil || got.Kind != Nginx || got.Config != inv.prefix+"/nginx.conf" {
		t.Errorf("%+v, %v", got, err)
	}

	if os.Geteuid() != 0 {
		t.Skip("the rest needs root")
	}
	t.Run("without rights", func(t *testing.T) {
		done := make(chan error, 1)
		var seen []Listener
		go func() {
			// This thread loses its rights, and ends with its goroutine.
			runtime.LockOSThread()
			const nobody = 65534
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
				done <- fmt.Errorf("setresuid: %w", errno)
				return
			}
			l, err := listeners(context.Background(), addr)
			seen = l
			done <- err
		}()
		err := <-done
		var hidden *HiddenError
		if !errors.As(err, &hidden) || !strings.Contains(err.Error(), "may not be looked into") || hidden.Hint() == "" {
			t.Errorf("%v, %+v", err, seen)
		}
		if slices.ContainsFunc(seen, func(l Listener) bool { return l.Name == "nginx" }) {
			t.Errorf("nobody saw %+v", seen)
		}
	})
}

func TestParseTCP(t *testing.T) {
	if nativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the lines are of a little-endian machine")
	}
	const rest = " 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
	for _, c := range []struct{ line, want string }{
		{"   0: 0100007F:01BB 00000000:0000 0A" + rest, "127.0.0.1:443"},
		{"   1: 00000000:0050 00000000:0000 0A" + rest, "0.0.0.0:80"},
		{"   2: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A" + rest, "[2001:db8::1]:443"},
		{"   3: 0000000000000000FFFF00000100007F:01BB 00000000000000000000000000000000:0000 0A" + rest, "[::ffff:127.0.0.1]:443"},
		{"   4: 0100007F:01BB 0100007F:8888 01" + rest, ""},
		{"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", ""},
		{"   5: 0100007F 0:0 0A" + rest, ""},
		{"   6: 0100007G:01BB 00000000:0000 0A" + rest, ""},
		{"   7: 0100007F:1BBBB 00000000:0000 0A" + rest, ""},
		{"   8: 0100:01BB 00000000:0000 0A" + rest, ""},
		{"", ""},
	} {
		s, ok := parseTCP(c.line)
		got := ""
		if ok {
			got = s.bound.String()
		}
		if got != c.want || ok && s.inode != 4711 {
			t.Errorf("%q: %s %d, want %s", c.line, got, s.inode, c.want)
		}
	}
}

func TestMasters(t *testing.T) {
	h := func(pid, parent int, name string, inodes ...uint64) holder {
		return holder{pid: pid, stat: procStat{name: name, parent: parent, ticks: int64(pid)}, inodes: inodes}
	}
	shut := h(5, 1, "nginx")
	shut.shut = true
	others := map[int]holder{1: h(1, 0, "systemd"), 5: shut, 6: h(6, 1, "bash")}
	for _, c := range []struct {
		name    string
		holders []holder
		want    []int
	}{
		{"a master and its workers", []holder{h(11, 10, "nginx", 1), h(10, 1, "nginx", 1), h(12, 10, "nginx", 1)}, []int{10}},
		{"two masters", []holder{h(11, 10, "nginx", 1), h(10, 6, "nginx", 1), h(20, 6, "nginx", 2), h(21, 20, "nginx", 2)}, []int{10, 20}},
		{"a master that holds one socket for each worker", []holder{h(10, 1, "nginx", 1, 2), h(11, 10, "nginx", 1), h(12, 10, "nginx", 2)}, []int{10}},
		{"workers whose master holds none", []holder{h(11, 6, "haproxy", 1), h(12, 6, "haproxy", 2)}, []int{11, 12}},
		{"a master that may not be looked into", []holder{h(11, 5, "nginx", 1), h(12, 5, "nginx", 1)}, []int{5}},
		{"another program that may not be looked into", []holder{h(11, 5, "php", 1)}, []int{11}},
		{"systemd keeps the socket", []holder{h(1, 0, "systemd", 1), h(30, 1, "httpd", 1)}, []int{1, 30}},
		{"process 1 is the master", []holder{h(1, 0, "nginx", 1), h(30, 1, "nginx", 1)}, []int{1}},
		{"parents in a circle", []holder{h(40, 41, "x", 1), h(41, 40, "x", 1)}, []int{40, 41}},
		{"nobody", nil, nil},
	} {
		var got []int
		for _, m := range masters(c.holders, func(pid int) (holder, bool) { o, ok := others[pid]; return o, ok }) {
			got = append(got, m.pid)
			if len(m.inodes) == 0 {
				t.Errorf("%s: %d has no socket", c.name, m.pid)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
