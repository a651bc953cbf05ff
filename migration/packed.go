package migration

import (
	"fmt"
	"sync/atomic"
	"time"

	"microvm/migration/wire"
)

// CompressionReport says what compression did to the runs of pages that were
// pushed or sent by precopy, over all connections. What somebody waited for is
// never compressed, and not counted here.
type CompressionReport struct {
	Codec string `json:"codec"`
	// Runs sent compressed; sent as they are because compression did not take
	// an eighth off them; and because it was not tried, since memory got away
	// faster without.
	RunsCompressed uint64 `json:"runs_compressed"`
	RunsRaw        uint64 `json:"runs_raw"`
	RunsSkipped    uint64 `json:"runs_skipped"`
	BytesBefore    uint64 `json:"bytes_before"` // of memory in these runs
	BytesAfter     uint64 `json:"bytes_after"`  // what they were sent as
	TimeNS         int64  `json:"time_ns"`      // spent compressing
	// Turns is how often the sender went from trying to not trying, or back,
	// and Why the reason, in measured rates.
	Turns uint64 `json:"turns"`
	Why   string `json:"why"`
}

// packStats counts what became of runs, for all senders.
type packStats struct {
	compressedRuns, rawRuns, skippedRuns atomic.Uint64
	before, after                        atomic.Uint64
	nanos                                atomic.Int64
	turns                                atomic.Uint64
	// Of both ways, with and without compression: memory sent, and how long
	// that took the senders.
	with, without wayStats
}

type wayStats struct {
	bytes atomic.Uint64
	nanos atomic.Int64
}

func (p *packStats) compressed(before, after int, took time.Duration) {
	p.compressedRuns.Add(1)
	p.before.Add(uint64(before))
	p.after.Add(uint64(after))
	p.nanos.Add(int64(took))
}

func (p *packStats) raw(bytes int, took time.Duration) {
	p.rawRuns.Add(1)
	p.before.Add(uint64(bytes))
	p.after.Add(uint64(bytes))
	p.nanos.Add(int64(took))
}

func (p *packStats) skipped(bytes int) {
	p.skippedRuns.Add(1)
	p.before.Add(uint64(bytes))
	p.after.Add(uint64(bytes))
}

// gone takes in what a sender sent, in one way or the other.
func (p *packStats) gone(compressing bool, bytes int, took time.Duration) {
	w := &p.without
	if compressing {
		w = &p.with
	}
	w.bytes.Add(uint64(bytes))
	w.nanos.Add(int64(took))
}

// report is nil for a migration that does not compress.
func (p *packStats) report(kind wire.Kind) *CompressionReport {
	if kind == wire.KindData {
		return nil
	}
	return &CompressionReport{
		Codec:          kind.String(),
		RunsCompressed: p.compressedRuns.Load(), RunsRaw: p.rawRuns.Load(), RunsSkipped: p.skippedRuns.Load(),
		BytesBefore: p.before.Load(), BytesAfter: p.after.Load(), TimeNS: p.nanos.Load(),
		Turns: p.turns.Load(),
		Why: fmt.Sprintf("memory left at %s with compression, at %s without; tried while that is %.0f %% less time, kept where it takes %d %% off a run",
			p.with.rate(), p.without.rate(), (1-worthGain)*100, 100/leastGain),
	}
}

// rate is how fast memory left.
func (w *wayStats) rate() string {
	bytes, nanos := w.bytes.Load(), w.nanos.Load()
	if bytes == 0 || nanos == 0 {
		return "a rate not measured"
	}
	return mib(float64(bytes)/float64(nanos)*1e9) + "/s"
}
