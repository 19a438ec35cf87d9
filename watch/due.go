package watch

import (
	"container/heap"
	"runtime"
	"sync"
	"sync/atomic"
)

// dueItems is a heap of the items that are to look, the earliest first.
type dueItems []*item

func (d dueItems) Len() int           { return len(d) }
func (d dueItems) Less(i, j int) bool { return d[i].due.Before(d[j].due) }

func (d dueItems) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = int32(i+1), int32(j+1)
}

// Push is for package heap.
func (d *dueItems) Push(x any) {
	it := x.(*item)
	*d = append(*d, it)
	it.place = int32(len(*d))
}

// Pop is for package heap.
func (d *dueItems) Pop() any {
	last := len(*d) - 1
	it := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	it.place = 0
	return it
}

// schedule puts an item where its due time says.
func (l *loop) schedule(it *item) {
	at := int(it.place) - 1
	switch {
	case it.due.IsZero() && at >= 0:
		heap.Remove(&l.due, at)
	case it.due.IsZero():
	case at >= 0:
		heap.Fix(&l.due, at)
	default:
		heap.Push(&l.due, it)
	}
}

// each has work done for every number below n, on as many goroutines as there
// are processors, and returns when it is. begin makes what one goroutine calls.
func each(n int, begin func() func(i int)) {
	var next atomic.Int64
	work := func() {
		f := begin()
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}
