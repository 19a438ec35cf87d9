package watchdog

import (
	"fmt"

	"github.com/renewatch/renewatch/notify"
)

// reloaded takes in how a reload ended.
func (k *step) reloaded(in *ReloadReport) {
	s, t := k.s, k.s.Story
	if t == nil {
		return
	}
	r := t.Servers[in.Server]
	mine := r != nil && r.Pending != nil && r.Pending.ID == in.ID
	if in.Held != "" || in.Dropped {
		if mine {
			k.notRun(r, in)
		}
		return
	}
	if in.Interrupted && !mine {
		return
	}
	about := func(d *notify.Data) {
		d.Reload, d.Detail, d.Hint = &in.Reload, in.Detail, in.Hint
		if in.RenewalID != "" && in.RenewalID != t.RenewalID {
			// It was asked for by the story before, which is over.
			d.RenewalID = in.RenewalID
			if t.Previous != nil {
				d.Certificate = t.Previous
			}
		}
	}
	switch {
	case in.Interrupted:
		k.say(notify.ReloadFailed, notify.Warning, func(d *notify.Data) {
			about(d)
			d.Detail = "renewatch was stopped while this reload ran; how it ended is unknown, so the endpoints are probed first"
		})
	case in.OK:
		k.say(notify.ReloadDone, notify.Info, func(d *notify.Data) {
			about(d)
			d.Detail = orSentence(in.Detail, "the server was told to reload; whether it did is probed now")
			if in.Shared > 1 {
				d.Detail += fmt.Sprintf(" (one reload for %d certificates)", in.Shared)
			}
			d.Next = &notify.Next{Action: "probe", At: k.now}
		})
	default:
		k.say(notify.ReloadFailed, notify.Error, about)
	}
	if !mine {
		return
	}
	r.Once = r.Once || r.Pending.Once
	r.Pending = nil
	// The first one that a kill cut off does not count: it may never have begun.
	if !in.Interrupted || r.Interrupted {
		r.Attempts++
	}
	r.Interrupted = r.Interrupted || in.Interrupted
	r.Finished, r.Holds = k.now, 0
	if in.Run != "" {
		r.Runs = append(r.Runs, in.Run)
	}
	t.Fast = k.now
	switch s.Standing {
	case Open:
		k.again()
	case Failed, Lost, Unverified:
		k.ask(Confirm, k.now.Add(k.proofTime()))
	}
}

// notRun takes in that a reload was held back right before it, or forgotten.
func (k *step) notRun(r *Repair, in *ReloadReport) {
	r.Pending = nil
	if in.Dropped {
		k.again()
		return
	}
	if in.Held == CauseLimit {
		r.LimitUntil = in.OpensAt
	}
	r.LastHeld = k.now
	r.Holds++
	// A pair that is at fault only for the moment of a swap is no story: the
	// watcher tells one that lasts, and then it is held by that.
	if in.Held == CauseLimit || in.Held == CauseOtherPair || in.Held == CausePair && k.s.Fault != nil {
		k.held(in.Server, in.Held, in.Detail, in.Hint, in.OpensAt)
	}
	k.again()
}
