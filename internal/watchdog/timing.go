package watchdog

import (
	"slices"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// tick does what is due by time alone.
func (k *step) tick() {
	s := k.s
	if f := s.Fault; f != nil && !f.Said && !k.now.Before(f.due()) {
		f.Said = true
		k.say(notify.FileBroken, notify.Error, func(d *notify.Data) {
			if s.Disk == nil {
				d.Certificate = &notify.Certificate{Name: k.p.Name, Path: f.Path}
			} else {
				d.Certificate = &s.Disk.Leaf
			}
			d.RenewalID = ""
			d.Detail, d.Hint = f.Sentence, f.Hint
			d.Next = &notify.Next{Action: "person"}
		})
	}
	k.tryDue()
	if s.Disk == nil || s.Standing == Removed || s.Standing == Unknown {
		return
	}
	if !k.p.Watched {
		if !s.Story.ended() {
			k.dropPending()
			k.end(notify.DeployUnverified, notify.Info, func(d *notify.Data) {
				d.Detail = "no endpoint is configured: only the files are watched"
				if s.Story.Baseline {
					d.Previous = nil
				}
			})
			s.Standing = Unverified
		}
		if s.Standing == Failed || s.Standing == Lost {
			s.Standing = Unverified
		}
		s.Probe, s.NextProbe, s.Findings = nil, time.Time{}, nil
		k.cmds = slices.DeleteFunc(k.cmds, func(c Command) bool { _, is := c.(Probe); return is })
		return
	}
	k.minded()
	k.renewalInfo()
	if s.Probe != nil {
		if k.now.Before(s.Probe.late()) {
			return
		}
		s.Probe, s.NextProbe = nil, k.now
	}
	if k.now.Before(s.NextProbe) {
		return
	}
	switch s.Standing {
	case Open:
		k.ask(Confirm, k.decision())
	case Verified:
		if i := s.Rechecks; i < len(k.p.Recheck) && !k.now.Before(s.Story.EndedAt.Add(k.p.Recheck[i])) {
			k.ask(Recheck, time.Time{})
		} else {
			k.ask(Routine, time.Time{})
		}
	default:
		k.ask(Routine, time.Time{})
	}
}

// minded takes in that a silence began or ended: nothing is repaired in it, and
// what it held back is looked at as soon as it is over.
func (k *step) minded() {
	t := k.s.Story
	if t == nil {
		return
	}
	if k.silenced() {
		k.dropPending()
		return
	}
	for _, x := range k.p.Silences { // of an endpoint that was not looked at for repairs
		if x.Endpoint != "" && !k.s.Judged.IsZero() && x.Until.After(k.s.Judged) && !k.now.Before(x.Until) {
			k.again()
		}
	}
	for server, cause := range t.Holding {
		if cause == CauseSilenced {
			delete(t.Holding, server)
			if k.again(); k.s.Standing == Open {
				k.ask(Confirm, k.now.Add(leastProbe))
			}
		}
	}
}

// decision returns when an open story must be decided on next.
func (k *step) decision() time.Time {
	t := k.s.Story
	at := t.GraceEnd
	if t.GraceOver {
		at = t.Deadline
	}
	if due := k.nextRepair(); !due.IsZero() && due.Before(at) {
		at = due
	}
	look := k.proofTime()
	if slices.ContainsFunc(k.s.Findings, func(f Finding) bool {
		return f.Unheard || down(f) && k.excluded(f) == "" && k.now.Sub(t.Fast) < downSoon
	}) {
		look = unheardLook
	}
	if look := k.now.Add(look); look.Before(at) {
		at = look // what was down may have come up with the old leaf; and an alert is judged by rounds
	}
	// The last probe before the deadline is long and fast enough to hear every
	// address, and both answers of one that gives two.
	if last := t.Deadline.Add(-lastLook); t.GraceOver && k.now.Before(last) && at.After(last) {
		at = last
	}
	if least := k.now.Add(leastProbe); at.Before(least) {
		at = least
	}
	return at
}

// routine returns when the next probe starts by itself outside an open story.
func (k *step) routine(impaired bool) time.Time {
	s := k.s
	if s.Probe != nil {
		return time.Time{}
	}
	jittered := time.Duration(float64(k.p.Every) * (0.9 + 0.2*k.draw))
	every := k.now.Add(jittered)
	if s.Suspect {
		return k.now.Add(min(suspectLook, jittered))
	}
	if impaired {
		return k.now.Add(min(impairedLook, k.p.Every))
	}
	t := s.Story
	switch s.Standing {
	case Verified:
		if s.Rechecks < len(k.p.Recheck) {
			at := t.EndedAt.Add(k.p.Recheck[s.Rechecks])
			for !k.now.Before(at) && s.Rechecks < len(k.p.Recheck) {
				s.Rechecks++ // missed while stopped: the fresh round stands for it
				if s.Rechecks < len(k.p.Recheck) {
					at = t.EndedAt.Add(k.p.Recheck[s.Rechecks])
				}
			}
			if s.Rechecks < len(k.p.Recheck) && at.Before(every) {
				return at
			}
		}
	case Failed, Lost, Unverified:
		if s.Standing == Unverified && len(k.needs()) == 0 {
			break
		}
		wait := afterTrouble
		if k.now.Sub(t.EndedAt) > time.Hour {
			wait = lateTrouble
		}
		at := k.now.Add(min(wait, jittered))
		if due := k.nextRepair(); !due.IsZero() && due.Before(at) {
			at = due
		}
		return at
	}
	return every
}
