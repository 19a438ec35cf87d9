package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Listener is a process that listens on an address: of a server with several
// processes the one that started the others.
type Listener struct {
	PID     int
	Name    string         // the short name the kernel knows it by, printable
	Started time.Time      // to about a hundredth of a second
	Address netip.AddrPort // what it is bound to: [::]:443, for instance
}

// String says it in a few words: nginx (process 4711, started 2026-03-01 12:00:00).
func (l Listener) String() string {
	return fmt.Sprintf("%s (process %d, started %s)", l.Name, l.PID, l.Started.Format(time.DateTime))
}

// HiddenError says that there is a listener whose process may not be seen.
type HiddenError struct {
	Address netip.AddrPort
	Why     string
}

func (e *HiddenError) Error() string {
	return fmt.Sprintf("something listens on %s, and its process cannot be seen: %s", e.Address, e.Why)
}

// Hint says what can be done about it.
func (e *HiddenError) Hint() string {
	return "run renewatch as root, with CAP_SYS_PTRACE, and without ProtectProc= and PrivateUsers= in its unit, to have the process named"
}

// NotHereError says that an address is not one of this host.
type NotHereError struct{ Address netip.Addr }

func (e *NotHereError) Error() string {
	return e.Address.String() + " is not an address of this host"
}

// maxListeners bounds what is returned.
const maxListeners = 64

// Listeners returns the processes that the kernel gives a TCP connection to addr,
// in this network namespace: those bound to the very address, else to all
// addresses of its family, else, for IPv4, to [::]. Several are returned when
// independent processes share the port by SO_REUSEPORT.
//
// Nobody listening is no error. A HiddenError comes with the listeners that could
// be seen, if any; a NotHereError says that addr belongs to another host. A
// socket that is bound to [::] alone may refuse IPv4: nobody can see that from
// outside.
func Listeners(ctx context.Context, addr netip.AddrPort) ([]Listener, error) {
	if !addr.IsValid() || addr.Port() == 0 {
		return nil, fmt.Errorf("%s is no address to listen on", addr)
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
	if !local(addr.Addr()) {
		return nil, &NotHereError{addr.Addr()}
	}
	return listeners(ctx, addr)
}

// local reports whether this host has an address. It asks by binding a UDP socket
// to it, which sends nothing, and which a service that may not open netlink
// sockets may do. In doubt the answer is yes.
func local(addr netip.Addr) bool {
	if addr.IsUnspecified() || addr.IsLinkLocalUnicast() {
		return true
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return !errors.Is(err, syscall.EADDRNOTAVAIL)
	}
	conn.Close()
	return true
}

// socket is a listening socket.
type socket struct {
	inode uint64
	bound netip.AddrPort
}

// best are the sockets the kernel looks for first.
func best(sockets []socket, addr netip.AddrPort) []socket {
	rank := func(s socket) int {
		bound := s.bound.Addr()
		switch {
		case s.bound.Port() != addr.Port():
			return 0
		case bound.Unmap() == addr.Addr():
			return 3
		case !bound.IsUnspecified():
			return 0
		case bound.Is4() == addr.Addr().Is4():
			return 2
		case bound.Is6():
			return 1
		}
		return 0
	}
	top := 1
	var found []socket
	for _, s := range sockets {
		if n := rank(s); n > top {
			top, found = n, []socket{s}
		} else if n == top {
			found = append(found, s)
		}
	}
	return found
}

// parseTCP reads a line of /proc/net/tcp or tcp6. It reports false for a line
// that is none, or of a socket that does not listen.
func parseTCP(text string) (s socket, ok bool) {
	f := strings.Fields(text)
	const listening = "0A"
	if len(f) < 10 || f[3] != listening {
		return socket{}, false
	}
	host, port, ok := strings.Cut(f[1], ":")
	if !ok {
		return socket{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return socket{}, false
	}
	addr, ok := parseWords(host)
	if !ok {
		return socket{}, false
	}
	inode, err := strconv.ParseUint(f[9], 10, 64)
	if err != nil || inode == 0 {
		return socket{}, false
	}
	return socket{inode, netip.AddrPortFrom(addr, uint16(p))}, true
}

// parseWords reads an address as the kernel prints it: 32 bits at a time, each in
// the byte order of the machine.
func parseWords(hex string) (netip.Addr, bool) {
	if len(hex) != 8 && len(hex) != 32 {
		return netip.Addr{}, false
	}
	var raw []byte
	for ; hex != ""; hex = hex[8:] {
		word, err := strconv.ParseUint(hex[:8], 16, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		raw = nativeEndian.AppendUint32(raw, uint32(word))
	}
	return netip.AddrFromSlice(raw)
}

// procStat is what /proc/PID/stat says.
type procStat struct {
	name   string
	state  byte // R, S, D, T, Z ...
	parent int
	ticks  int64 // since boot, a hundred a second
}

// parseStat reads /proc/PID/stat. The name in parentheses may hold blanks and
// parentheses itself.
func parseStat(stat string) (procStat, bool) {
	from, to := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return procStat{}, false
	}
	f := strings.Fields(stat[to+1:])
	if len(f) < 20 || len(f[0]) != 1 {
		return procStat{}, false
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil || parent < 0 {
		return procStat{}, false
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	if err != nil || ticks < 0 || ticks > 1<<40 {
		return procStat{}, false
	}
	return procStat{name: stat[from+1 : to], state: f[0][0], parent: parent, ticks: ticks}, true
}

// printable makes a name fit to be shown.
func printable(name string) string {
	const most = 64
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return '?'
		}
		return c
	}, name[:min(len(name), most)])
}

// holder is a process that holds one of the sockets, or an ancestor of one.
type holder struct {
	pid    int
	stat   procStat
	inodes []uint64 // those it holds
	shut   bool     // what it holds may not be seen
}

// masters are the topmost holders: from each holder up, as long as the parent
// holds one of the same sockets, or bears the same name and may not be looked
// into. look finds a parent.
func masters(holders []holder, look func(pid int) (holder, bool)) []holder {
	known := map[int]holder{}
	for _, h := range holders {
		known[h.pid] = h
	}
	var tops []holder
	for _, h := range holders {
		top, inodes := h, h.inodes
		for range 64 {
			up, ok := known[top.stat.parent]
			if !ok {
				if up, ok = look(top.stat.parent); !ok {
					break
				}
			}
			if up.pid == 1 && up.stat.name != top.stat.name {
				break // systemd, which keeps the sockets of services
			}
			shares := slices.ContainsFunc(up.inodes, func(i uint64) bool { return slices.Contains(inodes, i) })
			if !shares && !(up.shut && up.stat.name == top.stat.name) {
				break
			}
			if shares {
				inodes = up.inodes
			}
			top = up
		}
		top.inodes = inodes
		if !slices.ContainsFunc(tops, func(t holder) bool { return t.pid == top.pid }) {
			tops = append(tops, top)
		}
	}
	slices.SortFunc(tops, func(a, b holder) int {
		return cmp.Or(cmp.Compare(a.stat.ticks, b.stat.ticks), cmp.Compare(a.pid, b.pid))
	})
	return tops
}
