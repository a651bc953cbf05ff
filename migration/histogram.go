package migration

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets of about 6 % width, from 1 ns up to
// the longest a time.Duration holds, with a fixed footprint and without locks.
type histogram struct {
	count  atomic.Uint64
	max    atomic.Int64
	total  atomic.Int64 // nanoseconds
	bucket [64 * subBuckets]atomic.Uint32
}

// subBuckets is into how many equal parts each power of two is divided.
const (
	subBits    = 4
	subBuckets = 1 << subBits
)

// bucketOf numbers the bucket that holds d: values under subBuckets have one
// each, above that the position of the highest bit and the subBits after it.
func bucketOf(d uint64) int {
	if d < subBuckets {
		return int(d)
	}
	shift := bits.Len64(d) - 1 - subBits
	return (shift+1)*subBuckets + int(d>>shift)&(subBuckets-1)
}

// bucketTop is the largest value in bucket i.
func bucketTop(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return (uint64(subBuckets+i%subBuckets+1) << shift) - 1
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.bucket[bucketOf(uint64(d))].Add(1)
	h.count.Add(1)
	h.total.Add(int64(d))
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// quantile returns the duration that the share q (0 to 1) of all that was
// added does not exceed, to about 6 %; 0 if nothing was added.
func (h *histogram) quantile(q float64) time.Duration {
	total := h.count.Load()
	if total == 0 {
		return 0
	}
	rank := uint64(q * float64(total))
	rank = min(rank, total-1)
	var seen uint64
	for i := range h.bucket {
		seen += uint64(h.bucket[i].Load())
		if seen > rank {
			return min(time.Duration(bucketTop(i)), time.Duration(h.max.Load()))
		}
	}
	return time.Duration(h.max.Load())
}

// log2Micros gives the counts by powers of two of a microsecond: element 0
// counts what took less than 1 us, element i what took from 2^(i-1) to under
// 2^i us. It ends with the last that is not zero.
func (h *histogram) log2Micros() []uint64 {
	var out []uint64
	for i := range h.bucket {
		n := uint64(h.bucket[i].Load())
		if n == 0 {
			continue
		}
		k := bits.Len64(bucketTop(i) / uint64(time.Microsecond))
		for len(out) <= k {
			out = append(out, 0)
		}
		out[k] += n
	}
	return out
}
