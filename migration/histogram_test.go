package migration

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// samples draws n durations that look like waits for pages: most short, a long
// tail, and now and then one of any size at all.
func samples(rng *rand.Rand, n int) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		switch rng.IntN(10) {
		case 0:
			out[i] = time.Duration(rng.Int64N(math.MaxInt64))
		case 1:
			out[i] = time.Duration(rng.IntN(40))
		default:
			out[i] = time.Duration(math.Exp(rng.NormFloat64()*2 + 11))
		}
	}
	return out
}

func TestQuantilesAreWithinSevenPercent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		all := samples(rng, 1+rng.IntN(500))
		var h histogram
		for _, d := range all {
			h.add(d)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
			want := all[min(int(q*float64(len(all))), len(all)-1)]
			got := h.quantile(q)
			if got < want || float64(got) > 1.07*float64(want) {
				t.Fatalf("round %d: quantile %v of %d samples is %d, exactly %d", round, q, len(all), got, want)
			}
		}
		if got := h.quantile(1); got != all[len(all)-1] {
			t.Fatalf("round %d: the longest is %d, exactly %d", round, got, all[len(all)-1])
		}
	}
}

func TestAHistogramOfNothing(t *testing.T) {
	var h histogram
	if got := h.quantile(0.99); got != 0 || h.log2Micros() != nil {
		t.Errorf("quantile %v, buckets %v", got, h.log2Micros())
	}
	h.add(-time.Second) // a clock that was set back
	if h.count.Load() != 1 || h.quantile(1) != 0 {
		t.Errorf("a negative duration counts as %v", h.quantile(1))
	}
}

func TestEveryDurationHasABucketThatHoldsIt(t *testing.T) {
	check := func(d uint64) {
		i := bucketOf(d)
		if d > bucketTop(i) || i > 0 && d <= bucketTop(i-1) {
			t.Errorf("%d is in bucket %d, which ends at %d", d, i, bucketTop(i))
		}
	}
	for shift := range 63 {
		for _, d := range []uint64{1<<shift - 1, 1 << shift, 1<<shift + 1} {
			check(d)
		}
	}
	check(math.MaxInt64)
	for d := range uint64(5000) {
		check(d)
	}
}

// The edges are powers of two of a microsecond; the buckets underneath are
// 6 % wide, so that only a sample that close to an edge may be on its other side.
func TestLog2MicrosCountsEverySampleInItsPowerOfTwo(t *testing.T) {
	for _, c := range []struct {
		us   float64
		want int
	}{
		{0, 0}, {0.5, 0}, {0.9, 0}, {1.1, 1}, {1.8, 1}, {2.2, 2}, {3.6, 2}, {4.4, 3},
		{100, 7}, {300, 9}, {1000, 10}, {1e6, 20}, {5e9, 33},
	} {
		var h histogram
		h.add(time.Duration(c.us * 1000))
		got := h.log2Micros()
		if len(got) != c.want+1 || got[c.want] != 1 {
			t.Errorf("%v us: %v, want one in element %d, the last", c.us, got, c.want)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	var h histogram
	all := samples(rng, 1000)
	for _, d := range all {
		h.add(d)
	}
	var sum uint64
	for _, n := range h.log2Micros() {
		sum += n
	}
	if sum != uint64(len(all)) {
		t.Errorf("%d samples in the buckets, %d added", sum, len(all))
	}
}

func TestAHistogramIsAddedToFromManyThreads(t *testing.T) {
	const threads, each = 4, 2000
	var h histogram
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			for j := range each {
				h.add(time.Duration(i*each + j))
			}
		})
	}
	wg.Wait()
	if h.count.Load() != threads*each || h.quantile(1) != threads*each-1 {
		t.Errorf("%d added, the longest %d", h.count.Load(), h.quantile(1))
	}
	if n := testing.AllocsPerRun(100, func() { h.add(time.Microsecond) }); n != 0 {
		t.Errorf("adding allocates %v times", n)
	}
}
