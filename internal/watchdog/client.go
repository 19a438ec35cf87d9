package watchdog

import (
	"context"
	"time"
)

// clientEvery is how often it is looked whether the ACME client's run goes on,
// while the grace of a renewal depends on it.
const clientEvery = time.Second

// lookAtClients asks, for the certificates whose grace is not over, whether a run
// of the ACME client goes on.
func (k *Keeper) lookAtClients(now time.Time) {
	if k.o.Client == nil || k.clientsAsked || len(k.inGrace) == 0 || now.Before(k.clientsAt) {
		return
	}
	paths := make(map[string]string, len(k.inGrace))
	for name, c := range k.inGrace {
		paths[name] = c.path
	}
	k.clientsAsked = true
	k.hands.clients(k.ctx, paths, func(running map[string]bool) {
		k.clientsAsked, k.clientsAt = false, k.clock.Now().Add(clientEvery)
		for _, name := range sortedKeys(running) {
			if c := k.certs[name]; c != nil && c.inGrace() && c.state.Story.Running != running[name] {
				k.apply(c, Input{Client: &ClientRun{Running: running[name]}})
			}
		}
	})
}

// inGrace reports whether the ACME client's own hooks have still time.
func (c *cert) inGrace() bool {
	return c.state.Standing == Open && !c.state.Story.GraceOver && c.policy.Watched
}

// clientRuns asks for each of the paths. It runs outside the loop.
func (k *Keeper) clientRuns(ctx context.Context, paths map[string]string) map[string]bool {
	out := make(map[string]bool, len(paths))
	for name, path := range paths {
		out[name] = k.o.Client(ctx, path)
	}
	return out
}
