package e2e

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The addresses of the tests in namespaces of their own: those that are reserved
// for documentation, on loopback interfaces that only the test has.
const (
	firstV4  = "192.0.2.10"
	secondV4 = "192.0.2.11"
	onlyV6   = "2001:db8::10"
)

// front is a name with more than one address, each served by an nginx of its
// own, in a namespace where the name is resolved by DNS.
type front struct {
	t       *testing.T
	name    string
	ca      *authority
	lineage *lineage
}

// newFront makes the name known under the given addresses. None of them is there
// yet.
func newFront(t *testing.T, addresses ...string) *front {
	t.Helper()
	f := &front{t: t, name: "www.e2e.test", ca: newAuthority(t)}
	var addrs []netip.Addr
	for _, a := range addresses {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	nameServer(t, map[string][]netip.Addr{f.name: addrs})
	f.lineage = newLineage(t, f.name, f.ca.aged(10*time.Hour, f.name))
	return f
}

// tls443 is an address with its port, as verdicts tell it.
func tls443(address string) string {
	return netip.AddrPortFrom(netip.MustParseAddr(address), 443).String()
}

// addAddress gives the namespace an address.
func addAddress(t *testing.T, address string) {
	t.Helper()
	if strings.Contains(address, ":") {
		iproute(t, "address", "add", address+"/128", "dev", "lo", "nodad")
		return
	}
	iproute(t, "address", "add", address+"/32", "dev", "lo")
}

// removeAddress takes it away. What is sent there then vanishes where a route
// leads to loopback: it swallows what is not for it.
func removeAddress(t *testing.T, address string) {
	t.Helper()
	iproute(t, "address", "del", address+"/32", "dev", "lo")
}

// serve starts an nginx at an address that is up.
func (f *front) serve(address string) *nginx {
	f.t.Helper()
	n := newNginx(f.t, tlsServer(f.name, f.lineage.cert, f.lineage.key, tls443(address)))
	awaitServed(f.t, tls443(address), f.name, f.lineage.leaf())
	return n
}

// daemon watches the name, without being told its addresses.
func (f *front) daemon(reload *counted, overrides ...string) *daemon {
	f.t.Helper()
	return newDaemon(f.t, "", serverBlock("nginx", reload.command())+
		verifying("nginx", f.ca.root, append([]string{"timeout", "2s", "every", "3s"}, overrides...)...)+
		certificateBlock(f.lineage.cert, "https://"+f.name))
}

// verdictAt is an event's verdict of one address.
func verdictAt(t *testing.T, e event, address string) verdict {
	t.Helper()
	i := slices.IndexFunc(e.Data.Verdicts, func(v verdict) bool { return v.Address == tls443(address) })
	if i < 0 {
		t.Fatalf("%s has no verdict of %s: %s", e.kind(), address, e.raw)
	}
	return e.Data.Verdicts[i]
}

// The name has an AAAA record and this host no IPv6: nothing can be said of that
// address, so it neither fails nor proves anything, and what IPv4 shows counts.
func TestNoRouteToIPv6(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		without func(t *testing.T)
	}{
		{"loopback-only", func(*testing.T) {}},
		{"private-only", func(t *testing.T) { addAddress(t, "fd00:e2e::1") }},
		{"switched-off", func(t *testing.T) {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1\n"), 0); err != nil {
				unavailable(t, "IPv6 cannot be switched off here: "+err.Error())
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !apart(t) {
				return
			}
			c.without(t)
			f := newFront(t, firstV4, onlyV6)
			addAddress(t, firstV4)
			n := f.serve(firstV4)
			reload := countedReload(t, shellQuote(n.reloadCommand()))
			d := f.daemon(reload)
			d.start()
			want := map[string]string{tls443(firstV4): "serving", tls443(onlyV6): "not_testable"}
			wantVerdicts(t, d.baseline(fingerprint(f.lineage.leaf())), want)

			after := f.ca.aged(time.Hour, f.name)
			f.lineage.put(after)
			verified := d.await("deploy.verified", about(after.SHA256()))
			wantVerdicts(t, verified, want)
			if v := verdictAt(t, verified, onlyV6); v.Severity != "info" || v.Samples != 0 {
				t.Errorf("the address that cannot be tested counts for something: %+v", v)
			}
			if !strings.Contains(string(verified.raw), `"why":"not_testable"`) {
				t.Errorf("deploy.verified does not tell which address was left out: %s", verified.raw)
			}
			wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
			reload.want(1)
			d.finish()
		})
	}
}

