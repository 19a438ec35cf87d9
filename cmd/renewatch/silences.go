package main

import (
	"fmt"
	"time"

	"github.com/renewatch/renewatch/internal/silence"
	"github.com/renewatch/renewatch/internal/watchdog"
	"github.com/renewatch/renewatch/verify"
)

// sweepEvery is how often silences that ended long ago are deleted.
const sweepEvery = time.Hour

// silences brings what `renewatch silence` wrote to the keeper.
type silences struct {
	dir     silence.Dir
	seen    silence.Signature
	known   bool
	sweptAt time.Time
	faults  map[silence.Fault]bool // that were told
}

// look returns the silences when they are others than last time.
func (s *silences) look(d *daemon) ([]watchdog.Silenced, bool, error) {
	sign, err := s.dir.Signature()
	if err == nil && s.known && sign == s.seen {
		return nil, false, nil
	}
	list, faults, listErr := s.dir.List()
	if err == nil {
		err = listErr
	}
	if err != nil {
		// What holds goes on to hold: nobody is paged because a directory cannot be
		// read.
		return nil, false, fmt.Errorf("the silences cannot be read: %w", err)
	}
	s.seen, s.known = sign, true
	told := map[silence.Fault]bool{}
	for _, f := range faults {
		if told[f] = true; !s.faults[f] {
			d.log.Warn().Str("hint", f.Hint).Msg(f.String())
		}
	}
	s.faults = told
	out := make([]watchdog.Silenced, 0, len(list))
	for _, x := range list {
		z := watchdog.Silenced{All: x.All, Certificate: x.Certificate,
			Silence: watchdog.Silence{ID: x.ID, Since: x.Since, Until: x.Until, Force: x.Force}}
		if x.Endpoint != "" {
			url, err := verify.ParseEndpoint(x.Endpoint)
			if err != nil {
				continue
			}
			z.URL = url
		}
		out = append(out, z)
	}
	return out, true, nil
}

// sweep deletes silences that ended long ago. Not while the clock is in doubt.
func (s *silences) sweep(d *daemon) {
	if time.Since(s.sweptAt) < sweepEvery {
		return
	}
	if _, doubt := d.keeper.Troubles()["clock"]; doubt {
		return
	}
	s.sweptAt = time.Now()
	if _, err := s.dir.Sweep(s.sweptAt); err != nil {
		d.log.Warn().Err(err).Msg("silences that ended cannot be deleted")
	}
}

// mindSilences brings silences that were made, changed or ended to the keeper.
func (d *daemon) mindSilences() {
	list, changed, err := d.silences.look(d)
	if err != nil {
		d.keeper.Raise("silences", err.Error(), "does the directory silences in the state directory belong to the user renewatch runs as?")
		return
	}
	d.keeper.Clear("silences")
	if changed {
		d.keeper.SetSilences(list)
	}
	d.silences.sweep(d)
}
