package watchdog

import (
	"slices"
	"strings"

	"github.com/renewatch/renewatch/verify"
)

// Silenced is a silence as it was asked for: of everything, a certificate, or an
// endpoint.
type Silenced struct {
	Silence                     // Endpoint is not set
	All         bool            // every certificate, and the daemon's own alert
	Certificate string          // one certificate
	URL         verify.Endpoint // one endpoint; zero: none
}

// SetSilences replaces the silences. It returns at once where the keeper has
// ended.
func (k *Keeper) SetSilences(silences []Silenced) {
	k.do(k.ended, func() { k.setSilences(silences) })
}

func (k *Keeper) setSilences(silences []Silenced) {
	if slices.Equal(k.silences, silences) {
		return
	}
	k.silences = silences
	k.log.Info().Int("silences", len(silences)).Msg("the silences are others")
	for _, name := range sortedKeys(k.certs) {
		c := k.certs[name]
		if !slices.Equal(c.policy.Silences, k.silencesOf(c)) {
			k.apply(c, Input{Look: true}) // which takes them in
		}
	}
}

// silencesOf returns the silences of a certificate and its endpoints.
func (k *Keeper) silencesOf(c *cert) []Silence {
	var out []Silence
	for _, x := range k.silences {
		if x.All || x.Certificate != "" && strings.EqualFold(x.Certificate, c.policy.Name) {
			out = append(out, x.Silence)
			continue
		}
		if x.URL == (verify.Endpoint{}) || c.state.Disk == nil {
			continue
		}
		for _, t := range k.endpoints(c) {
			if t.URL == x.URL {
				s := x.Silence
				s.Endpoint = t.told()
				out = append(out, s)
			}
		}
	}
	return out
}

// quiet reports whether nobody is alerted of the daemon itself.
func (k *Keeper) quiet() bool {
	now := k.clock.Now()
	return slices.ContainsFunc(k.silences, func(x Silenced) bool { return x.All && x.inForce(now) })
}
