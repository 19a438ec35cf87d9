package watchdog

import (
	"net/netip"
	"path/filepath"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// Memory is what a daemon remembers of a certificate that a single look can use.
type Memory struct {
	History   []verify.Fingerprint
	Confirmed map[string]bool // default endpoints that served the lineage
}

// Remembered reads what a daemon with this state directory remembers of a
// certificate; nothing when there is none or it may not be read.
func Remembered(stateDir, name string) Memory {
	var s State
	if readJSON(filepath.Join(stateDir, "certificates", notify.Token(name)+".json"), &s) != nil || s.Name != name {
		return Memory{}
	}
	m := Memory{Confirmed: s.Confirmed}
	for _, h := range s.History {
		if sum, ok := parseFingerprint(h.SHA256); ok {
			m.History = append(m.History, sum)
		}
	}
	return m
}

// DefaultEndpoints returns https:// for each of a leaf's DNS names that is no
// wildcard.
func DefaultEndpoints(names []string) []verify.Endpoint {
	var out []verify.Endpoint
	for _, name := range names {
		if _, err := netip.ParseAddr(name); err == nil {
			continue
		}
		if e, err := verify.ParseEndpoint("https://" + name); err == nil && !e.Wildcard() {
			out = append(out, e)
		}
	}
	return out
}
