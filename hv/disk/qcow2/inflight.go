package qcow2

import "sync"

// inflight is the ranges of clusters of the disk that get new clusters of the
// file just now: data is on its way and the tables do not know. Nobody else
// may change their entries. It is used with alloc held.
type inflight struct {
	n       int
	ranges  [maxInflight]struct{ first, last int64 }
	changed sync.Cond
}

// wait returns false at once if there is room for a range and nobody works
// between first and last. Else it waits for a change and returns true.
func (f *inflight) wait(first, last int64) bool {
	if f.n < len(f.ranges) && !f.overlaps(first, last) {
		return false
	}
	f.changed.Wait()
	return true
}

func (f *inflight) overlaps(first, last int64) bool {
	for _, r := range f.ranges[:f.n] {
		if first <= r.last && r.first <= last {
			return true
		}
	}
	return false
}

func (f *inflight) add(first, last int64) {
	f.ranges[f.n].first, f.ranges[f.n].last = first, last
	f.n++
}

// remove takes out the range that begins with first.
func (f *inflight) remove(first int64) {
	for k := range f.ranges[:f.n] {
		if f.ranges[k].first == first {
			f.n--
			f.ranges[k] = f.ranges[f.n]
			break
		}
	}
	f.changed.Broadcast()
}
