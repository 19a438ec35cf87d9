package verify

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestADialThatIsCutOffIsNoTimeout: what a probe's end cuts off says nothing of
// the address, also where the dialer is back before the context says so.
func TestADialThatIsCutOffIsNoTimeout(t *testing.T) {
	addr := deaf(t)
	var p Prober
	p.init()
	e, err := ParseEndpoint("tls://" + addr.String())
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Endpoint: e, Timeout: 2 * time.Second}
	s := p.sampler(target, p.bench(target), addr)
	for i := range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		x := s.take(ctx)
		cancel()
		if !x.interrupted {
			t.Fatalf("sample %d: %s: %s", i, x.code, x.why)
		}
	}
}

// deaf returns an address whose connections are neither taken nor refused: its
// queue is full.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	for range 16 {
		conn, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).Dial("tcp", addr.String())
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("the queue of a listener cannot be filled here")
	return addr
}
