package migration

import (
	"testing"
	"time"
)

// A way that memory takes: what compressing it costs, what it leaves, and what
// the link takes.
type weather struct {
	codec float64 // ns to compress a byte
	left  float64 // share of the bytes that compression leaves
	link  float64 // ns to send a byte
}

// batch says how long a batch takes to get away.
func (w weather) batch(bytes int, compress bool) time.Duration {
	cost := w.link
	if compress {
		cost = w.codec + w.left*w.link
	}
	return time.Duration(cost * float64(bytes))
}

// TestCompressionGoesOnForAsLongAsItPays: how much of memory is compressed in
// different weather, and that it takes hardly longer than the better way alone.
func TestCompressionGoesOnForAsLongAsItPays(t *testing.T) {
	const (
		s2, zstd   = 0.5, 2.5 // ns a byte
		gbit, fast = 8, 0.25  // likewise
		mem        = 1 << 30
	)
	for _, c := range []struct {
		name        string
		first, then weather // in the first half, and in the second
		least, most float64 // share that is compressed
	}{
		{"text over 1 Gbit/s by s2", weather{s2, 0.3, gbit}, weather{s2, 0.3, gbit}, 0.98, 1},
		{"text over 1 Gbit/s by zstd", weather{zstd, 0.2, gbit}, weather{zstd, 0.2, gbit}, 0.98, 1},
		{"noise over 1 Gbit/s", weather{s2, 1, gbit}, weather{s2, 1, gbit}, 0, 0.06},
		{"noise over a slow link by zstd", weather{zstd, 1, 10 * gbit}, weather{zstd, 1, 10 * gbit}, 0, 0.06},
		{"text over loopback by zstd", weather{zstd, 0.2, fast}, weather{zstd, 0.2, fast}, 0, 0.02},
		{"text over loopback by s2", weather{s2, 0.3, fast}, weather{s2, 0.3, fast}, 0, 0.05},
		{"hardly smaller", weather{s2, 0.9, gbit}, weather{s2, 0.9, gbit}, 0, 0.06},
		{"noise, then text", weather{s2, 1, gbit}, weather{s2, 0.3, gbit}, 0.4, 0.53},
		{"text, then noise", weather{s2, 0.3, gbit}, weather{s2, 1, gbit}, 0.49, 0.56},
		{"a link that becomes slow", weather{zstd, 0.3, fast}, weather{zstd, 0.3, gbit}, 0.45, 0.52},
		{"a link that becomes fast", weather{zstd, 0.3, gbit}, weather{zstd, 0.3, fast}, 0.48, 0.6},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorth()
			var took, best time.Duration
			var compressed, turns int
			for sent := 0; sent < mem; sent += batchBytes {
				now := c.first
				if sent >= mem/2 {
					now = c.then
				}
				d := now.batch(batchBytes, w.compress)
				if w.compress {
					compressed += batchBytes
				}
				took += d
				best += min(now.batch(batchBytes, true), now.batch(batchBytes, false))
				before := w.compress
				w.sent(batchBytes, d)
				if w.compress != before {
					turns++
				}
			}
			share := float64(compressed) / mem
			if share < c.least || share > c.most {
				t.Errorf("%.1f %% of memory was compressed, want %.0f to %.0f %%", share*100, c.least*100, c.most*100)
			}
			if over := float64(took)/float64(best) - 1; over > 0.12 {
				t.Errorf("took %.1f %% longer than the better way alone", over*100)
			}
			t.Logf("%.1f %% compressed, %d turns, %.1f %% over the better way", share*100, turns, (float64(took)/float64(best)-1)*100)
		})
	}
}

// What is written into a socket that was empty is no measure of the link.
func TestTheFirstBytesAfterATurnDoNotCount(t *testing.T) {
	w := newWorth()
	link := weather{codec: 1, left: 0.2, link: 8}
	buffered := 0
	for range 4 << 30 / batchBytes {
		before := w.compress
		d := link.batch(batchBytes, w.compress)
		if !w.compress && buffered > 0 {
			d, buffered = d/100, buffered-batchBytes
		}
		w.sent(batchBytes, d)
		if before && !w.compress {
			buffered = worthSettle // what the socket takes at once
		}
		if w.packed.windows > 0 && w.plain.windows > 0 && !w.better() {
			t.Fatalf("taken in: plain %.2f ns a byte, compressed %.2f", w.plain.cost(), w.packed.cost())
		}
	}
}

// A host that had something else to do while compression was first measured
// must not have it left out for the whole of a migration.
func TestABadStartIsMadeUpFor(t *testing.T) {
	w := newWorth()
	link := weather{codec: 1, left: 0.2, link: 8}
	const mem = 512 << 20
	compressed := 0
	for sent := 0; sent < mem; sent += batchBytes {
		d := link.batch(batchBytes, w.compress)
		if sent < worthSettle+worthWindow {
			d *= 20
		}
		if w.compress {
			compressed += batchBytes
		}
		w.sent(batchBytes, d)
	}
	if compressed < mem*8/10 {
		t.Errorf("%.1f %% was compressed", float64(compressed)/mem*100)
	}
}

// Nor may one that takes its CPU away for a moment, now and then.
func TestAMomentWithoutACPUChangesNothing(t *testing.T) {
	for _, c := range []struct {
		name        string
		link        weather
		least, most float64
	}{
		{"worth it", weather{codec: 1, left: 0.2, link: 8}, 0.95, 1},
		{"not worth it", weather{codec: 1, left: 0.9, link: 2}, 0, 0.06},
	} {
		w := newWorth()
		const mem = 1 << 30
		compressed := 0
		for i := range mem / batchBytes {
			d := c.link.batch(batchBytes, w.compress)
			if i%41 == 7 { // about each fifth window
				d += 20 * time.Millisecond
			}
			if w.compress {
				compressed += batchBytes
			}
			w.sent(batchBytes, d)
		}
		if share := float64(compressed) / mem; share < c.least || share > c.most {
			t.Errorf("%s: %.1f %% was compressed", c.name, share*100)
		}
	}
}

// Without memory that could be compressed nothing is decided.
func TestZerosDecideNothing(t *testing.T) {
	w := newWorth()
	for range 100 {
		w.sent(0, time.Second)
	}
	if !w.compress || w.plain.windows != 0 || w.packed.windows != 0 {
		t.Errorf("%+v", w)
	}
}
