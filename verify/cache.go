package verify

import (
	"container/list"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"
)

// cachedChains bounds how many chains' verification is remembered: building a
// path costs a good fifth of a handshake, and one lineage is sampled often.
const cachedChains = 1024

// chainKey stands for everything a pathResult depends on but the time.
type chainKey struct {
	roots *x509.CertPool
	extra [sha256.Size]byte
	chain [sha256.Size]byte
}

func newChainKey(roots *x509.CertPool, extra []*x509.Certificate) chainKey {
	return chainKey{roots: roots, extra: hashChain(extra)}
}

func (k chainKey) with(chain []*x509.Certificate) chainKey {
	k.chain = hashChain(chain)
	return k
}

func hashChain(chain []*x509.Certificate) (sum [sha256.Size]byte) {
	h := sha256.New()
	var size [8]byte
	for _, c := range chain {
		binary.BigEndian.PutUint64(size[:], uint64(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	h.Sum(sum[:0])
	return sum
}

// chainCache remembers the least long unused pathResults.
type chainCache struct {
	mu    sync.Mutex
	order list.List // of *chainEntry, the latest used first
	found map[chainKey]*list.Element
}

type chainEntry struct {
	key    chainKey
	result pathResult
}

func newChainCache() *chainCache {
	return &chainCache{found: make(map[chainKey]*list.Element)}
}

// get returns a result that still holds at now.
func (c *chainCache) get(key chainKey, now time.Time) (pathResult, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.found[key]
	if !ok {
		return pathResult{}, false
	}
	r := el.Value.(*chainEntry).result
	if now.Before(r.from) || !now.Before(r.until) {
		c.order.Remove(el)
		delete(c.found, key)
		return pathResult{}, false
	}
	c.order.MoveToFront(el)
	return r, true
}

func (c *chainCache) put(key chainKey, r pathResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.found[key]; ok {
		el.Value.(*chainEntry).result = r
		c.order.MoveToFront(el)
		return
	}
	c.found[key] = c.order.PushFront(&chainEntry{key, r})
	if c.order.Len() > cachedChains {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.found, last.Value.(*chainEntry).key)
	}
}
