package watchdog

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"github.com/renewatch/renewatch/notify"
)

// maxTogether bounds the inputs that are taken in together.
const maxTogether = 64

// decided is what Step made of one input, before it is on disk and in force.
type decided struct {
	c    *cert
	in   Input
	next State
	cmds []Command
	err  error // it could not be written
}

// together runs f, which takes in several inputs, and then makes durable all at
// once what they decided: a disk takes hardly longer for many files than for one.
// Nothing is done or told before it is.
func (k *Keeper) together(f func()) {
	k.gathering = true
	f()
	k.gathering = false
	k.commit()
}

// gather notes what an input decided, to be written with others; false when
// nothing is being gathered.
func (k *Keeper) gather(c *cert, in Input, next State, cmds []Command) bool {
	if !k.gathering {
		return false
	}
	c.decided = &decided{c: c, in: in, next: next, cmds: cmds}
	k.gathered = append(k.gathered, c.decided)
	return true
}

// commit writes what was gathered, tells it, and puts it in force.
func (k *Keeper) commit() {
	all := k.gathered
	k.gathered = nil
	k.writeAll(all)
	var drafts []notify.Draft
	for _, d := range all {
		if d.err == nil && !d.c.waiting {
			drafts = append(drafts, d.next.Outbox...)
		}
	}
	told := len(drafts) > 0 && k.tell(drafts)
	for _, d := range all {
		if d.err == nil && told && !d.c.waiting {
			d.next.Outbox = nil
			k.dirty[d.c.policy.Name] = d.c
		}
	}
	for _, d := range all {
		k.settle(d)
	}
}

// settle puts in force what was written, unless that was done already.
func (k *Keeper) settle(d *decided) {
	c := d.c
	if c.decided != d {
		return
	}
	c.decided = nil
	if d.err != nil {
		k.agent.raise("state", "the state directory cannot be written: "+d.err.Error(), "is the disk full?")
		c.backlog = append(c.backlog, d.in)
		k.later(func() { k.catchUp(c) })
		return
	}
	k.enforce(c, d.in, d.next, d.cmds)
}

// conclude puts in force what is still in the making of a certificate, before it
// takes in more.
func (k *Keeper) conclude(c *cert) {
	if c.decided == nil {
		return
	}
	if slices.Contains(k.gathered, c.decided) {
		k.commit()
		return
	}
	k.settle(c.decided)
}

// writeAll makes states durable, and notes which could not be written.
func (k *Keeper) writeAll(all []*decided) {
	var files []file
	var of []*decided
	var sums [][32]byte
	for _, d := range all {
		data, err := json.Marshal(d.next)
		if err != nil {
			d.err = err
			continue
		}
		if sum := sha256.Sum256(data); sum != d.c.written {
			files = append(files, file{k.statePath(d.c.policy.Name), data})
			of, sums = append(of, d), append(sums, sum)
		}
	}
	for i, err := range k.files.writeAll(files) {
		if of[i].err = err; err == nil {
			k.wrote(of[i].c, of[i].next, sums[i])
		}
	}
}

// rest takes in what else has arrived, up to a bound. What the watcher saw comes
// before what was probed: it is little work, and a change that is not taken in is
// seen by nobody else.
func (k *Keeper) rest() {
	for range maxTogether - 1 {
		select {
		case o := <-k.seen:
			k.observe(o)
			continue
		default:
		}
		select {
		case r := <-k.rounds:
			k.roundDone(r)
		default:
			return
		}
	}
}

// rush is the start, when the watcher tells of all files. Probes would take the
// processors from it, so few run until all files are known.
type rush struct {
	begun time.Time // zero: there is none
	last  time.Time // when the watcher told of files last
}

const (
	rushProbes = 1
	rushQuiet  = 250 * time.Millisecond // the watcher has nothing more to tell
	rushMost   = time.Minute            // a file system may hang
)

// until returns when the rush is over, if nothing more is told; zero: it is.
func (r rush) until() time.Time {
	if r.begun.IsZero() {
		return time.Time{}
	}
	end := r.last.Add(rushQuiet)
	if most := r.begun.Add(rushMost); most.Before(end) {
		return most
	}
	return end
}

// room returns how many probes may run at once.
func (k *Keeper) room() int {
	switch until := k.rush.until(); {
	case until.IsZero():
	case k.clock.Now().Before(until):
		return rushProbes
	default:
		k.rush = rush{}
	}
	return maxProbes
}
