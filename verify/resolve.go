package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Resolver turns a name into addresses; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// answer is what an endpoint's addresses are found to be.
type answer struct {
	dial  []netip.AddrPort // in the order in which verdicts are told
	fixed []Verdict        // of what is not dialled
	more  int              // addresses left out
	lost  bool             // the name gave no address, now
}

// lookup finds the addresses of the bench's target.
func (p *Prober) lookup(ctx context.Context, e Endpoint, b *bench, timeout time.Duration) answer {
	fixed := func(addr netip.AddrPort, code Code, detail, hint string) Verdict {
		return Verdict{Endpoint: e, Address: addr, Transport: "tcp", KeyType: b.keyType, Expected: b.leaf,
			Code: code, Faults: []Code{code}, Severity: code.severity(), Detail: detail, Hint: hint}
	}
	if e.Wildcard() {
		name := e.Name()
		if !strings.HasPrefix(name, "*.") {
			name = e.host
		}
		return answer{fixed: []Verdict{fixed(netip.AddrPort{}, Unverifiable,
			fmt.Sprintf("%s is a wildcard, which nobody can connect to", name),
			"name a host that the wildcard covers, such as "+e.scheme+"://www."+strings.TrimPrefix(name, "*.")+" (or servername= with it)")}}
	}
	if given := e.Addresses(); given != nil {
		return answer{dial: given}
	}
	if addr, err := netip.ParseAddr(e.host); err == nil {
		return answer{dial: []netip.AddrPort{netip.AddrPortFrom(addr, e.port)}}
	}

	local := e.host == "localhost" || strings.HasSuffix(e.host, ".localhost")
	addrs, err := p.resolve(ctx, e.host, timeout)
	if err != nil && local {
		// RFC 6761: such names are loopback, whatever DNS says of them.
		addrs, err = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
	}
	if err != nil {
		v := fixed(netip.AddrPort{}, Unresolved, "", "")
		v.Detail, v.Hint, v.ResolverDown = resolveSentence(e.host, err)
		return answer{fixed: []Verdict{v}, lost: true}
	}
	var a answer
	if len(addrs) > MaxAddresses {
		a.more = len(addrs) - MaxAddresses
		addrs = addrs[:MaxAddresses]
	}
	for _, addr := range addrs {
		ap := netip.AddrPortFrom(addr, e.port)
		// Linux connects 0.0.0.0 and :: to itself.
		if (addr.IsLoopback() || addr.IsUnspecified()) && !local {
			a.fixed = append(a.fixed, fixed(ap, Unverifiable,
				fmt.Sprintf("on this host %s is %s, the host itself: the outside sees another address", e.host, addr),
				"take the name out of /etc/hosts (Debian writes 127.0.1.1 there), or say the address to dial with address=IP in the endpoint"))
			continue
		}
		a.dial = append(a.dial, ap)
	}
	return a
}

// resolve asks for the addresses of host, sorted, each once.
func (p *Prober) resolve(ctx context.Context, host string, timeout time.Duration) ([]netip.Addr, error) {
	if !p.enter(ctx) {
		return nil, ctx.Err()
	}
	defer p.leave()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var r Resolver = net.DefaultResolver
	if p.Resolver != nil {
		r = p.Resolver
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if a.IsValid() {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

func resolveSentence(host string, err error) (detail, hint string, resolverDown bool) {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("%s has no address (NXDOMAIN, or no A and AAAA record)", host),
			"correct the name or its DNS records; address=IP in the endpoint says what to dial without asking", false
	case errors.As(err, &dns) && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the resolver did not answer for %s in time", host), "check the resolver of this host (/etc/resolv.conf)", true
	case errors.Is(err, context.Canceled):
		return fmt.Sprintf("the search for the address of %s was broken off", host), "", true
	case errors.As(err, &dns) && strings.Contains(dns.Err, "server misbehaving"):
		return fmt.Sprintf("the resolver failed for %s (SERVFAIL)", host), "check the zone's name servers and DNSSEC, and the resolver of this host", true
	}
	return fmt.Sprintf("the resolver failed for %s: %s", host, printable(err.Error(), 120)), "check the resolver of this host (/etc/resolv.conf)", true
}
