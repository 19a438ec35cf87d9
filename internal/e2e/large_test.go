package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// An nginx with 2,000 server blocks takes seconds to read them: "nginx -s
// reload" reads them itself, then the running one reads them again, and until
// then it serves the old certificate. That is no failure and no reason to
// reload once more.
func TestLargeNginx(t *testing.T) {
	t.Parallel()
	const (
		blocks = 2000
		name   = "www.e2e.test"
	)
	ca := newAuthority(t)
	l := newLineage(t, name, ca.aged(10*time.Hour, name))
	others := make([]*lineage, 4)
	for i := range others {
		others[i] = newLineage(t, name, ca.aged(10*time.Hour, fmt.Sprintf("*.shard%d.e2e.test", i)))
	}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	var conf strings.Builder
	conf.WriteString("server_names_hash_max_size 8192;\nserver_names_hash_bucket_size 128;\n")
	for i := range blocks - 1 {
		shard := i % len(others)
		conf.WriteString(tlsServer(fmt.Sprintf("site%d.shard%d.e2e.test", i, shard), others[shard].cert, others[shard].key, addr))
	}
	conf.WriteString(tlsServer(name, l.cert, l.key, addr))
	n := newNginx(t, conf.String())
	before := l.leaf()
	awaitServed(t, addr, name, before)

	reload := countedReload(t, "date +%s.%N >>$0.times\n"+shellQuote(n.reloadCommand())+"\ncode=$?\ndate +%s.%N >>$0.times\nexit $code")
	// So far apart that a busy machine does not make a second reload due.
	d := newDaemon(t, "", serverBlock("nginx", reload.command())+
		verifying("nginx", ca.root, "deadline", "10m", "retries", "[0s, 8m, 9m]")+
		certificateBlock(l.cert, fmt.Sprintf("https://%s%s?address=%s", name, strings.TrimPrefix(addr, "127.0.0.1"), addr)))
	d.start()
	d.baseline(fingerprint(before))

	after := ca.aged(time.Hour, name)
	l.put(after)
	d.await("reload.done")
	awaitServed(t, addr, name, after.Cert)
	served := time.Now()
	verified := d.await("deploy.verified", about(after.SHA256()))
	wantKinds(t, of(d.journal(), verified.Data.RenewalID), "renewal.detected", "reload.done", "deploy.verified")
	reload.want(1)
	var began, ended float64
	if _, err := fmt.Sscan(readFile(t, reload.path+".times"), &began, &ended); err != nil {
		t.Fatal(err)
	}
	at := float64(served.UnixNano()) / 1e9
	t.Logf("%d server blocks: nginx -s reload took %.2f s, the new certificate was first seen %.2f s after its start; lag %.2f s",
		blocks, ended-began, at-began, *verified.Data.LagSeconds)
	d.finish()
}
