package watchdog

import (
	"slices"
	"strings"

	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/verify"
)

// index finds the watched leaves by name, wildcards included.
type index struct {
	leaves map[string]map[string]verify.Fingerprint // DNS name -> certificate -> leaf
	names  map[string][]string                      // certificate -> names it is under
}

func newIndex() index {
	return index{leaves: map[string]map[string]verify.Fingerprint{}, names: map[string][]string{}}
}

// set makes leaf the one of certificate.
func (x index) set(certificate string, leaf notify.Certificate) {
	sum, ok := parseFingerprint(leaf.SHA256)
	if !ok {
		return
	}
	if names := x.names[certificate]; len(names) > 0 && x.leaves[names[0]][certificate] == sum {
		return
	}
	x.remove(certificate)
	x.names[certificate] = leaf.Names
	for _, n := range leaf.Names {
		if x.leaves[n] == nil {
			x.leaves[n] = map[string]verify.Fingerprint{}
		}
		x.leaves[n][certificate] = sum
	}
}

func (x index) remove(certificate string) {
	for _, n := range x.names[certificate] {
		delete(x.leaves[n], certificate)
		if len(x.leaves[n]) == 0 {
			delete(x.leaves, n)
		}
	}
	delete(x.names, certificate)
}

// sibling is the leaf of another watched certificate for the same name.
type sibling struct {
	name string
	leaf verify.Fingerprint
}

func fingerprints(siblings []sibling) []verify.Fingerprint {
	out := make([]verify.Fingerprint, len(siblings))
	for i, s := range siblings {
		out[i] = s.leaf
	}
	return out
}

// others returns the leaves of other certificates that cover name.
func (x index) others(certificate, name string) []sibling {
	var out []sibling
	_, parent, _ := strings.Cut(name, ".")
	for _, n := range []string{name, "*." + parent} {
		for c, sum := range x.leaves[n] {
			if c != certificate {
				out = append(out, sibling{c, sum})
			}
		}
	}
	slices.SortFunc(out, func(a, b sibling) int { return strings.Compare(a.name, b.name) })
	return out
}
