package lineage

import (
	"context"
	"errors"
	"sync"
	"time"
)

// cache remembers answers for a while and has each question asked once at a time.
type cache[T any] struct {
	now      func() time.Time
	patience time.Duration

	mu      sync.Mutex
	answers map[string]*answer[T]
	tidyAt  int         // so many answers, and those that are old are forgotten
	forget  *time.Timer // runs while there are answers, should nobody ask any more
}

// answer is what was last answered to one question.
type answer[T any] struct {
	value       T
	from, until time.Time
	pending     chan struct{} // closed when the question under way is answered; nil: none is
}

// leastTidy bounds how often it is worth looking for old answers.
const leastTidy = 256

// errPatience: the question hangs.
var errPatience = errors.New("no answer in time")

// get answers a question from memory, or has do answer it, once for all who ask
// meanwhile. do says how long its answer may be used. A question that hangs (a dead
// NFS server) costs one goroutine; those who ask go on after the patience.
func (c *cache[T]) get(ctx context.Context, question string, do func(context.Context) (T, time.Duration)) (T, error) {
	c.mu.Lock()
	a, now := c.answers[question], c.now()
	if a != nil && a.pending == nil && !now.Before(a.from) && now.Before(a.until) {
		defer c.mu.Unlock()
		return a.value, nil
	}
	if a == nil {
		c.tidy(now)
		a = &answer[T]{}
		c.answers[question] = a
	}
	pending := a.pending
	if pending == nil {
		pending = make(chan struct{})
		a.pending = pending
		// Who leaves does not take the answer from the others.
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.patience)
		go func() {
			defer cancel()
			value, use := do(bound)
			c.mu.Lock()
			defer c.mu.Unlock()
			a.value, a.from = value, c.now()
			a.until = a.from.Add(use)
			a.pending = nil
			if c.forget == nil {
				c.forget = time.AfterFunc(forgetEvery, c.forgetOld)
			}
			close(pending)
		}()
	}
	c.mu.Unlock()

	limit := time.NewTimer(c.patience)
	defer limit.Stop()
	var none T
	select {
	case <-pending:
		c.mu.Lock()
		defer c.mu.Unlock()
		return a.value, nil
	case <-ctx.Done():
		return none, ctx.Err()
	case <-limit.C:
		return none, errPatience
	}
}

// tidy keeps the memory in proportion to what is asked for.
func (c *cache[T]) tidy(now time.Time) {
	if c.answers == nil {
		c.answers = make(map[string]*answer[T])
	}
	if len(c.answers) < max(c.tidyAt, leastTidy) {
		return
	}
	c.drop(now)
	c.tidyAt = 2 * len(c.answers)
}

// drop forgets what is old.
func (c *cache[T]) drop(now time.Time) {
	for question, a := range c.answers {
		if a.pending == nil && !now.Before(a.until) {
			delete(c.answers, question)
		}
	}
}

// forgetEvery is how often old answers are forgotten when nobody asks.
const forgetEvery = time.Minute

func (c *cache[T]) forgetOld() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drop(c.now()); len(c.answers) > 0 {
		c.forget.Reset(forgetEvery)
		return
	}
	c.answers, c.tidyAt, c.forget = nil, 0, nil // an empty map keeps its memory
}
