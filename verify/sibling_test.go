package verify

import (
	"crypto/tls"
	"testing"
	"time"
)

// The leaf of another watched lineage is in order, and yet it proves nothing of
// the one that is expected.
func TestSiblingProvesNothing(t *testing.T) {
	ca := newCA(t)
	mine, other := ca.issue(t, spec{}), ca.issue(t, spec{names: []string{"localhost", "also.example"}})
	target := Target{Endpoint: local(t, start(t, tlsHandler(&tls.Config{Certificates: []tls.Certificate{other.tls()}}))),
		Expect: Expectation{Chain: mine.chain, Siblings: []Fingerprint{FingerprintOf(other.leaf())}}}
	p := &Prober{Roots: ca.pool()}
	v := check(t, p, target, 2)
	if v.Siblings != 2 || v.Matching != 2 || v.CountsAsServing() {
		t.Errorf("%d of %d samples are a sibling's; counts as serving: %v", v.Siblings, v.Matching, v.CountsAsServing())
	}
	for _, v := range p.Confirm(t.Context(), target, Window{Samples: 3, Spread: 20 * time.Millisecond, Fast: 10 * time.Millisecond}) {
		if !v.Whole || v.Siblings != v.Samples {
			t.Errorf("a whole window of a sibling's leaf: %+v", v)
		}
	}
}
