package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/netip"
	"sync"
	"time"
)

// visitor looks at the server from the outside, with a fresh handshake each
// time, and knows nothing of renewatch: what it sees is the proof.
type visitor struct {
	name  string
	roots *x509.CertPool
	addrs []netip.AddrPort
	// tell is called when an address is first seen and when what it serves
	// changes; from is then what it served before.
	tell func(addr netip.AddrPort, from, to string)

	mu    sync.Mutex
	sight map[netip.AddrPort]*sight
}

// sight is what was seen at one address.
type sight struct {
	serial string               // served last
	counts map[string]int       // handshakes by serial number
	last   map[string]time.Time // when each was last seen
	errors int
}

// watch shakes hands with every address ten times a second until ctx ends.
func (v *visitor) watch(ctx context.Context) {
	var wg sync.WaitGroup
	for _, addr := range v.addrs {
		wg.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				v.look(ctx, addr)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	wg.Wait()
}

func (v *visitor) look(ctx context.Context, addr netip.AddrPort) {
	serial, err := v.shake(ctx, addr)
	if ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	s := v.at(addr)
	if err != nil {
		s.errors++
		v.mu.Unlock()
		return
	}
	from := s.serial
	s.serial = serial
	s.counts[serial]++
	s.last[serial] = time.Now()
	v.mu.Unlock()
	if from != serial {
		v.tell(addr, from, serial)
	}
}

// at returns the sight of an address; v.mu is held.
func (v *visitor) at(addr netip.AddrPort) *sight {
	if v.sight == nil {
		v.sight = map[netip.AddrPort]*sight{}
	}
	s := v.sight[addr]
	if s == nil {
		s = &sight{counts: map[string]int{}, last: map[string]time.Time{}}
		v.sight[addr] = s
	}
	return s
}

// forget starts counting anew, keeping what was served last.
func (v *visitor) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.sight {
		s.counts, s.last, s.errors = map[string]int{}, map[string]time.Time{}, 0
	}
}

// lastSeen tells when any address last served serial, and in how many
// handshakes it was served since forget.
func (v *visitor) lastSeen(serial string) (at time.Time, handshakes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.sight {
		handshakes += s.counts[serial]
		if t := s.last[serial]; t.After(at) {
			at = t
		}
	}
	return at, handshakes
}

// shake makes one handshake, the chain verified against the CA's root alone.
func (v *visitor) shake(ctx context.Context, addr netip.AddrPort) (serial string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{ServerName: v.name, RootCAs: v.roots}}
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	return hex.EncodeToString(leaf.SerialNumber.Bytes()), nil
}