// The only address is an IPv6 one, and this host has none: nothing was tested, so
// nothing is verified and nothing failed.
func TestOnlyIPv6AndNoRoute(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	f := newFront(t, onlyV6)
	reload := countedReload(t, "exit 1")
	d := f.daemon(reload, "deadline", "10s")
	d.start()
	unverified := d.await("deploy.unverified")
	wantVerdicts(t, unverified, map[string]string{tls443(onlyV6): "not_testable"})
	if bad := only(d.journal(), "deploy.verified", "deploy.failed"); len(bad) != 0 {
		t.Errorf("said of what could not be tested:\n%s", tell(bad))
	}
	reload.want(0)
	d.finish()
}

// outages are the ways in which the second of two backends can be away.
var outages = []struct {
	name, code string
	away, back func(t *testing.T, second *nginx)
}{
	{
		"refused", "refused",
		func(_ *testing.T, second *nginx) { second.quit() },
		func(_ *testing.T, second *nginx) { second.start() },
	},
	{
		"dropped", "timeout",
		func(t *testing.T, _ *nginx) { removeAddress(t, secondV4) },
		func(t *testing.T, _ *nginx) { addAddress(t, secondV4) },
	},
	{
		"unreachable", "unreachable",
		func(t *testing.T, _ *nginx) {
			iproute(t, "route", "add", "unreachable", secondV4)
			removeAddress(t, secondV4)
		},
		func(t *testing.T, _ *nginx) { addAddress(t, secondV4) },
	},
}

// One of two backends goes away. It is down when it did not answer three times
// over 30 seconds, which is an error although the other one serves; nothing is
// reloaded for it; and it recovers.
func TestBackendGoesAway(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			if !apart(t) {
				return
			}
			f, second, reload := twoBackends(t)
			d := f.daemon(reload)
			d.start()
			d.baseline(fingerprint(f.lineage.leaf()))

			away := time.Now()
			o.away(t, second)
			lost := d.await("deploy.lost")
			wantVerdicts(t, lost, map[string]string{tls443(firstV4): "serving", tls443(secondV4): o.code})
			if v := verdictAt(t, lost, secondV4); v.Severity != "error" || lost.Data.Severity != "error" {
				t.Errorf("one of two addresses is down, severity %q of %q: %+v", v.Severity, lost.Data.Severity, v)
			}
			if said, err := time.Parse(time.RFC3339Nano, lost.Time); err != nil || said.Sub(away) < 30*time.Second {
				t.Errorf("said to be down after %v (%v)", said.Sub(away), err)
			}
			if lost.Data.Cause != "unreachable" {
				t.Errorf("deploy.lost has the cause %q", lost.Data.Cause)
			}
			o.back(t, second)
			recovered := d.await("deploy.recovered")
			wantVerdicts(t, recovered, map[string]string{tls443(firstV4): "serving", tls443(secondV4): "serving"})
			reload.want(0)
			d.finish()
		})
	}
}

// One of two backends is away while the certificate is renewed: the other one
// serves it, which is not enough to call it verified. When it is back with the
// new certificate, the deployment has recovered.
func TestBackendAwayDuringTheRenewal(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			if !apart(t) {
				return
			}
			f, second, reload := twoBackends(t)
			// Ten seconds after a reload a new probe begins.
			d := f.daemon(reload, "retries", "[0s, 1s, 2s]", "deadline", "11s")
			d.start()
			d.baseline(fingerprint(f.lineage.leaf()))

			o.away(t, second)
			after := f.ca.aged(time.Hour, f.name)
			f.lineage.put(after)
			failed := d.await("deploy.failed", about(after.SHA256()))
			wantVerdicts(t, failed, map[string]string{tls443(firstV4): "serving", tls443(secondV4): o.code})
			if v := verdictAt(t, failed, secondV4); v.Severity != "error" {
				t.Errorf("one of two addresses is down, which is an error: %+v", v)
			}
			if failed.Data.Cause != "unreachable" || !strings.Contains(failed.Data.Detail, "1 of 2 addresses") || !strings.Contains(failed.Data.Detail, tls443(secondV4)) {
				t.Errorf("deploy.failed does not name the address that is down: %s", failed.raw)
			}
			wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed")

			o.back(t, second)
			second.reload()
			awaitServed(t, tls443(secondV4), f.name, after.Cert)
			recovered := d.await("deploy.recovered", sameRenewal(failed))
			wantVerdicts(t, recovered, map[string]string{tls443(firstV4): "serving", tls443(secondV4): "serving"})
			wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed", "deploy.recovered")
			reload.want(1)
			d.finish()
		})
	}
}

