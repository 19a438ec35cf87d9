package watchdog

import (
	"slices"
	"strings"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// index finds the watched leaves by name, wildcards included.
type index struct {
	leaves map[string][]sibling // DNS name -> the certificates for it
	names  map[string][]string  // certificate -> names it is under
}

// sibling is the leaf of a watched certificate.
type sibling struct {
	name string // of the certificate
	leaf verify.Fingerprint
}

func newIndex() index {
	return index{leaves: map[string][]sibling{}, names: map[string][]string{}}
}

// set makes leaf the one of certificate.
func (x index) set(certificate string, leaf notify.Certificate) {
	sum, ok := parseFingerprint(leaf.SHA256)
	if !ok {
		return
	}
	if names := x.names[certificate]; len(names) > 0 && slices.Contains(x.leaves[names[0]], sibling{certificate, sum}) {
		return
	}
	x.remove(certificate)
	x.names[certificate] = leaf.Names
	for _, n := range leaf.Names {
		x.leaves[n] = append(x.leaves[n], sibling{certificate, sum})
	}
}

func (x index) remove(certificate string) {
	for _, n := range x.names[certificate] {
		left := slices.DeleteFunc(slices.Clone(x.leaves[n]), func(s sibling) bool { return s.name == certificate })
		if x.leaves[n] = left; len(left) == 0 {
			delete(x.leaves, n)
		}
	}
	delete(x.names, certificate)
}

// others returns the leaves of other certificates that cover name.
func (x index) others(certificate, name string) []sibling {
	var out []sibling
	_, parent, _ := strings.Cut(name, ".")
	for _, n := range []string{name, "*." + parent} {
		for _, s := range x.leaves[n] {
			if s.name != certificate {
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out, func(a, b sibling) int { return strings.Compare(a.name, b.name) })
	return out
}

func fingerprints(siblings []sibling) []verify.Fingerprint {
	out := make([]verify.Fingerprint, len(siblings))
	for i, s := range siblings {
		out[i] = s.leaf
	}
	return out
}
