package watchdog

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// An attempt is told to the certificates that it is about, and to no others.
func TestConcerned(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	log := watch.Log{Client: acmelog.Certbot, File: "/var/log/acme.log"}
	const le = "/etc/letsencrypt/live/"
	type watched struct{ name, path, names string }
	two := []watched{{"www", le + "www/fullchain.pem", "a.example b.example"}, {"www-0001", le + "www-0001/fullchain.pem", "a.example b.example"}}
	lego := []watched{{"a", "/var/lego/certificates/a.example.crt", "a.example"}, {"b", "/var/lego/certificates/b.example.crt", "b.example"}}
	flat := []watched{{"a", "/etc/haproxy/certs/a.pem", "a.example"}, {"b", "/etc/haproxy/certs/b.pem", "b.example"}}
	both := []watched{{"rsa", "/root/.acme.sh/a.example/fullchain.cer", "a.example"}, {"ecc", "/root/.acme.sh/a.example_ecc/fullchain.cer", "a.example"}}
	caddy := []watched{
		{"a", "/var/lib/caddy/certificates/acme-v02.api.letsencrypt.org-directory/a.example/a.example.crt", "a.example"},
		{"w", "/var/lib/caddy/certificates/acme-v02.api.letsencrypt.org-directory/wildcard_.a.example/wildcard_.a.example.crt", "*.a.example"},
	}
	for _, x := range []struct {
		what    string
		watched []watched
		a       notify.Attempt
		left    time.Duration // of the leaves on disk
		want    string
	}{
		{"by lineage, of two that have the same names", two, notify.Attempt{Client: "certbot", Lineage: "www-0001", Names: []string{"a.example", "b.example"}}, 60, "www-0001"},
		{"by names, which says nothing of which", two, notify.Attempt{Client: "certbot", Names: []string{"a.example"}, NamesOmitted: 1}, 60, "www www-0001"},
		{"the failure of a lineage that nobody watches", two[:1], notify.Attempt{Client: "certbot", Outcome: "failed", Lineage: "www-0001", Names: []string{"a.example", "b.example"}}, 10, ""},
		{"its success, while this one is fine", two[:1], notify.Attempt{Client: "certbot", Outcome: "issued", Lineage: "www-0001", Names: []string{"a.example", "b.example"}}, 60, ""},
		{"its success, where this one should have been renewed", two[:1], notify.Attempt{Client: "certbot", Outcome: "issued", Lineage: "www-0001", Names: []string{"a.example", "b.example"}}, 10, "www"},
		{"by a file of the archive", two, notify.Attempt{Client: "certbot", Saved: []string{"/etc/letsencrypt/archive/www/privkey7.pem"}}, 60, "www"},
		{"by a file beside that of another", lego, notify.Attempt{Client: "lego", Saved: []string{"/var/lego/certificates/a.example.key"}}, 60, "a"},
		{"by the file's name", lego, notify.Attempt{Client: "lego", Lineage: "b.example"}, 60, "b"},
		{"by a file in a directory that all share", flat, notify.Attempt{Client: "acme.sh", Saved: []string{"/etc/haproxy/certs/b.key"}}, 60, "b"},
		{"by the directory of the key type", both, notify.Attempt{Client: "acme.sh", Lineage: "a.example", Names: []string{"a.example"}, Saved: []string{"/root/.acme.sh/a.example_ecc/a.example.cer"}}, 60, "ecc"},
		{"of both key types, as far as it tells", both, notify.Attempt{Client: "acme.sh", Lineage: "a.example", Names: []string{"a.example"}}, 60, "ecc rsa"},
		{"by the directory that Caddy makes", caddy, notify.Attempt{Client: "caddy", Lineage: "a.example", Names: []string{"a.example"}}, 60, "a"},
		{"by the name of a wildcard", caddy, notify.Attempt{Client: "caddy", Names: []string{"*.a.example"}}, 60, "w"},
		{"without a word, of the only one", lego[:1], notify.Attempt{Client: "uacme"}, 60, "a"},
		{"without a word, of one of two", lego, notify.Attempt{Client: "uacme"}, 60, ""},
		{"of a stranger", lego[:1], notify.Attempt{Client: "lego", Names: []string{"c.example"}}, 60, ""},
		{"of fewer names", two[:1], notify.Attempt{Client: "certbot", Names: []string{"a.example"}}, 60, ""},
	} {
		t.Run(x.what, func(t *testing.T) {
			k := &Keeper{clock: fixed(now), certs: map[string]*cert{}}
			for _, w := range x.watched {
				c := &cert{path: w.path, conf: &Certificate{Logs: []watch.Log{log}}, policy: Policy{Name: w.name}}
				end := now.Add(x.left * 24 * time.Hour)
				c.state.Disk = &Disk{Leaf: notify.Certificate{Names: strings.Fields(w.names), NotBefore: end.Add(-90 * 24 * time.Hour), NotAfter: end}}
				k.certs[w.name] = c
			}
			var got []string
			for _, c := range k.concerned(log, x.a) {
				got = append(got, c.policy.Name)
			}
			slices.Sort(got)
			if strings.Join(got, " ") != x.want {
				t.Errorf("%v, want %q", got, x.want)
			}
			if about := k.concerned(watch.Log{File: "/another"}, x.a); about != nil {
				t.Errorf("a log that none of them names tells of %d", len(about))
			}
		})
	}
}

type fixed time.Time

func (f fixed) Now() time.Time    { return time.Time(f) }
func (fixed) Boot() time.Duration { return 0 }

// Whatever times a log tells, the attempt can be written.
func TestAttemptWithImpossibleTimes(t *testing.T) {
	zone := time.FixedZone("", -5*3600)
	for _, at := range []time.Time{{}, time.Date(9999, 12, 31, 23, 0, 0, 0, zone), time.Date(0, 1, 1, 0, 0, 0, 0, zone), time.Date(-5, 1, 1, 0, 0, 0, 0, zone), time.Unix(1<<50, 0)} {
		a := WireAttempt(acmelog.Attempt{Client: acmelog.Caddy, Started: at, Ended: at, RetryAfter: at})
		if text, err := json.Marshal(State{Trying: &Trying{Last: &Try{Attempt: a}}}); err != nil || !a.Started.IsZero() {
			t.Errorf("%v: %s, %v", at, text, err)
		}
	}
	if at := time.Date(2027, 3, 1, 7, 0, 0, 0, zone); !WireAttempt(acmelog.Attempt{Started: at}).Started.Equal(at) {
		t.Error("a time that can be told is not")
	}
}