// twoBackends is a name with two addresses that both serve, of which the first
// is the one that is reloaded.
func twoBackends(t *testing.T) (f *front, second *nginx, reload *counted) {
	t.Helper()
	f = newFront(t, firstV4, secondV4)
	iproute(t, "route", "add", "192.0.2.0/24", "dev", "lo")
	addAddress(t, firstV4)
	addAddress(t, secondV4)
	first := f.serve(firstV4)
	second = f.serve(secondV4)
	return f, second, countedReload(t, shellQuote(first.reloadCommand()))
}

// IPv6 is answered by an instance that nobody reloads. Happy Eyeballs would hide
// it or hide behind it; here each address that DNS gives is told by itself.
func TestOnlyIPv6IsStale(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	f := newFront(t, firstV4, onlyV6)
	addAddress(t, firstV4)
	addAddress(t, onlyV6)
	first, second := f.serve(firstV4), f.serve(onlyV6)
	before := f.lineage.leaf()
	reload := countedReload(t, shellQuote(first.reloadCommand()))
	d := f.daemon(reload, "deadline", "12s")
	d.start()
	wantVerdicts(t, d.baseline(fingerprint(before)), map[string]string{tls443(firstV4): "serving", tls443(onlyV6): "serving"})

	after := f.ca.aged(time.Hour, f.name)
	f.lineage.put(after)
	failed := d.await("deploy.failed", about(after.SHA256()))
	wantVerdicts(t, failed, map[string]string{tls443(firstV4): "serving", tls443(onlyV6): "stale"})
	if !strings.Contains(failed.Data.Detail, "1 of 2 addresses") || !strings.Contains(failed.Data.Detail, tls443(onlyV6)) || strings.Contains(failed.Data.Detail, firstV4) {
		t.Errorf("deploy.failed does not name the IPv6 address and nothing else: %q", failed.Data.Detail)
	}
	if v := verdictAt(t, failed, onlyV6); v.Served == nil || v.Served.SHA256 != fingerprint(before) || v.Matching != 0 {
		t.Errorf("the verdict does not tell what IPv6 serves: %+v", v)
	}
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "reload.done", "deploy.failed")
	reload.want(1)
	mustServe(t, tls443(firstV4), f.name, after.Cert)
	mustServe(t, tls443(onlyV6), f.name, before)

	second.reload()
	recovered := d.await("deploy.recovered", sameRenewal(failed))
	wantVerdicts(t, recovered, map[string]string{tls443(firstV4): "serving", tls443(onlyV6): "serving"})
	d.finish()
}

// The public address is not this host's: a load balancer answers there and goes
// on serving the old certificate, while nginx here has the new one. A reload here
// would be of no use, and none is made.
func TestPublicAddressIsElsewhere(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	f := newFront(t, firstV4)
	addAddress(t, firstV4)
	balancer := f.serve(firstV4)
	here := f.serve("127.0.0.1")
	before := f.lineage.leaf()
	reload := countedReload(t, shellQuote(here.reloadCommand()))
	d := f.daemon(reload, "deadline", "12s", "grace", "5s")
	d.start()
	d.baseline(fingerprint(before))

	after := f.ca.aged(time.Hour, f.name)
	f.lineage.put(after)
	here.reload()
	awaitServed(t, tls443("127.0.0.1"), f.name, after.Cert)
	failed := d.await("deploy.failed", about(after.SHA256()))
	wantVerdicts(t, failed, map[string]string{tls443(firstV4): "stale"})
	if failed.Data.Cause != "elsewhere" || failed.Data.Hint == "" {
		t.Errorf("deploy.failed does not tell that something else answers: %s", failed.raw)
	}
	wantKinds(t, of(d.journal(), failed.Data.RenewalID), "renewal.detected", "deploy.failed")
	reload.want(0)

	balancer.reload()
	d.await("deploy.recovered", sameRenewal(failed))
	reload.want(0)
	d.finish()
}

// check says in one shot what one of two backends being away means.
func TestCheckOfTwoBackends(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	f, second, _ := twoBackends(t)
	args := []string{"check", "--cert", f.lineage.cert, "--ca", f.ca.root, "--timeout", "2s", "https://" + f.name}
	if res := run(t, command(t, args...)); res.code != 0 {
		t.Errorf("both backends serve: %v", res)
	}
	second.quit()
	res := run(t, command(t, args...))
	if res.code != 2 || !strings.Contains(res.stdout, tls443(secondV4)) || !strings.Contains(res.stdout, "refused") {
		t.Errorf("one backend is away: %v", res)
	}
}
