package certtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server over TCP that answers A and AAAA questions from a table.
type DNS struct {
	hosts map[string][]netip.Addr
	ln    net.Listener
	wg    sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	done  bool
}

// NewDNS starts a name server on a free port of 127.0.0.1. With a nil table
// every name has the address 127.0.0.1; else names that are not in it do not
// exist.
func NewDNS(hosts map[string][]netip.Addr) (*DNS, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &DNS{hosts: hosts, ln: ln, conns: map[net.Conn]struct{}{}}
	d.wg.Go(d.accept)
	return d, nil
}

// Addr is where the name server listens, host:port.
func (d *DNS) Addr() string { return d.ln.Addr().String() }

// Resolver resolves by this name server alone.
func (d *DNS) Resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo:     true,
		StrictErrors: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", d.Addr())
		},
	}
}

// Close ends everything and waits for it.
func (d *DNS) Close() {
	d.ln.Close()
	d.mu.Lock()
	d.done = true
	for c := range d.conns {
		c.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

func (d *DNS) accept() {
	for {
		conn, err := d.ln.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		if d.done {
			d.mu.Unlock()
			conn.Close()
			return
		}
		d.conns[conn] = struct{}{}
		d.mu.Unlock()
		d.wg.Go(func() {
			defer func() {
				conn.Close()
				d.mu.Lock()
				delete(d.conns, conn)
				d.mu.Unlock()
			}()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			for d.exchange(conn) == nil {
			}
		})
	}
}

// exchange answers one question; over TCP each message follows its length.
func (d *DNS) exchange(conn net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return err
	}
	if m.Response || len(m.Questions) != 1 {
		return errors.New("not a question")
	}
	q := m.Questions[0]
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: m.ID, Response: true, Authoritative: true,
			RecursionDesired: m.RecursionDesired, RecursionAvailable: true,
		},
		Questions: m.Questions,
	}
	addrs, known := d.lookup(q.Name.String())
	if !known {
		answer.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			answer.Answers = append(answer.Answers,
				dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			answer.Answers = append(answer.Answers,
				dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	packed, err := answer.AppendPack(make([]byte, 2, 514))
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(packed, uint16(len(packed)-2))
	_, err = conn.Write(packed)
	return err
}

func (d *DNS) lookup(name string) (addrs []netip.Addr, known bool) {
	if d.hosts == nil {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, true
	}
	addrs, known = d.hosts[strings.ToLower(strings.TrimSuffix(name, "."))]
	return addrs, known
}
