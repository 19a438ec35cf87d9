package watchdog

import (
	"context"
	"time"

	"github.com/renewatch/renewatch/internal/ari"
	"github.com/renewatch/renewatch/notify"
	"github.com/renewatch/renewatch/watch/acmelog"
)

// Question is what a CA is asked: when it wants a certificate renewed (ACME Renewal
// Information, RFC 9773).
type Question struct {
	Path  string // the certificate file
	CA    string // the directory that the ACME client's log named; may be empty
	Roots Roots
}

// Asker asks a CA. Its error is an *ari.Error, or the context's.
type Asker func(ctx context.Context, q Question) (ari.Answer, error)

// Answered is what came of an Ask.
type Answered struct {
	Answer ari.Answer
	Err    error
}

// Ask asks the CA when it wants the certificate renewed.
type Ask struct{ CA string }

func (Ask) command() {}

// asksAtOnce is how many CAs are asked at the same time.
const asksAtOnce = 4

// renewalInfo asks the CA of the certificate that is served, as often as it allows,
// beginning at some time in the first routine interval.
func (k *step) renewalInfo() {
	s := k.s
	if !k.p.ARI || s.Standing != Verified || k.impaired != "" || !s.Fresh || !k.now.Before(s.Disk.Leaf.NotAfter) {
		return
	}
	if s.ARI == nil {
		s.ARI = &ari.Seen{AskAt: k.now.Add(time.Duration(float64(k.p.Every) * k.draw))}
		return
	}
	if k.now.Before(s.ARI.AskAt) {
		return
	}
	// Should a kill come before the answer, that was one question too.
	seen := *s.ARI
	seen.AskAt = k.now.Add(askAgain)
	s.ARI = &seen
	ca := ""
	if t := s.Story; t.Try != nil && !t.Try.Attempt.Doubtful {
		ca = t.Try.Attempt.CA
	}
	k.cmds = append(k.cmds, Ask{CA: ca})
}

// askAgain is when a question that nobody answered is asked again.
const askAgain = time.Hour

// answered takes in what the CA said.
func (k *step) answered(in *Answered) {
	s := k.s
	if s.ARI == nil || s.Disk == nil {
		return // of a leaf before this one
	}
	seen := *s.ARI
	s.ARI = &seen
	if in.Err != nil {
		seen.Missed(in.Err, k.now)
		*s.ARI = seen
		return
	}
	if leaf := s.Disk.Leaf; !in.Answer.NotBefore.Equal(leaf.NotBefore) || !in.Answer.NotAfter.Equal(leaf.NotAfter) {
		return // it tells of another leaf
	}
	verdict := seen.Judge(in.Answer, k.now)
	*s.ARI = seen
	if verdict != ari.Replace || s.Replace == s.Disk.Leaf.SHA256 {
		return
	}
	s.Replace = s.Disk.Leaf.SHA256
	tr := k.trying()
	k.sayTrying(notify.RenewalOverdue, notify.Error, tr.Last, func(d *notify.Data) {
		d.Cause = CauseRevoked
		if tr.Last != nil || k.p.Logged {
			tried := tr.Last != nil
			d.Tried = &tried
		}
		d.Detail, d.Hint = k.tellsReplace()
		d.Next = &notify.Next{Action: "person"}
	})
}

// replace reports whether the CA asks for the leaf on disk to be replaced.
func (k *step) replace() bool {
	return k.s.ARI != nil && k.s.Replace == k.s.Disk.Leaf.SHA256 && k.s.ARI.Confirmed
}

func (k *step) tellsReplace() (detail, hint string) {
	detail = "the CA asks for this certificate to be replaced now: it was revoked, or will be"
	hint = "renew it by force with the ACME client"
	if t := k.s.Story; t != nil && t.Try != nil && acmelog.Client(t.Try.Attempt.Client) == acmelog.Certbot {
		hint = "renew it by force: certbot renew --force-renewal --cert-name " + orSentence(t.Try.Attempt.Lineage, k.p.Name)
	}
	if page := k.s.ARI.Last.Explanation; page != "" {
		hint += "; the CA explains it at " + page
	}
	return detail, hint
}

// ask carries out an Ask.
func (k *Keeper) ask(c *cert, cmd Ask) {
	if k.o.Ask == nil {
		return
	}
	name, path, q := c.policy.Name, c.path, Question{Path: c.path, CA: cmd.CA, Roots: c.conf.Roots}
	k.hands.ask(k.ctx, q, func(a Answered) {
		if k.certs[name] == c && c.path == path {
			k.apply(c, Input{Answered: &a})
		}
	})
}
