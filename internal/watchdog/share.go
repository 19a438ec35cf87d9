package watchdog

import (
	"slices"
	"unique"

	"github.com/renewatch/renewatch/notify"
)

// There may be ten thousand states, and each tells the same of its leaf several
// times: in here equal texts become the same one.

// without deletes a certificate from a set. An empty map would keep the memory of
// all that it ever held.
func without(set map[string]*cert, name string) map[string]*cert {
	if set[name] == nil {
		return set
	}
	if len(set) == 1 {
		return map[string]*cert{}
	}
	delete(set, name)
	return set
}

// same makes text the other one where they are equal.
func same(text *string, other string) {
	if *text == other {
		*text = other
	}
}

// share makes the texts of a leaf those of another one that is the same.
func share(leaf *notify.Certificate, other notify.Certificate) {
	if leaf.SHA256 != other.SHA256 {
		return
	}
	leaf.SHA256 = other.SHA256
	same(&leaf.Name, other.Name)
	same(&leaf.Path, other.Path)
	same(&leaf.Serial, other.Serial)
	same(&leaf.Issuer, other.Issuer)
	if len(leaf.Names) > 0 && slices.Equal(leaf.Names, other.Names) {
		leaf.Names = other.Names
	}
}

// share makes the texts of a finding those of the leaf.
func (f *Finding) share(leaf notify.Certificate) {
	same(&f.Certificate, leaf.Name)
	same(&f.ExpectedSHA256, leaf.SHA256)
	s := f.Served
	if s == nil {
		return
	}
	for i, sum := range s.Chain { // of issuers, which have many leaves
		if same(&s.Chain[i], leaf.SHA256); i > 0 {
			s.Chain[i] = unique.Make(sum).Value()
		}
	}
	if s.SHA256 != leaf.SHA256 {
		return
	}
	s.SHA256, s.Serial, s.Issuer = leaf.SHA256, leaf.Serial, leaf.Issuer
	if len(s.Names) > 0 && slices.Equal(s.Names, leaf.Names) {
		s.Names = leaf.Names
	}
}

// share is for a state that was read from disk.
func (s *State) share(name string) {
	s.Name = name
	if s.Disk == nil {
		return
	}
	leaf := &s.Disk.Leaf
	leaf.Issuer = unique.Make(leaf.Issuer).Value()
	same(&leaf.Name, name)
	same(&s.Disk.Facts.SHA256, leaf.SHA256)
	if s.Story != nil {
		share(&s.Story.Leaf, *leaf)
	}
	for i := range s.History {
		same(&s.History[i].SHA256, leaf.SHA256)
	}
	for i := range s.Findings {
		s.Findings[i].share(*leaf)
	}
}
