package discover

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var nativeEndian = binary.NativeEndian

const (
	maxTCP       = 256 << 20 // bytes of /proc/net/tcp; a busy host has 150 for each connection
	maxProcesses = 1 << 18
	maxHandles   = 1 << 22 // open files of all processes
)

// listeners finds the processes behind the sockets that addr leads to.
func listeners(ctx context.Context, addr netip.AddrPort) ([]Listener, error) {
	sockets, err := listening(ctx)
	if err != nil {
		return nil, err
	}
	wanted := map[uint64]netip.AddrPort{}
	for _, s := range best(sockets, addr) {
		wanted[s.inode] = s.bound
	}
	if len(wanted) == 0 {
		return nil, ctx.Err()
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return nil, fmt.Errorf("the time since boot is not known: %w", err)
	}
	boot := time.Now().Add(-time.Duration(up.Nano()))

	p := usual()
	s := &search{places: p, wanted: wanted}
	if err := s.all(ctx); err != nil {
		return nil, err
	}
	tops := masters(s.holders, func(pid int) (holder, bool) {
		st, err := p.stat(pid)
		if err != nil {
			return holder{}, false
		}
		_, shut := s.shut[pid]
		return holder{pid: pid, stat: st, shut: shut}, true
	})
	seen := map[uint64]bool{}
	var found []Listener
	for _, h := range s.holders {
		for _, inode := range h.inodes {
			seen[inode] = true
		}
	}
	for _, h := range tops[:min(len(tops), maxListeners)] {
		found = append(found, Listener{
			PID: h.pid, Name: printable(h.stat.name), Address: wanted[h.inodes[0]],
			// Ticks in /proc are 1/100 s on every architecture.
			Started: boot.Add(time.Duration(h.stat.ticks) * 10 * time.Millisecond),
		})
	}
	if len(seen) < len(wanted) {
		why := "it is hidden from this process (hidepid, ProtectProc=, or another PID namespace)"
		if len(s.shut) > 0 {
			why = fmt.Sprintf("%d processes may not be looked into", len(s.shut))
		}
		if s.cut {
			why = "there are too many processes or open files on this host to look at all"
		}
		return found, &HiddenError{addr, why}
	}
	return found, nil
}

// listening returns the TCP sockets of this network namespace that listen. Where
// a service sees only processes in /proc (ProcSubset=pid), /proc/net is not
// there, and this is.
func listening(ctx context.Context) ([]socket, error) {
	var sockets []socket
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + table)
		if errors.Is(err, fs.ErrNotExist) && table == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("the sockets of this host cannot be seen: %w", err)
		}
		lines := bufio.NewScanner(io.LimitReader(f, maxTCP))
		for n := 0; lines.Scan(); n++ {
			if n%1024 == 0 && ctx.Err() != nil {
				break
			}
			if s, ok := parseTCP(lines.Text()); ok {
				sockets = append(sockets, s)
			}
		}
		err = lines.Err()
		f.Close()
		if err = cmp.Or(ctx.Err(), err); err != nil {
			return nil, err
		}
	}
	return sockets, nil
}

func (p *places) stat(pid int) (procStat, error) {
	if pid <= 0 {
		return procStat{}, fs.ErrNotExist
	}
	data, err := readProc(p.of(pid, "stat"), 4096)
	if err != nil {
		return procStat{}, err
	}
	st, ok := parseStat(string(data))
	if !ok {
		return procStat{}, fs.ErrInvalid
	}
	return st, nil
}

// search looks for the holders of sockets among all processes.
type search struct {
	*places
	wanted  map[uint64]netip.AddrPort
	holders []holder
	shut    map[int]bool // processes that may not be looked into
	handles int
	cut     bool // a bound was reached
}

func (s *search) all(ctx context.Context) error {
	s.shut = map[int]bool{}
	dir, err := os.Open(s.proc)
	if err != nil {
		return fmt.Errorf("the processes of this host cannot be seen: %w", err)
	}
	defer dir.Close()
	for n := 0; n < maxProcesses; {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
				n++
				s.process(ctx, pid)
			}
		}
		if err != nil {
			break
		}
		if n >= maxProcesses {
			s.cut = true
		}
	}
	// systemd keeps the sockets it listens on for services: the service is meant.
	if len(s.holders) > 1 {
		s.holders = slices.DeleteFunc(s.holders, func(h holder) bool {
			return h.pid == 1 && !slices.ContainsFunc(s.holders, func(o holder) bool { return o.pid != 1 && o.stat.name == h.stat.name })
		})
	}
	return ctx.Err()
}

// process looks at the open files of one process.
func (s *search) process(ctx context.Context, pid int) {
	before, err := s.stat(pid)
	if err != nil {
		return
	}
	dir, err := os.Open(s.of(pid, "fd"))
	if err != nil {
		s.refused(pid, err)
		return
	}
	defer dir.Close()
	var inodes []uint64
	buf := make([]byte, 64)
	for ctx.Err() == nil && !s.cut {
		names, err := dir.Readdirnames(1024)
		if s.handles += len(names); s.handles > maxHandles {
			s.cut = true
		}
		for _, name := range names {
			n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
			if err != nil {
				if s.refused(pid, err) {
					return
				}
				continue
			}
			if inode, ok := socketInode(string(buf[:n])); ok && !slices.Contains(inodes, inode) {
				if _, want := s.wanted[inode]; want {
					inodes = append(inodes, inode)
				}
			}
		}
		if err != nil || len(inodes) == len(s.wanted) {
			break
		}
	}
	if len(inodes) == 0 {
		return
	}
	// The number may have passed to another process meanwhile.
	if after, err := s.stat(pid); err == nil && after.ticks == before.ticks {
		s.holders = append(s.holders, holder{pid: pid, stat: after, inodes: inodes})
	}
}

// refused notes a process that may not be looked into.
func (s *search) refused(pid int, err error) bool {
	if errors.Is(err, fs.ErrPermission) {
		s.shut[pid] = true
		return true
	}
	return false
}

// socketInode reads socket:[4711].
func socketInode(link string) (uint64, bool) {
	inner, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	inner, ok = strings.CutSuffix(inner, "]")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(inner, 10, 64)
	return inode, err == nil && inode > 0
}
